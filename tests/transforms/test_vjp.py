"""Gradients run a function on values: what Python does happens, nothing is stale, and nothing is compiled twice."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn


def _while(x: Any) -> Any:
    total = 0.0 * x
    while total < 10.0:
        total = total + (x * x if x > 0 else -x)
    return total


def _random(x: Any, seed: int = 0) -> Any:
    return np.sum(x * np.random.default_rng(seed).standard_normal(3))


@pytest.mark.parametrize(
    ("function", "x", "right"),
    [
        (_while, 2.0, 12.0),
        (_while, -3.0, -4.0),
        (lambda x: x**3 if float(x) < 5.0 else x, 2.0, 12.0),
        (lambda x: sum(x[i] * i for i in range(int(x[2]))), [0.0, 1.0, 2.0], [0.0, 1.0, 0.0]),
        (lambda x: np.sum(x[x > 0.5] ** 2), [0.0, 1.0, 2.0], [0.0, 2.0, 4.0]),
        (lambda x: pnn.xp.sum(x[pnn.xp.nonzero(x)[0]] ** 2), [0.0, 1.0, 2.0], [0.0, 2.0, 4.0]),
        (lambda x: pnn.xp.sum(pnn.xp.repeat(x, np.asarray([1, 0, 2])) ** 2), [1.0, 1.0, 1.0], [2.0, 0.0, 4.0]),
        (lambda x: x[np.argmax(x)] * len(x), [0.0, 5.0, 2.0], [0.0, 3.0, 0.0]),
        (lambda x: np.sum(np.array([x[0], x[1] * 2.0, 3.0])), [1.0, 1.0, 1.0], [1.0, 2.0, 0.0]),
        (lambda x: np.sum(x * np.array([x[1], x[0], 3.0])), [1.0, 2.0, 1.0], [4.0, 2.0, 3.0]),
        (lambda x: np.sum(np.sin(np.array([x[0], x[2]]))), [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]),
        (lambda x: np.sum(np.asarray(x) ** 2), [0.0, 1.0, 2.0], [0.0, 2.0, 4.0]),
        (lambda x: np.dot(np.unique(np.array([2, 1, 2])), x[:2]), [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]),
        (lambda x: math.prod([x[0], x[1], x[1]]), [3.0, 2.0, 2.0], [4.0, 12.0, 0.0]),
        (lambda x: max(x[0], x[1]) * sorted([x[1], x[2]])[0], [1.0, 2.0, 3.0], [0.0, 4.0, 0.0]),
    ],
)  # fmt: skip
def test_what_python_does_with_values_happens(function: Any, x: Any, right: Any) -> None:
    np.testing.assert_allclose(pnn.grad(function)(np.asarray(x) if isinstance(x, list) else x), right)


def test_printing_shows_values(capsys: pytest.CaptureFixture[str]) -> None:
    def function(x: Any) -> Any:
        print(f"{x[0]:.2f}", x[1], x.tolist())
        return np.sum(x)

    pnn.grad(function)(np.asarray([1.0, 2.0]))
    assert capsys.readouterr().out == "1.00 <tracer of array(2.)> [1.0, 2.0]\n"


def test_a_function_runs_at_each_call() -> None:
    calls: list[float] = []

    def function(x: Any) -> Any:
        calls.append(float(x))
        return x * len(calls)

    gradient = pnn.grad(function)
    assert [float(gradient(2.0)), float(gradient(3.0))] == [1.0, 2.0]
    assert calls == [2.0, 3.0]


@dataclass
class Scaler:
    factors: list[float]
    table: Any

    def loss(self, x: Any) -> Any:
        return np.sum(x * self.factors[0] * self.table)


def test_what_a_function_reads_is_never_stale() -> None:
    scaler = Scaler([2.0], np.asarray([1.0, 3.0]))
    gradient = pnn.grad(scaler.loss)
    x = np.ones(2)
    assert gradient(x).tolist() == [2.0, 6.0]
    scaler.factors[0] = 3.0  # a number in a list
    assert gradient(x).tolist() == [3.0, 9.0]
    scaler.table[0] = 5.0  # an array written in place
    assert gradient(x).tolist() == [15.0, 9.0]
    a, b = pnn.grad(_random)(np.ones(3)), pnn.grad(_random)(np.ones(3), seed=1)
    assert not np.array_equal(a, b)


def test_an_array_written_into_while_the_function_runs_counts_as_it_was_when_it_was_read() -> None:
    def function(x: Any) -> Any:
        buffer, total = np.zeros(3), 0.0
        for i in range(3):
            buffer[:] = i
            total = total + np.sum(x * buffer)
        return total

    assert pnn.grad(function)(np.ones(3)).tolist() == [3.0, 3.0, 3.0]

    def large(x: Any) -> Any:
        buffer = np.zeros(100_000)
        total = np.sum(x * buffer)
        buffer[:] = 1.0
        return total

    with pytest.raises(ValueError, match="written into while a function that reads it was differentiated"):
        pnn.grad(large)(np.ones(100_000))


def test_an_argument_written_into_before_the_pullback_counts_as_it_was() -> None:
    x = np.asarray([1.0, 2.0])
    _, pullback = pnn.vjp(lambda x: np.sum(x * x), x)
    x[:] = 100.0
    assert pullback(1.0)[0].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x[0] * math.sin(x[1]), r"math.sin\(\) takes the value"),
        (lambda x: x[0] * np.float64(x[1]), r"numpy.float64\(\) takes the value"),
        (lambda x: x[0] + float(np.asarray([float(x[1])]).sum()), None),
        (lambda x: math.sin(pnn.stop_gradient(x)[1]) * x[0], None),
        (lambda x: float(x[0]), r"does not depend on its arguments, .*float\(\), at"),
        (lambda x: sum(x.tolist()), r"does not depend on its arguments, .*tolist\(\), at"),
        (lambda x: np.sum(pnn.xp.unique_values(x)), r"unique_values\(\) takes the value"),
    ],
)
def test_a_gradient_is_not_lost_without_a_word(function: Any, says: str | None) -> None:
    if says is None:
        pnn.grad(function)(np.ones(2))
    else:
        with raises(TypeError, says):
            pnn.grad(function)(np.ones(2))


def test_writing_into_an_array_says_what_to_do() -> None:
    def function(x: Any) -> Any:
        result = np.zeros(2)
        result[0] = x[0]
        return np.sum(result) + x[1]

    with raises(pnn.TracerValueError, r"writing into an array takes the value.*xp\.stack"):
        pnn.grad(function)(np.ones(2))


def test_other_numbers_and_values_are_not_other_programs() -> None:
    x, y = np.ones(3), np.arange(3.0)
    for i in range(1, 20):
        gradient = pnn.grad(lambda w, i=i: np.sum((w * y - 0.5 * i) ** 2 / i))(x * i)  # type: ignore[misc]
        np.testing.assert_allclose(gradient, 2 * (x * i * y - 0.5 * i) * y / i)
    assert pnn.program_cache.info().size == 1
    for power in (2, 3):
        np.testing.assert_allclose(pnn.grad(lambda w, p=power: np.sum(w**p))(y), power * y ** (power - 1))  # type: ignore[misc]
    assert pnn.program_cache.info().size == 3


def test_the_sign_of_a_number_decides_what_is_a_norm() -> None:
    scaled = lambda x, k: np.sqrt(k * np.sum(x * x))  # noqa: E731
    for _ in range(2):
        assert pnn.grad(scaled)(np.zeros(2), 2.0).tolist() == [0.0, 0.0]
        with np.errstate(all="ignore"):
            assert np.isnan(pnn.grad(scaled)(np.zeros(2), -2.0)).all()


def test_functions_that_do_something_else_on_the_same_types_are_other_programs() -> None:
    x, z = np.asarray([2.0, 3.0]), np.asarray([5.0, 7.0])
    functions = [
        lambda x, z: np.sum(x * z), lambda x, z: np.sum(z * x), lambda x, z: np.sum(x * x), lambda x, z: np.sum(x / z),
        lambda x, z: np.sum(z / x), lambda x, z: np.sum(x - z), lambda x, z: np.sum(z - x), lambda x, z: np.sum(x[::-1] * z),
        lambda x, z: np.sum(x[:1]), lambda x, z: np.sum(x[1:]), lambda x, z: x[0] * z[1], lambda x, z: x[1] * z[0],
        lambda x, z: np.sum(x) * np.sum(x * z), lambda x, z: np.sum(x * z) * np.sum(z),
    ]  # fmt: skip
    for function in functions:
        for by in (0, 1):
            steps = [function(*((v + h if n == by else v) for n, v in enumerate((x, z)))) for h in _steps()]
            slopes = [(steps[i] - steps[i + 2]) / 2e-6 for i in range(2)]
            np.testing.assert_allclose(pnn.grad(function, argnums=by)(x, z), slopes, rtol=1e-6, atol=1e-6)


def _steps() -> list[Any]:
    return [np.asarray([1e-6, 0.0]), np.asarray([0.0, 1e-6]), np.asarray([-1e-6, 0.0]), np.asarray([0.0, -1e-6])]


def test_python_floats_are_arguments(library: Any) -> None:
    value, (dx, dy) = pnn.value_and_grad(lambda x, y: x * x * y, argnums=(0, 1))(3.0, 2.0)
    assert (float(value), float(dx), float(dy)) == (18.0, 12.0, 9.0)
    x = library.array([1.0, 2.0])
    slope, gradient = pnn.grad(lambda k, x: pnn.xp.sum(x * x) * k, argnums=(0, 1))(3.0, x)
    assert type(gradient) is type(x)
    assert float(slope) == 5.0


def test_a_pullback_takes_cotangents_of_each_result(library: Any) -> None:
    a, b = library.array([1.0, 2.0]), library.array([3.0, 4.0])
    value, pullback = pnn.vjp(lambda a, b: {"product": a * b, "sums": [pnn.xp.sum(a), pnn.xp.sum(b)]}, a, b)
    assert library.numpy(value["product"]).tolist() == [3.0, 8.0]
    for scale in (1.0, 2.0):
        cotangent = {"product": library.array([scale, 0.0]), "sums": [library.array(10.0), library.array(0.0)]}
        da, db = pullback(cotangent)
        assert library.numpy(da).tolist() == [10.0 + 3.0 * scale, 10.0]
        assert library.numpy(db).tolist() == [scale, 0.0]


def test_the_rest_comes_with_the_value() -> None:
    value, pullback, rest = pnn.vjp(lambda x: (x * x, {"x": x + 1.0}), np.asarray(3.0), has_aux=True)
    assert (float(value), float(pullback(1.0)[0]), float(rest["x"])) == (9.0, 6.0, 4.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pnn.vjp(lambda x: x, np.ones(2))[1](np.ones(3)), r"expected float64\[2\], got float64\[3\]"),
        (lambda: pnn.vjp(lambda x: x, np.ones(2))[1]((np.ones(2),)), "a cotangent has the structure"),
        (lambda: pnn.vjp(lambda x: x, np.arange(2)), "argument 0 of lambda is int64"),
        (lambda: pnn.vjp(lambda x: "a", np.ones(2)), "got str: 'a'"),
        (lambda: pnn.vjp(3, np.ones(2)), "expected a function, got int"),
        (lambda: pnn.grad(lambda x: x)(np.ones(1)), "only a real scalar has a gradient"),
        (lambda: pnn.jvp(lambda x: x, 1.0, 1.0), "jvp takes a tuple"),
    ],
)
def test_wrong_cotangents_and_arguments_are_errors(call: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


def test_gradients_do_not_share_memory() -> None:
    x, y = np.ones(3), np.ones(3)
    cotangent = np.ones(3)
    da, db = pnn.vjp(lambda a, b: a + b, x, y)[1](cotangent)
    da += 1.0
    assert (db.tolist(), cotangent.tolist(), x.tolist()) == ([1.0] * 3, [1.0] * 3, [1.0] * 3)
    gradient = pnn.grad(np.sum)(x)
    gradient += 1.0
    assert pnn.grad(np.sum)(x).tolist() == [1.0] * 3


def test_the_backend_in_use_runs_gradients_of_numpys_arrays() -> None:
    pytest.importorskip("portablenn_numba")
    with pnn.use_backend("numba") as backend:
        assert pnn.get_backend(np.ones(1)) is backend
        assert pnn.grad(lambda x: np.sum(np.tanh(x) * x))(np.zeros(2)).tolist() == [0.0, 0.0]
    assert pnn.get_backend(np.ones(1)).name == "numpy"


@pytest.mark.parametrize(
    "subscripts",
    [
        "ij,jk->ik",
        "ij,kj",
        "...ij,jk->...ik",
        "...i,ij->j...",
        "i...,i...->...",
        "...,...->...",
        "ij,ij->",
        "ij,kl->jkil",
    ],
)
def test_einsum_is_numpys_on_every_library(subscripts: str, library: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    right = np.einsum(subscripts, a, b)
    np.testing.assert_allclose(
        library.numpy(pnn.einsum(subscripts, library.array(a), library.array(b))), right, rtol=1e-12
    )
    weights = np.cos(np.arange(right.size)).reshape(right.shape)
    loss = lambda a: np.sum(np.einsum(subscripts, a, b) * weights)  # noqa: E731
    slope = (loss(a + 1e-6 * b) - loss(a - 1e-6 * b)) / 2e-6
    np.testing.assert_allclose(np.sum(pnn.grad(loss)(a) * b), slope, rtol=1e-6, atol=1e-8)


def test_wrong_subscripts_are_errors() -> None:
    for subscripts in ("ij,jk->ik", "ijk", "i...j"):
        with pytest.raises(ValueError, match="einsum"):
            pnn.einsum(subscripts, np.ones(2))


def test_elementwise_derivatives_are_those_of_each_element(library: Any) -> None:
    x = library.array([[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(library.numpy(pnn.elementwise_grad(lambda x: x**3)(x)), 3 * library.numpy(x) ** 2)
    second = pnn.elementwise_grad(pnn.elementwise_grad(lambda x: x**3))(x)
    np.testing.assert_allclose(library.numpy(second), 6 * library.numpy(x))


def test_what_no_argument_needs_is_not_computed() -> None:
    x = np.asarray([-1.0, 2.0])
    assert pnn.grad(lambda x: np.sum(x ** np.float64(3.0)))(x).tolist() == [3.0, 12.0]  # without the logarithm of -1
    with _counted("matmul") as calls:
        pnn.grad(lambda w: np.sum(np.ones((5, 3)) @ w))(np.ones((3, 2)))
    assert len(calls) == 2


@contextlib.contextmanager
def _counted(name: str) -> Iterator[list[str]]:
    """Collect the calls of a function of NumPy's namespace."""
    xp, calls = pnn.get_backend("numpy").xp, []
    own = getattr(xp, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xp, name, lambda *args, **kwargs: calls.append(name) or own(*args, **kwargs))
        yield calls


def test_arrays_of_two_libraries_are_an_error(other_library: Any) -> None:
    table = other_library.array([1.0, 2.0])
    for call in (
        lambda: pnn.grad(lambda x: pnn.xp.sum(x * table))(np.ones(2)),
        lambda: pnn.grad(lambda x: pnn.xp.sum(x * table))(2.0),
    ):
        with pytest.raises(TypeError, match="an array of .* among arrays of numpy"):
            call()


def test_a_copy_of_a_tracer_is_the_tracer() -> None:
    assert pnn.grad(lambda x: np.sum(copy.deepcopy({"x": x})["x"] * copy.copy(x)))(np.ones(2)).tolist() == [2.0, 2.0]
