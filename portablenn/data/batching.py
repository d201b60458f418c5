"""Feeding: which rows each call of the compiled steps reads, and where they come from.

Requires nothing but a backend's ``asarray``. Data lie on the backend as a whole, or are taken from a source some steps at a
time; orders are made on the host, from the seed and the epoch's number alone, so that any step of any epoch can be the
first.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..program.ir import Array
from ..runtime.arrays import array_namespace, is_array
from ..runtime.backend import Backend
from .sources import Blocks, Stream, some_rows

SOURCED = 1 << 23
"""Numbers that are taken from a source at a time: so many rows, and at least one batch."""

POOLED = 1 << 22
"""Numbers, about, whose rows are shuffled together where rows come in blocks."""

WORK_A_CALL = 3e11
"""Multiplications and additions, about, that one call of compiled steps does: some seconds on a CPU. Between calls Ctrl-C,
time limits and the like are looked at."""


LONG = 1.0
"""Seconds after which batches that come slowly are trained on."""


@dataclass(frozen=True)
class Data:
    """What ``fit`` trains on, on the backend: rows (or where to get them), targets, weights a row or None.

    Attributes
    ----------
    x, y, weights
        ``x`` is an array, or a `Source` of rows; where it is `Blocks` or a `Stream`, targets and weights come with it.
    check
        What a block or a batch goes through when it comes; returns rows, targets and weights, as they are to be used.
    """

    x: Any
    y: Array = None
    weights: Array | None = None
    check: Callable[..., tuple[Any, ...]] | None = None


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
        Calls end at each step of an epoch whose number is a multiple of one of these.
    longest
        Steps a call, at most.
    batches
        How many of a stream make an epoch; None for all.
    """

    rows: np.ndarray | None
    count: int
    batch: int
    order: str | Callable[[int], Any]
    epoch: int
    pauses: tuple[int, ...] = ()
    longest: int = 1 << 31
    batches: int | None = None

    @property
    def whole(self) -> bool:
        """Whether each step takes all rows as they lie."""
        return self.batch >= self.count and self.rows is None and self.order in ("shuffle", "sequential")

    @property
    def steps(self) -> int | None:
        """Steps an epoch; None of a stream, where nobody knows."""
        return -(-self.epoch // self.batch) if self.epoch else self.batches

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

    @property
    def together(self) -> int:
        """Steps a call, at most."""
        return min((self.longest, *self.pauses))

    def parts(self, steps: int, done: int) -> Iterator[slice]:
        """Some steps of an epoch, from ``done`` to ``steps``, call by call: each ends where those of the whole epoch do."""
        ends = {steps, *range(self.longest, steps, self.longest)}
        for every in self.pauses:
            ends.update(range(every, steps, every))
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
    plan: Plan, key: np.ndarray, backend: Backend, data: Data, epoch: int, done: int
) -> Generator[tuple[Call, bool], None, None]:
    """The calls of one epoch, of that number, from its step ``done`` on, and whether each is its last."""
    if isinstance(data.x, Blocks):
        return _sent(backend, _with_last(_pooled(plan, key, data, epoch, done)))
    if isinstance(data.x, Stream):
        return _sent(backend, _with_last(_streamed(plan, data, epoch, done)))
    return _with_last(_of_rows(plan, key, backend, data, epoch, done))


