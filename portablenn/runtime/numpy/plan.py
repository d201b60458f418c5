"""The plan: a Program as one straight-line Python function of NumPy calls that allocate nothing.

Every value gets its buffer in one arena beforehand (`runtime.kernels.buffers`), and views of it are made once. The NumPy
calls, with their arrays and functions bound, are then the lines of one generated function.

`plan` is for a function that is called once in a while; `plan_loop` runs a step many times in one call.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import array_api_compat.numpy as xp
import numpy as np

from ...program.interpret import execute
from ...program.ir import Array, ArrayType, Operation, Program, Variable
from ...program.simplify import drop_dead
from ..kernels.buffers import VIEWS, Allocator, Buffer, Storage, dense, nbytes_of
from ..kernels.fusion import Group, Unit
from . import subnormals, threads
from .lowering import CALLS, UFUNCS, Code, Operand, address, can_write

ALIGNMENT = 64
"""Bytes: each storage begins at a multiple."""

LARGE, BLOCK = 1 << 18, 1 << 25
"""Bytes of an arena that gets a separate block, large enough for huge pages, and of that block."""

VIEW_TEXTS = {"getitem": "{}[{}]", "reshape": "{}.reshape({})", "permute_dims": "{}.transpose({})"}
"""Views of inputs, such as the parameters of layers, as methods, at a fifth of the interpreter's price."""


class Fusion(Protocol):
    """How a plug-in computes groups of operations, and single ones; without it the plan calls NumPy for each operation."""

    def units(self, program: Program) -> Sequence[Unit]:
        """Return the operations of the program, with groups instead of some."""

    def call(self, code: Code, group: Group, reads: list[Operand], results: list[Operand]) -> None:
        """Write the line that computes ``results``; one may be the array of a full value that is read."""

    def operation(self, code: Code, operation: Operation, arguments: list[Any], out: Operand) -> bool:
        """Write the line that computes one operation if there is a faster one than NumPy's; return whether it did."""


def plan(program: Program, fusion: Fusion | None = None) -> Callable[..., tuple[Array, ...]]:
    """Return a callable that executes ``program`` on NumPy arrays; its results are new arrays.

    Calls from several threads at once get memory of their own.
    """
    contracted = _contracted(program)
    return Pool(lambda: _Planner(contracted, None, fusion).call(), program=contracted)


def plan_loop(program: Program, carried: int, fusion: Fusion | None = None) -> Callable[..., tuple[Array, ...]]:
    """Return a callable ``loop(count, *carry, *data)`` that executes a step ``count`` times in one call.

    The inputs of a step are the number of the iteration (int32, from 0), then ``carried`` arrays, then data that stay the same;
    its outputs are the new carried arrays, then what is collected of each step. The callable returns the carried arrays after
    the last step, then the collected ones with ``count`` rows each. Subnormal numbers may count as zero: see `subnormals`.
    """
    for home, out in zip(program.inputs[1 : 1 + carried], program.outputs, strict=False):
        if home.type != out.type:
            raise TypeError(
                f"{program.name} carries {home.type} as {out.type}: a carried array keeps its shape and dtype"
            )
    collecting, numbers = _without_factors(_contracted(program), carried)
    return Pool(lambda: _Planner(collecting, carried, fusion).loop(numbers), program=collecting, looped=True)


def _contracted(program: Program) -> Program:
    """Return the program with dot products instead of sums of all squares, or of all products of two arrays."""
    made_by = {operation.result: operation for operation in program.operations}
    uses = Counter(v for operation in program.operations for v in operation.reads) + Counter(program.outputs)
    operations: list[Operation] = []

    def only_for(variable: Variable) -> Operation | None:
        """Return the operation that makes a value with one use; not in half precision, where a sum of squares overflows."""
        wide = variable.type.dtype in ("float32", "float64")
        return made_by.get(variable) if wide and uses[variable] == 1 else None

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
    return drop_dead(replace(program, operations=tuple(operations)))


def _number(operation: Operation | None) -> float | None:
    """Return the number by which the operation multiplies an array; None for another operation."""
    if operation is None or operation.name != "multiply":
        return None
    return next((a for a in operation.arguments if not isinstance(a, Variable)), None)


