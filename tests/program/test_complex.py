"""Derivatives of complex numbers, by the convention of autograd and JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import portablenn as pnn

Z = np.asarray([0.5 + 0.3j, -0.7 + 0.2j, 0.4 - 0.6j])
W = np.asarray([0.2 - 0.4j, 0.9 + 0.5j, -0.3 + 0.8j])
M = np.outer(Z, W) + 1j

HOLOMORPHIC: dict[str, Any] = {
    **{
        name: (lambda xp, z, name=name: getattr(xp, name)(z))
        for name in "acos acosh asin asinh atan atanh cos cosh exp expm1 log log10 log1p log2 negative positive reciprocal sin "
        "sinh sqrt square tan tanh".split()
    },
    "polynomial": lambda xp, z: (1 + 2j) * z**3 - z / (z + 2j) + 3.0 * z - 1j,
    "powers": lambda xp, z: z**z + 2.0**z + z**0.5 + z ** (1 + 1j),
    "products": lambda xp, z: xp.matmul(xp.asarray(M.tolist()), z) * xp.prod(z) + xp.cumulative_sum(z) * xp.mean(z),
    "shapes": lambda xp, z: (
        xp.concat([xp.reshape(z, (3, 1)), xp.flip(xp.reshape(z, (3, 1)))], axis=1)[1:, ::-1] * z[:1]
    ),
    "chosen": lambda xp, z: xp.where(xp.real(z) > 0, z * z, 1j * z) + xp.take(z, xp.asarray([2, 0, 0]), axis=0),
    "of a real array": lambda xp, z: xp.asarray([1.0, 2.0, 3.0]) * z,
}

REAL: dict[str, Any] = {
    "abs": lambda xp, z: xp.abs(z), "square of abs": lambda xp, z: xp.abs(z) ** 2, "real": lambda xp, z: xp.real(z) ** 2,
    "imag": lambda xp, z: xp.imag(z) ** 3, "conj": lambda xp, z: xp.real(xp.conj(z) * z * z),
    "vecdot": lambda xp, z: xp.real(xp.vecdot(z, z * z)), "parts": lambda xp, z: xp.atan2(xp.imag(z), xp.real(z)),
    "both": lambda xp, z: xp.real(z) * xp.imag(xp.exp(z)), "nothing": lambda xp, z: xp.imag(xp.real(z)) * 2.0 + xp.real(z),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_cotangents_are_multiplied_by_the_derivative(name: str, library: Any) -> None:
    function = lambda z: HOLOMORPHIC[name](pnn.array_namespace(z), z)  # noqa: E731
    g = np.random.default_rng(0).standard_normal((*function(Z).shape, 2)) @ [1, 1j]
    _, pullback = pnn.vjp(function, library.array(Z))
    slopes = [np.sum(g * (function(Z + 1e-6 * e) - function(Z - 1e-6 * e)) / 2e-6) for e in np.eye(3)]
    np.testing.assert_allclose(library.numpy(pullback(library.array(g))[0]), slopes, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", REAL)
def test_gradients_of_real_functions_hold_both_partial_derivatives(name: str, library: Any) -> None:
    def function(z: Any) -> Any:
        xp = pnn.array_namespace(z)
        return xp.sum(REAL[name](xp, z))

    by_real, by_imaginary = ([function(Z + h * e) - function(Z - h * e) for e in np.eye(3)] for h in (1e-6, 1e-6j))
    right = (np.asarray(by_real) - 1j * np.asarray(by_imaginary)) / 2e-6
    np.testing.assert_allclose(library.numpy(pnn.grad(function)(library.array(Z))), right, rtol=1e-7, atol=1e-8)


def test_a_real_argument_of_complex_operations_has_a_real_gradient(library: Any) -> None:
    x = library.array([0.5, -1.5])
    gradient = pnn.grad(lambda x: pnn.xp.sum(pnn.xp.abs(pnn.xp.exp(x * (1 + 2j))) ** 2))(x)
    assert gradient.dtype == x.dtype
    np.testing.assert_allclose(library.numpy(gradient), 2 * np.exp(2 * np.asarray([0.5, -1.5])), rtol=1e-12)


def test_complex_numbers_and_second_derivatives() -> None:
    assert complex(pnn.grad(lambda z: abs(z) ** 2)(1.0 + 2.0j)) == 2.0 - 4.0j
    second = pnn.grad(lambda x: pnn.grad(lambda y: pnn.xp.real(pnn.xp.exp(1j * y)))(x))(0.5)
    np.testing.assert_allclose(second, -np.cos(0.5), rtol=1e-12)


def test_a_complex_value_has_no_gradient() -> None:
    with pytest.raises(pnn.NotDifferentiableError, match="only a real scalar has a gradient.*complex128"):
        pnn.grad(lambda z: z * z)(1j)
