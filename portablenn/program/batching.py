"""Batching: each operation is done for many arrays at once, along a new first axis.

A rule takes the number of elements, which of the arguments have the new axis, and the arguments; it returns a result that has
it. Rules are written in functions of the Array API standard; arrays are of any library, or tracers of an outer trace.
Arguments without the new axis are the same for each element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import array_api_compat

from .interpret import Functions
from .ir import Array, ArrayType, Variable
from .linalg import PACKED
from .namespace import BINARY, UNARY, TracingNamespace
from .trace import activated, active_traces
from .tracer import TracerValueError, users_line
from .value_trace import ValueTrace, ValueTracer

Rule = Callable[..., Array]
RULES: dict[str, Rule] = {}


class Context:
    """What a rule works with: the namespace ``xp``, the number of elements ``size``, and which arguments are mapped."""

    def __init__(self, trace: MappedTrace, values: Sequence[Any], mapped: Sequence[bool], rank: int) -> None:
        self.trace, self.mapped, self.rank = trace, mapped, rank
        self.size = trace.size
        self.xp = trace.namespace_of(values)

    def run(self, name: str, *arguments: Any, **parameters: Any) -> Array:
        """Execute an operation."""
        return self.trace.execute(name, list(arguments), parameters)

    def all_mapped(self, arrays: Sequence[Any]) -> list[Any]:
        """Return the arrays with the new axis, repeated along it where they have none."""
        return [
            x if mapped else self.xp.broadcast_to(x, (self.size, *x.shape))
            for x, mapped in zip(arrays, self.mapped, strict=False)
        ]

    def aligned(self, arguments: Sequence[Any], rank: int | None = None) -> list[Any]:
        """Return arguments with axes of length 1 after the new one, so that they broadcast as single elements do."""
        rank = self.rank if rank is None else rank
        return [
            self.xp.reshape(x, (self.size, *(1,) * (rank + 1 - x.ndim), *x.shape[1:]))
            if mapped and x.ndim < rank + 1
            else x
            for x, mapped in zip(arguments, self.mapped, strict=False)
        ]


@contextmanager
def mapping(xp: Any, size: int, device: Any = None, functions: Functions | None = None) -> Iterator[MappedTrace]:
    """Make a trace over ``size`` elements the innermost one of this thread (or task) while the block runs."""
    with activated(MappedTrace(len(active_traces()), xp, device, functions, size)) as current:
        yield current


class MappedTrace(ValueTrace):
    """A trace whose tracers stand for one element each; the value of a mapped one holds all elements along its first axis."""

    def __init__(self, level: int, xp: Any, device: Any, functions: Functions | None, size: int) -> None:
        super().__init__(level, xp, device, functions)
        self.size = size
        self._mapped: set[Variable] = set()

    def element(self, value: Array) -> ValueTracer:
        """Return a tracer of one element of an array, along its first axis."""
        type_ = ArrayType(tuple(int(n) for n in value.shape[1:]), self.tracer(value).dtype)
        x = ValueTracer(self, Variable(type_), value)
        self._mapped.add(x.variable)
        return x

    def all_elements(self, x: Any) -> Array:
        """Return the values of a tracer for all elements, along the first axis."""
        x = self.lift(x)
        if x.variable in self._mapped:
            return x.value
        return self.namespace_of([x.value]).broadcast_to(x.value, (self.size, *x.shape))

    def emit(self, name: str, arguments: Sequence[Any], parameters: dict[str, Any], type: ArrayType) -> ValueTracer:
        mapped = [isinstance(a, ValueTracer) and a.variable in self._mapped for a in arguments]
        if not any(mapped):
            return super().emit(name, arguments, parameters, type)
        values = [a.value if isinstance(a, ValueTracer) else a for a in arguments]
        context = Context(self, values, mapped, len(type.shape))
        result = ValueTracer(self, Variable(type), RULES[name](context, *values, **parameters))
        self._mapped.add(result.variable)
        return result

    def read(self, x: ValueTracer, asked: str) -> Any:
        if x.variable not in self._mapped:
            return x.value
        raise TracerValueError(
            f"{asked} asks for the value of {x.variable.type}, which differs between the elements that vmap maps over, at "
            f"{users_line()}\nWrite a choice between values as xp.where(condition, a, b), and use xp's functions, not math's."
        )

    def is_opaque(self, x: ValueTracer) -> bool:
        return x.variable in self._mapped


def _elementwise(name: str) -> Rule:
    return lambda c, *arguments: c.run(name, *c.aligned(arguments))


for _name in (*UNARY, *BINARY, "abs", "conj", "real", "imag", "where", "stop_gradient"):
    RULES[_name] = _elementwise(_name)
RULES["astype"] = lambda c, x, dtype: c.run("astype", x, dtype)


# Shapes


RULES["broadcast_to"] = lambda c, x, shape: c.run("broadcast_to", *c.aligned((x,), len(shape)), (c.size, *shape))
RULES["flip"] = lambda c, x, axis: c.run("flip", x, axis=tuple(a + 1 for a in axis))
RULES["getitem"] = lambda c, x, key: c.run("getitem", x, (slice(0, c.size, 1), *key))
RULES["permute_dims"] = lambda c, x, axes: c.run("permute_dims", x, (0, *(a + 1 for a in axes)))
RULES["reshape"] = lambda c, x, shape: c.run("reshape", x, (c.size, *shape))
RULES["tril"] = lambda c, x, k: c.run("tril", x, k=k)
RULES["triu"] = lambda c, x, k: c.run("triu", x, k=k)
RULES["concat"] = lambda c, *arrays, axis: c.run("concat", *c.all_mapped(arrays), axis=axis + 1)


# Reductions, and what goes along an axis


def _reduction(name: str) -> Rule:
    return lambda c, x, axis, **kwargs: c.run(name, x, axis=tuple(a + 1 for a in axis), **kwargs)


def _along(name: str) -> Rule:
    return lambda c, x, axis, **kwargs: c.run(name, x, axis=axis + 1, **kwargs)


def _arg_extreme(name: str) -> Rule:
    def rule(c: Context, x: Array, *, axis: int | None, keepdims: bool) -> Array:
        if axis is not None:
            return c.run(name, x, axis=axis + 1, keepdims=keepdims)
        found = c.run(name, c.xp.reshape(x, (c.size, -1)), axis=1, keepdims=False)
        return c.xp.reshape(found, (c.size, *(1,) * (x.ndim - 1))) if keepdims else found

    return rule


for _name in ("sum", "prod", "max", "min", "all", "any"):
    RULES[_name] = _reduction(_name)
for _name in ("cumulative_sum", "cumulative_prod", "sort", "argsort"):
    RULES[_name] = _along(_name)
for _name in ("argmax", "argmin"):
    RULES[_name] = _arg_extreme(_name)


# Matrices


def _product(name: str) -> Rule:
    def rule(c: Context, a: Array, b: Array, **kwargs: Any) -> Array:
        if c.mapped[0] and not c.mapped[1] and a.ndim == 3 and b.ndim == 2:  # one product of more rows
            rows = c.xp.reshape(a, (a.shape[0] * a.shape[1], a.shape[2]))
            return c.xp.reshape(c.run(name, rows, b, **kwargs), (a.shape[0], a.shape[1], b.shape[1]))
        return c.run(name, *c.aligned((a, b)), **kwargs)

    return rule


RULES["matmul"], RULES["rounded_matmul"] = _product("matmul"), _product("rounded_matmul")


# Indices: rows of all elements are joined into one axis, with indices to match


def _offset(c: Context, indices: Array, length: int) -> Array:
    """Return indices into the joined axis, flat, for indices of shape (size, count) into each element's own axis."""
    xp = c.xp
    device = None if isinstance(xp, TracingNamespace) else array_api_compat.device(indices)
    start = xp.reshape(xp.arange(c.size, dtype=indices.dtype, device=device) * length, (c.size, 1))
    inside = xp.where(indices < 0, indices + length, indices)
    valid = xp.logical_and(inside >= 0, inside < length)
    return xp.reshape(xp.where(valid, inside + start, c.size * length), (-1,))