def _without_factors(program: Program, carried: int) -> tuple[Program, list[float | None]]:
    """Return the program that collects values before a last factor, and those factors, to be applied once for all steps."""
    made_by = {operation.result: operation for operation in program.operations}
    outputs, numbers = list(program.outputs), list[float | None]()
    for i, variable in enumerate(program.outputs[carried:], start=carried):
        number = _number(made_by.get(variable)) if variable.type.dtype.kind == "real floating" else None
        if number is not None and made_by[variable].reads[0].type == variable.type:
            outputs[i] = made_by[variable].reads[0]
        else:
            number = None
        numbers.append(number)
    return drop_dead(replace(program, outputs=tuple(outputs))), numbers


class Pool:
    """A function for several threads: each call takes an idle function with separate memory, or builds another.

    Without ``program`` it uses no BLAS. ``looped`` functions take subnormal numbers for zero. ``nbytes`` is the memory that its
    functions hold now.
    """

    def __init__(
        self,
        build: Callable[[], Callable[..., tuple[Array, ...]]],
        way: str = "plan",
        program: Program | None = None,
        looped: bool = False,
    ) -> None:
        self._way, self._most_threads = way, 1 if program is None else threads.most_threads(program)
        self._context = threads.single_thread if program is not None and threads.uses_threads(program) else None
        self._build, self._looped = build, looped
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self.nbytes = 0

    def __call__(self, *arguments: Any) -> tuple[Array, ...]:
        function = self._take()
        before = subnormals.flush() if self._looped else None
        try:
            if self._context is None:
                return function(*arguments)
            with self._context:
                return function(*arguments)
        finally:
            subnormals.restore(before)
            self._idle.append(function)

    def _take(self) -> Any:
        try:
            return self._idle.pop()  # which is atomic
        except IndexError:
            function: Any = self._build()
        with self._lock:
            self.nbytes += function.nbytes
        return function

    @property
    def how(self) -> str:
        """The way in which it is executed, and on how many threads if it has products for several."""
        return ", ".join(filter(None, (self._way, threads.describe(self._most_threads))))

    @property
    def source(self) -> str:
        """The generated Python text."""
        function = self._take()
        self._idle.append(function)
        return str(function.source)


