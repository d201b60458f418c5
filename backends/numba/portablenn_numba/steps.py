"""Small steps: a loop over them as one compiled function, for which a call of NumPy a time would cost more than the work.

Requires Numba. Where every value lies is known beforehand (`runtime.kernels.schedule`); each call of the schedule is the
text of a function with its sizes written out, so that the compiler can unroll it, and the loop calls one after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from portablenn.program.ir import Array, Program, dtype_name
from portablenn.runtime.backend import NUMPY
from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer
from portablenn.runtime.kernels.schedule import (
    Collect,
    Copy,
    Count,
    Extreme,
    Fused,
    Gather,
    Instruction,
    Product,
    Reduction,
    UnsupportedError,
    make_schedule,
)

from .compiled import compiled
from .loops import ACCUMULATE, DTYPES, START, Writer, expressible, look_shape

MULTIPLICATIONS = 4096
"""Of all products of a step, up to which a loop of our own is faster than BLAS; see `runtime.kernels.schedule.is_small`."""

ELEMENTS = 8192
"""Of the largest value of a step, likewise."""

NESTED = '@numba.njit(error_model="numpy")\n'


class SmallSteps:
    """The text of a loop over steps, and what its arguments are.

    Attributes
    ----------
    text
        With a function ``loops(count, *arguments)``.
    looks
        An argument each: a buffer, and the shape as which it is taken.
    numbers
        The arguments after them.

    Raises
    ------
    UnsupportedError
        If there is no text for an operation.
    """

    def __init__(self, program: Program, carried: int) -> None:
        self.schedule = make_schedule(program, NUMPY.xp, carried, expressible)
        self.carry = [v.type for v in program.inputs[1 : 1 + carried]]
        self.data = [v.type for v in program.inputs[1 + carried :]]
        self.constants = [_bytes(c, str(dtype_name(c.dtype))) for c in self.schedule.constants]
        self.looks: list[tuple[Buffer, tuple[int, ...]]] = []
        self._names: dict[Any, str] = {}
        self._functions: dict[str, str] = {}
        self.numbers: list[np.generic] = []
        body = "".join(f"        {line}\n" for call in self.schedule.instructions for line in self._lines(call))
        names = [*(f"k{i}" for i in range(len(self.looks))), *(f"n{i}" for i in range(len(self.numbers)))]
        arguments = ", ".join(["count", *names])
        self.text = f"{''.join(self._functions)}def loops({arguments}):\n    for s in range(count):\n{body}"

    def _argument(self, buffer: Buffer, shape: tuple[int, ...] | None = None) -> str:
        """The name of the argument that is a buffer."""
        shape = buffer.shape if shape is None else shape
        key = (buffer, shape)
        if key not in self._names:
            self._names[key] = f"k{len(self.looks)}"
            self.looks.append(key)
        return self._names[key]

    def _function(self, text: str) -> str:
        """The name of a function of this text; those of the same text are one."""
        name = f"call_{len(self._functions)}"
        for known, its_name in self._functions.items():
            if known == _named(text, its_name):
                return its_name
        self._functions[_named(text, name)] = name
        return name

    def _lines(self, call: Instruction) -> list[str]:
        """What the loop does for a call."""
        if isinstance(call, Fused):
            return [self._fused(call)]
        if isinstance(call, Count):
            return [f"{self._argument(call.counter)}[()] += 1"]
        if isinstance(call, Collect):
            target = self._argument(call.target)
            return [f"{self._function(_collecting(call.source.shape))}({target}, s, {self._argument(call.source)})"]
        if isinstance(call, Extreme):  # counts its results
            out = self._argument(call.out, (math.prod(call.out.shape),))
            return [f"{self._function(_text_of(call))}({self._argument(call.x)}, {out})"]
        return [f"{self._function(_text_of(call))}({', '.join(map(self._argument, call.buffers))})"]

    def _fused(self, call: Fused) -> str:
        group, values = call.group, call.values
        reads = [values[v] for v in group.reads]
        overwritten = [next((i for i, read in enumerate(reads) if read == values[v]), None) for v in group.results]
        writer = Writer(group, overwritten)
        given = [*group.reads, *(v for v, i in zip(group.results, overwritten, strict=True) if i is None)]
        arguments = [self._argument(values[v], look_shape(group, v, writer.flat)) for v in given]
        for number in writer.numbers:
            arguments.append(f"n{len(self.numbers)}")
            self.numbers.append(number)
        return f"{self._function(writer.text.replace('def loops(', 'def f(', 1))}({', '.join(arguments)})"


class Steps:
    """``loop(count, *carry, *data)``, one function with memory of its own: for one thread at a time."""

    def __init__(self, steps: SmallSteps) -> None:
        self.steps = steps
        schedule, carry = steps.schedule, steps.carry
        kinds = {"arena": [schedule.arena], "counter": [4], "carry": [t.size * ITEMSIZE[t.dtype] for t in carry]}
        self.memory = {kind: [_memory(size) for size in sizes] for kind, sizes in kinds.items()}
        self.homes = [self.memory["carry"][i][: t.size * ITEMSIZE[t.dtype]].view(t.dtype) for i, t in enumerate(carry)]
        self.fixed = [None if p.storage.kind in ("input", "collected") else self._look(p, s) for p, s in steps.looks]

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        """The carried arrays after ``count`` steps, and what is collected of each."""
        steps = self.steps
        takes = len(steps.carry) + len(steps.data)
        if len(arrays) != takes:
            raise TypeError(f"expected {1 + takes} arguments, found {1 + len(arrays)}")
        self.memory["counter"][0][:4] = 0
        for home, array in zip(self.homes, arrays, strict=False):
            home[...] = np.reshape(array, -1)
        inputs = [_bytes(a, t.dtype) for a, t in zip(arrays[len(steps.carry) :], steps.data, strict=True)]
        kept = [np.empty((count, *t.shape), dtype=t.dtype) for t in steps.schedule.collected]
        arguments = []
        for (buffer, shape), fixed in zip(steps.looks, self.fixed, strict=True):
            if fixed is not None:
                arguments.append(fixed)
            elif buffer.storage.kind == "input":
                arguments.append(_looked(inputs[buffer.storage.index], buffer, shape))
            else:
                arguments.append(kept[buffer.storage.index])
        arguments += steps.numbers
        compiled(steps.text, tuple(map(numba.typeof, (count, *arguments))))(count, *arguments)
        return (*(h.reshape(t.shape).copy() for h, t in zip(self.homes, steps.carry, strict=True)), *kept)

    @property
    def nbytes(self) -> int:
        """Bytes of its memory, and of the constants."""
        return sum(a.nbytes for arrays in (*self.memory.values(), self.steps.constants) for a in arrays)

    @property
    def source(self) -> str:
        """The text of the loop."""
        return self.steps.text

    def _look(self, buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
        storage = buffer.storage
        if storage.kind == "arena":
            return _looked(self.memory["arena"][0][storage.index :], buffer, shape)
        memory = self.steps.constants if storage.kind == "constant" else self.memory[storage.kind]
        return _looked(memory[storage.index], buffer, shape)


def small_steps(program: Program, carried: int) -> SmallSteps:
    """The loop over a step, tried on memory of its own, so that what cannot be done is found now."""
    steps = SmallSteps(program, carried)
    Steps(steps)
    for buffer, shape in steps.looks:
        if buffer.storage.kind == "input":
            _looked(_memory(buffer.storage.nbytes), buffer, shape)
    return steps


def _named(text: str, name: str) -> str:
    return NESTED + text.replace("def f(", f"def {name}(", 1)


def _memory(nbytes: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    raw = np.zeros(nbytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + max(nbytes, 8)]


def _bytes(array: Any, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def _looked(memory: np.ndarray, buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
    """A buffer as an array of some shape."""
    try:
        return np.reshape(buffer.array(memory), shape, copy=False)
    except ValueError:
        raise UnsupportedError(f"a view of {buffer.shape} as {shape}") from None


def _loops(names: Sequence[str], lengths: Sequence[int], indent: int = 1) -> tuple[list[str], int]:
    """Nested loops over axes, and how far what is in them is indented."""
    lines = [f"{'    ' * (indent + i)}for {name} in range({n}):" for i, (name, n) in enumerate(zip(names, lengths))]
    return lines, indent + len(lines)


def _index(names: Sequence[str]) -> str:
    return ", ".join(names) or "()"


def _collecting(shape: tuple[int, ...]) -> str:
    axes = [f"i{a}" for a in range(len(shape))]
    lines, indent = _loops(axes, shape)
    return "\n".join(
        ["def f(y, s, x):", *lines, f"{'    ' * indent}y[{_index(['s', *axes])}] = x[{_index(axes)}]", "", ""]
    )


def _text_of(call: Product | Reduction | Extreme | Gather | Copy) -> str:
    """The function ``f`` of a call; its parameters are the call's buffers."""
    if isinstance(call, Product):
        lines = _product(call)
    elif isinstance(call, Gather):
        lines = _gather(call)
    elif isinstance(call, Copy):
        axes = [f"i{a}" for a in range(len(call.source.shape))]
        loops, indent = _loops(axes, call.source.shape)
        lines = ["def f(x, y):", *loops, f"{'    ' * indent}y[{_index(axes)}] = x[{_index(axes)}]"]
    else:
        lines = _reduction(call)
    return "\n".join([*lines, "", ""])


