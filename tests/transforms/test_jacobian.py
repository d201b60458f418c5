"""jvp, jacobian, hessian, hvp and vmap: against each other, and nested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn

A = np.random.default_rng(0).standard_normal((4, 3))


def _tanh(x: Any) -> Any:
    xp = pnn.array_namespace(x)
    return xp.tanh(xp.asarray(A.tolist(), dtype=x.dtype) @ x) * xp.sum(x * x)


def _energy(x: Any) -> Any:
    xp = pnn.array_namespace(x)
    return xp.sum(xp.exp(_tanh(x))) + x[0] * x[1] * x[2]


def _differences(function: Any, x: np.ndarray) -> np.ndarray:
    h = 1e-5
    return np.stack([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(x.size)], axis=-1)


X = np.asarray([0.3, -0.2, 0.5])


def test_jvp_is_the_derivative_along_the_tangent(library: Any) -> None:
    v = np.asarray([1.0, -2.0, 0.5])
    value, tangent = pnn.jvp(_tanh, (library.array(X),), (library.array(v),))
    np.testing.assert_allclose(library.numpy(value), _tanh(X), rtol=1e-12)
    np.testing.assert_allclose(library.numpy(tangent), _differences(_tanh, X) @ v, rtol=1e-7)


def test_jvp_and_vjp_are_transposes() -> None:
    rng = np.random.default_rng(1)
    v, g = rng.standard_normal(3), rng.standard_normal(4)
    tangent = pnn.jvp(_tanh, (X,), (v,))[1]
    (cotangent,) = pnn.vjp(_tanh, X)[1](g)
    np.testing.assert_allclose(g @ tangent, cotangent @ v, rtol=1e-12)


@pytest.mark.parametrize(
    "function", [_tanh, lambda x: x[:2] * x[2], lambda x: pnn.array_namespace(x).reshape(x, (3, 1)) * x]
)
def test_jacobians_are_the_limit_of_differences(function: Any, library: Any) -> None:
    found = library.numpy(pnn.jacobian(function)(library.array(X)))
    np.testing.assert_allclose(found, _differences(function, X), rtol=1e-7, atol=1e-9)


def test_jacobians_of_trees_are_trees_of_trees() -> None:
    tree = {"a": np.asarray(2.0), "b": np.ones((2, 2))}
    for wide in (1, 20):  # backward, and forward
        rows = pnn.jacobian(lambda t, n: {"p": t["a"] * t["b"], "q": np.ones(n) * t["a"] ** 2})(tree, wide)
        assert {(i, k): x.shape for i, row in rows.items() for k, x in row.items()} == {
            ("p", "a"): (2, 2), ("p", "b"): (2, 2, 2, 2), ("q", "a"): (wide,), ("q", "b"): (wide, 2, 2),
        }  # fmt: skip
        np.testing.assert_array_equal(rows["p"]["b"], 2.0 * np.eye(4).reshape(2, 2, 2, 2))
        np.testing.assert_array_equal(rows["q"]["a"], np.full(wide, 4.0))
    first, second = pnn.jacobian(lambda x, y: x * y, argnums=(0, 1))(np.ones(2), np.asarray([3.0, 4.0]))
    assert (first.tolist(), second.tolist()) == ([[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]])


def test_hessians_are_jacobians_of_gradients(library: Any) -> None:
    found = library.numpy(pnn.hessian(_energy)(library.array(X)))
    np.testing.assert_allclose(found, _differences(pnn.grad(_energy), X), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-12)
    v = np.asarray([1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        library.numpy(pnn.hvp(_energy)(library.array(X), library.array(v))), found @ v, rtol=1e-10
    )


def test_transforms_nest_and_compile() -> None:
    rows = np.stack([X, 2 * X, -X])
    calls = {
        "vmap of grad": (pnn.vmap(pnn.grad(_energy)), [pnn.grad(_energy)(x) for x in rows]),
        "vmap of hessian": (pnn.vmap(pnn.hessian(_energy)), [pnn.hessian(_energy)(x) for x in rows]),
        "vmap of jvp": (
            pnn.vmap(lambda x: pnn.jvp(_energy, (x,), (x,))[1]),
            [pnn.grad(_energy)(x) @ x for x in rows],
        ),
        "grad of vmap": (pnn.grad(lambda r: np.sum(pnn.vmap(_energy)(r))), [pnn.grad(_energy)(x) for x in rows]),
        "vmap of vmap": (
            lambda r: pnn.vmap(lambda x: pnn.vmap(lambda k: _energy(k * x))(np.asarray([1.0, 2.0])))(r),
            [[_energy(x), _energy(2 * x)] for x in rows],
        ),
        "vmap of grad of vmap": (
            pnn.vmap(pnn.grad(lambda x: np.sum(pnn.vmap(lambda k: _energy(k * x))(np.asarray([1.0, 2.0]))))),
            [pnn.grad(_energy)(x) + 2 * pnn.grad(_energy)(2 * x) for x in rows],
        ),
        "third derivatives": (
            pnn.vmap(pnn.jacobian(pnn.hessian(_energy))),
            [_differences(pnn.hessian(_energy), x) for x in rows],
        ),
    }
    for name, (function, right) in calls.items():
        tolerance = 1e-5 if name == "third derivatives" else 1e-11
        np.testing.assert_allclose(function(rows), right, rtol=tolerance, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(pnn.compile(function)(rows), right, rtol=tolerance, atol=1e-7, err_msg=name)


def test_vmap_maps_over_the_axes_that_are_named(library: Any) -> None:
    a, b = library.array(np.arange(6.0).reshape(3, 2)), library.array(np.arange(8.0).reshape(2, 4))
    first = pnn.vmap(
        lambda x, t: {"s": pnn.xp.sum(x) + t["b"][0], "x": x}, in_axes=(1, {"b": None}), out_axes={"s": 0, "x": 1}
    )
    result = first(a, {"b": b})
    assert library.numpy(result["s"]).tolist() == [6.0, 9.0] if result["s"].ndim == 1 else True
    np.testing.assert_array_equal(library.numpy(result["x"]), library.numpy(a))
    products = pnn.vmap(lambda x, y: x @ y, in_axes=(0, None))(a, b)
    np.testing.assert_allclose(library.numpy(products), library.numpy(a) @ library.numpy(b))
    assert (
        library.numpy(pnn.vmap(lambda x, k: x * k, in_axes=(0, None))(a, 2.0)).tolist()
        == (2 * library.numpy(a)).tolist()
    )


def test_arguments_that_are_not_mapped_have_values() -> None:
    power = pnn.vmap(lambda x, n: x ** int(n) if n > 1 else x, in_axes=(0, None))
    assert power(np.asarray([1.0, 2.0]), np.asarray(3)).tolist() == [1.0, 8.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pnn.vmap(lambda x, y: x)(np.ones(2), np.ones(3)), r"one length, got shapes \(2,\), \(3,\)"),
        (lambda: pnn.vmap(lambda x: x)(np.asarray(1.0)), r"axis 0 of an argument with shape \(\)"),
        (lambda: pnn.vmap(lambda x, n: x)(np.ones(2), 3), "axis 0 of an argument with 3: give None"),
        (lambda: pnn.vmap(lambda x: x, in_axes=None)(np.ones(2)), "at least one argument"),
        (lambda: pnn.vmap(lambda x: x, in_axes=(0, 0))(np.ones(2)), "in_axes has 2 entries"),
        (lambda: pnn.vmap(lambda x: x, in_axes=({"a": 0},))({"b": [np.ones(2)] * 2}), "do not fit"),
        (lambda: pnn.vmap(lambda x: x if x > 0 else -x)(np.ones(2)), r"differs between the elements.*xp\.where"),
        (lambda: pnn.vmap(lambda x: "a")(np.ones(2)), "expected arrays from lambda, got str"),
        (lambda: pnn.vmap(3), "expected a function, got int"),
    ],
)
def test_wrong_uses_of_vmap_are_errors(call: Any, says: str) -> None:
    with raises((TypeError, ValueError), says):
        call()
