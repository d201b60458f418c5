"""Simplification: the same values by fewer operations.

One pass traces the program again and leaves out operations that were done before, that change nothing (``x * 1``, a reshape
to the same shape), or that follow another of their kind (a reshape of a reshape, ``(x * 2) * 3``); arrays filled with one
number become that number. A second pass drops what no output needs. Values agree with the unsimplified program's to rounding,
except within a factor of 1e5 of overflow: ``x * 2 * 3`` becomes ``x * 6``, ``x * 2 * y`` may become ``x * y * 2``.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from .interpret import execute
from .ir import ArrayType, Operation, Program, Variable
from .namespace import TRACING
from .trace import Trace, tracing
from .tracer import Tracer
from .type_rules import broadcast_shape


def simplify(program: Program) -> Program:
    """Return a program with the same inputs, outputs and meaning, and fewer operations.

    Examples
    --------
    >>> import portablenn as pnn
    >>> program = pnn.trace(lambda x: (x * 2.0) * 3.0 + x * 2.0 * 3.0, pnn.ArrayType((), "float64"))
    >>> print(simplify(program))
    lambda(a: float64[]):
        b: float64[] = multiply(a, 6.0)
        c: float64[] = add(b, b)
        return c
    """
    before = len(program.operations) + 1
    while len(program.operations) < before:  # one rewriting can make room for another
        before = len(program.operations)
        program = drop_dead(_rewritten(drop_dead(program)))
    return program


def drop_dead(program: Program) -> Program:
    """Return a program without the operations and constants that no output needs."""
    needed = set(program.outputs)
    kept = []
    for operation in reversed(program.operations):
        if operation.result in needed:
            kept.append(operation)
            needed.update(operation.reads)
    constants = {v: array for v, array in program.constants.items() if v in needed}
    return Program(program.inputs, tuple(reversed(kept)), program.outputs, constants, program.name)


def _rewritten(program: Program) -> Program:
    uses = Counter(v for operation in program.operations for v in operation.reads) + Counter(program.outputs)
    with tracing() as trace:
        rewriter = _Rewriter(trace)
        values: dict[Variable, Tracer] = {v: trace.input(v.type) for v in program.inputs}
        inputs = [values[v].variable for v in program.inputs]
        values |= {v: trace.lift(constant) for v, constant in program.constants.items()}
        for operation in program.operations:
            arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
            result = values[operation.result] = rewriter.simplest(operation, arguments)
            rewriter.uses[result.variable] += uses[operation.result]
        return trace.program(inputs, [values[v].variable for v in program.outputs], program.name)


class _Rewriter:
    """What is known so far of the variables of the new program."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.xp = trace.namespace
        self.made_by: dict[Variable, Operation] = {}
        self.done: dict[Any, Tracer] = {}
        self.uses: Counter[Variable] = Counter()

    def simplest(self, operation: Operation, arguments: list[Any]) -> Tracer:
        """Return the value of ``operation`` for these arguments, in its type."""
        result = self.rewritten(operation.name, *arguments, **operation.parameters)
        type = operation.result.type
        if result.variable.type == type:
            return result
        return self.emit("broadcast_to", [self.xp.astype(result, type.dtype), type.shape])

    def rewritten(self, name: str, *arguments: Any, **parameters: Any) -> Tracer:
        """Return what an operation computes, by a simpler one if there is a rule."""
        rewrite = REWRITES.get(name)
        result = rewrite(self, *arguments, **parameters) if rewrite else None
        return self.emit(name, list(arguments), parameters) if result is None else result

    def emit(self, name: str, arguments: list[Any], parameters: dict[str, Any] | None = None) -> Tracer:
        """Add an operation, unless the program has it already."""
        inner = tuple(a.variable if isinstance(a, Tracer) else a for a in arguments)
        asked = Operation(name, inner, parameters or {}, _NOWHERE)
        if asked.key not in self.done:
            count = len(self.trace.operations)
            self.done[asked.key] = execute(self.xp, asked, list(arguments), functions=TRACING)
            self.made_by.update((o.result, o) for o in self.trace.operations[count:])
        return self.done[asked.key]

    def filled(self, shape: tuple[int, ...], number: Any, dtype: Any) -> Tracer:
        return self.emit("full", [shape, number], {"dtype": dtype})

    def origin(self, x: Any, name: str) -> Operation | None:
        """Return the operation that made ``x``, if it has this name."""
        made = self.made_by.get(x.variable) if isinstance(x, Tracer) else None
        return made if made is not None and made.name == name else None

    def before(self, x: Any, name: str) -> Tracer | None:
        """Return the first argument of the operation that made ``x``, if it has this name."""
        made = self.origin(x, name)
        return Tracer(self.trace, made.arguments[0]) if made else None

    def scaled(self, x: Any) -> tuple[Tracer, float] | None:
        """Return the array and the number of which ``x`` is the product."""
        made = self.origin(x, "multiply")
        for array, number in (made.arguments, made.arguments[::-1]) if made else ():
            if isinstance(number, float | int) and isinstance(array, Variable):
                return Tracer(self.trace, array), number
        return None

    def uniform(self, x: Any) -> Any:
        """Return the one number that fills ``x``, or None."""
        if not isinstance(x, Tracer):
            return x
        made = self.made_by.get(x.variable)
        while made is not None and made.name in ("broadcast_to", "reshape", "permute_dims", "getitem", "flip"):
            made = self.made_by.get(made.arguments[0])
        if made is None or made.name != "full":
            return None
        return _as_dtype(made.arguments[1], x.dtype)


