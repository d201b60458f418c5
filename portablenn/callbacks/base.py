"""The base class of callbacks, and what they receive about steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..runtime.arrays import to_numpy


@dataclass(eq=False, repr=False)
class Steps:
    """The steps of one call of ``on_steps_end``.

    Attributes
    ----------
    epoch
        Number of the epoch in this ``fit``, from 1.
    first, last
        Their numbers in the epoch, from 1.
    total
        Steps of an epoch; None if unknown.
    step
        Number of the last one since the network was created.
    """

    epoch: int
    first: int
    last: int
    total: int | None
    step: int
    _losses: Sequence[tuple[Any, int]]
    _order: Any

    @cached_property
    def losses(self) -> np.ndarray:
        """The loss before each step, (steps,), float64; read from the device on first access."""
        return np.concatenate([to_numpy(some).astype(np.float64) for some, _ in self._losses])

    def rows(self, number: int) -> np.ndarray | None:
        """Return the row numbers of a step of this call, from 0; None if it took all rows, or they are unknown."""
        return None if self._order is None else to_numpy(self._order[number, ...])


class Callback:
    """The base class of callbacks, whose methods do nothing; override those that you need.

    A method that returns True, or a text that says why, ends the training. ``state_dict`` and ``load_state_dict`` are for
    callbacks that remember something on which the rest of a run depends; a resumed run is then exactly the same.

    Examples
    --------
    >>> class Stop(Callback):
    ...     def on_epoch_end(self, network, epoch, logs):
    ...         return logs["loss"] < 0.1  # True ends the training
    """

    every_steps: int | None = None
    """Maximum number of steps between calls of ``on_steps_end``; None for no maximum."""

    interrupts = False
    """Whether a run that this callback ends can be resumed; otherwise it counts as finished."""

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Called before the first epoch."""

    def on_steps_end(self, network: Any, steps: Steps) -> bool | str | None:
        """Called after each compiled call, which runs many steps of an epoch; for every batch set ``every_steps = 1``."""
        return None

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool | str | None:
        """Called after epoch ``epoch``, from 1, with its entry of the history."""
        return None

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        """Called after the other hooks of all callbacks, when ``training.snapshot()`` is complete."""

    def on_train_end(self, network: Any) -> None:
        """Called after the last epoch, also if an error or Ctrl-C ended training."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint, by name: arrays, and JSON values."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> str | None:
        """Restore what ``state_dict`` returned; called after ``on_train_begin``. A returned text ends the training at once."""
        return None


def described(logs: dict[str, float]) -> str:
    """Return one line of metrics: "loss 0.1234  val_accuracy 0.9150"."""
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
