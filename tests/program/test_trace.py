"""What tracing keeps, what it refuses, and what its errors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from messages import raises

import portablenn as pnn
from portablenn.program.interpret import interpret
from portablenn.program.simplify import simplify

X = np.asarray([[0.5, -1.25, 2.0], [3.5, 0.25, -0.75]])
N = np.asarray([[5, -3, 2], [1, 0, 7]], dtype=np.int32)
B = np.asarray([[True, False, True], [False, False, True]])

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "creation": (lambda xp, x: [xp.zeros((2, 3)), xp.ones(3, dtype=xp.int32), xp.where(x[0, :2] > 1e300, xp.empty(2), x[0, :2]), xp.full((2,), 7)], (X,)),
    "creation-like": (lambda xp, x: [xp.zeros_like(x), xp.ones_like(x), xp.full_like(x, 2.5), xp.where(x > 1e300, xp.empty_like(x), x)], (X,)),
    "ranges": (lambda xp, x: [xp.arange(5), xp.arange(1, 8, 2), xp.arange(5, 0, -2), xp.arange(0.0, 1.0, 0.25), xp.linspace(0, 1, 5)], (X,)),
    "ranges-open": (lambda xp, x: [xp.linspace(0.0, 1.0, 4, endpoint=False), xp.arange(3, dtype=xp.float32)], (X,)),
    "ranges-of-arrays": (lambda xp, x: [xp.linspace(x[0, 0], x[1, 0], 5), xp.linspace(x[0, 0], 2.0, 3, endpoint=False), xp.linspace(x[0, 0], x[1, 0], 3, dtype=xp.float32)], (X,)),
    "matrices": (lambda xp, x: [xp.eye(3), xp.eye(2, 3, k=1), xp.tril(x), xp.triu(x, k=1)], (X,)),
    "literals": (lambda xp, x: [xp.asarray([1.0, 2.0]), xp.asarray([[1, 2], [3, 4]]), xp.asarray(3), xp.asarray(x), xp.asarray(True), xp.asarray(np.float32(0.5))], (X,)),
    "literals-of-tracers": (lambda xp, x: [xp.asarray([x[0, 0], x[1, 1]]), xp.asarray(x, dtype=xp.float32)], (X,)),
    "meshgrid": (lambda xp, x: [*xp.meshgrid(x[0, :], x[1, :]), *xp.meshgrid(x[0, :], x[1, :2], indexing="ij")], (X,)),
    "integers": (lambda xp, n: [n + 1, n // 2, n % 3, -n, abs(n), n**2, n & 3, n | 8, n ^ 5, ~n, n << 2, n >> 1], (N,)),
    "integers-reversed": (lambda xp, n: [1 + n, 7 - n, 3 * n, 9 & n, 9 | n, 9 ^ n], (N,)),
    "comparisons": (lambda xp, x: [x > 0, x >= 0.5, x < 0.5, x <= 0.5, x == 0.5, x != 0.5, x > 0.5], (X,)),
    "logic": (lambda xp, b: [xp.logical_and(b, ~b), xp.logical_or(b, b), xp.logical_xor(b, b), xp.logical_not(b), b & b], (B,)),
    "tests": (lambda xp, b, x: [xp.any(b), xp.all(b, axis=1), xp.any(x, axis=0, keepdims=True), xp.all(x)], (B, X)),
    "counting": (lambda xp, x: [xp.count_nonzero(x), xp.count_nonzero(x > 0, axis=0)], (X,)),
    "finite": (lambda xp, x: [xp.isfinite(x), xp.isnan(x), xp.isinf(x / 0.0), xp.signbit(x)], (X,)),
    "rounding": (lambda xp, x: [xp.floor(x), xp.ceil(x), xp.trunc(x), xp.round(x), xp.sign(x)], (X,)),
    "rounding-integers": (lambda xp, n: [xp.floor(n), xp.ceil(n), xp.trunc(n), xp.round(n), xp.sign(n)], (N,)),
    "sums": (lambda xp, x, n: [xp.sum(x), xp.sum(n), xp.sum(n, axis=0), xp.sum(x, dtype=xp.float32), xp.prod(n), xp.prod(x, axis=0)], (X, N)),
    "statistics": (lambda xp, x: [xp.mean(x), xp.var(x, axis=0), xp.std(x, axis=1, correction=1), xp.max(x), xp.min(x, axis=1)], (X,)),
    "statistics-with-axes-kept": (lambda xp, x: [xp.mean(x, axis=1, keepdims=True), xp.var(x, axis=0, correction=1, keepdims=True), xp.std(x, axis=1, keepdims=True)], (X,)),
    "cumulative": (lambda xp, x, n: [xp.cumulative_sum(x, axis=0), xp.cumulative_prod(n, axis=1), xp.cumulative_sum(n[0, :], include_initial=True)], (X, N)),
    "searching": (lambda xp, x: [xp.argmax(x), xp.argmin(x, axis=1), xp.argmax(x, axis=0, keepdims=True)], (X,)),
    "sorting": (lambda xp, x: [xp.sort(x), xp.argsort(x, axis=0), xp.sort(x, descending=True), xp.argsort(x, descending=True)], (X,)),
    "searchsorted": (lambda xp, x: [xp.searchsorted(xp.sort(x[0, :]), x[1, :]), xp.searchsorted(xp.sort(x[0, :]), x[1, :], side="right"), xp.searchsorted(x[0, :], x[1, :], sorter=xp.argsort(x[0, :]))], (X,)),
    "indexing": (lambda xp, x: [x[0, :], x[-1, 1], x[:, ::2], x[..., None], x[None, :, 1:], x[:, ::-1], x[xp.asarray([1, 0, 1]), ...]], (X,)),
    "indexing-empty": (lambda xp, x: [x[2:, :], x[:, 1:1]], (X,)),
    "taking": (lambda xp, x, n: [xp.take(x, xp.asarray([2, 0]), axis=1), xp.take_along_axis(x, xp.argsort(x, axis=1), axis=1)], (X, N)),
    "indexing-by-value": (lambda xp, x, n: [xp.take(x, xp.reshape(n[1, :2], (-1,)), axis=0), x[np.int64(1), None, ..., np.int32(-1)], x[1:0:-1, :], x[5:, ::-2], x[-1:-5:-1, 1:]], (X, N)),
    "small-integers": (lambda xp, n: [xp.take(xp.arange(300), xp.astype(n[:, 2], xp.int8), axis=0), xp.sum(xp.astype(n, xp.int8)), xp.sum(xp.astype(n * n, xp.uint8), axis=0), xp.sum(n, dtype=xp.int32), xp.cumulative_sum(xp.astype(n, xp.int16), axis=1)], (N,)),
    "iteration": (lambda xp, x: [row * 2.0 for row in x] + [xp.asarray(float(len(x)))], (X,)),
    "manipulation": (lambda xp, x: [xp.flip(x), xp.flip(x, axis=0), xp.roll(x, 1), xp.roll(x, (1, -1), axis=(0, 1)), xp.repeat(x, 2), xp.repeat(x, 3, axis=1), xp.tile(x, (2, 1)), xp.tile(x, (2, 1, 1))], (X,)),
    "shapes": (lambda xp, x: [xp.reshape(x, (-1,)), x.T, x.mT, xp.moveaxis(x, 0, 1), xp.expand_dims(x, axis=0), xp.squeeze(x[:1, :], axis=0), xp.matrix_transpose(x)], (X,)),
    "joining": (lambda xp, x: [xp.concat([x, x], axis=1), xp.stack([x, x], axis=1), xp.concat([x, x[0, :][None, :]], axis=0), *xp.unstack(x)], (X,)),
    "broadcasting": (lambda xp, x: [*xp.broadcast_arrays(x, x[0, :]), xp.broadcast_to(x[0, :], (4, 3))], (X,)),
    "products": (lambda xp, x: [x @ x.mT, xp.vecdot(x, x), xp.tensordot(x, x, axes=((0,), (0,))), x[0, :] @ x[1, :], x @ x[0, :], xp.tensordot(x, x, axes=0)], (X,)),
    "batched-products": (lambda xp, x: [xp.stack([x, x]) @ x.mT, x @ xp.stack([x.mT, x.mT]), xp.stack([x, -x])[:, None, ...] @ xp.stack([x.mT] * 3)], (X,)),
    "dtypes": (lambda xp, x, n: [xp.astype(x, xp.float32), xp.astype(n, xp.float64) * x, xp.astype(x > 0, xp.int32), xp.astype(x, xp.float32) * x], (X, N)),
    "complex": (lambda xp, x: [xp.abs(xp.astype(x, xp.complex128) * 1j), xp.real(xp.exp(xp.astype(x, xp.complex128))), xp.imag(xp.conj(xp.astype(x, xp.complex128) + 2j))], (X,)),
    "selection": (lambda xp, x: [xp.where(x > 0, x, 0.0), xp.where(x > 0, 1.0, x), xp.clip(x, -0.5, 0.5), xp.clip(x, max=0.1), xp.maximum(x, 0.0), xp.where(x > 0, xp.asarray(1.0), xp.asarray(2.0))], (X,)),
    "differences": (lambda xp, x: [xp.diff(x), xp.diff(x, axis=0, n=1), xp.diff(x, prepend=x[:, :1], append=x[:, -1:])], (X,)),
    "rare": (lambda xp, x: [xp.nextafter(x, x + 1.0), xp.copysign(x, -x), xp.hypot(x, x), xp.logaddexp(x, x), xp.atan2(x, x), xp.remainder(x, 0.75), xp.floor_divide(x, 0.75)], (X,)),
}  # fmt: skip


def _function(name: str) -> Callable[..., Any]:
    body = FUNCTIONS[name][0]
    return lambda *arrays: body(pnn.array_namespace(*arrays), *arrays)


def _types(arrays: tuple[Any, ...]) -> list[pnn.ArrayType]:
    return [pnn.ArrayType(a.shape, a.dtype.name) for a in arrays]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_traced_function_means_what_the_function_means(name: str) -> None:
    function, arrays = _function(name), FUNCTIONS[name][1]
    program = pnn.trace(function, *_types(arrays))
    expected = function(*arrays)
    for run in (interpret(xp, program, *arrays), interpret(xp, simplify(program), *arrays)):
        for result, right, variable in zip(run, expected, program.outputs, strict=True):
            np.testing.assert_allclose(result, right, rtol=1e-15, atol=1e-15)
            assert result.shape == variable.type.shape
            assert result.dtype == right.dtype == variable.type.dtype
    for result, right in zip(pnn.compile(function)(*arrays), expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-14, atol=1e-15)
        assert result.dtype == right.dtype


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("complex", "finite")])
def test_a_traced_function_runs_on_every_library(name: str, other_library: Any) -> None:
    function, arrays = _function(name), FUNCTIONS[name][1]
    expected = function(*arrays)
    results = pnn.compile(function)(*map(other_library.array, arrays))
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(other_library.numpy(result), right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("asks", "what"),
    [
        (lambda x: x if x > 0 else -x, "bool()"),
        (lambda x: float(x) * x, "float()"),
        (lambda x: x * int(x), "int()"),
        (lambda x: complex(x), "complex()"),
        (lambda x: [1, 2, 3][x], "an index"),
        (lambda x: np.asarray(x), "np.asarray()"),
        (lambda x: x.item(), ".item()"),
        (lambda x: x.tolist(), ".tolist()"),
        (lambda x: np.from_dlpack(x), "from_dlpack"),
        (lambda x: (x > 0) and x, "bool()"),
    ],
)
def test_asking_for_a_value_names_the_line_and_where(asks: Callable[[Any], Any], what: str) -> None:
    with pytest.raises(pnn.TracerValueError) as caught:
        pnn.compile(asks)(np.asarray(1.0))
    message = str(caught.value)
    assert what in message
    assert "test_trace.py" in message
    assert "xp.where(condition, a, b)" in message


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: pnn.xp.nonzero(x), "nonzero cannot be traced"),
        (lambda x: pnn.xp.unique_values(x), "unique_values cannot be traced"),
        (lambda x: pnn.xp.unique_all(x), "shape depends on values"),
        (lambda x: pnn.xp.isin(x, x), "isin cannot be traced"),
        (lambda x: pnn.xp.where(x > 0), "where.condition, a, b"),
        (lambda x: x[x > 0], r"x\[mask\].*xp.where"),
        (lambda x: pnn.xp.repeat(x, pnn.xp.asarray([1, 2])), "array of counts"),
        (lambda x: np.linalg.lstsq(x, x), "np.linalg.lstsq cannot be traced"),
        (lambda x: np.add.at(x, 0, 1.0), "np.add.at cannot be traced"),
    ],
)
def test_the_error_for_an_untraceable_function_names_it(function: Callable[[Any], Any], says: str) -> None:
    with raises(pnn.NotTraceableError, says):
        pnn.compile(function)(np.ones((2, 2)))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x, n: pnn.xp.astype(x, pnn.xp.float32) + n, "float32 and int32.*xp.astype"),
        (lambda x, n: pnn.xp.exp(n), "exp is for floating dtypes, got int32"),
        (lambda x, n: x & n, "bitwise_and is for integral or bool dtypes, got float64"),
        (lambda x, n: x @ x, "3 columns and .* 2 rows"),
        (lambda x, n: x[0, 0] @ x, "one dimension or more.*x . y"),
        (lambda x, n: x @ x[0, 0], "one dimension or more.*x . y"),
        (lambda x, n: x + pnn.xp.ones(2), r"\(2, 3\) and \(2,\) do not broadcast"),
        (lambda x, n: pnn.xp.reshape(x, (4,)), r"cannot reshape \(2, 3\) to \(4,\)"),
        (lambda x, n: pnn.xp.sum(x, axis=2), "axis 2 is out of range"),
        (lambda x, n: x[5, 0], "index 5 is out of range for axis 0 of length 2"),
        (lambda x, n: pnn.xp.concat([x, x[:, :2]], axis=0), "concat"),
        (lambda x, n: pnn.xp.sum(x > 0), "count_nonzero"),
        (lambda x, n: pnn.xp.max(x[2:, :], axis=0), "max of an empty axis"),
        (lambda x, n: x + "text", "expected an array|unsupported operand"),
        (lambda x, n: x[..., ...], r"more than one '\.\.\.'"),
        (lambda x, n: x[0, 0, 0], "3 indices for 2 dimensions"),
        (lambda x, n: x[-3, 0], "index -3 is out of range for axis 0 of length 2"),
        (lambda x, n: x[True], "an index is an integer, a slice, None or an integer array, got True"),
        (lambda x, n: x["a"], "an index is an integer.*got 'a'"),
        (lambda x, n: x[x], "1-D integer array, got float64"),
        (lambda x, n: pnn.xp.astype(n, pnn.xp.uint64) + pnn.xp.astype(n, pnn.xp.int64), "uint64 and int64"),
        (lambda x, n: n & True, "int32 and the Python bool True"),
        (lambda x, n: (x > 0) & 1, "bool and the Python int 1"),
        (lambda x, n: n * 1j, "int32 and the Python complex"),
        (lambda x, n: pnn.xp.expand_dims(x, axis=(0, 0)), r"repeated axis in \(0, 0\)"),
        (lambda x, n: pnn.xp.squeeze(x, axis=0), "longer than 1"),
        (lambda x, n: pnn.xp.permute_dims(x, (0, 0)), "not a permutation of 2 axes"),
        (lambda x, n: pnn.xp.take(x, n[0, :]), "take.. needs axis= for 2 dimensions"),
        (lambda x, n: pnn.xp.take(x, n, axis=0), r"take.. expects a 1-D integer array, got int32\[2, 3\]"),
        (lambda x, n: pnn.xp.take_along_axis(x, n[0, :], axis=0), "take_along_axis.. expects a 2-D integer array"),
        (lambda x, n: pnn.xp.broadcast_to(x, (3,)), r"cannot broadcast \(2, 3\) to \(3,\)|do not broadcast"),
        (lambda x, n: pnn.xp.broadcast_to(x, (1, 3)), r"cannot broadcast \(2, 3\) to \(1, 3\)"),
        (lambda x, n: pnn.xp.vecdot(x, x[:, :2]), "differ along axis -1"),
        (lambda x, n: pnn.xp.tensordot(x, x, axes=1), "tensordot.*differ"),
        (lambda x, n: pnn.xp.cumulative_sum(x), "cumulative_sum needs axis= for 2 dimensions"),
        (lambda x, n: pnn.xp.mean(n), "mean is for floating dtypes, got int32"),
        (lambda x, n: pnn.xp.concat([]), "at least one array"),
        (lambda x, n: pnn.xp.roll(x, (1, 2, 3), axis=(0, 1)), "longer"),
        (lambda x, n: pnn.xp.exp(x, x), "takes 1 argument, got 2"),
        (
            lambda x, n: pnn.xp.astype(x * pnn.xp.astype(x, pnn.xp.complex64), pnn.xp.float32),
            "drops the imaginary part",
        ),
        (lambda x, n: pnn.xp.where(x, x, x), "bool condition"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(function: Callable[..., Any], says: str) -> None:
    with raises((TypeError, ValueError, IndexError), says):
        pnn.compile(function)(X, N)


def test_a_tracer_cannot_be_written_into() -> None:
    def writes(x: Any) -> Any:
        x[0, 0] = 1.0
        return x

    with pytest.raises(TypeError, match=r"(?s)test_trace.py.*xp.where"):
        pnn.compile(writes)(X)


def test_augmented_assignment_makes_a_new_array() -> None:
    def grows(x: Any) -> Any:
        y = x
        y += 1.0
        return x, y

    program = pnn.trace(grows, pnn.ArrayType((2,), "float64"))
    before, after = interpret(xp, program, np.zeros(2))
    assert (before.tolist(), after.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_numpy_functions_are_traced_as_those_of_the_standard() -> None:
    def function(x: Any) -> Any:
        return np.sum(np.maximum(np.exp(x) * np.ones(3), np.arctan(x))) + np.concatenate([x, x], axis=0)[0, 0]

    expected = function(X)
    np.testing.assert_allclose(pnn.compile(function)(X), expected)


def test_a_numpy_array_as_the_left_operand_is_traced() -> None:
    result = pnn.grad(lambda x: pnn.xp.sum(np.asarray([2.0, 3.0]) * x))(np.ones(2))
    assert result.tolist() == [2.0, 3.0]


def test_the_namespace_has_the_dtype_functions_of_the_standard() -> None:
    seen: list[Any] = []

    def asks(x: Any) -> Any:
        namespace = pnn.array_namespace(x)
        seen.extend(
            [
                namespace.isdtype(x.dtype, "real floating"),
                namespace.isdtype(x.dtype, ("integral", "bool")),
                x.dtype == namespace.float64,
                float(namespace.finfo(x.dtype).eps),
                int(namespace.iinfo(namespace.int32).max),
                str(namespace.result_type(x, namespace.float32)),
                str(namespace.result_type(np.dtype("float32"), namespace.float32)),
                namespace.can_cast(namespace.float32, namespace.float64),
            ]
        )
        return x

    pnn.trace(asks, pnn.ArrayType((2,), "float64"))
    assert seen == [True, False, True, float(np.finfo(np.float64).eps), 2**31 - 1, "float64", "float32", True]


def test_a_printed_program_has_a_line_per_operation() -> None:
    program = pnn.trace(lambda x: pnn.xp.sum(x[1:] * 2.0, axis=0), pnn.ArrayType((3,), "float32"), name="f")
    assert str(program).splitlines() == [
        "f(a: float32[3]):",
        "    b: float32[2] = getitem(a, (1:3,))",
        "    c: float32[2] = multiply(b, 2.0)",
        "    d: float32[] = sum(c, axis=(0,), keepdims=False)",
        "    return d",
    ]


def test_a_product_knows_how_many_numbers_it_multiplies() -> None:
    types = pnn.ArrayType((5, 2, 3), "float32"), pnn.ArrayType((3, 4), "float32")
    (product,) = pnn.trace(lambda a, b: a @ b, *types).operations
    assert product.multiplications == 5 * 2 * 3 * 4


def test_a_graph_of_a_program_has_a_box_per_operation() -> None:
    constant = np.ones(3, dtype=np.float32)
    dot = pnn.trace(lambda x: pnn.xp.tanh(x + constant), pnn.ArrayType((3,), "float32")).to_dot()
    assert dot.startswith("digraph program {")
    assert dot.endswith("}")
    assert '[label="add\\nfloat32[3]"]' in dot
    assert "constant float32[3]" in dot
    assert dot.count(" -> ") == 4


def test_an_error_while_tracing_leaves_no_trace_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        pnn.compile(lambda x: 1 / 0)(X)
    assert float(pnn.xp.sum(pnn.xp.asarray([1.0, 2.0]))) == 3.0


def test_every_function_of_the_standard_is_traced_or_says_why_not() -> None:
    import array_api_strict as strict

    from portablenn.program.namespace import NOT_TRACEABLE, TracingNamespace

    newer = {"broadcast_shapes", "isin"}  # 2025.12
    beside = {
        "get_array_api_strict_flags",
        "set_array_api_strict_flags",
        "reset_array_api_strict_flags",
        "ArrayAPIStrictFlags",
    }
    names = {n for n in strict.__all__ if not n.startswith("__")} - newer - beside - {"Device", "linalg", "fft"}
    missing = {n for n in names if not hasattr(TracingNamespace, n) and n not in NOT_TRACEABLE}
    assert missing == set()
    assert len(names) > 150


def test_the_namespace_returns_its_default_dtypes() -> None:
    seen: list[Any] = []

    def asks(x: Any) -> Any:
        info = pnn.array_namespace(x).__array_namespace_info__()
        seen.extend([info.default_dtypes()["real floating"], info.default_device(), info.dtypes(kind="bool")])
        return x

    pnn.trace(asks, pnn.ArrayType((2,), "float32"), device="somewhere")
    assert seen == ["float64", "somewhere", {"bool": "bool"}]
