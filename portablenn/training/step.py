"""The compiled training step, many of which run in one call; models that are equal share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..nn.model import Batches, Model, State
from ..program.ir import Array
from ..runtime.backend import Backend
from ..transforms.compile import compile_loop_for


def compiled_steps(
    model: Model, backend: Backend, state: State, batches: Batches, penalty_mask: Array | None
) -> Callable[..., Any]:
    """Compile ``run(count, state, batches, penalty_mask)``: the state after ``count`` steps and the loss of each, (count,)."""
    steps = compile_loop_for(backend, model.step, model, state, batches, penalty_mask)

    def run(count: int, *arguments: Any) -> tuple[State, Array]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss will show it
            after, losses = steps(count, *arguments)
        return after, losses

    run.loop = steps.loop  # type: ignore[attr-defined] # its attribute `how` may say how it ran them
    return run
