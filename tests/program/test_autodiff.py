"""Each derivative rule against central differences, complex steps, and itself planned; on every library."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from gradients import value_and_gradients
from messages import raises

import portablenn as pnn
from portablenn.program.autodiff import CONSTANT_ALMOST_EVERYWHERE, RULES
from portablenn.program.interpret import index_add
from portablenn.program.linalg import PACKED
from portablenn.program.namespace import TracingNamespace


@dataclass
class Case:
    """A function of arrays, and shapes for it: numbers in (low, high), never near a kink by construction."""

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    low: float = 0.3
    high: float = 0.9
    smooth: bool = True
    """Infinitely often differentiable where it is tested: second derivatives are checked."""
    analytic: bool = True
    """NumPy continues it to complex numbers: complex steps are checked."""
    operation: str = ""
    """Which rule this is for; the case's own name if empty."""
    values: tuple[Any, ...] = field(default_factory=tuple)


BROADCASTING = [((3,), (3,)), ((2, 3), (3,)), ((), (2, 2)), ((2, 1), (1, 3)), ((4, 1, 2), (3, 1))]


def _unary(name: str, low: float = 0.3, high: float = 0.9, **facts: Any) -> dict[str, Case]:
    return {
        f"{name}-{shape}": Case(lambda xp, x: getattr(xp, name)(x), (shape,), low, high, operation=name, **facts)
        for shape in [(), (3,), (2, 3)]
    }


def _binary(name: str, low: float = 0.3, high: float = 0.9, **facts: Any) -> dict[str, Case]:
    cases = {
        f"{name}-{a}-{b}": Case(lambda xp, x, y: getattr(xp, name)(x, y), (a, b), low, high, operation=name, **facts)
        for a, b in BROADCASTING
    }
    for label, function in {
        "scalar-right": lambda xp, x: getattr(xp, name)(x, 0.6),
        "scalar-left": lambda xp, x: getattr(xp, name)(0.6, x),
    }.items():
        cases[f"{name}-{label}"] = Case(function, ((2, 3),), low, high, operation=name, **facts)
    return cases


def _index_add(xp: Any, x: Any, indices: Any, updates: Any, axis: int) -> Any:
    """A traced function has it in its namespace; libraries have it through the interpreter."""
    function = TracingNamespace.index_add if isinstance(xp, TracingNamespace) else index_add
    return function(xp, x, indices, updates, axis=axis)


CASES: dict[str, Case] = {}
for _name in [
    "acos",
    "asin",
    "atan",
    "cos",
    "cosh",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "negative",
    "reciprocal",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
]:
    CASES |= _unary(_name)
CASES |= _unary("asinh") | _unary("atanh") | _unary("acosh", 1.3, 2.9)
CASES |= _unary("abs", analytic=False) | _unary("abs", -0.9, -0.3, analytic=False)
CASES |= _unary("conj", analytic=False) | _unary("real", analytic=False) | _unary("positive")
for _name in ("add", "divide", "multiply", "subtract", "pow"):
    CASES |= _binary(_name)
for _name in ("atan2", "hypot", "logaddexp", "maximum", "minimum"):
    CASES |= _binary(_name, analytic=False, smooth=_name not in ("maximum", "minimum"))
