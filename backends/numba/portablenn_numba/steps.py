"""Loops of small steps as one compiled function, because calls of NumPy would take longer than the arithmetic.

Each instruction of the schedule becomes a function with literal sizes, which the compiler can unroll; the loop calls them in
order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from portablenn.program.ir import Array, ArrayType, Program, dtype_name
from portablenn.runtime.backend import NUMPY, UnsupportedError
from portablenn.runtime.kernels import schedule
from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer, Storage, dense, nbytes_of

from .compiled import compiled
from .loops import ACCUMULATE, DTYPES, START, Writer, expressible, loop_shape

MULTIPLICATIONS = 4096
"""Multiplications of a step up to which compiled loops are faster than BLAS; see `runtime.kernels.schedule.is_small`."""

ELEMENTS = 8192
"""Elements of the largest value of such a step."""

NESTED = "@numba.njit(**inner)\n"


class SmallSteps:
    """The source ``text`` of a function ``loops(count, *arguments, *numbers)``; each argument is a buffer and its shape there.

    Raises UnsupportedError if an operation is not supported.
    """

    def __init__(self, program: Program, carried: int) -> None:
        self.schedule = schedule.make_schedule(program, NUMPY.xp, carried, expressible)
        self.carry = [v.type for v in program.inputs[1 : 1 + carried]]
        self.data = [v.type for v in program.inputs[1 + carried :]]
        self.constants = [_bytes(c, str(dtype_name(c.dtype))) for c in self.schedule.constants]
        self.arguments: list[tuple[Buffer, tuple[int, ...]]] = []
        self._names: dict[Any, str] = {}
        self._functions: dict[str, str] = {}
        self.numbers: list[np.generic] = []
        self.copies: list[ArrayType] = []
        body = "".join(f"        {self._line(instruction)}\n" for instruction in self.schedule.instructions)
        names = [*(f"k{i}" for i in range(len(self.arguments))), *(f"n{i}" for i in range(len(self.numbers)))]
        arguments = ", ".join(["count", *names])
        self.text = f"{''.join(self._functions)}def loops({arguments}):\n    for s in range(count):\n{body}"

    def _argument(self, buffer: Buffer, shape: tuple[int, ...] | None = None) -> str:
        """Return the name of the argument for a buffer."""
        key = (buffer, buffer.shape if shape is None else shape)
        if key not in self._names:
            self._names[key] = f"k{len(self.arguments)}"
            self.arguments.append(key)
        return self._names[key]

    def _function(self, text: str) -> str:
        """Return the name of the function with this source; equal sources share one function."""
        name = f"call_{len(self._functions)}"
        for known, its_name in self._functions.items():
            if known == _named(text, its_name):
                return its_name
        self._functions[_named(text, name)] = name
        return name

    def _line(self, instruction: schedule.Instruction) -> str:
        """Return the line of the loop for an instruction."""
        if isinstance(instruction, schedule.Fused):
            return self._fused(instruction)
        if isinstance(instruction, schedule.Count):
            return f"{self._argument(instruction.counter)}[()] += 1"
        if isinstance(instruction, schedule.Collect):
            arguments = [self._argument(instruction.source), self._argument(instruction.target), "s"]
        elif isinstance(instruction, schedule.Extreme):  # writes results by a flat index
            flat = (math.prod(instruction.out.shape),)
            arguments = [self._argument(instruction.x), self._argument(instruction.out, flat)]
        else:
            arguments = list(map(self._argument, instruction.buffers))
        return f"{self._function(_source(instruction))}({', '.join(arguments)})"

    def _fused(self, instruction: schedule.Fused) -> str:
        group, values = instruction.group, instruction.operands
        reads = [values[v] for v in group.reads]
        overwritten = [next((i for i, read in enumerate(reads) if read == values[v]), None) for v in group.results]
        writer = Writer(group, overwritten)
        arguments, before = [], ""
        for v in writer.given:
            buffer, shape = values[v], loop_shape(group, v, writer.flat)
            if v in group.reads and not _can_be_viewed(buffer, shape):
                buffer, line = self._copied(buffer)
                before += f"{line}; "
            arguments.append(self._argument(buffer, shape))
        for number in writer.numbers:
            arguments.append(f"n{len(self.numbers)}")
            self.numbers.append(number)
        return f"{before}{self._function(writer.text.replace('def loops(', 'def f(', 1))}({', '.join(arguments)})"

    def _copied(self, buffer: Buffer) -> tuple[Buffer, str]:
        """Return a contiguous copy, such as of a bias for each member and row, and the line that makes it."""
        type = ArrayType(buffer.shape, buffer.dtype)
        copy = dense(Storage(nbytes_of(type), "copy", len(self.copies)), type)
        self.copies.append(type)
        return copy, self._line(schedule.Copy(buffer, copy))


class Steps:
    """The callable ``loop(count, *carry, *data)`` with its own memory; for one thread at a time."""

    def __init__(self, steps: SmallSteps) -> None:
        self.steps = steps
        planned, carry = steps.schedule, steps.carry
        kinds = {
            "arena": [planned.arena], "counter": [4], "carry": list(map(nbytes_of, carry)),
            "copy": list(map(nbytes_of, steps.copies)),
        }  # fmt: skip
        self.memory = {kind: [_memory(size) for size in sizes] for kind, sizes in kinds.items()}
        self.carried = [
            self.memory["carry"][i][: t.size * ITEMSIZE[t.dtype]].view(t.dtype) for i, t in enumerate(carry)
        ]
        self.fixed = [
            None if p.storage.kind in ("input", "collected") else self._view(p, s) for p, s in steps.arguments
        ]

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        """Return the carried arrays after ``count`` steps, and the collected results of each."""
        steps = self.steps
        takes = len(steps.carry) + len(steps.data)
        if len(arrays) != takes:
            raise TypeError(f"expected {1 + takes} arguments, got {1 + len(arrays)}")
        self.memory["counter"][0][:4] = 0
        for memory, array in zip(self.carried, arrays, strict=False):
            memory[...] = np.reshape(array, -1)
        inputs = [_bytes(a, t.dtype) for a, t in zip(arrays[len(steps.carry) :], steps.data, strict=True)]
        collected = [np.empty((count, *t.shape), dtype=t.dtype) for t in steps.schedule.collected]
        arguments = []
        for (buffer, shape), fixed in zip(steps.arguments, self.fixed, strict=True):
            if fixed is not None:
                arguments.append(fixed)
            elif buffer.storage.kind == "input":
                arguments.append(_viewed(inputs[buffer.storage.index], buffer, shape))
            else:
                arguments.append(collected[buffer.storage.index])
        arguments += steps.numbers
        compiled(steps.text, tuple(map(numba.typeof, (count, *arguments))))(count, *arguments)
        return (*(h.reshape(t.shape).copy() for h, t in zip(self.carried, steps.carry, strict=True)), *collected)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory and of the constants."""
        return sum(a.nbytes for arrays in (*self.memory.values(), self.steps.constants) for a in arrays)

    @property
    def source(self) -> str:
        """The source of the loop."""
        return self.steps.text

    def _view(self, buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
        storage = buffer.storage
        if storage.kind == "arena":
            return _viewed(self.memory["arena"][0][storage.index :], buffer, shape)
        memory = self.steps.constants if storage.kind == "constant" else self.memory[storage.kind]
        return _viewed(memory[storage.index], buffer, shape)


def small_steps(program: Program, carried: int) -> SmallSteps:
    """Return the loop over a step after building it once, so that unsupported views raise an error now."""
    steps = SmallSteps(program, carried)
    Steps(steps)
    for buffer, shape in steps.arguments:
        if buffer.storage.kind == "input":
            _viewed(_memory(buffer.storage.nbytes), buffer, shape)
    return steps


def _named(text: str, name: str) -> str:
    return NESTED + text.replace("def f(", f"def {name}(", 1)


def _memory(nbytes: int) -> np.ndarray:
    """Allocate bytes that start at a multiple of 64."""
    raw = np.zeros(nbytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + max(nbytes, 8)]


def _bytes(array: Any, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def _can_be_viewed(buffer: Buffer, shape: tuple[int, ...]) -> bool:
    """Return whether a buffer can be read as an array of a shape, without a copy."""
    dtype = np.dtype(buffer.dtype)
    strides = tuple(s * dtype.itemsize for s in buffer.strides)
    array = np.lib.stride_tricks.as_strided(np.empty(1, dtype=dtype), buffer.shape, strides)  # no element is read
    try:
        np.reshape(array, shape, copy=False)
    except ValueError:
        return False
    return True


def _viewed(memory: np.ndarray, buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
    """Return a buffer as an array of a shape."""
    try:
        return np.reshape(buffer.array(memory), shape, copy=False)
    except ValueError:
        raise UnsupportedError(f"cannot view shape {buffer.shape} as {shape}") from None


def _loops(names: Sequence[str], lengths: Sequence[int], indent: int = 1) -> tuple[list[str], int]:
    """Return nested loops over axes, and the indentation of their body."""
    lines = [f"{'    ' * (indent + i)}for {name} in range({n}):" for i, (name, n) in enumerate(zip(names, lengths))]
    return lines, indent + len(lines)


def _index(names: Sequence[str]) -> str:
    return ", ".join(names) or "()"


def _source(instruction: Any) -> str:
    """Return the source of a function ``f`` of an instruction's buffers."""
    if isinstance(instruction, schedule.Product):
        lines = _product(instruction)
    elif isinstance(instruction, schedule.Gather):
        lines = _gather(instruction)
    elif isinstance(instruction, schedule.Copy):
        lines = _copy(instruction.source.shape, "x, y", [])
    elif isinstance(instruction, schedule.Collect):
        lines = _copy(instruction.source.shape, "x, y, s", ["s"])
    else:
        lines = _reduction(instruction)
    return "\n".join([*lines, "", ""])


def _copy(shape: tuple[int, ...], parameters: str, row: list[str]) -> list[str]:
    axes = [f"i{a}" for a in range(len(shape))]
    loops, indent = _loops(axes, shape)
    return [f"def f({parameters}):", *loops, f"{'    ' * indent}y[{_index([*row, *axes])}] = x[{_index(axes)}]"]


def _product(instruction: schedule.Product) -> list[str]:
    rows, inner, columns = instruction.sizes
    zero = f"{DTYPES[instruction.out.dtype]}(0)"
    at, loops, pad = "", list[str](), ""
    if len(instruction.out.shape) == 3:
        at, loops, pad = "m, ", [f"    for m in range({instruction.stacked}):"], "    "
    inside = [
        f"for i in range({rows}):", f"    for j in range({columns}):", f"        total = {zero}",
        f"        for k in range({inner}):", f"            total += a[{at}i, k] * b[{at}k, j]",
        f"        out[{at}i, j] = total",
    ]  # fmt: skip
    return ["def f(a, b, out):", *loops, *(f"    {pad}{line}" for line in inside)]


def _gather(instruction: schedule.Gather) -> list[str]:
    """A negative index counts from the end; an index out of range is clipped."""
    length, axes = instruction.x.shape[instruction.axis], [f"i{a}" for a in range(len(instruction.out.shape))]
    loops, indent = _loops(axes, instruction.out.shape)
    source = [*axes[: instruction.axis], "at", *axes[instruction.axis + 1 :]]
    inside = [
        f"at = indices[{axes[instruction.axis]}]", f"at = at + {length} if at < 0 else at",
        f"at = min(max(at, 0), {length - 1})", f"out[{_index(axes)}] = x[{_index(source)}]",
    ]  # fmt: skip
    return ["def f(x, indices, out):", *loops, *(f"{'    ' * indent}{line}" for line in inside)]


def _reduction(instruction: schedule.Reduction | schedule.Extreme) -> list[str]:
    x, out, function = instruction.x, instruction.out, instruction.function
    axes = tuple(range(len(x.shape)))
    chosen = instruction.axes if isinstance(instruction, schedule.Reduction) else instruction.axis
    reduced = axes if chosen is None else (chosen,) if isinstance(chosen, int) else chosen
    names = [f"i{a}" for a in axes]
    kept = [a for a in axes if a not in reduced]
    outer, indent = _loops([names[a] for a in kept], [x.shape[a] for a in kept])
    inner, deep = _loops([names[a] for a in reduced], [x.shape[a] for a in reduced], indent)
    pad, element = "    " * indent, f"x[{_index(names)}]"
    strides = list(itertools.accumulate([x.shape[a] for a in kept][::-1], lambda a, b: a * b, initial=1))[:-1][::-1]
    at = " + ".join(f"{names[a]} * {s}" for a, s in zip(kept, strides, strict=True)) or "0"
    deeper = "    " * deep
    if isinstance(instruction, schedule.Reduction):
        dtype = DTYPES[out.dtype]
        start = START[function] if out.dtype.kind == "real floating" else _extreme(function, out.dtype)
        step = ACCUMULATE[function].format("total", "now", dtype)
        body = [f"{pad}total = {dtype}({start})", *inner, f"{deeper}now = {dtype}({element})", f"{deeper}{step}"]
        return ["def f(x, out):", *outer, *body, f"{pad}out[{at}] = total"]
    than = ">" if function == "argmax" else "<"
    first = f"x[{_index(['0' if a in reduced else n for a, n in enumerate(names)])}]"
    takes = f"now {than} most or (now != now and most == most)"
    body = [
        f"{pad}most, best, k = {first}, 0, 0", *inner, f"{deeper}now = {element}", f"{deeper}if {takes}:",
        f"{deeper}    most, best = now, k", f"{deeper}k += 1", f"{pad}out[{at}] = best",
    ]  # fmt: skip
    return ["def f(x, out):", *outer, *body]


def _extreme(function: str, dtype: str) -> str:
    if function == "sum":
        return "0"
    if dtype == "bool":
        return str(function == "min")
    return str(np.iinfo(dtype).min if function == "max" else np.iinfo(dtype).max)
