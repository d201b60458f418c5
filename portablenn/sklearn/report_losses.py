"""Losses whose values scikit-learn reports where they differ from the losses that train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..nn import losses
from ..program.ir import Array


@dataclass(frozen=True)
class MeanHalfSquaredError(losses.HalfSquaredError):
    """½ (p - t)², the mean over outputs; the gradient of scikit-learn is that of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> float(MeanHalfSquaredError()(np.asarray([[3.0, 1.0]]), np.asarray([[1.0, 1.0]])))
    1.0
    """

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the loss of each row, (rows,)."""
        return xp.mean(self.elements(xp, p, t), axis=1)


@dataclass(frozen=True)
class HalfPoissonDeviance(losses.Poisson):
    """exp(p) - t p + t log t - t, which is 0 where the rate is t.

    Examples
    --------
    >>> import numpy as np
    >>> float(HalfPoissonDeviance()(np.asarray([[0.0]]), np.asarray([[1.0]])))
    0.0
    """

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the loss of each row, (rows,)."""
        positive = xp.where(t > 0.0, t, 1.0)
        return xp.sum(self.elements(xp, p, t) + t * xp.log(positive) - t, axis=1)
