"""``python -m benchmarks.gradients``: gradients of plain functions, against autograd and JAX, in turns.

One BLAS thread is recommended: ``OPENBLAS_NUM_THREADS=1``. Times are medians of rounds, in microseconds a call; the first
call is that of a new function.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import portablenn as pnn

Function = Callable[[Any], Any]

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((10_000, 100)), np.sign(RNG.standard_normal(10_000))
ROWS = RNG.integers(0, 100_000, 1024)


def chain(xp: Any, x: Any) -> Any:
    """Do sixty operations, one after the other."""
    y = x
    for _ in range(20):
        y = xp.sin(y) * 2.0 + x
    return xp.sum(y)


def rosenbrock(xp: Any, x: Any) -> Any:
    return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def logistic(xp: Any, w: Any) -> Any:
    return xp.sum(xp.log(1.0 + xp.exp(-xp.dot(X, w) * LABELS))) / 10_000


def embedding(xp: Any, table: Any) -> Any:
    return xp.sum(table[ROWS] ** 2)


CASES: dict[str, tuple[Callable[[Any, Any], Any], np.ndarray, int]] = {
    "60 operations, 1 number": (chain, np.ones(1), 30),
    "60 operations, 1,000 numbers": (chain, np.ones(1000), 30),
    "60 operations, 100,000 numbers": (chain, np.ones(100_000), 1),
    "Rosenbrock, 1,000 variables": (rosenbrock, RNG.standard_normal(1000), 50),
    "logistic regression, 10,000 × 100": (logistic, np.zeros(100), 5),
    "1,024 rows of a table of 100,000 × 64": (embedding, RNG.standard_normal((100_000, 64)), 2),
}


def contestants() -> Iterator[tuple[str, Callable[[Callable[[Any, Any], Any]], Function]]]:
    """Yield names, and what makes a gradient of a function of (namespace, x)."""
    yield "grad", lambda f: pnn.grad(lambda x: f(np, x))
    yield "grad of a new function each time", lambda f: lambda x: pnn.grad(lambda x: f(np, x))(x)
    yield "compile(grad)", lambda f: pnn.compile(pnn.grad(lambda x: f(np, x)))
    try:
        autograd, anp = importlib.import_module("autograd"), importlib.import_module("autograd.numpy")
        yield "autograd", lambda f: autograd.grad(lambda x: f(anp, x))
    except ImportError:
        pass
    try:
        jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    except ImportError:
        return
    jax.config.update("jax_enable_x64", True)
    yield "JAX", lambda f: jax.grad(lambda x: f(jnp, x))
    yield "jax.jit", lambda f: jax.jit(jax.grad(lambda x: f(jnp, x)))


def _timed(gradient: Function, x: Any, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        result = gradient(x)
    np.asarray(result)  # wait for it
    return (time.perf_counter() - begin) / calls * 1e6


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser("benchmarks.gradients", description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    rounds = options.parse_args(arguments).rounds
    warnings.simplefilter("ignore")
    print("| function | contestant | µs a call | autograd / it | first call, µs |\n|---|---|---|---|---|")
    for title, (function, x, calls) in CASES.items():
        gradients = {name: make(function) for name, make in contestants()}
        first = {name: _timed(gradient, x, 1) for name, gradient in gradients.items()}
        right = np.asarray(gradients["grad"](x))
        for name, gradient in gradients.items():
            np.testing.assert_allclose(np.asarray(gradient(x)), right, rtol=1e-8, atol=1e-10, err_msg=name)
        times: dict[str, list[float]] = {name: [] for name in gradients}
        for _ in range(rounds):
            for name, gradient in gradients.items():
                times[name].append(_timed(gradient, x, calls))
        for name, own in times.items():
            ratios = [peer / mine for peer, mine in zip(times.get("autograd", ()), own, strict=False)]
            ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
            print(f"| {title} | {name} | {statistics.median(own):,.0f} | {ratio} | {first[name]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
