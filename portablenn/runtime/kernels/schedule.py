"""The schedule of a Program: the buffers of its values, and the instructions that fill them, in order.

It is for backends that write their own loops or kernels. Nothing in it depends on the number of a step, so that it can be
captured once and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...program.interpret import CREATION, execute
from ...program.ir import Array, ArrayType, Operation, Program, Variable
from ..backend import UnsupportedError
from .buffers import ITEMSIZE, VIEWS, Allocator, Buffer, Storage, dense, nbytes_of
from .fusion import ELEMENTWISE, Fusible, Group, Unit, fuse, with_broadcasts

ALIGNMENT = 256
"""Bytes: each storage of the arena begins at a multiple."""

PRODUCTS = ("matmul", "rounded_matmul")
"""Operations that are executed as a `Product`."""

Parts = Callable[[Buffer, tuple[int, ...]], int]
"""Among how many workers a backend divides a reduction of a buffer along some axes."""


@dataclass(frozen=True, eq=False)
class Instruction:
    """A part of a schedule: what is computed, and the buffers that it reads and writes."""

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Buffer))


@dataclass(frozen=True, eq=False)
class Fused(Instruction):
    """All operations of a group; ``operands`` are its reads and results. A result may overwrite a full value that is read."""

    group: Group
    operands: dict[Variable, Buffer]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(self.operands.values())


@dataclass(frozen=True, eq=False)
class Product(Instruction):
    """A matrix product, or the products of two stacks of matrices: out = a @ b.

    Each matrix has a stride of 1 along one of its two axes (see `Buffer`). All buffers have three axes if there are stacks; a
    factor that is the same in each product has a stride of 0. The factors are float64, float32, or rounded to ``precision``:
    "bfloat16", which they are stored in, or "tf32".
    """

    a: Buffer
    b: Buffer
    out: Buffer
    precision: str | None = None

    @property
    def stacked(self) -> int:
        """Number of products."""
        return self.out.shape[0] if len(self.out.shape) == 3 else 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows of ``a``, its columns, and columns of ``b``."""
        return *self.a.shape[-2:], self.b.shape[-1]  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Reduction(Instruction):
    """A "sum", "max" or "min" along axes; ``out`` is (kept,), or (parts, kept) where the work is shared by several."""

    function: str
    x: Buffer
    out: Buffer
    axes: tuple[int, ...]
    parts: int = 1


@dataclass(frozen=True, eq=False)
class Extreme(Instruction):
    """The first index of the extreme element along an axis, or of all: "argmax" or "argmin"."""

    function: str
    x: Buffer
    out: Buffer
    axis: int | None


@dataclass(frozen=True, eq=False)
class Gather(Instruction):
    """Slices of ``x`` along an axis, (…, n, …) and (k,) to (…, k, …)."""

    x: Buffer
    indices: Buffer
    out: Buffer
    axis: int


@dataclass(frozen=True, eq=False)
class Copy(Instruction):
    """Element by element, between buffers of one shape."""

    source: Buffer
    target: Buffer


@dataclass(frozen=True, eq=False)
class Collect(Instruction):
    """Copy to the row of ``target`` whose index is the counter."""

    source: Buffer
    target: Buffer
    counter: Buffer


@dataclass(frozen=True, eq=False)
class Count(Instruction):
    """Increment the counter of steps: the last instruction of a step."""

    counter: Buffer


@dataclass
class Schedule:
    """The instructions of one step in order, and the memory that they need.

    ``arena`` is the number of bytes for what a step computes, ``constants`` are arrays in the order of their storages' indices,
    ``results`` the buffers of the outputs (of a loop, of the carried inputs), ``collected`` the types of what a loop collects.
    """

    instructions: list[Instruction] = field(default_factory=list)
    arena: int = 0
    constants: list[Any] = field(default_factory=list)
    results: list[Buffer] = field(default_factory=list)
    collected: list[ArrayType] = field(default_factory=list)


def make_schedule(
    program: Program,
    xp: Any,
    carried: int | None = None,
    fusible: Fusible = lambda operation: True,
    parts: Parts = lambda x, axes: 1,
    apart: int = 0,
) -> Schedule:
    """Return the schedule of a program, or of one step of a loop (see `portablenn.runtime.numpy.plan.plan_loop`).

    The program is simplified; ``xp`` is NumPy's namespace, which computes constants; ``carried`` is the number of arrays that
    are carried from step to step, None if the program is not a step. Up to ``apart`` bytes, no two storages of the arena share
    memory. Raises UnsupportedError if there is no instruction for an operation or a dtype.
    """
    return _Scheduler(program, xp, carried, fusible, parts).run(apart)


