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
from .buffers import BYTES, VIEWS, Place, Storage, size_of, whole
from .fusion import ELEMENTWISE, Extent, Group, Unit, fuse

ALIGNED = 256
"""Bytes: where a storage of the arena may begin."""


class UnsupportedError(Exception):
    """A backend has no way of its own for an operation; the message says which."""


@dataclass(frozen=True, eq=False)
class Fused:
    """All operations of a group; ``places`` holds its reads and results. A result may lie where a full value is read."""

    group: Group
    values: dict[Variable, Place]

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self.values.values())


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product: out = a @ b; each place has a stride of 1 along one of its two axes (`Place.has_lines`)."""

    a: Place
    b: Place
    out: Place

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.a, self.b, self.out)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A "sum", "max" or "min" along axes; ``out`` is (kept,), or (parts, kept) where the work is shared by several."""

    how: str
    x: Place
    out: Place
    axes: tuple[int, ...]
    parts: int = 1

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.x, self.out)


@dataclass(frozen=True, eq=False)
class Extreme:
    """Where the extreme element along an axis, or of all, stands first: "argmax" or "argmin"."""

    how: str
    x: Place
    out: Place
    axis: int | None

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.x, self.out)


@dataclass(frozen=True, eq=False)
class Gather:
    """Slices of ``x`` along an axis, (…, n, …) and (k,) to (…, k, …)."""

    x: Place
    indices: Place
    out: Place
    axis: int

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.x, self.indices, self.out)


@dataclass(frozen=True, eq=False)
class Copy:
    """Element by element, between places of one shape."""

    source: Place
    target: Place

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.source, self.target)


@dataclass(frozen=True, eq=False)
class Collect:
    """Into the row of ``target`` that the counter names."""

    source: Place
    target: Place
    counter: Place

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.source, self.target, self.counter)


@dataclass(frozen=True, eq=False)
class Count:
    """The counter of steps goes one up: the last call of a step."""

    counter: Place

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.counter,)


Call = Fused | Product | Reduction | Extreme | Gather | Copy | Collect | Count


