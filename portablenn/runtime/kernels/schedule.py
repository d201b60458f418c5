"""The schedule of a Program in flat memory: where every value lies, and which calls fill it, in order.

Requires NumPy, for constants. It is for backends that write their own loops or kernels: it knows nothing of how a call is
done. Values that nobody reads any more give their memory to later ones; pieces of a concatenation are computed where the
whole will lie; a carried value is overwritten where each element of the old one is read last with the same of the new.
Nothing depends on the number of a step, so that a schedule can be recorded once and replayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...program.interpret import CREATION, execute
from ...program.ir import Array, ArrayType, DType, Operation, Program, Variable
from .buffers import ITEMSIZE, VIEWS, Buffer, Storage, nbytes_of, whole
from .fusion import ELEMENTWISE, Extent, Group, Unit, fuse

ALIGNED = 256
"""Bytes: where a storage of the arena may begin."""


class UnsupportedError(Exception):
    """A backend has no way of its own for an operation; the message says which."""


@dataclass(frozen=True, eq=False)
class Fused:
    """All operations of a group; ``buffers`` holds its reads and results. A result may lie where a full value is read."""

    group: Group
    values: dict[Variable, Buffer]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(self.values.values())


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product: out = a @ b; each buffer has a stride of 1 along one of its two axes (see `Buffer`)."""

    a: Buffer
    b: Buffer
    out: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.a, self.b, self.out)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A "sum", "max" or "min" along axes; ``out`` is (kept,), or (parts, kept) where the work is shared by several."""

    how: str
    x: Buffer
    out: Buffer
    axes: tuple[int, ...]
    parts: int = 1

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.x, self.out)


@dataclass(frozen=True, eq=False)
class Extreme:
    """Where the extreme element along an axis, or of all, stands first: "argmax" or "argmin"."""

    how: str
    x: Buffer
    out: Buffer
    axis: int | None

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.x, self.out)


@dataclass(frozen=True, eq=False)
class Gather:
    """Slices of ``x`` along an axis, (…, n, …) and (k,) to (…, k, …)."""

    x: Buffer
    indices: Buffer
    out: Buffer
    axis: int

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.x, self.indices, self.out)


@dataclass(frozen=True, eq=False)
class Copy:
    """Element by element, between buffers of one shape."""

    source: Buffer
    target: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.source, self.target)


@dataclass(frozen=True, eq=False)
class Collect:
    """Into the row of ``target`` that the counter names."""

    source: Buffer
    target: Buffer
    counter: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.source, self.target, self.counter)


@dataclass(frozen=True, eq=False)
class Count:
    """The counter of steps goes one up: the last call of a step."""

    counter: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.counter,)


Instruction = Fused | Product | Reduction | Extreme | Gather | Copy | Collect | Count


@dataclass
class Schedule:
    """What to run, in order, and the memory that it needs.

    Attributes
    ----------
    instructions
        Of one step.
    arena
        Bytes for everything that a step computes.
    constants
        Arrays to be there beforehand, in the order of their storages' indices.
    results
        Where the outputs lie; for a loop, those that are carried, in their homes.
    collected
        Of a loop: type and number of elements of what is kept of each step.
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
    fusible: Callable[[Operation], bool] = lambda operation: True,
    parts: Callable[[Buffer, tuple[int, ...]], int] = lambda x, axes: 1,
) -> Schedule:
    """The schedule of a program, or of one step of a loop (see `portablenn.runtime.numpy.plan.plan_loop`).

    Parameters
    ----------
    program
        Simplified.
    xp
        NumPy's namespace, which computes constants.
    carried
        How many arrays are handed from step to step; None if the program is not a step.
    fusible
        Which elementwise operations and row reductions the backend can do; see `portablenn.runtime.kernels.fusion.fuse`.
    parts
        By how many the backend wants to share the work of a reduction along some axes.

    Raises
    ------
    UnsupportedError
        If an operation, or a dtype, is none that a call is for.
    """
    return _Scheduler(program, xp, carried, fusible, parts).schedule()


def is_small(program: Program, multiplications: int, elements: int) -> bool:
    """Whether no more is multiplied in all products, and no value is larger: by the program alone, so that the way of a
    backend that asks, and with it its results to the last bit, do not depend on how often a step is done.
    """
    products = (o for o in program.operations if o.name == "matmul")
    work = sum(o.result.type.size * o.reads[0].type.shape[-1] for o in products)
    return work <= multiplications and all(o.result.type.size <= elements for o in program.operations)