CASES |= _binary("copysign", analytic=False) | _binary("copysign", -0.9, -0.3, analytic=False)
CASES["remainder"] = Case(lambda xp, x, y: xp.remainder(x * 7.123, y), ((3,), (2, 3)), analytic=False)
CASES |= {
    "pow-whole": Case(lambda xp, x: x**3 + x**2 + x**1, ((2, 3),), operation="pow"),
    "pow-zero": Case(lambda xp, x: x**0 + 0.0 * x, ((2, 3),), operation="pow"),
    "where": Case(lambda xp, x, y: xp.where(x > 0.5871, x * x, y), ((2, 3), (3,)), operation="where", analytic=False),
    "where-scalar": Case(lambda xp, x: xp.where(x > 0.5871, x * x, 0.0), ((2, 3),), operation="where", analytic=False),
    "clip": Case(lambda xp, x: xp.clip(x, 0.4571, 0.7313) * x, ((7,),), operation="minimum", analytic=False, smooth=False),
    "astype": Case(lambda xp, x: xp.astype(xp.astype(x, xp.float64), xp.float64) * x, ((3,),), analytic=False),
    "broadcast_to": Case(lambda xp, x: xp.broadcast_to(x, (4, 2, 3)) ** 2, ((2, 1),)),
    "broadcast_arrays": Case(lambda xp, x, y: xp.broadcast_arrays(x, y)[0] ** 2 + y, ((2, 1), (3,)), operation="broadcast_to"),
    "flip": Case(lambda xp, x: xp.flip(x, axis=-1) * x, ((2, 3),)),
    "flip-all": Case(lambda xp, x: xp.flip(x) * x, ((2, 3),), operation="flip"),
    "permute_dims": Case(lambda xp, x: xp.permute_dims(x, (2, 0, 1)) ** 3, ((2, 3, 4),)),
    "moveaxis": Case(lambda xp, x: xp.moveaxis(x, 0, -1) ** 3, ((2, 3, 4),), operation="permute_dims"),
    "mT": Case(lambda xp, x: x.mT @ x, ((2, 3),), operation="permute_dims"),
    "reshape": Case(lambda xp, x: xp.reshape(x, (3, -1)) ** 2, ((2, 3),)),
    "expand-squeeze": Case(lambda xp, x: xp.squeeze(xp.expand_dims(x, axis=-2), axis=1) ** 2, ((2, 3),), operation="reshape"),
    "tril": Case(lambda xp, x: xp.tril(x, k=-1) ** 2 + x, ((3, 3),), analytic=False),
    "triu": Case(lambda xp, x: xp.triu(x, k=1) ** 2 + x, ((2, 3, 3),), analytic=False),
    "concat": Case(lambda xp, x, y: xp.concat([x, y, x], axis=1) ** 2, ((2, 3), (2, 1))),
    "concat-flat": Case(lambda xp, x, y: xp.concat([x, y], axis=None) ** 2, ((2, 3), (2,)), operation="concat"),
    "stack": Case(lambda xp, x, y: xp.stack([x, y], axis=-1) ** 2, ((2, 3), (2, 3)), operation="concat"),
    "tile-repeat": Case(lambda xp, x: xp.tile(xp.repeat(x, 2, axis=0), (2, 1)) ** 2, ((2, 3),), operation="broadcast_to"),
    "roll": Case(lambda xp, x: xp.roll(x, 2, axis=1) * x, ((2, 3),), operation="getitem"),
    "roll-flat": Case(lambda xp, x: xp.roll(x, -1) * x, ((2, 3),), operation="getitem"),
    "unstack": Case(lambda xp, x: xp.unstack(x, axis=1)[1] ** 2, ((2, 3),), operation="getitem"),
    "diff": Case(lambda xp, x: xp.diff(x, axis=1, n=2) ** 2, ((2, 5),), operation="getitem"),
    "meshgrid": Case(lambda xp, x, y: xp.meshgrid(x, y)[0] * xp.meshgrid(x, y)[1], ((2,), (3,)), operation="reshape"),
    "getitem-slice": Case(lambda xp, x: x[1:, 0:2] ** 2, ((3, 4),), operation="getitem"),
    "getitem-step": Case(lambda xp, x: x[:, 1:6:2] ** 2, ((2, 7),), operation="getitem"),
    "getitem-backwards": Case(lambda xp, x: x[::-2] ** 2, ((5,),), operation="getitem"),
    "getitem-number": Case(lambda xp, x: x[-1] ** 2 + x[0, 1], ((3, 4),), operation="getitem"),
    "getitem-new": Case(lambda xp, x: x[:, None, ..., 1] ** 2, ((2, 3, 4),), operation="getitem"),
    "getitem-empty": Case(lambda xp, x: xp.sum(x[3:3]) + x * x, ((3,),), operation="getitem"),
    "getitem-array": Case(lambda xp, x: x[xp.asarray([2, 0, 2])] ** 2, ((3, 2),), operation="take"),
    "take": Case(lambda xp, x: xp.take(x, xp.asarray([2, 0, 2, 1]), axis=1) ** 2, ((2, 3),)),
    "take-rows": Case(lambda xp, x: xp.take(x, xp.asarray([-1, 0, 2, -1]), axis=0) ** 2, ((3, 2),), operation="take"),
    "take-nothing": Case(
        lambda xp, x: xp.sum(xp.take(x, xp.zeros(0, dtype=xp.int32), axis=0)) + x * x, ((3, 2),), operation="take"
    ),
    "index_add": Case(
        lambda xp, x, u: _index_add(xp, x, xp.asarray([1, -2, 1]), u, 0) ** 2, ((3, 2), (3, 2)), analytic=False
    ),
    "index_add-axis": Case(
        lambda xp, x, u: _index_add(xp, x, xp.asarray([0, 0]), u, 1) ** 2, ((2, 3), (2, 2)), operation="index_add", analytic=False
    ),
    "take_along_axis-middle": Case(
        lambda xp, x: xp.take_along_axis(x, xp.asarray([[[1, -1]], [[0, -3]]]), axis=1) ** 2,
        ((2, 3, 2),),
        operation="take_along_axis",
    ),
    "take_along_axis": Case(
        lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=1)[:, :2], axis=1) ** 2, ((2, 3),), analytic=False
    ),
    "sum": Case(lambda xp, x: xp.sum(x * x), ((2, 3),)),
    "sum-axis": Case(lambda xp, x: xp.sum(x * x, axis=-1) ** 2, ((2, 3),), operation="sum"),
    "sum-keepdims": Case(lambda xp, x: x / xp.sum(x, axis=(0, -1), keepdims=True), ((2, 3, 2),), operation="sum"),
    "mean": Case(lambda xp, x: xp.mean(x * x, axis=0) ** 2, ((4, 3),), operation="sum"),
    "var": Case(lambda xp, x: xp.var(x, axis=1, correction=1), ((2, 5),), operation="sum", analytic=False),
    "std": Case(lambda xp, x: xp.std(x, axis=0, keepdims=True) * x, ((4, 2),), operation="sum", analytic=False),
    "max": Case(lambda xp, x: xp.max(x, axis=1) ** 2, ((2, 3),), analytic=False),
    "max-all": Case(lambda xp, x: xp.max(x) * x, ((2, 3),), analytic=False, operation="max"),
    "min": Case(lambda xp, x: xp.min(x, axis=0, keepdims=True) * x, ((2, 3),), analytic=False),
    "prod": Case(lambda xp, x: xp.prod(x, axis=1) ** 2, ((2, 4),)),
    "prod-all": Case(lambda xp, x: xp.prod(x), ((2, 3),), operation="prod"),
    "prod-zero": Case(lambda xp, x: xp.prod(x), ((4,),), operation="prod", values=([0.5, 0.0, 2.0, 0.0],)),
    "cumulative_sum": Case(lambda xp, x: xp.cumulative_sum(x, axis=1) ** 2, ((2, 4),)),
    "cumulative_sum-initial": Case(
        lambda xp, x: xp.cumulative_sum(x, include_initial=True) ** 2, ((4,),), operation="cumulative_sum"
    ),
    "cumulative_prod": Case(lambda xp, x: xp.cumulative_prod(x, axis=0) ** 2, ((4, 2),)),
    "cumulative_prod-zero": Case(
        lambda xp, x: xp.cumulative_prod(x), ((4,),), operation="cumulative_prod", values=([0.5, 0.0, 2.0, 3.0],)
    ),
    "sort": Case(lambda xp, x: xp.sort(x, axis=1) ** 2 * xp.asarray([1.0, 2.0, 3.0]), ((2, 3),), analytic=False),
    "sort-descending": Case(
        lambda xp, x: xp.sort(x, descending=True) ** 2 * xp.asarray([1.0, 2.0, 3.0]), ((3,),), analytic=False, operation="sort"
    ),
    "matmul": Case(lambda xp, x, y: (x @ y) ** 2, ((2, 3), (3, 4))),
    "matmul-batch": Case(lambda xp, x, y: (x @ y) ** 2, ((2, 2, 3), (3, 4)), operation="matmul"),
    "matmul-vector": Case(lambda xp, x, y: (x @ y) * (y @ x.mT), ((2, 3), (3,)), operation="matmul"),
    "matmul-vectors": Case(lambda xp, x, y: x @ y, ((3,), (3,)), operation="matmul"),
    "vecdot": Case(lambda xp, x, y: xp.vecdot(x, y, axis=-2) ** 2, ((2, 3), (2, 3)), operation="sum", analytic=False),
    "tensordot": Case(lambda xp, x, y: xp.tensordot(x, y, axes=2) ** 2, ((2, 3, 4), (3, 4, 2)), operation="matmul"),
    "tensordot-axes": Case(
        lambda xp, x, y: xp.tensordot(x, y, axes=((0, -1), (1, 0))) ** 2, ((2, 3, 4), (4, 2)), operation="matmul"
    ),
}  # fmt: skip


