"""The reference executor: each operation is one call of a namespace's own function.

What this module computes is what a Program means; every other executor is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat

from .ir import Array, DType, Operation, Program, Variable

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
    values: dict[Variable, Array] = {**program.constants, **dict(zip(program.inputs, inputs, strict=True))}
    for operation, dead in zip(program.operations, program.last_uses, strict=True):
        arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
        values[operation.result] = execute(xp, operation, arguments, device, functions)
        for variable in dead:
            del values[variable]
    return tuple(values[variable] for variable in program.outputs)


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
    if name == "getitem":
        return arguments[0][arguments[1]]
    if name in EXTENSIONS:
        function = (functions or {}).get(name, EXTENSIONS[name])
        return function(xp, *arguments, **parameters)
    arguments = [getattr(xp, a) if isinstance(a, DType) else a for a in arguments]
    if parameters:
        parameters = {k: getattr(xp, p) if isinstance(p, DType) else p for k, p in parameters.items()}
    if name in TAKES_A_LIST:
        arguments = [arguments]
    if name in CREATION and device is not None:
        parameters = {**parameters, "device": device}
    return getattr(xp, name)(*arguments, **parameters)


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
    "index_add": index_add, "rounded_matmul": rounded_matmul, "stop_gradient": lambda xp, x: x,
}  # fmt: skip
"""Operations that the Array API lacks, written in its functions: what runs where a library has nothing better."""
