"""Code written with ``import numpy as np`` is traced as it stands: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4))
B = RNG.normal(size=(4, 2))
V = RNG.normal(size=4)
EXPRESSIONS = """
np.sum(a), np.sum(a, 1), np.sum(a, axis=(0, 1)), np.sum(a, axis=0, keepdims=True), np.sum(a > 0)
np.prod(a, 1), np.mean(a, 0), np.max(a, axis=1), np.min(a), np.amax(a, 0), np.ptp(a, axis=1), np.all(a > -9), np.any(a > 9)
np.std(a, axis=1, ddof=1), np.var(a, 0), np.var(a, ddof=1), np.average(a, axis=1, weights=v), np.average(a, 0)
np.argmax(a, 1), np.argmin(a), np.count_nonzero(a > 0, 1)
np.cumsum(a), np.cumsum(a, 1), np.cumprod(a, axis=0), np.add.reduce(a), np.multiply.reduce(a, 1), np.add.accumulate(a, 1)
np.dot(a, b), np.dot(v, v), np.dot(a, v), np.dot(3.0, a), np.inner(a, a), np.outer(v, v), np.vdot(a, a), np.kron(b, v), a @ b
np.tensordot(a, b, 1), np.tensordot(a, b, axes=([1], [0])), np.tensordot(a, v, (1, 0)), np.trace(a), np.trace(a, 1), np.diagonal(a, -1), np.diag(v)
np.diag(v, 1), np.diag(v, -2), np.diag(a), np.diag(a, 9), np.tril(a), np.triu(a, 1), np.linalg.norm(a), np.linalg.norm(a, axis=1)
np.linalg.norm(v, 1), np.linalg.norm(v, np.inf), np.linalg.norm(a, axis=0, keepdims=True), np.matmul(a, b)
np.einsum("ij,jk->ik", a, b), np.einsum("ij->ji", a), np.einsum("ij->", a), np.einsum("ii->i", a[:, :3]), np.einsum("ii", a[:, :3])
np.einsum("i,i", v, v), np.einsum("i,j", v, v), np.einsum("ij,ij->i", a, a), np.einsum("ij,jk,j->k", a, b, v), np.einsum("ij,kj->ikj", a, a)
np.einsum("ijk,k->ji", np.reshape(a, (3, 2, 2)), v[:2]), np.einsum("ij,jk", a, b), np.einsum("i,ij,jk->", v[:3], a, b), np.einsum("ij,kl->", a, b)
np.reshape(a, (2, -1)), np.reshape(a, -1), np.reshape(a, (2, 6), order="F"), np.ravel(a), np.transpose(a), np.swapaxes(a, 0, 1)
np.moveaxis(a, source=0, destination=1), np.expand_dims(a, 1), np.squeeze(a[:, :1]), np.squeeze(a[:1], 0), np.broadcast_to(v, (2, 4))
np.atleast_2d(v), np.atleast_1d(a), np.flip(a), np.flip(a, 1), np.fliplr(a), np.flipud(a), np.rot90(a), np.rot90(a, 2), np.rot90(a, 3)
np.roll(a, 1), np.roll(a, 2, 1), np.tile(v, 2), np.tile(a, (2, 1)), np.repeat(a, 2), np.repeat(a, 2, axis=1), np.rot90(a, 4)
np.concatenate([a, a]), np.concatenate((a, b.T), 0), np.stack([v, v]), np.stack([v, v], 1), np.vstack([v, a]), np.hstack([a, a])
np.hstack([v, v]), np.column_stack([v, b]), np.dstack([a, a]), np.dstack([v, v]), np.dstack([np.reshape(a, (3, 2, 2)), np.ones((3, 2, 1))]), np.split(a, 2, 1)[1], np.array_split(a, 2)[0], np.hsplit(a, 2)[0]
np.split(a, [1, 3], axis=1)[1], np.vsplit(b, 2)[1], np.pad(a, 1), np.pad(v, (1, 2)), np.pad(a, ((0, 1), (2, 0)), constant_values=2.0)
np.diff(a), np.diff(a, 2), np.diff(a, axis=0), np.clip(a, -0.5, 0.5), np.clip(a, None, 0.2), np.round(a * 10), np.round(a, 1)
np.nan_to_num(a), np.sinc(a), np.select([a > 1, a > 0], [a * 2, a * 3], 7.0), np.where(a > 0, a, -a), np.take(a, [0, 2])
np.take(a, [[0, 1], [2, 0]], axis=0), np.take_along_axis(a, np.argsort(A, axis=1), 1), np.sort(a), np.sort(a, 0), np.argsort(a)
np.copy(a), np.exp2(a), np.deg2rad(a), np.degrees(a), np.fabs(a), np.arctan2(a, 2.0), np.power(np.abs(a), 1.5), np.fix(a)
np.shape(a)[0] * a, np.ndim(a) * a, np.size(a, 1) * a, np.true_divide(a, 2.0), np.logaddexp(a, 0.0), np.float_power(np.abs(a), 2.5)
a.sum(), a.sum(0), a.mean(axis=1), a.std(ddof=1), a.var(), a.max(1), a.min(), a.prod(axis=0), a.cumsum(1), a.argmax()
a.reshape(2, 6), a.reshape((6, 2)), a.reshape(-1), a.transpose(), a.transpose(1, 0), a.ravel(), a.flatten(), a.T, a.dot(b), a.copy()
a.astype(np.float64), a.clip(-0.5, 0.5), a.round(1), a.squeeze(), a.swapaxes(0, 1), a.diagonal(), a.take([0, 1]), a.repeat(2)
"""


def cases() -> list[str]:
    found = []
    for line in EXPRESSIONS.strip().splitlines():
        depth, start = 0, 0
        for i, c in enumerate(line):
            depth += (c in "([") - (c in ")]")
            if c == "," and not depth:
                found.append(line[start:i].strip())
                start = i + 1
        found.append(line[start:].strip())
    return found


@pytest.mark.parametrize("expression", cases())
def test_values_and_gradients_are_numpys(expression: str) -> None:
    fun = eval(f"lambda a, b, v: {expression}", {"np": np, "A": A})
    value = fun(A, B, V)
    compiled = pnn.compile(fun)(A, B, V)
    np.testing.assert_allclose(compiled, value, rtol=1e-12)
    assert np.shape(compiled) == np.shape(value)
    if np.asarray(value).dtype != float or "arg" in expression or "round" in expression or "fix" in expression:
        return
    weights = np.asarray(np.random.default_rng(1).normal(size=np.shape(value)))

    def weighted(a: Any, b: Any, v: Any) -> Any:
        return np.sum(fun(a, b, v) * weights)

    gradients, step = pnn.grad(weighted, argnums=(0, 1, 2))(A, B, V), 1e-6
    for n, gradient in enumerate(gradients):
        slopes = np.zeros_like((A, B, V)[n])
        for place in np.ndindex(slopes.shape):
            sides = []
            for sign in (1.0, -1.0):
                moved = [x.copy() for x in (A, B, V)]
                moved[n][place] += sign * step
                sides.append(weighted(*moved))
            slopes[place] = (sides[0] - sides[1]) / (2.0 * step)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: np.sum(x, where=np.ones(3, bool)), "where= cannot be traced"),
        (lambda x: np.exp(x, out=np.zeros(3)), "out= cannot be traced"),
        (lambda x: np.median(x), "np.median cannot be traced"),
        (lambda x: np.einsum(x, [0], [0]), "takes a string of letters"),
        (lambda x: np.allclose(x, x), r"Use xp.all\(xp.abs"),
        (lambda x: np.pad(x, 1, mode="edge"), "np.pad with mode='edge' and 0 cannot be traced"),
        (lambda x: np.pad(x, {0: (1, 2)}), "np.pad with widths"),
        (lambda x: np.pad(x, 1, constant_values=(1, 2)), "cannot be traced"),
        (lambda x: np.diff(x, 1, -1, np.zeros(1)), "4 arguments of NumPy's diff cannot be traced"),
        (lambda x: np.average(np.stack([x, x]), axis=(0, 1), weights=np.ones(3)), "np.average with weights along axis"),
        (lambda x: np.linalg.lstsq(x, x), "np.linalg.lstsq cannot be traced"),
        (lambda x: np.add.outer(x, x), "np.add.outer cannot be traced"),
        (lambda x: np.sum(x, axis=0, initial=3.0), "np.sum with these arguments cannot be traced: .*'initial'"),
        (lambda x: np.add(x, x, dtype=np.float32), "np.add with these arguments cannot be traced: .*'dtype'"),
    ],
)
def test_what_cannot_be_traced_says_so(function: Any, says: str) -> None:
    with raises(pnn.NotTraceableError, says):
        pnn.compile(function)(np.ones(3))


def test_a_tracer_written_into_an_array_says_what_to_do() -> None:
    def filled(x: Any) -> Any:
        result = np.zeros(3)
        for i in range(3):
            result[i] = x[i] * 2.0
        return np.sum(result)

    with pytest.raises(pnn.TracerValueError, match=r"xp\.stack"):
        pnn.grad(filled)(np.ones(3))


def test_a_dtype_equals_numpys() -> None:
    def doubled(x: Any) -> Any:
        assert (x.dtype != np.float32, x.dtype == np.dtype("float64"), x.dtype == None) == (True, True, False)  # noqa: E711
        return x * 2.0 if x.dtype == np.float64 else x * 3.0

    assert pnn.compile(doubled)(np.ones(1)).tolist() == [2.0]


def test_booleans_and_integers_are_converted_where_no_library_differs(library: Any) -> None:
    x, n = library.array([0.5, 2.0, -3.0]), library.array([1, 2, 3])
    for function in (
        lambda x, n: x * (x > 0.0), lambda x, n: (x > 0.0) + n, lambda x, n: n * x, lambda x, n: x / n,
        lambda x, n: pnn.xp.where(x > 0.0, x, n), lambda x, n: n @ x, lambda x, n: (x > 0.0) @ x, lambda x, n: n > x,
    ):  # fmt: skip
        found = library.numpy(pnn.compile(function)(x, n))
        with pnn.use_backend("numpy"):  # pnn.xp is that of the default backend where nothing is traced
            meant = function(library.numpy(x), library.numpy(n))
        np.testing.assert_allclose(found, meant, rtol=1e-15)
        assert found.dtype == meant.dtype
    np.testing.assert_array_equal(library.numpy(pnn.grad(lambda x: pnn.xp.sum(x * (x > 1.0) * n))(x)), [0.0, 2.0, 0.0])
    with pytest.raises(TypeError, match="int64 and float32|float32 and int64"):
        pnn.compile(lambda x, n: x * n)(library.array([1.0], "float32"), library.array([1]))


def test_infinite_elements_stay_on_the_diagonal() -> None:
    v = np.asarray([np.inf, 1.0])
    np.testing.assert_array_equal(pnn.compile(lambda v: np.diag(v))(v), np.diag(v))


def test_dtypes_are_numpys() -> None:
    x, i = np.ones(3, np.float32), np.arange(3)
    for function in (
        lambda x: np.mean(x, dtype=np.float64), lambda x: np.std(x, dtype=np.float64), lambda x: np.float_power(x, 2.0),
        lambda x: np.fabs(x), lambda x: np.rint(x), lambda x: np.sum(x, dtype=np.float64), lambda x: np.mean(x),
    ):  # fmt: skip
        for values in (x, i):
            assert pnn.compile(function)(values).dtype == function(values).dtype


def test_numpys_integers_are_sizes() -> None:
    n = np.int64(2)
    for function in (
        lambda x: np.reshape(x, (n, n)),
        lambda x: np.tile(x, n),
        lambda x: np.split(x, n)[0],
        lambda x: np.roll(x, n),
    ):
        np.testing.assert_array_equal(pnn.compile(function)(np.arange(4.0)), function(np.arange(4.0)))


C = np.random.default_rng(3).standard_normal((4, 3))
SMOOTH: dict[str, Any] = {
    "append": lambda x: np.append(x, x[:1] ** 2, axis=0), "rollaxis": lambda x: np.rollaxis(x, 1) * np.rollaxis(x, -1, 0),
    "atleast_3d": lambda x: np.atleast_3d(x[0]) + np.atleast_3d(x)[0:1], "gradient": lambda x: np.gradient(x, axis=0) + np.gradient(x, 0.5)[1],
    "cross": lambda x: np.cross(x, x[::-1] ** 2), "fmax": lambda x: np.fmax(x, 0.1) + np.fmin(x, np.array([np.nan, 0.2, 0.3])),
    "dsplit": lambda x: np.dsplit(np.reshape(x, (2, 2, 3)), 3)[1] ** 2, "logaddexp2": lambda x: np.logaddexp2(x, x**2),
    "vstack": lambda x: np.vstack([x, x[0] ** 2], dtype=np.float64), "partition": lambda x: np.sum(np.partition(x, 1, axis=0), axis=0) * x,
    "var of complex": lambda x: np.var(x * (1 + 2j), axis=0) + np.std(x + 1j * x**2), "eigh of a triangle": lambda x: np.linalg.eigvalsh(x[:3]),
    "eigh of the other": lambda x: np.linalg.eigh(x[:3], "U")[0], "integers and floats": lambda x: np.sum(x > 0) * 0.5 * x + np.array([1, 2, 3]) * x,
    "tuples as indices": lambda x: x[(0, 1, 0), (2, 2, 1)] ** 2, "concatenate": lambda x: np.concatenate([x, np.ones((1, 3), dtype=int)]) ** 3,
    "a cholesky factor": lambda x: np.linalg.cholesky(x[:3] @ x[:3].T + np.eye(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_values_are_numpys_and_gradients_the_limit_of_differences(name: str) -> None:
    function = SMOOTH[name]
    right = function(C)
    weights = np.cos(np.arange(right.size)).reshape(right.shape)
    value, pullback = pnn.vjp(function, C)
    np.testing.assert_allclose(value, right, rtol=1e-12, atol=1e-12)
    d = np.random.default_rng(4).standard_normal(C.shape)
    slope = np.sum(weights * (function(C + 1e-6 * d) - function(C - 1e-6 * d))) / 2e-6
    np.testing.assert_allclose(np.sum(pullback(weights)[0] * d), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_longdouble_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="longdouble.*float64"):
        pnn.grad(lambda x: np.real(np.sum(x**2)))(np.ones(3, dtype=dtype))
