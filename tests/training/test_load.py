"""Load changes the time, never the bits: runs beside busy processes, killed there and resumed without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills by a signal")]

SCRIPT = textwrap.dedent(
    """
    import hashlib, sys
    import numpy as np
    import portablenn as pnn
    folder, backend = sys.argv[1:]
    X = np.random.default_rng(0).normal(size=(2048, 784)).astype("f4")
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = pnn.mlp([784, 256, 256, 2], loss="softmax_cross_entropy", optimizer="adam", backend=backend)
    history = net.fit(X, y, epochs=6, batch_size=256, callbacks=[pnn.callbacks.Checkpoint(folder, every_steps=3)], resume=folder)
    assert "products on" in history.how
    digest = hashlib.sha256(b"".join(v.tobytes() for v in (net.state.theta, *net.state.slots)))
    digest.update(repr(sorted(history.items())).encode())
    print(digest.hexdigest())
    """
)


def start(folder: Path, backend: str, **environment: str) -> subprocess.Popen[str]:
    more = {"PORTABLENN_THREADS": "2"} | environment
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), backend]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | more)


def end(process: subprocess.Popen[str]) -> str:
    """Return the digest that a process prints of its network and history."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


@contextmanager
def busy(count: int = 3) -> Iterator[None]:
    """Run processes that do nothing but compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_load_kills_and_the_number_of_threads_change_no_bit(backend: str, tmp_path: Path) -> None:
    if backend == "numba":
        pytest.importorskip("portablenn_numba")
    wanted = end(start(tmp_path / "quiet", backend))
    with busy():
        assert end(start(tmp_path / "busy", backend)) == wanted
        process = start(tmp_path / "killed", backend)
        while len(list((tmp_path / "killed").glob("checkpoint-*"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert end(start(tmp_path / "killed", backend)) == wanted
    assert end(start(tmp_path / "one", backend, PORTABLENN_THREADS="1", OPENBLAS_NUM_THREADS="1")) == wanted


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to a core")
def test_one_core_gives_the_same_bits(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    wanted = end(start(tmp_path / "all", "numpy"))
    process = start(tmp_path / "one", "numpy")
    os.sched_setaffinity(process.pid, {core})
    assert end(process) == wanted
