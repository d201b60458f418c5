"""Subnormal numbers as zeros, in training loops.

The moments of an optimizer decay to numbers below 1e-38 (float32) wherever a gradient stays zero: units that are never active,
inputs that are rarely different from zero. Rounding keeps them there for ever, and Intel's processors take much longer for such
numbers: an epoch of a small network took twice as long. They are too small to change a parameter. XLA takes them for zero, too.

Only training loops do so, on Linux on x86-64. Functions that users compile compute with subnormal numbers.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import numpy as np

MXCSR = 7
"""Where the C library's ``fenv_t`` has the control word of the vector units, counted in its 4-byte words."""

FLUSH = 1 << 15 | 1 << 6
"""Bits of that word: subnormal results, and subnormal arguments, count as zero."""

Environment = ctypes.c_uint32 * 8
"""A thread's floating-point environment, ``fenv_t``."""


def flush() -> Any:
    """Let the calling thread take subnormal numbers for zero; return what `restore` needs.

    Examples
    --------
    >>> before = flush()
    >>> restore(before)
    >>> float(np.float32(1e-39) * np.float32(1)) > 0
    True
    """
    before = current()
    if before is not None:
        word = before[MXCSR]
        before[MXCSR] = word | FLUSH
        restore(before)
        before[MXCSR] = word
    return before


def current() -> Any:
    """Return the calling thread's floating-point environment; None on other platforms."""
    library = _library()
    if library is None:
        return None
    environment = Environment()
    library.fegetenv(environment)
    return environment


def restore(environment: Any) -> None:
    """Give the calling thread a floating-point environment that `current` or `flush` returned."""
    if environment is not None:
        _library().fesetenv(environment)


@cache
def _library() -> Any:
    """Return the C library if its environments are known and have an effect."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    library = ctypes.PyDLL(None)
    if not hasattr(library, "fesetenv"):
        return None
    before, changed = Environment(), Environment()
    library.fegetenv(before)
    library.fegetenv(changed)
    changed[MXCSR] |= FLUSH
    library.fesetenv(changed)
    try:
        flushed = not np.any(np.full(64, 1e-39, np.float32) * np.float32(1))
    finally:
        library.fesetenv(before)
    return library if flushed else None
