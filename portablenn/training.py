"""The loop over epochs and batches: orders made on the host, steps run many in one call, losses read once an epoch.

Requires a backend that compiles Programs. What is compiled here is kept in `program_cache`, by the model's value and the
shapes, so that networks of the same make share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import random
from .arrays import array_type
from .backend import Backend
from .model import Batches, Model, State
from .program.ir import Array, ArrayType, DType
from .program.simplify import simplify
from .program.trace import dtype_name, trace
from .transforms import hashable, program_cache
from .trees import LEAF, flatten, unflatten

ROWS_A_CALL = 1 << 20
"""Epochs are run several in one call, where nobody looks between them, up to about this many rows."""

INT32 = DType("int32")


def compiled(model: Model, backend: Backend, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """``function``, a method of the model, compiled for arguments like these (trees of arrays and None).

    Returns a callable that takes such arguments and returns what the function does.
    """
    leaves, structure = flatten(arguments)
    types = tuple(None if leaf is None else array_type(leaf) for leaf in leaves)
    key = (function.__name__, hashable(model), structure, types, backend)

    def build() -> Any:
        results: list[Any] = []

        def flat(*arrays: Array) -> list[Array]:
            given = iter(arrays)
            tree = unflatten(structure, [None if t is None else next(given) for t in types])
            outputs, shape = flatten(function(*tree))
            results.append(shape)
            return outputs

        program = trace(flat, *(t for t in types if t is not None), device=backend.device, name=function.__name__)
        return backend.compile(simplify(program)), results[0]

    run, shape = program_cache.get(key, build)

    def call(*given: Any) -> Any:
        return unflatten(shape, list(run(*(leaf for leaf in flatten(given)[0] if leaf is not None))))

    return call


def compiled_steps(
    model: Model, backend: Backend, state: State, batches: Batches, kernels: Array | None
) -> Callable[..., Any]:
    """``run(count, state, batches, kernels)`` returns the state after ``count`` steps and the loss of each, (count,)."""
    carry, carry_structure = flatten(state)
    data, data_structure = flatten((batches, kernels))
    types = tuple(None if leaf is None else array_type(leaf) for leaf in data)
    carry_types = tuple(map(array_type, carry))
    key = ("steps", hashable(model), carry_types, types, backend)

    def build() -> Callable[..., tuple[Array, ...]]:
        def flat(iteration: Array, *arrays: Array) -> list[Array]:
            inner = unflatten(carry_structure, list(arrays[: len(carry)]))
            given = iter(arrays[len(carry) :])
            batches, kernels = unflatten(data_structure, [None if t is None else next(given) for t in types])
            after, loss = model.step(iteration, inner, batches, kernels)
            return [*flatten(after)[0], loss]

        present = [t for t in types if t is not None]
        program = trace(flat, ArrayType((), INT32), *carry_types, *present, device=backend.device, name="training_step")
        return backend.compile_loop(simplify(program), len(carry))

    loop = program_cache.get(key, build)

    def run(count: int, state: State, batches: Batches, kernels: Array | None) -> tuple[State, Array]:
        data = [leaf for leaf in flatten((batches, kernels))[0] if leaf is not None]
        *after, losses = loop(count, *flatten(state)[0], *data)
        return unflatten(carry_structure, after), losses

    return run


@dataclass(frozen=True)
class Plan:
    """How one ``fit`` goes through the data.

    Attributes
    ----------
    rows
        Numbers of the rows to train on, (n,), int64; None for all ``count`` of them.
    count
        How many rows there are to train on.
    batch
        Rows a step.
    order
        "shuffle", "sequential" or "random".
    epoch
        Rows an epoch: ``count``, unless rows are drawn with replacement.
    """

    rows: np.ndarray | None
    count: int
    batch: int
    order: str
    epoch: int

    @property
    def whole(self) -> bool:
        """Whether each step takes all rows as they lie."""
        return self.batch >= self.count and self.rows is None and self.order != "random"

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-self.epoch // self.batch)

    def orders(self, key: np.ndarray, first: int, epochs: int) -> np.ndarray:
        """The rows' numbers in the order of some epochs, (epochs, rows of an epoch), int64."""
        if self.order == "shuffle":
            order = random.permutations(key, first, epochs, self.count)
        elif self.order == "random":
            order = random.draws(key, first, epochs, self.epoch, self.count)
        else:
            order = np.broadcast_to(np.arange(self.count), (epochs, self.count))
        return order if self.rows is None else self.rows[order]


@dataclass(frozen=True)
class Data:
    """What ``fit`` trains on, on the backend: rows, targets, weights a row or None."""

    x: Array
    y: Array
    weights: Array | None


def train(
    model: Model,
    backend: Backend,
    state: State,
    data: Data,
    plan: Plan,
    *,
    epochs: int,
    first_epoch: int,
    first_step: int,
    seed: int,
    keys: Array | None,
    kernels: Array | None,
    every_epoch: bool,
) -> Iterator[tuple[State, list[float]]]:
    """Train, and hand out the state and the losses of the epochs since the last time.

    With ``every_epoch`` that is after each; else after as many as one call holds.
    """
    order_key = random.new_key(seed, random.ORDER)
    done = 0
    while done < epochs:
        together = 1 if every_epoch else max(1, min(epochs - done, ROWS_A_CALL // plan.epoch))
        losses = []
        for order, count in _calls(plan, order_key, first_epoch + done, together):
            batches = Batches(
                data.x,
                data.y,
                data.weights,
                None if order is None else _indices(backend, order),
                keys,
                backend.asarray(np.asarray(first_step, dtype=np.int32), "int32"),
            )
            run = compiled_steps(model, backend, state, batches, kernels)
            state, some = run(count, state, batches, kernels)
            first_step += count
            losses.append((some, plan.count if order is None else order.shape[1]))
        done += together
        yield state, _epoch_losses(model, backend, losses, plan, together)


def _calls(plan: Plan, key: np.ndarray, first: int, epochs: int) -> Iterator[tuple[np.ndarray | None, int]]:
    """Calls of the compiled step: the row numbers of each of its steps, (steps, batch), and how many steps."""
    if plan.whole:
        yield None, epochs
        return
    order = plan.orders(key, first, epochs)
    batch = min(plan.batch, plan.epoch)
    full, rest = divmod(plan.epoch, batch)
    if rest == 0:
        yield order.reshape(epochs * full, batch), epochs * full
        return
    for one in order:
        yield one[: full * batch].reshape(full, batch), full
        yield one[full * batch :].reshape(1, rest), 1


def _indices(backend: Backend, order: np.ndarray) -> Array:
    """Row numbers in the library's own index type."""
    return backend.asarray(order, dtype_name(backend.xp.arange(1).dtype))


def _epoch_losses(
    model: Model, backend: Backend, losses: Sequence[tuple[Array, int]], plan: Plan, epochs: int
) -> list[float]:
    """Read the losses of all steps, once, and reduce them to one an epoch: the mean over its rows, or the sum."""
    values = np.concatenate([backend.to_numpy(some).astype(np.float64) for some, _ in losses])
    sizes = np.concatenate([np.full(some.shape[0], rows) for some, rows in losses])
    if model.loss.reduction == "mean":
        values = values * sizes / plan.epoch
    return [float(v) for v in values.reshape(epochs, -1).sum(axis=1)]


def in_chunks(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows that cover ``rows``."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


__all__ = ["LEAF", "Data", "Plan", "compiled", "compiled_steps", "in_chunks", "train"]
