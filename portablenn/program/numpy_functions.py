"""NumPy's functions and methods on tracers, with NumPy's signatures, by functions of the Array API standard.

NumPy hands over a function that is called with a tracer (``__array_function__``, ``__array_ufunc__``), so that code written
with ``import numpy as np`` is traced as it stands. Each function here takes the namespace of tracers, then what NumPy's takes.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .einsum import einsum
from .ir import dtype_name
from .linalg import diagonal
from .tracer import NotTraceableError, Tracer, users_line

Axis = int | tuple[int, ...] | None


def call(xp: Any, function: Any, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Do what one of NumPy's functions does, or a method of a ufunc, such as ``np.add.reduce``."""
    name = str(function.__name__)
    module = getattr(function, "__module__", None)
    if module in ("numpy.linalg", "numpy.fft"):
        name = f"{module[6:]}.{name}"
    if method != "__call__":
        name = {"reduce": REDUCED, "accumulate": ACCUMULATED}.get(method, {}).get(name, f"{name}.{method}")
        kwargs = {"axis": 0, **kwargs} if len(args) < 2 else kwargs
    return call_by_name(xp, name, args, kwargs)


def call_by_name(xp: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Do what NumPy's function of this name does."""
    for refused in ("out", "where"):
        if kwargs.get(refused) is not None:
            raise NotTraceableError(f"np.{name}: {refused}= cannot be traced, at {users_line()}")
    kwargs = {k: int(v) if isinstance(v, np.integer) else v for k, v in kwargs.items() if k != "out"}
    args = [int(a) if isinstance(a, np.integer) else a for a in args]
    standard = SAME.get(name, name)
    if name in FUNCTIONS:
        function: Callable[..., Any] = FUNCTIONS[name]
    elif not name.startswith("_") and hasattr(type(xp), standard.partition(".")[0]):
        try:
            own = operator.attrgetter(standard)(xp)
        except AttributeError:
            raise NotTraceableError(f"np.{name} cannot be traced, at {users_line()}") from None
        function = lambda _, *a, **k: own(*a, **k)  # noqa: E731
    else:
        hint = HINTS.get(name, "a function of the Array API standard: xp = portablenn.array_namespace(x)")
        raise NotTraceableError(f"np.{name} cannot be traced, at {users_line()}\nUse {hint}")
    try:
        return function(xp, *args, **kwargs)
    except TypeError as error:
        if type(error) is TypeError and re.search(
            r"unexpected keyword|positional(-only)? argument|multiple values", str(error)
        ):
            what = re.sub(r"^\S*\(\) ", "", str(error))
            raise NotTraceableError(
                f"np.{name} with these arguments cannot be traced: {what}, at {users_line()}"
            ) from None
        raise


def _all_axes(xp: Any, x: Any, axis: Axis) -> tuple[Any, Axis]:
    """Return the array and its axis, or the flat array and 0 where NumPy takes None for that."""
    x = xp.asarray(x)
    return (xp.reshape(x, (-1,)), 0) if axis is None else (x, axis)


# Reductions


def _reduce(name: str) -> Callable[..., Any]:
    def reduce(xp: Any, a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        a = xp.asarray(a)
        if name in ("sum", "prod"):
            a = xp.astype(a, xp.int64) if a.dtype == "bool" else a
            return getattr(xp, name)(a, axis=axis, dtype=dtype, keepdims=keepdims)
        result = getattr(xp, name)(a, axis=axis, keepdims=keepdims)
        return result if dtype is None else xp.astype(result, dtype)

    return reduce


def _spread(name: str) -> Callable[..., Any]:
    def spread(
        xp: Any, a: Any, axis: Axis = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False
    ) -> Any:
        return getattr(xp, name)(_floating(xp, a, dtype), axis=axis, correction=ddof, keepdims=keepdims)

    return spread


def _floating(xp: Any, a: Any, dtype: Any = None) -> Any:
    a = xp.asarray(a)
    if dtype is not None:
        return xp.astype(a, dtype_name(dtype))
    return a if a.dtype.is_floating else xp.astype(a, xp.float64)


def _mean(xp: Any, a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    return xp.mean(_floating(xp, a, dtype), axis=axis, keepdims=keepdims)


def _average(xp: Any, a: Any, axis: Axis = None, weights: Any = None) -> Any:
    a = _floating(xp, a)
    if weights is None:
        return xp.mean(a, axis=axis)
    weights = xp.asarray(weights)
    if weights.ndim != a.ndim:
        if not isinstance(axis, int):
            raise NotTraceableError(f"np.average with weights along axis={axis!r} cannot be traced, at {users_line()}")
        weights = xp.reshape(weights, tuple(n if i == axis % a.ndim else 1 for i, n in enumerate(a.shape)))
    weights = xp.broadcast_to(weights, a.shape)
    return xp.sum(a * weights, axis=axis) / xp.sum(weights, axis=axis)


def _ptp(xp: Any, a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return xp.max(a, axis=axis, keepdims=keepdims) - xp.min(a, axis=axis, keepdims=keepdims)


def _accumulate(name: str) -> Callable[..., Any]:
    def accumulate(xp: Any, a: Any, axis: int | None = None, dtype: Any = None) -> Any:
        a, axis = _all_axes(xp, a, axis)  # type: ignore[assignment]
        return getattr(xp, name)(a, axis=axis, dtype=dtype)

    return accumulate


def _norm(xp: Any, x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    x = _floating(xp, x)
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if ord in (None, "fro") or len(axes) == 1:
        return xp.linalg.vector_norm(x, axis=axes, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord)
    norm = xp.linalg.matrix_norm(xp.moveaxis(x, axes, (-2, -1)), ord=ord)
    return xp.expand_dims(norm, axis=tuple(a % x.ndim for a in axes)) if keepdims else norm


# Products


def _dot(xp: Any, a: Any, b: Any) -> Any:
    a, b = xp.asarray(a), xp.asarray(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if a.ndim <= 2 and b.ndim <= 2:
        return xp.matmul(a, b)
    return xp.tensordot(a, b, axes=((a.ndim - 1,), (max(0, b.ndim - 2),)))


def _tensordot(xp: Any, a: Any, b: Any, axes: Any = 2) -> Any:
    if not isinstance(axes, int):
        axes = [(one,) if isinstance(one, int) else tuple(one) for one in axes]
    return xp.tensordot(xp.asarray(a), xp.asarray(b), axes=axes)


def _inner(xp: Any, a: Any, b: Any) -> Any:
    a, b = xp.asarray(a), xp.asarray(b)
    return a * b if a.ndim == 0 or b.ndim == 0 else xp.tensordot(a, b, axes=((a.ndim - 1,), (b.ndim - 1,)))


def _outer(xp: Any, a: Any, b: Any) -> Any:
    return xp.reshape(xp.asarray(a), (-1, 1)) * xp.reshape(xp.asarray(b), (1, -1))


def _vdot(xp: Any, a: Any, b: Any) -> Any:
    return xp.vecdot(xp.reshape(xp.asarray(a), (-1,)), xp.reshape(xp.asarray(b), (-1,)))


def _kron(xp: Any, a: Any, b: Any) -> Any:
    a, b = xp.asarray(a), xp.asarray(b)
    ndim = max(a.ndim, b.ndim)
    shapes = [(1,) * (ndim - x.ndim) + tuple(x.shape) for x in (a, b)]
    left = xp.reshape(a, tuple(n for length in shapes[0] for n in (length, 1)))
    right = xp.reshape(b, tuple(n for length in shapes[1] for n in (1, length)))
    return xp.reshape(left * right, tuple(m * n for m, n in zip(*shapes, strict=True)))


def _trace(xp: Any, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return xp.sum(diagonal(xp, a, offset, axis1, axis2), axis=-1)


def _diag(xp: Any, v: Any, k: int = 0) -> Any:
    v = xp.asarray(v)
    if v.ndim == 2:
        return diagonal(xp, v, k)
    n = v.shape[0] + abs(k)
    padded = _pad(xp, v, (max(0, -k), max(0, k)))  # row i holds v[i - max(0, -k)] at column i + k
    return xp.where(xp.eye(n, k=k) == 1.0, xp.reshape(padded, (n, 1)), xp.zeros((n, n), dtype=v.dtype))


# Shapes


def _reshape(xp: Any, a: Any, shape: Any, order: str = "C") -> Any:
    a = xp.asarray(a)
    if order == "F":
        turned = xp.reshape(xp.permute_dims(a), tuple(reversed(_sizes(shape, a.size))))
        return xp.permute_dims(turned)
    return xp.reshape(a, _sizes(shape, a.size))


def _sizes(shape: Any, size: int) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    known = math.prod(n for n in shape if n != -1)
    return tuple(size // max(known, 1) if n == -1 else n for n in shape)


def _ravel(xp: Any, a: Any, order: str = "C") -> Any:
    return _reshape(xp, a, -1, order)


def _moveaxis(xp: Any, a: Any, source: Any, destination: Any) -> Any:
    return xp.moveaxis(a, source, destination)


def _swapaxes(xp: Any, a: Any, axis1: int, axis2: int) -> Any:
    order = list(range(a.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return xp.permute_dims(a, order)


def _squeeze(xp: Any, a: Any, axis: Axis = None) -> Any:
    a = xp.asarray(a)
    return xp.squeeze(a, axis=tuple(i for i, n in enumerate(a.shape) if n == 1) if axis is None else axis)


def _at_least(ndim: int) -> Callable[..., Any]:
    def at_least(xp: Any, *arrays: Any) -> Any:
        found = []
        for a in map(xp.asarray, arrays):
            found.append(xp.reshape(a, (1,) * (ndim - a.ndim) + tuple(a.shape)) if a.ndim < ndim else a)
        return found[0] if len(found) == 1 else tuple(found)

    return at_least


def _joined(axis: int, ndim: int) -> Callable[..., Any]:
    def joined(xp: Any, tup: Sequence[Any], *, dtype: Any = None, casting: str = "same_kind") -> Any:
        arrays = [_at_least(ndim)(xp, a) for a in tup]
        result = xp.concat(arrays, axis=0 if arrays[0].ndim <= axis else axis)
        return result if dtype is None else xp.astype(result, dtype)

    return joined


def _column_stack(xp: Any, tup: Sequence[Any]) -> Any:
    return xp.concat([xp.reshape(a, (-1, 1)) if a.ndim <= 1 else a for a in map(xp.asarray, tup)], axis=1)


def _dstack(xp: Any, tup: Sequence[Any]) -> Any:
    arrays = [a if a.ndim > 2 else xp.expand_dims(_at_least(2)(xp, a), axis=-1) for a in map(xp.asarray, tup)]
    return xp.concat(arrays, axis=2)


def _array_split(xp: Any, ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    length, sections = ary.shape[axis], indices_or_sections
    if isinstance(sections, int):
        each, more = divmod(length, sections)
        ends = [each * i + min(i, more) for i in range(sections + 1)]
    else:
        ends = [0, *(min(int(i), length) for i in sections), length]
    head = (slice(None),) * (axis % ary.ndim)
    return [ary[(*head, slice(a, b))] for a, b in itertools.pairwise(ends)]


def _split(xp: Any, ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if isinstance(indices_or_sections, int) and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"np.split: {ary.shape[axis]} elements cannot be divided by {indices_or_sections}")
    return _array_split(xp, ary, indices_or_sections, axis)


def _tile(xp: Any, A: Any, reps: Any) -> Any:
    return xp.tile(xp.asarray(A), (reps,) if isinstance(reps, int) else tuple(reps))


def _repeat(xp: Any, a: Any, repeats: Any, axis: int | None = None) -> Any:
    return xp.repeat(xp.asarray(a), repeats, axis=axis)


def _rot90(xp: Any, m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    k, (first, second) = k % 4, axes
    if k == 2:
        return xp.flip(m, axis=(first, second))
    turned = xp.flip(m, axis=second if k == 1 else first) if k else m
    return _swapaxes(xp, turned, first, second) if k else turned


def _pad(xp: Any, array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    array = xp.asarray(array)
    if mode != "constant" or isinstance(constant_values, (list, tuple)):
        raise NotTraceableError(
            f"np.pad with mode={mode!r} and {constant_values!r} cannot be traced, at {users_line()}"
        )
    if isinstance(pad_width, dict):
        raise NotTraceableError(f"np.pad with widths {pad_width!r} cannot be traced, at {users_line()}")
    given: list[Any] = [pad_width] if isinstance(pad_width, int) else list(pad_width)
    if all(isinstance(n, int) for n in given):
        given = [(given[0], given[-1])]
    for axis, (before, after) in enumerate(given * array.ndim if len(given) == 1 else given):
        shapes = (tuple(n if i == axis else length for i, length in enumerate(array.shape)) for n in (before, after))
        first, last = (xp.full(shape, constant_values, dtype=array.dtype) for shape in shapes)
        array = xp.concat([part for part in (first, array, last) if part.shape[axis]] or [array], axis=axis)
    return array


# Elements


def _clip(xp: Any, a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return xp.clip(xp.asarray(a), a_min if min is None else min, a_max if max is None else max)


def _round(xp: Any, a: Any, decimals: int = 0) -> Any:
    return xp.round(a) if decimals == 0 else xp.round(a * 10.0**decimals) / 10.0**decimals


def _nan_to_num(xp: Any, x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    limits = xp.finfo(x.dtype)
    x = xp.where(xp.isnan(x), nan, x)
    x = xp.where(x == math.inf, float(limits.max) if posinf is None else posinf, x)
    return xp.where(x == -math.inf, float(limits.min) if neginf is None else neginf, x)


def _sinc(xp: Any, x: Any) -> Any:
    """sin(π x) / (π x), whose derivative at 0 is 0."""
    scaled = math.pi * xp.where(x == 0.0, 1.0, x)
    return xp.where(x == 0.0, 1.0 - x * x * (math.pi**2 / 6.0), xp.sin(scaled) / scaled)


def _select(xp: Any, condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = xp.where(condition, choice, result)
    return result


def _take(xp: Any, a: Any, indices: Any, axis: int | None = None) -> Any:
    a, axis = _all_axes(xp, a, axis)  # type: ignore[assignment]
    indices = xp.asarray(indices)
    taken = xp.take(a, xp.reshape(indices, (-1,)), axis=axis)
    return xp.reshape(taken, (*a.shape[:axis], *indices.shape, *a.shape[axis:][1:]))


def _sort(name: str) -> Callable[..., Any]:
    def sort(xp: Any, a: Any, axis: int | None = -1) -> Any:
        a, axis = _all_axes(xp, a, axis)  # type: ignore[assignment]
        return getattr(xp, name)(a, axis=axis)

    return sort


def _with(name: str, *names: str, **fixed: Any) -> Callable[..., Any]:
    """Return a function of the standard whose keyword arguments ``names`` NumPy takes by position, too."""

    def function(xp: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) > len(names):
            raise NotTraceableError(f"{len(args) + 1} arguments of NumPy's {name} cannot be traced, at {users_line()}")
        a = [xp.asarray(one) for one in a] if isinstance(a, (list, tuple)) else xp.asarray(a)
        return getattr(xp, name)(a, **{**fixed, **dict(zip(names, args, strict=False)), **kwargs})

    return function


def _triangle(xp: Any, a: Any, uplo: str) -> Any:
    """Return the Hermitian matrix of which NumPy reads one triangle."""
    a = xp.asarray(a)
    half = xp.tril(a) if uplo.upper() == "L" else xp.triu(a)
    rest = xp.tril(a, k=-1) if uplo.upper() == "L" else xp.triu(a, k=1)
    return half + xp.conj(xp.matrix_transpose(rest))


def _append(xp: Any, arr: Any, values: Any, axis: int | None = None) -> Any:
    return xp.concat([xp.asarray(arr), xp.asarray(values)], axis=axis)


def _rollaxis(xp: Any, a: Any, axis: int, start: int = 0) -> Any:
    axis, start = axis % a.ndim, start + a.ndim if start < 0 else start
    return xp.moveaxis(a, axis, start - 1 if axis < start else start)


def _atleast_3d(xp: Any, *arrays: Any) -> Any:
    found = []
    for a in map(xp.asarray, arrays):
        shape = {0: (1, 1, 1), 1: (1, a.size, 1), 2: (*a.shape, 1)}.get(a.ndim, a.shape)
        found.append(xp.reshape(a, shape))
    return found[0] if len(found) == 1 else found


def _gradient(xp: Any, f: Any, *varargs: Any, axis: Axis = None, edge_order: int = 1) -> Any:
    """Return differences of neighbours over twice the spacing, and one-sided ones at the ends."""
    f = xp.asarray(f)
    axes = tuple(range(f.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if edge_order != 1 or any(getattr(h, "shape", ()) for h in varargs) or len(varargs) not in (0, 1, len(axes)):
        raise NotTraceableError(
            f"np.gradient can be traced with numbers as spacing and edge_order=1, at {users_line()}"
        )
    spacings = varargs * len(axes) if len(varargs) == 1 else varargs or (1.0,) * len(axes)
    results = []
    for one, h in zip(axes, spacings, strict=True):
        x = xp.moveaxis(f, one, 0)
        inner = (x[2:] - x[:-2]) / (2.0 * h)
        results.append(xp.moveaxis(xp.concat([(x[1:2] - x[:1]) / h, inner, (x[-1:] - x[-2:-1]) / h], axis=0), 0, one))
    return results[0] if len(results) == 1 else tuple(results)


def _ignoring_nan(name: str) -> Callable[..., Any]:
    """Return fmax or fmin, which take the number where the other one is NaN."""

    def function(xp: Any, a: Any, b: Any) -> Any:
        a, b = xp.broadcast_arrays(xp.asarray(a), xp.asarray(b))
        return xp.where(xp.isnan(a), b, xp.where(xp.isnan(b), a, getattr(xp, name)(a, b)))

    return function


def _cross(xp: Any, a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    product = xp.linalg.cross(xp.moveaxis(xp.asarray(a), axisa, -1), xp.moveaxis(xp.asarray(b), axisb, -1))
    return xp.moveaxis(product, -1, axisc)


def _transform(name: str) -> Callable[..., Any]:
    return lambda xp, a, n=None, axis=-1, norm=None: getattr(xp.fft, name)(a, n=n, axis=axis, norm=norm or "backward")


def _transforms(name: str, last: tuple[int, ...] | None = None) -> Callable[..., Any]:
    def function(xp: Any, a: Any, s: Any = None, axes: Any = last, norm: Any = None) -> Any:
        return getattr(xp.fft, name)(a, s=s, axes=axes, norm=norm or "backward")

    return function


def _shift(name: str) -> Callable[..., Any]:
    return lambda xp, x, axes=None: getattr(xp.fft, name)(x, axes=axes)


def _svd(xp: Any, a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    return xp.linalg.svd(a, full_matrices=full_matrices) if compute_uv else xp.linalg.svdvals(a)


SAME = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "conjugate": "conj", "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift", "power": "pow", "fix": "trunc",
    "right_shift": "bitwise_right_shift", "true_divide": "divide", "mod": "remainder", "transpose": "permute_dims",
}  # fmt: skip
"""NumPy's names of functions of the standard that take the same arguments."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _reduce(name) for name in ("sum", "prod", "max", "min", "all", "any")},
    "amax": _reduce("max"), "amin": _reduce("min"), "mean": _mean, "std": _spread("std"), "var": _spread("var"),
    "average": _average, "ptp": _ptp, "argmax": _with("argmax", "axis"), "argmin": _with("argmin", "axis"),
    "count_nonzero": _with("count_nonzero", "axis"), "cumsum": _accumulate("cumulative_sum"),
    "cumprod": _accumulate("cumulative_prod"), "linalg.norm": _norm,
    "einsum": einsum,
    "dot": _dot, "inner": _inner, "outer": _outer, "vdot": _vdot, "kron": _kron, "diagonal": diagonal, "trace": _trace,
    "diag": _diag, "tensordot": _tensordot,
    "linalg.svd": _svd, "linalg.eigh": lambda xp, a, UPLO="L": xp.linalg.eigh(_triangle(xp, a, UPLO)),
    "linalg.eigvalsh": lambda xp, a, UPLO="L": xp.linalg.eigvalsh(_triangle(xp, a, UPLO)),
    "linalg.cholesky": lambda xp, a, *, upper=False: xp.linalg.cholesky(_triangle(xp, a, "U" if upper else "L"), upper=upper),
    "append": _append, "rollaxis": _rollaxis, "atleast_3d": _atleast_3d, "gradient": _gradient, "cross": _cross,
    "fmax": _ignoring_nan("maximum"), "fmin": _ignoring_nan("minimum"), "dsplit": lambda xp, a, n: _split(xp, a, n, 2),
    "logaddexp2": lambda xp, a, b: xp.logaddexp(a * math.log(2.0), b * math.log(2.0)) / math.log(2.0),
    "row_stack": _joined(0, 2), "partition": lambda xp, a, kth, axis=-1: _sort("sort")(xp, a, axis),
    "real_if_close": lambda xp, a, tol=100: a, "iscomplex": lambda xp, x: xp.imag(x * 1.0) != 0.0,
    "linalg.qr": lambda xp, a, mode="reduced": xp.linalg.qr(a, mode=mode),
    "linalg.pinv": lambda xp, a, rcond=None: xp.linalg.pinv(a, rtol=rcond),
    "linalg.multi_dot": lambda xp, arrays: functools.reduce(xp.matmul, arrays),
    **{f"fft.{name}": _transform(name) for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")},
    **{f"fft.{name}": _transforms(name) for name in ("fftn", "ifftn", "rfftn", "irfftn")},
    **{f"fft.{name}2": _transforms(f"{name}n", (-2, -1)) for name in ("fft", "ifft", "rfft", "irfft")},
    **{f"fft.{name}": _shift(name) for name in ("fftshift", "ifftshift")},
    "angle": lambda xp, z, deg=False: xp.atan2(xp.imag(z), xp.real(z)) * (180.0 / math.pi if deg else 1.0),
    "linalg.matrix_transpose": lambda xp, x: xp.matrix_transpose(x), "tril": _with("tril", "k"), "triu": _with("triu", "k"),
    "moveaxis": _moveaxis, "reshape": _reshape, "ravel": _ravel, "swapaxes": _swapaxes, "squeeze": _squeeze,
    "expand_dims": _with("expand_dims", "axis"), "flip": _with("flip", "axis"),
    "fliplr": lambda xp, m: xp.flip(m, axis=1), "flipud": lambda xp, m: xp.flip(m, axis=0), "rot90": _rot90,
    "roll": _with("roll", "shift", "axis"), "tile": _tile, "repeat": _repeat,
    "concatenate": _with("concat", "axis"), "stack": _with("stack", "axis"), "vstack": _joined(0, 2),
    "hstack": _joined(1, 1), "column_stack": _column_stack, "dstack": _dstack, "array_split": _array_split,
    "split": _split, "hsplit": lambda xp, a, n: _split(xp, a, n, 1 if a.ndim > 1 else 0),
    "vsplit": lambda xp, a, n: _split(xp, a, n, 0), "pad": _pad, "diff": _with("diff", "n", "axis"),
    **{f"atleast_{n}d": _at_least(n) for n in (1, 2)},
    "clip": _clip, "round": _round, "around": _round, "nan_to_num": _nan_to_num, "sinc": _sinc, "select": _select,
    "take": _take, "take_along_axis": lambda xp, arr, indices, axis=-1: xp.take_along_axis(arr, indices, axis=axis),
    "sort": _sort("sort"), "argsort": _sort("argsort"), "copy": lambda xp, a: xp.asarray(a),
    "fabs": lambda xp, x: xp.abs(_floating(xp, x)), "rint": lambda xp, x: xp.round(_floating(xp, x)),
    "float_power": lambda xp, x, y: xp.pow(xp.astype(xp.asarray(x), xp.float64), y),
    "exp2": lambda xp, x: xp.exp(x * math.log(2.0)), "deg2rad": lambda xp, x: x * (math.pi / 180.0),
    "radians": lambda xp, x: x * (math.pi / 180.0), "rad2deg": lambda xp, x: x * (180.0 / math.pi),
    "degrees": lambda xp, x: x * (180.0 / math.pi), "shape": lambda xp, a: tuple(a.shape),
    "ndim": lambda xp, a: a.ndim, "size": lambda xp, a, axis=None: a.size if axis is None else a.shape[axis],
}  # fmt: skip
"""NumPy's functions whose arguments differ from those of the standard, or that it lacks."""

HINTS = {
    "array_equal": "xp.all(a == b)",
    "allclose": "xp.all(xp.abs(a - b) <= tolerance)",
}

REDUCED = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}
ACCUMULATED = {"add": "cumsum", "multiply": "cumprod"}

METHODS = frozenset(
    "all any argmax argmin argsort clip conj cumprod cumsum diagonal dot max mean min prod ptp ravel repeat round squeeze "
    "std sum swapaxes take var copy".split()
)
"""Methods of NumPy's arrays that are its functions of the same name; ``x.trace`` is another thing on a tracer."""


def method_of(x: Tracer, name: str) -> Callable[..., Any] | None:
    """Return a method of NumPy's arrays on a tracer; None if there is none of this name."""
    xp = x.trace.namespace
    if name in METHODS:
        return lambda *args, **kwargs: call_by_name(xp, name, (x, *args), kwargs)
    others: dict[str, Callable[..., Any]] = {
        "astype": lambda dtype, copy=True: xp.astype(x, dtype),
        "reshape": lambda *shape, **kwargs: _reshape(xp, x, shape[0] if len(shape) == 1 else shape, **kwargs),
        "transpose": lambda *axes: xp.permute_dims(x, (axes[0] if len(axes) == 1 else axes) or None),
        "flatten": lambda order="C": _ravel(xp, x, order),
    }
    return others.get(name)
