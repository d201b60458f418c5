"""Prefetching: another thread produces the items of an iterator in advance."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def prefetch(items: Iterator[T], buffer_size: int = 1) -> Generator[T, None, None]:
    """Yield the items, made in a thread at most ``buffer_size`` items ahead; an error is raised in place of its item."""
    buffer: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(buffer_size)
    closed = threading.Event()

    def put(entry: tuple[Any, BaseException | None]) -> None:
        while not closed.is_set():
            try:
                return buffer.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((item, None))
                if closed.is_set():
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=produce, name="portablenn-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = buffer.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        closed.set()
        thread.join(1.0)  # a thread that still waits for input is a daemon, which ends with the process
