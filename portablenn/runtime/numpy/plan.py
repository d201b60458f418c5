"""The plan: a Program as one straight-line Python function of NumPy calls that allocate nothing.

Requires NumPy. Every value gets its memory beforehand: memory is reused as soon as nobody reads it any more, results of
elementwise operations overwrite an argument that is read for the last time, pieces of a concatenation are computed
where the whole will lie, and reshapes, transposes and slices cost nothing, for they are views made once. The calls,
with their arrays and functions bound, are then the lines of one generated function.

`plan` serves a function that is called once in a while; `plan_loop` runs a step many times in one call.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import array_api_compat.numpy as xp
import numpy as np

from ...program.interpret import execute
from ...program.ir import Array, ArrayType, Operation, Program, Variable
from ...program.simplify import drop_dead
from ..kernels.fusion import Extent, Group, Unit
from .lowering import CALLS, UFUNCS, VIEWS, Code, Operand, address, can_write, same_memory

LARGE, BLOCK, ALIGNED = 1 << 18, 1 << 25, 64
"""Bytes of an array that lies in a block, of a block, and of what an array in it starts at a multiple of."""


class Fusion(Protocol):
    """How a plug-in computes groups of operations, and some by themselves; without one the plan calls NumPy for each."""

    def units(self, program: Program) -> Sequence[Unit]:
        """The program's operations, and the groups that take the place of some."""

    def call(self, code: Code, group: Group, reads: list[Operand], results: list[Operand]) -> None:
        """Write the line that computes ``results``; one may lie in the memory of a full value that is read."""

    def operation(self, code: Code, operation: Operation, arguments: list[Any], out: Operand) -> bool:
        """Write the line that computes one operation, if it has a faster one than NumPy's; say whether it did."""


def plan(program: Program, fusion: Fusion | None = None) -> Callable[..., tuple[Array, ...]]:
    """A callable with the meaning of ``program`` on NumPy arrays; its results are the caller's own.

    Calls from several threads at once get memory of their own.
    """
    contracted = _contracted(program)
    return Pool(lambda: _Planner(contracted, None, fusion).call())


def plan_loop(program: Program, carried: int, fusion: Fusion | None = None) -> Callable[..., tuple[Array, ...]]:
    """A callable ``loop(count, *carry, *data)`` that runs a step ``count`` times without leaving the function.

    Parameters
    ----------
    program
        The step: inputs are the number of the iteration (int32, from 0), then ``carried`` arrays that it hands on, then
        data that stay the same; outputs are the carried arrays, then what is to be collected of each step.
    carried
        How many arrays are carried.
    fusion
        Computes groups of operations.

    Returns
    -------
    callable
        Returns the carried arrays after the last step, then the collected ones with ``count`` rows each.
    """
    for home, out in zip(program.inputs[1 : 1 + carried], program.outputs, strict=False):
        if home.type != out.type:
            raise TypeError(
                f"{program.name} hands on {out.type} for {home.type}: a carried array keeps shape and dtype"
            )
    collecting, numbers = _scaled_after(_contracted(program), carried)
    return Pool(lambda: _Planner(collecting, carried, fusion).loop(numbers))


def _contracted(program: Program) -> Program:
    """With a dot product for the sum of all squares, or of all products of two arrays, or of a number times such."""
    made_by = {operation.result: operation for operation in program.operations}
    uses = Counter(v for operation in program.operations for v in operation.reads) + Counter(program.outputs)
    operations: list[Operation] = []

    def only_for(variable: Variable) -> Operation | None:
        """What makes it, if it has one use; not of half precision, in which a sum of squares soon overflows."""
        roomy = variable.type.dtype in ("float32", "float64")
        return made_by.get(variable) if roomy and uses[variable] == 1 else None

    for operation in program.operations:
        product, number = None, None
        if operation.name == "sum" and operation.result.type.shape == ():
            product = only_for(operation.reads[0])
            while product is not None and (
                product.name == "reshape" or (number is None and _number(product) is not None)
            ):
                number = _number(product) if number is None else number
                product = only_for(product.reads[0])
        factors: tuple[Variable, ...] = ()
        if product is not None and product.name in ("square", "multiply") and _number(product) is None:
            factors = product.reads * (2 if product.name == "square" else 1)
        if product is None or len(factors) != 2 or any(f.type != product.result.type for f in factors):
            operations.append(operation)
            continue
        lines = {f: Variable(ArrayType((f.type.size,), f.type.dtype)) for f in factors}
        operations += [Operation("reshape", (f, line.type.shape), {}, line) for f, line in lines.items()]
        dot = operation.result if number is None else Variable(operation.result.type)
        operations.append(Operation("vecdot", (lines[factors[0]], lines[factors[1]]), {"axis": -1}, dot))
        if number is not None:
            operations.append(Operation("multiply", (dot, number), {}, operation.result))
    return drop_dead(Program(program.inputs, tuple(operations), program.outputs, program.constants, program.name))