@dataclass
class Schedule:
    """What to run, in order, and the memory that it needs.

    Attributes
    ----------
    calls
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

    calls: list[Call] = field(default_factory=list)
    arena: int = 0
    constants: list[Any] = field(default_factory=list)
    results: list[Place] = field(default_factory=list)
    collected: list[ArrayType] = field(default_factory=list)


def scheduled(
    program: Program,
    xp: Any,
    carried: int | None = None,
    fusible: Callable[[Operation], bool] = lambda operation: True,
    parts: Callable[[Place, tuple[int, ...]], int] = lambda x, axes: 1,
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
        parts: Callable[[Place, tuple[int, ...]], int],
    ) -> None:
        self.fusible, self.parts = fusible, parts
        for variable in (*program.inputs, *(o.result for o in program.operations)):
            if variable.type.dtype not in BYTES:
                raise UnsupportedError(f"arrays of {variable.type.dtype}")
        self.program, self.xp, self.looping = program, xp, carried is not None
        self.units = fuse(program, fusible, smallest=1)
        self.carry = program.inputs[1 : 1 + (carried or 0)] if self.looping else ()
        for home, out in zip(self.carry, program.outputs, strict=False):
            if home.type != out.type:
                raise UnsupportedError(f"a step that hands on {out.type} for {home.type}")
        self.result = Schedule()
        self.places: dict[Variable, Place] = {}
        self.values: dict[Variable, np.ndarray] = {}  # what is known now, for it is made of constants alone
        self.reserved: dict[Variable, Place] = {}
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
                if v in self.places:
                    self.reads_left[self.places[v].storage] -= 1
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
            self.places[v] = whole(Storage(size_of(v.type), kind, index), v.type)
        for v, array in self.program.constants.items():
            self._constant(v, array)

    def _constant(self, variable: Variable, array: Array) -> None:
        storage = Storage(size_of(variable.type), "constant", len(self.result.constants))
        self.result.constants.append(array)
        self.places[variable] = whole(storage, variable.type)

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
        for v, place in self.places.items():
            self.reads_left[place.storage] = self.reads_of[v]

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
        return Storage(max(1, size_of(variable.type)))

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
        places = {v: self.places[v] for v in group.reads}
        taken: set[Storage] = set()
        for v in group.results:
            places[v] = self.places[v] = self._home(group, v, taken) or self._memory(v)
            taken.add(places[v].storage)
        self._call(Fused(group, places))

    def _home(self, group: Group, variable: Variable, taken: set[Storage]) -> Place | None:
        """Where a carried value belongs, if each worker reads its own element of the old one, and nobody does later."""
        if max(group.levels.values()) > 0 or group.extents[variable] != Extent.FULL:
            return None
        for home, out in zip(self.carry, self.program.outputs, strict=False):
            place = self.places[home]
            if out is not variable or place.storage in taken or home in self.program.outputs:
                continue
            here = [v for v in group.reads if self.places[v].storage is place.storage]
            alike = all(group.extents[v] == Extent.FULL and self.places[v].contiguous for v in here)
            if home.type == out.type and alike and self.reads_left[place.storage] == len(here):
                return place
        return None

    def _memory(self, variable: Variable) -> Place:
        """Of a concatenation that was reserved, or new."""
        place = self.reserved.get(variable) or whole(self._new(variable), variable.type)
        self.reads_left[place.storage] += self.reads_of[variable]
        return place

    def _operation(self, operation: Operation) -> None:
        name, out = operation.name, operation.result
        if name in VIEWS:
            source = self.places[operation.reads[0]]
            self.places[out] = source.view(operation) or self._in_order(source).view(operation)  # type: ignore[assignment]
            return
        inputs = [self.places[v] for v in operation.reads]
        if name == "matmul":
            self._product(operation, inputs)
        elif name in ("sum", "max", "min"):
            self._reduction(operation, inputs[0])
        elif name in ("argmax", "argmin"):
            self.places[out] = self._memory(out)
            self._call(Extreme(name, inputs[0], self.places[out], operation.parameters["axis"]))
        elif name == "take":
            self.places[out] = self._memory(out)
            if out.type.size:
                self._call(Gather(inputs[0], inputs[1], self.places[out], operation.parameters["axis"]))
        elif name in ("concat", "stack"):
            self._joined(operation, inputs)
        elif name in ELEMENTWISE and self.fusible(operation):
            self._spread(operation, inputs)
        else:
            raise UnsupportedError(f"{name} of {', '.join(str(v.type) for v in operation.reads)}")

    def _spread(self, operation: Operation, inputs: list[Place]) -> None:
        """An elementwise operation whose arguments are broadcast in more ways than rows and columns."""
        out = operation.result
        self.places[out] = self._memory(out)
        if not out.type.size:
            return
        wide = Operation("broadcast_to", (out, out.type.shape), {}, out)
        places = {v: p.view(wide) for v, p in zip(operation.reads, inputs, strict=True)} | {out: self.places[out]}
        extents = dict.fromkeys(places, Extent.FULL)
        group = Group(out.type.shape, (operation,), extents, tuple(dict.fromkeys(operation.reads)), (out,))
        self._call(Fused(group, places))  # type: ignore[arg-type]

    def _product(self, operation: Operation, inputs: list[Place]) -> None:
        a, b = inputs
        out = operation.result
        if a.dtype != b.dtype or a.dtype not in ("float32", "float64") or len(a.shape) != 2 or len(b.shape) != 2:
            raise UnsupportedError(f"matmul of {' and '.join(str(v.type) for v in operation.reads)}")
        self.places[out] = self._memory(out)
        if out.type.size == 0:
            return
        if a.shape[1] == 0:
            zero = Variable(ArrayType((), a.dtype))
            self._constant(zero, np.zeros((), dtype=a.dtype))
            self._copy(replace(self.places[zero], shape=out.type.shape, strides=(0, 0)), self.places[out])
            return
        a, b = (place if place.has_lines else self._in_order(place) for place in (a, b))
        self._call(Product(a, b, self.places[out]))

    def _reduction(self, operation: Operation, x: Place) -> None:
        axes, out = operation.parameters["axis"], operation.result
        self.places[out] = self._memory(out)
        if out.type.size == 0:
            return
        flat = replace(self.places[out], shape=(out.type.size,), strides=(1,))
        parts = self.parts(x, axes)
        if parts == 1:
            self._call(Reduction(operation.name, x, flat, axes))
            return
        partial = Variable(ArrayType((parts, out.type.size), DType(out.type.dtype)))
        between = whole(self._new(partial), partial.type)
        self._call(Reduction(operation.name, x, between, axes, parts))
        self._call(Reduction(operation.name, between, flat, (0,)))

    def _joined(self, operation: Operation, inputs: list[Place]) -> None:
        """Only the pieces that do not lie in their place yet are copied."""
        axis, out = operation.parameters["axis"], operation.result
        self.places[out] = place = self._memory(out)
        start = 0
        for piece in inputs:
            if operation.name == "stack":
                piece = replace(
                    piece, shape=(*piece.shape[:axis], 1, *piece.shape[axis:]),
                    strides=(*piece.strides[:axis], 0, *piece.strides[axis:]),
                )  # fmt: skip
            target = replace(place, shape=piece.shape, offset=place.offset + start * place.strides[axis])
            start += piece.shape[axis]
            there = piece.storage is target.storage and piece.offset == target.offset and piece.contiguous
            if not there and 0 not in piece.shape:
                self._copy(piece, target)

    def _in_order(self, place: Place) -> Place:
        """A copy whose elements lie in order."""
        copy = Variable(ArrayType(place.shape, place.dtype))
        target = whole(self._new(copy), copy.type)
        self.reads_left[target.storage] += 1
        self._copy(place, target)
        return target

    def _copy(self, source: Place, target: Place) -> None:
        if 0 not in source.shape:
            self._call(Copy(source, target))

    def _call(self, call: Call) -> None:
        self.result.calls.append(call)
        now = len(self.result.calls) - 1
        for place in call.places:
            if place.storage.kind == "arena":
                self.life.setdefault(place.storage, [now, now])[1] = now

    # The end of a step, and memory

    def _finish(self) -> None:
        outputs = [self.places[v] for v in self.program.outputs]
        if not self.looping:
            self.result.results = [p if p.contiguous else self._in_order(p) for p in outputs]
            return
        counter = self.places[self.program.inputs[0]]
        for i, (v, place) in enumerate(zip(self.program.outputs, outputs, strict=True)):
            if i >= len(self.carry):
                index = len(self.result.collected)
                self.result.collected.append(v.type)
                if v.type.size:
                    target = whole(Storage(0, "collected", index), v.type)
                    self._call(Collect(place, target, counter))
        homes = [self.places[v] for v in self.carry]
        moves = [(p, h) for p, h in zip(outputs, homes, strict=False) if p.storage is not h.storage or not _same(p, h)]
        moves = [(self._in_order(p) if p.storage.kind == "carry" else p, h) for p, h in moves]
        for place, home in moves:
            self._copy(replace(place, shape=home.shape) if place.shape == home.shape else place, home)
        self._call(Count(counter))
        self.result.results = homes

    def _pack(self) -> None:
        """An offset for each storage of the arena: the first gap among those that live at the same time."""
        for place in self.result.results:
            if place.storage.kind == "arena":
                self.life.setdefault(place.storage, [0, 0])[1] = len(self.result.calls)
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


def _same(place: Place, home: Place) -> bool:
    return place.offset == home.offset and place.contiguous


def _fills_memory(unit: Unit | None) -> bool:
    """Whether the results of ``unit`` can be computed into memory of our choice."""
    if isinstance(unit, Group):
        return True
    return unit is not None and unit.name in ("matmul", "sum", "max", "min", "take", "argmax", "argmin")