class _Scheduler:
    def __init__(
        self,
        program: Program,
        xp: Any,
        carried: int | None,
        fusible: Callable[[Operation], bool],
        parts: Callable[[Buffer, tuple[int, ...]], int],
    ) -> None:
        self.fusible, self.parts = fusible, parts
        for variable in (*program.inputs, *(o.result for o in program.operations)):
            if variable.type.dtype not in ITEMSIZE:
                raise UnsupportedError(f"arrays of {variable.type.dtype}")
        self.program, self.xp, self.looping = program, xp, carried is not None
        self.units = fuse(program, fusible, smallest=1)
        self.carry = program.inputs[1 : 1 + (carried or 0)] if self.looping else ()
        for home, out in zip(self.carry, program.outputs, strict=False):
            if home.type != out.type:
                raise UnsupportedError(f"a step that hands on {out.type} for {home.type}")
        self.result = Schedule()
        self.buffers: dict[Variable, Buffer] = {}
        self.values: dict[Variable, np.ndarray] = {}  # what is known now, for it is made of constants alone
        self.reserved: dict[Variable, Buffer] = {}
        self.reads_left: dict[Storage, int] = defaultdict(int)
        self.life: dict[Storage, list[int]] = {}

    def schedule(self) -> Schedule:
        self._place_inputs()
        self._count_reads()
        self._reserve_pieces()
        for unit in self.units:
            if isinstance(unit, Group):
                self._group(unit)
            elif not self._known(unit):
                self._operation(unit)
            for v in unit.reads:
                if v in self.buffers:
                    self.reads_left[self.buffers[v].storage] -= 1
        self._finish()
        self._pack()
        return self.result

    # Where inputs lie

    def _place_inputs(self) -> None:
        for i, v in enumerate(self.program.inputs):
            if self.looping and i == 0:
                kind, index = "counter", 0
            elif v in self.carry:
                kind, index = "carry", i - 1
            else:
                kind, index = "input", i - 1 - len(self.carry) if self.looping else i
            self.buffers[v] = whole(Storage(nbytes_of(v.type), kind, index), v.type)
        for v, array in self.program.constants.items():
            self._constant(v, array)

    def _constant(self, variable: Variable, array: Array) -> None:
        storage = Storage(nbytes_of(variable.type), "constant", len(self.result.constants))
        self.result.constants.append(array)
        self.buffers[variable] = whole(storage, variable.type)

    def _count_reads(self) -> None:
        """How often each storage will be read: views are traced back to what they look at."""
        root: dict[Variable, Variable] = {}
        for unit in self.units:
            if isinstance(unit, Operation) and unit.name in VIEWS:
                root[unit.result] = root.get(unit.reads[0], unit.reads[0])
        self.reads_of: dict[Variable, int] = defaultdict(int)
        for unit in self.units:
            for v in unit.reads:
                self.reads_of[root.get(v, v)] += 1
        for v in self.program.outputs:
            self.reads_of[root.get(v, v)] += 1
        for v, buffer in self.buffers.items():
            self.reads_left[buffer.storage] = self.reads_of[v]

    def _reserve_pieces(self) -> None:
        """The results that can be computed where a later concatenation wants them."""
        made_by = {v: unit for unit in self.units for v in unit.results}
        for unit in self.units:
            if isinstance(unit, Group) or unit.name != "concat":
                continue
            axis, start = unit.parameters["axis"], 0
            if any(n != 1 for n in unit.result.type.shape[:axis]):
                continue
            storage: Storage | None = None
            for piece in unit.reads:
                value, source = piece, made_by.get(piece)
                if isinstance(source, Operation) and source.name == "reshape":
                    value = source.reads[0]
                    source = made_by.get(value)
                if _fills_memory(source) and value not in self.reserved and value not in self.program.outputs:
                    storage = storage or self._new(unit.result)
                    self.reserved[value] = whole(storage, value.type, start)
                start += piece.type.size
            if storage is not None:
                self.reserved[unit.result] = whole(storage, unit.result.type)

    def _new(self, variable: Variable) -> Storage:
        return Storage(max(1, nbytes_of(variable.type)))

    # What fills memory

    def _known(self, operation: Operation) -> bool:
        """Made of nothing but numbers and constants of this file's own making: computed now, on the host."""
        if operation.name not in CREATION and not (operation.reads and all(v in self.values for v in operation.reads)):
            return False
        arguments = [self.values[a] if isinstance(a, Variable) else a for a in operation.arguments]
        value = np.asarray(execute(self.xp, operation, arguments))
        self.values[operation.result] = value
        self._constant(operation.result, value)
        return True

    def _group(self, group: Group) -> None:
        buffers = {v: self.buffers[v] for v in group.reads}
        taken: set[Storage] = set()
        for v in group.results:
            buffers[v] = self.buffers[v] = self._home(group, v, taken) or self._memory(v)
            taken.add(buffers[v].storage)
        self._call(Fused(group, buffers))

    def _home(self, group: Group, variable: Variable, taken: set[Storage]) -> Buffer | None:
        """Where a carried value belongs, if each worker reads its own element of the old one, and nobody does later."""
        if max(group.levels.values()) > 0 or group.extents[variable] != Extent.FULL:
            return None
        for home, out in zip(self.carry, self.program.outputs, strict=False):
            buffer = self.buffers[home]
            if out is not variable or buffer.storage in taken or home in self.program.outputs:
                continue
            here = [v for v in group.reads if self.buffers[v].storage is buffer.storage]
            alike = all(group.extents[v] == Extent.FULL and self.buffers[v].contiguous for v in here)
            if home.type == out.type and alike and self.reads_left[buffer.storage] == len(here):
                return buffer
        return None

    def _memory(self, variable: Variable) -> Buffer:
        """Of a concatenation that was reserved, or new."""
        buffer = self.reserved.get(variable) or whole(self._new(variable), variable.type)
        self.reads_left[buffer.storage] += self.reads_of[variable]
        return buffer

    def _operation(self, operation: Operation) -> None:
        name, out = operation.name, operation.result
        if name in VIEWS:
            source = self.buffers[operation.reads[0]]
            self.buffers[out] = source.view(operation) or self._contiguous_copy(source).view(operation)  # type: ignore[assignment]
            return
        inputs = [self.buffers[v] for v in operation.reads]
        if name == "matmul":
            self._product(operation, inputs)
        elif name in ("sum", "max", "min"):
            self._reduction(operation, inputs[0])
        elif name in ("argmax", "argmin"):
            self.buffers[out] = self._memory(out)
            self._call(Extreme(name, inputs[0], self.buffers[out], operation.parameters["axis"]))
        elif name == "take":
            self.buffers[out] = self._memory(out)
            if out.type.size:
                self._call(Gather(inputs[0], inputs[1], self.buffers[out], operation.parameters["axis"]))
        elif name in ("concat", "stack"):
            self._joined(operation, inputs)
        elif name in ELEMENTWISE and self.fusible(operation):
            self._spread(operation, inputs)
        else:
            raise UnsupportedError(f"{name} of {', '.join(str(v.type) for v in operation.reads)}")

    def _spread(self, operation: Operation, inputs: list[Buffer]) -> None:
        """An elementwise operation whose arguments are broadcast in more ways than rows and columns."""
        out = operation.result
        self.buffers[out] = self._memory(out)
        if not out.type.size:
            return
        wide = Operation("broadcast_to", (out, out.type.shape), {}, out)
        buffers = {v: p.view(wide) for v, p in zip(operation.reads, inputs, strict=True)} | {out: self.buffers[out]}
        extents = dict.fromkeys(buffers, Extent.FULL)
        group = Group(out.type.shape, (operation,), extents, tuple(dict.fromkeys(operation.reads)), (out,))
        self._call(Fused(group, buffers))  # type: ignore[arg-type]

    def _product(self, operation: Operation, inputs: list[Buffer]) -> None:
        a, b = inputs
        out = operation.result
        if a.dtype != b.dtype or a.dtype not in ("float32", "float64") or len(a.shape) != 2 or len(b.shape) != 2:
            raise UnsupportedError(f"matmul of {' and '.join(str(v.type) for v in operation.reads)}")
        self.buffers[out] = self._memory(out)
        if out.type.size == 0:
            return
        if a.shape[1] == 0:
            zero = Variable(ArrayType((), a.dtype))
            self._constant(zero, np.zeros((), dtype=a.dtype))
            self._copy(replace(self.buffers[zero], shape=out.type.shape, strides=(0, 0)), self.buffers[out])
            return
        a, b = (buffer if buffer.has_leading_dimension else self._contiguous_copy(buffer) for buffer in (a, b))
        self._call(Product(a, b, self.buffers[out]))

    def _reduction(self, operation: Operation, x: Buffer) -> None:
        axes, out = operation.parameters["axis"], operation.result
        self.buffers[out] = self._memory(out)
        if out.type.size == 0:
            return
        flat = replace(self.buffers[out], shape=(out.type.size,), strides=(1,))
        parts = self.parts(x, axes)
        if parts == 1:
            self._call(Reduction(operation.name, x, flat, axes))
            return
        partial = Variable(ArrayType((parts, out.type.size), DType(out.type.dtype)))
        between = whole(self._new(partial), partial.type)
        self._call(Reduction(operation.name, x, between, axes, parts))
        self._call(Reduction(operation.name, between, flat, (0,)))

    def _joined(self, operation: Operation, inputs: list[Buffer]) -> None:
        """Only the pieces that do not lie there yet are copied."""
        axis, out = operation.parameters["axis"], operation.result
        self.buffers[out] = buffer = self._memory(out)
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
        """A copy whose elements lie in order."""
        copy = Variable(ArrayType(buffer.shape, buffer.dtype))
        target = whole(self._new(copy), copy.type)
        self.reads_left[target.storage] += 1
        self._copy(buffer, target)
        return target

    def _copy(self, source: Buffer, target: Buffer) -> None:
        if 0 not in source.shape:
            self._call(Copy(source, target))

    def _call(self, call: Instruction) -> None:
        self.result.instructions.append(call)
        now = len(self.result.instructions) - 1
        for buffer in call.buffers:
            if buffer.storage.kind == "arena":
                self.life.setdefault(buffer.storage, [now, now])[1] = now

    # The end of a step, and memory

    def _finish(self) -> None:
        outputs = [self.buffers[v] for v in self.program.outputs]
        if not self.looping:
            self.result.results = [p if p.contiguous else self._contiguous_copy(p) for p in outputs]
            return
        counter = self.buffers[self.program.inputs[0]]
        for i, (v, buffer) in enumerate(zip(self.program.outputs, outputs, strict=True)):
            if i >= len(self.carry):
                index = len(self.result.collected)
                self.result.collected.append(v.type)
                if v.type.size:
                    target = whole(Storage(0, "collected", index), v.type)
                    self._call(Collect(buffer, target, counter))
        homes = [self.buffers[v] for v in self.carry]
        moves = [(p, h) for p, h in zip(outputs, homes, strict=False) if p.storage is not h.storage or not _same(p, h)]
        moves = [(self._contiguous_copy(p) if p.storage.kind == "carry" else p, h) for p, h in moves]
        for buffer, home in moves:
            self._copy(replace(buffer, shape=home.shape) if buffer.shape == home.shape else buffer, home)
        self._call(Count(counter))
        self.result.results = homes

    def _pack(self) -> None:
        """An offset for each storage of the arena: the first gap among those that live at the same time."""
        for buffer in self.result.results:
            if buffer.storage.kind == "arena":
                self.life.setdefault(buffer.storage, [0, 0])[1] = len(self.result.instructions)
        placed: list[tuple[int, int, int, int]] = []  # begin, end, first and last call
        for storage, (first, last) in sorted(self.life.items(), key=lambda item: -item[0].nbytes):
            size = -(-storage.nbytes // ALIGNED) * ALIGNED
            at = 0
            for begin, end, other_first, other_last in sorted(placed):
                if other_first <= last and first <= other_last and begin < at + size and at < end:
                    at = end
            storage.index = at
            placed.append((at, at + size, first, last))
        self.result.arena = max((end for _, end, _, _ in placed), default=0)


def _same(buffer: Buffer, home: Buffer) -> bool:
    return buffer.offset == home.offset and buffer.contiguous


def _fills_memory(unit: Unit | None) -> bool:
    """Whether the results of ``unit`` can be computed into memory of our choice."""
    if isinstance(unit, Group):
        return True
    return unit is not None and unit.name in ("matmul", "sum", "max", "min", "take", "argmax", "argmin")
