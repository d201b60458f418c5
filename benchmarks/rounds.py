"""Time some functions in turn, round after round, so that a machine whose speed drifts is fair to all of them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable


def seconds(functions: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, list[float]]:
    """The time of each call, after one of each that is not counted."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return times


def report(title: str, times: dict[str, list[float]], ours: str = "portablenn") -> None:
    """Print the median time of each, and each peer's ratio to ours, pair by pair."""
    print(f"\n{title}")
    print(f"  {'':28} {'median s':>9}   peer / ours: min, median, max")
    for name, values in times.items():
        line = f"  {name:28} {statistics.median(values):9.4f}"
        if name != ours:
            ratios = [theirs / mine for theirs, mine in zip(values, times[ours], strict=True)]
            line += f"   {min(ratios):5.2f} {statistics.median(ratios):5.2f} {max(ratios):5.2f}"
        print(line)


def machine() -> str:
    """What it ran on."""
    import numpy

    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {numpy.__version__}"
    )
