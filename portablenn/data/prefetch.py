"""Ahead: the next part is read, checked and sent to the device while the present one is computed on.

Requires nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def ahead(parts: Iterator[T], most: int = 1) -> Generator[T, None, None]:
    """The same, made in a thread, at most so many before they are asked for; an error comes where its part would have.

    Examples
    --------
    >>> list(ahead(iter([1, 2, 3])))
    [1, 2, 3]
    """
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(most)
    left = threading.Event()

    def hand_over(item: tuple[Any, BaseException | None]) -> None:
        while not left.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for part in parts:
                hand_over((part, None))
                if left.is_set():
                    return
            hand_over((_END, None))
        except BaseException as error:
            hand_over((_END, error))

    thread = threading.Thread(target=make, name="portablenn-ahead", daemon=True)
    thread.start()
    try:
        while True:
            part, error = made.get()
            if error is not None:
                raise error
            if part is _END:
                return
            yield part
    finally:
        left.set()
        thread.join(1.0)  # one that waits for what never comes is left behind: it ends with the process
