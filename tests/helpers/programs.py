"""What property tests of programs share: random programs for hypothesis, a step that hands arrays on, operations' arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import portablenn as pnn
from portablenn.program.simplify import simplify
from portablenn.testing.programs import CONTINUOUS, OPERATIONS, SHAPES, run

__all__ = ["continuous_steps", "looped_step", "of", "operands", "run", "shapes", "steps", "traced"]


def _steps(count: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    return st.lists(
        st.tuples(st.integers(0, count - 1), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=14
    )


steps = _steps(len(OPERATIONS))
# for arithmetic that differs in the last place, where a jump may go either way
continuous_steps = _steps(len(CONTINUOUS))
shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)

of = pnn.array_namespace


def traced(function: Callable[..., Any], *arrays: Any) -> Any:
    """The simplified program of a function of arrays like these."""
    return simplify(pnn.trace(function, *(pnn.ArrayType(a.shape, str(a.dtype)) for a in arrays)))


def looped_step(instructions: Any, places: Sequence[int]) -> Callable[..., list[Any]]:
    """A step whose carried arrays, all but the last, come back in any order, twice, or unchanged; and two to collect."""

    def step(iteration: Any, *inputs: Any) -> list[Any]:
        xp = of(iteration)
        values = run(xp, inputs, instructions)
        carry = []
        for x, place in zip(inputs[:-1], places, strict=False):
            fitting = [v for v in values if v.shape == x.shape]
            chosen = fitting[-1 - place % len(fitting)]
            carry.append(xp.tanh(chosen) if place % 4 else chosen)
        return [*carry, xp.sum(values[-1]) + xp.astype(iteration, xp.float64), values[-1]]

    return step


def operands(name: str, dtype: str, count: int) -> list[np.ndarray]:
    """Arguments that an elementwise operation is defined for, with what is not finite where there is such."""
    values = np.asarray([0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 7.0])
    if name in ("acosh", "log", "log2", "log10", "log1p", "sqrt", "pow", "reciprocal", "divide"):
        values = np.abs(values) + 1.0
    if name in ("acos", "asin", "atanh"):
        values = values / 8.0
    if "float" in dtype:
        values = np.concatenate([values, [np.inf, -np.inf, np.nan]])
    arrays = [values.astype(dtype), values[::-1].astype(dtype).copy()]
    if name.endswith("_shift"):
        arrays[1] = np.abs(arrays[1])
    return arrays[:count]
