"""Schedules: a learning rate as a function of the step.

Requires nothing of any library. The step is an array of shape (), from 0, so a schedule is written in functions of the
standard; any such function serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .arrays import array_namespace
from .program.ir import Array

Schedule = Callable[[Array], Array]


def rate(schedule: float | Schedule, step: Array) -> float | Array:
    """The rate at ``step``: of a number always that number."""
    return schedule(step) if callable(schedule) else schedule


@dataclass(frozen=True)
class ExponentialDecay:
    """start · factorˢᵗᵉᵖᐟˢᵗᵉᵖˢ: multiplied by ``factor`` every ``steps`` steps, evenly."""

    start: float
    factor: float
    steps: int

    def __call__(self, step: Array) -> Array:
        """The rate at ``step``."""
        return self.start * array_namespace(step).exp(step * (math.log(self.factor) / self.steps))


@dataclass(frozen=True)
class InverseTimeDecay:
    """start / (1 + decay · step) (Robbins & Monro 1951)."""

    start: float
    decay: float

    def __call__(self, step: Array) -> Array:
        """The rate at ``step``."""
        return self.start / (1.0 + self.decay * step)


@dataclass(frozen=True)
class CosineDecay:
    """From ``start`` to ``end`` along half a cosine in ``steps`` steps, then ``end`` (Loshchilov & Hutter 2017)."""

    start: float
    steps: int
    end: float = 0.0

    def __call__(self, step: Array) -> Array:
        """The rate at ``step``."""
        xp = array_namespace(step)
        part = xp.minimum(step / float(self.steps), 1.0)
        return self.end + (0.5 * (self.start - self.end)) * (1.0 + xp.cos(part * math.pi))


@dataclass(frozen=True)
class StepDecay:
    """start · factor ᶠˡᵒᵒʳ⁽ˢᵗᵉᵖᐟˢᵗᵉᵖˢ⁾: multiplied by ``factor`` at once every ``steps`` steps."""

    start: float
    factor: float
    steps: int

    def __call__(self, step: Array) -> Array:
        """The rate at ``step``."""
        xp = array_namespace(step)
        return self.start * xp.exp(xp.floor((step + 0.5) / float(self.steps)) * math.log(self.factor))


@dataclass(frozen=True)
class WarmUp:
    """From 0 evenly up to the rate of ``then`` in ``steps`` steps, then ``then`` (a number or a schedule)."""

    steps: int
    then: float | Schedule

    def __call__(self, step: Array) -> Array:
        """The rate at ``step``."""
        xp = array_namespace(step)
        return xp.minimum((step + 1.0) / float(self.steps), 1.0) * rate(self.then, step)
