"""60,000 full-batch steps of the 3-4-1 network: `Network.fit` and the tutorial's own NumPy loop, in turn."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
from rounds import machine, report, seconds

EXAMPLE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "examples" / "three_layers.py"))
STEPS = 60_000


def by_hand() -> np.ndarray:
    """The loop of the tutorial, without its prints."""
    X, y = EXAMPLE["INPUTS"], EXAMPLE["TARGETS"][:, None]
    rng = np.random.RandomState(1)
    syn0, syn1 = 2 * rng.random_sample((3, 4)) - 1, 2 * rng.random_sample((4, 1)) - 1
    for _ in range(STEPS):
        l0 = X
        l1 = 1 / (1 + np.exp(-(np.dot(l0, syn0))))
        l2 = 1 / (1 + np.exp(-(np.dot(l1, syn1))))
        l2_error = y - l2
        l2_delta = l2_error * (l2 * (1 - l2))
        l1_error = l2_delta.dot(syn1.T)
        l1_delta = l1_error * (l1 * (1 - l1))
        syn1 += l1.T.dot(l2_delta)
        syn0 += l0.T.dot(l1_delta)
    return syn0


def by_fit() -> np.ndarray:
    net = EXAMPLE["three_layers"]()
    net.fit(EXAMPLE["INPUTS"], EXAMPLE["TARGETS"], epochs=STEPS, batch_size=None)
    return net.parameters["dense_1.kernel"]


if __name__ == "__main__":
    np.testing.assert_allclose(by_fit(), by_hand(), rtol=1e-8)
    print(machine())
    report(f"3-4-1, {STEPS:,} steps", seconds({"portablenn": by_fit, "hand-written loop": by_hand}))
