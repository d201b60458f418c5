"""Training by L-BFGS: all rows at once, one iteration per epoch."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.batching import SOURCE_SIZE, count_slices, row_slices
from ..data.chunks import Samples, shapes_of
from ..nn import lbfgs
from ..nn.model import State
from ..nn.optimizers import LBFGS
from ..program.ir import Array
from ..runtime.arrays import is_array
from .state import StepResult, TrainState
from .step import compiled

if TYPE_CHECKING:
    from .loop import TrainingLoop


def minimize(loop: TrainingLoop) -> Generator[StepResult, None, None]:
    """Minimise the loss of all rows until the tolerance, the budget or the last epoch is reached.

    A resumed search goes on. Rows that are not in memory are read in parts, whose losses and gradients are added up.
    """
    optimizer, before = loop.model.optimizer, loop.train_state
    assert isinstance(optimizer, LBFGS)
    objective = _Objective(loop, optimizer)
    epoch, step = before.epochs, before.steps
    if _over_budget(loop, optimizer):
        return
    for search in lbfgs.minimize(
        loop.backend.xp,
        objective,
        before.state.theta,
        before.search,
        memory=optimizer.memory,
        tolerance=optimizer.tolerance,
        iterations=loop.epochs - loop.epoch,
        evaluations=optimizer.max_evaluations,
        first_step=float(optimizer.learning_rate),  # type: ignore[arg-type] # LBFGS takes no schedule
    ):
        if loop.model.statistics.pieces:
            objective(search.theta)
            objective.statistics = objective.updated
        epoch, step = epoch + 1, step + 1
        state = State(search.theta, (), objective.statistics)
        loss = (np.asarray([search.loss]), loop.batching.count)
        yield StepResult(TrainState(state, epoch, step, search=search), [loss], 1)
        if _over_budget(loop, optimizer):
            return


def _over_budget(loop: TrainingLoop, optimizer: LBFGS) -> bool:
    return optimizer.budget is not None and loop.evaluations > optimizer.budget


class _Objective:
    """The loss of all rows and its gradient, as a function of the parameter vector."""

    def __init__(self, loop: TrainingLoop, optimizer: LBFGS) -> None:
        self.loop = loop
        self.statistics = self.updated = loop.train_state.state.statistics
        self.size = max(1, SOURCE_SIZE // loop.data.columns)
        self.parts = count_slices(loop.data, self.size)
        mask = loop.penalty_mask
        self.mask = mask / float(self.parts) if optimizer.shared and mask is not None else mask
        self._known: dict[Any, Callable[..., Any]] = {}

    def __call__(self, theta: Array) -> tuple[float, Array]:
        loop = self.loop
        loop.evaluations += 1
        in_memory = is_array(loop.data.x)
        parts = [loop.data.samples] if in_memory else row_slices(loop.backend, loop.data, self.size)
        total, gradient, weights = 0.0, None, 0.0
        for samples in parts:
            loss, slope = self._of_part(theta, samples)
            if self.parts == 1:
                return loss, slope
            weight = self._weight(samples)
            total, weights = total + loss * weight, weights + weight
            gradient = slope * weight if gradient is None else gradient + slope * weight
        assert gradient is not None
        divisor = weights if loop.model.loss.reduction == "mean" else 1.0
        return total / divisor, gradient / divisor

    def _of_part(self, theta: Array, samples: Samples) -> tuple[float, Array]:
        loop = self.loop
        batches = loop.batches(samples, None, loop.train_state.steps)
        arguments = (theta, self.statistics, batches, self.mask, batches.first_step)
        if (shapes := tuple(shapes_of(samples))) not in self._known:
            self._known[shapes] = compiled(loop.model, loop.backend, loop.model.penalized_objective, *arguments)
        loss, gradient, self.updated = self._known[shapes](*arguments)
        return float(loss), gradient

    def _weight(self, samples: Samples) -> float:
        """What the loss of some rows counts among those of others."""
        if self.loop.model.loss.reduction != "mean":
            return 1.0
        if samples.weights is None:
            return float(samples.y.shape[0])
        return float(self.loop.backend.xp.sum(samples.weights))
