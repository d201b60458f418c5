"""Chunks: training steps that run in one compiled call, and the rule by which they take rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import random

CHUNK_OPERATIONS = 3e11
"""Multiplications and additions of one compiled call, approximately: some seconds on a CPU. Ctrl-C, time limits and callbacks
are checked between calls."""

ACCELERATED_CHUNK_OPERATIONS = 1e13
"""The same on an accelerator: some hundredths of a second on a large one, two seconds on a small one."""


class Samples(NamedTuple):
    """Rows of shape (n, columns), targets of shape (n,) or (n, outputs), and weights of shape (n,) or None."""

    x: Any
    y: Any = None
    weights: Any = None

    def map(self, function: Callable[[Any], Any]) -> Samples:
        """Return what ``function`` makes of each array; None stays None."""
        return Samples(*(None if array is None else function(array) for array in self))

    def rows(self, index: Any) -> Samples:
        """Return the rows of a slice, or of an array of row numbers."""
        return self.map(lambda array: array[index, ...])


class Chunk(NamedTuple):
    """Steps that run in one compiled call."""

    samples: Samples
    steps: int
    order: Any = None  # positions in `samples`, (…, steps, batch), int64; None for all rows in their order
    row_numbers: Any = None  # the same rows in the whole data set; None if unknown, or all rows
    multilabel: bool = False  # whether a target row of 0 and 1 has been seen whose sum is not 1

    @property
    def batch_size(self) -> int:
        """Number of rows of each step."""
        return int(self.samples.x.shape[0] if self.order is None else self.order.shape[-1])


@dataclass(frozen=True)
class Batching:
    """How an epoch is divided into steps and chunks."""

    count: int  # number of rows to train on
    batch_size: int
    order: str | Callable[[int], Any]  # as `Network.fit` takes it
    epoch_rows: int  # rows of an epoch: `count`, unless rows are drawn with replacement
    subset: np.ndarray | None = (
        None  # numbers of the rows to train on, (count,) or (members, count), int64; None for all
    )
    pauses: tuple[int, ...] = ()  # a chunk ends at each step of an epoch that is a multiple of one of these numbers
    max_steps: int = 1 << 31  # maximum number of steps in a chunk
    max_batches: int | None = None  # maximum number of batches of a stream in an epoch; None for all

    @property
    def full_batch(self) -> bool:
        """Whether each step takes all rows in order."""
        return self.batch_size >= self.count and self.subset is None and self.order in ("shuffle", "sequential")

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of steps in an epoch; None for a stream of unknown length."""
        return -(-self.epoch_rows // self.batch_size) if self.epoch_rows else self.max_batches

    @property
    def steps_per_chunk(self) -> int:
        """Maximum number of steps in a chunk, pauses included."""
        return min((self.max_steps, *self.pauses))

    def slices(self, stop: int, start: int) -> Iterator[slice]:
        """Divide the steps from ``start`` to ``stop`` of an epoch into chunks; each ends where those of a whole epoch do."""
        ends = {stop, *range(self.max_steps, stop, self.max_steps)}
        for every in self.pauses:
            ends.update(range(every, stop, every))
        for end in sorted(ends):
            if end > start:
                yield slice(start, end)
                start = end


@dataclass(frozen=True)
class Orders:
    """The order of the rows in each epoch, from a key and the epoch number alone, so that training can start at any step."""

    batching: Batching
    key: np.ndarray  # int32, (2,)

    @property
    def count(self) -> int:
        """Number of orders."""
        return 1

    def __call__(self, first: int, epochs: int) -> Any:
        """Return what `on_host` does, as an array of NumPy or of the library that trains."""
        return self.on_host(first, epochs)

    def on_host(self, first: int, epochs: int) -> np.ndarray:
        """Return the row numbers of epochs from ``first`` on in the order they are visited, (epochs, epoch_rows), int64."""
        batching = self.batching
        if callable(batching.order):
            order = np.stack([self._validated(batching.order(epoch)) for epoch in range(first, first + epochs)])
        elif batching.order == "shuffle":
            order = random.permutations(self.key, first, epochs, batching.count)
        elif batching.order == "random":
            order = random.draws(self.key, first, epochs, batching.epoch_rows, batching.count)
        else:
            order = np.broadcast_to(np.arange(batching.count), (epochs, batching.count))
        return order if batching.subset is None else batching.subset[order]

    def _validated(self, rows: Any) -> np.ndarray:
        """Validate the result of a user's ``order`` function."""
        rows, count, epoch_rows = np.asarray(rows), self.batching.count, self.batching.epoch_rows
        integers = rows.shape == (epoch_rows,) and rows.dtype.kind in "iu"
        if not integers or not 0 <= rows.min() <= rows.max() < count:
            raise ValueError(
                f"order must return {epoch_rows} integer row numbers from 0 to {count - 1}, got {rows.dtype} of "
                f"shape {rows.shape}"
            )
        return rows.astype(np.int64, copy=False)


def slices(count: int, size: int) -> Iterator[slice]:
    """Return slices of at most ``size`` rows that cover ``count`` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def shapes_of(samples: Samples) -> Samples:
    """Return the shape and dtype of each array."""
    return samples.map(lambda array: (array.shape, array.dtype))
