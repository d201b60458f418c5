"""Training: orders made on the host, steps run many in one call, losses read once an epoch; or L-BFGS on all rows.

Requires a backend that compiles Programs. What is compiled here is kept in `program_cache`, by the model's value and the
shapes, so that networks of the same make share it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..data.batching import SOURCED, Call, Data, Plan, calls_of_epoch, columns, count_parts, epochs_at_once, parts_of
from ..nn import lbfgs
from ..nn.model import Batches, Model, State
from ..nn.optimizers import LBFGS
from ..program.ir import Array, ArrayType, DType, Program
from ..program.trace import trace
from ..runtime import guard
from ..runtime.arrays import array_type, is_array
from ..runtime.backend import Backend
from ..transforms.cache import program_cache
from ..transforms.compile import hashable, prepared
from ..transforms.tree import Structure, tree_flatten, tree_unflatten

ROWS_A_CALL = 1 << 20
"""Epochs are run several in one call, where nobody looks between them, up to about this many rows."""

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


class Standing(NamedTuple):
    """Where a network stands in its training: its state, and how many epochs and steps it has seen.

    Attributes
    ----------
    state, epochs, steps
        All epochs and steps of its life.
    done
        Steps of the epoch that is under way.
    how
        In which way the backend ran the steps, where there are several.
    search
        Where L-BFGS is in its search.
    """

    state: State
    epochs: int
    steps: int
    done: int = 0
    how: str = ""
    search: lbfgs.Search | None = None


class Run(NamedTuple):
    """What was done since the last time: where the network stands now, and the losses of the steps.

    Attributes
    ----------
    standing
        After it.
    losses
        Of the steps of each call, (steps,), on the backend, with the rows of each step.
    epochs
        How many epochs have ended with it.
    order
        The row numbers of each step, (steps, batch); None where each took all rows, or nobody asked.
    """

    standing: Standing
    losses: list[tuple[Array, int]]
    epochs: int
    order: np.ndarray | None = None


@dataclass
class Task:
    """What one ``fit`` has to do.

    Attributes
    ----------
    model, backend, data, plan
        What to train, where, on what, and in which order. Between epochs the model may get another optimizer.
    seed
        Decides the order.
    keys
        What layers that draw random numbers draw from, (layers, 2), int32; None if none does.
    kernels
        Ones where the parameter vector holds kernels; None if there are no penalties.
    evaluations
        How often L-BFGS has computed the loss of all rows so far.
    state
        What to go on from after what was handed out, if not from that.
    """

    model: Model
    backend: Backend
    data: Data
    plan: Plan
    seed: int
    keys: Array | None
    kernels: Array | None
    evaluations: int = 0
    state: State | None = None

    def weight(self, data: Data) -> float:
        """What the mean loss of some rows counts for among others'."""
        if self.model.loss.reduction != "mean":
            return 1.0
        return float(data.y.shape[0]) if data.weights is None else float(self.backend.xp.sum(data.weights))

    def batches(self, data: Data, order: np.ndarray | None, step: int) -> Batches:
        """What the compiled step reads, from a step on, with row numbers in the library's own index type."""
        rows = None if order is None else self.backend.indices(order)
        first = self.backend.asarray(np.asarray(step, dtype=np.int32), "int32")
        return Batches(data.x, data.y, data.weights, rows, self.keys, first)


