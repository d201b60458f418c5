"""``python -m benchmarks``, or ``portablenn bench``: time portablenn and every installed peer, in turns."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .report import as_json, markdown, summary
from .rounds import Measured, compete, machine
from .workloads import WORKLOADS, quick


def main(arguments: list[str] | None = None) -> None:
    titles = "; ".join(w.title for w in WORKLOADS.values())
    options = argparse.ArgumentParser("portablenn bench", description=f"{__doc__} Workloads: {titles}.")
    options.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"one of {' '.join(WORKLOADS)}; default: all")
    options.add_argument("--rounds", type=int, default=7, help="number of timed rounds")
    options.add_argument("--only", default="", help="comma-separated contestants to run besides portablenn's")
    options.add_argument("--without", default="torch.compile", help="comma-separated contestants to leave out")
    options.add_argument("--busy", type=int, default=0, metavar="N", help="run N busy processes beside the contestants")
    options.add_argument("--quick", action="store_true", help="tiny workloads, only to check that everything runs")
    options.add_argument("--json", type=Path, help="write all measurements to this file")
    options.add_argument("--markdown", type=Path, help="write the tables to this file")
    given = options.parse_args(arguments)
    unknown = [letter for letter in given.workloads if letter not in WORKLOADS]
    if unknown:
        options.error(f"expected workloads of {', '.join(WORKLOADS)}, got {unknown[0]!r}")
    facts, results = machine(), dict[str, dict[str, Measured]]()
    if given.busy:
        facts["busy processes"] = str(given.busy)
    head = ", ".join(f"{key} {value}" for key, value in facts.items())
    print(head, flush=True)
    only, without = (set(filter(None, text.split(","))) for text in (given.only, given.without))
    for letter in given.workloads or WORKLOADS:
        workload = quick(letter) if given.quick else WORKLOADS[letter]
        always = ("portablenn", "limit")
        chosen = [c for c in workload.contestants if not only or c.name in only or c.name.startswith(always)]
        contestants = [c for c in chosen if c.name not in without]
        results[workload.title] = compete(contestants, 1 if given.quick else given.rounds, given.busy)
        print("\n" + markdown(workload.title, results[workload.title]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(as_json(facts, results), indent=1) + "\n")
    if given.markdown:
        tables = (markdown(title, found) for title, found in results.items())
        given.markdown.write_text("\n".join([head, "", summary(results), *tables]))


if __name__ == "__main__":
    main()
