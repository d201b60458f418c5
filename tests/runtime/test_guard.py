"""Fast paths that are wrong, fail or run out of memory; on the CPU, with the interpreter in place of a device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn import testing
from portablenn.runtime import guard
from portablenn.runtime.backend import UnsupportedError
from portablenn.runtime.guard import FastPathWarning

xp = pnn.get_backend("numpy").xp
Results = tuple[Any, ...]


class Fast(pnn.Backend):
    """NumPy's arrays with a fast path: the interpreter, whose results and errors ``fault`` may change at each run."""

    def __init__(self, fault: Callable[[Results], Results] = lambda results: results) -> None:
        super().__init__("fast", xp)
        self.fault, self.before, self.compiles = fault, lambda: None, lambda: None
        self.compiled = self.interpreted = self.freed = self.inside = 0
        self.ran: list[Any] = []

    def compile(self, program: Any) -> Any:
        return self._path(super().interpreter(program))

    def compile_loop(self, program: Any, carried: int) -> Any:
        return self._path(super().interpreter_loop(program, carried))

    def _path(self, run: Any) -> Any:
        assert self.inside
        self.compiled += 1
        self.compiles()

        def path(*arguments: Any) -> Results:
            assert self.inside
            self.ran.append(arguments[0])
            self.before()
            return self.fault(run(*arguments))

        path.how = "graph"  # type: ignore[attr-defined]
        return path

    def interpreter(self, program: Any, reason: str = "") -> Any:
        return self._counted(super().interpreter(program, reason))

    def interpreter_loop(self, program: Any, carried: int, reason: str = "") -> Any:
        return self._counted(super().interpreter_loop(program, carried, reason))

    def _counted(self, interpreted: Any) -> Any:
        run = interpreted.run

        def counted(*arguments: Any) -> Results:
            self.interpreted += 1
            return tuple(run(*arguments))

        interpreted.run = counted
        return interpreted

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        self.inside += 1
        yield
        self.inside -= 1

    def free(self) -> None:
        self.freed += 1


def failing(*errors: Exception | None) -> Callable[[], None]:
    """A function that raises these one after the other, then nothing."""
    rest = list(errors)

    def fail() -> None:
        error = rest.pop(0) if rest else None
        if error is not None:
            raise error

    return fail


def times(factor: Any, number: int = 0) -> Callable[[Results], Results]:
    """One result, multiplied."""
    return lambda results: tuple(r * factor if i == number else r for i, r in enumerate(results))


def replaced(value: Any, number: int = 0) -> Callable[[Results], Results]:
    """One result with another first element."""

    def fault(results: Results) -> Results:
        changed = [r.copy() for r in results]
        changed[number].reshape(-1)[0] = value
        return tuple(changed)

    return fault


def traced(function: Any, *arrays: np.ndarray) -> Any:
    return pnn.trace(function, *(pnn.ArrayType(a.shape, a.dtype.name) for a in arrays), name="program")


def run_once(fault: Callable[[Results], Results], *arrays: np.ndarray) -> tuple[Any, Results]:
    """Exponentials, through a fast path with this fault."""
    run = guard.compile(Fast(fault), traced(lambda *a: [x + x for x in a], *arrays))
    return run, run(*arrays)


F4, F8, C8 = (np.linspace(1.0, 2.0, 5).astype(t) for t in ("float32", "float64", "complex64"))
I4, B1 = np.arange(5, dtype=np.int32), np.asarray([True, False])
HOLE = np.asarray([np.nan, np.inf, 1.0])

