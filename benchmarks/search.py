"""``python -m benchmarks.search``: a search with cross-validation on scikit-learn's digits, ours and scikit-learn's, in turns.

The candidates and, up to rounding, the networks are the same in all: `MLPSearchCV`, and `RandomizedSearchCV` over our
`MLPClassifier` and over scikit-learn's, with a process on each core. Times are medians, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .rounds import machine


def searches(hidden: tuple[int, ...], candidates: int, epochs: int, jobs: int) -> dict[str, Callable[[], Any]]:
    from scipy.stats import loguniform
    from sklearn import neural_network
    from sklearn.model_selection import RandomizedSearchCV

    from portablenn.sklearn import MLPClassifier, MLPSearchCV

    ranges = {"alpha": loguniform(1e-5, 1), "learning_rate_init": loguniform(1e-4, 1e-2)}
    same: dict[str, Any] = {"n_iter": candidates, "cv": 5, "random_state": 0, "refit": False}
    ours = MLPClassifier(hidden, max_iter=epochs, random_state=0)
    theirs = neural_network.MLPClassifier(hidden, max_iter=epochs, random_state=0)
    return {
        "MLPSearchCV": lambda: MLPSearchCV(ours, ranges, **same),
        "RandomizedSearchCV, our networks": lambda: RandomizedSearchCV(ours, ranges, n_jobs=jobs, **same),
        "RandomizedSearchCV, scikit-learn's": lambda: RandomizedSearchCV(theirs, ranges, n_jobs=jobs, **same),
    }


def measure(hidden: tuple[int, ...], candidates: int, epochs: int, jobs: int, rounds: int) -> dict[str, Any]:
    """Return the median of each, and the largest difference between the scores of the first two."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    times: dict[str, list[float]] = {}
    scores: dict[str, Any] = {}
    for _ in range(rounds):
        for name, make in searches(hidden, candidates, epochs, jobs).items():
            start = time.perf_counter()
            search = make().fit(X / 16.0, y)
            times.setdefault(name, []).append(time.perf_counter() - start)
            scores[name] = search.cv_results_["mean_test_score"]
    first, second, *_ = scores.values()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"medians": medians, "all": times, "largest difference of scores": float(abs(first - second).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"  # of processes, which do not know this one's filters
    warnings.simplefilter("ignore")  # that 20 epochs are too few
    found = {"machine": machine(), "arguments": vars(given) | {"json": None}}
    for hidden in ((16, 16), (32,), (100,)):
        found[str(hidden)] = one = measure(hidden, given.candidates, given.epochs, given.jobs, given.rounds)
        for name, seconds in one["medians"].items():
            print(f"{hidden!s:9} {name:36} {seconds:7.2f} s", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