def _scalar(case: Case) -> Callable[..., Any]:
    """The case as a scalar function: a weighted sum, so that each element of the result has a cotangent of its own."""

    def function(*arrays: Any) -> Any:
        xp = pnn.array_namespace(*arrays)
        result = case.function(xp, *arrays)
        weights = xp.reshape(xp.arange(1, result.size + 1, dtype=result.dtype), result.shape)
        return xp.sum(result * weights) / float(max(result.size, 1))

    return function


def _arguments(name: str, case: Case) -> list[np.ndarray]:
    if case.values:
        return [np.asarray(v) for v in case.values]
    rng = np.random.default_rng(sum(map(ord, name)))
    count = sum(int(np.prod(shape)) for shape in case.shapes)
    spread = rng.permutation(np.linspace(case.low, case.high, count + 2)[1:-1])  # all different: no ties
    parts = np.split(spread, np.cumsum([int(np.prod(shape)) for shape in case.shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, case.shapes, strict=True)]


def _plain(case: Case) -> Callable[..., Any]:
    """The scalar function run directly, operation by operation, on NumPy arrays."""
    function = _scalar(case)
    return lambda *arrays: function(*map(np.asarray, arrays))


def _central(function: Callable[..., Any], arguments: list[np.ndarray], i: int, h: float = 1e-5) -> np.ndarray:
    result = np.zeros(arguments[i].shape)
    for index in np.ndindex(arguments[i].shape):
        moved = [[a.copy() for a in arguments] for _ in range(4)]
        for m, times in zip(moved, (1, -1, 2, -2), strict=True):
            m[i][index] += times * h
        one, minus_one, two, minus_two = (float(function(*m)) for m in moved)
        result[index] = (8 * (one - minus_one) - (two - minus_two)) / (12 * h)
    return result


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_limit_of_differences(name: str, library: Any) -> None:
    case = CASES[name]
    arguments = _arguments(name, case)
    gradients = pnn.grad(_scalar(case), argnums=tuple(range(len(arguments))))(*map(library.array, arguments))
    for i, gradient in enumerate(gradients):
        expected = _central(_plain(case), arguments, i)
        np.testing.assert_allclose(library.numpy(gradient), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.analytic])
