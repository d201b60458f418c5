"""Losses whose values scikit-learn reports where they differ from the losses that train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..nn import losses
from ..program.ir import Array


@dataclass(frozen=True)
class MeanHalfSquaredError(losses.HalfSquaredError):
    """½ (p - t)², the mean over outputs; scikit-learn's gradient is that of the sum."""

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        return xp.mean(self.elements(xp, p, t), axis=1)


@dataclass(frozen=True)
class HalfPoissonDeviance(losses.Poisson):
    """exp(p) - t p + t log t - t, which is 0 where the rate is t."""

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        positive = xp.where(t > 0.0, t, 1.0)
        return xp.sum(self.elements(xp, p, t) + t * xp.log(positive) - t, axis=1)
