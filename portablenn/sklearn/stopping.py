"""scikit-learn's rules where a network has others or none: the value of a loss, when to stop.

Requires nothing beside the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..callbacks import Callback
from ..nn import losses
from ..program.ir import Array
from ..runtime.arrays import stop_gradient


@dataclass(frozen=True)
class MeanOfOutputs(losses.HalfSquaredError):
    """½ (p - t)²: as scikit-learn does, the value is the mean over outputs, and the gradient that of the sum."""

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """The loss of each row, (rows,)."""
        total = super().rows(xp, p, t)
        return total if p.shape[1] == 1 else total + stop_gradient(total * (1.0 / p.shape[1] - 1.0))


@dataclass(frozen=True)
class HalfPoissonDeviance(losses.Poisson):
    """exp(p) - t p + t log t - t, which is 0 where the rate is t."""

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """The loss of each row, (rows,)."""
        positive = xp.where(t > 0.0, t, 1.0)
        return xp.sum(self.elements(xp, p, t) + t * xp.log(positive) - t, axis=1)


class Watch(Callback):
    """scikit-learn's rules, after each epoch: the figures, when to lower the rate, when to stop, which weights were best."""

    def __init__(self, estimator: Any, held_out: tuple[Any, np.ndarray, np.ndarray | None] | None, rows: int) -> None:
        self.estimator = estimator
        self.held_out = held_out
        self.rows = rows
        self.best: Any = None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        """True where training is to end."""
        e = self.estimator
        e.n_iter_ += 1
        e.t_ += self.rows
        e.loss_ = logs["loss"]
        e.loss_curve_.append(e.loss_)
        if e.verbose:
            print(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        if self._improved(network):
            e._no_improvement_count = 0
        else:
            e._no_improvement_count += 1
        if e._no_improvement_count <= e.n_iter_no_change:
            return False
        what = "Validation score" if self.held_out is not None else "Training loss"
        message = f"{what} did not improve more than tol={e.tol:f} for {e.n_iter_no_change} consecutive epochs."
        adaptive = e.solver == "sgd" and e.learning_rate == "adaptive"
        if adaptive and network.optimizer.learning_rate > 1e-6:
            rate = network.optimizer.learning_rate / 5.0
            network.optimizer = replace(network.optimizer, learning_rate=rate)
            e._no_improvement_count = 0
            self._say(f"{message} Setting learning rate to {rate:f}")
            return False
        self._say(f"{message} {'Learning rate too small. ' if adaptive else ''}Stopping.")
        e._converged = True
        return True

    def _improved(self, network: Any) -> bool:
        e = self.estimator
        if self.held_out is None:
            improved = not e.loss_ > e.best_loss_ - e.tol
            e.best_loss_ = min(e.best_loss_, e.loss_)
            return improved
        score = e._validation_score(*self.held_out)
        e.validation_scores_.append(score)
        if e.verbose:
            print(f"Validation score: {score:f}")
        improved = not score < e.best_validation_score_ + e.tol
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            self.best = network.state
        return improved

    def _say(self, message: str) -> None:
        if self.estimator.verbose:
            print(message)


class Steady(Callback):
    """Ends L-BFGS where the loss falls no more, as SciPy's does: by less than 2.2e-9 of it."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.before: float | None = None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        """True where it does."""
        loss, before = logs["loss"], self.before
        self.before = loss
        if self.verbose:
            print(f"Iteration {epoch}, loss = {loss:.8f}")
        return before is not None and (before - loss) <= 2.220446049250313e-09 * max(abs(before), abs(loss), 1.0)
