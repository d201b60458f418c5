"""Which learning rate to begin with: the loss while the rate grows from batch to batch (Smith 2017, "Cyclical learning rates").

Requires a network; its own state is left as it is.
"""

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
    """What was found.

    Attributes
    ----------
    rates, losses, smoothed
        (steps,): the learning rate of each step, the loss of its batch before it, and that without its noise.
    suggestion
        Where the smoothed loss falls fastest: a rate to begin with.

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
        """The loss over the rate; returns the axes. Requires matplotlib."""
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
    """Train a copy of the network for some steps, each at a higher rate than the one before.

    Parameters
    ----------
    network
        Stays as it is.
    X, y
        What it is to learn.
    lowest, highest
        The first rate and the last.
    steps
        How many.
    batch_size, **fit
        As ``fit`` has them.

    Raises
    ------
    ValueError
        If the rates are none, or the optimizer is L-BFGS, which has no rate of this kind.

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
        raise ValueError(f"lowest is above 0 and below highest, found {lowest!r} and {highest!r}")
    if isinstance(network.optimizer, LBFGS):
        raise ValueError("L-BFGS searches for the length of each step by itself: there is no rate to find")
    if steps < 10:
        raise ValueError(f"steps is at least 10, found {steps!r}")
    unknown = {"callbacks", "epochs", "order", "steps_per_epoch"} & set(fit)
    if unknown or isinstance(X, Blocks):
        raise ValueError(
            f"{', '.join(sorted(unknown)) or 'blocks'}: the search draws batches of arrays, and decides that itself"
        )
    trial, seen = copy.deepcopy(network), _Losses()
    trial.steps = 0
    trial.optimizer = replace(network.optimizer, learning_rate=ExponentialDecay(lowest, highest / lowest, steps - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that it diverges in the end is the point
        facts = {"order": "random", "steps_per_epoch": steps} | fit
        trial.fit(X, y, epochs=1, batch_size=batch_size, callbacks=[seen], **facts)
    losses = np.concatenate(seen.losses)[:steps]
    rates = lowest * (highest / lowest) ** (np.arange(len(losses)) / (steps - 1))
    smoothed = _smoothed(losses)
    return LearningRates(rates, losses, smoothed, _steepest(rates, smoothed))


def _smoothed(losses: np.ndarray, share: float = 0.9) -> np.ndarray:
    """Exponential means, without the bias of their begin."""
    mean, found = 0.0, []
    with np.errstate(all="ignore"):
        for i, loss in enumerate(losses, 1):
            mean = share * mean + (1.0 - share) * float(loss)
            found.append(mean / (1.0 - share**i))
    return np.asarray(found)


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Where the loss falls fastest over the logarithm of the rate, before its minimum, over a twentieth of the rates."""
    end = int(np.argmin(np.where(np.isfinite(smoothed), smoothed, np.inf))) + 1
    wide = max(1, len(rates) // 40)
    if end <= 2 * wide:
        return float(rates[0])
    fall = smoothed[2 * wide : end] - smoothed[: end - 2 * wide]  # the rates are evenly spaced in their logarithm
    return float(rates[wide + int(np.argmin(fall))])
