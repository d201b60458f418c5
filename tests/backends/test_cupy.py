"""The CuPy plug-in without a GPU: its kernels as C++ of the host, its graphs on a stand-in that refuses what CuPy refuses.

Its kernels are also compiled for a GPU where NVRTC or nvcc is there. On a GPU the conformance kit tests the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import looped_step, of, operands, traced

import portablenn as pnn
from portablenn import testing
from portablenn.nn import schedules
from portablenn.nn.activations import ACTIVATIONS
from portablenn.nn.losses import LOSSES
from portablenn.nn.optimizers import OPTIMIZERS
from portablenn.program.interpret import interpret
from portablenn.program.ir import DType
from portablenn.runtime import guard
from portablenn.runtime.backend import Interpreted, UnsupportedError
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Copy, Product, Schedule
from portablenn.testing.collect import required

pytest.importorskip("portablenn_cupy")

import host_cuda
from portablenn_cupy import calls as cupy_calls
from portablenn_cupy import kernels as cupy_kernels
from portablenn_cupy import schedule
from portablenn_cupy.branches import branches
from portablenn_cupy.calls import calls
from portablenn_cupy.kernels import EXPRESSIONS, PRELUDE, Kernel, expressible
from portablenn_cupy.products import product_kernel
from portablenn_cupy.small import many_steps

xp = pnn.get_backend("numpy").xp
on_host = pytest.mark.skipif(host_cuda.COMPILER is None, reason="needs a C++ compiler")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6))
CLASSES = RNG.integers(0, 4, 96)


def agree(function: Any, *arrays: np.ndarray, rtol: float = 1e-12) -> Any:
    """Check the kernels of ``function`` against its meaning; the compiled function."""
    program = traced(function, *arrays)
    run = guard.compile(host_cuda.HostCupy(), program)
    before = [a.copy() for a in arrays]
    for ours, meant in zip(run(*arrays), interpret(xp, program, *arrays), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=rtol, atol=1e-12, strict=True)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    return run


@on_host
@given(programs.shapes, programs.continuous_steps, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_kernels_of_random_programs_agree_with_the_oracle(shapes: Any, instructions: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape) for shape in shapes]
    agree(lambda *a: [*programs.run(of(*a), a, instructions)[-4:], a[0]], *inputs, rtol=1e-9)


@on_host
@given(
    programs.shapes,
    programs.continuous_steps,
    st.integers(0, 3),
    st.lists(st.integers(0, 30), min_size=3, max_size=3),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_loop_agrees_with_interpreted_steps(
    shapes: Any, instructions: Any, count: int, places: list[int], graph: bool
) -> None:
    """As a graph, and as one kernel that does many steps."""

    inputs = [np.asarray(RNG.uniform(-1, 1, shape)) for shape in shapes]
    carried = len(inputs) - 1
    program = traced(looped_step(instructions, places), np.asarray(0, np.int32), *inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTABLENN_CUPY", "graph" if graph else "")
        loop = guard.compile_loop(host_cuda.HostCupy(), program, carried)
    expected = pnn.Backend("numpy", xp).interpreter_loop(program, carried)(count, *inputs)
    for _ in range(2):
        for ours, meant in zip(loop(count, *inputs), expected, strict=True):
            np.testing.assert_allclose(ours, meant, rtol=1e-9, atol=1e-12)


def arguments(name: str, dtype: str) -> list[np.ndarray]:
    return operands(name, dtype, 2 if name.endswith("_shift") or "{1}" in EXPRESSIONS.get(name, "") else 1)


def expressed() -> Iterable[tuple[str, str]]:
    special = {"abs", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift"}
    for name in sorted(special | EXPRESSIONS.keys() - {"broadcast_to"}):
        for dtype in ("float32", "float64", "int32", "int64", "uint8", "bool"):
            try:
                program = traced(getattr(tracing_namespace(), name), *arguments(name, dtype))
            except TypeError:
                continue  # the standard has no such operation of this dtype
            if all(map(expressible, program.operations)):
                yield name, dtype


def tracing_namespace() -> Any:
    """A namespace whose functions look for that of their arguments."""

    class Namespace:
        def __getattr__(self, name: str) -> Any:
            return lambda *a: getattr(of(*a), name)(*a)

    return Namespace()


@on_host
@pytest.mark.parametrize(("name", "dtype"), list(expressed()))
def test_each_expression_agrees_with_the_oracle(name: str, dtype: str) -> None:
    arrays = arguments(name, dtype)
    program = traced(getattr(tracing_namespace(), name), *arrays)
    with np.errstate(all="ignore"):
        run = host_cuda.HostCupy().compile(program)
        (ours,), (meant,) = run(*arrays), interpret(xp, program, *arrays)
    assert run.how.startswith("1 "), run.how
    np.testing.assert_allclose(ours, meant, rtol=3e-7 if dtype == "float32" else 1e-15, strict=True)


CASES = {
    "columns": lambda x: of(x).sum(x, axis=0),
    "rows": lambda x: of(x).max(x, axis=1),
    "all": lambda x: of(x).sum(x),
    "middle": lambda x: of(x).sum(of(x).reshape(x, (50, 20, -1)), axis=1),
    "outer": lambda x: of(x).min(of(x).reshape(x, (50, 20, -1)), axis=(0, 2)),
    "transposed": lambda x: of(x).sum(x.T, axis=0),
    "argmax": lambda x: of(x).argmax(x, axis=1),
    "argmin of all": lambda x: of(x).argmin(x),
    "taken": lambda x: of(x).take(x.T, of(x).asarray([3, 0, 2]), axis=0),
    "product": lambda x: x.T @ x,
    "product of slices": lambda x: x[10:20, 1:] @ x[:9, :-1].T,
    "product of strides": lambda x: x[::2, ::2].T @ x[::2, 1:],
    "stacked": lambda x: of(x).stack([x, x * 2.0], axis=1),
    "concatenated": lambda x: of(x).concat([x, x + 1.0, x[:3]], axis=0),
    "side by side": lambda x: of(x).concat([x, x + 1.0], axis=1),
    "turned": lambda x: of(x).flip(x, axis=1) * x,
    "partly broadcast": lambda x: of(x).reshape(x, (50, 20, -1)) * of(x).reshape(x[:20, :1], (1, 20, 1)),
    "long rows": lambda x: of(x).exp(of(x).reshape(x, (1, -1)) - of(x).max(of(x).reshape(x, (1, -1)), axis=1)),
}


@on_host
@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_kernel_agrees_with_the_oracle(name: str) -> None:
    run = agree(CASES[name], RNG.normal(size=(1000, 5)))
    assert "interpreter" not in run.how


@on_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_train_as_on_numpy(dtype: str) -> None:
    def trained(backend: Any) -> Any:
        layers = [pnn.Dense(16, "silu"), pnn.BatchNorm(), pnn.Dropout(0.3), pnn.Dense(8, "relu"), pnn.Dense(4)]
        net = pnn.Network(
            layers, 6, "softmax_cross_entropy", pnn.Adam(1e-3, clip_norm=1.0), backend=backend, dtype=dtype
        )
        net.fit(X, CLASSES, epochs=2, batch_size=40)
        return net

    ours, oracle = trained(host_cuda.HostCupy()), trained("numpy")
    np.testing.assert_allclose(ours.state.theta, oracle.state.theta, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)
    assert ours.evaluate(X, CLASSES)["loss"] == pytest.approx(oracle.evaluate(X, CLASSES)["loss"], rel=1e-5)


SHARED = {
    "product": (lambda x: x.T @ x, (50, 7)),
    "columns": (lambda x: of(x).sum(x, axis=0), (3000, 70)),
    "columns of many rows": (lambda x: of(x).max(x, axis=0), (5000, 3)),
    "rows": (lambda x: of(x).sum(of(x).reshape(x, (2, 3, -1)), axis=2), (6, 20)),
    "long rows": (lambda x: of(x).min(x, axis=1), (2, 9000)),
    "all": (lambda x: of(x).sum(x * x), (9000, 2)),
    "softmax": (lambda x: of(x).exp(x - of(x).max(x, axis=1, keepdims=True)) / of(x).sum(of(x).exp(x), axis=1, keepdims=True), (13, 10)),
    "softmax of wide rows": (lambda x: x / of(x).sum(of(x).exp(x), axis=1, keepdims=True), (3, 2000)),
    "elements": (lambda x: of(x).exp(x) + x[0, :] * of(x).sum(x[0, :3]), (40, 30)),
    "middle": (lambda x: of(x).sum(of(x).reshape(x, (3, 50, 7)), axis=1), (150, 7)),
    "first and last": (lambda x: of(x).max(of(x).reshape(x, (5, 9, 40)), axis=(0, 2)), (45, 40)),
    "stack of products": (lambda x: of(x).reshape(x, (3, 4, 70)) @ of(x).reshape(x, (3, 4, 70)).mT, (12, 70)),
    "matrix and stack": (lambda x: x[:4, :] @ of(x).reshape(x, (3, 70, 4)), (12, 70)),
}  # fmt: skip


@on_host
@pytest.mark.parametrize("name", SHARED)
def test_workers_that_share_a_row_or_a_column_agree_with_the_oracle(name: str) -> None:
    """The text that a GPU runs, with its warps and blocks."""
    function, shape = SHARED[name]
    x = RNG.normal(size=shape)
    program = traced(function, x)
    run = host_cuda.HostCupy(host_cuda.ManyWorkers()).compile(program)
    assert "interpreter" not in run.how, run.how
    for ours, meant in zip(run(x), interpret(xp, program, x), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=1e-11)


@on_host
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9])
def test_short_rows_of_which_a_thread_computes_each_agree_with_the_oracle(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(cupy_kernels, "MANY_ROWS", 16)
    x = RNG.normal(size=(300, columns))
    x[5, 0] = np.nan

    def softmax_and_minimum(x: Any) -> list[Any]:
        powers = of(x).exp(x - of(x).max(x, axis=1, keepdims=True))
        return [powers / of(x).sum(powers, axis=1, keepdims=True), of(x).min(x, axis=1)]

    program = traced(softmax_and_minimum, x)
    run = host_cuda.HostCupy(host_cuda.ManyWorkers()).compile(program)
    for ours, meant in zip(run(x), interpret(xp, program, x), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=1e-12)


@on_host
def test_short_rows_in_a_kernel_of_many_steps_are_shared_by_the_threads_of_its_block() -> None:
    x = np.arange(8192 * 8.0).reshape(8192, 8)
    program = traced(
        lambda i, carry, x: [carry + of(x).sum(x, axis=1)], np.asarray(0, dtype=np.int32), np.zeros(8192), x
    )
    loop = host_cuda.HostCupy(host_cuda.ManyWorkers()).compile_loop(program, 1)
    assert "many steps" in loop.how
    np.testing.assert_array_equal(loop(2, np.zeros(8192), x)[0], 2 * x.sum(axis=1))


@on_host
@pytest.mark.parametrize("mode", ["graph", ""])
def test_an_ensemble_trains_as_on_numpy_with_all_workers_of_a_block(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("PORTABLENN_CUPY", mode)
    found = []
    for backend in (host_cuda.HostCupy(host_cuda.ManyWorkers()), "numpy"):
        net = pnn.mlp([6, 5, 4], loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend=backend, dtype="float64")
        ensemble = pnn.Ensemble(net, members=3)
        ensemble.fit(X, CLASSES, batch_size=32)
        found.append(np.stack([member.state.theta for member in ensemble.networks]))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)


@on_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_steps_in_one_kernel_agree_with_all_workers_of_a_block(dtype: str) -> None:
    """The text that a GPU runs: a missing barrier between two calls would show, if not always."""
    backend = host_cuda.HostCupy(host_cuda.ManyWorkers())
    ours, oracle = (simple(b, dtype=dtype) for b in (backend, "numpy"))
    for net in (ours, oracle):
        net.fit(X[:20], CLASSES[:20], epochs=2, batch_size=10)
    assert "a CUDA kernel that runs many steps" in ours.history.how
    np.testing.assert_allclose(ours.state.theta, oracle.state.theta, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)


@on_host
@pytest.mark.parametrize("sizes", [[784, 16, 16, 10], [20, 64, 64, 2], [13, 33, 3]])
def test_networks_of_many_sizes_train_as_on_numpy(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(210, sizes[0])), rng.integers(0, sizes[-1], 210)
    backend = host_cuda.HostCupy()
    ours, oracle = (
        pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend=b, dtype="float64", seed=2)
        for b in (backend, "numpy")
    )
    for net in (ours, oracle):
        net.fit(x, y, epochs=2, batch_size=100)
    assert "interpreter" not in ours.history.how
    np.testing.assert_allclose(ours.state.theta, oracle.state.theta, rtol=0, atol=1e-12)


@on_host
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.sampled_from([0, 1000]), st.booleans(), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_small_products_of_any_shape_agree_with_numpy(
    m: int, k: int, n: int, few: int, turned_a: bool, turned_b: bool
) -> None:
    a, b = RNG.normal(size=(k, m) if turned_a else (m, k)), RNG.normal(size=(n, k) if turned_b else (k, n))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy_calls, "_small_product", lambda call: product_kernel(call, few))
        run = agree(lambda a, b: (a.T if turned_a else a) @ (b.T if turned_b else b), a, b)
    assert "interpreter" not in run.how


def simple(backend: Any, **facts: Any) -> Any:
    return pnn.mlp([6, 8, 4], "relu", loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend=backend, **facts)


def captures(backend: host_cuda.HostCupy) -> list[int]:
    """Return a list that grows by one with each capture."""
    captured: list[int] = []
    capture = backend.cuda.capture
    backend.cuda.capture = lambda enqueue: captured.append(1) or capture(enqueue)  # type: ignore[method-assign,func-returns-value]
    return captured


@pytest.fixture
def as_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps, too."""
    monkeypatch.setenv("PORTABLENN_CUPY", "graph")


