"""scikit-learn's stopping rules, as callbacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score

from ..callbacks import Callback
from ..runtime.arrays import to_numpy
from .inputs import Samples


@dataclass(eq=False)
class _Stopping(Callback):
    """A rule for an estimator, the rows held out for early stopping, and the number of training rows."""

    estimator: Any
    held_out: Samples | None
    count: int


@dataclass(eq=False)
class StochasticStopping(_Stopping):
    """The rule of "sgd" and "adam": update the fitted attributes, lower the rate, stop, and keep the best state."""

    best: Any = None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        e, held_out = self.estimator, self.held_out
        raw = None if held_out is None else to_numpy(network._predict(e._scored, held_out.x))
        better, stale = end_epoch(e, self.count, logs["loss"], raw, held_out)
        if better:
            self.best = network.state
        if not stale:
            return False
        if is_adaptive(e) and network.optimizer.learning_rate > 1e-6:
            rate = network.optimizer.learning_rate / 5.0
            network.optimizer = replace(network.optimizer, learning_rate=rate)
            e._no_improvement_count = 0
            print_stale(e, f"Setting learning rate to {rate:f}")
            return False
        converge(e)
        return True


def end_epoch(e: Any, count: int, loss: float, raw: Any, held_out: Samples | None) -> tuple[bool, bool]:
    """Update the fitted attributes of an estimator after an epoch of ``count`` rows.

    ``raw`` is what the model's method ``e._scored`` returns for the held-out rows. Return whether their score is better than
    ever, and whether there has been no improvement for too many epochs.
    """
    e.n_iter_ += 1
    e.t_ += count
    e.loss_ = loss
    e.loss_curve_.append(loss)
    _print(e, f"Iteration {e.n_iter_}, loss = {loss:.8f}")
    better = False
    if held_out is None:
        improved = not loss > e.best_loss_ - e.tol
        e.best_loss_ = min(e.best_loss_, loss)
    else:
        score = e._validation_score(raw, held_out)
        e.validation_scores_.append(score)
        _print(e, f"Validation score: {score:f}")
        improved = not score < e.best_validation_score_ + e.tol
        better = score > e.best_validation_score_
        e.best_validation_score_ = score if better else e.best_validation_score_
    e._no_improvement_count = 0 if improved else e._no_improvement_count + 1
    return better, e._no_improvement_count > e.n_iter_no_change


def is_adaptive(e: Any) -> bool:
    """Return whether the learning rate is lowered where others would stop."""
    return bool(e.solver == "sgd" and e.learning_rate == "adaptive")


def converge(e: Any) -> None:
    """Note that an estimator has stopped."""
    print_stale(e, f"{'Learning rate too small. ' if is_adaptive(e) else ''}Stopping.")
    e._converged = True


def print_stale(e: Any, consequence: str) -> None:
    """Print that there was no improvement, if the estimator is verbose."""
    what = "Validation score" if e.early_stopping else "Training loss"
    _print(
        e, f"{what} did not improve more than tol={e.tol:f} for {e.n_iter_no_change} consecutive epochs. {consequence}"
    )


def _print(e: Any, message: str) -> None:
    if e.verbose:
        print(message)


@dataclass(eq=False)
class LBFGSStopping(Callback):
    """The rule of SciPy's L-BFGS-B: stop where the loss decreases by less than 2.2e-9 of itself."""

    verbose: bool
    before: float | None = None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        loss, before = logs["loss"], self.before
        self.before = loss
        if self.verbose:
            print(f"Iteration {epoch}, loss = {loss:.8f}")
        return before is not None and (before - loss) <= 2.220446049250313e-09 * max(abs(before), abs(loss), 1.0)


@dataclass(eq=False)
class LinearStopping(_Stopping):
    """The rule of scikit-learn's linear models: stop where the loss, or the score of held-out rows, stops improving."""

    best: float = -np.inf
    no_improvement_count: int = 0
    epochs: int = 0
    converged: bool = False

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        e = self.estimator
        self.epochs = epoch
        if not np.isfinite(logs["loss"]):
            raise ValueError(
                "Floating-point under-/overflow occurred at epoch #"
                f"{epoch}. Scaling input data with StandardScaler or MinMaxScaler might help."
            )
        tolerance = e.tol or 0.0
        if self.held_out is None:
            score, least = -logs["loss"], tolerance * self.count
        else:
            truth, guess = e._labels.classes[self.held_out.target], to_numpy(e._predict(self.held_out.x))
            score, least = accuracy_score(truth, guess, sample_weight=self.held_out.weights), tolerance
        if e.verbose:
            print(f"-- Epoch {epoch}\nAvg. loss: {logs['loss'] / self.count:f}")
        stale = e.tol is not None and score < self.best + least
        self.no_improvement_count = self.no_improvement_count + 1 if stale else 0
        self.best = max(self.best, score)
        self.converged = self.no_improvement_count >= e.n_iter_no_change
        return self.converged
