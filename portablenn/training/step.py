"""The compiled training step, many of which run in one call.

Programs are cached by the value of the model and the shapes of its arguments: networks that are alike share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..nn.model import Batches, Model, State
from ..program.ir import Array, DType, Program
from ..runtime.backend import Backend
from ..transforms.compile import compile_for, compile_loop_for, trace_loop

INT32 = DType("int32")


def compiled(model: Model, backend: Backend, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Compile ``function``, a method of the model, for arguments like these (trees of arrays and None).

    Returns a callable that takes such arguments and returns what the function does. Models that are equal share it.
    """
    return compile_for(backend, function, model, *arguments)


def compiled_steps(
    model: Model, backend: Backend, state: State, batches: Batches, kernels: Array | None
) -> Callable[..., Any]:
    """Compile ``run(count, state, batches, kernels)``: the state after ``count`` steps and the loss of each, (count,)."""
    steps = compile_loop_for(backend, model.step, model, state, batches, kernels)

    def run(count: int, *arguments: Any) -> tuple[State, Array]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss will show it
            after, losses = steps(count, *arguments)
        return after, losses

    run.loop = steps.loop  # type: ignore[attr-defined] # which may know how it ran them
    return run


def trace_step(model: Model, state: State, batches: Batches, kernels: Array | None, device: Any = None) -> Program:
    """Return the program of a training step: iteration, state, batches and kernels in; state and loss of the batch out."""
    return trace_loop(model.step, state, batches, kernels, device=device)[0]
