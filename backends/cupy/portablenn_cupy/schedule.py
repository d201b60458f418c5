"""The schedule of a Program on a device: where every value lies, and which kernels and products fill it, in order.

Requires NumPy, for constants; no GPU. Values that nobody reads any more give their memory to later ones; pieces of a
concatenation are computed where the whole will lie; a carried value is overwritten where each worker reads its own element
of the old one last. Nothing here depends on the number of a step, so that a schedule can be recorded once and replayed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from portablenn.program.fuse import ELEMENTWISE, Extent, Group, Unit, fuse
from portablenn.program.interpret import CREATION, execute
from portablenn.program.ir import Array, ArrayType, DType, Operation, Program, Variable

from .kernels import (
    Kernel,
    UnsupportedError,
    argument_kernel,
    collect_kernel,
    copy_kernel,
    count_kernel,
    expressible,
    group_kernel,
    reduction_kernel,
    reduction_parts,
    take_kernel,
)
from .places import BYTES, VIEWS, Place, Storage, size_of, whole
from .products import has_lines

ALIGNED = 256
"""Bytes: where a storage of the arena may begin."""


@dataclass(frozen=True)
class Product:
    """A matrix product: out = a @ b; each place has a stride of 1 along one of its two axes."""

    a: Place
    b: Place
    out: Place


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
        Arrays to be put on the device beforehand, in the order of their storages' indices.
    results
        Where the outputs lie; for a loop, those that are carried, in their homes.
    collected
        Of a loop: type and number of elements of what is kept of each step.
    """

    calls: list[Kernel | Product] = field(default_factory=list)
    arena: int = 0
    constants: list[Any] = field(default_factory=list)
    results: list[Place] = field(default_factory=list)
    collected: list[ArrayType] = field(default_factory=list)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Each kernel once, by name."""
        return {call.name: call for call in self.calls if isinstance(call, Kernel)}


def scheduled(program: Program, xp: Any, carried: int | None = None) -> Schedule:
    """The schedule of a program, or of one step of a loop (see `portablenn.program.plan.plan_loop`).

    Parameters
    ----------
    program
        Simplified.
    xp
        NumPy's namespace, which computes constants.
    carried
        How many arrays are handed from step to step; None if the program is not a step.

    Raises
    ------
    UnsupportedError
        If there is no kernel for an operation.
    """
    return _Scheduler(program, xp, carried).schedule()


class _Scheduler:
    def __init__(self, program: Program, xp: Any, carried: int | None) -> None:
        for variable in (*program.inputs, *(o.result for o in program.operations)):
            if variable.type.dtype not in BYTES:
                raise UnsupportedError(f"arrays of {variable.type.dtype}")
        self.program, self.xp, self.looping = program, xp, carried is not None
        self.units = fuse(program, expressible, smallest=1)
        self.carry = program.inputs[1 : 1 + (carried or 0)] if self.looping else ()
        for home, out in zip(self.carry, program.outputs, strict=False):
            if home.type != out.type:
                raise UnsupportedError(f"a step that hands on {out.type} for {home.type}")
        self.result = Schedule()
        self.places: dict[Variable, Place] = {}
        self.values: dict[Variable, np.ndarray] = {}  # what is known now, for it is made of constants alone
        self.texts: dict[str, str] = {}
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
        self.root = root
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
        self._call(group_kernel("kernel", group, places))

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
            self._call(argument_kernel("kernel", name, inputs[0], self.places[out], operation.parameters["axis"]))
        elif name == "take":
            self.places[out] = self._memory(out)
            if out.type.size:
                self._call(take_kernel("kernel", *inputs, self.places[out], operation.parameters["axis"]))
        elif name in ("concat", "stack"):
            self._joined(operation, inputs)
        elif name in ELEMENTWISE and expressible(operation):
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
        self._call(group_kernel("kernel", group, places))  # type: ignore[arg-type]

    def _product(self, operation: Operation, inputs: list[Place]) -> None:
        a, b = inputs
        out = operation.result
        if max(*a.shape, *b.shape, math.prod(operation.result.type.shape)) >= 2**31:
            raise UnsupportedError(
                f"matmul of {' and '.join(str(v.type) for v in operation.reads)}"
            )  # cuBLAS takes ints
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
        a, b = (place if has_lines(place) else self._in_order(place) for place in (a, b))
        self.result.calls.append(Product(a, b, self.places[out]))
        self._live(a, b, self.places[out])

    def _reduction(self, operation: Operation, x: Place) -> None:
        axes, out = operation.parameters["axis"], operation.result
        if BYTES[out.type.dtype] < 4:
            raise UnsupportedError(f"{operation.name} of {x.dtype}")  # there is no shuffle of such
        self.places[out] = self._memory(out)
        if out.type.size == 0:
            return
        flat = replace(self.places[out], shape=(out.type.size,), strides=(1,))
        parts = reduction_parts(x, axes)
        if parts == 1:
            self._call(reduction_kernel("kernel", operation.name, x, flat, axes, 1))
            return
        partial = Variable(ArrayType((parts, out.type.size), DType(out.type.dtype)))
        between = whole(self._new(partial), partial.type)
        self._call(reduction_kernel("kernel", operation.name, x, between, axes, parts))
        self._call(reduction_kernel("kernel", operation.name, between, flat, (0,), 1))

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
            if not there and math.prod(piece.shape):
                self._copy(piece, target)

    def _in_order(self, place: Place) -> Place:
        """A copy whose elements lie in order."""
        copy = Variable(ArrayType(place.shape, place.dtype))
        target = whole(self._new(copy), copy.type)
        self.reads_left[target.storage] += 1
        self._copy(place, target)
        return target

    def _copy(self, source: Place, target: Place) -> None:
        if math.prod(source.shape):
            self._call(copy_kernel("kernel", source, target))

    def _call(self, kernel: Kernel) -> None:
        """Kernels with the same text are one."""
        name = self.texts.setdefault(kernel.text, f"kernel_{len(self.texts)}")
        text = kernel.text.replace(f"void {kernel.name}(", f"void {name}(", 1)
        self.result.calls.append(replace(kernel, name=name, text=text))
        self._live(*kernel.arguments)

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
                    self._call(collect_kernel("kernel", place, target, counter))
        homes = [self.places[v] for v in self.carry]
        moves = [(p, h) for p, h in zip(outputs, homes, strict=False) if p.storage is not h.storage or not _same(p, h)]
        moves = [(self._in_order(p) if p.storage.kind == "carry" else p, h) for p, h in moves]
        for place, home in moves:
            self._copy(replace(place, shape=home.shape) if place.shape == home.shape else place, home)
        self._call(count_kernel("kernel", counter))
        self.result.results = homes

    def _live(self, *places: Place) -> None:
        now = len(self.result.calls) - 1
        for place in places:
            if place.storage.kind == "arena":
                self.life.setdefault(place.storage, [now, now])[1] = now

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


def addresses(places: Sequence[Place], base: Any) -> list[int]:
    """Of arrays: ``base(storage)`` is the address where a storage begins."""
    return [base(place.storage) + place.offset * BYTES[place.dtype] for place in places]
