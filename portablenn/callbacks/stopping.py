"""Callbacks that end a training: where it improves no more, where it diverges, where time is up.

Requires nothing.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np

from .base import Callback, Steps


def watched(logs: dict[str, float], monitor: str, who: str) -> float:
    """The figure to watch: ``monitor``, or of "auto" the loss of the validation rows, or else that of all."""
    name = monitor if monitor != "auto" else "val_loss" if "val_loss" in logs else "loss"
    if name not in logs:
        hint = "; hand fit validation_data or validation_split" if name.startswith("val_") else ""
        raise ValueError(f"{who} watches {name!r} and there are {', '.join(logs)}{hint}")
    return logs[name]


def sign_of(monitor: str, mode: str) -> float:
    """-1 for figures of which more is better, else 1."""
    if mode not in ("auto", "min", "max"):
        raise ValueError(f'mode is "auto", "min" or "max", found {mode!r}')
    return -1.0 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else 1.0


class EarlyStopping(Callback):
    """End where a figure has not improved for some epochs, and go back to where it was best.

    Parameters
    ----------
    monitor
        A name of the history; "auto" for "val_loss", or "loss" without validation rows.
    patience
        How many epochs without a better figure are waited for.
    min_delta
        By how much a figure must be better to count.
    mode
        "min", "max", or "auto": more is better for accuracies, less for all others.
    restore_best
        Whether the network is put back to its best state, however the training ends.

    Attributes
    ----------
    best, best_epoch
        The best figure, and its epoch, from 1.

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
            raise ValueError(f"patience is at least 1 and min_delta at least 0, found {patience!r} and {min_delta!r}")
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.sign = sign_of(monitor, mode)
        self._kept: Any = None
        self._forget()

    def _forget(self) -> None:
        self.best, self.best_epoch, self.stale, self._kept = math.inf, 0, 0, None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Forget what was before, and see that there will be something to watch."""
        self._forget()
        if self.monitor.startswith("val_") and network.training.evaluate is None:
            raise ValueError(
                f"EarlyStopping watches {self.monitor!r} and there are no validation rows: hand fit validation_data or "
                "validation_split"
            )

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> str | None:
        """Compare the figure."""
        figure = watched(logs, self.monitor, "EarlyStopping")
        first = self.best_epoch == 0 or math.isnan(self.best)
        if not math.isnan(figure) and (first or self.sign * figure < self.sign * self.best - self.min_delta):
            self.best, self.best_epoch, self.stale = figure, epoch, 0
            self._kept = network.snapshot() if self.restore_best else None
        else:
            self.stale += 1
        self.name = self.monitor if self.monitor != "auto" else "val_loss" if "val_loss" in logs else "loss"
        return self._reason()

    def _reason(self) -> str | None:
        return None if self.stale < self.patience else f"{self.name} did not improve for {self.stale} epochs"

    def on_train_end(self, network: Any) -> None:
        """Put the best state back."""
        if self._kept is not None:
            network.restore(network.snapshot(self._kept))
            self._kept = None

    def state_dict(self) -> dict[str, Any]:
        """The best figure and what it was reached with."""
        if self.best_epoch == 0 and not self.stale:
            return {}
        known = {"best": self.best, "best_epoch": self.best_epoch, "stale": self.stale, "name": self.name}
        if self._kept is None:
            return known
        theta, slots, statistics = self._kept
        return {**known, "theta": theta, "statistics": statistics, **{f"slot.{i}": s for i, s in enumerate(slots)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> str | None:
        """Go on from there."""
        self.best, self.best_epoch, self.stale = state_dict["best"], state_dict["best_epoch"], state_dict["stale"]
        self.name = state_dict["name"]
        if "theta" in state_dict and self.restore_best:
            slots = [state_dict[name] for name in sorted(state_dict) if name.startswith("slot.")]
            self._kept = state_dict["theta"], slots, state_dict["statistics"]
        return self._reason()


class StopOnNaN(Callback):
    """End at the first loss, or the first weights, that are NaN or infinite; name the step, its batch and its rows.

    The network is put back to where it was when all was well: before the steps among which it happened.

    Parameters
    ----------
    every_steps
        How often to look, beside each epoch's end; each look waits for the device.

    Examples
    --------
    >>> import pytest
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(1e30), kernel_init="ones")
    >>> with pytest.warns(RuntimeWarning, match="step"):
    ...     history = net.fit([[1e4]], [2.0], epochs=5, callbacks=[pnn.callbacks.StopOnNaN()])
    >>> history.ended
    'the loss is inf at step 2 (epoch 2, batch 1 of 1)'
    """

    def __init__(self, every_steps: int | None = None) -> None:
        self.every_steps = every_steps
        self._good: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Keep where it begins."""
        self._good = network.snapshot()

    def on_steps_end(self, network: Any, steps: Steps) -> str | None:
        """Look."""
        bad = np.flatnonzero(~np.isfinite(steps.losses))
        xp = network.backend.xp
        reason = None
        if len(bad):
            number = int(bad[0])
            reason = f"the loss is {steps.losses[number]} at {self._place(steps, number)}"
        elif not bool(xp.all(xp.isfinite(network.state.theta))):
            reason = f"the weights are not finite after {self._place(steps, len(steps.losses) - 1)}"
        if reason is None:
            self._good = network.snapshot()
            return None
        network.restore(self._good)
        warnings.warn(
            f"{reason}: training ended and the network was put back to before it. Lower the learning rate, scale the data, or "
            "bound the gradient with clip_norm",
            RuntimeWarning,
            stacklevel=2,
        )
        return reason

    def on_train_end(self, network: Any) -> None:
        """Let go of what was kept."""
        self._good = None

    @staticmethod
    def _place(steps: Steps, number: int) -> str:
        batch, rows = steps.first + number, steps.rows(number)
        of = "" if steps.total is None else f" of {steps.total}"
        place = f"step {steps.step - len(steps.losses) + number + 1} (epoch {steps.epoch}, batch {batch}{of})"
        if rows is None:
            return place
        shown = ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")
        return f"{place}, rows {shown}"


class TimeLimit(Callback):
    """End after so many seconds, at the first steps that are done then; a resume goes on.

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
            raise ValueError(f"seconds is more than 0, found {seconds!r}")
        self.seconds, self.every_steps, self.start = seconds, every_steps, 0.0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def on_steps_end(self, network: Any, steps: Steps) -> str | None:
        """Look at the clock."""
        network.backend.synchronize()
        late = time.monotonic() - self.start >= self.seconds
        return f"the time limit of {self.seconds:g} s was reached" if late else None