def _number(operation: Operation | None) -> float | None:
    """What it multiplies one array with, if that is all it does."""
    if operation is None or operation.name != "multiply":
        return None
    return next((a for a in operation.arguments if not isinstance(a, Variable)), None)


def _scaled_after(program: Program, carried: int) -> tuple[Program, list[float | None]]:
    """Collect what a number is multiplied with last, and those numbers: once for all steps is less work than in each."""
    made_by = {operation.result: operation for operation in program.operations}
    outputs, numbers = list(program.outputs), list[float | None]()
    for i, variable in enumerate(program.outputs[carried:], start=carried):
        number = _number(made_by.get(variable)) if variable.type.dtype.kind == "real floating" else None
        if number is not None and made_by[variable].reads[0].type == variable.type:
            outputs[i] = made_by[variable].reads[0]
        else:
            number = None
        numbers.append(number)
    collecting = Program(program.inputs, program.operations, tuple(outputs), program.constants, program.name)
    return drop_dead(collecting), numbers


class Pool:
    """Functions with memory of their own, one a thread that is inside; ``build`` makes another."""

    def __init__(self, build: Callable[[], Callable[..., tuple[Array, ...]]], how: str = "") -> None:
        self.how = how
        self._build = build
        self._idle: list[Callable[..., tuple[Array, ...]]] = []
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> tuple[Array, ...]:
        with self._lock:
            function = self._idle.pop() if self._idle else None
        function = function or self._build()
        try:
            return function(*arguments)
        finally:
            with self._lock:
                self._idle.append(function)

    @property
    def source(self) -> str:
        """The generated Python text."""
        with self._lock:
            function = self._idle[-1] if self._idle else None
        return str((function or self._build()).source)  # type: ignore[attr-defined]


class _Storage:
    """One piece of memory. ``pending`` counts the reads still to come of all values that lie in it."""

    def __init__(self, memory: np.ndarray, pinned: bool = False) -> None:
        self.memory = memory
        self.pending = 0
        self.pinned = pinned
        self.looks: dict[ArrayType, np.ndarray] = {}

    def look(self, type: ArrayType) -> np.ndarray:
        """The first bytes as an array of ``type``: one object for each type, for NumPy is twice as fast in place
        when argument and ``out`` are the same object.
        """
        if self.memory.dtype == type.dtype and self.memory.shape == type.shape:
            return self.memory
        if type not in self.looks:
            size = type.size * np.dtype(type.dtype).itemsize
            flat = self.memory.reshape(-1).view(np.uint8)
            self.looks[type] = flat[:size].view(type.dtype).reshape(type.shape)
        return self.looks[type]


