"""Training by L-BFGS: all rows at once, one iteration per epoch."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from ..data.batching import SOURCE_SIZE, count_slices, row_slices
from ..data.chunks import Samples, shapes_of
from ..nn import lbfgs
from ..nn.model import State
from ..nn.optimizers import LBFGS
from ..program.ir import Array
from ..runtime.arrays import is_array
from ..transforms.compile import compile_for, read_by
from .state import Run, StepResult, TrainState


def minimize(run: Run) -> Generator[StepResult, None, None]:
    """Minimise the loss of all rows until the tolerance, the budget or the last epoch is reached; continue a resumed search."""
    optimizer, before = run.model.optimizer, run.train_state
    assert isinstance(optimizer, LBFGS)
    objective = _Objective(run, optimizer)
    epoch, step = before.epochs, before.steps
    if _over_budget(run, optimizer):
        return
    for search in lbfgs.minimize(
        run.backend.xp,
        objective,
        before.state.theta,
        before.search,
        memory=optimizer.memory,
        tolerance=optimizer.tolerance,
        iterations=run.epochs - run.epoch,
        evaluations=optimizer.max_evaluations,
        first_step=float(optimizer.learning_rate),  # type: ignore[arg-type] # LBFGS takes no schedule
    ):
        if run.model.statistics.pieces:
            objective(search.theta)
            objective.statistics = objective.updated
        epoch, step = epoch + 1, step + 1
        state = State(search.theta, (), objective.statistics)
        loss = (np.asarray([search.loss]), run.batching.count)
        yield StepResult(TrainState(state, epoch, step, search=search), [loss], 1)
        if _over_budget(run, optimizer):
            return


def _over_budget(run: Run, optimizer: LBFGS) -> bool:
    return optimizer.budget is not None and run.evaluations > optimizer.budget


class _Objective:
    """The loss of all rows and its gradient, as a function of the parameter vector.

    Rows that are not in memory are read in parts, whose losses and gradients are added up.
    """

    def __init__(self, run: Run, optimizer: LBFGS) -> None:
        self.run = run
        self.statistics = self.updated = run.train_state.state.statistics
        self.size = max(1, SOURCE_SIZE // run.data.columns)
        self.parts = count_slices(run.data, self.size)
        mask = run.penalty_mask
        self.mask = mask / float(self.parts) if optimizer.penalty_per_row and mask is not None else mask
        self._known: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, theta: Array) -> tuple[float, Array]:
        run = self.run
        run.evaluations += 1
        in_memory = is_array(run.data.x)
        parts = [run.data.samples] if in_memory else row_slices(run.backend, run.data, self.size)
        total, gradient, weights = 0.0, None, 0.0
        for samples in parts:
            loss, slope = self._of_part(theta, samples)
            if self.parts == 1:
                return loss, slope
            weight = self._weight(samples)
            total, weights = total + loss * weight, weights + weight
            gradient = slope * weight if gradient is None else gradient + slope * weight
        assert gradient is not None
        divisor = weights if run.model.loss.reduction == "mean" else 1.0
        return total / divisor, gradient / divisor

    def _of_part(self, theta: Array, samples: Samples) -> tuple[float, Array]:
        run = self.run
        batches = run.batches(samples, None, run.train_state.steps)
        arguments = (theta, self.statistics, batches, self.mask, batches.first_step)
        read, owners = read_by(run.model)
        if (key := (shapes_of(samples), read)) not in self._known:
            compiled = compile_for(run.backend, run.model.penalized_objective, run.model, *arguments)
            self._known[key] = compiled, owners  # which are kept alive, as their ids are in the key
        loss, gradient, self.updated = self._known[key][0](*arguments)
        return float(loss), gradient

    def _weight(self, samples: Samples) -> float:
        """Return the weight of the loss of some rows."""
        if self.run.model.loss.reduction != "mean":
            return 1.0
        if samples.weights is None:
            return float(samples.y.shape[0])
        return float(self.run.backend.xp.sum(samples.weights))
