"""Flat parameters: many named arrays as the slices of one vector, as are the gradient and each optimizer slot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..program.ir import Array
from ..runtime.arrays import device_of


@dataclass(frozen=True)
class FlatParams:
    """The names and shapes of the arrays in a vector, in their order."""

    pieces: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> FlatParams:
        """Return the description of these arrays, in their order."""
        return cls(tuple((name, tuple(array.shape)) for name, array in arrays.items()))

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(math.prod(shape) for _, shape in self.pieces)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each piece by its name."""
        return dict(self.pieces)

    def split(self, xp: Any, vector: Array, prefix: str = "") -> dict[str, Array]:
        """Return the arrays whose names start with ``prefix``, which is stripped; views where the library has views."""
        arrays, start = {}, 0
        for name, shape in self.pieces:
            end = start + math.prod(shape)
            if name.startswith(prefix):
                arrays[name[len(prefix) :]] = xp.reshape(vector[start:end], shape)
            start = end
        return arrays

    def join(self, xp: Any, arrays: Mapping[str, Array], like: Array) -> Array:
        """Return the vector of these arrays; without any an empty one, of the dtype and on the device of ``like``."""
        if not self.pieces:
            return xp.zeros((0,), dtype=like.dtype, device=device_of(like))
        return xp.concat([xp.reshape(arrays[name], (-1,)) for name, _ in self.pieces], axis=0)
