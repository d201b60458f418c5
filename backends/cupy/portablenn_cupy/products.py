"""How cuBLAS is asked for the product of two places.

Requires nothing. cuBLAS counts down columns first, arrays here along rows; so the transposed product is asked for.
"""

from __future__ import annotations

from portablenn.runtime.kernels.buffers import Place


def line_step(place: Place) -> tuple[bool, int]:
    """Whether the columns, not the rows, lie in order; and how far apart two lines are."""
    (rows, columns), (down, across) = place.shape, place.strides
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(down if rows > 1 else columns, 1)
    return True, max(across if columns > 1 else rows, 1)