def test_gradient_equals_the_complex_step(name: str) -> None:
    case = CASES[name]
    arguments = _arguments(name, case)
    gradients = pnn.grad(_scalar(case), argnums=tuple(range(len(arguments))))(*arguments)
    for i, gradient in enumerate(gradients):
        expected = np.zeros(arguments[i].shape)
        for index in np.ndindex(arguments[i].shape):
            moved = [a.astype(np.complex128) for a in arguments]
            moved[i][index] += 1e-30j
            expected[index] = np.imag(complex(_plain(case)(*moved))) / 1e-30
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.smooth])
def test_second_derivative_is_the_limit_of_differences_of_the_first(name: str) -> None:
    case = CASES[name]
    arguments = _arguments(name, case)
    first = pnn.grad(_scalar(case))

    def along(*arrays: Any) -> Any:
        xp = pnn.array_namespace(*arrays)
        gradient = first(*arrays)
        return xp.sum(gradient * xp.reshape(xp.arange(1, gradient.size + 1, dtype=gradient.dtype), gradient.shape))

    for i in range(len(arguments)):
        expected = _central(along, arguments, i)
        second = pnn.grad(along, argnums=i)(*arguments)
        np.testing.assert_allclose(second, expected, rtol=1e-6, atol=1e-7)


def test_every_function_that_can_be_traced_has_a_rule_or_is_constant() -> None:
    traced = {name for name in dir(TracingNamespace) if not name.startswith("_")}
    operations = set(RULES) | CONSTANT_ALMOST_EVERYWHERE
    of_integers_and_booleans = {
        "all", "any", "count_nonzero", "equal", "greater", "greater_equal", "less", "less_equal", "not_equal", "isfinite",
        "isinf", "isnan", "signbit", "logical_and", "logical_not", "logical_or", "logical_xor", "bitwise_and",
        "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    }  # fmt: skip
    traced_as_others = {
        "broadcast_arrays", "broadcast_shapes", "clip", "diff", "empty", "empty_like", "expand_dims", "full_like",
        "mask_indices", "matrix_transpose", "mean", "meshgrid", "moveaxis", "ones", "ones_like", "repeat", "roll", "sliced", "squeeze", "stack", "std",
        "tensordot", "tile", "unstack", "var", "vecdot", "zeros", "zeros_like",
    }  # fmt: skip
    facts = {
        "can_cast", "finfo", "iinfo", "isdtype", "result_type", "e", "pi", "inf", "nan", "newaxis", "bool", "int8", "int16",
        "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bfloat16", "float16", "complex64",
        "complex128", "linalg", "fft",
    }  # fmt: skip
    assert traced - operations - of_integers_and_booleans - traced_as_others - facts == set()


def test_every_rule_is_tested() -> None:
    tested = {case.operation or name for name, case in CASES.items()}
    elsewhere = {"imag", "rounded_matmul"}  # test_complex.py, tests/training/test_precision.py
    elsewhere |= {name for name in RULES if "." in name} | set(PACKED)  # test_linalg.py
    assert set(RULES) - tested == elsewhere - {"slogdet_sign"}


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "sign", "imag"])
def test_steps_have_gradient_zero(name: str) -> None:
    gradient = pnn.grad(lambda x: pnn.xp.sum(getattr(pnn.xp, name)(x) * 3.0))(np.asarray([0.3, -1.7]))
    assert gradient.tolist() == [0.0, 0.0]


