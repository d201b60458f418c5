"""An estimate of the memory that training takes, from the traced step, and an error message with the sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..data.dataset import Dataset
from ..nn.model import Batches, Model, State, accepted
from ..nn.optimizers import LBFGS
from ..program.ir import ArrayType, DType, Program
from ..program.simplify import simplify
from ..runtime.arrays import array_type, is_array
from ..runtime.backend import Backend, OutOfMemoryError
from ..transforms.compile import trace_loop


@dataclass(frozen=True)
class MemoryEstimate:
    """What decides the memory of training: the model, the types of rows, targets and weights, and the rows of a step."""

    model: Model
    data: tuple[ArrayType, ArrayType, ArrayType | None]
    batch: int

    @property
    def state(self) -> State:
        """The types of parameters, optimizer slots and statistics."""
        theta, statistics = (
            ArrayType((n.size,), DType(self.model.dtype)) for n in (self.model.parameters, self.model.statistics)
        )
        return State(theta, tuple(theta for _ in self.model.optimizer.slots), statistics)

    def step(self, rows: int) -> int:
        """Return the peak size in bytes of the values of a step; an estimate, because views are counted as arrays."""
        model, order = self.model, ArrayType((1, rows), DType("int64"))
        random_layers = any("random" in accepted(layer) for _, layer in model.layers)
        keys = ArrayType((len(model.layers), 2), DType("int32")) if random_layers else None
        mask = self.state.theta if model.optimizer.penalizes else None
        batches = Batches(*self.data, order, keys, ArrayType((), DType("int32")))
        program, _ = trace_loop(model.step, self.state, batches, mask)
        return peak(simplify(program))

    def describe(self, backend: Backend, error: BaseException) -> str:
        """Return an error message for the out-of-memory ``error`` of a backend."""
        theta, slots, statistics = self.state
        data, state = size(*self.data), size(theta, *slots, statistics)
        sizes = f"the data take {_bytes(data)}, parameters and optimizer slots {_bytes(state)}"
        advice = "a smaller batch_size"
        if isinstance(self.model.optimizer, LBFGS):
            return f"{backend} is out of memory: {sizes}. Use an optimizer that takes batches, such as Adam"
        with contextlib.suppress(Exception):  # a failing estimate must not hide the error
            import traceback

            traceback.clear_frames(error.__traceback__)  # or the failed step would still hold its arrays
            step, more = self.step(self.batch), self.step(2 * self.batch)
            sizes += f", a step of {self.batch:,} rows about {_bytes(step)}"
            memory = backend.memory()
            if memory is not None:
                per_row = (more - step) / self.batch
                fits = max(1, int((memory[0] - (step - per_row * self.batch)) // per_row))
                sizes += f"; {_bytes(memory[0])} of {_bytes(memory[1])} are free"
                if self.step(1) > memory[0]:
                    advice = 'fewer rows, dtype="float32", or another backend'
                elif fits < self.batch:
                    advice += f", by estimate batch_size={fits}"
                else:  # the step would fit: the data do not
                    advice = "fewer rows, or a smaller batch_size"
        return f"{backend} is out of memory: {sizes}. Use {advice}"


@contextmanager
def explain_out_of_memory(model: Model, backend: Backend, data: Dataset, batch: int) -> Iterator[None]:
    """Raise `OutOfMemoryError` with the sizes of data, state and step where the memory of a device is exhausted."""
    try:
        yield
    except Exception as error:
        if not backend.is_out_of_memory(error) or not is_array(data.x):
            raise
        types = (array_type(data.x), array_type(data.y), None if data.weights is None else array_type(data.weights))
        raise OutOfMemoryError(MemoryEstimate(model, types, batch).describe(backend, error)) from error


def peak(program: Program) -> int:
    """Return the peak size in bytes of a program's values, if each is freed after its last use."""
    now = most = 0
    for operation, dead in zip(program.operations, program.last_uses, strict=True):
        now += size(operation.result.type)
        most = max(most, now)
        now -= size(*(variable.type for variable in dead))
    return most


def size(*types: ArrayType | None) -> int:
    """Return the size of arrays in bytes."""
    return sum(t.size * np.dtype(str(t.dtype)).itemsize for t in types if t is not None)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