@on_host
@pytest.mark.usefixtures("as_graph")
def test_an_epoch_is_replayed_without_another_capture() -> None:
    backend = host_cuda.HostCupy()
    captured = captures(backend)
    net = simple(backend)
    for _ in range(4):
        net.fit(X, CLASSES, epochs=1, batch_size=32)
    assert captured == [1]


@on_host
@pytest.mark.usefixtures("as_graph")
def test_equal_networks_on_different_data_keep_their_graphs() -> None:
    backend = host_cuda.HostCupy()
    captured = captures(backend)
    rows = [RNG.normal(size=(96, 50_000)) for _ in range(6)]  # large ones are read where they are
    big = pnn.mlp([50_000, 2], loss="softmax_cross_entropy", backend=backend, dtype="float64")
    for _ in range(3):
        for x in rows[:3]:
            big.fit(x, CLASSES % 2, epochs=1)
    assert captured == [1] * 3
    for x in rows:
        big.fit(x, CLASSES % 2, epochs=1)
    assert captured == [1] * 6  # of which four are kept


@on_host
@pytest.mark.usefixtures("as_graph")
def test_where_a_capture_fails_the_interpreter_runs_and_the_reason_is_kept() -> None:
    backend = host_cuda.HostCupy()
    backend.cuda.broken = "calling cuBLAS API during stream capture is currently unsupported"
    program = traced(lambda i, x: [x * 2.0, of(x).sum(x)], np.asarray(0, np.int32), np.ones(3))
    loop = guard.compile_loop(backend, program, 1)
    with pytest.warns(guard.FastPathWarning, match="the interpreter runs instead"):
        final, sums = loop(3, np.ones(3))
    np.testing.assert_array_equal(final, np.full(3, 8.0))
    np.testing.assert_array_equal(sums, [3.0, 6.0, 12.0])
    assert loop.how.startswith("interpreter: a CUDA graph of ")
    assert loop.how.endswith(f" failed (NotImplementedError: {backend.cuda.broken})")