def test_a_tie_of_maximum_and_minimum_goes_to_the_second_argument() -> None:
    x, y = np.asarray([1.0]), np.asarray([1.0])
    for function in ("maximum", "minimum"):
        first, second = pnn.grad(lambda a, b: pnn.xp.sum(getattr(pnn.xp, function)(a, b)), argnums=(0, 1))(x, y)  # noqa: B023
        assert (first.tolist(), second.tolist()) == ([0.0], [1.0])


def test_ties_of_a_maximum_over_an_axis_share_the_gradient() -> None:
    gradient = pnn.grad(lambda x: pnn.xp.max(x))(np.asarray([2.0, 1.0, 2.0]))
    assert gradient.tolist() == [0.5, 0.0, 0.5]


def test_power_at_zero_has_finite_gradients() -> None:
    base, exponent = pnn.grad(lambda a, b: pnn.xp.sum(a**b), argnums=(0, 1))(np.zeros(1), np.asarray([2.0]))
    assert (base.tolist(), exponent.tolist()) == ([0.0], [0.0])


def test_what_does_not_depend_on_an_argument_has_gradient_zero() -> None:
    assert pnn.grad(lambda x, y: pnn.xp.sum(y))(np.ones(2), np.ones(3)).tolist() == [0.0, 0.0]


def test_third_derivative_of_a_cube_is_six() -> None:
    cube = pnn.grad(pnn.grad(pnn.grad(lambda x: x * x * x)))
    assert float(cube(np.asarray(2.0))) == pytest.approx(6.0)


def test_gradient_passes_through_an_outer_variable_of_an_inner_gradient() -> None:
    def outer(x: Any) -> Any:
        inner = pnn.grad(lambda y: y * y * x)
        return inner(x * 3.0)  # 6 x², whose derivative is 12 x

    assert float(pnn.grad(outer)(np.asarray(2.0))) == pytest.approx(24.0)


def test_an_inner_gradient_of_constants_keeps_the_outer_variable() -> None:
    def outer(x: Any) -> Any:
        return pnn.grad(lambda y: y * y * x)(np.asarray(5.0))  # 10 x

    assert float(pnn.grad(outer)(np.asarray(2.0))) == pytest.approx(10.0)


def test_a_vector_result_has_no_gradient() -> None:
    with pytest.raises(pnn.NotDifferentiableError, match=r"float64\[2\].*xp.sum or xp.mean"):
        pnn.grad(lambda x: x * 2.0)(np.ones(2))


def test_integers_have_no_gradient() -> None:
    with pytest.raises(pnn.NotDifferentiableError, match="argument 0 .* int64.*xp.astype"):
        pnn.grad(lambda x: pnn.xp.sum(pnn.xp.astype(x, pnn.xp.float64)))(np.arange(3))


