"""Random programs under transforms nested up to three deep agree with JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

W = np.random.default_rng(0).standard_normal((4, 4)) * 0.5
ROWS = np.array([1, 0, 1, 3])

STEPS: list[Callable[[Any, Any], Any]] = [
    lambda xp, x: xp.sin(x),
    lambda xp, x: xp.tanh(x),
    lambda xp, x: xp.exp(x),
    lambda xp, x: xp.square(x),
    lambda xp, x: xp.cumsum(x, axis=0) * 0.3,
    lambda xp, x: x - xp.sum(x, axis=0, keepdims=True) * 0.2,
    lambda xp, x: x[::-1] * 1.5,
    lambda xp, x: x @ W,
    lambda xp, x: xp.where(x > 0, x * x, -x),
    lambda xp, x: x * xp.max(x, axis=0),
    lambda xp, x: xp.sort(x, axis=0),
    lambda xp, x: x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) + 0.1),
    lambda xp, x: xp.abs(x) ** 1.5,
    lambda xp, x: xp.exp(x - xp.max(x, axis=-1, keepdims=True)) / xp.sum(xp.exp(x), axis=-1, keepdims=True),
    lambda xp, x: x[ROWS] * xp.sum(x),
    lambda xp, x: xp.stack([x[0], x[1] * x[2], x[3], x[1]]),
    lambda xp, x: xp.reshape(xp.einsum("ij,kj->ik", x, x), (4, 4)) * 0.1,
    lambda xp, x: xp.linalg.solve(x @ x.T + 3.0 * xp.eye(4), x),
    lambda xp, x: xp.real(xp.fft.ifft(xp.fft.fft(x, axis=0) ** 2, axis=0)),
]

TRANSFORMS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "grad": lambda lib, xp, f, x: lib.grad(f)(x[0]),
    "vmap of grad": lambda lib, xp, f, x: lib.vmap(lib.grad(f))(x),
    "jvp of grad": lambda lib, xp, f, x: lib.jvp(lib.grad(f), (x[0],), (x[1],))[1],
    "grad of vmap": lambda lib, xp, f, x: lib.grad(lambda x: xp.sum(lib.vmap(f)(x) ** 2))(x),
    "vmap of jvp of grad": lambda lib, xp, f, x: lib.vmap(lambda x: lib.jvp(lib.grad(f), (x,), (x,))[1])(x),
    "grad of vmap of grad": lambda lib, xp, f, x: lib.grad(lambda x: xp.sum(lib.vmap(lib.grad(f))(x) ** 2))(x),
    "hessian": lambda lib, xp, f, x: lib.hessian(f)(x[0]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(12))
def test_nested_transforms_of_random_programs_agree_with_jax(seed: int) -> None:
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    steps = [STEPS[i] for i in rng.integers(0, len(STEPS), rng.integers(2, 6))]
    x = rng.standard_normal((2, 4, 4)) * 0.5

    def function(xp: Any) -> Callable[[Any], Any]:
        def of(x: Any) -> Any:
            for step in steps:
                x = step(xp, x)
            return xp.sum(xp.tanh(x))

        return of

    for name, transform in TRANSFORMS.items():
        right = np.asarray(transform(jax, jnp, function(jnp), jnp.asarray(x)))
        found = transform(pnn, np, function(np), x)
        np.testing.assert_allclose(
            found, right, rtol=1e-8, atol=1e-9, err_msg=f"{name} of {[STEPS.index(s) for s in steps]}"
        )
