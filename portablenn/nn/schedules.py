"""Schedules: a learning rate as a function of the step.

The step is an array of shape (), from 0; any function of it in Array API code is a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..program.ir import Array
from ..runtime.arrays import array_namespace
from .numbers import check_number, check_positive_integer, take_numbers_of_numpy

Schedule = Callable[[Array], Array]


def rate(schedule: float | Schedule, step: Array) -> float | Array:
    """Return the rate at ``step``; a number is a constant rate."""
    return schedule(step) if callable(schedule) else schedule


class _Validated:
    """Validates ``steps`` and the numbers among the fields of a schedule; NumPy's numbers become Python's."""

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        for name, value in vars(self).items():
            if name == "steps":
                check_positive_integer(name, value)
            elif name != "then":
                check_number(name, value)
            elif not callable(value):
                check_number(name, value, " or a schedule")


@dataclass(frozen=True)
class ExponentialDecay(_Validated):
    """start · factorˢᵗᵉᵖᐟˢᵗᵉᵖˢ: multiplied by ``factor`` every ``steps`` steps, continuously.

    Examples
    --------
    >>> import numpy as np
    >>> float(ExponentialDecay(1.0, factor=0.5, steps=10)(np.asarray(20.0)))
    0.25
    """

    start: float
    factor: float
    steps: int

    def __call__(self, step: Array) -> Array:
        return self.start * array_namespace(step).pow(self.factor, step / float(self.steps))


@dataclass(frozen=True)
class InverseTimeDecay(_Validated):
    """start / (1 + decay · step) (Robbins & Monro 1951).

    Examples
    --------
    >>> import numpy as np
    >>> float(InverseTimeDecay(1.0, decay=0.1)(np.asarray(10.0)))
    0.5
    """

    start: float
    decay: float

    def __call__(self, step: Array) -> Array:
        return self.start / (1.0 + self.decay * step)


@dataclass(frozen=True)
class CosineDecay(_Validated):
    """Fall from ``start`` to ``end`` along half a cosine in ``steps`` steps, then stay there (Loshchilov & Hutter 2017).

    Examples
    --------
    >>> import numpy as np
    >>> round(float(CosineDecay(1.0, steps=100)(np.asarray(50.0))), 6)
    0.5
    """

    start: float
    steps: int
    end: float = 0.0

    def __call__(self, step: Array) -> Array:
        xp = array_namespace(step)
        part = xp.minimum(step / float(self.steps), 1.0)
        return self.end + (0.5 * (self.start - self.end)) * (1.0 + xp.cos(part * math.pi))


@dataclass(frozen=True)
class CosLog(_Validated):
    """½ start · (1 - cos(2π log₂(1 + (2ᶜ - 1) t))), t = step / steps: rise and fall, c ``cycles`` times, each twice as long.

    It is 0 at the first step and from step ``steps`` on. With four cycles it is "coslog4" of Holzmüller, Grinsztajn & Steinwart
    (2024), "Better by default: strong pre-tuned MLPs and boosted trees on tabular data".

    Examples
    --------
    >>> import numpy as np
    >>> [abs(round(float(CosLog(1.0, steps=15)(np.asarray(step))), 6)) for step in (0.0, 1.0, 3.0, 7.0, 15.0)]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    >>> round(float(CosLog(1.0, steps=1, cycles=1)(np.asarray(2**0.5 - 1))), 6)
    1.0
    """

    start: float
    steps: int
    cycles: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer("cycles", self.cycles)

    def __call__(self, step: Array) -> Array:
        xp = array_namespace(step)
        part = xp.minimum(step / float(self.steps), 1.0)
        turns = xp.log(1.0 + (2.0**self.cycles - 1.0) * part) * (2.0 * math.pi / math.log(2.0))
        return (0.5 * self.start) * (1.0 - xp.cos(turns))


@dataclass(frozen=True)
class StepDecay(_Validated):
    """start · factor ᶠˡᵒᵒʳ⁽ˢᵗᵉᵖᐟˢᵗᵉᵖˢ⁾: multiplied by ``factor`` after every ``steps`` steps.

    Examples
    --------
    >>> import numpy as np
    >>> float(StepDecay(1.0, factor=0.5, steps=10)(np.asarray(19.0)))
    0.5
    """

    start: float
    factor: float
    steps: int

    def __call__(self, step: Array) -> Array:
        xp = array_namespace(step)
        return self.start * xp.pow(self.factor, xp.floor((step + 0.5) / float(self.steps)))


@dataclass(frozen=True)
class WarmUp(_Validated):
    """Rise linearly from 0 to the rate of ``then``, a number or a schedule, in ``steps`` steps; then follow it.

    Examples
    --------
    >>> import numpy as np
    >>> float(WarmUp(10, then=2.0)(np.asarray(4.0)))
    1.0
    """

    steps: int
    then: float | Schedule

    def __call__(self, step: Array) -> Array:
        xp = array_namespace(step)
        return xp.minimum((step + 1.0) / float(self.steps), 1.0) * rate(self.then, step)


@dataclass(frozen=True)
class InverseScaling(_Validated):
    """start / (rows seen + 1)ᵖᵒʷᵉʳ, counted at the ends of epochs of ``steps`` steps and ``rows`` rows, as scikit-learn does.

    Examples
    --------
    >>> import numpy as np
    >>> [float(InverseScaling(1.0, 0.5, steps=2, rows=99)(np.asarray(step))) for step in (0.0, 1.0, 2.0)]
    [1.0, 1.0, 0.1]
    """

    start: float
    power: float
    steps: int
    rows: int
    seen: int = 0

    def __call__(self, step: Array) -> Array:
        """Return the rate at ``step``, with ``seen`` rows before the first."""
        xp = array_namespace(step)
        epochs = xp.floor(step / float(self.steps))
        seen = xp.where(epochs > 0.0, epochs * float(self.rows) + float(self.seen), 0.0)
        return self.start / xp.pow(seen + 1.0, self.power)


SCHEDULES = (CosLog, CosineDecay, ExponentialDecay, InverseScaling, InverseTimeDecay, StepDecay, WarmUp)
"""The built-in schedules, which model files may name."""
