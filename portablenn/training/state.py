"""The state of training, the result of some steps, and the run that the training loop extends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..callbacks.base import Callback
from ..data.chunks import Batching, Samples
from ..data.dataset import Dataset
from ..nn.model import Batches, Model, State
from ..program.ir import Array
from ..runtime.backend import Backend
from .history import History

if TYPE_CHECKING:
    from ..nn import lbfgs


ROWS_PER_CALL = 1 << 20
"""Without callbacks or validation, several epochs run in one call, up to about this many rows."""


class TrainState(NamedTuple):
    """A network's state and counters in the course of training."""

    state: State
    epochs: int  # since the network was made
    steps: int  # since the network was made
    steps_done: int = 0  # in the current epoch
    search: lbfgs.Search | None = None  # the state of the L-BFGS search; None for other optimizers


class StepResult(NamedTuple):
    """The result of some training steps."""

    train_state: TrainState
    losses: list[tuple[Any, int]]  # for each call the losses of its steps, (steps,), and the number of rows of a step
    epochs: int  # that ended with these steps
    row_numbers: Any = None  # of each step, (steps, batch); None if unknown, or all rows
    how: str = ""  # how the backend executed the steps; "" if there is only one way
    multilabel: bool = False  # whether a target row of 0 and 1 has been seen whose sum is not 1


@dataclass(eq=False, repr=False)
class Run:
    """What one call of ``fit`` trains, and its progress."""

    network: Any
    data: Dataset
    batching: Batching
    epochs: int
    evaluate: Callable[[], dict[str, float]] | None  # the metrics of the validation rows, if there are any
    arrays: Sequence[Any]  # rows, targets and weights, by which a checkpoint recognizes the data
    callbacks: Sequence[Callback]
    epoch: int = 0  # number of epochs that have ended
    ended: str = ""  # why training ends; "" while it continues
    evaluations: int = 0  # how often L-BFGS has computed the loss of all rows
    about: dict[str, Any] | None = None  # what a run that resumes this one must have in common with it
    losses: list[tuple[Any, int]] = field(default_factory=list)  # of the current epoch, as in `StepResult`
    # for each call whose losses are on their way to the host: functions that wait for them, as in `losses`, and its epochs
    unread: list[tuple[list[tuple[Any, int]], int]] = field(default_factory=list)
    started: bool = False  # whether a step has been taken
    failed_in_callback: bool = False
    state_replaced: bool = False  # whether a callback has just replaced the state that the steps led to
    interrupted: bool = False  # whether a resumed run continues after the end

    def __post_init__(self) -> None:
        network = self.network
        self.train_state = TrainState(network.state, network.epochs, network.steps)
        self.history: History = network.history
        self.keys, self.penalty_mask = network._layer_keys(), network._penalty_mask()
        self.initial_optimizer = self.model.optimizer
        self.slots = self.model.optimizer.slots

    @property
    def model(self) -> Model:
        """The network's model: a callback may replace its optimizer."""
        return self.network.model

    @property
    def backend(self) -> Backend:
        """Where the network is."""
        return self.network.backend

    def _of_equal_shape(self, order: Array) -> Array:
        """Append steps that are not executed, up to the most of one call, where each new length would be compiled."""
        (steps, batch), most = order.shape, ROWS_PER_CALL // order.shape[1]
        if not self.backend.pads_orders or not 1 < steps < most:
            return order
        xp = self.backend.xp
        with self.backend.context():
            more = xp.zeros((most - steps, batch), dtype=order.dtype, device=self.backend.device)
            return xp.concat([order, more], axis=0)

    def batches(self, samples: Samples, order: Any, step: int) -> Batches:
        """Return what compiled steps read, from the step with this number on."""
        rows = None if order is None else self._of_equal_shape(self.backend.indices(order))
        first = self.backend.asarray(np.asarray(step, dtype=np.int32), "int32")
        return Batches(*samples, rows, self.keys, first)
