"""Rows that are not one array in memory: sparse matrices, blocks that are read one at a time, and streams of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..program.ir import Array
from ..runtime.arrays import is_array

BLOCK_SIZE = 1 << 20
"""Default number of elements in a block of `Rows`, approximately."""


class Source(Protocol):
    """Rows that are made on demand, in any order."""

    shape: tuple[int, ...]
    dtype: Any

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers, shape (k, columns), for row numbers of shape (k,)."""

    def subset(self, rows: np.ndarray) -> Source:
        """Return a source that holds these rows only."""


@dataclass(frozen=True)
class SparseRows:
    """The rows of a SciPy matrix in compressed sparse row format; a `Source`."""

    matrix: Any

    @classmethod
    def of(cls, matrix: Any) -> SparseRows:
        """Convert a matrix of any sparse format."""
        return cls(matrix.tocsr())

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape)

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())

    def subset(self, rows: np.ndarray) -> SparseRows:
        return SparseRows(self.matrix[rows])


def is_sparse(x: Any) -> bool:
    """Return whether ``x`` is a sparse matrix or array of SciPy."""
    return hasattr(x, "tocsr") and hasattr(x, "toarray")


def slice_rows(x: Array | Source, rows: slice) -> Array:
    """Return a slice of the rows of an array or a source."""
    if is_array(x):
        return x[rows, :]  # type: ignore[index]
    return x.take(np.arange(rows.start, rows.stop))


Block = tuple[Any, Any, Any]
"""Rows of shape (n, columns), targets of shape (n,) or (n, outputs), and weights of shape (n,) or None."""


@runtime_checkable
class Blocks(Protocol):
    """Rows with targets in blocks, of which only some are in memory at a time.

    Attributes
    ----------
    sizes : tuple of int
        Number of rows of each block.
    columns : int
        Number of columns.
    """

    sizes: tuple[int, ...]
    columns: int

    def read(self, block: int) -> Block:
        """Return rows, targets and weights (or None) of the block with this number."""


class Rows:
    """Rows, targets and weights that are read block by block: a memory map, or anything that slices like an array.

    Parameters
    ----------
    X
        Shape (rows, columns): a ``numpy.memmap``, an HDF5 data set, a Zarr array, an array.
    y
        Shape (rows,) or (rows, outputs); None for prediction.
    weights
        Shape (rows,).
    block_rows
        Number of consecutive rows in a block; None for about a million elements. The order of the blocks is shuffled, then
        the rows of several blocks together.

    Examples
    --------
    >>> import portablenn as pnn
    >>> X, y = np.eye(10), np.arange(10) % 2
    >>> rows = Rows(X, y, block_rows=4)
    >>> rows.sizes
    (4, 4, 2)
    >>> net = pnn.mlp([10, 4, 2], loss="softmax_cross_entropy")
    >>> history = net.fit(rows, epochs=3, batch_size=3)
    >>> net.predict(rows).shape
    (10,)
    """

    def __init__(self, X: Any, y: Any = None, weights: Any = None, block_rows: int | None = None) -> None:
        if len(getattr(X, "shape", ())) != 2:
            raise ValueError(f"X must be an array of shape (rows, columns), got {type(X).__name__}")
        rows, self.columns = (int(n) for n in X.shape)
        for name, other in (("y", y), ("weights", weights)):
            if other is not None and len(other) != rows:
                raise ValueError(f"X and {name} must have the same number of rows, got {rows} and {len(other)}")
        self.X, self.y, self.weights = X, y, weights
        self.block_rows = block_rows or max(1, BLOCK_SIZE // max(1, self.columns))
        full, rest = divmod(rows, self.block_rows)
        self.sizes = (self.block_rows,) * full + ((rest,) if rest else ())

    def read(self, block: int) -> Block:
        rows = slice(block * self.block_rows, block * self.block_rows + self.sizes[block])
        y, weights = (None if a is None else np.asarray(a[rows]) for a in (self.y, self.weights))
        return np.asarray(self.X[rows]), y, weights


@dataclass(frozen=True)
class BlocksSubset:
    """Some of the rows of each block of other blocks."""

    blocks: Blocks
    rows: tuple[np.ndarray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.rows))

    @property
    def columns(self) -> int:
        return self.blocks.columns

    def read(self, block: int) -> Block:
        x, y, weights = self.blocks.read(block)
        rows = self.rows[block]
        return x[rows], y[rows], None if weights is None else weights[rows]


class BatchStream:
    """Batches from an iterable, each (rows, targets) or (rows, targets, weights).

    Parameters
    ----------
    batches
        An iterable that starts again for each epoch, such as a PyTorch DataLoader; a function of the epoch number, counted
        from 0, that returns an iterable; or a generator, which lasts for one epoch.

    Attributes
    ----------
    first : Block
        The first batch of the first epoch.
    single_use : bool
        Whether the iterable can be iterated over only once.

    Examples
    --------
    >>> stream = BatchStream([(np.zeros((2, 1)), np.zeros(2))])
    >>> stream.first[0].shape, [x.shape for x, *_ in stream.epoch(0)]
    ((2, 1), [(2, 1)])
    """

    def __init__(self, batches: Iterable[Any] | Callable[[int], Iterable[Any]]) -> None:
        self._batches = batches
        iterator = self._start(0)
        builtin = type(iterator).__module__ in ("builtins", "itertools")
        self.single_use = iterator is batches and builtin  # other iterators may start again at each iter()
        try:
            first = next(iterator)
        except StopIteration:
            raise ValueError("there is no batch to train on: the iterable is empty") from None
        self.first = _copy(_as_block(first))
        self._started: Iterator[Any] | None = _chain(self.first, iterator)

    def _start(self, epoch: int) -> Iterator[Any]:
        return iter(self._batches(epoch) if callable(self._batches) else self._batches)

    def epoch(self, number: int) -> Iterator[Block]:
        """Return the batches of an epoch, copied because the iterable may reuse its memory."""
        started, self._started = self._started, None
        if callable(self._batches) and number != 0:
            started = None
        if started is None and self.single_use:
            raise ValueError(
                "a generator lasts for one epoch: pass a function of the epoch number that returns an iterable, or a list"
            )
        return (_copy(_as_block(batch)) for batch in (self._start(number) if started is None else started))

    def skip(self, epochs: int) -> None:
        """Iterate over epochs without using them, so that an iterable that shuffles itself is as far as it was."""
        if not callable(self._batches) and not isinstance(self._batches, (list, tuple)):
            for number in range(epochs):
                for _ in self.epoch(number):
                    pass


def _as_block(batch: Any) -> Block:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(f"expected batches (X, y) or (X, y, weights), got {type(batch).__name__}")
    x, y, *rest = batch
    return x, y, rest[0] if rest else None


def _chain(first: Any, iterator: Iterator[Any]) -> Iterator[Any]:
    """Yield both, by next() alone: some iterators start again whenever iter() is called."""
    yield first
    while (following := next(iterator, None)) is not None:
        yield following


def _copy(block: Block) -> Block:
    x, y, weights = (a.copy() if isinstance(a, np.ndarray) else a.clone() if hasattr(a, "clone") else a for a in block)
    return x, y, weights
