"""Memory of training: no copy of the data, and no growth from step to step."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

PRELUDE = """
import gc, resource, sys
import numpy as np
import portablenn as pnn

def now():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def megabytes(script: str) -> float:
    """What a script prints last, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PRELUDE + script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.mark.parametrize("backend", ["numpy", "numba", "array_api_strict", "torch", "jax"])
def test_ten_thousand_steps_more_need_no_more_memory(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    epochs = 50 if backend in ("array_api_strict", "torch") else 1000
    grown = megabytes(f"""
X = np.random.default_rng(0).random((1000, 20), dtype=np.float32)
net = pnn.mlp([20, 16, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend="{backend}")
fit = lambda: net.fit(X, (X[:, 0] > 0.5).astype(int), epochs={epochs}, batch_size=100)
fit(), fit()
figures = [now() for _ in range(4) if fit()]
print(min(after - before for before, after in zip(figures, figures[1:])))  # what leaks, leaks each time
""")
    assert grown < 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "float16", "bool"])
@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_training_copies_no_data_whatever_their_dtype(dtype: str, order: str) -> None:
    """100 MB of float32, and as many numbers of other dtypes, which are converted batch by batch."""
    beyond = megabytes(f"""
net = pnn.mlp([100, 16, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend="numpy")
X, y = np.ones((250_000, 100), dtype="{dtype}"), np.arange(250_000) % 2
net.fit(X[:1000], y[:1000], batch_size=100)
before = most()
net.fit(X, y, batch_size=100, order="{order}")
net.evaluate(X[:5000], y[:5000])
print(most() - before)
""")
    assert beyond < 20
