"""The programs in examples/gradients do the same on the arrays of each library, and find what they look for."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "gradients"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def _run(name: str) -> Callable[..., Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["run"]  # type: ignore[no-any-return]


def _numbers(found: Any) -> list[float]:
    return (
        [number for part in found for number in _numbers(part)] if isinstance(found, (tuple, list)) else [float(found)]
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_program_gives_the_same_numbers_on_each_library(name: str, other_library: Any) -> None:
    run = _run(name)
    np.testing.assert_allclose(_numbers(run(other_library.array)), _numbers(run()), rtol=1e-6, atol=1e-9)


FINDS: dict[str, Callable[[Any], bool]] = {
    "derivatives_of_tanh": lambda largest: np.allclose(largest[::2], [1.0, 2.0]),
    "gaussian_process": lambda found: found[0] < 0.0,
    "hidden_markov_model": lambda counts: np.isclose(np.sum(counts), 19.0),
    "independent_components": lambda loss: loss < -0.6,
    "logistic_regression": lambda found: found[0] < 0.2,
    "mixture_of_gaussians": lambda found: np.allclose(found[1], [-2.0, 1.0], atol=0.2),
    "neural_ode": lambda losses: losses[1] < 0.2 * losses[0],
    "orbit": lambda found: found[1] < 1e-12,
    "poisson_regression": lambda weights: np.allclose(weights, [1.0, -0.5, 0.3, 0.0], atol=0.15),
    "recurrent_network": lambda losses: losses[1] < 0.05 * losses[0],
    "rosenbrock": lambda found: np.allclose(found[1], 1.0),
    "variational_inference": lambda found: np.allclose(found[0], 0.0, atol=0.1),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_program_finds_what_it_looks_for(name: str) -> None:
    assert FINDS[name](_run(name)())
