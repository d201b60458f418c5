"""The Numba plug-in's loops: the oracle's values, written where they should be, and kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import looped_step, of, operands, traced

import portablenn as pnn
from portablenn.program.interpret import interpret
from portablenn.program.simplify import simplify
from portablenn.runtime.kernels.fusion import Group, fuse
from portablenn.runtime.numpy.plan import plan_loop

pytest.importorskip("portablenn_numba")

from portablenn_numba.gather import LINE
from portablenn_numba.loops import CHEAP, EXPENSIVE, MAX_EXPENSIVE, MIN_PAIRWISE, Loops, fusible
from portablenn_numba.steps import ELEMENTS

xp = pnn.get_backend("numpy").xp
RNG = np.random.default_rng(0)


def agree(function: Any, *arrays: np.ndarray, rtol: float = 1e-13) -> None:
    program = traced(function, *arrays)
    assert any(isinstance(unit, Group) for unit in Loops().units(program))
    run = pnn.get_backend("numba").compile(program)
    for ours, meant in zip(run(*arrays), interpret(xp, program, *arrays), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=rtol, atol=1e-14, strict=True)


def arguments(name: str, dtype: str) -> list[np.ndarray]:
    return operands(name, dtype, 2 if "{1}" in {**CHEAP, **EXPENSIVE}[name] else 1)


def expressed() -> list[tuple[str, str]]:
    found = []
    for name in sorted({**CHEAP, **EXPENSIVE}.keys() - {"broadcast_to", "where"}):
        for dtype in ("float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool"):
            try:
                program = traced(lambda *a, name=name: getattr(of(*a), name)(*a), *arguments(name, dtype))
            except TypeError:
                continue  # the standard has no such operation of this dtype
            if all(map(fusible, program.operations)):
                found.append((name, dtype))
    return found


@pytest.mark.parametrize(("name", "dtype"), expressed())
def test_each_expression_agrees_with_the_oracle(name: str, dtype: str) -> None:
    """With a second operation behind it, so that there is a group."""

    def twice(*arrays: Any) -> Any:
        result = getattr(of(*arrays), name)(*arrays)
        return result, of(result).logical_not(result) if str(result.dtype) == "bool" else of(result).abs(result)

    with np.errstate(all="ignore"):
        agree(twice, *arguments(name, dtype), rtol=4e-7 if dtype == "float32" else 1e-15)


def test_int32_wraps_around() -> None:
    agree(lambda x: (x + x) * x, np.asarray([2**31 - 1, -(2**31), 12345678], dtype=np.int32))


def test_sums_of_long_rows_are_added_apart() -> None:
    x = RNG.normal(size=(3, 5 * MIN_PAIRWISE))
    agree(lambda x: of(x).exp(x - of(x).max(x, axis=1, keepdims=True)), x)
    agree(lambda x: x * 2.0 / of(x).sum(x * 2.0, axis=1, keepdims=True) + of(x).sum(x, axis=1, keepdims=True), x)


@pytest.mark.parametrize("make", [lambda x: x.T, lambda x: x[:, ::2], lambda x: x[::-1], np.asfortranarray])
def test_arrays_may_have_any_strides(make: Any) -> None:
    agree(lambda x, y: (x * 2.0 + y) * x, make(RNG.normal(size=(6, 6))), make(RNG.normal(size=(6, 6))))


def test_arrays_may_be_read_only() -> None:
    x = RNG.normal(size=(4, 3))
    x.flags.writeable = False
    agree(lambda x: (x * 2.0 + 1.0) * x, x)


def test_many_expensive_operations_are_left_to_numpy() -> None:
    few, many = (pnn.ArrayType((n,), "float32") for n in (MAX_EXPENSIVE, MAX_EXPENSIVE + 1))
    for type, grouped in ((few, True), (many, False)):
        program = simplify(pnn.trace(lambda x: of(x).exp(x) + 1.0, type))
        assert any(isinstance(unit, Group) for unit in fuse(program, fusible)) is grouped


SCRIPT = """
import time, numpy as np, portablenn as pnn
net = pnn.mlp([3, 2], optimizer="sgd", backend="numba", seed=1)
net.fit(np.eye(3), np.eye(3)[:, :2], epochs=3)
print(float(np.sum(net.state.theta)))
"""


def _trained(folder: Path) -> str:
    environment = os.environ | {"PORTABLENN_CACHE": str(folder)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compiled_code_is_cached_on_disk_for_the_next_process(tmp_path: Path) -> None:
    first = _trained(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert kept
    assert _trained(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == kept


def test_loops_compile_without_a_writeable_cache_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert _trained(file) == _trained(tmp_path)


def test_steps_write_the_carried_vectors_in_place() -> None:
    """An optimiser's loop gets each vector once: what is carried is overwritten, and nothing is copied after it."""
    many = np.ones(ELEMENTS + 1)
    program = traced(
        lambda i, theta, m, g: [theta - 0.1 * (0.9 * m + g), 0.9 * m + g], np.asarray(0, np.int32), many, many, many
    )
    loop = pnn.get_backend("numba").compile_loop(program, 2)
    theta, m = loop(3, many, 0 * many, many)
    expected = pnn.Backend("numpy", xp).compile_loop(program, 2)(3, many, 0 * many, many)
    np.testing.assert_allclose(theta, expected[0], rtol=1e-14)
    np.testing.assert_allclose(m, expected[1], rtol=1e-14)
    steps = str(loop.source.split("for i in")[1])
    assert "copyto" not in steps
    assert len([line for line in steps.splitlines() if "k" in line and "(" in line]) == 2


