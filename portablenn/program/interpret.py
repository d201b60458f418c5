"""The reference executor: each operation is one call of a namespace's own function.

What this module computes is what a Program means; every other executor is compared with it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import array_api_compat

from .ir import Array, DType, Operation, Program, Variable
from .linalg import PACKED

CREATION = frozenset({"arange", "asarray", "eye", "full", "linspace"})
TAKES_A_LIST = frozenset({"concat", "stack"})

Functions = Mapping[str, Callable[..., Array]]
"""Functions for operations that the Array API lacks, by name: ``function(xp, *arguments, **parameters)``."""


def interpret(
    xp: Any, program: Program, *inputs: Array, device: Any = None, functions: Functions | None = None
) -> tuple[Array, ...]:
    """Run a program on arrays of the namespace ``xp``, and return one array for each output.

    New arrays are created on ``device``. ``functions`` replace those of `EXTENSIONS`.
    """
    return Interpreter(xp, program, device, functions)(*inputs)


class Interpreter:
    """A program ready to be run on arrays of the namespace ``xp``, with its functions looked up once; see `interpret`."""

    def __init__(self, xp: Any, program: Program, device: Any = None, functions: Functions | None = None) -> None:
        results = [operation.result for operation in program.operations]
        slots = {v: i for i, v in enumerate([*program.inputs, *program.constants, *results])}
        self.name, self.inputs, self.constants = program.name, len(program.inputs), list(program.constants.values())
        self.steps: list[tuple[Callable[..., Array], list[Any], list[tuple[int, int]], Any, int, list[int]]] = []
        for operation, dead in zip(program.operations, program.last_uses, strict=True):
            function, parameters = _resolved(xp, operation.name, operation.parameters, device, functions)
            arguments = [getattr(xp, a) if isinstance(a, DType) else a for a in operation.arguments]
            reads = [(i, slots[a]) for i, a in enumerate(operation.arguments) if isinstance(a, Variable)]
            self.steps.append(
                (function, arguments, reads, parameters, slots[operation.result], [slots[v] for v in dead])
            )
        self.outputs = [slots[v] for v in program.outputs]
        self.empty = [None] * len(results)

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        if len(inputs) != self.inputs:
            raise TypeError(f"{self.name} takes {self.inputs} arrays, got {len(inputs)}")
        values: list[Any] = [*inputs, *self.constants, *self.empty]
        for function, template, reads, parameters, result, dead in self.steps:
            arguments = template.copy()
            for position, slot in reads:
                arguments[position] = values[slot]
            values[result] = function(*arguments, **parameters)
            for slot in dead:
                values[slot] = None
        return tuple([values[slot] for slot in self.outputs])


def _resolved(
    xp: Any, name: str, parameters: dict[str, Any], device: Any, functions: Functions | None
) -> tuple[Callable[..., Array], dict[str, Any]]:
    """Return the function that an operation calls, and its keyword arguments."""
    if parameters:
        parameters = {k: getattr(xp, p) if isinstance(p, DType) else p for k, p in parameters.items()}
    if name == "getitem":
        return operator.getitem, parameters
    if name in EXTENSIONS:
        return partial((functions or {}).get(name, EXTENSIONS[name]), xp), parameters
    function = operator.attrgetter(name)(xp)  # "linalg.inv" is xp.linalg.inv
    if name in TAKES_A_LIST:
        return lambda *arrays, **kwargs: function(list(arrays), **kwargs), parameters
    if name in CREATION and device is not None:
        parameters = {**parameters, "device": device}
    return function, parameters


def execute(
    xp: Any, operation: Operation, arguments: list[Any], device: Any = None, functions: Functions | None = None
) -> Array:
    """Run one operation on the values of its arguments."""
    return call(xp, operation.name, arguments, operation.parameters, device, functions)


def call(
    xp: Any,
    name: str,
    arguments: list[Any],
    parameters: dict[str, Any],
    device: Any = None,
    functions: Functions | None = None,
) -> Array:
    """Run an operation, given by its name, on the values of its arguments."""
    function, parameters = _resolved(xp, name, parameters, device, functions)
    return function(*[getattr(xp, a) if isinstance(a, DType) else a for a in arguments], **parameters)


def index_add(xp: Any, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """Return ``x`` with ``updates`` added at ``indices`` along an axis; reproducible on every device.

    Updates are sorted by index, summed over each run of equal indices by a segmented scan, and fetched by the rows that
    they belong to. Nothing is multiplied by zero, so an infinite update stays in its row.
    """
    count, length = indices.shape[0], x.shape[axis]
    if count == 0 or length == 0:
        return x
    rows = xp.arange(length, dtype=indices.dtype, device=array_api_compat.device(x))
    indices = xp.where(indices < 0, indices + length, indices)
    order = xp.argsort(indices)
    indices = xp.take(indices, order, axis=0)
    sums = xp.take(xp.moveaxis(updates, axis, 0), order, axis=0)
    tail = (1,) * (x.ndim - 1)
    shift = 1
    while shift < count:  # sums[i] adds up the last 2 * shift updates of its run up to i
        same = xp.reshape(indices[shift:] == indices[:-shift], (-1, *tail))
        earlier = xp.where(same, sums[:-shift, ...], xp.zeros_like(sums[:-shift, ...]))
        sums = xp.concat([sums[:shift, ...], sums[shift:, ...] + earlier], axis=0)
        shift *= 2
    ends = xp.searchsorted(indices, rows, side="right") - 1
    ends = xp.where(ends < 0, 0, ends)
    hit = xp.reshape(xp.take(indices, ends, axis=0) == rows, (-1, *tail))
    moved = xp.moveaxis(x, axis, 0)
    return xp.moveaxis(xp.where(hit, moved + xp.take(sums, ends, axis=0), moved), 0, axis)


SIGNIFICANT_BITS = {"tf32": 11, "bfloat16": 8}
"""Bits of the significand, the implicit one included, in the precisions of `rounded_matmul`; float32 has 24."""


def rounded(xp: Any, x: Array, precision: str) -> Array:
    """Return float32 numbers rounded to a precision; ties go either way, and numbers from 2¹⁰⁰ on stay as they are.

    Dekker (1971), "A floating-point technique for extending the available precision": p - (p - x), p = x (2ˢ + 1).
    """
    multiple = x * float(2 ** (24 - SIGNIFICANT_BITS[precision]) + 1)
    return xp.where(xp.abs(x) < 2.0**100, multiple - (multiple - x), x)


def rounded_matmul(xp: Any, a: Array, b: Array, *, precision: str) -> Array:
    """Return the matrix product of float32 arrays rounded to ``precision``, in sums of float32.

    A library's own function may round less.
    """
    return xp.matmul(rounded(xp, a, precision), rounded(xp, b, precision))


EXTENSIONS: Functions = {
    **PACKED, "index_add": index_add, "rounded_matmul": rounded_matmul, "stop_gradient": lambda xp, x: x,
}  # fmt: skip
"""Operations that the Array API lacks, written in its functions: what runs where a library has nothing better."""
