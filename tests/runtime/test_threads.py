"""Threads of matrix products on NumPy: results do not depend on them, and BLAS gets its own back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.files import checkpoint
from portablenn.runtime.numpy import threads

pytestmark = pytest.mark.skipif(threads._openblas() is threads._UNKNOWN, reason="NumPy uses another BLAS than OpenBLAS")


@pytest.fixture(autouse=True)
def _automatic() -> Iterator[None]:
    yield
    pnn.set_threads(None)


def matrix(rows: int, columns: int, dtype: str, order: str = "C", batch: tuple[int, ...] = ()) -> np.ndarray:
    values = np.random.default_rng(rows * columns).standard_normal((*batch, rows, columns)).astype(dtype)
    return values if order == "C" else np.ascontiguousarray(values.mT).mT


def product(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    pnn.set_threads(count)
    out = np.full((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.nan, dtype=a.dtype)
    with threads.single_thread:
        threads.matmul(a, b, out)
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize(
    "shape", [(128, 784, 512), (784, 128, 512), (333, 257, 129), (49, 2000, 201), (8192, 64, 64), (20_000, 784, 2)]
)
def test_no_bit_of_a_product_depends_on_the_number_of_threads(
    shape: tuple[int, int, int], orders: str, dtype: str
) -> None:
    rows, inner, columns = shape
    a, b = matrix(rows, inner, dtype, orders[0]), matrix(inner, columns, dtype, orders[1])
    assert threads.can_split(a.shape, b.shape)
    with threads.single_thread:
        expected = a @ b
    for count in (1, 2, 3, 5):
        np.testing.assert_array_equal(product(count, a, b), expected)


@pytest.mark.parametrize(("a", "b"), [((4,), (4,)), ((), (4,)), ((4,), ()), ((3, 2), (2,)), ((1, 4), (4,))])
def test_batches_of_matrices_are_split_too(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    first, second = matrix(200, 150, "float32", batch=a), matrix(150, 201, "float32", batch=b)
    with threads.single_thread:
        expected = first @ second
    np.testing.assert_array_equal(product(3, first, second), expected)


def test_a_matrix_times_its_own_transpose_is_what_numpy_makes_of_it() -> None:
    a = matrix(700, 300, "float32")
    np.testing.assert_array_equal(product(2, a, a.T), product(1, a, a.T))


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    a, b = matrix(500, 500, "float64"), matrix(500, 500, "float64")
    pnn.set_threads(2)
    with pytest.raises(ValueError, match="not aligned"):
        threads._workers.multiply([(a, b, np.empty_like(a)), (a, b[:7], np.empty_like(a))])
    np.testing.assert_array_equal(product(2, a, b), product(1, a, b))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_gives_the_same_bits_on_any_number_of_threads(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("portablenn_numba")
    X = matrix(600, 400, "float32")
    y = (X[:, 0] > 0).astype(int)
    trained = []
    for count in (1, 2, 3):
        pnn.set_threads(count)
        net = pnn.mlp([400, 256, 256, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend=backend)
        net.fit(X, y, epochs=2, batch_size=200)
        trained.append(np.concatenate([np.ravel(a) for a in net.parameters.values()]))
    assert all(np.array_equal(parameters, trained[0]) for parameters in trained)
    assert threads.can_split((200, 256), (256, 256))


@pytest.mark.parametrize(
    ("width", "count", "how"),
    [
        (16, 2, "numpy: plan"),
        (512, 1, "numpy: plan, large products on 1 thread"),
        (512, 2, "numpy: plan, large products on 2 threads"),
        (512, 99, "numpy: plan, large products on 6 threads"),  # 128 rows have six blocks of 24 at most
    ],
)
def test_history_says_on_how_many_threads_large_products_run(width: int, count: int, how: str, tmp_path: Path) -> None:
    pnn.set_threads(count)
    net = pnn.mlp([400, width, width, 2], loss="softmax_cross_entropy", backend="numpy")
    X = matrix(256, 400, "float32")
    history = net.fit(X, np.arange(256) % 2, batch_size=128, callbacks=[pnn.callbacks.Checkpoint(tmp_path)])
    assert history.how == how
    saved = checkpoint.newest(tmp_path)
    assert saved is not None
    assert saved.facts["versions"]["how"] == how


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that compiles another, checks its results, and returns how many products were computed at once, in order."""
    multiply, seen = threads.matmul, list[int]()

    def matmul(*arrays: np.ndarray) -> None:
        seen.append(len(arrays) // 3)
        multiply(*arrays)

    def run(function: Any, *arrays: np.ndarray) -> list[int]:
        seen.clear()
        for found, expected in zip(pnn.compile(function)(*arrays), function(*arrays), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-6)
        return seen

    monkeypatch.setattr(threads, "matmul", matmul)
    pnn.set_threads(2)
    return run


A, B, C = (matrix(300, 300, "float64") + i for i in range(3))


def test_independent_products_that_follow_each_other_run_at_once(at_once: Any) -> None:
    assert at_once(lambda a, b, c: (a @ b, a @ c), A, B, C) == [2]
    assert at_once(lambda a, b, c: (a @ b, b @ c, c @ a), A, B, C) == [3]


def test_a_product_waits_for_what_it_reads(at_once: Any) -> None:
    assert at_once(lambda a, b, c: (a @ b @ c,), A, B, C) == [1, 1]
    assert at_once(lambda a, b, c: (b @ c, c @ (b @ c)), A, B, C) == [1, 1]


def test_a_product_does_not_overwrite_what_another_still_reads(at_once: Any) -> None:
    """The second result has the memory of a + 1.0, which nothing reads after the first product."""

    def function(a: Any, b: Any) -> tuple[Any, ...]:
        first, second = a + 1.0, b + 1.0
        return first @ b + 2.0 * (second @ a), second + 0.0

    assert at_once(function, A, B) == [1, 1]


def test_blas_gets_its_threads_back_also_after_an_error() -> None:
    blas, before = threads._openblas(), threads._openblas().get()
    try:
        blas.set(3)
        pnn.compile(lambda a: a @ a)(matrix(100, 100, "float64"))
        assert blas.get() == 3
        with contextlib.suppress(RuntimeError), threads.single_thread, threads.single_thread:
            assert (blas.get(), threads.single_thread.limit) == (1, 3)
            raise RuntimeError
        assert blas.get() == 3
    finally:
        blas.set(before)


def test_blas_runs_on_one_thread_within_a_compiled_program(monkeypatch: pytest.MonkeyPatch) -> None:
    blas, before, seen = threads._openblas(), threads._openblas().get(), []
    monkeypatch.setattr(threads, "_multiply", lambda *block: seen.append(blas.get()) or np.matmul(*block))
    try:
        blas.set(2)
        pnn.set_threads(2)
        a = matrix(300, 300, "float32")
        np.testing.assert_array_equal(pnn.compile(lambda a, b: a @ b)(a, a + 1), product(1, a, a + 1))
    finally:
        blas.set(before)
    assert seen == [1, 1, 1]


def test_threads_of_python_that_multiply_at_once_get_the_right_results() -> None:
    pnn.set_threads(2)
    multiply = pnn.compile(lambda a, b: a @ b)
    cases = [(matrix(300 + i, 300, "float32"), matrix(300, 256, "float32")) for i in range(6)]
    expected, wrong = [multiply(*case) for case in cases], []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(20) if not np.array_equal(multiply(*cases[i]), expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert threads.single_thread._depth == 0


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2"])
def test_a_number_of_threads_is_a_positive_integer(count: Any) -> None:
    with pytest.raises(ValueError, match="count: expected a positive integer, got"):
        pnn.set_threads(count)


def test_the_environment_says_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_THREADS", "3")
    assert pnn.get_threads() == 3
    pnn.set_threads(2)
    assert pnn.get_threads() == 2
    pnn.set_threads(None)
    monkeypatch.setenv("PORTABLENN_THREADS", "many")
    with pytest.raises(ValueError, match="PORTABLENN_THREADS: expected a positive integer, got 'many'"):
        pnn.get_threads()


def test_limits_on_blas_hold_for_our_threads() -> None:
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    with limits(1):
        assert pnn.get_threads() == 1
        with threads.single_thread:
            assert pnn.get_threads() == 1


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "1"}, {"CORES": "1"}])
def test_a_process_takes_no_more_cores_than_it_may(environment: dict[str, str]) -> None:
    if "CORES" in environment and not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no CPU affinity")
    script = "import os; 'CORES' in os.environ and os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    script += "import portablenn as pnn; print(pnn.get_threads())"
    others = {k: v for k, v in os.environ.items() if not k.endswith("_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**others, **environment})
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads._quota(str(tmp_path)) == cores or (cores is None and threads._quota(str(tmp_path)) > 1000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_computes() -> None:
    script = """
import os, numpy as np, portablenn as pnn
pnn.set_threads(2)
from portablenn.files import checkpoint
from portablenn.runtime.numpy import threads
multiply, a = pnn.compile(lambda a, b: a @ b), np.ones((400, 400))
multiply(a, a + 1)
threads.single_thread.__enter__()  # as if another thread computed at the moment
threads._workers._lock.acquire()
child = os.fork()
if child == 0:
    right = (multiply(a, a + 1) == 800).all() and threads._workers._workers != []
    os._exit(0 if right and threads.single_thread._depth == 0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timer")
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_ctrl_c_leaves_no_thread_that_still_writes(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    ended = threading.Event()

    def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0.1)  # here, so that it does not end before the worker has begun
        else:
            ended.wait(0.5)
            ended.set()

    def interrupt(*_: Any) -> None:
        raise error

    monkeypatch.setattr(threads, "_multiply", multiply)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        a = matrix(500, 500, "float64")
        with pytest.raises(error):
            product(2, a, a + 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended.is_set()
    assert threads.single_thread._depth == 0
    assert not threads._workers._lock.locked()
    monkeypatch.undo()
    np.testing.assert_array_equal(product(2, a, a + 1), product(1, a, a + 1))
