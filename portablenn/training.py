"""Training: orders made on the host, steps run many in one call, losses read once an epoch; or L-BFGS on all rows.

Requires a backend that compiles Programs. What is compiled here is kept in `program_cache`, by the model's value and the
shapes, so that networks of the same make share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import lbfgs, random
from .arrays import array_type, is_array
from .backend import Backend
from .model import Batches, Model, State
from .optimizers import LBFGS
from .program.ir import Array, ArrayType, DType, Program
from .program.trace import trace
from .sources import Source, some_rows
from .transforms import hashable, prepared, program_cache
from .trees import Structure, flatten, unflatten

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
            outputs, shape = flatten(function(*_filled(structure, types, arrays)))
            results.append(shape)
            return outputs

        program = trace(flat, *_present(types), device=backend.device, name=function.__name__)
        return backend.compile(prepared(program, backend)), results[0]

    run, shape = program_cache.get(key, build)

    def call(*given: Any) -> Any:
        return unflatten(shape, list(run(*_present(flatten(given)[0]))))

    return call


def compiled_steps(
    model: Model, backend: Backend, state: State, batches: Batches, kernels: Array | None
) -> Callable[..., Any]:
    """``run(count, state, batches, kernels)`` returns the state after ``count`` steps and the loss of each, (count,)."""
    carry, carry_structure = flatten(state)
    types = _shape_of((batches, kernels))[1]
    key = ("steps", hashable(model), tuple(map(array_type, carry)), types, backend)

    def build() -> Callable[..., tuple[Array, ...]]:
        program = recorded_step(model, state, batches, kernels, backend.device)
        return backend.compile_loop(prepared(program, backend), len(carry))

    loop = program_cache.get(key, build)

    def run(count: int, state: State, batches: Batches, kernels: Array | None) -> tuple[State, Array]:
        data = _present(flatten((batches, kernels))[0])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss will show it
            *after, losses = loop(count, *flatten(state)[0], *data)
        return unflatten(carry_structure, after), losses

    run.loop = loop  # type: ignore[attr-defined] # which may know how it ran them
    return run


def recorded_step(model: Model, state: State, batches: Batches, kernels: Array | None, device: Any = None) -> Program:
    """A training step: the iteration, the state and what a step reads, in; the state and the loss of the batch, out."""
    carry, carry_structure = flatten(state)
    data_structure, types = _shape_of((batches, kernels))

    def flat(iteration: Array, *arrays: Array) -> list[Array]:
        inner = unflatten(carry_structure, list(arrays[: len(carry)]))
        batches, kernels = _filled(data_structure, types, arrays[len(carry) :])
        after, loss = model.step(iteration, inner, batches, kernels)
        return [*flatten(after)[0], loss]

    inputs = (ArrayType((), INT32), *map(array_type, carry), *_present(types))
    return trace(flat, *inputs, device=device, name="training_step")


def _shape_of(tree: Any) -> tuple[Structure, tuple[ArrayType | None, ...]]:
    """The structure of a tree of arrays and None, and the type of each leaf."""
    leaves, structure = flatten(tree)
    return structure, tuple(None if leaf is None else array_type(leaf) for leaf in leaves)


def _present(leaves: Sequence[Any]) -> list[Any]:
    """The leaves that are not None."""
    return [leaf for leaf in leaves if leaf is not None]


def _filled(structure: Structure, types: Sequence[ArrayType | None], arrays: Sequence[Array]) -> Any:
    """The tree again, of its arrays alone: None where it was."""
    given = iter(arrays)
    return unflatten(structure, [None if t is None else next(given) for t in types])


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
        "shuffle", "sequential", "random", or a function that returns the row numbers of an epoch.
    epoch
        Rows an epoch: ``count``, unless rows are drawn with replacement.
    """

    rows: np.ndarray | None
    count: int
    batch: int
    order: str | Callable[[int], Any]
    epoch: int

    @property
    def whole(self) -> bool:
        """Whether each step takes all rows as they lie."""
        return self.batch >= self.count and self.rows is None and self.order in ("shuffle", "sequential")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-self.epoch // self.batch)

    def orders(self, key: np.ndarray, first: int, epochs: int) -> np.ndarray:
        """The rows' numbers in the order of some epochs, (epochs, rows of an epoch), int64."""
        if callable(self.order):
            order = np.stack([self._chosen(self.order(epoch)) for epoch in range(first, first + epochs)])
        elif self.order == "shuffle":
            order = random.permutations(key, first, epochs, self.count)
        elif self.order == "random":
            order = random.draws(key, first, epochs, self.epoch, self.count)
        else:
            order = np.broadcast_to(np.arange(self.count), (epochs, self.count))
        return order if self.rows is None else self.rows[order]

    def _chosen(self, rows: Any) -> np.ndarray:
        """What a user's function returned, checked."""
        rows = np.asarray(rows)
        if (
            rows.shape != (self.epoch,)
            or rows.dtype.kind not in "iu"
            or not (0 <= rows.min() <= rows.max() < self.count)
        ):
            raise ValueError(
                f"order returned {rows.dtype} of shape {rows.shape}: expected {self.epoch} whole numbers of rows, from 0 to "
                f"{self.count - 1}"
            )
        return rows.astype(np.int64, copy=False)