_NOWHERE = Variable(ArrayType((), None))  # type: ignore[arg-type]


def _as_dtype(number: Any, dtype: Any) -> Any:
    """Return a number rounded to a dtype, as a Python scalar; None if the dtype cannot hold it."""
    if not isinstance(number, (bool, int, float)):
        return None
    try:
        return np.asarray(number, dtype=dtype).item()
    except (OverflowError, TypeError):
        return None


def _elementwise(name: str, special: Callable[..., Tracer | None] | None = None) -> Callable[..., Tracer | None]:
    """Numbers instead of filled arrays, and no broadcast that the operation does by itself; then the special cases."""

    def rewrite(self: _Rewriter, *arguments: Any) -> Tracer | None:
        arrays = [a for a in arguments if isinstance(a, Tracer)]
        shape = broadcast_shape(name, [a.shape for a in arrays])
        folded = _folded(self, name, arguments)
        if folded is not None:
            return self.filled(shape, folded, arrays[0].dtype)
        plain = list(arguments)
        for i, a in enumerate(arguments):
            others = [b for j, b in enumerate(plain) if j != i and isinstance(b, Tracer)]
            number = self.uniform(a) if isinstance(a, Tracer) and a.dtype != "bool" else None
            if number is not None and _stands_alone(name, a, others, shape):
                plain[i] = number
                continue
            thin = self.before(a, "broadcast_to")
            if thin is not None and others and broadcast_shape(name, [thin.shape, *(b.shape for b in others)]) == shape:
                plain[i] = thin
        result = special(self, *plain) if special else None
        return result if result is not None else self.emit(name, plain)

    return rewrite


def _stands_alone(name: str, filled: Tracer, others: list[Tracer], shape: tuple[int, ...]) -> bool:
    """Return whether ``others`` give the result its shape and dtype without the filled array."""
    dtypes = {b.dtype for b in others if b.dtype != "bool"}
    return dtypes == {filled.dtype} and broadcast_shape(name, [b.shape for b in others]) == shape


def _folded(self: _Rewriter, name: str, arguments: tuple[Any, ...]) -> Any:
    """Return the number that fills the result, if every argument is filled with one."""
    numbers = [self.uniform(a) for a in arguments]
    floats = all(a.dtype.kind == "real floating" for a in arguments if isinstance(a, Tracer))
    if name not in FOLDS or not floats or any(n is None for n in numbers):
        return None
    number = FOLDS[name](*numbers)
    return number if number == 0 or 1e-30 < math.fabs(number) < 1e30 else None


