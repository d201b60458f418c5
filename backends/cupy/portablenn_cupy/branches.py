"""Which calls of a step can run at the same time: those that neither read nor write what another of them writes.

The calls are distributed over a few streams, which wait for each other only where one needs another's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer
from portablenn.runtime.kernels.schedule import Product

from .kernels import Kernel

STREAMS = 4
"""Maximum number of calls at the same time."""

CALLS = 500
"""Maximum number of calls that are compared with each other; more are executed in order."""


@dataclass(frozen=True)
class Branches:
    """For each call its stream, and the earlier calls of other streams that it waits for."""

    streams: tuple[int, ...]
    waits: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """Number of streams."""
        return max(self.streams) + 1


def branches(calls: Sequence[Kernel | Product]) -> Branches:
    """Distribute calls over streams; the first call is on stream 0."""
    if len(calls) > CALLS:
        return Branches((0,) * len(calls), ((),) * len(calls))
    before, ancestors = _predecessors(calls)
    heirs = _heirs(before)
    streams: list[int] = []
    ends: list[int] = []  # the last call of each stream
    for call in range(len(calls)):
        heir_of = [s for s, end in enumerate(ends) if heirs[end] == call]
        free = [s for s, end in enumerate(ends) if end in ancestors[call] and heirs[end] < call]
        if heir_of:
            stream = heir_of[0]
        elif free or len(ends) == STREAMS:
            stream = free[0] if free else min(range(STREAMS), key=ends.__getitem__)
        else:
            stream = len(ends)
            ends.append(call)
        ends[stream] = call
        streams.append(stream)
    waits = (tuple(sorted(i for i in needed if streams[i] != streams[call])) for call, needed in enumerate(before))
    return Branches(tuple(streams), tuple(waits))


def _heirs(before: Sequence[set[int]]) -> list[int]:
    """Return for each call the follower that has the longest way to the end, which continues its stream; -1 without one."""
    ways, heirs = [1] * len(before), [-1] * len(before)
    for call in reversed(range(len(before))):
        for i in before[call]:
            if ways[call] + 1 > ways[i]:
                ways[i], heirs[i] = ways[call] + 1, call
    return heirs


def _predecessors(calls: Sequence[Kernel | Product]) -> tuple[list[set[int]], list[set[int]]]:
    """Return for each call those that it follows without another between them, and all that it follows."""
    accesses = [_accesses(call) for call in calls]
    ancestors: list[set[int]] = []
    direct: list[set[int]] = []
    for i, mine in enumerate(accesses):
        found: set[int] = set()
        follows: set[int] = set()
        for j in reversed(range(i)):
            if j not in found and _in_conflict(mine, accesses[j]):
                follows.add(j)
                found |= {j} | ancestors[j]
        ancestors.append(found)
        direct.append(follows)
    return direct, ancestors


Access = tuple[tuple[str, int], int, int, bool]
"""A memory and the bytes of it from start to end that a call reads, or (True) writes."""


def _accesses(call: Kernel | Product) -> list[Access]:
    if isinstance(call, Product):
        buffers, written = call.buffers, {2}
    else:
        buffers, written = call.arguments, set(call.written)
    return [(*_bytes_of(buffer), i in written) for i, buffer in enumerate(buffers)]


def _bytes_of(buffer: Buffer) -> tuple[tuple[str, int], int, int]:
    storage, itemsize = buffer.storage, ITEMSIZE[buffer.dtype]
    if storage.kind == "collected":  # the counter says which row
        return (storage.kind, storage.index), 0, 1
    first, last = buffer.reach
    arena = storage.kind == "arena"  # whose storages may share memory
    base = storage.index if arena else 0
    return (storage.kind, 0 if arena else storage.index), base + first * itemsize, base + (last + 1) * itemsize


def _in_conflict(mine: Sequence[Access], others: Sequence[Access]) -> bool:
    return any(
        memory == other and start < other_end and other_start < end
        for memory, start, end, writes in mine
        for other, other_start, other_end, other_writes in others
        if writes or other_writes
    )
