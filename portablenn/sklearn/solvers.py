"""scikit-learn's solvers: "sgd" and "adam" epoch by epoch, "lbfgs", and the order of rows that they share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from ..callbacks import Callback
from ..nn import optimizers
from ..nn.schedules import InverseScaling
from ..training.network import Network
from .inputs import Samples, like
from .stopping import LBFGSStopping, StochasticStopping

STOCHASTIC = ("sgd", "adam")


def train(
    network: Network, samples: Samples, epochs: int, batch_size: int | None, order: Any, callbacks: Sequence[Callback]
) -> None:
    """Train a network with targets and weights on the device of the rows."""
    target, weights = like(samples.x, samples.target), like(samples.x, samples.weights)
    network.fit(samples.x, target, epochs, batch_size, order, sample_weight=weights, callbacks=callbacks)


def hold_out(target: np.ndarray, fraction: float, random_state: Any, stratify: Any) -> tuple[np.ndarray, np.ndarray]:
    """Split off a fraction of the rows for early stopping; return the numbers of the rows to train on and of those held out."""
    train, held_out = train_test_split(
        np.arange(len(target)), random_state=random_state, test_size=fraction, stratify=stratify
    )
    return train, held_out


class Start(NamedTuple):
    """What a fit by "sgd" or "adam" begins with, besides the network and its optimizer."""

    rows: np.ndarray | None  # to train on; None for all
    held_out: np.ndarray | None  # rows held out for early stopping
    batch_size: int
    order: str | Callable[[int], np.ndarray]


def start_stochastic(estimator: Any, target: np.ndarray, incremental: bool) -> Start:
    """Hold out rows for early stopping, and set the optimizer."""
    rows, held_out, count = None, None, len(target)
    if estimator.early_stopping:
        stratify = estimator._stratify(target)
        rows, held_out = hold_out(target, estimator.validation_fraction, estimator._random_state, stratify)
        count = len(rows)
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
    batch_size = _batch_size(estimator, count)
    _set_optimizer(estimator, count, -(-count // batch_size), resume=incremental)
    if not hasattr(estimator, "best_loss_"):
        estimator._reset_history()
    estimator.n_iter_, estimator._converged = 0, False
    order = _shuffled(estimator._random_state, count) if estimator.shuffle else "sequential"
    return Start(rows, held_out, batch_size, order)


def fit_stochastic(estimator: Any, samples: Samples, incremental: bool) -> None:
    """Train by "sgd" or "adam": one epoch of ``partial_fit``, or as many as the stopping rule lets pass."""
    start, held_out = start_stochastic(estimator, samples.target, incremental), None
    if start.rows is not None and start.held_out is not None:
        samples, held_out = samples.take(start.rows), samples.take(start.held_out)
    rule = StochasticStopping(estimator, held_out, samples.rows)
    epochs = 1 if incremental else estimator.max_iter
    try:
        _train(estimator, samples, epochs, start.batch_size, start.order, rule)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)
    else:
        if not incremental:
            warn_if_not_converged(estimator)
    if rule.best is not None:
        estimator._network.state = rule.best


def warn_if_not_converged(estimator: Any) -> None:
    """Warn, as scikit-learn does, where the maximum number of epochs ended the training."""
    if not estimator._converged and estimator.n_iter_ == estimator.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization hasn't "
            "converged yet.",
            ConvergenceWarning,
            stacklevel=3,
        )


def fit_lbfgs(estimator: Any, samples: Samples) -> None:
    """Train by "lbfgs" with all rows at once."""
    e, network = estimator, estimator._network
    network.optimizer = optimizers.LBFGS(l2=e.alpha, penalty_per_row=True, tolerance=e.tol, budget=e.max_fun)
    _train(e, samples, e.max_iter, None, "sequential", LBFGSStopping(e.verbose))
    e.loss_curve_ = list(network.history.get("loss", []))
    e.n_iter_ = len(e.loss_curve_)
    if e.loss_curve_:
        e.loss_ = e.loss_curve_[-1]
    else:
        x, target, weights = samples
        e.loss_ = network.evaluate(x, like(x, target), like(x, weights))["loss"]
    e.t_ += e.n_iter_ * samples.rows
    if e.n_iter_ >= e.max_iter or network.history.evaluations > e.max_fun:
        limit = "ITERATIONS" if e.n_iter_ >= e.max_iter else "F,G EVALUATIONS"
        warnings.warn(
            f"lbfgs failed to converge after {e.n_iter_} iteration(s) (status=1):\nSTOP: TOTAL NO. OF {limit} REACHED LIMIT"
            f"\n\nIncrease the number of iterations to improve the convergence (max_iter={e.max_iter}).",
            ConvergenceWarning,
            stacklevel=2,
        )


def _train(estimator: Any, samples: Samples, epochs: int, batch_size: int | None, order: Any, rule: Callback) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the loss is", RuntimeWarning)  # scikit-learn has an error for it
        train(estimator._network, samples, epochs, batch_size, order, [rule, *estimator.callbacks])


def _batch_size(estimator: Any, count: int) -> int:
    if estimator.batch_size == "auto":
        return min(200, count)
    if estimator.batch_size > count:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
        )
    return int(np.clip(estimator.batch_size, 1, count))


def _shuffled(random_state: Any, count: int) -> Callable[[int], np.ndarray]:
    """Return the order of each epoch: a permutation of the one before, as repeated `sklearn.utils.shuffle` makes it."""
    order = np.arange(count)

    def shuffled(_: int) -> np.ndarray:
        nonlocal order
        permutation = np.arange(count)
        random_state.shuffle(permutation)
        order = order[permutation]
        return order

    return shuffled


def _set_optimizer(estimator: Any, count: int, steps: int, resume: bool) -> None:
    """Set a new optimizer, or resume with the one of the ``partial_fit`` before, for ``count`` rows in ``steps`` batches."""
    network = estimator._network
    if resume and estimator._optimizer_started:
        rate = _resumed_rate(estimator, count, steps)
        network.optimizer = replace(network.optimizer, l2=estimator.alpha, learning_rate=rate)
    else:
        network.optimizer = _new_optimizer(estimator, count, steps)
        estimator._optimizer_started = True


def _resumed_rate(estimator: Any, count: int, steps: int) -> Any:
    """Return the rate of a later ``partial_fit``: the schedule continues if the batches are as many as before."""
    e, rate = estimator, estimator._network.optimizer.learning_rate
    if isinstance(rate, InverseScaling):
        continues = (rate.rows, rate.steps) == (count, steps)
    else:
        continues = e.solver != "sgd" or e.learning_rate != "invscaling"
    return rate if continues else e.learning_rate_init / (e.t_ + 1) ** e.power_t


def _new_optimizer(estimator: Any, count: int, steps: int) -> optimizers.Optimizer:
    e = estimator
    common = {"l2": e.alpha, "penalty_per_row": True, "clip_norm": e.clip_norm, "clip_value": e.clip_value}
    if e.solver == "adam":
        return optimizers.Adam(e.learning_rate_init, e.beta_1, e.beta_2, e.epsilon, epsilon_hat=True, **common)
    rate: Any = e.learning_rate_init
    if e.learning_rate == "invscaling":
        rate = InverseScaling(rate, e.power_t, steps, count, e.t_)
    return optimizers.SGD(rate, e.momentum, e.nesterovs_momentum and e.momentum > 0, **common)