def _full_size(self: _Rewriter, x: Any, *others: Any) -> bool:
    """Return whether an operation on ``x`` and ``others`` has the type of ``x``."""
    arrays = [a for a in (x, *others) if isinstance(a, Tracer)]
    return (
        isinstance(x, Tracer)
        and broadcast_shape("", [a.shape for a in arrays]) == x.shape
        and all(a.dtype == x.dtype for a in arrays)
    )


def _is_zero(number: Any, dtype: Any, sign: float) -> bool:
    """Return whether it is 0, and for floating-point numbers the zero of this sign: 0.0 + -0.0 is 0.0."""
    if not isinstance(number, (int, float)) or number != 0:
        return False
    return not dtype.is_floating or math.copysign(1.0, number) == sign


def _add(self: _Rewriter, a: Any, b: Any) -> Tracer | None:
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Tracer) and _is_zero(self.uniform(y), x.dtype, -1.0) and _full_size(self, x, y):
            return x
        opposite = self.before(y, "negative")
        if opposite is not None and isinstance(x, Tracer):
            return self.emit("subtract", [x, opposite])
    return None


def _subtract(self: _Rewriter, a: Any, b: Any) -> Tracer | None:
    if isinstance(a, Tracer) and _is_zero(self.uniform(b), a.dtype, 1.0) and _full_size(self, a, b):
        return a
    if isinstance(a, (int, float)) and _is_zero(a, b.dtype, -1.0):
        return self.rewritten("negative", b)
    opposite = self.before(b, "negative")
    return None if opposite is None else self.emit("add", [a, opposite])


def _multiply(self: _Rewriter, a: Any, b: Any) -> Tracer | None:
    for x, y in ((a, b), (b, a)):
        if not isinstance(x, Tracer):
            continue
        number = self.uniform(y)
        if number is None:
            continue
        if number == 1 and _full_size(self, x, y):
            return x
        if isinstance(y, Tracer) or x.dtype.kind != "real floating":
            continue
        if number == -1:
            return self.rewritten("negative", x)
        inner = self.scaled(x)
        if inner and _finite_product(inner[1], number):
            return self.rewritten("multiply", inner[0], inner[1] * number)
        opposite = self.before(x, "negative")
        if opposite is not None:
            return self.rewritten("multiply", opposite, -number)
    if isinstance(a, Tracer) and isinstance(b, Tracer) and a.dtype.kind == "real floating":
        sunk = _sink_scale(self, a, b)
        return sunk if sunk is not None else _sink_scale(self, b, a)
    return None


def _sink_scale(self: _Rewriter, x: Tracer, y: Tracer) -> Tracer | None:
    """(x · 2) · y is (x · y) · 2, so that numbers meet at the end of a chain and become one.

    Only numbers near 1 move, for a very small one may be there to keep x · y from overflowing.
    """
    if self.uses[x.variable] != 1 or not _full_size(self, x, y):
        return None
    scaled = self.scaled(x)
    if scaled and 1e-5 < math.fabs(scaled[1]) < 1e5:
        return self.rewritten("multiply", self.rewritten("multiply", scaled[0], y), scaled[1])
    opposite = self.before(x, "negative")
    return None if opposite is None else self.rewritten("negative", self.rewritten("multiply", opposite, y))


def _divide(self: _Rewriter, a: Any, b: Any) -> Tracer | None:
    return a if self.uniform(b) == 1 and _full_size(self, a, b) else None


def _pow(self: _Rewriter, a: Any, b: Any) -> Tracer | None:
    if isinstance(a, Tracer) and isinstance(b, (int, float)):
        if b == 1:
            return a
        if b == 2:
            return self.emit("square", [a])
    return None


def _negative(self: _Rewriter, x: Tracer) -> Tracer | None:
    number = self.uniform(x)
    if number is not None and x.dtype.kind == "real floating":
        return self.filled(x.shape, -number, x.dtype)
    return self.before(x, "negative")


def _finite_product(a: float, b: float) -> bool:
    """Return whether a·b may replace both: lost neither to overflow nor to underflow, whatever the dtype."""
    return a == 0 or b == 0 or 1e-30 < math.fabs(a * b) < 1e30


