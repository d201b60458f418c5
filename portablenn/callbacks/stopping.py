"""Callbacks that end training: when it stops improving, when it diverges, when time is up."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np

from ..data.batching import row_slices
from ..data.sources import BatchStream, Blocks
from ..nn.model import State
from ..nn.optimizers import LBFGS
from ..runtime.arrays import to_numpy
from .base import Callback, Steps

CHUNK = 8192
"""Rows whose losses are computed at once."""


def watched(logs: dict[str, float], monitor: str, who: str) -> float:
    """Return the value of ``monitor``; for "auto" that of "val_loss", or of "loss" without validation rows."""
    name = _name(monitor, logs)
    if name not in logs:
        hint = "; pass validation_data or validation_split to fit" if name.startswith("val_") else ""
        raise ValueError(f"{who} monitors {name!r}, which is not in the history ({', '.join(logs)}){hint}")
    return logs[name]


def _name(monitor: str, logs: dict[str, float]) -> str:
    return monitor if monitor != "auto" else "val_loss" if "val_loss" in logs else "loss"


def sign_of(monitor: str, mode: str) -> float:
    """Return -1 for a metric of which higher is better, else 1."""
    if mode not in ("auto", "min", "max"):
        raise ValueError(f'mode must be "auto", "min" or "max", got {mode!r}')
    return -1.0 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else 1.0


class EarlyStopping(Callback):
    """End training when a metric has stopped improving, and restore the best weights.

    Parameters
    ----------
    monitor
        A name of the history; "auto" for "val_loss", or "loss" without validation rows.
    patience
        Number of epochs without improvement after which training ends.
    min_delta
        The smallest change that counts as an improvement.
    mode
        "min", "max", or "auto": higher is better for accuracies, lower for everything else.
    restore_best
        Whether the network gets its best state back, however training ends.

    Attributes
    ----------
    best, best_epoch
        The best value of the metric, and its epoch, from 1.

    Notes
    -----
    The state restored is the one that ``best`` was measured on: for metrics of validation rows, and for the loss of L-BFGS, the
    state at the end of the epoch. "loss" is measured before each step: if an epoch is one step, the state before it is
    restored; of several steps "loss" is the mean, and the state at the end of the epoch is restored, as in Keras.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0))
    >>> history = net.fit([[1.0]], [2.0], epochs=100, callbacks=[pnn.callbacks.EarlyStopping(patience=3)])
    >>> len(history["loss"]), history.ended
    (4, 'loss did not improve for 3 epochs')
    """

    def __init__(
        self,
        monitor: str = "auto",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        if patience < 1 or min_delta < 0:
            raise ValueError(f"expected patience ≥ 1 and min_delta ≥ 0, got {patience!r} and {min_delta!r}")
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.sign = sign_of(monitor, mode)
        self._reset()

    def _reset(self) -> None:
        self.best, self.best_epoch, self.stale = math.inf, 0, 0
        self._kept: Any = None
        self._before: State | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._reset()
        loss = self.monitor == "loss" or (self.monitor == "auto" and network.training.evaluate is None)
        if loss and self.restore_best and not isinstance(network.optimizer, LBFGS):
            self._before = network.snapshot()
        if self.monitor.startswith("val_") and network.training.evaluate is None:
            raise ValueError(
                f"EarlyStopping monitors {self.monitor!r} and there are no validation rows: pass validation_data or "
                "validation_split to fit"
            )

    def on_steps_end(self, network: Any, steps: Steps) -> None:
        if steps.total != 1:
            self._before = None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> str | None:
        value = watched(logs, self.monitor, "EarlyStopping")
        first = self.best_epoch == 0 or math.isnan(self.best)
        now = network.snapshot() if self._before is not None else None
        if not math.isnan(value) and (first or self.sign * value < self.sign * self.best - self.min_delta):
            self.best, self.best_epoch, self.stale = value, epoch, 0
            self._kept = (self._before or network.snapshot()) if self.restore_best else None
        else:
            self.stale += 1
        self._before, self.name = now, _name(self.monitor, logs)
        return self._reason()

    def _reason(self) -> str | None:
        return None if self.stale < self.patience else f"{self.name} did not improve for {self.stale} epochs"

    def on_train_end(self, network: Any) -> None:
        if self._kept is not None:
            network.restore(network.snapshot(self._kept))
        self._kept = self._before = None

    def state_dict(self) -> dict[str, Any]:
        if self.best_epoch == 0 and not self.stale:
            return {}
        known = {"best": self.best, "best_epoch": self.best_epoch, "stale": self.stale, "name": self.name}
        if self._kept is None:
            return known
        theta, slots, statistics = self._kept
        return {**known, "theta": theta, "statistics": statistics, **{f"slot.{i}": s for i, s in enumerate(slots)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> str | None:
        self.best, self.best_epoch, self.stale = state_dict["best"], state_dict["best_epoch"], state_dict["stale"]
        self.name = state_dict["name"]
        if "theta" in state_dict and self.restore_best:
            slots = [state_dict[name] for name in sorted(state_dict) if name.startswith("slot.")]
            self._kept = state_dict["theta"], slots, state_dict["statistics"]
        return self._reason()


class StopOnNaN(Callback):
    """End training at the first loss, or the first weights, that are NaN or infinite; name the step and the row.

    The row is the first of the batch whose loss by itself is not finite, if there is one; of blocks and streams, and with a
    loss function that returns one number for the batch, only the step is named. The state of the last check is restored.

    Parameters
    ----------
    every_steps
        Number of steps between checks, besides the end of each epoch; each waits for the device.

    Examples
    --------
    >>> import pytest
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(1e30), kernel_init="ones")
    >>> with pytest.warns(RuntimeWarning, match="step"):
    ...     history = net.fit([[1e4]], [2.0], epochs=5, callbacks=[pnn.callbacks.StopOnNaN()])
    >>> history.ended.partition(";")[0]
    'the loss is inf at step 2 (epoch 2, batch 1 of 1)'
    """

    def __init__(self, every_steps: int | None = None) -> None:
        self.every_steps = every_steps
        self._good: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self._good = network.snapshot()

    def on_steps_end(self, network: Any, steps: Steps) -> str | None:
        bad = np.flatnonzero(~np.isfinite(steps.losses))
        xp = network.backend.xp
        if len(bad):
            number = int(bad[0])
            place = self._place(steps, number)
            reason = f"the loss is {steps.losses[number]} at {place}{self._row(network, steps, number)}"
        elif not bool(xp.all(xp.isfinite(network.state.theta))):
            reason = f"the weights are not finite after {self._place(steps, len(steps.losses) - 1)}"
        else:
            self._good = network.snapshot()
            return None
        network.restore(self._good)
        warnings.warn(
            f"{reason}: training ended and the state before it is restored. Lower the learning rate, scale the data, or clip "
            "the gradient with clip_norm",
            RuntimeWarning,
            stacklevel=2,
        )
        return reason

    def on_train_end(self, network: Any) -> None:
        self._good = None

    @staticmethod
    def _place(steps: Steps, number: int) -> str:
        of = "" if steps.total is None else f" of {steps.total}"
        step = steps.step - len(steps.losses) + number + 1
        return f"step {step} (epoch {steps.epoch}, batch {steps.first + number}{of})"

    def _row(self, network: Any, steps: Steps, number: int) -> str:
        """Name the first row of a step whose loss by itself is not finite at the last good state; "" if there is none."""
        data, model, backend = network.training.data, network.model, network.backend
        if isinstance(data.x, (Blocks, BatchStream)):
            return ""  # the rows are no longer in memory
        known = steps.rows(number)
        found = []
        for samples in row_slices(backend, data if known is None else data.take(backend, known), CHUNK):
            with np.errstate(all="ignore"):
                outputs = model.forward(self._good.theta, self._good.statistics, samples.x)
                losses = to_numpy(model.reported.of_rows(outputs, model.as_targets(samples.y)))
            if not losses.ndim:
                return ""  # the loss is a function that returns one number
            found.append(losses)
        bad = np.flatnonzero(~np.isfinite(np.concatenate(found)))
        if not len(bad):
            return ""
        first = bad[0] if known is None else known[bad[0]]
        which = "the rows trained on" if known is None else "its rows"
        return f"; the loss of row {first}, the first of {len(bad)} among {which}, is not finite by itself"


TerminateOnNaN = StopOnNaN  # the name in Keras


class TimeLimit(Callback):
    """End training after a number of seconds, when the steps under way are done; a resumed run continues.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1])
    >>> net.fit([[1.0]], [2.0], epochs=100, callbacks=[pnn.callbacks.TimeLimit(1e-9)]).ended
    'the time limit of 1e-09 s was reached'
    """

    interrupts = True

    def __init__(self, seconds: float, every_steps: int | None = None) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be greater than 0, got {seconds!r}")
        self.seconds, self.every_steps, self.start = seconds, every_steps, 0.0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self.start = time.monotonic()

    def on_steps_end(self, network: Any, steps: Steps) -> str | None:
        network.backend.synchronize()
        late = time.monotonic() - self.start >= self.seconds
        return f"the time limit of {self.seconds:g} s was reached" if late else None
