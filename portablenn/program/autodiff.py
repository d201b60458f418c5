"""Reverse mode: cotangents of results are pulled back through recorded operations.

A rule takes the cotangent ``g`` of an operation's result ``y``, the result, and the arguments; it returns one cotangent for
each argument (None where there is none), or a function that computes it, which is called only if the argument depends on the
inputs. It is written in functions of the Array API standard and traced, so that a derivative has derivatives of its own. Rules
may ignore broadcasting: cotangents are summed back to the shape of their argument afterwards.

With a cotangent goes a mask, where there is one: which elements belong to the branch that ``where`` took. The others contribute
nothing, also where their derivative is infinite or undefined, as 0 · ∞ is not 0.

Formulas: Griewank & Walther, Evaluating Derivatives (2008), chapter 3; for matrices Giles (2008), "Collected matrix
derivative results for forward and reverse mode algorithmic differentiation".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import fourier, linalg
from .ir import DType, Operation, Variable
from .recording import Number
from .tracer import Tracer

Rule = Callable[..., Sequence[Any]]
RULES: dict[str, Rule] = {}


class NotDifferentiableError(TypeError):
    """The requested gradient does not exist."""


def rule(name: str, function: Rule) -> None:
    """Register how the operation ``name`` passes cotangents back."""
    RULES[name] = function


def backward(
    xp: Any,
    operations: Sequence[Operation],
    cotangents: Sequence[tuple[Variable, Tracer | None]],
    values: Mapping[Variable, Any],
    by: Sequence[Variable],
) -> list[Tracer]:
    """Pull cotangents of results back through operations, and return those of the variables ``by``.

    A cotangent that is None stands for ones. ``values`` gives what each variable was in the forward pass, as tracers of the
    namespace ``xp`` or Python numbers.
    """
    sums = _sums_under_roots(operations)
    norms = _squared_norms(operations, sums)
    if norms:
        operations = [_with_arguments(o, norms) for o in operations]
    pending: dict[Variable, Tracer] = {}
    for v, given in cotangents:
        root, seed = norms.get(v, v), xp.ones(v.type.shape, dtype=v.type.dtype) if given is None else given
        pending[root] = xp.add(pending[root], seed) if root in pending else seed
    masks: dict[Variable, Tracer | None] = {}
    varying = _depend_on(operations, by)
    g: Tracer | None
    for operation in reversed(operations):
        g, mask = pending.get(operation.result), masks.pop(operation.result, None)
        if g is None or operation.result not in varying:
            continue
        if operation.result not in by:
            del pending[operation.result]
        known = values
        if _is_root(operation) and operation.reads[0] in sums:  # a norm or the like, whose gradient at 0 is 0
            known = _away_from_zero(xp, operation, values)
        pulled = _pullback(xp, operation, known, g)
        masked = _pulled_masks(xp, operation, values, mask)
        for argument, cotangent, chosen in zip(operation.arguments, pulled, masked, strict=False):
            if cotangent is not None and argument in varying:
                cotangent = cotangent() if callable(cotangent) else cotangent
                if mask is not None and operation.name in SCALING:
                    cotangent = xp.where(mask, cotangent, 0.0)
                if known is not values:
                    cotangent = xp.where(xp.equal(values[argument], 0.0), xp.multiply(g, 0.0), cotangent)
                cotangent = _as_dtype(xp, unbroadcast(xp, cotangent, argument.type.shape), argument.type.dtype)
                chosen = None if chosen is None else _any_repeated(xp, chosen, argument.type.shape)
                if argument in pending:
                    cotangent = xp.add(pending[argument], cotangent)
                    earlier = masks.get(argument)
                    chosen = None if earlier is None or chosen is None else xp.logical_or(earlier, chosen)
                pending[argument], masks[argument] = cotangent, chosen
    return [pending[v] if v in pending else xp.zeros(v.type.shape, dtype=v.type.dtype) for v in by]


def _away_from_zero(xp: Any, operation: Operation, values: Mapping[Variable, Any]) -> dict[Variable, Any]:
    """Return the argument and the result of a root, 1 in place of 0."""
    x, y = operation.reads[0], operation.result
    zero = xp.equal(values[x], 0.0)
    return {v: xp.where(zero, 1.0, values[v]) for v in (x, y)}


def _squared_norms(operations: Sequence[Operation], sums: set[Variable]) -> dict[Variable, Variable]:
    """Return squares of roots of ``sums`` of squares, and those sums: the same numbers, which have derivatives at 0, too."""
    made_by = {operation.result: operation for operation in operations}
    norms: dict[Variable, Variable] = {}
    for operation in operations if sums else ():
        root = made_by.get(operation.reads[0]) if _is_square(operation) else None
        if root is not None and _is_root(root) and root.reads[0] in sums and root.arguments[1:] in ((), (0.5,)):
            norms[operation.result] = root.reads[0]
    return norms


def _with_arguments(operation: Operation, replaced: Mapping[Variable, Variable]) -> Operation:
    arguments = tuple(replaced.get(a, a) if isinstance(a, Variable) else a for a in operation.arguments)
    return dataclasses.replace(operation, arguments=arguments)


SCALING = frozenset(
    "abs acos acosh asin asinh atan atan2 atanh cos cosh divide exp expm1 hypot log log10 log1p log2 logaddexp multiply pow "
    "reciprocal remainder sin sinh sqrt square tan tanh".split()
)
"""Elementwise operations that multiply a cotangent by what may be infinite or undefined."""

ELEMENTWISE = SCALING | frozenset("add astype conj copysign maximum minimum negative positive real subtract".split())
"""Operations of which an element of the result counts if, and only if, those of the arguments do."""

MOVING = frozenset({"broadcast_to", "concat", "flip", "getitem", "permute_dims", "reshape", "sum"})
"""Operations whose rule moves a mask as it moves a cotangent."""


def _pulled_masks(
    xp: Any, operation: Operation, values: Mapping[Variable, Any], mask: Tracer | None
) -> Sequence[Tracer | None]:
    """Return for each argument which of its elements count, given those of the result; None if all do, or it is not known."""
    count, y = len(operation.arguments), values[operation.result]
    if operation.name == "where":
        taken = xp.broadcast_to(values[operation.arguments[0]], y.shape)
        branches = taken, xp.logical_not(taken)
        return None, *(b if mask is None else xp.logical_and(b, mask) for b in branches)
    if mask is None:
        return (None,) * count
    arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
    if operation.name in MOVING:
        return RULES[operation.name](xp, mask, y, *arguments, **operation.parameters)
    if operation.name in ("max", "min", "prod"):
        return RULES["sum"](xp, mask, y, *arguments, **operation.parameters)
    if operation.name in ("take", "take_along_axis"):
        counts = RULES[operation.name](xp, xp.astype(mask, y.dtype), y, *arguments, **operation.parameters)
        return xp.greater(counts[0], 0), None
    return (mask if operation.name in ELEMENTWISE else None,) * count


def _any_repeated(xp: Any, mask: Tracer, shape: tuple[int, ...]) -> Tracer:
    """Return the mask of an array of ``shape`` that was broadcast: an element counts if any of its copies does."""
    axes = _repeated_axes(mask, shape)
    return xp.reshape(xp.any(mask, axis=axes), shape) if axes else mask


def _sums_under_roots(operations: Sequence[Operation]) -> set[Variable]:
    """Return the arguments of roots that are sums of squares by construction: where they are 0, so are their gradients."""
    under_roots = {operation.reads[0] for operation in operations if _is_root(operation)}
    return under_roots & _sums_of_squares(operations) if under_roots else under_roots


def _sums_of_squares(operations: Sequence[Operation]) -> set[Variable]:
    """Return the values that are sums of squares by construction."""
    found: set[Variable] = set()
    made_by = {operation.result: operation for operation in operations}
    for operation in operations:
        name, arguments = operation.name, operation.arguments
        reads = [v for v in operation.reads if not isinstance(v, Number)]
        if operation.result.type.dtype.kind != "real floating":
            continue
        squares = _is_square(operation) or (name == "pow" and arguments[1] in (4, 6))
        if name == "matmul" and operation.result.type.size == 1:  # x @ x
            origins = [made_by[v].reads[0] if v in made_by and made_by[v].name == "reshape" else v for v in reads]
            squares |= origins[0] is origins[1]
        signs = [a.sign if isinstance(a, Number) else a for a in arguments if isinstance(a, (int, float, Number))]
        kept = name in MOVING or name in ("astype", "take") or (name == "add" and not signs)
        if name == "multiply" or (name == "divide" and arguments[0] in reads):
            kept = bool(signs) and all(n > 0 for n in signs)
        parts = [v for v in reads if v.type.dtype.is_floating]
        if squares or (kept and parts and all(v in found for v in parts)):
            found.add(operation.result)
    return found


def _is_square(operation: Operation) -> bool:
    name, reads = operation.name, operation.reads
    twice = name == "multiply" and len(reads) == 2 and reads[0] is reads[1]
    return name == "square" or twice or (name == "pow" and operation.arguments[1] == 2)


def _is_root(operation: Operation) -> bool:
    """Return whether it is a square root, or a power between 0 and 1."""
    exponent = operation.arguments[1] if operation.name == "pow" else 0.5
    return operation.name in ("sqrt", "pow") and isinstance(exponent, (int, float)) and 0 < exponent < 1


def _depend_on(operations: Sequence[Operation], by: Sequence[Variable]) -> set[Variable]:
    """Return the variables through which a change of ``by`` can reach an output: only they need cotangents."""
    varying = set(by)
    for operation in operations:
        floating, stops = operation.result.type.dtype.is_floating, operation.name == "stop_gradient"
        if floating and not stops and any(v in varying for v in operation.reads):
            varying.add(operation.result)
    return varying


def _pullback(xp: Any, operation: Operation, values: Mapping[Variable, Any], g: Tracer) -> Sequence[Any]:
    is_complex = operation.result.type.dtype.kind == "complex floating"
    if is_complex and (operation.name in linalg.OF_REAL_MATRICES or operation.name == "slogdet_sign"):
        raise NotDifferentiableError(f"{operation.name} has a derivative rule for real matrices only")
    if is_complex and operation.name == "sign":
        raise NotDifferentiableError("sign of a complex array has no derivative rule: write x / xp.abs(x)")
    if operation.name in CONSTANT_ALMOST_EVERYWHERE:
        return ()
    if operation.name not in RULES:
        raise NotDifferentiableError(f"{operation.name} has no derivative rule")
    arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
    return RULES[operation.name](xp, g, values[operation.result], *arguments, **operation.parameters)


def _as_dtype(xp: Any, g: Any, dtype: DType) -> Any:
    """Return a cotangent in the dtype of its argument: of a real argument only the real part counts."""
    if g.dtype.kind == "complex floating" and dtype.kind != "complex floating":
        g = xp.real(g)
    return xp.astype(g, dtype)


def unbroadcast(xp: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Sum ``g`` over the axes along which an array of ``shape`` was repeated."""
    axes = _repeated_axes(g, shape)
    return xp.reshape(xp.sum(g, axis=axes), shape) if axes else g


