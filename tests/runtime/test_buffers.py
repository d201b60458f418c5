"""Buffers of a program's values: memory is shared as far as the order of reads permits, and no further."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import of, traced

import portablenn as pnn
from portablenn.program.interpret import interpret
from portablenn.runtime.kernels.buffers import Storage, dense
from portablenn.runtime.kernels.schedule import Copy, Schedule, make_schedule
from portablenn.runtime.numpy.plan import plan, plan_loop

xp = pnn.get_backend("numpy").xp
X = np.linspace(-1.0, 1.0, 64).reshape(8, 8)
NBYTES = X.nbytes  # a multiple of the alignments of plans and schedules
ZERO = np.asarray(0, np.int32)


def held(function: Any, *arrays: np.ndarray) -> int:
    """How many arrays of ``NBYTES`` a plan holds; its results are checked."""
    program = traced(function, *arrays)
    run = plan(program)
    for result, expected in zip(run(*arrays), interpret(xp, program, *arrays), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert run.nbytes % NBYTES == 0  # type: ignore[attr-defined]
    return run.nbytes // NBYTES  # type: ignore[attr-defined,no-any-return]


def scheduled(function: Any, *arrays: np.ndarray, carried: int | None = None) -> Schedule:
    return make_schedule(traced(function, *arrays), xp, carried)


def copies(schedule: Schedule) -> int:
    return sum(isinstance(instruction, Copy) for instruction in schedule.instructions)


def test_an_elementwise_result_overwrites_the_argument_read_last() -> None:
    assert held(lambda x: of(x).exp(of(x).tanh(of(x).sin(x))), X) == 1


def test_an_argument_read_again_is_not_overwritten() -> None:
    def read_again(x: Any) -> Any:
        y = of(x).tanh(x)
        return of(x).exp(y) @ y

    assert held(read_again, X) == 3


def test_a_product_does_not_overwrite_its_arguments() -> None:
    def products(x: Any) -> Any:
        for _ in range(5):
            x = x @ x
        return x

    assert held(products, X) == 2


def test_outputs_are_not_overwritten() -> None:
    def both(x: Any) -> Any:
        y = of(x).tanh(x)
        return y, of(x).exp(y)

    assert held(both, X) == 2


def test_an_argument_of_other_order_is_not_overwritten() -> None:
    def transposed(x: Any) -> Any:
        y = of(x).tanh(x)
        return y + y.T

    assert held(transposed, X) == 2


def test_pieces_of_a_concatenation_are_computed_inside_it() -> None:
    def pieces(x: Any) -> Any:
        return of(x).concat([of(x).tanh(x), of(x).reshape(x @ x, (8, 8)), x @ x.T], axis=0)

    assert held(pieces, X) == 3
    assert copies(scheduled(pieces, X)) == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_a_piece_that_is_used_twice_is_copied_once(axis: int) -> None:
    def twice(x: Any) -> Any:
        y = x @ x
        return of(x).concat([y, y], axis=axis) * 2.0, y

    schedule = scheduled(twice, X)
    assert copies(schedule) == 1 + axis  # pieces side by side are not contiguous
    program = traced(twice, X)
    for result, expected in zip(plan(program)(X), interpret(xp, program, X), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_an_array_without_elements_has_any_shape_without_a_copy() -> None:
    empty = np.zeros((4, 0))
    schedule = scheduled(lambda x: of(x).reshape(x.T, (0, 2, 2)), empty)
    assert (schedule.results[0].shape, copies(schedule)) == ((0, 2, 2), 0)


def test_a_known_value_that_is_repeated_takes_the_memory_of_one() -> None:
    def scaled(x: Any) -> Any:
        xp = of(x)
        return x * xp.reshape(xp.linspace(0.0, 1.0, 8, dtype=xp.float64), (8, 1))

    constants = scheduled(scaled, np.ones((6, 8, 8))).constants
    assert max(constant.size for constant in constants) == 8


def test_a_factor_of_all_products_of_a_stack_is_copied_once() -> None:
    schedule = scheduled(lambda x, w: x[:, ::2] @ w, np.ones((6, 8)), np.ones((50, 4, 3)))
    copied = [i.target.shape for i in schedule.instructions if isinstance(i, Copy)]
    assert copied == [(6, 4)]


def test_a_piece_of_another_dtype_is_copied() -> None:
    narrow, wide = np.ones((2, 3), np.float32), np.ones((2, 3))
    program = traced(lambda x, y: of(x).concat([x * 2.0, y * 2.0], axis=0), narrow, wide)
    np.testing.assert_array_equal(plan(program)(narrow, wide)[0], np.full((4, 3), 2.0))


def test_carried_values_are_overwritten_where_they_are_read_last() -> None:
    step = scheduled(lambda i, x, y: [x + y, y * 2.0], ZERO, X, X, carried=2)
    assert copies(step) == 0
    assert step.arena == 0


def test_a_product_is_computed_where_the_dead_carried_value_was() -> None:
    step = scheduled(lambda i, x, y: [of(x).tanh(x @ y) @ y, y], ZERO, X, X, carried=2)
    assert copies(step) == 0
    assert step.arena == NBYTES


def test_carried_values_that_are_swapped_use_temporary_buffers() -> None:
    step = scheduled(lambda i, x, y: [y, x], ZERO, X, X, carried=2)
    assert copies(step) == 4
    program = traced(lambda i, x, y: [y, x], ZERO, X, X)
    first, second = plan_loop(program, 2)(3, X, X + 1.0)
    np.testing.assert_array_equal(first, X + 1.0)
    np.testing.assert_array_equal(second, X)


def test_what_is_computed_before_a_loop_is_not_overwritten_in_it() -> None:
    def step(i: Any, x: Any, w: Any) -> Any:
        fixed = of(w).tanh(w)  # the same in each step
        y = of(x).exp(x @ w)
        return [of(x).concat([y[:4, :], fixed[4:, :]], axis=0) * (fixed + y), of(x).sum(y)]

    program = traced(step, ZERO, X, X)
    results = plan_loop(program, 1)(3, X, X)
    expected = pnn.Backend("numpy", xp).compile_loop(program, 1)(3, X, X)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-13)


def test_a_loop_of_no_steps_returns_what_was_carried_in() -> None:
    program = traced(lambda i, x, w: [of(w).tanh(w)], ZERO, X, X)
    np.testing.assert_array_equal(plan_loop(program, 1)(0, X, X)[0], X)


def test_a_plan_holds_its_constants_and_a_copy_for_each_thread() -> None:
    constant = np.arange(64.0)
    program = traced(lambda x: of(x).asarray(constant) + x, constant)
    run = plan(program)
    assert run.nbytes == 0  # type: ignore[attr-defined]
    run(constant)
    once = run.nbytes  # type: ignore[attr-defined]
    assert once >= 2 * constant.nbytes
    run(constant)
    assert run.nbytes == once  # type: ignore[attr-defined]


def test_a_plan_copies_no_reshape_that_numpy_can_view() -> None:
    program = traced(lambda x: of(x).reshape(of(x).tanh(x).T, (8, 1, 8)) * 2.0, X)
    run = plan(program)
    np.testing.assert_array_equal(run(X)[0], np.tanh(X).T[:, None, :] * 2.0)
    assert "copyto" not in run.source  # type: ignore[attr-defined]
    assert run.nbytes // NBYTES == 2  # type: ignore[attr-defined]


def test_a_view_of_a_buffer_is_the_view_of_its_array() -> None:
    memory = X.reshape(-1).view(np.uint8)
    whole = dense(Storage(NBYTES), pnn.ArrayType((8, 8), "float64"))  # type: ignore[arg-type]
    views = {
        "permute_dims": lambda x: x.T,
        "getitem": lambda x: x[1:7:2, 3:],
        "flip": lambda x: of(x).flip(x, axis=1),
        "broadcast_to": lambda x: of(x).broadcast_to(x, (2, 8, 8)),
        "reshape": lambda x: of(x).reshape(x, (4, 16)),
    }
    for name, view in views.items():
        (operation,) = traced(view, X).operations
        assert operation.name == name
        buffer = whole.view(operation)
        assert buffer is not None
        np.testing.assert_array_equal(buffer.array(memory), view(X) if name == "getitem" else view(xp.asarray(X)))