def stepped(task: Task, standing: Standing, epochs: int, watched: bool) -> Generator[Run, None, None]:
    """Train by steps, to the end of so many epochs, the one under way included; hand out where the network stands.

    If it is ``watched``, after each call; else after as many epochs as one call holds.
    """
    key, plan = random.new_key(task.seed, random.ORDER), task.plan
    state, epoch, step, done = standing[:4]
    last = epoch + epochs
    ways: dict[str, None] = {}
    known: dict[Any, tuple[Callable[..., Any], Model]] = {}

    def run(call: Call) -> tuple[Array, int]:
        nonlocal state, step
        batches = task.batches(call.data, call.order, step)
        shapes = (id(task.model), _kinds(call.data), None if call.order is None else call.order.shape)
        if shapes not in known:  # to look among all programs takes longer than a small step
            known[shapes] = compiled_steps(task.model, task.backend, state, batches, task.kernels), task.model
        run, _ = known[shapes]  # with its model, so that no other has the same id
        state, losses = run(call.steps, state, batches, task.kernels)
        ways[getattr(run.loop, "how", "")] = None  # type: ignore[attr-defined]
        step += call.steps
        return losses, call.rows

    while epoch < last:
        if not watched and not done and is_array(task.data.x) and plan.epoch <= plan.longest * plan.batch:
            together = max(1, min(last - epoch, min(ROWS_A_CALL, plan.longest * plan.batch) // plan.epoch))
            losses = [run(call) for call in epochs_at_once(plan, key, task.data, epoch, together)]
            epoch += together
            yield Run(Standing(state, epoch, step, 0, ", ".join(ways)), losses, together)
            state = task.state or state
            continue
        before = epoch
        with contextlib.closing(calls_of_epoch(plan, key, task.backend, task.data, epoch, done)) as calls:
            for call, is_last in calls:
                losses = [run(call)]
                epoch, done = (epoch + 1, 0) if is_last else (epoch, done + call.steps)
                yield Run(Standing(state, epoch, step, done, ", ".join(ways)), losses, int(is_last), call.numbers)
                state = task.state or state
        if epoch == before:
            raise ValueError(f"there is no batch to train on in epoch {epoch}, counted from 0: the iterable is empty")


def minimized(task: Task, standing: Standing, iterations: int) -> Generator[Run, None, None]:
    """Train on all rows at once by L-BFGS, an iteration an epoch, until its tolerance is reached.

    It goes on from the search that ``standing`` has, or begins one.

    Rows from a source are gone through in parts, whose losses and gradients are added up.
    """
    model, backend, optimizer = task.model, task.backend, task.model.optimizer
    assert isinstance(optimizer, LBFGS)
    (start, _, statistics), epoch, step = standing.state, standing.epochs, standing.steps
    found, rows = statistics, task.plan.count
    some = max(1, SOURCED // columns(task.data))
    parts = count_parts(task.data, some)
    known: dict[Any, Callable[..., Any]] = {}

    def objective(theta: Array) -> tuple[float, Array]:
        nonlocal found
        task.evaluations += 1
        loss, gradient, weight = 0.0, None, 0.0
        for data in [task.data] if is_array(task.data.x) else parts_of(backend, task.data, some):
            kernels = task.kernels / float(parts) if optimizer.shared and task.kernels is not None else task.kernels
            batches = task.batches(data, None, step)
            arguments = (statistics, batches, kernels, batches.first_step)
            if (kinds := _kinds(data)) not in known:
                known[kinds] = compiled(model, backend, model.penalized_objective, theta, *arguments)
            one, slope, found = known[kinds](theta, *arguments)
            if parts == 1:
                return float(one), slope
            own = task.weight(data)
            loss, weight = loss + float(one) * own, weight + own
            gradient = slope * own if gradient is None else gradient + slope * own
        assert gradient is not None
        total = weight if model.loss.reduction == "mean" else 1.0
        return loss / total, gradient / total

    if optimizer.budget is not None and task.evaluations > optimizer.budget:
        return
    for search in lbfgs.minimize(
        backend.xp,
        objective,
        start,
        standing.search,
        memory=optimizer.memory,
        tolerance=optimizer.tolerance,
        iterations=iterations,
        evaluations=optimizer.max_evaluations,
        first_step=float(optimizer.learning_rate),  # type: ignore[arg-type] # LBFGS takes no schedule
    ):
        if model.statistics.pieces:
            objective(search.theta)
            statistics = found
        epoch, step = epoch + 1, step + 1
        state = State(search.theta, (), statistics)
        yield Run(Standing(state, epoch, step, search=search), [(np.asarray([search.loss]), rows)], 1)
        if optimizer.budget is not None and task.evaluations > optimizer.budget:
            return


def _kinds(data: Data) -> tuple[Any, ...]:
    """Shape and dtype of rows, targets and weights."""
    return tuple(None if a is None else (a.shape, a.dtype) for a in (data.x, data.y, data.weights))
