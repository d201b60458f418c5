"""Feeding: which rows each call of the compiled steps reads, and where they come from.

Requires nothing but a backend's ``asarray``. Data lie on the backend as a whole, or are taken from a source some steps at a
time; orders are made on the host, from the seed and the epoch's number alone, so that any step of any epoch can be the
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import random
from .arrays import is_array
from .backend import Backend
from .program.ir import Array
from .sources import Source

SOURCED = 1 << 23
"""Numbers that are taken from a source at a time: so many rows, and at least one batch."""

WORK_A_CALL = 3e11
"""Multiplications and additions, about, that one call of compiled steps does: some seconds on a CPU. Between calls Ctrl-C,
time limits and the like are looked at."""


@dataclass(frozen=True)
class Data:
    """What ``fit`` trains on, on the backend: rows (or where to get them), targets, weights a row or None."""

    x: Array | Source
    y: Array
    weights: Array | None


class Call(NamedTuple):
    """Steps that are run in one call.

    Attributes
    ----------
    order
        The row numbers of each step, (steps, batch), int64; None where each step takes all rows as they lie.
    steps
        How many.
    data
        What they read.
    numbers
        The row numbers of each step among all rows; None where each step takes all.
    """

    order: np.ndarray | None
    steps: int
    data: Data
    numbers: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """Of each step."""
        return int(self.data.x.shape[0] if self.order is None else self.order.shape[1])


@dataclass(frozen=True)
class Plan:
    """How one ``fit`` goes through the data.

    Attributes
    ----------
    rows
        Numbers of the rows to train on, (n,), int64; None for all ``count`` of them.
    count
        How many rows there are to train on.
    batch
        Rows a step.
    order
        "shuffle", "sequential", "random", or a function that returns the row numbers of an epoch.
    epoch
        Rows an epoch: ``count``, unless rows are drawn with replacement.
    pauses
        Calls end at each step of the network whose number is a multiple of one of these.
    longest
        Steps a call, at most.
    """

    rows: np.ndarray | None
    count: int
    batch: int
    order: str | Callable[[int], Any]
    epoch: int
    pauses: tuple[int, ...] = ()
    longest: int = 1 << 31

    @property
    def whole(self) -> bool:
        """Whether each step takes all rows as they lie."""
        return self.batch >= self.count and self.rows is None and self.order in ("shuffle", "sequential")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-self.epoch // self.batch)

    def orders(self, key: np.ndarray, first: int, epochs: int) -> np.ndarray:
        """The rows' numbers in the order of some epochs, (epochs, rows of an epoch), int64."""
        if callable(self.order):
            order = np.stack([self._chosen(self.order(epoch)) for epoch in range(first, first + epochs)])
        elif self.order == "shuffle":
            order = random.permutations(key, first, epochs, self.count)
        elif self.order == "random":
            order = random.draws(key, first, epochs, self.epoch, self.count)
        else:
            order = np.broadcast_to(np.arange(self.count), (epochs, self.count))
        return order if self.rows is None else self.rows[order]

    def _chosen(self, rows: Any) -> np.ndarray:
        """What a user's function returned, checked."""
        rows = np.asarray(rows)
        if (
            rows.shape != (self.epoch,)
            or rows.dtype.kind not in "iu"
            or not (0 <= rows.min() <= rows.max() < self.count)
        ):
            raise ValueError(
                f"order returned {rows.dtype} of shape {rows.shape}: expected {self.epoch} whole numbers of rows, from 0 to "
                f"{self.count - 1}"
            )
        return rows.astype(np.int64, copy=False)

    def parts(self, steps: int, first: int, done: int) -> Iterator[slice]:
        """The steps of an epoch, call by call, from step ``done`` on; ``first`` is the network's number of step 0."""
        ends = {steps, *range(self.longest, steps, self.longest)}
        for every in self.pauses:
            ends.update(range(every - first % every, steps, every))
        for end in sorted(ends):
            if end > done:
                yield slice(done, end)
                done = end


def epochs_at_once(plan: Plan, key: np.ndarray, data: Data, first: int, epochs: int) -> Iterator[Call]:
    """All steps of several epochs, in as few calls as there are sizes of batches."""
    if plan.whole:
        yield Call(None, epochs, data)
        return
    order = plan.orders(key, first, epochs)
    full, rest = divmod(plan.epoch, plan.batch)
    if rest == 0:
        yield Call(order.reshape(epochs * full, plan.batch), epochs * full, data)
        return
    for one in order:
        yield Call(one[: full * plan.batch].reshape(full, plan.batch), full, data)
        yield Call(one[full * plan.batch :].reshape(1, rest), 1, data)


def calls_of_epoch(
    plan: Plan, key: np.ndarray, backend: Backend, data: Data, epoch: int, first: int, done: int
) -> Iterator[Call]:
    """The calls of one epoch from its step ``done`` on.

    Parameters
    ----------
    plan, key, backend, data
        What is trained on, and in which order.
    epoch
        Its number.
    first
        The network's number of the epoch's first step.
    done
        Steps that are not to be done again.
    """
    if plan.whole:
        yield from _sourced(backend, data, np.arange(plan.count)[None, :], as_they_lie=True)
        return
    order = plan.orders(key, epoch, 1)[0]
    full = plan.epoch // plan.batch
    for part in plan.parts(plan.steps, first, done):
        for steps in (slice(part.start, min(part.stop, full)), slice(max(part.start, full), part.stop)):
            if steps.start < steps.stop:
                rows = order[steps.start * plan.batch : steps.stop * plan.batch]
                yield from _sourced(backend, data, rows.reshape(steps.stop - steps.start, -1))


def _sourced(backend: Backend, data: Data, order: np.ndarray, as_they_lie: bool = False) -> Iterator[Call]:
    """One call; or several, where rows come from a source: of each no more than are taken at a time."""
    if is_array(data.x):
        yield Call(*(None, 1, data) if as_they_lie else (order, len(order), data, order))
        return
    some = max(1, SOURCED // max(1, order.shape[1] * data.x.shape[1]))
    for start in range(0, len(order), some):
        rows = order[start : start + some]
        index = backend.indices(rows.reshape(-1))
        y, weights = (None if a is None else backend.xp.take(a, index, axis=0) for a in (data.y, data.weights))
        part = Data(backend.asarray(data.x.take(rows.reshape(-1))), y, weights)
        yield Call(
            *(None, 1, part) if as_they_lie else (np.arange(rows.size).reshape(rows.shape), len(rows), part, rows)
        )


def in_chunks(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows that cover ``rows``.

    Examples
    --------
    >>> list(in_chunks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def reduced(losses: Sequence[tuple[np.ndarray, int]], epochs: int, mean: bool) -> list[float]:
    """One loss an epoch.

    Parameters
    ----------
    losses
        Of the steps of some epochs of equal length, call by call, (steps,), with the rows of each step.
    epochs
        How many epochs.
    mean
        Whether it is the mean over rows; else the sum over steps.

    Examples
    --------
    >>> reduced([(np.asarray([1.0, 2.0]), 4), (np.asarray([5.0]), 2)], 1, True)
    [2.2]
    """
    values = np.concatenate([some for some, _ in losses])
    if mean:
        rows = np.concatenate([np.full(len(some), n) for some, n in losses])
        values = values * rows / (rows.sum() / epochs)
    return [float(v) for v in values.reshape(epochs, -1).sum(axis=1)]
