"""The cache of compiled programs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

__all__ = ["CacheInfo", "ProgramCache", "program_cache"]


@dataclass(frozen=True)
class CacheInfo:
    """How a cache fared: calls that found their program, calls that did not, programs held, and the bound on those."""

    hits: int
    misses: int
    size: int
    maxsize: int


class ProgramCache:
    """The programs compiled last; the one that was not used for longest goes first.

    Attributes
    ----------
    maxsize : int
        How many are kept.
    """

    def __init__(self, maxsize: int = 512) -> None:
        self.maxsize = maxsize
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.RLock()
        self._hits = self._misses = 0

    def get(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """The entry of ``key``, built if it is not there; an error while building leaves the cache as it was."""
        with self._lock:
            if key in self._entries:
                self._hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
        entry = build()
        with self._lock:
            self._misses += 1
            self._entries[key] = entry
            while len(self._entries) > max(self.maxsize, 0):
                self._entries.popitem(last=False)
        return entry

    def info(self) -> CacheInfo:
        """Hits, misses, size and bound."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._entries), self.maxsize)

    def clear(self) -> None:
        """Forget every program, and the counts."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = 0


program_cache = ProgramCache()
"""What `grad`, `value_and_grad`, `compile` and networks have compiled: ``program_cache.info()``, ``.clear()``."""
