"""How time and memory grow: time a row against rows, width, depth and batch; peak memory against the size of the data.

``python -m benchmarks.scaling --backend numba --out FOLDER`` writes JSON and a picture (matplotlib).
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
    """Where on the axis a measurement stands."""
    return {"width": facts["sizes"][1], "depth": len(facts["sizes"]) - 2}.get(name) or int(facts[name])


def measured(backend: str, rounds: int, most_rows: int) -> dict[str, list[dict[str, float]]]:
    """For each series: where, seconds a row and epoch (median), bytes of the data, growth of memory beyond them."""
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
            print(line, flush=True)
    return found


def draw(found: dict[str, list[dict[str, float]]], file: Path, title: str) -> None:
    """Time a row, a picture each series; and memory beside the data."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found) + 1, figsize=(4 * (len(found) + 1), 3.4), layout="constrained")
    for axis, (name, lines) in zip(axes, found.items(), strict=False):
        axis.plot([line[name] for line in lines], [line["seconds a row"] * 1e6 for line in lines], "o-")
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="µs a row and epoch", title=f"against {name}")
        axis.grid(alpha=0.3, which="both")
    lines = found["rows"]
    axes[-1].plot([line["bytes of data"] / 1e6 for line in lines], [line["bytes beyond"] / 1e6 for line in lines], "o-")
    axes[-1].set(xscale="log", xlabel="data, MB", ylabel="memory of training beyond them, MB", title="memory")
    axes[-1].grid(alpha=0.3, which="both")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backend", default="numpy")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=10_000_000, help="no series goes beyond so many")
    options.add_argument("--out", type=Path, default=Path())
    given = options.parse_args()
    found = measured(given.backend, given.rounds, given.rows)
    given.out.mkdir(parents=True, exist_ok=True)
    facts = machine()
    (given.out / f"scaling-{given.backend}.json").write_text(
        json.dumps({"machine": facts, "series": found}, indent=1) + "\n"
    )
    draw(
        found,
        given.out / f"scaling-{given.backend}.png",
        f"20-64-64-2 and its kin on {given.backend}: {facts['processor']}",
    )


if __name__ == "__main__":
    main()
