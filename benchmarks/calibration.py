"""``python -m benchmarks.calibration FOLDER``: how many held-back targets are in the 90 % intervals of `MLPEnsembleRegressor`.

FOLDER has files NAME.npz of X, (rows, features), y, (rows,), and train_K and test_K, row numbers of split K, such as the UCI
sets with the splits of Gal and Ghahramani (2016).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

NORMAL = 1.6449
"""Standard deviations on both sides of the mean that hold 90 % of a normal distribution."""


def coverage(path: Path, split: int) -> tuple[float, float, float]:
    """Return the share of test rows within the interval, within that of the spread of members alone, and the RMSE."""
    from sklearn.preprocessing import StandardScaler

    from portablenn.sklearn import MLPEnsembleRegressor, MLPRegressor

    with np.load(path) as file:
        X, y, train, test = file["X"], file["y"].astype(float), file[f"train_{split}"], file[f"test_{split}"]
    scaler = StandardScaler().fit(X[train])
    mean, scale = y[train].mean(), y[train].std()
    net = MLPRegressor(hidden_layer_sizes=(50,), max_iter=200, learning_rate_init=0.01, batch_size=32, dtype="float32")
    ensemble = MLPEnsembleRegressor(net, 20, random_state=split)
    ensemble.fit(scaler.transform(X[train]), (y[train] - mean) / scale)
    x = scaler.transform(X[test])
    predicted, deviation = ensemble.predict(x, return_std=True)
    errors, spread = np.abs(y[test] - predicted * scale - mean), ensemble.ensemble_.predict_std(x)
    inside, inside_spread = (float((errors < NORMAL * scale * d).mean()) for d in (deviation, spread))
    return inside, inside_spread, float(np.sqrt(np.mean(errors**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    warnings.simplefilter("ignore")  # 200 epochs may not be the last
    print(f"{'':20} {'in 90 %':>8} {'lowest':>8} {'highest':>8} {'spread alone':>13} {'RMSE':>8}")
    for path in sorted(parser.parse_args().folder.glob("*.npz")):
        inside, alone, error = np.asarray([coverage(path, split) for split in range(5)]).T
        shares = f"{inside.mean():8.3f} {inside.min():8.2f} {inside.max():8.2f} {alone.mean():13.2f}"
        print(f"{path.stem:20} {shares} {error.mean():8.3f}", flush=True)


if __name__ == "__main__":
    main()