WRONG = {
    "float32 beyond 1e-2": (times(np.float32(1.02)), F4, "result 0 deviates by"),
    "float64 beyond 1e-6": (times(1.000002), F8, "result 0 deviates by"),
    "complex64 beyond 1e-2": (times(np.complex64(1 + 0.02j)), C8, "result 0 deviates by"),
    "float16 beyond 1e-1": (times(np.float16(1.25)), F4.astype(np.float16), "result 0 deviates by"),
    "an integer is off by one": (replaced(1), I4, "result 0 is not equal"),
    "another dtype": (lambda r: (r[0].astype(np.float64),), F4, r"result 0 is float64\(5,\), expected float32\(5,\)"),
    "another shape": (lambda r: (r[0][:4],), F4, r"result 0 is float32\(4,\), expected float32\(5,\)"),
    "a result is missing": (lambda r: (), F4, "0 results, expected 1"),
    "NaN in place of a number": (replaced(np.nan), F4, "result 0 is not equal"),
    "infinity in place of a number": (replaced(np.inf), F4, "result 0 is not equal"),
    "a number in place of NaN": (replaced(1.0), HOLE, "result 0 is not equal"),
    "infinity of the other sign": (lambda r: (np.asarray([np.nan, -np.inf, 2.0]),), HOLE, "result 0 is not equal"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_fast_path_is_noticed_at_its_first_run(case: str) -> None:
    fault, x, says = WRONG[case]
    with pytest.warns(
        FastPathWarning, match=f"fast on cpu: program: graph differs: {says}.*; the interpreter runs instead"
    ):
        run, (result,) = run_once(fault, x)
    np.testing.assert_array_equal(result, x + x)
    assert run.how.startswith("interpreter: graph differs: ")
    np.testing.assert_array_equal(run(x)[0], x + x)
    assert len(run.backend.ran) == 1


RIGHT = {
    "float32 within 1e-2": (times(np.float32(1.009)), F4),
    "float64 within 1e-6": (times(1.0000009), F8),
    "complex64 within 1e-2": (times(np.complex64(1 + 0.009j)), C8),
    "float16 within 1e-1": (times(np.float16(1.0625)), F4.astype(np.float16)),
    "equal integers": (times(1), I4),
    "equal NaN and infinities": (lambda r: r, HOLE),
    "nothing to compare": (lambda r: r, np.zeros((0, 3))),
    "zeros": (lambda r: r, np.zeros(3)),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_a_fast_path_that_agrees_runs_and_gives_the_results(case: str) -> None:
    fault, x = RIGHT[case]
    run, results = run_once(fault, x)
    np.testing.assert_array_equal(results[0], fault((x + x,))[0], strict=True)
    assert run.how == "graph"
    for _ in range(2):
        run(x)
    assert (run.backend.interpreted, len(run.backend.ran)) == (1, 3)


def test_booleans_have_to_be_equal_and_each_result_is_compared() -> None:
    program = traced(lambda x, b: [x, xp_of(b).logical_not(b)], F4, B1)
    with pytest.warns(FastPathWarning, match="result 1 is not equal"):
        guard.compile(Fast(replaced(True, number=1)), program)(F4, B1)


def xp_of(x: Any) -> Any:
    return pnn.array_namespace(x)


def test_differences_in_any_part_of_a_large_array_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CHUNK", 2)
    for place in range(5):
        wrong = lambda r, place=place: (r[0] + (np.arange(5) == place),)  # noqa: E731
        with pytest.warns(FastPathWarning, match="deviates by 1.0e"):
            run_once(wrong, F8)
    with pytest.warns(FastPathWarning, match=r"deviates by 1.4e\+00"):  # √2, from two chunks
        run_once(lambda r: (r[0] + np.asarray([1.0, 0, 0, 0, 1.0]),), F8)


# Loops


def step(i: Any, x: Any, n: Any, data: Any) -> Any:
    """A carried vector that changes little, a counter, and what is collected."""
    return [x + 1e-3 * data, n + 1, xp_of(x).sum(x)]


X, N, DATA = np.full(4, 10.0, dtype=np.float32), np.asarray(7, dtype=np.int32), np.ones(4, dtype=np.float32)
STEP = traced(step, np.asarray(0, dtype=np.int32), X, N, DATA)


def changed(factor: float, since: int = 1) -> Callable[[Results], Results]:
    """The carried vector with ``factor`` times its change, from calls of ``since`` steps on."""

    def fault(results: Results) -> Results:
        x, n, sums = results
        return (X + np.float32(factor) * (x - X), n, sums) if len(sums) >= since else results

    return fault


LOOPS = {
    "the change is off by 5 %": (changed(1.05), 5, "carried array 0 deviates by"),
    "only the second step is wrong": (changed(1.05, since=2), 2, "carried array 0 deviates by"),
    "the counter stands still": (lambda r: (r[0], N, r[2]), 5, "carried array 1 is not equal"),
    "what is collected is wrong": (times(np.float32(1.05), number=2), 1, "result 0 deviates by"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOPS)
def test_a_wrong_loop_is_noticed_by_the_change_of_what_it_carries(case: str) -> None:
    fault, count, says = LOOPS[case]
    loop = guard.compile_loop(Fast(fault), STEP, 2)
    with pytest.warns(FastPathWarning, match=f"graph differs: {says}"):
        x, n, sums = loop(count, X, N, DATA)
    np.testing.assert_allclose(x, X + 1e-3 * count, rtol=1e-6)
    assert (int(n), sums.shape) == (7 + count, (count,))
    assert loop.how.startswith("interpreter: graph differs")


@pytest.mark.parametrize(("count", "ran"), [(1, [1]), (2, [2]), (5, [5, 2])])
def test_two_steps_are_compared_and_all_results_are_of_the_fast_path(count: int, ran: list[int]) -> None:
    loop = guard.compile_loop(Fast(changed(1.005)), STEP, 2)
    results = loop(count, X, N, DATA)
    expected = changed(1.005)(pnn.Backend("plain", xp).compile_loop(STEP, 2)(count, X, N, DATA))
    for ours, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours, right)
    assert (loop.how, loop.backend.ran, loop.backend.interpreted) == ("graph", ran, 1)
    loop(count, X, N, DATA)
    assert (loop.backend.ran, loop.backend.interpreted) == ([*ran, count], 1)


def test_a_loop_of_no_steps_is_not_taken_as_a_comparison() -> None:
    loop = guard.compile_loop(Fast(changed(2.0)), STEP, 2)
    x, n, sums = loop(0, X, N, DATA)
    np.testing.assert_array_equal(x, X)
    assert (int(n), sums.shape, loop.backend.ran) == (7, (0,), [])
    with pytest.warns(FastPathWarning, match="graph differs"):
        loop(1, X, N, DATA)


def test_a_fast_path_that_fails_in_the_comparison_gives_no_results() -> None:
    backend = Fast(changed(2.0))
    backend.before = failing(None, RuntimeError("replayed too often"))
    loop = guard.compile_loop(backend, STEP, 2)
    with pytest.warns(FastPathWarning, match="replayed too often"):
        x, *_ = loop(5, X, N, DATA)
    np.testing.assert_allclose(x, X + 5e-3, rtol=1e-6)


# Rounding


def test_a_change_at_rounding_level_may_be_rounded_differently() -> None:
    tiny = np.full(4, 1e-4, dtype=np.float32)  # x moves by 1e-7, a tenth of a unit in its last place
    unit = np.spacing(X)
    for units, accepted in ((1, True), (100, False)):
        loop = guard.compile_loop(Fast(lambda r, units=units: (r[0] + units * unit, *r[1:])), STEP, 2)
        with contextlib.nullcontext() if accepted else pytest.warns(FastPathWarning):
            loop(1, X, N, tiny)
        assert (loop.how == "graph") is accepted


def sign_of(difference: Any) -> Callable[..., Any]:
    """As Adam's first step, which moves each parameter by the rate, whatever the size of its gradient."""
    return lambda a, b: [difference(a, b) / (xp_of(a).abs(difference(a, b)) + 1e-12)]


@pytest.mark.parametrize(
    ("difference", "accepted"), [(lambda a, b: a * b * b - a * (b * b), True), (lambda a, b: a - b, False)]
)
def test_signs_of_results_that_are_only_rounding_may_flip(difference: Any, accepted: bool) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 200)).astype(np.float32)
    run = guard.compile(Fast(times(np.float32(-1.0))), traced(sign_of(difference), a, b))
    with contextlib.nullcontext() if accepted else pytest.warns(FastPathWarning, match="deviates by"):
        run(a, b)
    assert (run.how == "graph") is accepted


def test_adam_on_a_bias_before_batch_norm_is_accepted() -> None:
    """Its gradient is zero but for rounding, so that each library moves it in another direction."""

    class Reordered(Fast):
        def compile_loop(self, program: Any, carried: int) -> Any:
            inner = self._step(program)

            def other(i: Any, theta: Any, *rest: Any) -> Any:
                return inner(i, theta * np.float32(1.0 + 2.0**-22), *rest)

            return self._path(lambda count, *a: self._loop(other, program, carried, count, *a))

    x = np.random.default_rng(0).normal(size=(64, 4))
    layers = [pnn.Dense(16), pnn.BatchNorm(), pnn.Dense(2)]
    net = pnn.Network(layers, 4, "softmax_cross_entropy", pnn.Adam(1e-2), backend=Reordered())
    assert net.fit(x, np.arange(64) % 2, batch_size=32).how == "fast on cpu: graph"


# Errors


@pytest.mark.parametrize("at", ["compiles", "before"])
@pytest.mark.parametrize("lacking", [1, 2])
def test_out_of_memory_is_tried_twice_with_caches_freed(at: str, lacking: int) -> None:
    backend = Fast()
    setattr(backend, at, failing(*(lacking + (at == "compiles")) * [MemoryError("full")]))
    run = guard.compile(backend, traced(lambda x: x + x, F4))
    warns = lacking == 2
    with pytest.warns(FastPathWarning, match="runs instead") if warns else contextlib.nullcontext():
        (result,) = run(F4)
    np.testing.assert_array_equal(result, F4 + F4)
    assert backend.freed == lacking
    label = "graph" if at == "before" else "the fast path"
    assert run.how == (f"interpreter: {label} failed (MemoryError: full)" if warns else "graph")
    assert backend.compiled == {("compiles", 1): 3, ("compiles", 2): 3, ("before", 1): 2, ("before", 2): 2}[at, lacking]


def test_out_of_memory_later_is_tried_again_too() -> None:
    backend = Fast()
    backend.before = failing(None, MemoryError(), None, MemoryError(), MemoryError())
    run = guard.compile(backend, traced(lambda x: x + x, F4))
    run(F4)
    assert run(F4)[0].tolist() == (F4 + F4).tolist()
    assert (run.how, backend.interpreted) == ("graph", 1)
    with pytest.warns(FastPathWarning):
        assert run(F4)[0].tolist() == (F4 + F4).tolist()
    assert run.how.startswith("interpreter: graph failed (MemoryError")


def test_memory_of_a_failed_attempt_is_freed_before_the_next() -> None:
    held: list[Any] = []

    class Array:
        alive = 0

        def __init__(self) -> None:
            Array.alive += 1

        def __del__(self) -> None:
            Array.alive -= 1

    def compiles() -> None:
        held.append(Array.alive)
        array = Array()
        if len(held) < 3:
            raise MemoryError
        del array

    backend = Fast()
    backend.compiles = compiles
    guard.compile(backend, traced(lambda x: x + x, F4))(F4)
    assert held == [0, 0, 0]


def test_where_the_interpreter_lacks_memory_the_fast_path_runs_uncompared() -> None:
    class Greedy(Fast):
        def interpreter(self, *_: Any) -> Any:
            def full(*_: Any) -> Any:
                raise MemoryError

            return full

    run = guard.compile(Greedy(), traced(lambda x: x + x, F4))
    for _ in range(2):
        np.testing.assert_array_equal(run(F4)[0], F4 + F4)
        assert run.how == "graph, not compared with the interpreter for lack of memory"
    assert run.backend.freed == 1


def test_errors_of_the_interpreter_are_the_users_and_change_nothing() -> None:
    run = guard.compile(Fast(), traced(lambda x: x + x, F4))
    with pytest.raises(TypeError, match="expected 1 arguments, got 2"):
        run(F4, F4)
    with pytest.raises(TypeError):
        run(None)
    np.testing.assert_array_equal(run(F4)[0], F4 + F4)
    assert run.how == "graph"
    with pytest.raises(TypeError, match="expected 1 arguments, got 0"):
        run()
    assert run.how == "graph"


def test_a_fast_path_that_cannot_be_compiled_says_why_in_one_line() -> None:
    backend = Fast()
    backend.compiles = failing(RuntimeError("no driver\nand more"))
    with pytest.warns(
        FastPathWarning, match=r"program: the fast path failed \(RuntimeError: no driver\); the interpreter"
    ):
        run = guard.compile(backend, traced(lambda x: x + x, F4))
    assert run.how == "interpreter: the fast path failed (RuntimeError: no driver)"
    np.testing.assert_array_equal(run(F4)[0], F4 + F4)


def test_a_fast_path_that_fails_later_is_replaced() -> None:
    backend = Fast()
    backend.before = failing(None, RuntimeError("launch failed"))
    run = guard.compile(backend, traced(lambda x: x + x, F4))
    run(F4)
    with pytest.warns(FastPathWarning, match=r"graph failed \(RuntimeError: launch failed\)"):
        np.testing.assert_array_equal(run(F4)[0], F4 + F4)
    np.testing.assert_array_equal(run(F4)[0], F4 + F4)
    assert (len(backend.ran), backend.freed) == (2, 0)


def test_where_there_is_no_fast_path_the_interpreter_runs_without_a_warning() -> None:
    backend, program = Fast(), traced(lambda x: x + x, F4)
    backend.compiles = failing(UnsupportedError("no kernel for it"))
    assert guard.compile(backend, program).how == "interpreter: no kernel for it"
    assert guard.compile(pnn.Backend("plain", xp), program).how == "interpreter"
    assert guard.compile_loop(pnn.Backend("plain", xp), STEP, 2).how == "interpreter"


def test_inputs_that_a_fast_path_destroys_do_not_spoil_the_comparison() -> None:
    x = F4.copy()
    backend = Fast()
    backend.before = lambda: x.fill(0.0)
    with pytest.warns(FastPathWarning, match="graph differs"):
        np.testing.assert_array_equal(guard.compile(backend, traced(lambda x: x + x, F4))(x)[0], F4 + F4)


def test_threads_compare_once() -> None:
    backend = Fast()
    barrier = threading.Barrier(4)
    run = guard.compile(backend, traced(lambda x: x + x, F4))

    def call(_: int) -> Any:
        barrier.wait()
        return run(F4)[0]

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(call, range(4)):
            np.testing.assert_array_equal(result, F4 + F4)
    assert (backend.interpreted, len(backend.ran)) == (1, 4)


# Who is guarded


def test_numpy_is_not_guarded_and_pays_nothing() -> None:
    backend, program = pnn.get_backend("numpy"), traced(lambda x: x + x, F4)
    assert type(guard.compile(backend, program)) is type(backend.compile(program))
    assert type(guard.compile_loop(backend, STEP, 2)) is type(backend.compile_loop(STEP, 2))
    assert (guard.compile(backend, program).how, guard.compile_loop(backend, STEP, 2).how) == ("plan", "plan")


@pytest.mark.parametrize(("name", "how"), [("numba", ""), ("jax", "jax.jit")])
def test_plug_ins_that_compile_the_interpreter_itself_are_not_guarded(name: str, how: str) -> None:
    pytest.importorskip(f"portablenn_{name}")
    run = guard.compile(pnn.get_backend(name), traced(lambda x: x + x, F4))
    assert not isinstance(run, guard.Guarded)
    assert how in run.how  # type: ignore[attr-defined]


def test_networks_and_transforms_are_guarded() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), np.ones(20)
    nets = [pnn.mlp([3, 1], backend=b) for b in (Fast(times(2.0)), pnn.Backend("plain", xp))]
    with pytest.warns(FastPathWarning, match="training_step: graph differs: carried array 0"):
        history = nets[0].fit(x, y, batch_size=10)
    assert history.how.startswith("fast on cpu: interpreter: graph differs: carried array 0 deviates by")
    assert nets[1].fit(x, y, batch_size=10).how == "plain on cpu: interpreter"
    np.testing.assert_array_equal(nets[0].state.theta, nets[1].state.theta)
    with pytest.warns(FastPathWarning, match="predict_values: graph differs"):
        np.testing.assert_array_equal(nets[0].predict(x), nets[1].predict(x))


def test_the_conformance_kit_reports_what_the_guard_would_hide() -> None:
    for check in ("operations float32", "one step float64"):
        with pytest.raises((FastPathWarning, AssertionError), match="graph differs"):
            testing.CHECKS[check](Fast(times(2.0)))
