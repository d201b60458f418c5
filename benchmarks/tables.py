"""``python -m benchmarks.tables FOLDER``: test RMSE and seconds a fit of `TableModel` and other models on UCI sets.

FOLDER has files NAME.npz of X, (rows, features), y, (rows,), and train_K and test_K, row numbers of split K, such as the UCI
sets with the splits of Gal and Ghahramani (2016). With pytabkit installed, its RealMLP-TD-S is among the models, which run in
turn. For one thread each, set OMP_NUM_THREADS and PORTABLENN_THREADS to 1.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Fit = Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], Any]]


def table_model(preset: str) -> Fit:
    from portablenn import TableModel

    def table(X: np.ndarray) -> dict[str, np.ndarray]:
        return {f"x{j}": X[:, j] for j in range(X.shape[1])}

    def fit(X: np.ndarray, y: np.ndarray, split: int) -> Callable[[np.ndarray], Any]:
        rows = {**table(X), "y": y}
        model = TableModel.train(rows, "y", task="regression", preset=preset, seed=split, test_share=0)
        return lambda X: model.predict(table(X))

    return fit


def estimator(make: Callable[[int], Any]) -> Fit:
    return lambda X, y, split: make(split).fit(X, y).predict


def models() -> dict[str, Fit]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def mlp(split: int) -> Any:
        net = make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(64, 32), random_state=split, max_iter=200)
        )
        return TransformedTargetRegressor(net, transformer=StandardScaler())

    found: dict[str, Fit] = {
        'TableModel, "default"': table_model("default"),
        'TableModel, "fast"': table_model("fast"),
        "linear model": estimator(lambda split: LinearRegression()),
        "scikit-learn MLP 64-32": estimator(mlp),
        "HistGradientBoosting": estimator(lambda split: HistGradientBoostingRegressor(random_state=split)),
    }
    try:
        import torch
        from pytabkit import RealMLP_TD_S_Regressor
    except ImportError:
        return found
    torch.set_num_threads(1)

    def realmlp(X: np.ndarray, y: np.ndarray, split: int) -> Callable[[np.ndarray], Any]:
        model = RealMLP_TD_S_Regressor(device="cpu", random_state=split, n_threads=1, verbosity=0)
        model.fit(X.astype(np.float32), y)
        return lambda X: model.predict(X.astype(np.float32)).ravel()

    found["pytabkit RealMLP-TD-S"] = realmlp
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", default="", help="names, comma-separated; default: all")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    known = models()
    for path in sorted(arguments.folder.glob("*.npz")):
        if arguments.sets and path.stem not in arguments.sets.split(","):
            continue
        errors: dict[str, list[float]] = {name: [] for name in known}
        seconds: dict[str, list[float]] = {name: [] for name in known}
        with np.load(path) as file:
            X, y = file["X"], file["y"].astype(float)
            for split in range(5):
                train, test = file[f"train_{split}"], file[f"test_{split}"]
                for name, fit in known.items():
                    began = time.perf_counter()
                    predict = fit(X[train], y[train], split)
                    seconds[name].append(time.perf_counter() - began)
                    errors[name].append(float(np.sqrt(np.mean((np.asarray(predict(X[test])) - y[test]) ** 2))))
        for name in known:
            mean, error = np.mean(errors[name]), np.std(errors[name], ddof=1) / np.sqrt(5)
            print(f"{path.stem:18} {name:24} {mean:8.3f} ± {error:.3f} {np.median(seconds[name]):8.2f} s", flush=True)


if __name__ == "__main__":
    main()
