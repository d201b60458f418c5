"""Rows that do not lie in memory as a whole: made as they are wanted, read block by block, or handed over batch by batch.

Requires nothing: a sparse matrix brings its own methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..program.ir import Array
from ..runtime.arrays import is_array


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


Block = tuple[Any, Any, Any]
"""Rows, (n, columns), targets, (n,) or (n, outputs), and weights, (n,) or None."""


@runtime_checkable
class Blocks(Protocol):
    """Rows with their targets in blocks, of which some are in memory at a time.

    Attributes
    ----------
    sizes : tuple of int
        The rows of each block.
    columns : int
        Of a row.
    """

    sizes: tuple[int, ...]
    columns: int

    def read(self, block: int) -> Block:
        """The rows of a block, by its number, their targets, and their weights or None."""


class Stream:
    """Batches as they come: (rows, targets) or (rows, targets, weights) each.

    Parameters
    ----------
    batches
        Something to iterate over, once an epoch, such as a PyTorch DataLoader; or a function of the epoch's number, from 0,
        that returns such; or a generator, for a single epoch.

    Examples
    --------
    >>> stream = Stream([(np.zeros((2, 1)), np.zeros(2))])
    >>> stream.first[0].shape, [x.shape for x, *_ in stream.epoch(0)]
    ((2, 1), [(2, 1)])
    """

    def __init__(self, batches: Iterable[Any] | Callable[[int], Iterable[Any]]) -> None:
        self._function = batches if callable(batches) else None
        self._batches = None if callable(batches) else batches
        iterator = self._begin(0)
        ready_made = type(iterator).__module__ in ("builtins", "itertools")
        self.once = iterator is batches and ready_made  # others may begin anew at each iter()
        try:
            first = next(iterator)
        except StopIteration:
            raise ValueError("there is no batch to train on: the iterable is empty") from None
        self.first = _copied(_as_block(first))
        self._begun: Iterator[Any] | None = _with_rest(self.first, iterator)

    def _begin(self, epoch: int) -> Iterator[Any]:
        if self._function is not None:
            return iter(self._function(epoch))
        assert self._batches is not None
        return iter(self._batches)

    def epoch(self, number: int) -> Iterator[Block]:
        """The batches of an epoch, copied, for what hands them over may use its memory again."""
        begun, self._begun = self._begun, None
        if begun is not None and self._function is not None and number != 0:
            begun = None
        if begun is None and self.once:
            raise ValueError(
                "a generator ends after one epoch: hand over a function of the epoch's number that returns one, or a list"
            )
        return (_copied(_as_block(batch)) for batch in (self._begin(number) if begun is None else begun))

    def pass_over(self, epochs: int) -> None:
        """Go through some epochs without using them, where they may differ: what is shuffled is then as far as it was."""
        if self._function is None and not isinstance(self._batches, (list, tuple)):
            for number in range(epochs):
                for _ in self.epoch(number):
                    pass


def _as_block(batch: Any) -> Block:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(f"a batch is (X, y) or (X, y, weights), found {type(batch).__name__}")
    x, y, *rest = batch
    return x, y, rest[0] if rest else None


def _with_rest(first: Any, iterator: Iterator[Any]) -> Iterator[Any]:
    """Both; by next() alone, for some begin anew whenever they are asked for an iterator."""
    yield first
    while (following := next(iterator, None)) is not None:
        yield following


def _copied(block: Block) -> Block:
    x, y, weights = (a.copy() if isinstance(a, np.ndarray) else a.clone() if hasattr(a, "clone") else a for a in block)
    return x, y, weights


@dataclass(frozen=True)
class SomeRows:
    """Some rows of each block of others.

    Examples
    --------
    >>> from portablenn.data import Rows
    >>> part = SomeRows(Rows(np.eye(3), np.arange(3)), (np.asarray([0, 2]),))
    >>> part.sizes, part.read(0)[1].tolist()
    ((2,), [0, 2])
    """

    blocks: Blocks
    rows: tuple[np.ndarray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `Blocks`."""
        return tuple(len(rows) for rows in self.rows)

    @property
    def columns(self) -> int:
        """See `Blocks`."""
        return self.blocks.columns

    def read(self, block: int) -> Block:
        """See `Blocks`."""
        x, y, weights = self.blocks.read(block)
        rows = self.rows[block]
        return x[rows], y[rows], None if weights is None else weights[rows]
