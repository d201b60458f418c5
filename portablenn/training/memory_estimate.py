"""What a training takes of a device's memory, and what to do where that is too much.

Requires a model; nothing is run, sizes are those of the recorded step.
"""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass

import numpy as np

from ..nn.model import Batches, Model, State, accepted
from ..nn.optimizers import LBFGS
from ..program.ir import ArrayType, DType, Program
from ..program.simplify import simplify
from ..runtime.backend import Backend
from .step import INT32, trace_step


@dataclass(frozen=True)
class Demand:
    """A training as far as its memory goes: the model, the types of rows, targets and weights, and the rows of a step."""

    model: Model
    data: tuple[ArrayType, ArrayType, ArrayType | None]
    batch: int

    @property
    def state(self) -> State:
        """Parameters, optimizer's vectors, statistics."""
        theta, statistics = (
            ArrayType((n.size,), DType(self.model.dtype)) for n in (self.model.parameters, self.model.statistics)
        )
        return State(theta, tuple(theta for _ in self.model.optimizer.slots), statistics)

    def step(self, rows: int) -> int:
        """Bytes that the values of a step of ``rows`` take at most at one time; an estimate, for views count too."""
        model, order = self.model, ArrayType((1, rows), DType("int64"))
        drawn = any("random" in accepted(layer) for _, layer in model.layers)
        keys = ArrayType((len(model.layers), 2), INT32) if drawn else None
        kernels = self.state.theta if model.optimizer.penalizes else None
        batches = Batches(*self.data, order, keys, ArrayType((), INT32))
        return peak(simplify(trace_step(model, self.state, batches, kernels)))

    def told(self, backend: Backend, error: BaseException) -> str:
        """What there is to say of ``error``, the backend's, that memory does not suffice."""
        theta, slots, statistics = self.state
        data, state = size(*self.data), size(theta, *slots, statistics)
        takes = f"the data take {_bytes(data)}, parameters and what the optimizer remembers {_bytes(state)}"
        advice = "a smaller batch_size"
        if isinstance(self.model.optimizer, LBFGS):
            return f"{backend} has not the memory: {takes}. What helps: an optimizer that takes batches, such as Adam"
        with contextlib.suppress(Exception):  # an estimate that fails must not hide what it is for
            traceback.clear_frames(error.__traceback__)  # or the step that failed would still hold its arrays
            step, more = self.step(self.batch), self.step(2 * self.batch)
            takes += f", a step of {self.batch:,} rows about {_bytes(step)}"
            memory = backend.memory()
            if memory is not None:
                a_row = (more - step) / self.batch
                fits = max(1, int((memory[0] - (step - a_row * self.batch)) // a_row))
                takes += f"; {_bytes(memory[0])} of {_bytes(memory[1])} are free"
                if self.step(1) > memory[0]:
                    advice = 'fewer rows, dtype="float32", or another backend'
                elif fits < self.batch:
                    advice += f", by estimate batch_size={fits}"
                else:  # the step would fit: it was the data that did not
                    advice = "fewer rows, or a smaller batch_size"
        return f"{backend} has not the memory: {takes}. What helps: {advice}"


def peak(program: Program) -> int:
    """Bytes that what a program computes takes at most at one time, if each value is given back after its last use."""
    now = most = 0
    for operation, dead in zip(program.operations, program.last_uses, strict=True):
        now += size(operation.result.type)
        most = max(most, now)
        now -= size(*(variable.type for variable in dead))
    return most


def size(*types: ArrayType | None) -> int:
    """Bytes of arrays."""
    return sum(t.size * np.dtype(str(t.dtype)).itemsize for t in types if t is not None)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
