"""A lock that threads take in turns."""

from __future__ import annotations

import functools
import threading


class FairLock:
    """A reentrant lock; a thread that releases it and takes it again lets one that waits go first.

    Python's locks mostly go to the thread that released them, which is running, before a waiting one wakes up.
    """

    def __init__(self) -> None:
        self._door, self._lock = threading.Lock(), threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._owner != threading.get_ident():
            with self._door:  # the thread that waits for the lock is in it
                self._lock.acquire()
            self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()


@functools.cache
def lock_of(device: int) -> FairLock:
    """Return the lock of a device, by its number: what cannot happen during a capture waits for it."""
    return FairLock()