def _repeated_axes(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of ``x`` along which an array of ``shape`` was repeated."""
    extra = x.ndim - len(shape)
    return tuple(a for a in range(x.ndim) if a < extra or (shape[a - extra] == 1 and x.shape[a] != 1))


def _like(xp: Any, condition: Any, x: Any) -> Any:
    """Return a condition as ones and zeros of the dtype of ``x``: on most libraries a product is cheaper than ``where``."""
    return xp.astype(condition, x.dtype)


def _is_complex(x: Any) -> bool:
    return bool(x.dtype.kind == "complex floating")


def _abs(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    """It has no derivative at 0, where the gradient is 0."""
    return (g * xp.conj(x) / xp.where(y == 0.0, 1.0, y) if _is_complex(x) else g * xp.sign(x),)


# Of one array. Those of complex numbers follow autograd and JAX: the cotangent of z of a function with the derivative f'(z) is
# g f'(z), and the gradient of a real function of z = x + iy is ∂f/∂x - i ∂f/∂y

rule("abs", _abs)
rule("acos", lambda xp, g, y, x: (-g / xp.sqrt(1.0 - x * x),))
rule(
    "acosh",
    lambda xp, g, y, x: (g / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0)) if _is_complex(x) else g / xp.sqrt(x * x - 1.0),),
)
rule("asin", lambda xp, g, y, x: (g / xp.sqrt(1.0 - x * x),))
rule("asinh", lambda xp, g, y, x: (g / xp.sqrt(x * x + 1.0),))
rule("atan", lambda xp, g, y, x: (g / (x * x + 1.0),))
rule("atanh", lambda xp, g, y, x: (g / (1.0 - x * x),))
rule("conj", lambda xp, g, y, x: (xp.conj(g),))
rule("cos", lambda xp, g, y, x: (-g * xp.sin(x),))
rule("cosh", lambda xp, g, y, x: (g * xp.sinh(x),))
rule("exp", lambda xp, g, y, x: (g * y,))
rule("expm1", lambda xp, g, y, x: (g * (y + 1.0),))
rule("log", lambda xp, g, y, x: (g / x,))
rule("log10", lambda xp, g, y, x: (g / (x * math.log(10.0)),))
rule("log1p", lambda xp, g, y, x: (g / (x + 1.0),))
rule("log2", lambda xp, g, y, x: (g / (x * math.log(2.0)),))
rule("imag", lambda xp, g, y, x: (xp.astype(g, x.dtype) * -1j,))
rule("negative", lambda xp, g, y, x: (-g,))
rule("positive", lambda xp, g, y, x: (g,))
rule("real", lambda xp, g, y, x: (g,))
rule("reciprocal", lambda xp, g, y, x: (-g * (y * y),))
rule("sin", lambda xp, g, y, x: (g * xp.cos(x),))
rule("sinh", lambda xp, g, y, x: (g * xp.cosh(x),))
rule("sqrt", lambda xp, g, y, x: (0.5 * g / y,))
rule("square", lambda xp, g, y, x: (g * (2.0 * x),))
rule("tan", lambda xp, g, y, x: (g * (y * y + 1.0),))
rule("tanh", lambda xp, g, y, x: (g * (1.0 - xp.square(y)),))

# Of two arrays. The cotangent of a tie of maximum or minimum goes to the second argument, so that relu'(0) = 0. The rules
# compare the second argument with the result, not with the first argument, because the result is kept in memory anyway


def _power(xp: Any, g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    def by_base() -> Any:
        if not isinstance(b, Tracer):
            return g * b * xp.pow(a, b - 1)
        if _is_complex(y):
            return g * b * xp.pow(a, xp.subtract(b, 1.0))
        both_zero = xp.logical_and(xp.equal(a, 0.0), xp.equal(b, 0.0))
        return g * b * xp.pow(a, xp.where(both_zero, 1.0, xp.subtract(b, 1.0)))

    def by_exponent() -> Any:
        """0 ** b is 0 for every b > 0, and so is its derivative by b; of negative bases there is none."""
        if _is_complex(y):
            return g * y * xp.log(xp.astype(xp.asarray(a), y.dtype))
        if not isinstance(a, Tracer):
            return g * (y * math.log(a) if a > 0 else xp.where(b < 0.0, math.nan, 0.0 if a == 0 else math.nan))
        zero = xp.equal(a, 0.0)
        return xp.where(zero, xp.where(b < 0.0, math.nan, 0.0), g * y * xp.log(xp.where(zero, 1.0, a)))

    return None if not isinstance(b, Tracer) and b == 0 else by_base, by_exponent


def _hypot(xp: Any, g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """It has no derivative at (0, 0), where the gradient is (0, 0)."""
    length = xp.where(y == 0.0, 1.0, y)
    return g * a / length, g * b / length


def _share(xp: Any, a: Any, b: Any, y: Any) -> Any:
    """Return the derivative of y = log(exp(a) + exp(b)) by a; infinities have no difference, and equal ones share it."""
    one_is_finite = any(isinstance(v, (int, float)) and math.isfinite(v) for v in (a, b))
    of_infinite = 0.0 if one_is_finite else xp.where(xp.equal(a, b), -math.log(2.0), xp.zeros_like(y))
    return xp.exp(xp.where(xp.equal(a, y), of_infinite, a - y))


rule("add", lambda xp, g, y, a, b: (g, g))
rule("atan2", lambda xp, g, y, a, b: (g * b / (a * a + b * b), -g * a / (a * a + b * b)))
rule("copysign", lambda xp, g, y, a, b: (xp.where(xp.signbit(y) == xp.signbit(a + xp.zeros_like(y)), g, -g), None))
rule("divide", lambda xp, g, y, a, b: (g / b, -g * (y / b)))
rule("hypot", _hypot)
rule("logaddexp", lambda xp, g, y, a, b: (g * _share(xp, a, b, y), g * _share(xp, b, a, y)))
rule("maximum", lambda xp, g, y, a, b: (g * _like(xp, y > b, g), g * _like(xp, y <= b, g)))
rule("minimum", lambda xp, g, y, a, b: (g * _like(xp, y < b, g), g * _like(xp, y >= b, g)))
rule("multiply", lambda xp, g, y, a, b: (g * b, g * a))
rule("pow", _power)
rule("remainder", lambda xp, g, y, a, b: (g, -g * xp.floor_divide(a, b)))
rule("subtract", lambda xp, g, y, a, b: (g, -g))
rule("where", lambda xp, g, y, c, a, b: (None, xp.where(c, g, 0.0), xp.where(c, 0.0, g)))

# Shapes: what moved values forward moves cotangents back

rule("astype", lambda xp, g, y, x, dtype: (g,))
rule("broadcast_to", lambda xp, g, y, x, shape: (g,))
rule("flip", lambda xp, g, y, x, axis: (xp.flip(g, axis=axis),))
rule("permute_dims", lambda xp, g, y, x, axes: (xp.permute_dims(g, tuple(axes.index(i) for i in range(len(axes)))),))
rule("reshape", lambda xp, g, y, x, shape: (xp.reshape(g, x.shape),))
rule("tril", lambda xp, g, y, x, k: (xp.tril(g, k=k),))
rule("triu", lambda xp, g, y, x, k: (xp.triu(g, k=k),))


def _concat(xp: Any, g: Any, y: Any, *arrays: Any, axis: int) -> list[Any]:
    pieces, start = [], 0
    for x in arrays:
        end = start + x.shape[axis]
        pieces.append(g[(*(slice(None),) * axis, slice(start, end))])
        start = end
    return pieces


def _getitem(xp: Any, g: Any, y: Any, x: Any, key: tuple[slice, ...]) -> tuple[Any]:
    """Put ``g`` where it was cut out, zeros around it (and between, for steps above 1)."""
    for axis, (part, length) in enumerate(zip(key, x.shape, strict=True)):
        head, tail = g.shape[:axis], g.shape[axis + 1 :]
        count = g.shape[axis]
        if part.step > 1:
            between = xp.zeros((*head, count, part.step - 1, *tail), dtype=g.dtype)
            spaced = xp.concat([xp.expand_dims(g, axis=axis + 1), between], axis=axis + 1)
            spaced = xp.reshape(spaced, (*head, count * part.step, *tail))
            count = (count - 1) * part.step + 1
            g = spaced[(*(slice(None),) * axis, slice(0, count))]
        around = [xp.zeros((*head, n, *tail), dtype=g.dtype) for n in (part.start, length - part.start - count)]
        g = xp.concat([p for p in (around[0], g, around[1]) if p.shape[axis]], axis=axis) if length else g
    return (g,)


def _take_along_axis(xp: Any, g: Any, y: Any, x: Any, indices: Any, *, axis: int) -> tuple[Any, None]:
    """Add ``g`` at flat positions: those of ``y`` in ``x`` but for the axis, where the indices say which."""
    outer, length, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    along = xp.reshape(xp.astype(indices, xp.int64), (outer, indices.shape[axis], inner))
    along = xp.where(along < 0, along + length, along)
    before, after = xp.reshape(xp.arange(outer), (-1, 1, 1)), xp.reshape(xp.arange(inner), (1, 1, -1))
    flat = xp.reshape((before * length + along) * inner + after, (-1,))
    added = xp.index_add(_thin_zeros(xp, (x.size,), g), flat, xp.reshape(g, (-1,)), axis=0)
    return xp.reshape(added, x.shape), None


def _thin_zeros(xp: Any, shape: tuple[int, ...], g: Any) -> Any:
    """Return zeros that take no memory."""
    return xp.broadcast_to(xp.zeros((), dtype=g.dtype), shape)


rule("concat", _concat)
rule("getitem", _getitem)
rule("index_add", lambda xp, g, y, x, indices, updates, axis: (g, None, xp.take(g, indices, axis=axis)))
rule(
    "take", lambda xp, g, y, x, indices, axis: (xp.index_add(_thin_zeros(xp, x.shape, g), indices, g, axis=axis), None)
)
rule("take_along_axis", _take_along_axis)

# Reductions


def _kept(xp: Any, small: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Return a reduced array with its axes back, of length 1, ready to broadcast against ``x``."""
    return xp.reshape(small, tuple(1 if a in axis else n for a, n in enumerate(x.shape)))


def _extreme(xp: Any, g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    """Ties share the cotangent in equal parts."""
    hit = _like(xp, x == _kept(xp, y, x, axis), g)
    return (hit * (_kept(xp, g, x, axis) / xp.sum(hit, axis=axis, keepdims=True)),)


def _product(xp: Any, g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    """Multiply all other factors, those before by those after: also correct where factors are zero."""
    (a,) = axis
    if x.shape[a] == 0:
        return (xp.zeros_like(x),)
    before, backwards = (
        xp.cumulative_prod(v, axis=a, include_initial=True)[(*(slice(None),) * a, slice(None, -1))]
        for v in (x, xp.flip(x, axis=a))
    )
    return (_kept(xp, g, x, axis) * before * xp.flip(backwards, axis=a),)


def _cumulative_product(xp: Any, g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any]:
    """dL/dx_j = Σ_{i ≥ j} g_i Π_{k ≤ i, k ≠ j} x_k, by an (n, n) table: also correct where factors are zero."""
    n = x.shape[axis]
    row, column = xp.reshape(xp.arange(n), (n, 1)), xp.reshape(xp.arange(n), (1, n))
    last = xp.expand_dims(xp.moveaxis(x, axis, -1), axis=-2)
    others = xp.cumulative_prod(xp.where(row == column, 1.0, last), axis=-1)
    table = xp.where(row <= column, others * xp.expand_dims(xp.moveaxis(g, axis, -1), axis=-2), 0.0)
    return (xp.moveaxis(xp.sum(table, axis=-1), -1, axis),)


def _sort(xp: Any, g: Any, y: Any, x: Any, *, axis: int, descending: bool, stable: bool) -> tuple[Any]:
    order = xp.argsort(x, axis=axis, descending=descending, stable=True)
    return (xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis),)


rule("cumulative_prod", _cumulative_product)
rule(
    "cumulative_sum",
    lambda xp, g, y, x, axis: (xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis),),
)
rule("max", _extreme)
rule("min", _extreme)
rule("prod", _product)
rule("sort", _sort)
rule("sum", lambda xp, g, y, x, axis, keepdims: (xp.broadcast_to(_kept(xp, g, x, axis), x.shape),))

# Matrices

rule("matmul", lambda xp, g, y, a, b: (lambda: g @ b.mT, lambda: a.mT @ g))
rule(
    "rounded_matmul",
    lambda xp, g, y, a, b, precision: (
        xp.rounded_matmul(g, b.mT, precision=precision), xp.rounded_matmul(a.mT, g, precision=precision)
    ),
)  # fmt: skip

RULES |= fourier.RULES | linalg.RULES

CONSTANT_ALMOST_EVERYWHERE = frozenset(
    "ceil floor floor_divide nextafter round sign trunc "
    "arange asarray eye full linspace argmax argmin argsort searchsorted slogdet_sign stop_gradient".split()
)
