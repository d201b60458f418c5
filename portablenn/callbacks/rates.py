"""Callbacks that change the learning rate during training; schedules of the step are in `portablenn.schedules`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .base import Callback
from .stopping import sign_of, watched


class ReduceOnPlateau(Callback):
    """Reduce the learning rate when a metric has stopped improving.

    Parameters
    ----------
    factor
        Factor of each reduction, between 0 and 1.
    patience
        Number of epochs without improvement after which the rate is reduced.
    monitor, min_delta, mode
        As for `EarlyStopping`.
    lowest
        The minimum of the rate.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0))
    >>> net.optimizer = pnn.SGD(1e-12)
    >>> history = net.fit([[1.0]], [2.0], epochs=8, callbacks=[ReduceOnPlateau(0.5, patience=3, min_delta=1e-3)])
    >>> net.optimizer.learning_rate  # after epochs 4 and 7
    2.5e-13
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 5,
        monitor: str = "auto",
        min_delta: float = 0.0,
        mode: str = "auto",
        lowest: float = 0.0,
    ) -> None:
        if not 0 < factor < 1 or patience < 1:
            raise ValueError(f"expected 0 < factor < 1 and patience >= 1, got {factor!r} and {patience!r}")
        self.factor, self.patience, self.monitor, self.min_delta = factor, patience, monitor, min_delta
        self.sign, self.lowest = sign_of(monitor, mode), lowest
        self.best, self.stale = math.nan, 0
        self._network: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        if callable(network.optimizer.learning_rate):
            raise ValueError(
                f"ReduceOnPlateau requires a constant learning rate, got {network.optimizer.learning_rate}"
            )
        if not network.optimizer.slots and "tolerance" in vars(network.optimizer):
            raise ValueError("L-BFGS has no learning rate to reduce: it chooses the length of each step")
        self.best, self.stale, self._network = math.nan, 0, network

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        figure = watched(logs, self.monitor, "ReduceOnPlateau")
        if math.isnan(self.best) or self.sign * figure < self.sign * self.best - self.min_delta:
            self.best, self.stale = figure, 0
            return
        self.stale += 1
        if self.stale >= self.patience:
            self.stale = 0
            self._set(network, max(self.lowest, network.optimizer.learning_rate * self.factor))

    @staticmethod
    def _set(network: Any, rate: float) -> None:
        network.optimizer = replace(network.optimizer, learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale, "rate": self._network.optimizer.learning_rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stale = state_dict["best"], state_dict["stale"]
        self._set(self._network, state_dict["rate"])


ReduceLROnPlateau = ReduceOnPlateau  # the name in PyTorch