class _Planner:
    """First every value gets a buffer, then the buffers get memory, then the calls are written."""

    def __init__(self, program: Program, carried: int | None, fusion: Fusion | None = None) -> None:
        self.program, self.fusion = program, fusion
        self.iteration = None if carried is None else program.inputs[0]
        self.carry = () if carried is None else program.inputs[1 : 1 + carried]
        self.code = Code(take_mode="raise" if carried is None else "wrap")
        self.operands: dict[Variable, Operand] = {}
        self.aliases: set[Unit] = set()  # operations that are views made once
        self._split(program.operations if fusion is None else fusion.units(program))
        homes = zip(program.outputs, self.carry, strict=False)
        self.allocator = Allocator(
            (*self.invariant, *self.units), {*program.outputs, *self._reads_of_invariants()},
            {result: home for result, home in homes if result in self.varying}, self._computes_inside,
        )  # fmt: skip
        self.parameters = self._take_inputs()
        for unit in (*self.invariant, *self.units):
            self._allocate(unit)
        self.moves = self.allocator.moves(zip(program.outputs, self.carry, strict=False))
        self.nbytes = self._make_arrays()

    # The two kinds of function

    def call(self) -> Callable[..., tuple[Array, ...]]:
        """Return the function that executes the program once; it copies the results, for they may be inputs, or buffers."""
        for unit in self.units:
            self._write(unit)
        copies = [f"{self.code.bind(np.array)}({self._text(v)})" for v in self.program.outputs]
        return self._function([*self.code.prologue, *self.code.lines, _return(copies)])

    def loop(self, factors: Sequence[float | None]) -> Callable[..., tuple[Array, ...]]:
        """Return the function that executes the program many times, invariants once, and scales what it collects."""
        code = self.code
        for i, variable in enumerate(self.carry, start=1):
            if variable.type.size:
                code.call(np.copyto, self._text(variable), f"x{i}")
        for unit in self.invariant:
            self._write(unit)
        before, code.lines = code.lines, []
        for unit in self.units:
            self._write(unit)
        collected = self.program.outputs[len(self.carry) :]
        for i, variable in enumerate(collected):
            dtype = code.bind(np.dtype(variable.type.dtype))
            before.append(f"y{i} = {code.bind(np.empty)}((count, *{variable.type.shape}), {dtype})")
            code.lines.append(f"y{i}[i] = {self._text(variable)}")
        for result, home in self.moves:
            code.call(np.copyto, self._text(home), self._text(result))
        assert self.iteration is not None
        if self.iteration in {*self.program.outputs, *(v for unit in self.units for v in unit.reads)}:
            counter = self._text(self.iteration)
            before.append(f"{counter}[...] = 0")
            code.call(np.add, counter, code.bind(np.asarray(1, dtype=np.int32)), counter)
        results = [f"{self._text(v)}.copy()" for v in self.carry] + [f"y{i}" for i in range(len(collected))]
        return self._function([
            *code.prologue, *before, "for i in range(count):", *(f"    {line}" for line in code.lines or ["pass"]),
            *(f"y{i} *= {code.bind(factor)}" for i, factor in enumerate(factors) if factor is not None), _return(results),
        ])  # fmt: skip

    def _function(self, lines: list[str]) -> Callable[..., tuple[Array, ...]]:
        name = re.sub(r"\W", "_", f"{self.program.name}_plan")
        function = self.code.function(name, ", ".join(self.parameters), lines)
        arrays = (*self.code.bound.values(), *(operand.array for operand in self.operands.values()))
        own = {id(a): a.nbytes for a in arrays if isinstance(a, np.ndarray) and a.base is None}
        function.nbytes = self.nbytes + sum(own.values())
        return function

    # The memory of values

    def _split(self, units: Sequence[Unit]) -> None:
        """Separate the units that depend on what changes from step to step from those that are computed before the loop."""
        self.varying = {*self.carry, self.iteration}
        for unit in units:
            if self.iteration is None or not self.varying.isdisjoint(unit.reads):
                self.varying.update(unit.results)
        self.units = [unit for unit in units if unit.results[0] in self.varying]
        self.invariant = [unit for unit in units if unit.results[0] not in self.varying]

    def _reads_of_invariants(self) -> set[Variable]:
        """Return what each step reads again, so that no step may overwrite it."""
        return {v for unit in self.units for v in unit.reads if v not in self.varying}

    def _computes_inside(self, unit: Unit, concat: Operation) -> bool:
        """Return whether ``unit`` can compute its results inside ``concat``: not if only one of them is in the loop."""
        if (unit.results[0] in self.varying) != (concat.result in self.varying):
            return False
        return isinstance(unit, Group) or (unit.name not in VIEWS and unit.name != "concat" and can_write(unit))

    def _take_inputs(self) -> list[str]:
        """Return the names of the parameters: carried arrays are copied into buffers, others are used where they are."""
        for variable, array in self.program.constants.items():
            self.operands[variable] = Operand(variable.type, np.asarray(array, dtype=variable.type.dtype))
        parameters = []
        for i, variable in enumerate(self.program.inputs):
            parameters.append("count" if variable is self.iteration else f"x{i}")
            if variable is self.iteration or variable in self.carry:
                storage = Storage(nbytes_of(variable.type), "carry" if variable in self.carry else "counter")
                self.allocator.alias(variable, dense(storage, variable.type))
            else:
                self.operands[variable] = Operand(variable.type, name=f"x{i}")
        return parameters

    def _allocate(self, unit: Unit) -> None:
        """Give the results buffers, values (of constants), or names (of what NumPy makes at each call)."""
        allocator = self.allocator
        if isinstance(unit, Group):
            for result in unit.results:
                allocator.allocate(unit, result, unit.elementwise_reads(result))
        elif all(v in self.operands and self.operands[v].array is not None for v in unit.reads):
            values = [self.operands[a].array if isinstance(a, Variable) else a for a in unit.arguments]
            self.operands[unit.result] = Operand(unit.result.type, np.asarray(execute(xp, unit, values)))
        elif unit.name in VIEWS and unit.reads[0] in allocator.buffers and (view := self._view(unit)) is not None:
            allocator.alias(unit.result, view)
            self.aliases.add(unit)
        elif can_write(unit) and (unit.name not in VIEWS or unit.reads[0] in allocator.buffers):
            allocator.allocate(unit, unit.result, unit.reads if unit.name in UFUNCS else ())
        else:
            self.operands[unit.result] = Operand(unit.result.type, name=f"v{len(self.operands)}")
        allocator.use(*(allocator.buffers[v] for v in (*unit.reads, *unit.results) if v in allocator.buffers))
        allocator.release(unit)

    def _view(self, operation: Operation) -> Buffer | None:
        """Return a view of a buffer, also of a strided one that NumPy can reshape without a copy."""
        buffer = self.allocator.buffers[operation.reads[0]]
        if operation.name != "reshape" or buffer.contiguous:
            return buffer.view(operation)
        unread = np.lib.stride_tricks.as_strided(np.empty(1, dtype=np.uint8), buffer.shape, buffer.strides)
        try:
            view = np.reshape(unread, operation.arguments[1], copy=False)
        except ValueError:  # its elements are not contiguous
            return None
        return replace(buffer, shape=view.shape, strides=view.strides)

    def _make_arrays(self) -> int:
        """Make the arena and the arrays in it; return its size in bytes.

        There is one object for each buffer: NumPy is twice as fast in place if an argument and ``out`` are the same object.
        """
        buffers = self.allocator.buffers
        nbytes = self.allocator.pack(ALIGNMENT)
        for variable in self.program.inputs:
            if variable in buffers:
                buffers[variable].storage.index = nbytes
                nbytes += -(-nbytes_of(variable.type) // ALIGNMENT) * ALIGNMENT
        memory = np.empty((nbytes if nbytes < LARGE else max(nbytes, BLOCK)) + ALIGNMENT, dtype=np.uint8)
        arena = memory[-address(memory) % ALIGNMENT :]
        arrays = {buffer: buffer.array(arena[buffer.storage.index :]) for buffer in set(buffers.values())}
        self.operands.update({v: Operand(v.type, arrays[buffer]) for v, buffer in buffers.items()})
        return nbytes

    # The calls

    def _write(self, unit: Unit) -> None:
        """Write the lines that compute the results of a unit."""
        if isinstance(unit, Group):
            assert self.fusion is not None
            reads, results = ([self.operands[v] for v in some] for some in (unit.reads, unit.results))
            self.fusion.call(self.code, unit, reads, results)
            return
        arguments = [self.operands[a] if isinstance(a, Variable) else a for a in unit.arguments]
        out = self.operands[unit.result]
        if out.array is None:
            self._write_interpreted(unit, arguments, out)
        elif (
            unit.result in self.allocator.buffers
            and unit not in self.aliases
            and not (self.fusion is not None and self.fusion.operation(self.code, unit, arguments, out))
        ):
            CALLS[unit.name](self.code, unit, arguments, out)

    def _write_interpreted(self, operation: Operation, arguments: list[Any], out: Operand) -> None:
        """Let NumPy make the array: for views of inputs, and for operations without ``out``."""
        texts = [a.text(self.code) if isinstance(a, Operand) else self.code.bind(a) for a in arguments]
        if operation.name in VIEW_TEXTS and not operation.parameters:
            call = VIEW_TEXTS[operation.name].format(*texts)
        else:
            call = f"{self.code.bind(execute)}({self.code.bind(xp)}, {self.code.bind(operation)}, [{', '.join(texts)}])"
        if any(v in self.allocator.buffers for v in operation.reads):  # it may be a view of memory that is reused
            call = f"{self.code.bind(np.array)}({call})"
        self.code.lines.append(f"{out.name} = {call}")

    def _text(self, variable: Variable) -> str:
        return self.operands[variable].text(self.code)


def _return(results: Sequence[str]) -> str:
    return f"return ({', '.join(results)}{',' * bool(results)})"
