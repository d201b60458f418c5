"""Results as Markdown and as JSON."""

from __future__ import annotations

import statistics
from typing import Any

from .rounds import Measured

OURS = "portablenn, "


def best_of_ours(found: dict[str, Measured]) -> str:
    """Return the name of the fastest backend of portablenn, by its median."""
    mine = [name for name in found if name.startswith(OURS)]
    return min(mine, key=lambda name: statistics.median(found[name].seconds))


def ratios(theirs: Measured, mine: Measured) -> tuple[float, float, float]:
    """Return minimum, median and maximum of theirs / ours over the rounds; above 1 portablenn is faster."""
    values = [a / b for a, b in zip(theirs.seconds, mine.seconds, strict=True)]
    return min(values), statistics.median(values), max(values)


def markdown(title: str, found: dict[str, Measured]) -> str:
    lines = [f"**{title}** (best of ours: {best_of_ours(found)})", ""]
    head = (
        "| | median s | theirs / best of ours: min, median, max | theirs / ours on NumPy | first call s | memory MB |"
    )
    lines += [head, "|---|---|---|---|---|---|"]
    for name, measured in found.items():
        against = ["", ""]
        if not name.startswith(OURS):
            mine = (found[best_of_ours(found)], found.get(f"{OURS}NumPy"))
            against = ["{:.2f} {:.2f} {:.2f}".format(*ratios(measured, m)) if m else "" for m in mine]
        figures = f"{measured.first:.2f} | {measured.peak_bytes / 1e6:.0f}"
        lines.append(f"| {name} | {statistics.median(measured.seconds):.4f} | {' | '.join(against)} | {figures} |")
    return "\n".join([*lines, ""])


def summary(results: dict[str, dict[str, Measured]]) -> str:
    """Return a Markdown table of all workloads: the time of the best of ours, and the ratio of each other to it."""
    others = list(dict.fromkeys(name for found in results.values() for name in found if not name.startswith(OURS)))
    lines = [f"| | best of ours | on NumPy alone | {' | '.join(others)} |", "|---" * (len(others) + 3) + "|"]
    for title, found in results.items():
        best, plain = best_of_ours(found), found.get(f"{OURS}NumPy")
        cells = [title, f"{_shown(found[best])} ({best.removeprefix(OURS)})", _shown(plain) if plain else ""]
        cells += [f"{ratios(found[name], found[best])[1]:.2f}" if name in found else "" for name in others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _shown(measured: Measured) -> str:
    seconds = statistics.median(measured.seconds)
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def as_json(facts: dict[str, str], results: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    return {"machine": facts, "workloads": {t: {n: vars(m) for n, m in found.items()} for t, found in results.items()}}
