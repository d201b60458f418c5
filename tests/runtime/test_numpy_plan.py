"""The plan against the interpreter and against plain execution: the same values, no memory asked for, nothing overwritten."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import programs
import pytest
from gradients import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import of, traced

import portablenn as pnn
from portablenn.nn.model import Batches, Model, State
from portablenn.program.interpret import interpret
from portablenn.program.ir import Program
from portablenn.program.simplify import simplify
from portablenn.runtime.numpy.plan import BLOCK, LARGE, _contracted, plan, plan_loop


def _inputs(shapes: list[tuple[int, ...]], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.uniform(-1, 1, shape)) for shape in shapes]


def _traced(shapes: list[tuple[int, ...]], instructions: Any, reduce: bool = False) -> Program:
    def function(*inputs: Any) -> Any:
        namespace = pnn.array_namespace(*inputs)
        values = programs.run(namespace, inputs, instructions)
        return namespace.sum(values[-1] * values[-1]) if reduce else values[-6:] + list(inputs)

    return pnn.trace(function, *(pnn.ArrayType(s, "float64") for s in shapes))


@settings(max_examples=400, deadline=None)
@given(programs.shapes, programs.steps)
def test_plan_interpreter_and_plain_execution_agree(shapes: Any, instructions: Any) -> None:
    inputs = _inputs(shapes)
    before = [x.copy() for x in inputs]
    plain = [*programs.run(xp, inputs, instructions)[-6:], *inputs]
    program = _traced(shapes, instructions)
    run = plan(simplify(program))
    for results in (
        interpret(xp, program, *inputs),
        interpret(xp, simplify(program), *inputs),
        run(*inputs),
        run(*inputs),
    ):
        for result, expected in zip(results, plain, strict=True):
            assert result.shape == expected.shape
            assert result.dtype == expected.dtype
            np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy)


@settings(max_examples=200, deadline=None)
@given(programs.shapes, programs.steps)
def test_planned_gradients_agree_with_interpreted_ones(shapes: Any, instructions: Any) -> None:
    program = value_and_gradients(_traced(shapes, instructions, reduce=True), range(len(shapes)))
    inputs = _inputs(shapes, 1)
    expected = interpret(xp, program, *inputs)
    for result, right in zip(plan(simplify(program))(*inputs), expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-9, atol=1e-10)


@settings(max_examples=300, deadline=None)
@given(programs.shapes, programs.steps, st.integers(0, 3), st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_a_planned_loop_agrees_with_interpreted_steps(
    shapes: Any, instructions: Any, count: int, places: list[int]
) -> None:
    """Carried values come back in any order, twice, or unchanged: whatever lies in whose memory."""

    step = programs.looped_step(instructions, places)
    program = simplify(
        pnn.trace(step, pnn.ArrayType((), "int32"), *(pnn.ArrayType(s, "float64") for s in shapes), name="step")
    )
    carried = len(shapes) - 1
    inputs = _inputs(shapes, 2)
    carry, collected = inputs[:carried], []
    for i in range(count):
        results = interpret(xp, program, np.asarray(i, dtype=np.int32), *carry, *inputs[carried:])
        carry = list(results[:carried])
        collected.append(results[carried:])
    loop = plan_loop(program, carried)
    for _ in range(2):
        results = loop(count, *inputs)
        for result, expected in zip(results[:carried], carry, strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)
        for i, column in enumerate(results[carried:]):
            assert len(column) == count
            for row, expected in zip(column, collected, strict=True):
                np.testing.assert_allclose(row, expected[i], rtol=1e-10, atol=1e-12)


def _training_step(optimizer: Any, rows: int = 64) -> tuple[Program, list[np.ndarray], int]:
    """The program of one training step of a small network, its arguments, and how many of them are carried."""
    layers = [pnn.Dense(32, "relu"), pnn.BatchNorm(), pnn.Dropout(0.25), pnn.Dense(16, "sigmoid"), pnn.Dense(5)]
    net = pnn.Network(layers, inputs=20, loss="softmax_cross_entropy", optimizer=optimizer, backend="numpy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(512, 20)).astype("f4"), rng.integers(0, 5, 512)
    order = rng.permutation(512).reshape(-1, rows)
    slots = tuple(np.zeros(net.parameter_count, "f4") for _ in net.optimizer.slots)
    state = State(np.asarray(net.state.theta), slots, np.asarray(net.state.statistics))
    batches = Batches(x, y, np.ones(512, "f4"), order, net._layer_keys(), np.asarray(0, np.int32))
    flat = [state.theta, *slots, state.statistics, x, y, batches.weights, order, batches.keys, batches.first_step]
    model: Model = net.model

    def step(iteration: Any, theta: Any, *rest: Any) -> Any:
        slots_, (statistics, *data) = rest[: len(slots)], rest[len(slots) :]
        after, loss = model.step(iteration, State(theta, slots_, statistics), Batches(*data), None)
        return [after.theta, *after.slots, after.statistics, loss]

    types = [pnn.ArrayType((), "int32"), *(pnn.ArrayType(a.shape, str(a.dtype)) for a in flat)]
    return simplify(pnn.trace(step, *types)), flat, 2 + len(slots)


def test_after_the_first_step_no_array_is_allocated() -> None:
    program, arguments, carried = _training_step(pnn.Adam(1e-3))
    loop = plan_loop(program, carried)
    loop(8, *arguments)

    def peak(steps: int) -> int:
        tracemalloc.start()
        try:
            loop(steps, *arguments)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(8)
    one, eight = peak(1), peak(8)
    assert eight - one < 256  # seven more losses of four bytes, and Python's own small change


def test_an_allocation_in_a_step_would_be_seen() -> None:
    """The test above can fail: an operation without ``out`` is counted."""
    types = [pnn.ArrayType((), "int32"), pnn.ArrayType((400,), "float64")]
    program = pnn.trace(lambda i, x: [pnn.xp.sort(x, descending=True) + 1.0, pnn.xp.sum(x)], *types)
    loop = plan_loop(simplify(program), 1)
    loop(2, np.ones(400))
    tracemalloc.start()
    loop(2, np.ones(400))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak > 3 * 3200


@pytest.mark.parametrize("optimizer", [pnn.SGD(0.1, momentum=0.9), pnn.Adam(1e-2, clip_norm=1.0), pnn.RMSprop(1e-2)])
def test_planned_steps_equal_interpreted_steps(optimizer: Any) -> None:
    program, arguments, carried = _training_step(optimizer)
    carry = arguments[:carried]
    losses = []
    for i in range(8):
        *carry, loss = interpret(xp, program, np.asarray(i, np.int32), *carry, *arguments[carried:])
        losses.append(loss)
    *planned, planned_losses = plan_loop(program, carried)(8, *arguments)
    np.testing.assert_allclose(planned_losses, losses, rtol=1e-5)
    for a, b in zip(planned, carry, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_results_belong_to_the_caller() -> None:
    run = plan(simplify(pnn.trace(lambda x: (x + 1.0, x), pnn.ArrayType((3,), "float64"))))
    x = np.zeros(3)
    first, same = run(x)
    run(x + 5.0)
    assert first.tolist() == [1.0, 1.0, 1.0]
    same[0] = 9.0
    assert x[0] == 0.0


def test_threads_do_not_share_memory() -> None:
    def slow(x: Any) -> Any:
        for _ in range(20):
            x = pnn.xp.tanh(x @ x.mT) + x * 0.5
        return x

    run = plan(simplify(pnn.trace(slow, pnn.ArrayType((40, 40), "float64"))))
    inputs = [np.full((40, 40), 0.01 * i) for i in range(8)]
    expected = [run(x)[0] for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(30):
            if not np.array_equal(run(inputs[i])[0], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_in_a_call_leaves_the_plan_usable() -> None:
    run = plan(simplify(pnn.trace(lambda x: pnn.xp.sum(x * x), pnn.ArrayType((3,), "float64"))))
    with pytest.raises((TypeError, ValueError)):
        run(np.ones((2, 2, 2)), 3)
    assert float(run(np.ones(3))[0]) == 3.0


def test_a_program_without_operations_copies_its_input() -> None:
    run = plan(pnn.trace(lambda x: x, pnn.ArrayType((2,), "float64")))
    x = np.asarray([1.0, 2.0])
    (result,) = run(x)
    assert result.tolist() == [1.0, 2.0]
    assert result is not x


@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed"])
def test_inputs_may_have_any_memory_layout(layout: str) -> None:
    base = np.arange(24.0).reshape(4, 6)
    x = {
        "C": base,
        "F": np.asfortranarray(base),
        "strided": np.arange(48.0).reshape(4, 12)[:, ::2],
        "reversed": base[::-1],
    }[layout]

    def function(x: Any) -> Any:
        namespace = pnn.array_namespace(x)
        rows = namespace.take(x, namespace.asarray([3, 0]), axis=0)
        return namespace.reshape(x, (6, 4)) @ namespace.reshape(rows, (4, 3)), x.mT + 1.0

    program = pnn.trace(function, pnn.ArrayType((4, 6), "float64"))
    for result, expected in zip(plan(simplify(program))(x), interpret(xp, program, x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_an_operation_without_out_does_not_share_memory_that_is_used_again() -> None:
    def function(z: Any) -> Any:
        w = z * 2.0
        return pnn.xp.real(w), w + 5.0

    real, _ = pnn.compile(function)(np.asarray([1 + 2j, 3 + 4j]))
    assert real.tolist() == [2.0, 6.0]


def test_the_number_of_the_iteration_may_be_a_result() -> None:
    program = pnn.trace(lambda i, a: (a + 1.0, i), pnn.ArrayType((), "int32"), pnn.ArrayType((), "float64"))
    carried, collected = plan_loop(program, 1)(3, np.asarray(0.0))
    assert float(carried) == 3.0
    assert collected.tolist() == [0, 1, 2]


@pytest.mark.parametrize("x", [np.arange(3.0), np.arange(6.0)[::2]])
def test_an_index_out_of_range_is_an_error_in_a_compiled_function(x: np.ndarray) -> None:
    take = pnn.compile(lambda a, i: pnn.xp.take(a, i))
    assert take(x, np.asarray([-1, 0])).tolist() == [x[-1], x[0]]
    with pytest.raises(IndexError):
        take(x, np.asarray([5]))


def test_large_arrays_of_a_plan_do_not_overlap() -> None:
    """They share an arena: of sizes that are not a multiple of the alignment, and beyond a block."""
    sizes = [LARGE // 8, LARGE // 8 + 3, BLOCK // 8 - LARGE // 8, BLOCK // 8 + 1]
    arrays = [np.full(n, float(k)) for k, n in enumerate(sizes)]
    program = traced(lambda *xs: [of(x).cumulative_sum(x + 1.0) for x in xs], *arrays)
    loop = plan_loop(traced(lambda i, *xs: [x + 1.0 for x in xs], np.asarray(0, np.int32), *arrays), len(arrays))
    for k, (sums, counted) in enumerate(zip(plan(program)(*arrays), loop(3, *arrays), strict=True)):
        assert sums[-1] == (k + 1.0) * sizes[k]
        assert (counted == k + 3.0).all()


@pytest.mark.parametrize(
    ("function", "dots"),
    [
        (lambda x, y: of(x).sum(of(x).square(x)), 1),
        (lambda x, y: of(x).sum(x * y), 1),
        (lambda x, y: of(x).sum(x * y * 0.5), 1),
        (lambda x, y: of(x).sum(x * 2.0), 0),
        (lambda x, y: of(x).sum(x * y, axis=0), 0),
        (lambda x, y: (of(x).sum(x * y), x * y), 0),
    ],
)
def test_a_sum_of_all_products_is_a_dot_product(function: Any, dots: int) -> None:
    x, y = _inputs([(3, 70), (3, 70)])
    program = traced(function, x, y)
    run = plan(program)
    for result, expected in zip(run(x, y), interpret(xp, program, x, y), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    names = [o.name for o in _contracted(program).operations]
    assert names.count("vecdot") == dots
