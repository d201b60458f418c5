"""Ctrl-C in training: handled between compiled calls, so that nothing is left half done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CtrlC:
    """A signal handler that remembers whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, *_: Any) -> None:
        """Handle the signal: remember it the first time, after that do what Python does."""
        import signal

        if self.pressed:
            signal.default_int_handler(signal.SIGINT, None)
        self.pressed = True
        with contextlib.suppress(OSError):  # standard error may be closed
            os.write(2, b"Ctrl-C: training ends after the current steps; press it again to stop at once\n")


@contextmanager
def catch_ctrl_c() -> Iterator[CtrlC]:
    """Handle Ctrl-C in the main thread, unless the program already does; restore the handler afterwards."""
    import signal
    import threading

    handler = CtrlC()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield handler
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