class _Planner:
    def __init__(self, program: Program, carried: int | None, fusion: Fusion | None = None) -> None:
        self.program = program
        self.fusion = fusion
        self.units = program.operations if fusion is None else fusion.units(program)
        self.looping = carried is not None
        self.carry = program.inputs[1 : 1 + (carried or 0)] if self.looping else ()
        self.carry_out = program.outputs[: len(self.carry)]
        self.iteration = program.inputs[0] if self.looping else None
        self.code = Code(take_mode="wrap" if self.looping else "raise")
        self.operands: dict[Variable, Operand] = {}
        self.storages: dict[Variable, _Storage] = {}
        self.free: list[np.ndarray] = []
        self.block = np.empty(0, dtype=np.uint8)  # what is left of it
        self.uses = Counter(v for unit in self.units for v in unit.reads)
        self.outputs = set(program.outputs)
        self.targets = dict(zip(self.carry_out, self.carry, strict=True))
        self.places: dict[Variable, tuple[Operation, int]] = {}  # in which concatenation, and from where on
        self.varying: set[Variable] = set()
        self.parameters: list[str] = []

    # The two kinds of function

    def call(self) -> Callable[..., tuple[Array, ...]]:
        """Straight through, once; results leave the plan's memory."""
        self._take_inputs()
        self._find_places()
        for unit in self.units:
            self._compute(unit)
        results = ", ".join(self._leaving(v) for v in self.program.outputs)
        return self._function([*self.code.prologue, *self.code.lines, f"return ({results}{',' * bool(results)})"])

    def loop(self, numbers: Sequence[float | None]) -> Callable[..., tuple[Array, ...]]:
        """What varies from step to step inside a ``for``; the rest before it; and after it the collected ones' numbers."""
        self._take_inputs()
        self._find_places()
        self._find_varying()
        code = self.code
        for unit in self.units:
            if not self._varies(unit):
                self._compute(unit)
        before, code.lines = code.lines, []
        for unit in self.units:
            if self._varies(unit):
                self._compute(unit)
        collected = self.program.outputs[len(self.carry) :]
        for i, variable in enumerate(collected):
            empty = (
                f"{code.bind(np.empty)}((count, *{variable.type.shape}), {code.bind(np.dtype(variable.type.dtype))})"
            )
            before.append(f"y{i} = {empty}")
            code.lines.append(f"y{i}[i] = {self._text(variable)}")
        self._hand_on()
        if self.iteration is not None and (self.iteration in self.uses or self.iteration in self.outputs):
            counter = self._text(self.iteration)
            before.append(f"{counter}[...] = 0")
            code.call(np.add, counter, code.bind(np.asarray(1, dtype=np.int32)), counter)
        body = [f"    {line}" for line in code.lines] or ["    pass"]
        results = [f"{self._text(v)}.copy()" for v in self.carry] + [f"y{i}" for i in range(len(collected))]
        lines = [
            *code.prologue,
            *before,
            "for i in range(count):",
            *body,
            *(f"y{i} *= {code.bind(number)}" for i, number in enumerate(numbers) if number is not None),
            f"return ({', '.join(results)}{',' * bool(results)})",
        ]
        return self._function(lines)

    def _function(self, lines: list[str]) -> Callable[..., tuple[Array, ...]]:
        function: Callable[..., tuple[Array, ...]] = self.code.function(
            re.sub(r"\W", "_", f"{self.program.name}_plan"), ", ".join(self.parameters), lines
        )
        return function

    # Where values lie

    def _take_inputs(self) -> None:
        """Carried arrays are copied into memory of the plan; the other inputs are used where they are."""
        if self.looping:
            self.parameters.append("count")
        for variable, array in self.program.constants.items():
            self.operands[variable] = Operand(variable.type, np.asarray(array, dtype=variable.type.dtype))
        for i, variable in enumerate(self.program.inputs):
            if variable is self.iteration or variable in self.carry:
                memory = self._new_memory(variable.type)
                memory[...] = 0
                self.operands[variable] = Operand(variable.type, memory)
                self.storages[variable] = storage = _Storage(memory, pinned=variable is self.iteration)
                storage.pending = self.uses[variable] + (variable in self.outputs)
            else:
                self.operands[variable] = Operand(variable.type, name=f"x{i}")
            if variable is not self.iteration:
                self.parameters.append(f"x{i}")
            if variable in self.carry and variable.type.size:
                self.code.call(np.copyto, self._text(variable), f"x{i}")

    def _find_places(self) -> None:
        """The results that can be computed where a later concatenation wants them."""
        made_by = {result: unit for unit in self.units for result in unit.results}
        for operation in self.units:
            if isinstance(operation, Group) or operation.name != "concat":
                continue
            axis, start = operation.parameters.get("axis", 0), 0
            if any(n != 1 for n in operation.result.type.shape[:axis]):
                continue
            for piece in operation.reads:
                value, source = piece, made_by.get(piece)
                if isinstance(source, Operation) and source.name == "reshape":
                    value = source.reads[0]
                    source = made_by.get(value)
                same = value.type.dtype == operation.result.type.dtype
                free = value not in self.places and value not in self.targets
                if source is not None and _can_write_anywhere(source) and same and free:
                    self.places[value] = (operation, start)
                start += piece.type.shape[axis]

    def _find_varying(self) -> None:
        self.varying = {*self.carry, self.iteration}  # type: ignore[arg-type]
        for unit in self.units:
            if any(v in self.varying for v in unit.reads):
                self.varying.update(unit.results)
        self.targets = {result: home for result, home in self.targets.items() if result in self.varying}
        for unit in self.units:  # what the loop reads must outlive each of its rounds
            if self._varies(unit):
                self.outputs.update(v for v in unit.reads if v not in self.varying)
                for variable in [v for v, (home, _) in self.places.items() if home is unit]:
                    if variable not in self.varying:
                        del self.places[variable]

    def _varies(self, unit: Unit) -> bool:
        return any(result in self.varying for result in unit.results)

    def _compute(self, unit: Unit) -> None:
        """Find memory for the results of one unit and write the call that fills it."""
        if isinstance(unit, Group):
            self._compute_group(unit)
        else:
            self._compute_operation(unit)
        for variable in unit.reads:
            self._read(variable)

    def _compute_group(self, group: Group) -> None:
        assert self.fusion is not None
        reads = [self.operands[v] for v in group.reads]
        taken: set[_Storage] = set()
        results = []
        for result in group.results:
            out = self._memory_for(result, self._overwritten_in(group, result, taken))
            taken.add(self.storages[result])
            self.operands[result] = out
            results.append(out)
        self.fusion.call(self.code, group, reads, results)

    def _compute_operation(self, operation: Operation) -> None:
        arguments = [self.operands[a] if isinstance(a, Variable) else a for a in operation.arguments]
        known = all(a.array is not None for a in arguments if isinstance(a, Operand))
        if known and not any(v in self.storages for v in operation.reads):
            self._precompute(operation, arguments)
        elif operation.name in VIEWS and self._look(operation, arguments):
            pass
        elif can_write(operation):
            out = self._memory_for(operation.result, self._overwritten(operation))
            self.operands[operation.result] = out
            if self.fusion is None or not self.fusion.operation(self.code, operation, arguments, out):
                CALLS[operation.name](self.code, operation, arguments, out)
        else:
            self._call_interpreter(operation, arguments)

    def _precompute(self, operation: Operation, arguments: list[Any]) -> None:
        """Of constants only: computed now, for good."""
        values = [a.array if isinstance(a, Operand) else a for a in arguments]
        self.operands[operation.result] = Operand(operation.result.type, np.asarray(execute(xp, operation, values)))

    def _look(self, operation: Operation, arguments: list[Any]) -> bool:
        """A view, if one exists: made now for memory of the plan, at each call for an input."""
        source = operation.reads[0]
        array = arguments[0].array
        if array is None:
            self._call_interpreter(operation, arguments)
            return True
        if operation.name == "reshape":
            try:
                view = np.reshape(array, operation.arguments[1], copy=False)
            except ValueError:  # its elements do not lie in order
                return False
        else:
            view = execute(xp, operation, [array, *arguments[1:]])
        self.operands[operation.result] = Operand(operation.result.type, view)
        if source in self.storages:
            self._settle(operation.result, self.storages[source])
        return True

    def _call_interpreter(self, operation: Operation, arguments: list[Any]) -> None:
        """NumPy makes the array: for inputs' views, and for operations that have no ``out``."""
        name = f"v{len(self.operands)}"
        texts = [a.text(self.code) if isinstance(a, Operand) else self.code.bind(a) for a in arguments]
        call = f"{self.code.bind(execute)}({self.code.bind(xp)}, {self.code.bind(operation)}, [{', '.join(texts)}])"
        if any(v in self.storages for v in operation.reads):  # it may be a view of memory that is used again
            call = f"{self.code.bind(np.array)}({call})"
        self.code.lines.append(f"{name} = {call}")
        self.operands[operation.result] = Operand(operation.result.type, name=name)

    def _memory_for(self, result: Variable, overwritten: _Storage | None) -> Operand:
        if result in self.places:
            concat, start = self.places[result]
            storage = self._settle(concat.result, None)
            flat = self.operands[concat.result].array.reshape(-1)  # type: ignore[union-attr]
            ahead = start * int(np.prod(concat.result.type.shape[concat.parameters["axis"] + 1 :]))
            memory = flat[ahead : ahead + result.type.size].reshape(result.type.shape)
            self._settle(result, storage)
            return Operand(result.type, memory)
        if result in self.operands:  # a concatenation whose pieces asked for memory before
            return self.operands[result]
        storage = self._settle(result, overwritten or self._dead_target(result))
        return Operand(result.type, storage.look(result.type))

    def _overwritten(self, operation: Operation) -> _Storage | None:
        """The memory of an argument that this elementwise operation reads last; best where a carried result belongs."""
        if operation.name not in UFUNCS:
            return None
        return self._last_read(operation, operation.reads, operation.result)

    def _overwritten_in(self, group: Group, result: Variable, taken: set[_Storage]) -> _Storage | None:
        """Likewise for a group of one sweep, where each element is read before it is written; not twice the same."""
        if max(group.levels.values()) > 0 or group.extents[result] != Extent.FULL:
            return None
        full = [v for v in group.reads if group.extents[v] == Extent.FULL and self.storages.get(v) not in taken]
        return self._last_read(group, full, result)

    def _last_read(self, unit: Unit, reads: Sequence[Variable], result: Variable) -> _Storage | None:
        candidates = []
        for variable in reads:
            storage = self.storages.get(variable)
            if storage is None or storage.pinned or variable.type != result.type:
                continue
            array = self._array(variable)
            together = [v for v in unit.reads if self.storages.get(v) is storage]
            alike = all(same_memory(self._array(v), array) for v in together)
            if storage.pending == len(together) and alike and _covers(array, storage.memory):
                candidates.append(storage)
        target = self.targets.get(result)
        wanted = self.storages[target] if target is not None else None
        return wanted if wanted in candidates else next(iter(candidates), None)

    def _array(self, variable: Variable) -> np.ndarray:
        """The memory of a value that lies in a storage."""
        array = self.operands[variable].array
        assert array is not None
        return array

    def _dead_target(self, result: Variable) -> _Storage | None:
        """The memory where a carried result belongs, if nobody reads what lies there any more."""
        target = self.targets.get(result)
        if target is None or target.type != result.type:
            return None
        storage = self.storages[target]
        return storage if storage.pending == 0 else None

    def _settle(self, variable: Variable, storage: _Storage | None) -> _Storage:
        """Let ``variable`` lie in ``storage``, or in memory that is free, or new."""
        if variable in self.storages:
            return self.storages[variable]
        if storage is None:
            storage = _Storage(self._allocate(variable.type))
            self.operands[variable] = Operand(variable.type, storage.look(variable.type))
        self.storages[variable] = storage
        storage.pending += self.uses[variable] + (variable in self.outputs)
        return storage

    def _allocate(self, type: ArrayType) -> np.ndarray:
        """The smallest free memory that is large enough, but not wastefully so; else new memory."""
        size = type.size * np.dtype(type.dtype).itemsize
        fitting = [m for m in self.free if size <= m.nbytes <= 4 * size]
        if not fitting:
            return self._new_memory(type).reshape(-1).view(np.uint8)
        chosen = min(reversed(fitting), key=lambda m: m.nbytes)
        self.free = [m for m in self.free if m is not chosen]
        return chosen

    def _new_memory(self, type: ArrayType) -> np.ndarray:
        """Large arrays lie in blocks so large that the system gives them huge pages, if NumPy asks for such."""
        count = type.size * np.dtype(type.dtype).itemsize
        size = -(-count // ALIGNED) * ALIGNED
        if not LARGE <= size <= BLOCK:
            return np.empty(type.shape, dtype=type.dtype)
        if size > self.block.nbytes:
            block = np.empty(BLOCK + ALIGNED, dtype=np.uint8)  # what nobody writes to takes no memory
            self.block = block[-address(block) % ALIGNED :]
        memory, self.block = self.block[:size], self.block[size:]
        return memory[:count].view(type.dtype).reshape(type.shape)

    def _read(self, variable: Variable) -> None:
        storage = self.storages.get(variable)
        if storage is None:
            return
        storage.pending -= 1
        if storage.pending == 0 and not storage.pinned and not any(storage is self.storages[c] for c in self.carry):
            self.free.append(storage.memory)

    # How values leave

    def _text(self, variable: Variable) -> str:
        return self.operands[variable].text(self.code)

    def _leaving(self, variable: Variable) -> str:
        """A result as an array that the caller may keep: a copy, for it may be the plan's memory, or an input."""
        return f"{self.code.bind(np.array)}({self._text(variable)})"

    def _hand_on(self) -> None:
        """Carried results to where the next step reads them; by way of spare memory if they lie in each other's place."""
        homes = [self._text(v) for v in self.carry]
        moves = [
            (home, result)
            for home, result, variable in zip(homes, self.carry_out, self.carry, strict=True)
            if variable.type.size and result is not variable and not self._lies_in(result, variable)
        ]
        waiting = []
        for home, result in moves:
            text = self._text(result)
            storage = self.storages.get(result)
            if storage is not None and any(storage is self.storages[c] for c in self.carry):
                spare = self.code.bind(np.empty(result.type.shape, dtype=result.type.dtype))
                self.code.call(np.copyto, spare, text)
                text = spare
            waiting.append((home, text))
        for home, text in waiting:
            self.code.call(np.copyto, home, text)

    def _lies_in(self, result: Variable, variable: Variable) -> bool:
        """Whether ``result`` is the whole memory of the carried ``variable``."""
        if self.storages.get(result) is not self.storages[variable]:
            return False
        return same_memory(self._array(result), self._array(variable))


def _can_write_anywhere(unit: Unit) -> bool:
    """Whether the results of ``unit`` can be computed into memory of our choice."""
    if isinstance(unit, Group):
        return True
    return unit.name not in VIEWS and unit.name != "concat" and can_write(unit)


def _covers(array: np.ndarray, memory: np.ndarray) -> bool:
    """Whether ``array`` starts where ``memory`` does and lies in order, so that a new array there looks the same."""
    return bool(array.flags.c_contiguous) and address(array) == address(memory)
