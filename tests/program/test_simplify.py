"""What simplification takes away, and what it must leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.program.simplify import simplify

VECTOR = pnn.ArrayType((4,), "float64")
MATRIX = pnn.ArrayType((2, 3), "float64")


def _names(function: Callable[..., Any], *types: pnn.ArrayType) -> list[str]:
    return [operation.name for operation in simplify(pnn.trace(function, *types)).operations]


@pytest.mark.parametrize(
    ("function", "types", "left"),
    [
        (lambda x: x * 1.0, (VECTOR,), []),
        (lambda x: x + -0.0, (VECTOR,), []),
        (lambda x: x + 0.0, (VECTOR,), ["add"]),  # -0.0 + 0.0 is 0.0
        (lambda x: x - 0.0, (VECTOR,), []),
        (lambda x: x / 1.0, (VECTOR,), []),
        (lambda x: x**1, (VECTOR,), []),
        (lambda x: x**2, (VECTOR,), ["square"]),
        (lambda x: pnn.xp.negative(-x), (VECTOR,), []),
        (lambda x: x * 2.0 * 3.0, (VECTOR,), ["multiply"]),
        (lambda x: (-x) * 3.0, (VECTOR,), ["multiply"]),
        (lambda x, y: x + (-y), (VECTOR, VECTOR), ["subtract"]),
        (lambda x, y: x - (-y), (VECTOR, VECTOR), ["add"]),
        (lambda x, y: -(x - y), (VECTOR, VECTOR), ["subtract", "negative"]),  # of equal numbers it is -0.0
        (lambda x, y: (x * 2.0) * y * 0.5, (VECTOR, VECTOR), ["multiply"]),
        (lambda x: pnn.xp.tanh(x) + pnn.xp.tanh(x), (VECTOR,), ["tanh", "add"]),
        (lambda x: pnn.xp.reshape(pnn.xp.reshape(x, (2, 2)), (4,)), (VECTOR,), []),
        (lambda x: x.mT.mT, (MATRIX,), []),
        (lambda x: pnn.xp.broadcast_to(pnn.xp.broadcast_to(x, (3, 4)), (2, 3, 4)), (VECTOR,), ["broadcast_to"]),
        (lambda x: pnn.xp.broadcast_to(pnn.xp.full((4,), 3.0), (3, 4)), (VECTOR,), ["full"]),
        (lambda x: pnn.xp.permute_dims(pnn.xp.broadcast_to(x, (4,))[None, :], (0, 1)), (VECTOR,), ["reshape"]),
        (lambda x: pnn.xp.astype(x, x.dtype), (VECTOR,), []),
        (lambda x: x * pnn.xp.ones((4,), dtype=x.dtype), (VECTOR,), []),
        (lambda x: x * pnn.xp.full((4,), 3.0) + pnn.xp.broadcast_to(x, (4,)), (VECTOR,), ["multiply", "add"]),
        (lambda x: pnn.xp.concat([x, x * 2.0])[0:4], (VECTOR,), []),
        (lambda x: pnn.xp.sum(pnn.xp.reshape(x, (4, 1)), axis=1), (VECTOR,), []),
        (lambda x: pnn.stop_gradient(x) * 2.0, (VECTOR,), ["multiply"]),
    ],
)
def test_operations_that_change_nothing_are_removed(function: Any, types: Any, left: list[str]) -> None:
    assert _names(function, *types) == left


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * pnn.xp.ones((3, 4), dtype=x.dtype),
        lambda x: x + pnn.xp.zeros((3, 4), dtype=x.dtype),
        lambda x: pnn.xp.ones((3, 1), dtype=x.dtype) - x * 0.0,
    ],
)
def test_a_broadcast_that_gives_the_shape_stays(function: Any) -> None:
    program = simplify(pnn.trace(function, VECTOR))
    assert program.outputs[0].type.shape == (3, 4)


def test_zero_times_x_is_kept_because_x_may_be_infinite() -> None:
    assert _names(lambda x: x * 0.0, VECTOR) == ["multiply"]


def test_scalars_whose_product_would_overflow_stay_apart() -> None:
    result = pnn.compile(lambda x: x * 1e200 * 1e200 * 1e-200)(np.asarray(1e-300))
    assert float(result) == pytest.approx(1e-100)


def test_one_and_true_are_not_the_same_number() -> None:
    program = simplify(pnn.trace(lambda x: (x + 1, x + 1.0, pnn.xp.astype(x > 0, pnn.xp.int32) + 1), VECTOR))
    assert [o.result.type.dtype for o in program.operations if o.name == "add"][-1] == "int32"


def test_unused_constants_are_removed() -> None:
    w = np.ones(4)
    assert simplify(pnn.trace(lambda x: (x + w, x)[1], VECTOR)).constants == {}


def test_simplifying_twice_changes_nothing_more() -> None:
    program = pnn.compile(pnn.value_and_grad(lambda x: pnn.xp.sum(pnn.xp.tanh(x * 0.5) ** 2 / 3.0))).program(np.ones(4))
    assert str(simplify(program)) == str(program)


def test_the_gradient_of_half_the_squared_error_is_the_error() -> None:
    program = pnn.compile(pnn.value_and_grad(lambda p, t: pnn.xp.sum(0.5 * (p - t) ** 2))).program(
        np.ones(4), np.zeros(4)
    )
    gradient = program.outputs[1]
    (made,) = [o for o in program.operations if o.result is gradient]
    assert made.name == "subtract"


def test_a_small_number_that_keeps_a_product_finite_stays_where_it_is() -> None:
    x, y = np.asarray([1e30], dtype=np.float32), np.asarray([1e10], dtype=np.float32)
    assert float(pnn.compile(lambda x, y: (x * 1e-10) * y)(x, y)[0]) == pytest.approx(1e30, rel=1e-6)
    assert float(pnn.compile(lambda x: (x * 1e-200) * 1e-200)(np.asarray([1e300]))[0]) == pytest.approx(1e-100)


@pytest.mark.parametrize(
    ("number", "source", "target"),
    [
        (300, "int32", "int8"),
        (-1, "int32", "uint8"),
        (0.1, "float32", "float64"),
        (16777217, "float32", "int64"),
        (2.7, "float64", "int32"),
    ],
)
def test_a_filled_array_converts_as_its_elements_do(number: Any, source: str, target: str) -> None:
    def function(x: Any) -> Any:
        xp = pnn.array_namespace(x)
        return xp.astype(xp.full((3,), number, dtype=getattr(xp, source)), getattr(xp, target)) + x

    zero = np.zeros(3, dtype=target)
    np.testing.assert_array_equal(pnn.compile(function)(zero), function(zero), strict=True)


@pytest.mark.parametrize(
    ("function", "operations"),
    [
        (lambda x: x + 0.0, 1), (lambda x: 0 + x, 1), (lambda x: 0.0 - x, 1), (lambda x: 0 - x, 1), (lambda x: -(x - x), 2),
        (lambda x: x - 0.0, 0), (lambda x: x - 0, 0), (lambda x: x + -0.0, 0), (lambda x: -0.0 - x, 1),
        (lambda x: x * -1.0, 1),
    ],
)  # fmt: skip
def test_zeros_keep_their_sign(function: Any, operations: int) -> None:
    """0.0 - x is not -x, and x + 0.0 is not x, where x is a zero."""
    x = np.asarray([0.0, -0.0, 1.0, -1.0])
    compiled = pnn.compile(function)
    for values in (x, x.astype(np.float32)):
        np.testing.assert_array_equal(np.signbit(compiled(values)), np.signbit(function(values)))
    assert len(compiled.program(x).operations) == operations