def _of_rows(plan: Plan, key: np.ndarray, backend: Backend, data: Data, epoch: int, done: int) -> Iterator[Call]:
    """Of rows that can be had in any order."""
    if plan.whole:
        yield from _sourced(backend, data, np.arange(plan.count)[None, :], as_they_lie=True)
        return
    order = plan.orders(key, epoch, 1)[0]
    full = plan.epoch // plan.batch
    for part in plan.parts(-(-plan.epoch // plan.batch), done):
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
        local = np.arange(rows.size).reshape(rows.shape)
        yield Call(*(None, 1, part) if as_they_lie else (local, len(rows), part, rows))


def pools(plan: Plan, key: np.ndarray, blocks: Blocks, epoch: int) -> list[list[int]]:
    """The blocks of an epoch in their order, those together whose rows are shuffled together."""
    count = len(blocks.sizes)
    order = random.permutations(key, epoch, 1, count)[0] if plan.order == "shuffle" else np.arange(count)
    found: list[list[int]] = [[]]
    rows, enough = 0, max(plan.batch, POOLED // blocks.columns)
    for block in order.tolist():
        if not blocks.sizes[block]:
            continue
        if rows >= enough:
            found.append([])
            rows = 0
        found[-1].append(block)
        rows += blocks.sizes[block]
    return found


def _pooled(plan: Plan, key: np.ndarray, data: Data, epoch: int, done: int) -> Iterator[Call]:
    """Of blocks: their order is shuffled, then the rows of as many as are in memory at a time.

    The batches are consecutive rows of one order, so that an epoch can be begun at any of them. All calls have arrays of the
    same shapes, padded with rows that no step reads, for a compiled step is for one shape.
    """
    blocks, check = data.x, data.check
    assert isinstance(blocks, Blocks)
    assert check is not None
    inner = random.fold_in(key, 1 + epoch)
    groups = pools(plan, key, blocks, epoch)
    sizes = [sum(blocks.sizes[b] for b in group) for group in groups]
    room = max(sizes) + plan.batch
    calls = min(plan.together, -(-room // plan.batch))
    wanted, behind = done * plan.batch, 0
    left: tuple[Any, ...] | None = None  # rows that do not fill a batch
    for number, (group, rows) in enumerate(zip(groups, sizes)):
        behind += rows
        if behind <= wanted:
            continue
        order = random.permutations(inner, number, 1, rows)[0] if plan.order == "shuffle" else np.arange(rows)
        read = [check(*read_block(blocks, b)) for b in group if blocks.sizes[b]]
        if left is not None:
            order = np.concatenate([np.arange(len(left[0])), order + len(left[0])])
            read.insert(0, left)
        else:
            order = order[max(0, wanted - (behind - rows)) :]
        x, y, weights = whole = tuple(_stacked(pieces, room) for pieces in zip(*read))
        first, full = (behind - len(order)) // plan.batch, len(order) // plan.batch
        for part in plan.parts(first + full, first):
            steps = np.zeros((calls, plan.batch), dtype=np.int64)
            some = order[(part.start - first) * plan.batch : (part.stop - first) * plan.batch]
            steps.reshape(-1)[: len(some)] = some
            yield Call(steps, part.stop - part.start, Data(x, y, weights))
        rest = order[full * plan.batch :]
        left = tuple(None if a is None else a[rest] for a in whole) if len(rest) else None
    if left is not None:
        yield Call(None, 1, Data(*left[:3]))


def read_block(blocks: Blocks, number: int) -> Any:
    """A block, with as many rows as it was said to have.

    Raises
    ------
    ValueError
        If it has another number of rows.
    """
    block = blocks.read(number)
    if len(block[0]) != blocks.sizes[number]:
        raise ValueError(
            f"block {number} has {len(block[0])} rows and its size is {blocks.sizes[number]}: expected as many"
        )
    return block


def _stacked(pieces: Sequence[Any], room: int) -> np.ndarray | None:
    """Pieces one under the other, and zeros up to so many rows."""
    if all(piece is None for piece in pieces):
        return None
    if any(piece is None for piece in pieces):
        raise ValueError("some blocks have weights and others have none: give all of them weights, such as ones")
    made = np.zeros((room, *pieces[0].shape[1:]), dtype=np.result_type(*pieces))
    start = 0
    for piece in pieces:
        made[start : start + len(piece)] = piece
        start += len(piece)
    return made


def _streamed(plan: Plan, data: Data, epoch: int, done: int) -> Iterator[Call]:
    """Of batches as they come: those of one shape that come together are run in one call."""
    stream, check = data.x, data.check
    assert isinstance(stream, Stream)
    assert check is not None
    group: list[Any] = []
    step, begun = done, time.monotonic()

    def call() -> Call:
        batches = group.copy()
        group.clear()
        rows = len(batches[0][0])
        x, y, weights = (None if parts[0] is None else _joined(parts) for parts in zip(*batches))
        # one step, too, takes rows by their numbers: the same program as of many, and so the same bits
        return Call(np.arange(rows * len(batches)).reshape(len(batches), rows), len(batches), Data(x, y, weights))

    for batch in itertools.islice(stream.epoch(epoch), done, plan.batches):
        checked = check(*batch)
        if group and _shapes(checked) != _shapes(group[0]):
            yield call()
        begun = begun if group else time.monotonic()
        group.append(checked)
        step += 1
        numbers = len(group) * math.prod(checked[0].shape)
        enough = numbers >= SOURCED or len(group) * len(checked[0]) >= plan.longest  # which is for batches of one row
        slow = time.monotonic() - begun > LONG  # Ctrl-C and time limits are looked at between calls
        if enough or slow or any(step % every == 0 for every in plan.pauses):
            yield call()
    if group:
        yield call()


def columns(data: Data) -> int:
    """Of a row."""
    return int(data.x.columns if isinstance(data.x, Blocks) else data.x.shape[1])


def count_parts(data: Data, rows: int) -> int:
    """How many parts `parts_of` makes; an array lies there as a whole."""
    sizes = data.x.sizes if isinstance(data.x, Blocks) else () if is_array(data.x) else data.x.shape[:1]
    return sum(-(-size // rows) for size in sizes) or 1


def _shapes(batch: Sequence[Any]) -> list[Any]:
    return [None if a is None else (a.shape, a.dtype) for a in batch]


def _joined(parts: Sequence[Any]) -> Any:
    return array_namespace(parts[0]).concat(parts, axis=0)


def _sent(backend: Backend, calls: Iterator[tuple[Call, bool]]) -> Generator[tuple[Call, bool], None, None]:
    """The calls with their data on the backend.

    They are read and checked in another thread; what the next one needs is on its way to the device while the one before it
    is computed on, which a device does after it was asked to.
    """
    from .prefetch import ahead

    waiting: tuple[Call, bool, list[Any]] | None = None
    known: tuple[Any, list[Any]] = None, []
    with contextlib.closing(ahead(calls)) as read:
        for call, is_last in read:
            if call.data.x is not known[0]:  # several calls may take rows of one pool
                parts = (call.data.x, call.data.y, call.data.weights)
                known = call.data.x, [None if a is None else backend.send(a) for a in parts]
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = call, is_last, known[1]
        if waiting is not None:
            yield _arrived(*waiting)


def _arrived(call: Call, is_last: bool, sent: list[Any]) -> tuple[Call, bool]:
    return call._replace(data=Data(*(None if claim is None else claim() for claim in sent))), is_last


def _with_last(calls: Iterator[Call]) -> Generator[tuple[Call, bool], None, None]:
    """Each, and whether it is the last."""
    before: Call | None = None
    for call in calls:
        if before is not None:
            yield before, False
        before = call
    if before is not None:
        yield before, True


def parts_of(backend: Backend, data: Data, rows: int) -> Iterator[Data]:
    """All rows on the backend, some at a time: ``rows`` of those that can be had in any order, else a block or a batch."""
    if isinstance(data.x, (Blocks, Stream)):
        assert data.check is not None
        read: Iterator[Any]
        if isinstance(data.x, Blocks):
            read = (read_block(data.x, b) for b, size in enumerate(data.x.sizes) if size)
        else:
            read = data.x.epoch(0)
        for block in (data.check(*b) for b in read if len(b[0])):
            for some in in_chunks(len(block[0]), rows):
                yield Data(*(None if a is None else backend.asarray(a[some, ...]) for a in block))
        return
    for some in in_chunks(data.x.shape[0], rows):
        weights = None if data.weights is None else data.weights[some]
        yield Data(backend.asarray(some_rows(data.x, some)), data.y[some, ...], weights)


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