def is_small(program: Program, multiplications: int, elements: int) -> bool:
    """Return whether the products take no more than ``multiplications`` in total, and no value has more than ``elements``.

    It depends on the program alone: how a backend runs a step, and so the last bits of results, must not depend on how often
    the step runs.
    """
    total = sum(o.multiplications for o in program.operations if o.name in PRODUCTS)
    return total <= multiplications and all(o.result.type.size <= elements for o in program.operations)


class _Scheduler:
    def __init__(self, program: Program, xp: Any, carried: int | None, fusible: Fusible, parts: Parts) -> None:
        self.parts, program = parts, with_broadcasts(program)
        for variable in (*program.inputs, *(o.result for o in program.operations)):
            dtype = variable.type.dtype
            if dtype not in ITEMSIZE or (dtype == "bfloat16" and variable in program.inputs):
                raise UnsupportedError(f"arrays of {dtype}")
        self.program, self.xp, self.looping = program, xp, carried is not None
        self.units = fuse(program, fusible, smallest=1)
        self.carried = list(zip(program.outputs, program.inputs[1:], strict=False))[: carried or 0]
        for result, home in self.carried:
            if home.type != result.type:
                raise UnsupportedError(f"a step that carries {home.type} as {result.type}")
        self.schedule = Schedule()
        self.allocator = Allocator(self.units, program.outputs, dict(self.carried), _computes_inside)
        self.buffers = self.allocator.buffers
        self.values: dict[Variable, np.ndarray] = {}  # results that do not depend on inputs

    def run(self, apart: int) -> Schedule:
        self._take_inputs()
        for unit in self.units:
            if isinstance(unit, Group):
                self._group(unit)
            elif not self._known(unit):
                self._operation(unit)
            self.allocator.release(unit)
        self._finish()
        self.schedule.arena = self.allocator.pack(ALIGNMENT, apart)
        return self.schedule

    def _take_inputs(self) -> None:
        carry = len(self.carried)
        for i, v in enumerate(self.program.inputs):
            if not self.looping:
                kind, index = "input", i
            elif i == 0:
                kind, index = "counter", 0
            else:
                kind, index = ("carry", i - 1) if i <= carry else ("input", i - 1 - carry)
            self.allocator.alias(v, dense(Storage(nbytes_of(v.type), kind, index), v.type))
        for v, array in self.program.constants.items():
            self._constant(v, array)

    def _constant(self, variable: Variable, array: Array) -> Buffer:
        storage = Storage(nbytes_of(variable.type), "constant", len(self.schedule.constants))
        self.schedule.constants.append(array)
        return self.allocator.alias(variable, dense(storage, variable.type))

    # What fills memory

    def _known(self, operation: Operation) -> bool:
        """Compute the result on the host if it does not depend on inputs; return whether it was computed."""
        if operation.result.type.dtype == "bfloat16":  # which NumPy lacks
            return False
        if operation.name == "broadcast_to" and operation.reads:  # a view takes no memory
            return False
        if operation.name not in CREATION and not (operation.reads and all(v in self.values for v in operation.reads)):
            return False
        arguments = [self.values[a] if isinstance(a, Variable) else a for a in operation.arguments]
        self.values[operation.result] = value = np.asarray(execute(self.xp, operation, arguments))
        self._constant(operation.result, value)
        return True

    def _group(self, group: Group) -> None:
        buffers = {v: self.buffers[v] for v in group.reads}
        for v in group.results:
            buffers[v] = self.allocator.allocate(group, v, group.elementwise_reads(v))
        self._append(Fused(group, buffers))

    def _operation(self, operation: Operation) -> None:
        name, out = operation.name, operation.result
        if name in VIEWS:
            source = self.buffers[operation.reads[0]]
            view = source.view(operation) or self._contiguous_copy(source).view(operation)
            assert view is not None
            self.allocator.alias(out, view)
            return
        inputs = [self.buffers[v] for v in operation.reads]
        if name in ELEMENTWISE and not out.type.size:
            self.allocator.allocate(operation, out)
        elif name in PRODUCTS:
            self._product(operation, inputs)
        elif name in ("sum", "max", "min"):
            self._reduction(operation, inputs[0])
        elif name in ("argmax", "argmin"):
            buffer = self.allocator.allocate(operation, out)
            self._append(Extreme(name, inputs[0], buffer, operation.parameters["axis"]))
        elif name == "take":
            buffer = self.allocator.allocate(operation, out)
            if out.type.size:
                self._append(Gather(inputs[0], inputs[1], buffer, operation.parameters["axis"]))
        elif name in ("concat", "stack"):
            self._concatenate(operation, inputs)
        else:
            raise UnsupportedError(f"{name} of {', '.join(str(v.type) for v in operation.reads)}")

    def _product(self, operation: Operation, inputs: list[Buffer]) -> None:
        a, b = inputs
        out = operation.result
        precision = operation.parameters.get("precision")
        dtypes = ("float32", "float64") if precision is None else ("float32" if precision == "tf32" else precision,)
        axes = {len(a.shape), len(b.shape)}
        if a.dtype != b.dtype or a.dtype not in dtypes or not axes <= {2, 3}:
            raise UnsupportedError(f"matmul of {' and '.join(str(v.type) for v in operation.reads)}")
        buffer = self.allocator.allocate(operation, out)
        if out.type.size == 0:
            return
        if a.shape[-1] == 0:
            zero = self._constant(Variable(ArrayType((), out.type.dtype)), np.zeros((), dtype=out.type.dtype))
            self._copy(replace(zero, shape=out.type.shape, strides=(0,) * len(out.type.shape)), buffer)
            return
        a, b = map(self._readable, (a, b))
        if 3 in axes:
            a, b = (_as_stack(x, out.type.shape[0]) for x in (a, b))
        self._append(Product(a, b, buffer, precision))

    def _readable(self, factor: Buffer) -> Buffer:
        """Return a factor of a product with a leading dimension, copied if it has none; what is repeated is copied once."""
        if factor.has_leading_dimension:
            return factor
        if len(factor.shape) == 3 and factor.strides[0] == 0:
            one = replace(factor, shape=factor.shape[1:], strides=factor.strides[1:])
            return _as_stack(self._contiguous_copy(one), factor.shape[0])
        return self._contiguous_copy(factor)

    def _reduction(self, operation: Operation, x: Buffer) -> None:
        axes, out = operation.parameters["axis"], operation.result
        buffer = self.allocator.allocate(operation, out)
        if out.type.size == 0:
            return
        flat, parts = replace(buffer, shape=(out.type.size,), strides=(1,)), self.parts(x, axes)
        if parts > 1:
            partial = self.allocator.temporary(ArrayType((parts, out.type.size), out.type.dtype))
            self._append(Reduction(operation.name, x, partial, axes, parts))
            x, axes = partial, (0,)
        self._append(Reduction(operation.name, x, flat, axes))

    def _concatenate(self, operation: Operation, inputs: list[Buffer]) -> None:
        """Copy the pieces that were not computed inside the result."""
        axis, out = operation.parameters["axis"], operation.result
        buffer = self.allocator.allocate(operation, out)
        start = 0
        for piece in inputs:
            if operation.name == "stack":
                piece = replace(
                    piece, shape=(*piece.shape[:axis], 1, *piece.shape[axis:]),
                    strides=(*piece.strides[:axis], 0, *piece.strides[axis:]),
                )  # fmt: skip
            target = replace(buffer, shape=piece.shape, offset=buffer.offset + start * buffer.strides[axis])
            start += piece.shape[axis]
            there = piece.storage is target.storage and piece.offset == target.offset and piece.contiguous
            if not there and 0 not in piece.shape:
                self._copy(piece, target)

    def _contiguous_copy(self, buffer: Buffer) -> Buffer:
        target = self.allocator.temporary(ArrayType(buffer.shape, buffer.dtype))
        self._copy(buffer, target)
        return target

    def _copy(self, source: Buffer, target: Buffer) -> None:
        if 0 not in source.shape:
            self._append(Copy(source, target))

    def _append(self, instruction: Instruction) -> None:
        self.schedule.instructions.append(instruction)
        self.allocator.use(*instruction.buffers)

    # The end of a step

    def _finish(self) -> None:
        if not self.looping:
            outputs = [self.buffers[v] for v in self.program.outputs]
            self.schedule.results = [b if b.contiguous else self._contiguous_copy(b) for b in outputs]
            self.allocator.use(*self.schedule.results)
            return
        counter = self.buffers[self.program.inputs[0]]
        for index, v in enumerate(self.program.outputs[len(self.carried) :]):
            self.schedule.collected.append(v.type)
            if v.type.size:
                row = dense(Storage(0, "collected", index), v.type)
                self._append(Collect(self.buffers[v], row, counter))
        for result, target in self.allocator.moves(self.carried):
            self._copy(self.buffers[result], self.buffers[target])
        self._append(Count(counter))
        self.schedule.results = [self.buffers[home] for _, home in self.carried]


def _as_stack(matrix: Buffer, count: int) -> Buffer:
    """Return a matrix, or a stack of one, as a stack of ``count`` matrices that are the same."""
    if len(matrix.shape) == 2:
        return replace(matrix, shape=(count, *matrix.shape), strides=(0, *matrix.strides))
    if matrix.shape[0] == 1 != count:
        return replace(matrix, shape=(count, *matrix.shape[1:]), strides=(0, *matrix.strides[1:]))
    return matrix


def _computes_inside(unit: Unit, concat: Operation) -> bool:
    """Whether ``unit`` can compute its results inside the buffer of a concatenation."""
    return isinstance(unit, Group) or unit.name in (*PRODUCTS, "sum", "max", "min", "take", "argmax", "argmin")
