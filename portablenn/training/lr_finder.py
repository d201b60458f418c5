"""Learning rate range test: the loss while the rate grows from batch to batch (Smith 2017, "Cyclical learning rates")."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..callbacks import Callback, Steps
from ..data.sources import Blocks
from ..nn.optimizers import LBFGS
from ..nn.schedules import ExponentialDecay


@dataclass(frozen=True)
class LearningRates:
    """The result of a learning rate range test.

    Attributes
    ----------
    rates, losses, smoothed
        Shape (steps,): the learning rate of each step, the loss of its batch before the step, and the smoothed loss.
    suggestion
        The rate where the smoothed loss falls fastest.

    Examples
    --------
    >>> found = LearningRates(np.asarray([0.1, 1.0]), np.asarray([2.0, 1.0]), np.asarray([2.0, 1.0]), 0.1)
    >>> found.suggestion
    0.1
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss over the rate and return the axes. Requires matplotlib."""
        from ..plots import learning_rates

        return learning_rates(self, ax)


class _Losses(Callback):
    def __init__(self) -> None:
        self.losses: list[np.ndarray] = []

    def on_steps_end(self, network: Any, steps: Steps) -> None:
        self.losses.append(steps.losses)


def find_learning_rate(
    network: Any,
    X: Any,
    y: Any,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 200,
    batch_size: int = 32,
    **fit: Any,
) -> LearningRates:
    """Train a copy of the network with a rate that grows from step to step.

    Parameters
    ----------
    network
        It is not changed.
    X, y
        Arrays to train on.
    lowest, highest
        The first and the last rate.
    steps
        Number of steps.
    batch_size, **fit
        Arguments of ``fit``.

    Raises
    ------
    ValueError
        If the rates are invalid, or the optimizer is L-BFGS, which searches for its step length.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> found = pnn.find_learning_rate(pnn.mlp([3, 8, 1], optimizer=pnn.SGD(0.1)), X, X[:, 0])
    >>> 1e-3 < found.suggestion < 10.0
    True
    """
    if not 0 < lowest < highest:
        raise ValueError(f"expected 0 < lowest < highest, got {lowest!r} and {highest!r}")
    if isinstance(network.optimizer, LBFGS):
        raise ValueError("find_learning_rate does not work with L-BFGS, which searches for the length of each step")
    if steps < 10:
        raise ValueError(f"steps must be at least 10, got {steps!r}")
    unknown = {"callbacks", "epochs", "order", "steps_per_epoch"} & set(fit)
    if unknown or isinstance(X, Blocks):
        raise ValueError(
            f"find_learning_rate does not accept {', '.join(sorted(unknown)) or 'blocks'}: it draws random batches of arrays"
        )
    trial, seen = copy.deepcopy(network), _Losses()
    trial.steps = 0
    trial.optimizer = replace(network.optimizer, learning_rate=ExponentialDecay(lowest, highest / lowest, steps - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the loss is expected to diverge in the end
        facts = {"order": "random", "steps_per_epoch": steps} | fit
        trial.fit(X, y, epochs=1, batch_size=batch_size, callbacks=[seen], **facts)
    losses = np.concatenate(seen.losses)[:steps]
    rates = lowest * (highest / lowest) ** (np.arange(len(losses)) / (steps - 1))
    smoothed = _smoothed(losses)
    return LearningRates(rates, losses, smoothed, _steepest(rates, smoothed))


def _smoothed(losses: np.ndarray, share: float = 0.9) -> np.ndarray:
    """Return exponential moving averages with bias correction."""
    mean, found = 0.0, []
    with np.errstate(all="ignore"):
        for i, loss in enumerate(losses, 1):
            mean = share * mean + (1.0 - share) * float(loss)
            found.append(mean / (1.0 - share**i))
    return np.asarray(found)


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Return the rate before the minimum where the loss falls fastest over a twentieth of the rates, on a logarithmic scale."""
    end = int(np.argmin(np.where(np.isfinite(smoothed), smoothed, np.inf))) + 1
    wide = max(1, len(rates) // 40)
    if end <= 2 * wide:
        return float(rates[0])
    fall = smoothed[2 * wide : end] - smoothed[: end - 2 * wide]  # the rates are evenly spaced on a logarithmic scale
    return float(rates[wide + int(np.argmin(fall))])