def _rows_of(x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows of ``x`` that a loop takes, a step for each row of ``order``."""
    program = traced(
        lambda i, carried, x, order: [
            carried + 0.0,
            of(x).astype(of(x).take(x, of(x).take(order, i[None], axis=0)[0, ...], axis=0), of(x).float64),
        ],
        np.asarray(0, np.int32), np.zeros(1), x, order,
    )  # fmt: skip
    loop = plan_loop(program, 1, Loops())
    taken = loop(len(order), np.zeros(1), x, order)[1]
    assert ("p0 = " in loop.source) == (x[0].nbytes >= LINE)  # by a function made for x, if its rows are worth one
    return np.asarray(taken)


@pytest.mark.parametrize("columns", [1, 7, 16, 17, 33, 784, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "bool"])
def test_prefetched_rows_are_the_requested_ones(columns: int, dtype: str) -> None:
    x = (RNG.random((150, columns)) * 9).astype(dtype)
    order = RNG.integers(-150, 150, (3, 100))
    np.testing.assert_array_equal(_rows_of(x, order), x[order].astype(float))


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: x[:, ::-1], lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_rows_of_any_strides_are_taken(make: Any) -> None:
    x, order = make(RNG.random((150, 40))), RNG.integers(0, 150, (3, 100))
    np.testing.assert_array_equal(_rows_of(x, order), x[order])


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">u2"])
def test_rows_of_another_byte_order_train_as_native_ones(dtype: str) -> None:
    x = np.round(RNG.random((300, 40)) * 9)
    y = (x[:, 0] > 4).astype(int)
    losses = []
    for rows in (x.astype(dtype), x.astype(dtype[1:])):
        net = pnn.mlp([40, 200, 2], loss="softmax_cross_entropy", backend="numba", dtype="float64")
        losses.append(net.fit(rows, y, epochs=2, batch_size=100)["loss"])
    assert losses[0] == losses[1]


def test_rows_of_what_is_made_in_the_step_are_taken() -> None:
    x = RNG.random((50, 40))
    program = traced(
        lambda i, c, x: [c + 0.0, of(x).take(of(x).sort(x, axis=0, descending=True), of(x).astype(of(x).arange(20), of(x).int64), axis=0) + c[0]],
        np.asarray(0, np.int32), np.zeros(1), x,
    )  # fmt: skip
    taken = plan_loop(program, 1, Loops())(2, np.zeros(1), x)[1]
    np.testing.assert_array_equal(taken[1], -np.sort(-x, axis=0)[:20])


@pytest.mark.parametrize("make", [lambda x: x[:0], lambda x: x.astype("float32"), lambda x: x[:, :7], np.asmatrix])
def test_an_array_unlike_the_traced_one_is_left_to_numpy(make: Any) -> None:
    """Whatever NumPy says of it: nothing is read where there is nothing."""
    x, order = RNG.random((150, 40)), RNG.integers(0, 150, (1, 100))
    program = traced(
        lambda i, c, x, order: [c + 0.0, of(x).take(x, of(x).reshape(order, (100,)), axis=0) + c[0]],
        np.asarray(0, np.int32), np.zeros(1), x, order,
    )  # fmt: skip
    results = []
    for fusion in (Loops(), None):
        try:
            results.append(plan_loop(program, 1, fusion)(1, np.zeros(1), make(x), order)[1])
        except Exception as error:
            results.append(np.asarray(type(error).__name__))
    np.testing.assert_array_equal(*results)


def test_rows_of_a_file_that_may_not_be_written_are_taken(tmp_path: Path) -> None:
    x, order = RNG.random((150, 40)), RNG.integers(0, 150, (3, 100))
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(_rows_of(np.load(tmp_path / "x.npy", mmap_mode="r"), order), x[order])


@given(
    programs.shapes, programs.continuous_steps, st.integers(0, 3), st.lists(st.integers(0, 30), min_size=3, max_size=3)
)
@settings(max_examples=20, deadline=None)
def test_a_compiled_loop_agrees_with_interpreted_steps(
    shapes: Any, instructions: Any, count: int, places: list[int]
) -> None:
    inputs = [np.asarray(RNG.uniform(-1, 1, shape)) for shape in shapes]
    carried = len(inputs) - 1
    program = traced(looped_step(instructions, places), np.asarray(0, np.int32), *inputs)
    loop = pnn.get_backend("numba").compile_loop(program, carried)
    expected = pnn.Backend("numpy", xp).compile_loop(program, carried)(count, *inputs)
    before = [x.copy() for x in inputs]
    for _ in range(2):
        for ours, meant in zip(loop(count, *inputs), expected, strict=True):
            np.testing.assert_allclose(ours, meant, rtol=1e-9, atol=1e-12)
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy)


CASES = {
    "columns": lambda x: of(x).sum(x, axis=0),
    "rows": lambda x: of(x).max(x, axis=1),
    "all": lambda x: of(x).sum(x),
    "middle": lambda x: of(x).min(of(x).reshape(x, (5, 2, -1)), axis=(0, 2)),
    "integers": lambda x: of(x).max(of(x).astype(x * 9.0, of(x).int32), axis=0),
    "argmax": lambda x: of(x).argmax(x, axis=1),
    "argmin of all": lambda x: of(x).argmin(x),
    "taken": lambda x: of(x).take(x.T, of(x).asarray([3, 0, 2]), axis=0),
    "taken columns": lambda x: of(x).take(x, of(x).asarray([3, 0]), axis=1),
    "product": lambda x: x.T @ x,
    "stacked": lambda x: of(x).stack([x, x * 2.0], axis=1),
    "side by side": lambda x: of(x).concat([x, x + 1.0], axis=1),
}


@pytest.mark.parametrize("name", CASES)
def test_each_call_of_a_small_step_agrees_with_the_oracle(name: str) -> None:
    x, total = RNG.normal(size=(10, 5)), np.zeros(())

    def step(i: Any, total: Any, x: Any) -> Any:
        result = CASES[name](x + total)
        return [total + 0.01, result]

    program = traced(step, np.asarray(0, np.int32), total, x)
    loop = pnn.get_backend("numba").compile_loop(program, 1)
    assert loop.how == "one compiled loop"
    expected = pnn.Backend("numpy", xp).compile_loop(program, 1)(3, total, x)
    for ours, meant in zip(loop(3, total, x), expected, strict=True):
        np.testing.assert_allclose(ours, meant, rtol=1e-12, strict=True)


def test_an_ensemble_of_small_networks_with_biases_is_one_compiled_loop() -> None:
    x, y = np.random.default_rng(3).normal(size=(64, 4)), np.arange(64) % 3
    found = []
    for backend in ("numba", "numpy"):
        net = pnn.mlp([4, 4, 3], loss="softmax_cross_entropy", backend=backend, dtype="float64")
        ensemble = pnn.Ensemble(net, members=4)
        history = ensemble.fit(x, y, epochs=2, batch_size=8)
        found.append([member.state.theta for member in ensemble.networks])
        assert ("one compiled loop" in history.how) == (backend == "numba")
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_arrays_may_have_another_byte_order() -> None:
    x = RNG.normal(size=(5, 3))
    program = traced(lambda x: x * 2.0 + 1.5, x)
    np.testing.assert_array_equal(pnn.get_backend("numba").compile(program)(x.astype(">f8"))[0], x * 2.0 + 1.5)
    X, y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 1))
    for batch in (None, 5):
        swapped, native = (pnn.mlp([3, 4, 1], optimizer=pnn.Adam(), backend="numba", dtype="float64") for _ in range(2))
        swapped.fit(X.astype(">f8"), y.astype(">f8"), epochs=3, batch_size=batch)
        native.fit(X, y, epochs=3, batch_size=batch)
        np.testing.assert_array_equal(swapped.state.theta, native.state.theta)


def test_a_damaged_cache_file_is_compiled_again(tmp_path: Path) -> None:
    right = _trained(tmp_path)
    for damage in ("nbi", "nbc", "py"):
        for path in tmp_path.rglob(f"*.{damage}"):
            path.write_bytes(b"\xff\xfe damaged")
        assert _trained(tmp_path) == right


def test_another_learning_rate_uses_the_same_code() -> None:
    """Numbers that somebody chose are arguments of the loops."""
    from portablenn_numba.compiled import compiled

    def fit(rate: float, rows: int) -> None:
        net = pnn.mlp([3, 40, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(rate), backend="numba")
        net.fit(np.ones((rows, 3)), [0] * rows, epochs=1, batch_size=rows)

    for rows in (2, 200):  # a step of each kind
        fit(1e-3, rows)
        before = compiled.cache_info().currsize
        fit(2.7e-3, rows)
        assert compiled.cache_info().currsize == before


def test_nothing_is_contracted() -> None:
    """With fused multiply-add a·a − b·b would not be 0 for equal a and b, and its root might be NaN."""
    a = RNG.normal(size=1000)
    agree(lambda a, b: of(a).sqrt(a * a - b * b), a, a.copy(), rtol=0)


def test_a_value_of_a_single_row_is_not_read_before_it_is_made() -> None:
    agree(lambda x, b: of(x).sum(x * 2.0) * b, np.ones(3), np.full((1, 1), 3.0))


def test_several_scratch_rows_and_booleans_work_together() -> None:
    def two(x: Any) -> Any:
        m = of(x).max(x, axis=1, keepdims=True)
        e, g = of(x).exp(x - m), x - m > -1.0
        return of(x).where(g, e / of(x).sum(e, axis=1, keepdims=True), 0.0)

    agree(two, RNG.normal(size=(2, 3)))


@pytest.mark.parametrize("f", [lambda x: (x < 2**40) & (x > 0), lambda x: (x + 1) >> 40])
def test_integers_beyond_the_dtype_are_left_to_numpy(f: Any) -> None:
    program = traced(f, np.asarray([-3, 5], dtype=np.int32))
    for unit in Loops().units(program):
        operations = unit.operations if isinstance(unit, Group) else ()
        assert not any(2**40 in o.arguments or 40 in o.arguments for o in operations)


def test_a_large_integer_is_converted_to_the_arrays_floating_dtype() -> None:
    agree(lambda x: (x + 10**20) * 2.0, np.ones(3))


def test_without_numbas_compiler_loops_run_as_python(tmp_path: Path) -> None:
    environment = os.environ | {"PORTABLENN_CACHE": str(tmp_path), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(_trained(tmp_path)), rel=1e-6)


def test_numba_has_one_device() -> None:
    assert pnn.get_backend("numba:cpu") == pnn.get_backend("numba")
    assert pnn.get_backend("numba") != pnn.get_backend("numpy")
    with pytest.raises(pnn.BackendError, match="runs on 'cpu' only"):
        pnn.get_backend("numba:gpu")