def test_the_sign_of_a_complex_array_has_no_derivative() -> None:
    with pytest.raises(pnn.NotDifferentiableError, match=r"sign of a complex array.*x / xp.abs"):
        pnn.grad(lambda x: pnn.xp.sum(pnn.xp.real(pnn.xp.sign(x * 1j))))(np.ones(3))


def test_a_gradient_passes_through_positive_but_not_through_stop_gradient() -> None:
    x = np.asarray(3.0)
    assert float(pnn.grad(lambda x: pnn.xp.positive(x) * x)(x)) == 6.0
    assert float(pnn.grad(lambda x: pnn.stop_gradient(x) * x)(x)) == 3.0


def test_stop_gradient_holds_for_complex_arrays() -> None:
    def function(x: Any) -> Any:
        xp = pnn.array_namespace(x)
        return x * xp.real(pnn.stop_gradient(xp.astype(x, xp.complex128) * (2.0 + 1j)))

    assert float(pnn.grad(function)(np.asarray(3.0))) == 6.0


def test_gradients_of_an_unused_branch_are_left_out_of_the_program() -> None:
    program = pnn.trace(
        lambda x, w: pnn.xp.sum(x @ w), pnn.ArrayType((2, 3), "float64"), pnn.ArrayType((3, 1), "float64")
    )
    from portablenn.program.simplify import simplify

    products = [o for o in simplify(value_and_gradients(program, (1,))).operations if o.name == "matmul"]
    assert len(products) == 2  # the product itself and the gradient of w; none for x


@pytest.mark.parametrize(
    "function", [lambda x: x * np.ones(2), lambda x: x / np.sqrt(2), lambda x: pnn.xp.where(x > 0, x, np.ones(2))]
)
def test_a_gradient_has_the_dtype_of_its_argument(function: Callable[[Any], Any]) -> None:
    gradient = pnn.grad(lambda x: pnn.xp.sum(function(x)))(np.ones(2, dtype=np.float32))
    assert gradient.dtype == np.float32


def test_stop_gradient_holds_in_a_compiled_inner_function() -> None:
    def outer(w: Any) -> Any:
        return pnn.xp.sum(pnn.compile(lambda y: pnn.stop_gradient(w * y))(np.ones(3)))

    assert float(pnn.grad(outer)(np.asarray(2.0))) == 0.0


def test_an_infinite_slope_stays_on_its_own_element() -> None:
    rows = np.asarray([[0.0, 1.0], [3.0, 2.0]])
    with np.errstate(divide="ignore"):
        gradient = pnn.grad(
            lambda a: pnn.xp.sum(pnn.xp.log(pnn.xp.take_along_axis(a, np.asarray([[0], [1]]), axis=1)))
        )(rows)
    assert gradient.tolist() == [[np.inf, 0.0], [0.0, 0.5]]


def test_an_infinite_slope_of_a_taken_row_stays_in_its_row(library: Any) -> None:
    def function(a: Any) -> Any:
        xp = pnn.array_namespace(a)
        return xp.sum(xp.log(xp.take(a, xp.asarray([2, 0, 2, -1], device=a.device), axis=0)))

    with np.errstate(divide="ignore"):
        gradient = pnn.grad(function)(library.array([[1.0], [5.0], [0.0], [2.0]]))
    assert library.numpy(gradient).tolist() == [[1.0], [0.0], [np.inf], [0.5]]


