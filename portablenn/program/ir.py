"""What a Program is: a straight line of operations, each a function of the Array API standard."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

Array = Any
"""An array of any library that follows the standard."""


class DType(str):
    """A dtype by its name in the standard, ``DType("float32")``, which is the same for every library."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Compare with a name, or with a dtype of NumPy: ``x.dtype == np.float64``."""
        if isinstance(other, (type, np.dtype)):
            other = dtype_name(other)
        return str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @property
    def kind(self) -> str:
        """One of "bool", "signed", "unsigned", "real floating", "complex floating"."""
        return _kind(self)

    @property
    def is_integer(self) -> bool:
        return _kind(self) in ("signed", "unsigned")

    @property
    def is_floating(self) -> bool:
        return _kind(self) in ("real floating", "complex floating")


@cache
def _kind(name: str) -> str:
    if name in ("float96", "float128", "complex192", "complex256"):
        raise TypeError(
            f"{name!s} (longdouble) is not a dtype of the Array API standard: convert to float64 or complex128"
        )
    for prefix, kind in _KINDS.items():
        if name.startswith(prefix):
            return kind
    raise TypeError(f"{name!s} is not a dtype of the Array API standard")


_KINDS = {
    "bool": "bool", "int": "signed", "uint": "unsigned", "float": "real floating", "bfloat": "real floating",
    "complex": "complex floating",
}  # fmt: skip


def dtype_name(dtype: Any) -> DType:
    """Return the name in the standard of any library's dtype, or of a name."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, np.dtype):
        return _numpy_name(dtype)
    if isinstance(dtype, str) and not dtype.startswith(("<", ">", "=", "|")):
        return DType(dtype)
    if dtype is bool:
        return DType("bool")
    try:
        return _library_name(dtype)
    except TypeError:  # it is not hashable
        return _library_name.__wrapped__(dtype)


@cache
def _numpy_name(dtype: np.dtype[Any]) -> DType:
    """Return the name, which NumPy takes microseconds to make."""
    return DType(dtype.name)


@cache
def _library_name(dtype: Any) -> DType:
    try:
        return DType(np.dtype(dtype).name)
    except TypeError:
        return DType(str(dtype).rsplit(".", 1)[-1])


@dataclass(frozen=True)
class ArrayType:
    """Shape and dtype: what is known of an array before it has a value.

    Examples
    --------
    >>> print(ArrayType((2, 3), DType("float32")))
    float32[2, 3]
    """

    shape: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class Variable:
    """A value of a program: an input, a constant, or the result of one operation. Equal to itself only."""

    __slots__ = ("type",)

    def __init__(self, type: ArrayType) -> None:
        self.type = type

    def __repr__(self) -> str:
        return f"Variable({self.type})"


@dataclass(frozen=True, eq=False)
class Operation:
    """One call of a function of the standard, or of an extension (see `interpret.EXTENSIONS`).

    ``arguments`` are the positional ones: variables, Python scalars and static facts (shapes, dtypes, slices).
    ``parameters`` are the keyword ones, all static. ``concat`` and ``stack`` have the arrays of their list as
    arguments; ``getitem`` is ``x[key]`` with one slice of positive step per axis.
    """

    name: str
    arguments: tuple[Any, ...]
    parameters: dict[str, Any]
    result: Variable

    @property
    def reads(self) -> tuple[Variable, ...]:
        return tuple(argument for argument in self.arguments if isinstance(argument, Variable))

    @property
    def results(self) -> tuple[Variable, ...]:
        """The one result, for the same interface as a group of operations."""
        return (self.result,)

    @property
    def multiplications(self) -> int:
        """How many numbers a product, matmul or vecdot, multiplies."""
        return self.result.type.size * self.reads[0].type.shape[-1]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for operations that compute the same thing; 1, 1.0 and True are different."""
        statics = (*self.arguments, *itertools.chain.from_iterable(sorted(self.parameters.items())))
        return (self.name, len(self.arguments), *map(hashable, statics))


def hashable(fact: Any) -> Any:
    if isinstance(fact, slice):
        return (fact.start, fact.stop, fact.step)
    if isinstance(fact, (tuple, list)):
        return tuple(map(hashable, fact))
    if isinstance(fact, (bool, int, float, complex)):
        return (type(fact), repr(fact))
    return fact


