"""Memory of training: no copy of the data, and no growth from step to step."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PRELUDE = """
import gc, resource, sys
import numpy as np
import portablenn as pnn

def now():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

def most():  # getrusage would include what the process was that started this one
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


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


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import portablenn as pnn
from portablenn.callbacks import Callback

path = sys.argv[1]
small = {"x": np.arange(5000.0), "y": np.where(np.arange(5000) % 3 == 0, "a", "b")}
pnn.TableModel.train(small, "y", preset="fast", epochs=1).predict(small)  # whatever is allocated once
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (350 << 20),) * 2)
model = pnn.TableModel.train(path, "label", preset="fast", epochs=1, batch_size=1024, hidden=(16,))
assert model.results["rows"]["train"] > 1_500_000, model.results["rows"]
rows = sum(batch.num_rows for batch in model.predict_batches(path))
print(rows, model.results["metrics"]["accuracy"])
"""


@pytest.mark.skipif(not os.path.isfile("/proc/self/statm"), reason="measures its memory as Linux tells it")
def test_a_table_of_more_than_memory_is_trained_on_and_predicted(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    chance, path = np.random.default_rng(0), tmp_path / "big.parquet"
    names = [*(f"x{i}" for i in range(24)), "label"]
    schema = pa.schema([*((name, pa.float64()) for name in names[:-1]), ("label", pa.string())])
    with parquet.ParquetWriter(path, schema, use_dictionary=["label"]) as file:
        for _ in range(20):
            x = chance.normal(size=(24, 100_000))
            file.write_table(pa.table([*x, np.where(x[0] > 0.3, "yes", "no")], schema=schema))
    assert path.stat().st_size > 350 << 20  # what the process may take more
    # Each thread that allocates would get an arena of glibc's, which reserves 64 MiB of addresses whatever it uses of them.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    rows, accuracy = done.stdout.split()
    assert (int(rows), float(accuracy) > 0.95) == (2_000_000, True)
