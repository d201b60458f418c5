"""Ctrl-C while training: noticed between calls of the compiled steps, so that nothing is left half done.

Requires nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Noticed:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.yet = False

    def __call__(self, *_: Any) -> None:
        """Handle the signal: the first time by remembering it, after that as Python does."""
        import signal

        if self.yet:
            signal.default_int_handler(signal.SIGINT, None)
        self.yet = True
        with contextlib.suppress(OSError):  # nobody may be listening
            os.write(2, b"Ctrl-C: training ends after the steps under way; once more to stop at once\n")


@contextmanager
def noticed() -> Iterator[Noticed]:
    """Take Ctrl-C over, in the main thread and where nobody else has; the handler of before is put back.

    Examples
    --------
    >>> with noticed() as ctrl_c:
    ...     ctrl_c.yet
    False
    """
    import signal
    import threading

    handler = Noticed()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield handler
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
