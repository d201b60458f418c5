"""How time and memory grow: time per row with rows, width, depth and batch size; peak memory with the size of the data.

``python -m benchmarks.scaling --backends numpy,numba --out FOLDER`` writes JSON and a picture (matplotlib).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from .rounds import Contestant, compete, machine

BASE = {"sizes": [20, 64, 64, 2], "rows": 20_000, "batch": 200}
SERIES: dict[str, list[dict[str, Any]]] = {
    "rows": [BASE | {"rows": n} for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)],
    "width": [BASE | {"sizes": [20, n, n, 2]} for n in (4, 16, 64, 256, 1024)],
    "depth": [BASE | {"sizes": [20, *[64] * n, 2]} for n in (1, 2, 4, 8, 16)],
    "batch": [BASE | {"batch": n} for n in (10, 50, 200, 1_000, 10_000)],
}


def at(name: str, facts: dict[str, Any]) -> int:
    """Return the value on the x axis of a measurement."""
    return {"width": facts["sizes"][1], "depth": len(facts["sizes"]) - 2}.get(name) or int(facts[name])


def measured(backend: str, rounds: int, most_rows: int) -> dict[str, list[dict[str, float]]]:
    """Return for each series: x, median seconds per row and epoch, bytes of the data, growth of memory beyond them."""
    found: dict[str, list[dict[str, float]]] = {}
    for name, series in SERIES.items():
        for facts in series:
            if facts["rows"] > most_rows:
                continue
            contestant = Contestant("ours", "classifiers:ours", facts | {"backend": backend})
            (one,) = compete([contestant], rounds).values()
            size = facts["rows"] * (facts["sizes"][0] * 4 + 8)
            line = {
                name: at(name, facts), "seconds a row": statistics.median(one.seconds) / facts["rows"],
                "bytes of data": size, "bytes beyond": one.peak_bytes,
            }  # fmt: skip
            found.setdefault(name, []).append(line)
            print(backend, line, flush=True)
    return found


def draw(found: dict[str, dict[str, list[dict[str, float]]]], file: Path, title: str) -> None:
    """Draw time per row, one plot for each series, and memory against data, one curve for each backend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, grid = plt.subplots(2, 3, figsize=(10.5, 6), layout="constrained")
    *times, memory, rest = grid.flat
    rest.set_axis_off()
    for backend, all_series in found.items():
        for axis, (name, lines) in zip(times, all_series.items(), strict=True):
            times_per_row = [line["seconds a row"] * 1e6 for line in lines]
            axis.plot([line[name] for line in lines], times_per_row, "o-", label=backend)
            axis.set(xscale="log", yscale="log", xlabel=name, ylabel="µs per row and epoch")
        lines = all_series["rows"]
        data, beyond = ([line[key] / 1e6 for line in lines] for key in ("bytes of data", "bytes beyond"))
        memory.plot(data, beyond, "o-")
    memory.set(xscale="log", xlabel="data, MB", ylabel="beyond them, MB", ylim=(0, None))
    for axis in (*times, memory):
        axis.grid(alpha=0.3, which="both")
    for axis in times:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        low, high = axis.get_ylim()
        axis.set_ylim(low / 1.5, high * 1.5)
    rest.legend(*times[0].get_legend_handles_labels(), loc="center", title="portablenn on")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backends", default="numpy", help="comma-separated names")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=10_000_000, help="maximum number of rows")
    options.add_argument("--out", type=Path, default=Path())
    given = options.parse_args()
    found = {backend: measured(backend, given.rounds, given.rows) for backend in given.backends.split(",")}
    given.out.mkdir(parents=True, exist_ok=True)
    facts = machine()
    (given.out / "scaling.json").write_text(json.dumps({"machine": facts, "series": found}, indent=1) + "\n")
    draw(found, given.out / "scaling.png", f"20-64-64-2, batch 200, 20,000 rows, and variations: {facts['processor']}")


if __name__ == "__main__":
    main()
