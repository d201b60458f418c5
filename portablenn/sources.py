"""Rows that are made as they are wanted: of SciPy's sparse matrices, which would not fit into memory as a whole.

Requires nothing: a sparse matrix brings its own methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .arrays import is_array
from .program.ir import Array


class Source(Protocol):
    """Rows of numbers somewhere."""

    shape: tuple[int, ...]
    dtype: Any

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, (rows, columns), by their numbers, (rows,)."""

    def part(self, rows: np.ndarray) -> Source:
        """A source of some of the rows alone."""


@dataclass(frozen=True)
class SparseRows:
    """The rows of a SciPy matrix in compressed sparse row format.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> SparseRows.of(csr_array([[0.0, 1.0], [2.0, 0.0]])).take(np.asarray([1])).tolist()
    [[2.0, 0.0]]
    """

    matrix: Any

    @classmethod
    def of(cls, matrix: Any) -> SparseRows:
        """Of any of SciPy's formats."""
        return cls(matrix.tocsr())

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return tuple(self.matrix.shape)

    @property
    def dtype(self) -> Any:
        """Of the numbers."""
        return self.matrix.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        return np.asarray(self.matrix[rows].toarray())

    def part(self, rows: np.ndarray) -> SparseRows:
        """See `Source`."""
        return SparseRows(self.matrix[rows])


def is_sparse(x: Any) -> bool:
    """Whether it is one of SciPy's sparse matrices or arrays.

    Examples
    --------
    >>> is_sparse(np.zeros(3))
    False
    """
    return hasattr(x, "tocsr") and hasattr(x, "toarray")


def some_rows(x: Array | Source, rows: slice) -> Array:
    """Rows of an array, or made by a source.

    Examples
    --------
    >>> some_rows(np.eye(3), slice(1, 2)).tolist()
    [[0.0, 1.0, 0.0]]
    """
    if is_array(x):
        return x[rows, :]  # type: ignore[index]
    return x.take(np.arange(rows.start, rows.stop))