SOURCED = 1 << 23
"""Numbers that are taken from a source at a time: so many rows, and at least one batch."""


@dataclass(frozen=True)
class Data:
    """What ``fit`` trains on, on the backend: rows (or where to get them), targets, weights a row or None."""

    x: Array | Source
    y: Array
    weights: Array | None


class Standing(NamedTuple):
    """Where a network stands in its training: its state, and how many epochs and steps it has seen.

    ``how`` says in which way the backend ran the steps, where there are several.
    """

    state: State
    epochs: int
    steps: int
    how: str = ""


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
    """

    model: Model
    backend: Backend
    data: Data
    plan: Plan
    seed: int
    keys: Array | None
    kernels: Array | None
    evaluations: int = 0

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


def stepped(task: Task, standing: Standing, epochs: int, every_epoch: bool) -> Iterator[tuple[Standing, list[float]]]:
    """Train by steps, and hand out where the network stands and the losses of the epochs since the last time.

    With ``every_epoch`` that is after each; else after as many as one call holds.
    """
    key, plan = random.new_key(task.seed, random.ORDER), task.plan
    state, epoch, step, _ = standing
    last = epoch + epochs
    ways: dict[str, None] = {}
    known: dict[Any, tuple[Callable[..., Any], Model]] = {}
    while epoch < last:
        together = 1 if every_epoch else max(1, min(last - epoch, ROWS_A_CALL // plan.epoch))
        losses = []
        for order, count, data in _sourced(task, _calls(plan, key, epoch, together)):
            batches = task.batches(data, order, step)
            shapes = (id(task.model), data.x.shape, None if order is None else order.shape)
            if shapes not in known:  # to look among all programs takes longer than a small step
                known[shapes] = compiled_steps(task.model, task.backend, state, batches, task.kernels), task.model
            run, _ = known[shapes]  # with its model, so that no other has the same id
            state, some = run(count, state, batches, task.kernels)
            ways[getattr(run.loop, "how", "")] = None  # type: ignore[attr-defined]
            step += count
            losses.append((some, data.y.shape[0] if order is None else order.shape[1]))
        epoch += together
        yield Standing(state, epoch, step, ", ".join(ways)), _epoch_losses(task, losses, together)


def minimized(task: Task, standing: Standing, iterations: int) -> Iterator[tuple[Standing, list[float]]]:
    """Train on all rows at once by L-BFGS, an iteration an epoch, until its tolerance is reached.

    Rows from a source are gone through in parts, whose losses and gradients are added up.
    """
    model, backend, optimizer = task.model, task.backend, task.model.optimizer
    assert isinstance(optimizer, LBFGS)
    (start, _, statistics), epoch, step, _ = standing
    total, found = task.weight(task.data), statistics
    known: dict[tuple[int, ...], Callable[..., Any]] = {}

    def objective(theta: Array) -> tuple[float, Array]:
        nonlocal found
        task.evaluations += 1
        loss, gradient = 0.0, None
        for data, parts in _parts(task):
            kernels = task.kernels / float(parts) if optimizer.shared and task.kernels is not None else task.kernels
            batches = task.batches(data, None, step)
            arguments = (statistics, batches, kernels, batches.first_step)
            if data.x.shape not in known:
                known[data.x.shape] = compiled(model, backend, model.penalized_objective, theta, *arguments)
            one, slope, found = known[data.x.shape](theta, *arguments)
            share = 1.0 if parts == 1 else task.weight(data) / total
            loss += float(one) * share
            gradient = slope * share if gradient is None else gradient + slope * share
        return loss, gradient

    for theta, loss in lbfgs.minimize(
        backend.xp,
        objective,
        start,
        memory=optimizer.memory,
        tolerance=optimizer.tolerance,
        iterations=iterations,
        evaluations=optimizer.max_evaluations,
        first_step=float(optimizer.learning_rate),  # type: ignore[arg-type] # LBFGS takes no schedule
    ):
        if model.statistics.pieces:
            objective(theta)
            statistics = found
        epoch, step = epoch + 1, step + 1
        yield Standing(State(theta, (), statistics), epoch, step), [loss]
        if optimizer.budget is not None and task.evaluations > optimizer.budget:
            return


def _parts(task: Task) -> Iterator[tuple[Data, int]]:
    """All rows, or as many as are taken from a source at a time; and how many parts there are."""
    data, some = task.data, max(1, SOURCED // task.data.x.shape[1])
    if is_array(data.x):
        yield data, 1
        return
    slices = list(in_chunks(data.x.shape[0], some))
    for rows in slices:
        weights = None if data.weights is None else data.weights[rows]
        yield Data(task.backend.asarray(some_rows(data.x, rows)), data.y[rows, ...], weights), len(slices)


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


def _sourced(
    task: Task, calls: Iterator[tuple[np.ndarray | None, int]]
) -> Iterator[tuple[np.ndarray | None, int, Data]]:
    """The calls and what each reads: where rows come from a source, those of some steps, in their order."""
    data, backend = task.data, task.backend
    if is_array(data.x):
        for order, count in calls:
            yield order, count, data
        return
    for order, count in calls:
        numbers = np.arange(task.plan.count)[None, :] if order is None else order
        some = max(1, SOURCED // max(1, numbers.shape[1] * data.x.shape[1]))
        for start in range(0, len(numbers), some):
            rows = numbers[start : start + some]
            index = backend.indices(rows.reshape(-1))
            y, weights = (None if a is None else backend.xp.take(a, index, axis=0) for a in (data.y, data.weights))
            part = Data(backend.asarray(data.x.take(rows.reshape(-1))), y, weights)
            if order is None:
                yield None, count, part
            else:
                yield np.arange(rows.size).reshape(rows.shape), len(rows), part


def _epoch_losses(task: Task, losses: Sequence[tuple[Array, int]], epochs: int) -> list[float]:
    """Read the losses of all steps, once, and reduce them to one an epoch: the mean over its rows, or the sum."""
    values = np.concatenate([task.backend.to_numpy(some).astype(np.float64) for some, _ in losses])
    if task.model.loss.reduction == "mean":
        values = values * np.concatenate([np.full(some.shape[0], rows) for some, rows in losses]) / task.plan.epoch
    return [float(v) for v in values.reshape(epochs, -1).sum(axis=1)]


def in_chunks(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows that cover ``rows``."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
