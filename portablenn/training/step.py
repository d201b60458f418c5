"""The compiled training step, many of which run in one call.

Programs are cached by the value of the model and the shapes of its arguments: networks that are alike share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn.model import Batches, Model, State
from ..program.ir import Array, ArrayType, DType, Program
from ..program.trace import trace
from ..runtime import guard
from ..runtime.arrays import array_type
from ..runtime.backend import Backend
from ..transforms.cache import program_cache
from ..transforms.compile import hashable, prepared
from ..transforms.tree import Structure, tree_flatten, tree_unflatten

INT32 = DType("int32")


def compiled(model: Model, backend: Backend, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """``function``, a method of the model, compiled for arguments like these (trees of arrays and None).

    Returns a callable that takes such arguments and returns what the function does.
    """
    structure, types = _shape_of(arguments)
    key = (function.__name__, hashable(model), structure, types, backend)

    def build() -> Any:
        results: list[Any] = []

        def flat(*arrays: Array) -> list[Array]:
            outputs, shape = tree_flatten(function(*_filled(structure, types, arrays)))
            results.append(shape)
            return outputs

        program = trace(flat, *_present(types), device=backend.device, name=function.__name__)
        return guard.compile(backend, prepared(program, backend)), results[0]

    run, shape = program_cache.get(key, build)

    def call(*given: Any) -> Any:
        return tree_unflatten(shape, list(run(*_present(tree_flatten(given)[0]))))

    return call


def compiled_steps(
    model: Model, backend: Backend, state: State, batches: Batches, kernels: Array | None
) -> Callable[..., Any]:
    """``run(count, state, batches, kernels)`` returns the state after ``count`` steps and the loss of each, (count,)."""
    carry, carry_structure = tree_flatten(state)
    types = _shape_of((batches, kernels))[1]
    key = ("steps", hashable(model), tuple(map(array_type, carry)), types, backend)

    def build() -> Callable[..., tuple[Array, ...]]:
        program = trace_step(model, state, batches, kernels, backend.device)
        return guard.compile_loop(backend, prepared(program, backend), len(carry))

    loop = program_cache.get(key, build)

    def run(count: int, state: State, batches: Batches, kernels: Array | None) -> tuple[State, Array]:
        data = _present(tree_flatten((batches, kernels))[0])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss will show it
            *after, losses = loop(count, *tree_flatten(state)[0], *data)
        return tree_unflatten(carry_structure, after), losses

    run.loop = loop  # type: ignore[attr-defined] # which may know how it ran them
    return run


def trace_step(model: Model, state: State, batches: Batches, kernels: Array | None, device: Any = None) -> Program:
    """A training step: the iteration, the state and what a step reads, in; the state and the loss of the batch, out."""
    carry, carry_structure = tree_flatten(state)
    data_structure, types = _shape_of((batches, kernels))

    def flat(iteration: Array, *arrays: Array) -> list[Array]:
        inner = tree_unflatten(carry_structure, list(arrays[: len(carry)]))
        batches, kernels = _filled(data_structure, types, arrays[len(carry) :])
        after, loss = model.step(iteration, inner, batches, kernels)
        return [*tree_flatten(after)[0], loss]

    inputs = (ArrayType((), INT32), *map(array_type, carry), *_present(types))
    return trace(flat, *inputs, device=device, name="training_step")


def _shape_of(tree: Any) -> tuple[Structure, tuple[ArrayType | None, ...]]:
    """The structure of a tree of arrays and None, and the type of each leaf."""
    leaves, structure = tree_flatten(tree)
    return structure, tuple(None if leaf is None else array_type(leaf) for leaf in leaves)


def _present(leaves: Sequence[Any]) -> list[Any]:
    """The leaves that are not None."""
    return [leaf for leaf in leaves if leaf is not None]


def _filled(structure: Structure, types: Sequence[ArrayType | None], arrays: Sequence[Array]) -> Any:
    """The tree again, of its arrays alone: None where it was."""
    given = iter(arrays)
    return tree_unflatten(structure, [None if t is None else next(given) for t in types])
