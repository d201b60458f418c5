"""The compiled training step, many of which run in one call; models that are equal share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..nn.model import Model, State
from ..nn.stack import ModelStack
from ..program.ir import Array
from ..runtime.backend import Backend
from ..transforms.compile import compile_loop_for


def compiled_steps(model: Model | ModelStack, backend: Backend, state: State, *data: Any) -> Callable[..., Any]:
    """Compile ``run(count, state, *data)``: the state after ``count`` steps and the loss of each, (count,).

    ``data`` are batches and the penalty mask; for a stack also the numbers that vary, and then the losses are (count, members).
    """
    steps = compile_loop_for(backend, model.step, model, state, *data)

    def run(count: int, *arguments: Any) -> tuple[State, Array]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss will show it
            after, losses = steps(count, *arguments)
        return after, losses

    run.loop = steps.loop  # type: ignore[attr-defined] # its attribute `how` may say how it ran them
    return run