@dataclass(frozen=True, eq=False)
class Program:
    """Inputs, constants (arrays that were not arguments), operations in order, outputs.

    An output may be an input, a constant, or occur twice. ``print(program)`` shows one line for each operation,
    ``program.to_dot()`` as a graph for Graphviz.

    Examples
    --------
    >>> import portablenn as pnn
    >>> print(pnn.trace(lambda x: x + 1.0, pnn.ArrayType((3,), "float32"), name="f"))
    f(a: float32[3]):
        b: float32[3] = add(a, 1.0)
        return b
    """

    inputs: tuple[Variable, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Variable, ...]
    constants: dict[Variable, Array] = field(default_factory=dict)
    name: str = "program"

    @cached_property
    def last_uses(self) -> tuple[tuple[Variable, ...], ...]:
        """For each operation the variables that are not read after it, so that their memory can be freed."""
        kept = {*self.outputs, *self.inputs, *self.constants}
        seen = set(kept)
        ends: list[tuple[Variable, ...]] = []
        for operation in reversed(self.operations):
            last = tuple(dict.fromkeys(v for v in (*operation.reads, operation.result) if v not in seen))
            seen.update(last)
            ends.append(last)
        return tuple(reversed(ends))

    @cached_property
    def names(self) -> dict[Variable, str]:
        """A short name for every variable, as the printed program shows it."""
        fresh = _short_names()
        variables = [*self.inputs, *self.constants, *(operation.result for operation in self.operations)]
        return {variable: next(fresh) for variable in dict.fromkeys(variables)}

    def __str__(self) -> str:
        names = self.names
        inputs = ", ".join(f"{names[v]}: {v.type}" for v in self.inputs)
        lines = [f"{self.name}({inputs}):"]
        lines += [f"    {names[v]}: {v.type} = constant" for v in self.constants]
        lines += [f"    {names[o.result]}: {o.result.type} = {self.show(o)}" for o in self.operations]
        lines += [f"    return {', '.join(names[v] for v in self.outputs)}"]
        return "\n".join(lines)

    def show(self, operation: Operation) -> str:
        """Return one operation as a call, with the names of this program."""
        shown = [self.names[a] if isinstance(a, Variable) else _show(a) for a in operation.arguments]
        shown += [f"{name}={_show(value)}" for name, value in operation.parameters.items()]
        return f"{operation.name}({', '.join(shown)})"

    def to_dot(self) -> str:
        """Return the program as Graphviz DOT text: arrays are arrows, operations are boxes."""
        number = {variable: f"v{i}" for i, variable in enumerate(self.names)}
        lines = ["digraph program {", '    node [shape=box, fontname="monospace"];']
        lines += [f'    {number[v]} [label="{self.names[v]}: {v.type}", shape=ellipse];' for v in self.inputs]
        lines += [f'    {number[v]} [label="constant {v.type}", shape=ellipse, style=dashed];' for v in self.constants]
        for operation in self.operations:
            facts = [_show(a) for a in operation.arguments if not isinstance(a, Variable)]
            facts += [f"{name}={_show(value)}" for name, value in operation.parameters.items()]
            label = f"{operation.name}({', '.join(facts)})" if facts else operation.name
            lines.append(f'    {number[operation.result]} [label="{label}\\n{operation.result.type}"];')
            lines += [f"    {number[v]} -> {number[operation.result]};" for v in operation.reads]
        for i, variable in enumerate(self.outputs):
            lines.append(f'    out{i} [label="output {i}", shape=ellipse];')
            lines.append(f"    {number[variable]} -> out{i};")
        return "\n".join([*lines, "}"])


def _short_names() -> Iterator[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    for length in itertools.count(1):
        for letters in itertools.product(alphabet, repeat=length):
            yield "".join(letters)


def _show(fact: Any) -> str:
    if isinstance(fact, slice):
        step = "" if fact.step in (None, 1) else f":{fact.step}"
        return f"{fact.start}:{fact.stop}{step}"
    if isinstance(fact, tuple):
        inner = ", ".join(map(_show, fact))
        return f"({inner},)" if len(fact) == 1 else f"({inner})"
    return str(fact)
