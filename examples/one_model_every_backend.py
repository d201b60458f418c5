"""One model on every backend: the same network, data and seed on each library and device that is available.

For each it prints the accuracy, the deviation of the weights from NumPy's in float64, and the time.
"""

import importlib.util
import time
from pathlib import Path

import numpy as np

import portablenn as pnn


def available() -> list[str]:
    """List each usable backend on each of its devices, and array-api-strict; print why others are not usable."""
    names = []
    for info in pnn.backends():
        if not info.usable:
            print(f"{info.name:32} {info.reason}")
        names += [f"{info.name}:{device}" for device in info.devices]
    return names + ["array_api_strict"] * bool(importlib.util.find_spec("array_api_strict"))


def moons(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaving half circles, as scikit-learn's make_moons."""
    rng = np.random.RandomState(0)
    y = np.arange(rows) % 2
    angle = rng.uniform(0, np.pi, rows)
    X = np.stack([np.cos(angle) * (1 - 2 * y) + y, np.sin(angle) * (1 - 2 * y) + y / 2], axis=1)
    return X + 0.1 * rng.standard_normal(X.shape), y


def trained(backend: str, dtype: str = "float32") -> pnn.Network:
    X, y = moons()
    layers = [pnn.Dense(16, "relu"), pnn.Dropout(0.1), pnn.Dense(16, "relu"), pnn.Dense(2)]
    net = pnn.Network(layers, 2, "softmax_cross_entropy", pnn.Adam(0.01), backend=backend, dtype=dtype, seed=7)
    net.fit(X, y, epochs=10, batch_size=20)
    return net


def main(out: Path = Path()) -> None:
    X, y = moons()
    oracle = trained("numpy", "float64").state.theta
    for name in available():
        start = time.perf_counter()
        net = trained(name)
        seconds = time.perf_counter() - start
        weights = net.backend.to_numpy(net.state.theta)
        deviation = np.max(np.abs(weights - oracle)) / np.max(np.abs(oracle))
        accuracy = net.evaluate(X, y)["accuracy"]
        print(f"{net.backend!s:32} accuracy {accuracy:.4f}  deviation {deviation:.1e}  {seconds:.2f} s")


if __name__ == "__main__":
    main()
