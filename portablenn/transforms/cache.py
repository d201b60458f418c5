"""The cache of compiled programs, bounded in entries and in bytes."""

from __future__ import annotations

import copy
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

__all__ = ["CacheInfo", "ProgramCache", "program_cache"]

MAXSIZE, MAXBYTES, SPARE = 512, 1 << 29, 1 << 24
"""Bounds of a cache: entries, bytes, and bytes of programs that no object uses."""


@dataclass(frozen=True)
class CacheInfo:
    """Statistics of a cache: hits, misses, and the number of entries and bytes with their bounds."""

    hits: int
    misses: int
    size: int
    maxsize: int
    nbytes: int = 0
    maxbytes: int = MAXBYTES


class ProgramCache:
    """Compiled programs, the least recently used evicted first.

    An entry is dropped when one of its owners, such as the function that was compiled, is deallocated. Entries that belong to a
    value, such as a network's model, serve every object equal to it; when the last of these is gone, they are kept for the
    next one as long as all such entries fit into ``spare`` bytes. There are at most ``maxsize`` entries, of ``maxbytes`` bytes
    together; besides, the last used of those that are larger than that is kept.
    """

    def __init__(self, maxsize: int = MAXSIZE, maxbytes: int = MAXBYTES, spare: int = SPARE) -> None:
        self.maxsize, self.maxbytes, self.spare = maxsize, maxbytes, spare
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._groups: dict[Hashable, _Group] = {}
        self._finalizers: deque[Callable[[], None]] = deque()
        # Not reentrant: an owner may be deallocated at any line, and must not change a dict that is being read.
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def find(self, key: Hashable) -> Any:
        """Return the entry of ``key``, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and any(type(o) is weakref.ref and o() is None for o in entry.owners):
                entry = None  # it will be dropped; another object has reused the id in its key
            if entry is not None:
                self._hits += 1
                self._entries.move_to_end(key)
        if self._finalizers:
            self._clean_up()
        return None if entry is None else entry.value

    def add(self, key: Hashable, value: Any, owners: Sequence[Any] = (), group: _Group | None = None) -> None:
        """Keep ``value``, whose size is its attribute ``nbytes``, until one of its owners is deallocated or it is evicted.

        Owners that cannot be referenced weakly are kept alive, so that their ids, which are part of keys, are not reused.
        """
        refs = tuple(_reference(owner, partial(self._died, partial(self._drop, key))) for owner in owners)
        with self._lock:
            self._misses += 1
            self._entries[key] = _Entry(value, refs, group)
            self._trim()
        self._clean_up()

    def group(self, value: Hashable) -> _Group:
        """Return the cache group of ``value``, hashable and weakly referenceable: equal objects have the same one."""
        with self._lock:
            group = self._groups.get(value)
            if group is None:  # a copy is the key, which keeps alive neither this object nor those equal to it
                group = self._groups[copy.copy(value)] = _Group()
            number = id(value)
            known = group.alive.get(number)
            if known is None or known() is not value:
                group.alive[number] = weakref.ref(value, partial(self._died, partial(self._leave, group, number)))
        return group

    def info(self) -> CacheInfo:
        """Return the statistics."""
        self._clean_up()
        with self._lock:
            size, nbytes = len(self._entries), sum(entry.nbytes for entry in self._entries.values())
            return CacheInfo(self._hits, self._misses, size, self.maxsize, nbytes, self.maxbytes)

    def clear(self) -> None:
        """Drop every entry, and reset the statistics."""
        with self._lock:
            self._entries, self._groups = OrderedDict(), {}
            self._hits = self._misses = 0

    def _died(self, finalizer: Callable[[], None], reference: Any) -> None:
        self._finalizers.append(finalizer)
        self._clean_up()

    def _clean_up(self) -> None:
        """Drop what deallocated owners leave behind, or let the thread that holds the lock do so after its release."""
        while self._finalizers and self._lock.acquire(blocking=False):
            try:
                self._finalizers.popleft()()
            except IndexError:  # another thread was faster
                pass
            finally:
                self._lock.release()

    def _drop(self, key: Hashable) -> None:
        self._entries.pop(key, None)

    def _leave(self, group: _Group, number: int) -> None:
        reference = group.alive.get(number)
        if reference is not None and reference() is None:
            del group.alive[number]
        self._trim()

    def _trim(self) -> None:
        """Evict entries until all bounds hold."""
        entries = self._entries
        idle = [(key, entry.nbytes) for key, entry in entries.items() if entry.group and not entry.group.alive]
        over = sum(nbytes for _, nbytes in idle) - self.spare
        for key, nbytes in idle:
            if over > 0:
                over -= nbytes
                del entries[key]
        *older, kept = [key for key, entry in entries.items() if entry.nbytes > self.maxbytes] or [None]
        for key in older:
            del entries[key]
        while len(entries) > max(self.maxsize, 0):
            entries.popitem(last=False)
        others = [(key, entry.nbytes) for key, entry in entries.items() if key != kept]
        over = sum(nbytes for _, nbytes in others) - self.maxbytes
        for key, nbytes in others:
            if over > 0:
                over -= nbytes
                del entries[key]
        used = {id(entry.group) for entry in entries.values()}
        self._groups = {v: g for v, g in self._groups.items() if g.alive or id(g) in used}


@dataclass(eq=False)
class _Group:
    """The objects equal to one value that exist, by id."""

    alive: dict[int, weakref.ref[Any]] = field(default_factory=dict)


@dataclass(eq=False)
class _Entry:
    value: Any
    owners: tuple[Any, ...]
    group: _Group | None

    @property
    def nbytes(self) -> int:
        return int(getattr(self.value, "nbytes", 0))  # it may grow: a program's memory is allocated at its first run


def _reference(owner: Any, callback: Callable[[Any], None]) -> Any:
    try:
        return weakref.ref(owner, callback)
    except TypeError:
        return owner


program_cache = ProgramCache()
"""The programs that `grad`, `value_and_grad`, `compile` and networks have compiled."""