def _take(c: Context, x: Array, indices: Array, *, axis: int) -> Array:
    xp, (x_is_mapped, indices_are_mapped) = c.xp, c.mapped
    if not indices_are_mapped:
        return c.run("take", x, indices, axis=axis + 1)
    if not x_is_mapped:
        taken = c.run("take", x, xp.reshape(indices, (-1,)), axis=axis)
        taken = xp.reshape(taken, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
        return xp.moveaxis(taken, axis, 0)
    moved = xp.moveaxis(x, axis + 1, 1)
    length, rest = moved.shape[1], moved.shape[2:]
    joined = xp.reshape(moved, (c.size * length, *rest))
    taken = c.run("take", joined, _offset(c, indices, length), axis=0)
    return xp.moveaxis(xp.reshape(taken, (*indices.shape, *rest)), 1, axis + 1)


def _take_along_axis(c: Context, x: Array, indices: Array, *, axis: int) -> Array:
    return c.run("take_along_axis", *c.all_mapped((x, indices)), axis=axis + 1)


def _index_add(c: Context, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    xp = c.xp
    indices_are_mapped = c.mapped[1]
    x, mapped_indices, updates = c.all_mapped((x, indices, updates))
    if not indices_are_mapped:
        return c.run("index_add", x, indices, updates, axis=axis + 1)
    moved, added = xp.moveaxis(x, axis + 1, 1), xp.moveaxis(updates, axis + 1, 1)
    length, rest = moved.shape[1], moved.shape[2:]
    joined = xp.reshape(moved, (c.size * length, *rest))
    added = xp.reshape(added, (c.size * added.shape[1], *rest))
    result = c.run("index_add", joined, _offset(c, mapped_indices, length), added, axis=0)
    return xp.moveaxis(xp.reshape(result, moved.shape), 1, axis + 1)


def _searchsorted(c: Context, x1: Array, x2: Array, *, side: str) -> Array:
    """Count the sorted numbers that are smaller (or not larger), which the standard's function does for one row only."""
    xp = c.xp
    if not c.mapped[0]:
        return c.run("searchsorted", x1, x2, side=side)
    if not c.mapped[1]:
        x2 = xp.broadcast_to(x2, (c.size, *x2.shape))
    flat = xp.reshape(x2, (c.size, -1, 1))
    row = xp.reshape(x1, (c.size, 1, -1))
    before = row < flat if side == "left" else row <= flat
    return xp.reshape(xp.sum(xp.astype(before, xp.int64), axis=-1), x2.shape)


# Linear algebra and Fourier transforms: all but the last axes, or all but one, are batches already


def _stacked(name: str) -> Rule:
    return lambda c, x, **kwargs: c.run(name, x, **kwargs)


for _name in (*PACKED, "linalg.cholesky", "linalg.det", "linalg.inv", "linalg.pinv"):
    RULES[_name] = _stacked(_name)
for _name in ("fft.fft", "fft.ifft", "fft.rfft", "fft.irfft"):
    RULES[_name] = _along(_name)
RULES["linalg.solve"] = lambda c, a, b: c.run("linalg.solve", *c.all_mapped((a, b)))

RULES |= {
    "take": _take, "take_along_axis": _take_along_axis, "index_add": _index_add, "searchsorted": _searchsorted,
}  # fmt: skip
