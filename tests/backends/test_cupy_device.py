"""The CuPy plug-in, `portablenn_cupy.device` included, on a stand-in for CuPy that has CUDA's rules of streams and memory.

The first half shows that the stand-in refuses what a GPU would do wrong; the second, that the plug-in passes. With
PORTABLENN_GPU=1 both run on CuPy and a GPU instead, which shows whether CUDA has the stand-in's rules; what needs the
stand-in itself, such as finding a race, does not run then.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from programs import of, traced

import portablenn as pnn
from portablenn import testing
from portablenn.runtime import guard

pytest.importorskip("portablenn_cupy")

import fake_cupy
import host_cuda

ON_GPU = bool(os.environ.get("PORTABLENN_GPU"))
pytestmark = pytest.mark.skipif(host_cuda.COMPILER is None and not ON_GPU, reason="needs a C++ compiler")
stand_in_only = pytest.mark.skipif(ON_GPU, reason="about the stand-in for CuPy")
gpu_only = pytest.mark.skipif(not ON_GPU, reason="only a GPU works while its host does something else")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6))
CLASSES = RNG.integers(0, 4, 96)
ADD = 'extern "C" __global__ void add(float* x) { x[threadIdx.x] += 1; }'


@pytest.fixture
def cupy() -> Iterator[Any]:
    if not ON_GPU:
        with fake_cupy.installed() as module:
            yield module
        return
    import cupy as module

    pnn.program_cache.clear()
    yield module
    pnn.program_cache.clear()
    assert module.cuda.get_current_stream() == module.cuda.Stream.null


@pytest.fixture
def backend(cupy: Any) -> Any:
    """The plug-in's own backend and device."""
    import array_api_compat.cupy
    from portablenn_cupy import CupyBackend

    return CupyBackend("cupy", array_api_compat.cupy, None)


def simple(backend: Any, **facts: Any) -> Any:
    return pnn.mlp([6, 8, 4], "relu", loss="softmax_cross_entropy", optimizer=pnn.Adam(), backend=backend, **facts)


# The stand-in


def test_arrays_of_the_device_are_not_read_on_the_host_unless_asked(cupy: Any) -> None:
    x = cupy.asarray(np.arange(6.0).reshape(2, 3))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones(3)
    np.testing.assert_array_equal((x.T @ x).get(), x.get().T @ x.get())
    assert x[0].data.ptr == x.data.ptr
    assert x[1, 2].shape == ()
    x[0] = 7.0
    assert x.sum().get() == 33.0


@stand_in_only
def test_work_that_another_stream_does_not_wait_for_is_found(cupy: Any) -> None:
    x, other = cupy.zeros(4), cupy.cuda.Stream(non_blocking=True)
    with other, pytest.raises(fake_cupy.RaceError, match="does not wait for"):
        x + 1.0
    other.wait_event(cupy.cuda.get_current_stream().record())
    with other:
        y = x + 1.0
    with pytest.raises(fake_cupy.RaceError):
        y.get()
    other.synchronize()
    np.testing.assert_array_equal(y.get(), np.ones(4))


def test_the_default_stream_and_blocking_streams_wait_for_each_other(cupy: Any) -> None:
    x = cupy.zeros(4)
    with cupy.cuda.Stream():
        y = x + 1.0
    np.testing.assert_array_equal((x + y).get(), np.ones(4))


@stand_in_only
def test_a_pool_reuses_memory_on_the_stream_that_allocated_it_without_waiting(cupy: Any) -> None:
    """Memory that another stream still uses when it is freed is overwritten: see memory.pyx:1352-1398."""
    pool, other = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    memory = pool.malloc(100)
    address = memory.ptr
    fake_cupy.memset_async(address, 0, 100, fake_cupy.LEGACY)
    other.wait_event(cupy.cuda.get_current_stream().record())
    fake_cupy.memset_async(address, 1, 100, other.ptr)
    del memory
    with other:
        assert pool.malloc(100).ptr != address
    again = pool.malloc(100)
    assert again.ptr == address
    with pytest.raises(fake_cupy.RaceError, match="writes memory"):
        fake_cupy.memset_async(again.ptr, 2, 100, fake_cupy.LEGACY)


