"""The state of training: what the loop hands from chunk to chunk, and what it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..callbacks.base import Callback
from ..data.chunks import Batching, Samples
from ..data.dataset import Dataset
from ..files import checkpoint
from ..nn.model import Batches, Model, State
from ..program.ir import Array
from ..runtime.backend import Backend
from .history import History

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


@dataclass(eq=False, repr=False)
class Run:
    """What one call of ``fit`` trains, and how far it is.

    Attributes
    ----------
    network
        The network that is trained.
    data, batching
        What it is trained on, and how that is divided into steps.
    epochs
        Number of epochs of this call.
    evaluate
        Returns the figures of the validation rows; None without validation rows.
    fingerprint
        Returns what distinguishes these data from others.
    callbacks
        Called in this order.
    keys
        Keys of the layers that draw random numbers, shape (layers, 2), int32; None if no layer does.
    penalty_mask
        1 where the parameter vector holds kernels, else 0; None without penalties.
    epoch
        Number of epochs that have ended.
    ended
        Why training ends; "" while it goes on.
    evaluations
        How often L-BFGS has computed the loss of all rows.
    about
        What another run must have in common with this one to resume it; see `resume.about`.
    state_replaced
        Whether a callback has just replaced the state that the steps led to.
    """

    network: Any
    data: Dataset
    batching: Batching
    epochs: int
    evaluate: Callable[[], dict[str, float]] | None
    fingerprint: Callable[[], Any]
    callbacks: Sequence[Callback]
    keys: Array | None
    penalty_mask: Array | None
    epoch: int = 0
    ended: str = ""
    evaluations: int = 0
    about: dict[str, Any] | None = None
    losses: list[tuple[Any, int]] = field(default_factory=list)
    """The losses of the current epoch: for each call the losses of its steps, and the number of rows of a step."""

    def __post_init__(self) -> None:
        """Start from the network's state."""
        self.train_state = TrainState(self.network.state, self.network.epochs, self.network.steps)
        self.history: History = self.network.history
        self.initial_optimizer = checkpoint.describe(self.model.optimizer)
        self.slots = self.model.optimizer.slots
        self.begun = self.failed_in_callback = self.state_replaced = self.interrupted = False

    @property
    def model(self) -> Model:
        """The network's model: a callback may replace its optimizer."""
        return self.network.model

    @property
    def backend(self) -> Backend:
        """Where the network is."""
        return self.network.backend

    def batches(self, samples: Samples, order: np.ndarray | None, step: int) -> Batches:
        """Return what compiled steps read, from the step with this number on."""
        rows = None if order is None else self.backend.indices(order)
        first = self.backend.asarray(np.asarray(step, dtype=np.int32), "int32")
        return Batches(*samples, rows, self.keys, first)
