"""How far training is: what the loop hands from chunk to chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..nn.model import State

if TYPE_CHECKING:
    from ..nn import lbfgs


class TrainState(NamedTuple):
    """A network's state and counters in the course of training.

    Attributes
    ----------
    state
        Parameters, optimizer slots, statistics.
    epochs, steps
        Epochs and steps since the network was made.
    steps_done
        Steps of the current epoch that are done.
    search
        State of the L-BFGS search; None for other optimizers.
    """

    state: State
    epochs: int
    steps: int
    steps_done: int = 0
    search: lbfgs.Search | None = None


class StepResult(NamedTuple):
    """What some training steps led to.

    Attributes
    ----------
    train_state
        After the steps.
    losses
        For each compiled call the losses of its steps, shape (steps,), on the backend, and the number of rows of a step.
    epochs
        Number of epochs that ended with these steps.
    row_numbers
        The rows of each step, shape (steps, batch); None if unknown, or all rows.
    how
        How the backend executed the steps; "" if there is only one way.
    multilabel
        Whether a target row of 0 and 1 has been seen whose sum is not 1.
    """

    train_state: TrainState
    losses: list[tuple[Any, int]]
    epochs: int
    row_numbers: np.ndarray | None = None
    how: str = ""
    multilabel: bool = False