def test_an_allocation_of_nothing_has_no_address(cupy: Any) -> None:
    """memory.pyx:1358."""
    assert cupy.cuda.MemoryPool().malloc(0).ptr == 0
    assert cupy.zeros((0, 3)).data.ptr == 0
    assert cupy.zeros((0, 3)).__dlpack_device__() == (2, 0)


@stand_in_only
def test_free_memory_is_given_back_before_an_allocation_fails(cupy: Any) -> None:
    """memory.pyx:1518-1563."""
    fake_cupy.gpu.limit = fake_cupy.gpu.allocated + 4096
    pool = cupy.cuda.MemoryPool()
    pool.malloc(4096)  # freed at once, and kept by the pool
    held = pool.malloc(2048)
    with pytest.raises(MemoryError, match="Out of memory allocating 4,096 bytes"):
        pool.malloc(4096)
    assert held.ptr


def captured(cupy: Any, mode: int | None, work: Any) -> Any:
    stream = cupy.cuda.Stream(non_blocking=True)
    kernel, x = cupy.RawModule(code=ADD).get_function("add"), cupy.zeros(8, np.float32)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture(mode)
        try:
            work(stream, lambda: kernel((1,), (8,), (x,)), x)
        finally:
            with contextlib.suppress(Exception):
                graph = stream.end_capture()
        return graph, x, stream


def test_a_graph_does_nothing_until_it_is_launched(cupy: Any) -> None:
    graph, x, stream = captured(cupy, None, lambda stream, launch, x: (launch(), launch()))
    np.testing.assert_array_equal(x.get(), np.zeros(8))
    for _ in range(3):
        graph.launch(stream)
    if not ON_GPU:
        with pytest.raises(fake_cupy.RaceError):
            x.get()
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), np.full(8, 6))


RELAXED, THREAD_LOCAL, GLOBAL = 2, 1, 0
FORBIDDEN: dict[str, tuple[Any, type[Exception], tuple[int, ...]]] = {
    "waiting for the stream": (lambda c, s, x: s.synchronize(), RuntimeError, (RELAXED, THREAD_LOCAL, GLOBAL)),
    "waiting for the device": (lambda c, s, x: c.cuda.Device().synchronize(), RuntimeError, (RELAXED, THREAD_LOCAL, GLOBAL)),
    "a copy to the host": (lambda c, s, x: x.get(), RuntimeError, (RELAXED, THREAD_LOCAL, GLOBAL)),
    "a copy from the host": (lambda c, s, x: c.asarray(np.ones(8)), RuntimeError, (RELAXED, THREAD_LOCAL, GLOBAL)),
    "waiting for work outside": (lambda c, s, x: s.wait_event(outside(c)), RuntimeError, (RELAXED, THREAD_LOCAL, GLOBAL)),
    "an allocation": (lambda c, s, x: c.cuda.MemoryPool().malloc(100), RuntimeError, (THREAD_LOCAL, GLOBAL)),
    "an allocation by another thread": (
        lambda c, s, x: in_thread(lambda: c.cuda.MemoryPool().malloc(100)), RuntimeError, (GLOBAL,)
    ),
}  # fmt: skip


def outside(cupy: Any) -> Any:
    return cupy.cuda.Stream(non_blocking=True).record()


def in_thread(work: Any) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("mode", [RELAXED, THREAD_LOCAL, GLOBAL])
@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_forbids_depends_on_its_mode(cupy: Any, what: str, mode: int) -> None:
    attempt, error, modes = FORBIDDEN[what]
    with pytest.raises(error) if mode in modes else contextlib.nullcontext():
        captured(cupy, mode, lambda stream, launch, x: (launch(), attempt(cupy, stream, x)))


def test_a_branch_of_a_capture_has_to_join_it_again(cupy: Any) -> None:
    other = cupy.cuda.Stream(non_blocking=True)

    def work(stream: Any, launch: Any, x: Any) -> None:
        other.wait_event(stream.record())
        other.use()
        launch()
        stream.use()
        if joined:
            stream.wait_event(other.record())
        stream.end_capture()

    joined = True
    with contextlib.suppress(UnboundLocalError):  # it has ended the capture itself
        captured(cupy, None, work)
    joined = False
    with pytest.raises(RuntimeError, match="Unjoined"):
        captured(cupy, None, work)


