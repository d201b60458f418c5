"""Random programs: a list of numbers decides which operations run on which earlier values; a seed decides the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Values = list[Any]


def _like(values: Values, x: Any, number: int) -> Any:
    """Return an earlier value that broadcasts to the shape of ``x``, or ``x``."""

    def fits(v: Any) -> bool:
        pairs = zip(v.shape[::-1], x.shape[::-1], strict=False)
        return v.ndim <= x.ndim and all(n in (1, m) for n, m in pairs)

    fitting = list(filter(fits, values))
    return fitting[number % len(fitting)] if fitting else x


def _reshaped(xp: Any, x: Any, n: int) -> Any:
    shapes = [(-1,), (1, -1), (-1, 1)] + ([(2, -1)] if x.size and x.size % 2 == 0 else [])
    return xp.reshape(x, shapes[n % len(shapes)])


def _sliced(xp: Any, x: Any, n: int) -> Any:
    if x.ndim == 0:
        return x
    keys = [slice(0, None, 1), slice(1, None), slice(None, None, 2), slice(None, None, -1), slice(0, 1)]
    part = x[(*(slice(None),) * (n % x.ndim), keys[n % len(keys)])]
    return part if part.size else x


def _joined(xp: Any, x: Any, y: Any, n: int) -> Any:
    if x.size > 200:
        return x
    return xp.concat([xp.reshape(x, (-1,)), xp.reshape(y, (-1,)), xp.reshape(x, (-1,))])


def _product(xp: Any, x: Any, n: int) -> Any:
    if x.ndim < 2:
        return x * 0.5
    return xp.tanh((x @ x.mT if n % 2 else x.mT @ x) * 0.25)


def _taken(xp: Any, x: Any, n: int) -> Any:
    if x.ndim == 0:
        return x
    length = x.shape[n % x.ndim]
    return xp.take(x, xp.asarray([0, length - 1, n % length]), axis=n % x.ndim) if x.size < 200 else x


def _widened(xp: Any, x: Any, n: int) -> Any:
    return xp.broadcast_to(x, (2, *x.shape)) if x.size < 100 and x.ndim < 4 else x


Instruction = Callable[[Any, Any, Any, int], Any]

CONTINUOUS: list[Instruction] = [
    lambda xp, x, y, n: x + y,
    lambda xp, x, y, n: x - y,
    lambda xp, x, y, n: y - x,
    lambda xp, x, y, n: xp.tanh(x * y),
    lambda xp, x, y, n: xp.tanh(x) * 2.0 * 0.25,
    lambda xp, x, y, n: x / (1.0 + y * y),
    lambda xp, x, y, n: xp.maximum(x, y),
    lambda xp, x, y, n: xp.minimum(x, 0.25),
    lambda xp, x, y, n: xp.exp(-xp.abs(x)),
    lambda xp, x, y, n: -x,
    lambda xp, x, y, n: xp.square(xp.sin(x)),
    lambda xp, x, y, n: xp.sqrt(xp.abs(x) + 1.0),
    lambda xp, x, y, n: xp.astype(xp.astype(x, xp.float32), x.dtype),
    lambda xp, x, y, n: _reshaped(xp, x, n),
    lambda xp, x, y, n: _sliced(xp, x, n),
    lambda xp, x, y, n: xp.permute_dims(x, tuple(range(x.ndim))[::-1]),
    lambda xp, x, y, n: xp.flip(x),
    lambda xp, x, y, n: _joined(xp, x, y, n),
    lambda xp, x, y, n: _product(xp, x, n),
    lambda xp, x, y, n: _taken(xp, x, n),
    lambda xp, x, y, n: _widened(xp, x, n),
    lambda xp, x, y, n: xp.sum(x, axis=n % x.ndim, keepdims=n % 3 == 0) * 0.5 if x.ndim else x,
    lambda xp, x, y, n: xp.mean(x * x),
    lambda xp, x, y, n: xp.max(x, axis=n % x.ndim) if x.ndim else x,
    lambda xp, x, y, n: xp.cumulative_sum(x, axis=n % x.ndim) * 0.25 if x.ndim else x,
    lambda xp, x, y, n: xp.sort(x, axis=n % x.ndim) if x.ndim else x,
    lambda xp, x, y, n: xp.roll(x, n % 3, axis=0) if x.ndim else x,
    lambda xp, x, y, n: x + xp.ones(x.shape, dtype=x.dtype) * xp.full(x.shape, 0.5, dtype=x.dtype),
    lambda xp, x, y, n: x * xp.zeros(x.shape, dtype=x.dtype) + 1.0 * x - 0.0,
]
"""Operations whose results change little when their arguments do."""

OPERATIONS: list[Instruction] = [
    *CONTINUOUS,
    lambda xp, x, y, n: xp.where(x > y, x, -0.5 * y),
    lambda xp, x, y, n: xp.astype(x > y, x.dtype) * x,
    lambda xp, x, y, n: xp.astype(xp.argmax(x, axis=0), x.dtype) if x.ndim else x,
]

SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (2, 3), (3, 1), (4, 4), (2, 1, 3)]


def run(xp: Any, inputs: Sequence[Any], instructions: Sequence[tuple[int, int, int]]) -> Values:
    """Return all values that the instructions compute from the inputs, inputs first."""
    values = list(inputs)
    for operation, first, second in instructions:
        x = values[(-1 - first % 5) % len(values)]
        y = _like(values, x, second)
        values.append(OPERATIONS[operation](xp, x, y, second))
    return values


def drawn(seed: int) -> tuple[list[tuple[int, ...]], list[tuple[int, int, int]]]:
    """Draw the shapes of one to three inputs, and up to fourteen instructions."""
    rng = np.random.default_rng(seed)
    shapes = [SHAPES[i] for i in rng.integers(len(SHAPES), size=rng.integers(1, 4))]
    count = int(rng.integers(1, 15))
    numbers = zip(rng.integers(len(OPERATIONS), size=count), *rng.integers(41, size=(2, count)), strict=True)
    return shapes, [(int(o), int(a), int(b)) for o, a, b in numbers]
