"""One vector for many arrays: where each of them lies in it.

Requires nothing of any library. All parameters of a network are one contiguous vector; so is the gradient, and so is
each vector that an optimizer remembers. A layout names the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..program.ir import Array
from ..runtime.arrays import device_of


@dataclass(frozen=True)
class Layout:
    """Names and shapes, in the order in which the arrays follow each other.

    Examples
    --------
    >>> import numpy as np
    >>> layout = Layout((("kernel", (2, 1)), ("bias", (1,))))
    >>> layout.size, layout.split(np.arange(3.0))["bias"].tolist()
    (3, [2.0])
    """

    pieces: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Layout:
        """The layout of these arrays, in their order."""
        return cls(tuple((name, tuple(array.shape)) for name, array in arrays.items()))

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(math.prod(shape) for _, shape in self.pieces)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each piece by its name."""
        return dict(self.pieces)

    def split(self, vector: Array, prefix: str = "", xp: Any = None) -> dict[str, Array]:
        """The pieces whose names begin with ``prefix``, without it; views where the library has views."""
        found, start = {}, 0
        for name, shape in self.pieces:
            end = start + math.prod(shape)
            if name.startswith(prefix):
                piece = vector[start:end]
                found[name[len(prefix) :]] = piece.reshape(shape) if xp is None else xp.reshape(piece, shape)
            start = end
        return found

    def join(self, xp: Any, arrays: Mapping[str, Array], like: Array) -> Array:
        """The vector of these pieces; ``like`` is one of the same dtype and device, for when there is none."""
        if not self.pieces:
            return xp.zeros((0,), dtype=like.dtype, device=device_of(like))
        return xp.concat([xp.reshape(arrays[name], (-1,)) for name, _ in self.pieces], axis=0)