@stand_in_only
def test_the_error_of_a_kernel_is_raised_by_a_later_call_and_by_all_after_it(cupy: Any) -> None:
    x = cupy.zeros(8)
    fake_cupy.gpu.faults.append((fake_cupy.gpu.launches + 1, "cudaErrorIllegalAddress"))
    y = x + 1.0
    for _ in range(2):
        with pytest.raises(fake_cupy.CUDARuntimeError, match="cudaErrorIllegalAddress"):
            y.get()
    with pytest.raises(fake_cupy.CUDARuntimeError):
        x + 1.0


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((1,), (1025,), 0), ((1, 1 << 16), (8,), 0), ((1,), (8, 2, 65), 0), ((1,), (8,), 49153)],
)
def test_launches_beyond_a_devices_limits_are_errors(cupy: Any, grid: Any, block: Any, shared: int) -> None:
    kernel = cupy.RawModule(code=ADD).get_function("add")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel(grid, block, (cupy.zeros(8, np.float32),), shared_mem=shared)


# The plug-in


@pytest.fixture(params=["graph", "one kernel"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PORTABLENN_CUPY", request.param)
    pnn.program_cache.clear()
    yield request.param
    pnn.program_cache.clear()


@pytest.mark.slow
@pytest.mark.parametrize("check", testing.CHECKS)
def test_the_plug_in_keeps_what_a_backend_promises(way: str, backend: Any, check: str) -> None:
    """Each access to memory is ordered after those that it depends on, and nothing is read back on the way."""
    try:
        testing.CHECKS[check](backend)
    except testing.CheckSkipped as reason:
        pytest.skip(str(reason))


def trained(backend: Any) -> Any:
    net = simple(backend, dtype="float64")
    net.fit(X, CLASSES, epochs=3, batch_size=32)
    return net


def test_a_network_trains_as_on_numpy(way: str, backend: Any) -> None:
    ours, oracle = trained(backend), trained("numpy")
    assert ("graph of" if way == "graph" else "kernel that") in ours.history.how
    np.testing.assert_allclose(ours.state.theta.get(), oracle.state.theta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.predict_proba(X), oracle.predict_proba(X), rtol=1e-12)


@stand_in_only
@pytest.mark.parametrize("direction", ["before", "after"])
def test_without_waiting_for_the_callers_stream_the_stand_in_finds_the_race(
    backend: Any, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    """What a GPU once showed and no stand-in did."""
    run = backend.compile(traced(lambda x: of(x).exp(x) * 2.0, np.ones((4, 3))))
    x = backend.asarray(np.ones((4, 3)))
    private = backend._cuda.stream
    np.testing.assert_allclose(run(x)[0].get(), np.full((4, 3), 2 * np.e))
    wait = fake_cupy.Stream.wait_event

    def half(self: Any, event: Any) -> None:
        if (self is private) != (direction == "before"):
            wait(self, event)

    monkeypatch.setattr(fake_cupy.Stream, "wait_event", half)
    with pytest.raises(fake_cupy.RaceError):
        run(x + 1.0)[0].get()


@stand_in_only
def test_branches_that_do_not_wait_for_each_other_are_found(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_CUPY", "graph")
    from portablenn_cupy import graph

    complete = graph.branches
    monkeypatch.setattr(graph, "branches", lambda calls: without_waits(complete(calls)))
    pnn.program_cache.clear()
    with pytest.warns(guard.FastPathWarning, match="RaceError"):
        simple(backend).fit(X, CLASSES, batch_size=32)
    pnn.program_cache.clear()


def without_waits(branches: Any) -> Any:
    return SimpleNamespace(count=branches.count, streams=branches.streams, waits=((),) * len(branches.waits))


def test_callers_may_work_on_streams_of_their_own(cupy: Any, way: str, backend: Any) -> None:
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    net = simple(backend, dtype="float64")
    first.wait_event(cupy.cuda.get_current_stream().record())
    with first:
        x, y = backend.asarray(X), backend.asarray(CLASSES)
        net.fit(x, y, epochs=2, batch_size=32)
        second.wait_event(first.record())
    with second:
        net.fit(x, y, epochs=1, batch_size=32)
        found = net.state.theta.get()
    np.testing.assert_allclose(found, trained("numpy").state.theta, rtol=0, atol=1e-12)


def test_inputs_and_results_of_no_elements_have_no_address_and_need_none(backend: Any) -> None:
    run = guard.compile(backend, traced(lambda x, y: (x + 1.0, of(y).sum(y, axis=0)), np.ones((0, 3)), np.ones((0, 2))))
    sums = run(*(backend.asarray(np.ones(shape)) for shape in ((0, 3), (0, 2))))
    assert sums[0].shape == (0, 3)
    np.testing.assert_array_equal(sums[1].get(), np.zeros(2))
    program = traced(lambda i, x, y: (x * 2.0, y), np.asarray(0, np.int32), np.ones(3), np.ones((0, 3)))
    loop = guard.compile_loop(backend, program, 1)
    final, collected = loop(3, backend.asarray(np.ones(3)), backend.asarray(np.ones((0, 3))))
    np.testing.assert_array_equal(final.get(), np.full(3, 8.0))
    assert collected.shape == (3, 0, 3)
    assert "interpreter" not in run.how + loop.how


def test_sending_leaves_the_stream_that_the_caller_chose(cupy: Any, backend: Any) -> None:
    chosen = cupy.cuda.Stream(non_blocking=True).use()
    try:
        sent = backend.send(np.ones(3))
        assert cupy.cuda.get_current_stream() == chosen
        np.testing.assert_array_equal(sent().get(), np.ones(3))
    finally:
        cupy.cuda.Stream.null.use()


def test_what_is_sent_overwrites_nothing_that_a_stream_still_reads(cupy: Any, backend: Any) -> None:
    """Memory of what was sent is used again by the next copy, which another stream may ask for."""
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with first:
        sent = backend.send(np.ones(3))()
        address, total = sent.data.ptr, sent * 2.0
        del sent
    with second:
        again = backend.send(np.zeros(3))()
    assert ON_GPU or again.data.ptr == address
    second.synchronize()
    first.synchronize()
    assert again.get(stream=second).tolist() == [0.0, 0.0, 0.0]
    assert total.get(stream=first).tolist() == [2.0, 2.0, 2.0]


def loop_of(backend: Any, function: Any, *arrays: np.ndarray) -> Any:
    return backend.compile_loop(traced(function, np.asarray(0, np.int32), *arrays), 1)


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch, backend: Any) -> Any:
    """The plug-in's module, with small steps as graphs, too, and inputs of all sizes read where they are."""
    from portablenn_cupy import graph as module

    monkeypatch.setenv("PORTABLENN_CUPY", "graph")
    monkeypatch.setattr(module, "SMALL", 0)
    return module


def test_large_inputs_are_read_where_they_are_at_any_address(graph: Any, backend: Any) -> None:
    rows = RNG.normal(size=(9, 3))
    loop = loop_of(backend, lambda i, x, y: (x + of(y).sum(y, axis=0), x), np.ones(3), rows[1:])
    view = backend.asarray(rows)[1:]
    assert view.data.ptr % 16
    for _ in range(2):
        np.testing.assert_allclose(loop(2, backend.asarray(np.ones(3)), view)[0].get(), 1.0 + 2 * rows[1:].sum(axis=0))
    assert list(loop.captured) == [(view.data.ptr,)]


def test_inputs_that_are_read_in_packs_are_aligned(graph: Any, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from portablenn_cupy import kernels

    monkeypatch.setattr(kernels, "MANY", 8)
    rows = np.asarray(RNG.normal(size=37), np.float32)
    loop = loop_of(
        backend, lambda i, x, y, k: (x + of(y).take(y, k, axis=0), i), np.zeros((3, 4), np.float32), rows[1:].reshape(9, 4),
        np.asarray([2, 0, 8]),
    )  # fmt: skip
    assert loop.packed == {0}
    view = backend.asarray(rows)[1:].reshape(9, 4)
    final = loop(1, backend.asarray(np.zeros((3, 4), np.float32)), view, backend.asarray(np.asarray([2, 0, 8])))[0]
    np.testing.assert_array_equal(final.get(), rows[1:].reshape(9, 4)[[2, 0, 8]])
    ((address, _),) = loop.captured
    assert view.data.ptr % 16 == 4
    assert address % 16 == 0


def test_copies_of_inputs_live_until_the_last_step_is_launched(graph: Any, backend: Any) -> None:
    square = RNG.normal(size=(5, 5))
    loop = loop_of(backend, lambda i, x, y: (x + of(y).sum(y, axis=0), i), np.zeros(5), square.T)
    final, _ = loop(2 * graph.LAUNCHES + 1, backend.asarray(np.zeros(5)), backend.asarray(square).T)
    np.testing.assert_allclose(final.get(), (2 * graph.LAUNCHES + 1) * square.sum(axis=1))


@stand_in_only
def test_another_thread_need_not_wait_until_all_steps_are_launched(graph: Any, backend: Any) -> None:
    steps, launched = 50 * graph.LAUNCHES, []
    loop = loop_of(backend, lambda i, x: (x + 1.0, i), np.zeros(3))
    run = backend.compile(traced(lambda x: x * 2.0, np.ones(3)))
    seen: list[int] = []

    def other() -> None:
        assert run(backend.asarray(np.ones(3)))[0].get().tolist() == [2.0, 2.0, 2.0]
        seen.append(len(launched))

    thread = threading.Thread(target=other)

    def on_launch() -> None:
        launched.append(1)
        if len(launched) == graph.LAUNCHES + 1:
            thread.start()
            while thread.is_alive() and not backend._cuda.lock._door.locked():  # until it waits for its turn
                pass

    fake_cupy.gpu.on_launch = on_launch
    final, _ = loop(steps, backend.asarray(np.zeros(3)))
    thread.join()
    assert final.get().tolist() == [steps] * 3
    assert len(launched) == steps
    assert seen[0] < steps / 2


def test_networks_in_several_threads_are_independent(backend: Any, way: str) -> None:
    check_threads(backend)


def check_threads(backend: Any) -> None:
    nets = [simple(backend, seed=seed % 2) for seed in range(4)]
    threads = [
        threading.Thread(target=net.fit, args=(X, CLASSES), kwargs={"epochs": 3, "batch_size": 4}) for net in nets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        alone = simple("numpy", seed=seed)
        alone.fit(X, CLASSES, epochs=3, batch_size=4)
        for net in nets[seed::2]:
            np.testing.assert_allclose(net.state.theta.get(), alone.state.theta, rtol=0, atol=1e-5)


def test_a_loop_says_how_much_memory_it_keeps(graph: Any, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of programs is bounded by it."""
    monkeypatch.setattr(graph, "SMALL", 1 << 20)  # copied to a fixed address
    x, y = np.zeros((500, 8)), np.ones((2000, 8))
    before = backend._cuda.pool.used_bytes()
    loop = loop_of(backend, lambda i, x, y: (x + of(y).sum(of(y).exp(y)), x), x, y)
    loop(3, backend.asarray(x), backend.asarray(y))
    kept = backend._cuda.pool.used_bytes() - before
    assert loop.nbytes == pytest.approx(kept, rel=0.02)


@stand_in_only
@pytest.mark.filterwarnings("ignore::portablenn.runtime.guard.FastPathWarning")
def test_an_error_of_a_kernel_reaches_the_caller(way: str, backend: Any) -> None:
    """It surfaces at a later call, as where results are read, and nothing can run on the device after it."""
    net = simple(backend)
    launched = fake_cupy.Graph.launch if way == "graph" else fake_cupy.RawKernel.__call__
    where = (fake_cupy.Graph, "launch") if way == "graph" else (fake_cupy.RawKernel, "__call__")

    def faulty(self: Any, *args: Any, **kwargs: Any) -> None:
        launched(self, *args, **kwargs)
        fake_cupy.gpu.fault = fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, faulty)
        with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
            net.fit(X, CLASSES, batch_size=32)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        net.predict(X)


@stand_in_only
def test_a_launch_that_the_device_refuses_lets_the_interpreter_run(
    way: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_cupy.RawKernel, "LARGEST", 16)
    net = simple(backend, dtype="float64")
    with pytest.warns(guard.FastPathWarning, match="CUDA_ERROR_INVALID_VALUE.*the interpreter runs instead"):
        net.fit(X, CLASSES, epochs=3, batch_size=32)
    np.testing.assert_allclose(net.state.theta.get(), trained("numpy").state.theta, rtol=0, atol=1e-12)


def test_out_of_memory_takes_the_memory_of_loops_that_are_not_running(graph: Any, backend: Any) -> None:
    def step(i: Any, x: Any, y: Any) -> Any:
        for _ in range(20):
            y = of(y).tanh(of(y).sum(y, axis=1, keepdims=True) - y)
        return x + y[0, 0], x[0]

    x, data = np.zeros(3), [RNG.normal(size=(rows, 64)) for rows in (200, 260)]
    programs = [traced(step, np.asarray(0, np.int32), x, y) for y in data]
    there = [backend.asarray(y) for y in data]
    loops = [guard.compile_loop(backend, program, 1) for program in programs]
    expected = [float(backend.interpreter_loop(p, 1)(3, backend.asarray(x), y)[0][0]) for p, y in zip(programs, there)]
    backend.free()
    pool = backend._cuda.pool
    held = pool.total_bytes()
    loops[0](3, backend.asarray(x), there[0])
    pool.set_limit(size=pool.total_bytes() + (1 << 17))  # of which the second loop needs more
    for which in (1, 0, 1):
        final = loops[which](3, backend.asarray(x), there[which])[0]
        assert float(final[0]) == pytest.approx(expected[which], rel=1e-12)
        assert loops[which].how.startswith("a CUDA graph")
    pool.set_limit(size=0)  # none
    backend.free()
    assert pool.total_bytes() <= held + 4096


@stand_in_only
def test_a_loop_that_is_running_keeps_its_memory(graph: Any, backend: Any) -> None:
    loop = loop_of(backend, lambda i, x: (x + 1.0, i), np.zeros(3))
    thread = threading.Thread(target=backend.free)
    launched: list[int] = []

    def on_launch() -> None:
        launched.append(1)
        if len(launched) == graph.LAUNCHES // 2:
            thread.start()

    fake_cupy.gpu.on_launch = on_launch
    final, _ = loop(5 * graph.LAUNCHES, backend.asarray(np.zeros(3)))
    thread.join()
    assert final.get().tolist() == [5 * graph.LAUNCHES] * 3


@pytest.fixture
def cublas(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products through cuBLAS, also small ones."""
    from portablenn_cupy import calls

    monkeypatch.setattr(calls, "PRODUCT", -1)
    pnn.program_cache.clear()


@pytest.mark.usefixtures("cublas")
@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16"])
def test_products_of_cublas_in_branches_of_a_graph_agree_with_numpy(backend: Any, precision: str | None) -> None:
    called: list[int] = []
    gemm = fake_cupy.Cublas._gemm

    def counted(self: Any, *facts: Any) -> None:
        called.append(1)
        gemm(self, *facts)

    found = []
    with pytest.MonkeyPatch.context() as patch:
        if not ON_GPU:
            patch.setattr(fake_cupy.Cublas, "_gemm", counted)
        for one in (backend, "numpy"):
            sgd: Any = {"optimizer": pnn.SGD(0.1), "backend": one, "precision": precision}
            net = pnn.mlp([6, 16, 12, 4], loss="softmax_cross_entropy", **sgd)
            net.fit(X, CLASSES, epochs=2, batch_size=32)
            found.append(np.asarray(net.backend.to_numpy(net.state.theta)))
    assert ON_GPU or called
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5 if precision is None else 1e-3)


def check_members(backend: Any, **fit: Any) -> None:
    ens = pnn.Ensemble(
        simple(backend, dtype="float64"), [{"seed": k, "optimizer.learning_rate": 0.01 * k} for k in range(5)]
    )
    ens.fit(X, CLASSES, epochs=2, batch_size=32, **fit)
    assert "CUDA" in ens.history.how
    assert "interpreter" not in ens.history.how
    alone = pnn.Ensemble(
        simple("numpy", dtype="float64"), [{"seed": k, "optimizer.learning_rate": 0.01 * k} for k in range(5)]
    )
    alone.fit(X, CLASSES, epochs=2, batch_size=32, **fit)
    for one, other in zip(ens.networks, alone.networks, strict=True):
        np.testing.assert_allclose(one.state.theta.get(), other.state.theta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ens.predict_proba(X), alone.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("share_order", [False, True])
def test_members_of_an_ensemble_train_as_on_numpy(backend: Any, way: str, share_order: bool) -> None:
    check_members(backend, share_order=share_order)


@pytest.mark.usefixtures("cublas")
@pytest.mark.parametrize("share_order", [False, True])
def test_stacks_of_products_of_cublas_agree_with_numpy(backend: Any, share_order: bool) -> None:
    check_members(backend, share_order=share_order)


@pytest.mark.usefixtures("cublas")
def test_networks_that_use_cublas_in_several_threads_are_independent(backend: Any) -> None:
    check_threads(backend)


@stand_in_only
def test_waiting_for_the_device_does_not_break_the_capture_of_another_thread(graph: Any, backend: Any) -> None:
    loop = loop_of(backend, lambda i, x: (x + 1.0, i), np.zeros(3))
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            backend.synchronize()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    launch = fake_cupy.RawKernel.__call__

    def during_the_capture(self: Any, *facts: Any) -> None:
        if fake_cupy.gpu.capturing and not thread.ident:
            thread.start()
            thread.join(0.2)
        launch(self, *facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_cupy.RawKernel, "__call__", during_the_capture)
        final, _ = loop(3, backend.asarray(np.zeros(3)))
    thread.join()
    assert not failures
    assert final.get().tolist() == [3.0] * 3


def test_threads_may_wait_for_the_device_all_the_time(graph: Any, backend: Any) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def wait() -> None:
        try:
            while not done.is_set():
                backend.synchronize()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    for n in range(1, 6):
        loop = loop_of(backend, lambda i, x, n=n: (x + float(n), i), np.zeros(3))
        assert loop(3, backend.asarray(np.zeros(3)))[0].get().tolist() == [3.0 * n] * 3
    done.set()
    thread.join()
    assert not failures


@gpu_only
def test_a_short_call_ends_before_a_long_loop_of_another_thread(graph: Any, backend: Any) -> None:
    steps, ended = 300_000, []
    loop = loop_of(backend, lambda i, x: (x + 1.0, i), np.zeros(3))
    run = backend.compile(traced(lambda x: x * 2.0, np.ones(3)))
    for warm in (lambda: loop(3, backend.asarray(np.zeros(3)))[0], lambda: run(backend.asarray(np.ones(3)))[0]):
        warm().get()

    def short() -> None:
        time.sleep(0.02)  # the loop has begun
        assert run(backend.asarray(np.ones(3)))[0].get().tolist() == [2.0, 2.0, 2.0]
        ended.append("short")

    thread = threading.Thread(target=short)
    thread.start()
    final, _ = loop(steps, backend.asarray(np.zeros(3)))
    ended.append("long")
    thread.join()
    assert ended == ["short", "long"]
    assert final.get().tolist() == [steps] * 3


@stand_in_only
def test_an_error_in_the_middle_of_a_capture_leaves_the_streams_usable(
    graph: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of branches. Memory that is out is asked for again."""
    launch, failed = fake_cupy.RawKernel.__call__, []

    def once(self: Any, *facts: Any) -> None:
        if fake_cupy.gpu.capturing and len(fake_cupy.gpu.capturing[0].work) == 9 and not failed:
            failed.append(1)
            raise fake_cupy.OutOfMemoryError(1, 1)
        launch(self, *facts)

    monkeypatch.setattr(fake_cupy.RawKernel, "__call__", once)
    pnn.program_cache.clear()
    ours = trained(backend)
    assert failed
    assert "a CUDA graph of" in ours.history.how
    np.testing.assert_allclose(ours.state.theta.get(), trained("numpy").state.theta, rtol=0, atol=1e-12)


def test_the_memory_of_a_call_does_not_become_part_of_a_graph_of_the_caller(cupy: Any, backend: Any) -> None:
    """Launched later, such a graph would write to memory that other calls have by then."""
    run = guard.compile(backend, traced(lambda x: x * 2.0 + 1.0, np.ones(3)))
    x = backend.asarray(np.ones(3))
    run(x)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with (
            pytest.warns(guard.FastPathWarning, match="the caller's stream is being captured"),
            contextlib.nullcontext() if ON_GPU else pytest.raises(RuntimeError),
        ):
            run(x)  # the stand-in does not capture what the interpreter calls
        with contextlib.suppress(RuntimeError):
            stream.end_capture()