@on_host
def test_an_operation_without_a_kernel_is_interpreted_and_named() -> None:
    x = RNG.normal(size=(4, 4))
    run = agree(lambda x: of(x).cumulative_sum(x, axis=0) + 1.0, x)
    assert run.how.startswith("interpreter: cumulative_sum of float64[4, 4]")


@on_host
def test_eager_execution_can_be_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_CUPY", "eager")
    assert agree(lambda x: x * 2.0, np.ones(3)).how == "interpreter: PORTABLENN_CUPY=eager"


@on_host
def test_out_of_memory_gives_memory_back_and_the_network_stays_as_it_was() -> None:
    class OutOfMemoryError(Exception):
        pass

    def out_of_memory(nbytes: int) -> Any:
        raise OutOfMemoryError(f"{nbytes} bytes")

    class Full(host_cuda.HostCupy):
        def interpreter_loop(self, *_: Any) -> Any:
            return Interpreted(lambda *_: out_of_memory(1))

    backend = Full()
    net = simple(backend)
    before = net.state.theta.copy()
    freed: list[bool] = []
    backend.cuda.free = lambda: freed.append(True)  # type: ignore[method-assign]
    backend.cuda.memory = out_of_memory  # type: ignore[method-assign]
    with (
        pytest.warns(guard.FastPathWarning, match="OutOfMemoryError"),
        pytest.raises(pnn.OutOfMemoryError, match="is out of memory: the data take"),
    ):
        net.fit(X, CLASSES)
    assert freed
    np.testing.assert_array_equal(net.state.theta, before)


