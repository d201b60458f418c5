"""How cuBLAS is asked for the product of two buffers.

Requires nothing. cuBLAS counts down columns first, arrays here along rows; so the transposed product is asked for.
"""

from __future__ import annotations

from portablenn.runtime.kernels.buffers import Buffer


def leading_dimension(buffer: Buffer) -> tuple[bool, int]:
    """Whether the columns, not the rows, lie in order; and how far apart two lines are."""
    (rows, columns), (down, across) = buffer.shape, buffer.strides
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(down if rows > 1 else columns, 1)
    return True, max(across if columns > 1 else rows, 1)