def _to_shape(name: str) -> Callable[..., Tracer | None]:
    """Return the rewriting of "reshape" or "broadcast_to"."""

    def rewrite(self: _Rewriter, x: Tracer, shape: tuple[int, ...]) -> Tracer | None:
        if x.shape == shape:
            return x
        inner = self.before(x, name)
        if inner is not None:
            return self.rewritten(name, inner, shape)
        number = self.uniform(x)
        return None if number is None else self.filled(shape, number, x.dtype)

    return rewrite


def _permute(self: _Rewriter, x: Tracer, axes: tuple[int, ...]) -> Tracer | None:
    inner = self.origin(x, "permute_dims")
    if inner:
        axes = tuple(inner.arguments[1][a] for a in axes)
        x = Tracer(self.trace, inner.arguments[0])
    return x if axes == tuple(range(x.ndim)) else self.emit("permute_dims", [x, axes])


def _astype(self: _Rewriter, x: Tracer, dtype: Any) -> Tracer | None:
    number = self.uniform(x)
    if number is None or x.dtype == "bool" or not math.isfinite(number) or dtype.kind == "complex floating":
        return None
    converted = _as_dtype(int(number) if dtype.is_integer else number, dtype)
    return None if converted is None else self.filled(x.shape, converted, dtype)


def _sum(self: _Rewriter, x: Tracer, *, axis: tuple[int, ...], keepdims: bool, **_: Any) -> Tracer | None:
    """A sum along axes of length 1 only is a reshape."""
    if x.dtype.is_floating and all(x.shape[a] == 1 for a in axis):
        shape = tuple(1 if a in axis else n for a, n in enumerate(x.shape) if keepdims or a not in axis)
        return self.rewritten("reshape", x, shape)
    return None


def _getitem(self: _Rewriter, x: Tracer, key: tuple[slice, ...]) -> Tracer | None:
    """A slice of a concatenation that is within one piece is a slice of that piece."""
    if all(k.start == 0 and k.step == 1 and k.stop == n for k, n in zip(key, x.shape, strict=True)):
        return x
    joined = self.origin(x, "concat")
    if joined is None:
        return None
    axis, start = joined.parameters["axis"], 0
    for piece in joined.reads:
        end = start + piece.type.shape[axis]
        if start <= key[axis].start and key[axis].stop <= end:
            part = slice(key[axis].start - start, key[axis].stop - start, key[axis].step)
            return self.rewritten("getitem", Tracer(self.trace, piece), (*key[:axis], part, *key[axis + 1 :]))
        start = end
    return None


def _index_add(self: _Rewriter, x: Tracer, indices: Tracer, updates: Tracer, *, axis: int) -> Tracer | None:
    """A filled array is broadcast from one number: it takes no memory."""
    number = self.uniform(x)
    if number is None:
        return None
    thin = self.emit("broadcast_to", [self.filled((), number, x.dtype), x.shape])
    return self.emit("index_add", [thin, indices, updates], {"axis": axis})


FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": lambda a, b: a / b if b else math.nan,
}

REWRITES: dict[str, Callable[..., Tracer | None]] = {
    name: _elementwise(name)
    for name in (
        "maximum minimum atan2 hypot logaddexp copysign greater greater_equal less less_equal equal not_equal where"
    ).split()
}
REWRITES |= {
    "add": _elementwise("add", _add),
    "subtract": _elementwise("subtract", _subtract),
    "multiply": _elementwise("multiply", _multiply),
    "divide": _elementwise("divide", _divide),
    "pow": _elementwise("pow", _pow),
    "negative": _negative,
    "positive": lambda self, x: x,
    "stop_gradient": lambda self, x: x,  # gradients are taken before a program is simplified
    "index_add": _index_add,
    "reshape": _to_shape("reshape"),
    "permute_dims": _permute,
    "broadcast_to": _to_shape("broadcast_to"),
    "astype": _astype,
    "sum": _sum,
    "getitem": _getitem,
}