@on_host
@pytest.mark.parametrize("check", testing.CHECKS)
@pytest.mark.parametrize("way", ["graph", "one kernel"])
def test_the_stand_in_keeps_what_a_backend_promises(way: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance kit, by way of the kernels and graphs that a GPU gets."""
    monkeypatch.setenv("PORTABLENN_CUPY", way)
    try:
        testing.CHECKS[check](host_cuda.HostCupy())
    except testing.CheckSkipped as reason:
        pytest.skip(str(reason))


@on_host
def test_networks_in_several_threads_are_independent() -> None:
    backend = host_cuda.HostCupy()
    nets = [simple(backend, seed=seed % 2) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda net: net.fit(X, CLASSES, epochs=5, batch_size=32), nets))
    for seed in (0, 1):
        alone = simple(backend, seed=seed)
        alone.fit(X, CLASSES, epochs=5, batch_size=32)
        for net in nets[seed::2]:
            np.testing.assert_array_equal(net.state.theta, alone.state.theta)


@on_host
@pytest.mark.usefixtures("as_graph")
def test_a_loop_that_collects_nothing_is_captured_once() -> None:
    backend = host_cuda.HostCupy()
    captured = captures(backend)
    program = traced(lambda i, x: [x * 2.0], np.asarray(0, np.int32), np.ones(3))
    loop = backend.compile_loop(program, 1)
    for _ in range(3):
        np.testing.assert_array_equal(loop(2, np.ones(3))[0], np.full(3, 4.0))
    assert captured == [1]


def test_a_step_that_changes_a_carried_dtype_has_no_schedule() -> None:
    program = traced(lambda i, x, y: [x * y], np.asarray(0, np.int32), np.ones(3, np.float32), np.ones(3))
    with pytest.raises(UnsupportedError, match="carries float32\\[3\\] as float64"):
        schedule(program, 1)


def test_without_a_gpu_cupy_says_why_and_what_to_do() -> None:
    cupy = pytest.importorskip("cupy")
    if cupy.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        pnn.BackendError, match="no CUDA device is available. Check the driver with nvidia-smi, or choose"
    ):
        pnn.get_backend("cupy")
    (info,) = (info for info in pnn.backends() if info.name == "cupy")
    assert not info.usable
    assert "no CUDA device" in info.reason
    assert 'pip install "portablenn-cupy[cuda13]"' in info.install
    assert str(pnn.get_backend("auto")).partition(" ")[0] != "cupy"
    command = [sys.executable, "-m", "portablenn", "backends"]
    table = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "500"}, check=True)
    assert info.install in table.stdout


@pytest.mark.parametrize("way", ["graph", "one kernel"])
def test_on_a_gpu_steps_are_our_kernels(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the interpreter could stand in for all of the plug-in, and the kit would not notice."""
    monkeypatch.setenv("PORTABLENN_CUPY", way)
    try:
        backend = pnn.get_backend("cupy")
    except pnn.BackendError as error:
        if required("cupy"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    for name, make in testing.NETWORKS.items():
        net = make(backend=backend)
        net.fit(X, CLASSES if net.loss.targets == "classes" else np.abs(X[:, :2]), batch_size=32)
        assert "interpreter" not in net.history.how, f"{name}: {net.history.how}"


def test_memory_is_used_again() -> None:
    def long(x: Any) -> Any:
        for _ in range(20):
            x = of(x).tanh(x @ x)
        return x

    assert schedule(traced(long, np.ones((64, 64), np.float32))).arena <= 3 * 64 * 64 * 4


def test_a_step_of_adam_moves_no_vector_twice() -> None:
    """The optimiser's group writes where the carried vectors belong: nothing is copied after it."""
    assert not [call for call in step_of(simple("numpy")).instructions if isinstance(call, Copy)]


def step_of(net: Any, shared: bool = True, y: np.ndarray = CLASSES, batch: int = 32) -> Schedule:
    """The schedule of the training step of ``net``."""
    x = np.resize(X, (len(y), net.inputs))
    found: list[Schedule] = []

    class Watching(host_cuda.HostCupy):
        def compile_loop(self, program: Any, carried: int) -> Any:
            found.append(schedule(program, carried, shared))
            return pnn.Backend("numpy", xp).compile_loop(program, carried)

    parts: dict[str, Any] = {"backend": Watching(), "precision": net.precision}
    watched = pnn.Network(net.layers, net.inputs, net.loss, net.optimizer, **parts)
    watched.fit(x, y, batch_size=batch)
    return found[0]


EVERY: dict[str, Any] = {
    **{f"activation {name}": {"activation": name} for name in ACTIVATIONS},
    **{f"loss {name}": {"loss": name} for name in LOSSES},
    **{f"optimizer {name}": {"optimizer": name} for name in OPTIMIZERS if name != "lbfgs"},
    "cosine": {"optimizer": pnn.SGD(schedules.CosineDecay(0.1, 10))},
    "exponential": {"optimizer": pnn.SGD(schedules.ExponentialDecay(0.1, 0.5, 10))},
    "inverse scaling": {"optimizer": pnn.SGD(schedules.InverseScaling(0.1, 0.5, 3, 96))},
    "inverse time": {"optimizer": pnn.SGD(schedules.InverseTimeDecay(0.1, 0.5))},
    "steps": {"optimizer": pnn.SGD(schedules.StepDecay(0.1, 0.5, 3))},
    "warm-up": {"optimizer": pnn.SGD(schedules.WarmUp(3, 0.1))},
    "clipped": {"optimizer": pnn.Adam(clip_norm=1.0, l1=0.1, l2=0.1)},
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_every_part_of_a_network_has_kernels(name: str) -> None:
    parts = {"activation": "relu", "loss": "squared_error", "optimizer": "sgd"} | EVERY[name]
    optimizer, binary = parts.pop("optimizer"), parts["loss"] == "perceptron"
    optimizer = OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer
    layers = [pnn.Dense(7, parts.pop("activation")), pnn.BatchNorm(), pnn.Dropout(0.2), pnn.Dense(1 if binary else 3)]
    net = pnn.Network(layers, 6, optimizer=optimizer, **parts)
    targets = {"classes": CLASSES % (2 if binary else 3), "counts": np.abs(X[:, :3])}.get(net.loss.targets, X[:, :3])
    for shared in (True, False):
        step = step_of(net, shared, targets)  # raises where an operation has no kernel
        assert all(isinstance(call, Kernel) for call in calls(step.instructions))
    assert many_steps(step).text


@on_host
@pytest.mark.parametrize("worker", [host_cuda.HostCuda, host_cuda.ManyWorkers])
@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16"])
def test_packs_and_stored_factors_train_as_numpy_does(
    monkeypatch: pytest.MonkeyPatch, as_graph: None, precision: str | None, worker: Any
) -> None:
    monkeypatch.setattr(cupy_kernels, "MANY", 64)
    x = np.asarray(X[:, [0, 1, 2, 3]], dtype=np.float32)
    found = []
    for backend in (host_cuda.HostCupy(worker()), "numpy"):
        net = pnn.mlp(
            [4, 16, 12, 4], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.1), backend=backend, precision=precision
        )
        history = net.fit(x, CLASSES, epochs=2, batch_size=48)
        found.append(net.parameters["dense_1.kernel"])
        step = step_of(net)
        texts = [call.text for call in calls(step.instructions) if isinstance(call, Kernel)]
    assert history.how == "numpy: plan"
    assert sum("Pack<float>" in text for text in texts) >= 4
    assert any("Pack<bfloat16>" in text for text in texts) == (precision == "bfloat16")
    products = [one for one in step.instructions if isinstance(one, Product)]
    assert {one.precision for one in products} == {precision}
    assert {one.a.dtype for one in products} == {"bfloat16" if precision == "bfloat16" else "float32"}
    np.testing.assert_allclose(
        *found, rtol=1e-4, atol={None: 1e-5, "bfloat16": 1e-4, "tf32": 2e-3}[precision]
    )  # small products do not round to TF32


@on_host
@pytest.mark.parametrize("mode", ["", "graph"])
def test_inputs_of_another_shape_or_dtype_are_refused(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Kernels would read beyond them. `portablenn.compile` traces again instead; this is for callers of a plug-in."""
    monkeypatch.setenv("PORTABLENN_CUPY", mode)
    x = np.ones((4, 3))
    run = host_cuda.HostCupy().compile(traced(lambda x: x * 2.0, x))
    for wrong, says in (
        (np.ones((3, 3)), r"expected float64\[4, 3\], got float64\[3, 3\]"),
        (x.astype("f4"), "got float32"),
    ):
        with pytest.raises(ValueError, match=says):
            run(wrong)
    program = traced(lambda i, x, y: (x + y, x), np.asarray(0, np.int32), x, x)
    loop = host_cuda.HostCupy().compile_loop(program, 1)
    with pytest.raises(ValueError, match=r"input 1: expected float64\[4, 3\], got float64\[4, 2\]"):
        loop(2, x, np.ones((4, 2)))
    np.testing.assert_array_equal(loop(2, x, x)[0], np.full((4, 3), 3.0))


def test_other_rates_and_other_numbers_of_rows_need_no_new_code() -> None:
    """NVRTC takes up to seconds; CuPy keeps what it compiled by its text, also on disk."""

    def texts(rate: float, rows: int, one_kernel: bool) -> list[str]:
        optimizer = pnn.Adam(rate, l2=rate / 7, clip_norm=rate * 70, epsilon=rate / 1e5)
        net = pnn.mlp([6, 16, 4], "gelu", loss="softmax_cross_entropy", optimizer=optimizer)
        step = step_of(net, not one_kernel, np.resize(CLASSES, rows))
        made = [many_steps(step)] if one_kernel else calls(step.instructions)
        return [call.text for call in made if isinstance(call, Kernel)]

    for one_kernel in (False, True):
        assert texts(0.001, 96, one_kernel) == texts(0.3, 96, one_kernel)
        assert texts(0.001, 96, one_kernel) == texts(0.001, 640, one_kernel)


def test_only_aligned_memory_is_read_in_packs() -> None:
    buffer = Buffer(Storage(64, "arena"), 0, (4, 4), (4, 1), DType("float32"))
    packed = cupy_kernels._can_be_packed
    assert packed(buffer)
    assert packed(replace(buffer, offset=8))
    assert not packed(replace(buffer, offset=2))
    assert not packed(replace(buffer, strides=(1, 4)))
    assert not packed(replace(buffer, storage=Storage(64, "input")))


def zoo() -> Iterable[Schedule]:
    for optimizer in (pnn.SGD(0.1, momentum=0.9), pnn.Adam(clip_norm=1.0), pnn.RMSprop(), pnn.Adagrad(l1=0.1)):
        layers = [pnn.Dense(16, "gelu"), pnn.BatchNorm(), pnn.Dropout(0.3), pnn.Dense(300, "elu"), pnn.Dense(4)]
        yield step_of(pnn.Network(layers, 6, "softmax_cross_entropy", optimizer))
    for precision in ("tf32", "bfloat16"):
        net = pnn.mlp([6, 128, 4], loss="softmax_cross_entropy", precision=precision)
        yield step_of(net, y=np.zeros(1 << 14, dtype=int), batch=1 << 14)
    for case in CASES.values():
        yield schedule(traced(case, np.ones((1000, 5))))
    yield schedule(traced(lambda x: of(x).sum(of(x).exp(x), axis=1), np.ones((3, 5000), np.float32)))


def test_independent_calls_of_a_step_run_at_the_same_time() -> None:
    """The stand-in executes them in another order than they are given, wherever their streams allow it."""
    found = calls(step_of(pnn.mlp([6, 40, 40, 4], loss="softmax_cross_entropy", optimizer=pnn.Adam())).instructions)
    plan = branches(found)
    lengths: list[int] = []
    for i, stream in enumerate(plan.streams):
        earlier = [j for j in range(i) if plan.streams[j] == stream][-1:]
        lengths.append(1 + max((lengths[j] for j in (*earlier, *plan.waits[i])), default=0))
    assert 1 < plan.count <= 4
    assert max(lengths) <= 0.7 * len(found)
    assert list(host_cuda.late_streams_first(found, plan)) != found


class FakeStream:
    """As CuPy's: ``use`` makes it the current one, and what it records and waits for is noted."""

    current: Any = None

    def __init__(self, non_blocking: bool = True) -> None:
        self.ptr, self.waited = id(self), set[Any]()

    def use(self) -> None:
        FakeStream.current = self

    def record(self) -> Any:
        return self, frozenset(self.waited)

    def wait_event(self, event: Any) -> None:
        self.waited |= event[1]


@pytest.mark.parametrize("fails", [False, True])
def test_branches_begin_and_end_on_the_callers_stream(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    device = pytest.importorskip("portablenn_cupy.device")
    monkeypatch.setattr(device.cupy.cuda, "Stream", FakeStream)
    monkeypatch.setattr(device.cupy.cuda, "get_current_stream", lambda: FakeStream.current)
    found = calls(step_of(pnn.mlp([6, 40, 40, 4], loss="softmax_cross_entropy", optimizer=pnn.Adam())).instructions)
    plan, cuda, main = branches(found), object.__new__(device.Cuda), FakeStream()
    cuda.others = []
    main.use()
    seen: list[int] = []

    def enqueue(stream: Any, call: Any, *_: Any) -> None:
        if fails and len(seen) == 9:
            raise RuntimeError("out of memory")
        assert FakeStream.current is stream
        assert call is found[len(seen)]
        assert stream.waited >= set(plan.waits[len(seen)])
        stream.waited.add(len(seen))
        seen.append(1)

    monkeypatch.setattr(cuda, "_enqueue", enqueue)
    with pytest.raises(RuntimeError, match="memory") if fails else contextlib.nullcontext():
        cuda.run(found, {}, None, plan)
    assert FakeStream.current is main
    assert fails or main.waited == set(range(len(found)))


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    compile_cuda = nvrtc() or nvcc(tmp_path)
    if compile_cuda is None:
        pytest.skip("neither NVRTC nor nvcc is here")
    texts = list(dict.fromkeys(k.text for one in zoo() for k in calls(one.instructions) if isinstance(k, Kernel)))
    names = [text.replace("void kernel_", f"void k{i}_", 1) for i, text in enumerate(texts)]
    assert len(texts) > 50
    compile_cuda(PRELUDE + "".join(names))
    for optimizer in (pnn.SGD(0.1), pnn.Adam(clip_norm=1.0)):
        small = step_of(pnn.mlp([6, 8, 4], loss="softmax_cross_entropy", optimizer=optimizer), shared=False)
        compile_cuda(PRELUDE + many_steps(small).text)


def test_a_kernel_that_does_not_compile_is_an_error(tmp_path: Path) -> None:
    compile_cuda = nvrtc() or nvcc(tmp_path)
    if compile_cuda is None:
        pytest.skip("neither NVRTC nor nvcc is here")
    with pytest.raises(AssertionError, match="nonsense"):
        compile_cuda(PRELUDE + 'extern "C" __global__ void k(float* p0) { p0[0] = nonsense; }')


def nvrtc() -> Any:
    """A function that compiles CUDA text with the library of the wheel nvidia-cuda-nvrtc; None without it."""
    if importlib.util.find_spec("nvidia") is None:
        return None
    folders = importlib.import_module("nvidia").__path__
    found = [p for folder in folders for p in Path(folder).glob("*/lib/libnvrtc.so.*")]
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))

    def compile_cuda(text: str) -> None:
        program = ctypes.c_void_p()
        assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
        options = [b"--gpu-architecture=compute_90", b"--std=c++17", b"--fmad=false"]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        assert status == 0, log.value.decode()

    return compile_cuda


def nvcc(folder: Path) -> Any:
    program = shutil.which("nvcc")
    if program is None:
        return None

    def compile_cuda(text: str) -> None:
        (folder / "kernels.cu").write_text(text)
        command = [
            program,
            "-arch=sm_90",
            "-std=c++17",
            "-ptx",
            str(folder / "kernels.cu"),
            "-o",
            str(folder / "k.ptx"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout

    return compile_cuda


def test_products_need_no_copy_for_a_transpose() -> None:
    calls = schedule(traced(lambda x, y: (x.T @ y) @ y.T, np.ones((4, 3)), np.ones((4, 5)))).instructions
    assert [type(call) for call in calls] == [Product, Product]


def test_numbers_of_sixteen_bits_are_left_to_cupy() -> None:
    program = traced(lambda x: x * 2, np.ones(3, dtype=np.float16))
    with pytest.raises(UnsupportedError, match="float16"):
        schedule(program)