def _product(call: Product) -> list[str]:
    (rows, inner), columns = call.a.shape, call.b.shape[1]
    zero = f"{DTYPES[call.out.dtype]}(0)"
    return [
        "def f(a, b, out):", f"    for i in range({rows}):", f"        for j in range({columns}):",
        f"            total = {zero}", f"            for k in range({inner}):",
        "                total += a[i, k] * b[k, j]", "            out[i, j] = total",
    ]  # fmt: skip


def _gather(call: Gather) -> list[str]:
    """A negative index counts from the end; one beyond either end is brought to it."""
    length, axes = call.x.shape[call.axis], [f"i{a}" for a in range(len(call.out.shape))]
    loops, indent = _loops(axes, call.out.shape)
    source = [*axes[: call.axis], "at", *axes[call.axis + 1 :]]
    inside = [
        f"at = indices[{axes[call.axis]}]", f"at = at + {length} if at < 0 else at",
        f"at = min(max(at, 0), {length - 1})", f"out[{_index(axes)}] = x[{_index(source)}]",
    ]  # fmt: skip
    return ["def f(x, indices, out):", *loops, *(f"{'    ' * indent}{line}" for line in inside)]


def _reduction(call: Reduction | Extreme) -> list[str]:
    axes = tuple(range(len(call.x.shape)))
    chosen = call.axes if isinstance(call, Reduction) else call.axis
    reduced = axes if chosen is None else (chosen,) if isinstance(chosen, int) else chosen
    names = [f"i{a}" for a in axes]
    kept = [a for a in axes if a not in reduced]
    outer, indent = _loops([names[a] for a in kept], [call.x.shape[a] for a in kept])
    inner, deep = _loops([names[a] for a in reduced], [call.x.shape[a] for a in reduced], indent)
    pad, element = "    " * indent, f"x[{_index(names)}]"
    strides = list(itertools.accumulate([call.x.shape[a] for a in kept][::-1], lambda a, b: a * b, initial=1))[:-1][
        ::-1
    ]
    at = " + ".join(f"{names[a]} * {s}" for a, s in zip(kept, strides, strict=True)) or "0"
    if isinstance(call, Reduction):
        dtype = DTYPES[call.out.dtype]
        start = START[call.how] if call.out.dtype.kind == "real floating" else _extreme(call.how, call.out.dtype)
        step = ACCUMULATE[call.how].format("total", "now", dtype)
        body = [
            f"{pad}total = {dtype}({start})",
            *inner,
            f"{'    ' * deep}now = {dtype}({element})",
            f"{'    ' * deep}{step}",
        ]
        return ["def f(x, out):", *outer, *body, f"{pad}out[{at}] = total"]
    than = ">" if call.how == "argmax" else "<"
    first = f"x[{_index(['0' if a in reduced else n for a, n in enumerate(names)])}]"
    takes = f"now {than} most or (now != now and most == most)"
    deeper = "    " * deep
    body = [
        f"{pad}most, best, k = {first}, 0, 0", *inner, f"{deeper}now = {element}", f"{deeper}if {takes}:",
        f"{deeper}    most, best = now, k", f"{deeper}k += 1", f"{pad}out[{at}] = best",
    ]  # fmt: skip
    return ["def f(x, out):", *outer, *body]


def _extreme(how: str, dtype: str) -> str:
    if how == "sum":
        return "0"
    if dtype == "bool":
        return str(how == "min")
    return str(np.iinfo(dtype).min if how == "max" else np.iinfo(dtype).max)
