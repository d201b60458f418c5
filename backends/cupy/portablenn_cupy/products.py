"""Operands of cuBLAS, which stores columns contiguously; arrays here store rows, so it computes the transposed product."""

from __future__ import annotations

from portablenn.runtime.kernels.buffers import Buffer


def leading_dimension(buffer: Buffer) -> tuple[bool, int]:
    """Return whether columns, not rows, are contiguous, and the leading dimension."""
    (rows, columns), (down, across) = buffer.shape, buffer.strides
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(down if rows > 1 else columns, 1)
    return True, max(across if columns > 1 else rows, 1)