def test_the_gradient_of_taken_rows_is_the_same_bits_each_time(library: Any) -> None:
    rng = np.random.default_rng(0)
    slopes = rng.standard_normal((5000, 16)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (5000, 1))
    rows = library.array(rng.integers(-5, 5, 5000, dtype=np.int32))
    table, slopes = library.array(np.ones((5, 16)), "float32"), library.array(slopes, "float32")
    gradient = pnn.grad(lambda a, i, s: pnn.array_namespace(a).sum(pnn.array_namespace(a).take(a, i, axis=0) * s))
    first = library.numpy(gradient(table, rows, slopes))
    expected = np.zeros((5, 16))
    np.add.at(expected, library.numpy(rows), library.numpy(slopes).astype(np.float64))
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1.0)
    for _ in range(3):
        np.testing.assert_array_equal(library.numpy(gradient(table, rows, slopes)), first)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_gradient_of_an_embedding_takes_at_most_three_times_its_tables_memory(name: str) -> None:
    if name == "numba":
        pytest.importorskip("portablenn_numba")
    backend = pnn.get_backend(name)
    table, rows = np.ones((100_000, 64), dtype=np.float32), np.arange(0, 1024, dtype=np.int32) * 7

    def loss(table: Any, rows: Any) -> Any:
        xp = pnn.array_namespace(table)
        return xp.sum(xp.square(xp.take(table, rows, axis=0)))

    with pnn.use_backend(backend):
        pnn.grad(loss)(table[:8], rows[:1])  # imports take memory, too
        tracemalloc.start()
        try:
            gradient = pnn.grad(loss)(table, rows)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert float(gradient.sum()) == 2.0 * 1024 * 64
    assert peak < 3 * table.nbytes


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda xp, x, i: xp.index_add(x, xp.reshape(i, (1, 2)), x, axis=0), "1-D integer array, got int32"),
        (lambda xp, x, i: xp.index_add(x, x[:, 0], x, axis=0), "1-D integer array, got float64"),
        (lambda xp, x, i: xp.index_add(x, i, x, axis=1), r"expected updates of shape \(2, 2\), got \(2, 3\)"),
        (lambda xp, x, i: xp.index_add(x > 0, i, x > 0, axis=0), "numeric dtypes, got bool"),
        (lambda xp, x, i: xp.index_add(x, i, x, axis=2), "axis 2 is out of range"),
    ],
)
def test_a_wrong_index_add_says_what_is_wrong(call: Callable[..., Any], says: str) -> None:
    with raises((TypeError, ValueError), says):
        pnn.compile(lambda x, i: call(pnn.array_namespace(x), x, i))(np.ones((2, 3)), np.asarray([0, 1], np.int32))


def test_indices_of_a_small_dtype_reach_the_rows_of_a_long_table(library: Any) -> None:
    def function(a: Any, i: Any) -> Any:
        xp = pnn.array_namespace(a, i)
        return xp.sum(xp.take(a, i, axis=0) ** 2)

    gradient = pnn.grad(function)(library.array(np.ones(300)), library.array([250, 3, 250], "uint8"))
    assert np.flatnonzero(library.numpy(gradient)).tolist() == [3, 250]
    assert float(library.numpy(gradient)[250]) == 4.0


def test_an_index_add_of_two_dtypes_has_their_common_one() -> None:
    def function(x: Any, u: Any) -> Any:
        return pnn.array_namespace(x).index_add(x, pnn.xp.asarray([1]), u, axis=0)

    result = pnn.compile(function)(np.ones(2, dtype=np.float32), np.asarray([1e-9]))
    assert (result.dtype, result.tolist()) == (np.float64, [1.0, 1.0 + 1e-9])


def test_index_add_of_nothing_changes_nothing() -> None:
    nothing, none = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    namespace = pnn.get_backend("array_api_strict").xp if importlib.util.find_spec("array_api_strict") else np
    for xp in (namespace, pnn.get_backend("numpy").xp):
        for x in (none, np.ones((2, 3))):
            result = index_add(xp, xp.asarray(x), xp.asarray(nothing), xp.asarray(none), axis=0)
            assert np.asarray(result).tolist() == x.tolist()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_adding_at_an_index_out_of_range_is_an_error(name: str) -> None:
    if name == "numba":
        pytest.importorskip("portablenn_numba")
    with pnn.use_backend(name), pytest.raises(IndexError):
        pnn.compile(lambda x, i: pnn.array_namespace(x).index_add(x, i, x, axis=0))(np.ones((2, 3)), np.asarray([0, 2]))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda a: pnn.xp.prod(a), (0,)),
        (lambda a: pnn.xp.sum(pnn.xp.prod(a, axis=1)), (2, 0)),
        (lambda a: pnn.xp.sum(a[-10::-3]), (1,)),
        (lambda a: pnn.xp.sum(pnn.xp.cumulative_sum(a)), (0,)),
        (lambda a: pnn.xp.sum(pnn.xp.concat([a, a])), (0,)),
    ],
)
def test_gradients_by_empty_arrays_have_the_shape_of_their_argument(function: Callable[[Any], Any], shape: Any) -> None:
    gradient = pnn.grad(function)(np.ones(shape))
    assert gradient.shape == shape
    assert (gradient == 0).all()


def test_a_line_between_arrays_has_gradients() -> None:
    assert float(pnn.grad(lambda a: pnn.xp.sum(pnn.xp.linspace(0.0, a, 3)))(np.asarray(2.0))) == pytest.approx(1.5)
