"""The Array API namespace of tracers: each function adds an operation to the program, with its shape and dtype.

Compositions (``mean``, ``tensordot``, ``expand_dims``, …) are traced as simpler functions, so that autodiff and executors
have few cases.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache, partialmethod
from typing import Any

import numpy as np

from .fourier import FourierNamespace
from .indexing import getitem
from .interpret import Functions
from .ir import ArrayType, DType, dtype_name
from .linalg import PACKED, LinalgNamespace
from .tracer import NotTraceableError, Tracer, TracerValueError, shortened, users_line
from .type_rules import (
    ACCEPTS,
    BOOL,
    FLOAT,
    INDEX,
    accumulator,
    broadcast_shape,
    complex_dtype,
    fits,
    is_array,
    is_scalar,
    normalized_axes,
    normalized_axis,
    promoted,
    real_dtype,
    reduced_shape,
    scalar_dtype,
    shape_of,
    type_of,
    unusual_dtype,
)


class TracingNamespace:
    """Functions that return tracers, and add one operation or a few simpler ones to the program."""

    __array_api_version__ = "2024.12"
    __name__ = "portablenn.tracing"
    e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
    bool = BOOL
    int8, int16, int32, int64 = map(DType, ("int8", "int16", "int32", "int64"))
    uint8, uint16, uint32, uint64 = map(DType, ("uint8", "uint16", "uint32", "uint64"))
    float32, float64, bfloat16, float16 = map(DType, ("float32", "float64", "bfloat16", "float16"))
    complex64, complex128 = map(DType, ("complex64", "complex128"))

    def __init__(self, trace: Any) -> None:
        self._reference = weakref.ref(trace)  # the trace has this: a cycle would keep arrays until they are looked for

    @property
    def _trace(self) -> Any:
        trace = self._reference()
        if trace is None:
            raise TracerValueError(f"a namespace was kept from a trace that has ended, and is used at {users_line()}")
        return trace

    def __getattr__(self, name: str) -> Any:
        if name in NOT_TRACEABLE:
            raise NotTraceableError(f"{name} cannot be traced: {NOT_TRACEABLE[name]}, at {users_line()}")
        raise AttributeError(f"{name} is not a function of the Array API standard that can be traced")

    @property
    def linalg(self) -> LinalgNamespace:
        return LinalgNamespace(self)

    @property
    def fft(self) -> FourierNamespace:
        return FourierNamespace(self)

    def __array_namespace_info__(self) -> _Info:
        return _Info(self._trace.device)

    def _lift(self, value: Any) -> Tracer:
        """Return a tracer of any trace unchanged; anything else as a tracer of this one."""
        return value if isinstance(value, Tracer) else self._trace.lift(value)

    def _emit(self, name: str, arguments: Sequence[Any], type: ArrayType, **parameters: Any) -> Tracer:
        """Add an operation to the innermost trace of its arguments; other arrays become constants of that trace."""
        home = None
        for a in arguments:
            if isinstance(a, Tracer) and (home is None or a.trace.level > home.level):
                home = a.trace
        if home is None:
            home = self._trace
        inner = [
            a if isinstance(a, Tracer) and a.trace is home else home.lift(a) if is_array(a) else a for a in arguments
        ]
        return home.emit(name, inner, parameters, type)

    # Elementwise

    def _elementwise(self, name: str, arguments: Sequence[Any], accepts: str, returns: str | None = None) -> Tracer:
        arguments = [a if isinstance(a, Tracer) else _as_array(self, a) for a in arguments]
        types: list[Any] = [a.variable.type if isinstance(a, Tracer) else type(a) for a in arguments]
        known = _elementwise_type(accepts, returns, *types)
        if known is not None:
            return self._emit(name, arguments, known)
        arrays = [a for a in arguments if is_array(a)]
        if not arrays:
            arguments = [self.asarray(a) for a in arguments]
            arrays = list(arguments)
        if len(arguments) > 1:
            arguments = _of_one_kind(self, arguments)
            arrays = [a for a in arguments if is_array(a)]
        dtype = promoted(name, arguments)
        if dtype.kind not in ACCEPTS[accepts]:
            raise TypeError(f"{name} is for {accepts} dtypes, got {dtype}: convert with xp.astype, at {users_line()}")
        shape = broadcast_shape(name, [tuple(a.shape) for a in arrays])
        return self._emit(name, arguments, ArrayType(shape, DType(returns) if returns else dtype))

    def abs(self, x: Any, /) -> Tracer:
        return self._elementwise("abs", (x,), "numeric", real_dtype(x))

    def _part(self, name: str, x: Any, /) -> Tracer:
        x = self._floating(name, x)
        if x.dtype.kind != "complex floating":  # not all libraries take these
            return x if name == "real" else self.zeros_like(x)
        return self._elementwise(name, (x,), "floating", real_dtype(x))

    def conj(self, x: Any, /) -> Tracer:
        x = self._lift(x)
        is_real = x.dtype.kind in ACCEPTS["numeric"] - ACCEPTS["complex floating"]
        return x if is_real else self._elementwise("conj", (x,), "numeric")

    real, imag = partialmethod(_part, "real"), partialmethod(_part, "imag")

    def clip(self, x: Any, /, min: Any = None, max: Any = None) -> Tracer:
        if min is not None:
            x = self.maximum(x, min)
        return self._lift(x) if max is None else self.minimum(x, max)

    def where(self, condition: Any, x1: Any = None, x2: Any = None, /) -> Tracer:
        if x1 is None or x2 is None:
            raise NotTraceableError(
                f"where(condition) with one argument has a result whose shape depends on values, at {users_line()}\n"
                "Use xp.where(condition, a, b)."
            )
        if not is_array(x1) and not is_array(x2):
            x1 = self.asarray(x1, dtype=scalar_dtype(x1, x2))
        condition, x1, x2 = (_as_array(self, a) for a in (condition, x1, x2))
        x1, x2 = _of_one_kind(self, [x1, x2])
        if not is_array(condition) or dtype_name(condition.dtype) != "bool":
            raise TypeError(f"where() takes a bool condition, at {users_line()}\nWrite it as a comparison: x != 0")
        dtype = promoted("where", (x1, x2))
        shape = broadcast_shape("where", [tuple(a.shape) for a in (condition, x1, x2) if is_array(a)])
        return self._emit("where", (condition, x1, x2), ArrayType(shape, dtype))

    # Creation

    def full(self, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tracer:
        shape = shape_of(shape)
        if is_array(fill_value):
            filled = self.broadcast_to(self._lift(fill_value), shape)
            return filled if dtype is None else self.astype(filled, dtype)
        name = scalar_dtype(fill_value) if dtype is None else dtype_name(dtype)
        return self._emit("full", (shape, fill_value), ArrayType(shape, name), dtype=name)

    def zeros(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Tracer:
        return self.full(shape, 0, dtype=dtype or FLOAT)

    def ones(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Tracer:
        return self.full(shape, 1, dtype=dtype or FLOAT)

    empty = zeros

    def full_like(self, x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tracer:
        return self.full(tuple(x.shape), fill_value, dtype=dtype or dtype_name(x.dtype))

    def zeros_like(self, x: Any, /, *, dtype: Any = None, device: Any = None) -> Tracer:
        return self.full_like(x, 0, dtype=dtype)

    def ones_like(self, x: Any, /, *, dtype: Any = None, device: Any = None) -> Tracer:
        return self.full_like(x, 1, dtype=dtype)

    empty_like = zeros_like

    def arange(
        self, start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
    ) -> Tracer:
        if stop is None:
            start, stop = 0, start
        whole = all(isinstance(v, int) for v in (start, stop, step))
        name = dtype_name(dtype or (INDEX if whole else FLOAT))
        count = max(0, math.ceil((stop - start) / step))
        return self._emit("arange", (start, stop, step), ArrayType((count,), name), dtype=name)

    def linspace(
        self, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: Any = True
    ) -> Tracer:
        if is_array(start) or is_array(stop):
            part = self.linspace(0.0, 1.0, num, dtype=promoted("linspace", (start, stop)), endpoint=endpoint)
            line = self.add(self.multiply(part, self.subtract(stop, start)), start)
            return line if dtype is None else self.astype(line, dtype)
        name = dtype_name(dtype or FLOAT)
        return self._emit("linspace", (start, stop, num), ArrayType((num,), name), dtype=name, endpoint=endpoint)

    def eye(
        self, n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
    ) -> Tracer:
        n_cols = n_rows if n_cols is None else n_cols
        name = dtype_name(dtype or FLOAT)
        return self._emit("eye", (n_rows, n_cols), ArrayType((n_rows, n_cols), name), k=k, dtype=name)

    def asarray(self, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Tracer:
        if isinstance(obj, (list, tuple)) and _contains_tracer(obj):
            obj = self.stack([self.asarray(item) for item in obj])
        if is_array(obj) and not isinstance(obj, np.generic):
            array = self._lift(obj)
            return array if dtype is None else self.astype(array, dtype)
        literal = np.asarray(obj) if dtype is None else np.asarray(obj, dtype=dtype_name(dtype))
        if dtype is None and literal.dtype.kind == "f" and not isinstance(obj, np.generic):
            literal = literal.astype(FLOAT)
        name = dtype_name(literal.dtype)
        if literal.ndim == 0:
            return self.full((), literal.item(), dtype=name)
        return self._emit("asarray", (_nested(literal.tolist()),), ArrayType(literal.shape, name), dtype=name)

    def meshgrid(self, *arrays: Any, indexing: str = "xy") -> list[Tracer]:
        swap = indexing == "xy" and len(arrays) > 1
        order = [1, 0, *range(2, len(arrays))] if swap else list(range(len(arrays)))
        shape = tuple(arrays[i].shape[0] for i in order)
        thin = [self.reshape(x, tuple(-1 if i == j else 1 for j in order)) for i, x in enumerate(arrays)]
        return [self.broadcast_to(x, shape) for x in thin]

    def _triangle(self, name: str, x: Any, /, *, k: int = 0) -> Tracer:
        return self._emit(name, (x,), type_of(x), k=k)

    tril, triu = partialmethod(_triangle, "tril"), partialmethod(_triangle, "triu")

    # Dtypes

    def astype(self, x: Any, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Tracer:
        name = dtype_name(dtype)
        x = self._lift(x)
        if name.kind != "complex floating" and x.dtype.kind == "complex floating":
            raise TypeError(f"astype from {x.dtype} to {name} drops the imaginary part: take xp.real(x) first")
        return x if x.dtype == name else self._emit("astype", (x, name), ArrayType(tuple(x.shape), name))

    def broadcast_to(self, x: Any, /, shape: Any) -> Tracer:
        x, shape = self._lift(x), shape_of(shape)
        if broadcast_shape("broadcast_to", [x.shape, shape]) != shape:
            raise ValueError(f"cannot broadcast {x.shape} to {shape}, at {users_line()}")
        return x if x.shape == shape else self._emit("broadcast_to", (x, shape), ArrayType(shape, x.dtype))

    def broadcast_arrays(self, *arrays: Any) -> list[Tracer]:
        shape = broadcast_shape("broadcast_arrays", [tuple(a.shape) for a in arrays])
        return [self.broadcast_to(a, shape) for a in arrays]

    def broadcast_shapes(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return broadcast_shape("broadcast_shapes", shapes)

    def can_cast(self, from_: Any, to: Any, /) -> Any:
        return np.can_cast(dtype_name(getattr(from_, "dtype", from_)), dtype_name(to))

    def finfo(self, type: Any, /) -> Any:
        return np.finfo(dtype_name(getattr(type, "dtype", type)))

    def iinfo(self, type: Any, /) -> Any:
        return np.iinfo(dtype_name(getattr(type, "dtype", type)))

    def isdtype(self, dtype: Any, kind: Any) -> Any:
        name = dtype_name(dtype)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        return any(one == name or name.kind in ACCEPTS.get(one, ()) for one in kinds)

    def result_type(self, *arrays_and_dtypes: Any) -> DType:
        boxed = [a if is_array(a) or is_scalar(a) else self.full((), 0, dtype=a) for a in arrays_and_dtypes]
        return promoted("result_type", boxed)

    # Indexing

    def getitem(self, x: Tracer, key: Any) -> Tracer:
        return getitem(self, x, key)

    def sliced(self, x: Tracer, slices: tuple[slice, ...]) -> Tracer:
        """Return ``x[slices]``, one of positive step for each axis."""
        counts = tuple(len(range(s.start, s.stop, s.step)) for s in slices)
        return x if counts == x.shape else self._emit("getitem", (x, slices), ArrayType(counts, x.dtype))

    def mask_indices(self, mask: Any) -> list[Any]:
        """Return the indices, an array for each axis, of what a bool array chooses."""
        raise NotTraceableError(
            f"x[mask] has a result whose shape depends on values, at {users_line()}\nUse xp.where(mask, x, other)."
        )

    def _indices(self, name: str, indices: Any, rank: int = 1) -> Tracer:
        """Return indices of a dtype that every library indexes by, and that holds the length of any axis."""
        indices = self._lift(indices)
        if not indices.dtype.is_integer or indices.ndim != rank:
            raise TypeError(f"{name}() expects a {rank}-D integer array, got {type_of(indices)}, at {users_line()}")
        return indices if indices.dtype in ("int32", "int64") else self.astype(indices, INDEX)

    def take(self, x: Any, indices: Any, /, *, axis: int | None = None) -> Tracer:
        x, indices = self._lift(x), self._indices("take", indices)
        if axis is None and x.ndim != 1:
            raise ValueError(f"take() needs axis= for {x.ndim} dimensions, at {users_line()}")
        axis = normalized_axis(axis or 0, x.ndim)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return self._emit("take", (x, indices), ArrayType(shape, x.dtype), axis=axis)

    def take_along_axis(self, x: Any, indices: Any, /, *, axis: int = -1) -> Tracer:
        x, indices = self._lift(x), self._indices("take_along_axis", indices, x.ndim)
        axis = normalized_axis(axis, x.ndim)
        thin = [tuple(1 if j == axis else n for j, n in enumerate(a.shape)) for a in (x, indices)]
        shape = list(broadcast_shape("take_along_axis", thin))
        shape[axis] = indices.shape[axis]
        indices = self.broadcast_to(indices, tuple(shape))
        wide = self.broadcast_to(x, tuple(x.shape[axis] if j == axis else n for j, n in enumerate(shape)))
        return self._emit("take_along_axis", (wide, indices), ArrayType(tuple(shape), x.dtype), axis=axis)

    def index_add(self, x: Any, indices: Any, updates: Any, /, *, axis: int) -> Tracer:
        """Return ``x`` with ``updates`` added at ``indices`` along ``axis``; negative indices count from the end."""
        x, indices, updates = self._lift(x), self._indices("index_add", indices), self._lift(updates)
        axis = normalized_axis(axis, x.ndim)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        if updates.shape != shape:
            raise ValueError(f"index_add: expected updates of shape {shape}, got {updates.shape}, at {users_line()}")
        dtype = promoted("index_add", (x, updates))
        if dtype == "bool":
            raise TypeError(f"index_add is for numeric dtypes, got bool, at {users_line()}")
        x, updates = self.astype(x, dtype), self.astype(updates, dtype)
        return self._emit("index_add", (x, indices, updates), ArrayType(x.shape, dtype), axis=axis)

    def stop_gradient(self, x: Any, /) -> Tracer:
        """Return ``x`` as a constant for gradients."""
        return self._emit("stop_gradient", (self._lift(x),), type_of(x))

    # Linear algebra

    def matmul(self, x1: Any, x2: Any, /) -> Tracer:
        x1, x2 = self._lift(x1), self._lift(x2)
        if x1.ndim == 0 or x2.ndim == 0:
            raise ValueError(f"matmul is for arrays of one dimension or more, at {users_line()}\nUse x * y.")
        if x1.ndim == 1:
            product = self.matmul(self.reshape(x1, (1, -1)), x2)
            return self.squeeze(product, axis=-1 if x2.ndim == 1 else -2)
        if x2.ndim == 1:
            return self.squeeze(self.matmul(x1, self.reshape(x2, (-1, 1))), axis=-1)
        x1, x2 = _of_one_kind(self, [x1, x2])
        dtype = promoted("matmul", (x1, x2))
        return self._emit("matmul", (x1, x2), ArrayType(_product_shape(x1, x2), dtype))

    def rounded_matmul(self, x1: Any, x2: Any, /, *, precision: str) -> Tracer:
        """Return ``x1 @ x2``, float32, of arrays that are rounded to ``precision``, or that have this dtype already."""
        dtypes = {dtype_name(x.dtype) for x in (x1, x2)}
        if dtypes not in ({"float32"}, {precision}) or x1.ndim < 2 or x2.ndim < 2:
            raise TypeError(f"rounded_matmul is for float32 matrices, got {type_of(x1)} and {type_of(x2)}")
        type = ArrayType(_product_shape(x1, x2), DType("float32"))
        return self._emit("rounded_matmul", (x1, x2), type, precision=precision)

    def matrix_transpose(self, x: Any, /) -> Tracer:
        x = self._lift(x)
        if x.ndim < 2:
            raise ValueError(f"matrix_transpose is for two dimensions or more, got {x.ndim}, at {users_line()}")
        return self.permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))

    def vecdot(self, x1: Any, x2: Any, /, *, axis: int = -1) -> Tracer:
        x1, x2 = self._lift(x1), self._lift(x2)
        if x1.shape[axis] != x2.shape[axis]:
            raise ValueError(f"vecdot: {x1.shape} and {x2.shape} differ along axis {axis}, at {users_line()}")
        product = self.multiply(self.conj(x1), x2)
        return self.sum(product, axis=axis, dtype=product.dtype)

    def tensordot(self, x1: Any, x2: Any, /, *, axes: Any = 2) -> Tracer:
        x1, x2 = self._lift(x1), self._lift(x2)
        if isinstance(axes, int):
            axes = (tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes)))
        over1, over2 = (tuple(normalized_axis(a, x.ndim) for a in over) for over, x in zip(axes, (x1, x2), strict=True))
        kept1, kept2 = (tuple(a for a in range(x.ndim) if a not in over) for x, over in ((x1, over1), (x2, over2)))
        if [x1.shape[a] for a in over1] != [x2.shape[a] for a in over2]:
            raise ValueError(
                f"tensordot: {x1.shape} over {over1} and {x2.shape} over {over2} differ, at {users_line()}"
            )
        rows, columns = (tuple(x.shape[a] for a in kept) for x, kept in ((x1, kept1), (x2, kept2)))
        contracted = math.prod(x1.shape[a] for a in over1)
        left = self.reshape(self.permute_dims(x1, (*kept1, *over1)), (math.prod(rows), contracted))
        right = self.reshape(self.permute_dims(x2, (*over2, *kept2)), (contracted, math.prod(columns)))
        return self.reshape(self.matmul(left, right), (*rows, *columns))

    # Manipulation

    def reshape(self, x: Any, /, shape: Any, *, copy: Any = None) -> Tracer:
        x, shape = self._lift(x), shape_of(shape)
        if -1 in shape:
            known = math.prod(n for n in shape if n != -1)
            shape = tuple(x.size // max(known, 1) if n == -1 else n for n in shape)
        if math.prod(shape) != x.size:
            raise ValueError(f"cannot reshape {x.shape} to {shape}, at {users_line()}")
        return x if x.shape == shape else self._emit("reshape", (x, shape), ArrayType(shape, x.dtype))

    def permute_dims(self, x: Any, /, axes: Any = None) -> Tracer:
        x = self._lift(x)
        axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(normalized_axis(a, x.ndim) for a in axes)
        if sorted(axes) != list(range(x.ndim)):
            raise ValueError(f"permute_dims: {axes} is not a permutation of {x.ndim} axes, at {users_line()}")
        if axes == tuple(range(x.ndim)):
            return x
        return self._emit("permute_dims", (x, axes), ArrayType(tuple(x.shape[a] for a in axes), x.dtype))

    def moveaxis(self, x: Any, source: Any, destination: Any, /) -> Tracer:
        pairs = (p if isinstance(p, (tuple, list)) else (p,) for p in (source, destination))
        source, destination = ([normalized_axis(a, x.ndim) for a in axes] for axes in pairs)
        order = [a for a in range(x.ndim) if a not in source]
        for to, axis in sorted(zip(destination, source, strict=True)):
            order.insert(to, axis)
        return self.permute_dims(x, order)

    def expand_dims(self, x: Any, /, *, axis: Any = 0) -> Tracer:
        axes = axis if isinstance(axis, (tuple, list)) else (axis,)
        total = x.ndim + len(axes)
        new = {normalized_axis(a, total) for a in axes}
        if len(new) != len(axes):
            raise ValueError(f"expand_dims: repeated axis in {tuple(axes)}, at {users_line()}")
        lengths = iter(x.shape)
        return self.reshape(x, tuple(1 if a in new else next(lengths) for a in range(total)))

    def squeeze(self, x: Any, /, axis: Any) -> Tracer:
        axes = {normalized_axis(a, x.ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))}
        if any(x.shape[a] != 1 for a in axes):
            raise ValueError(f"squeeze: an axis of {tuple(x.shape)} among {sorted(axes)} is longer than 1")
        return self.reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))

    def concat(self, arrays: Any, /, *, axis: int | None = 0) -> Tracer:
        arrays = [self._lift(a) for a in arrays]
        if not arrays:
            raise ValueError(f"concat needs at least one array, at {users_line()}")
        if axis is None:
            arrays, axis = [self.reshape(a, (-1,)) for a in arrays], 0
        axis = normalized_axis(axis, arrays[0].ndim)
        arrays = _of_one_kind(self, arrays)
        dtype = promoted("concat", arrays)
        shape = list(arrays[0].shape)
        for a in arrays:
            if [*a.shape[:axis], *a.shape[axis + 1 :]] != [*shape[:axis], *shape[axis + 1 :]]:
                raise ValueError(
                    f"concat: expected equal shapes but for axis {axis}, got {arrays[0].shape} and {a.shape}, at {users_line()}"
                )
        if len(arrays) == 1:
            return arrays[0]
        shape[axis] = sum(a.shape[axis] for a in arrays)
        same = [self.astype(a, dtype) for a in arrays]
        return self._emit("concat", same, ArrayType(tuple(shape), dtype), axis=axis)

    def stack(self, arrays: Any, /, *, axis: int = 0) -> Tracer:
        return self.concat([self.expand_dims(self._lift(a), axis=axis) for a in arrays], axis=axis)

    def unstack(self, x: Any, /, *, axis: int = 0) -> tuple[Tracer, ...]:
        axis = normalized_axis(axis, x.ndim)
        return tuple(x[(*(slice(None),) * axis, i)] for i in range(x.shape[axis]))

    def flip(self, x: Any, /, *, axis: Any = None) -> Tracer:
        x = self._lift(x)
        axes = normalized_axes(axis, x.ndim)
        return self._emit("flip", (x,), type_of(x), axis=axes) if axes else x

    def roll(self, x: Any, /, shift: Any, *, axis: Any = None) -> Tracer:
        if axis is None:
            return self.reshape(self.roll(self.reshape(x, (-1,)), shift, axis=0), tuple(x.shape))
        if isinstance(axis, int):
            axis, shift = (axis,), (shift,)
        for a, s in zip(axis, shift if isinstance(shift, (tuple, list)) else (shift,) * len(axis), strict=True):
            a = normalized_axis(a, x.ndim)
            head = (slice(None),) * a
            cut = -s % x.shape[a] if x.shape[a] else 0
            x = self.concat([x[(*head, slice(cut, None))], x[(*head, slice(0, cut))]], axis=a)
        return self._lift(x)

    def repeat(self, x: Any, repeats: Any, /, *, axis: int | None = None) -> Tracer:
        if not isinstance(repeats, int):
            raise NotTraceableError(f"repeat with an array of counts cannot be traced, at {users_line()}")
        if axis is None:
            x, axis = self.reshape(x, (-1,)), 0
        axis = normalized_axis(axis, x.ndim)
        shape = list(x.shape)
        wide = self.broadcast_to(self.expand_dims(x, axis=axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
        shape[axis] *= repeats
        return self.reshape(wide, tuple(shape))

    def tile(self, x: Any, repetitions: tuple[int, ...], /) -> Tracer:
        rank = max(x.ndim, len(repetitions))
        shape = (*(1,) * (rank - x.ndim), *x.shape)
        times = (*(1,) * (rank - len(repetitions)), *repetitions)
        thin = self.reshape(x, tuple(itertools.chain.from_iterable((1, n) for n in shape)))
        wide = self.broadcast_to(thin, tuple(itertools.chain.from_iterable(zip(times, shape, strict=True))))
        return self.reshape(wide, tuple(t * n for t, n in zip(times, shape, strict=True)))

    # Statistics

    def _reduction(self, name: str, x: Any, axis: Any, keepdims: Any, dtype: DType | None = None) -> Tracer:
        x = self._lift(x)
        axes = normalized_axes(axis, x.ndim)
        if not axes:
            return self.astype(x, dtype or x.dtype)
        type = ArrayType(reduced_shape(x.shape, axes, keepdims), dtype or x.dtype)
        return self._emit(name, (x,), type, axis=axes, keepdims=bool(keepdims), **unusual_dtype(x, dtype))

    def sum(self, x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tracer:
        x = self._accumulated(x, dtype, "sum")
        return self._reduction("sum", x, axis, keepdims, x.dtype if dtype is not None else accumulator(x.dtype))

    def prod(self, x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tracer:
        x = self._accumulated(x, dtype, "prod")
        result = x.dtype if dtype is not None else accumulator(x.dtype)
        axes = normalized_axes(axis, x.ndim)  # one axis at a time: the standard allows several, torch does not
        for a in reversed(axes):
            x = self._reduction("prod", x, a, keepdims, result)
        return self.astype(x, result)

    def _accumulated(self, x: Any, dtype: Any, name: str) -> Tracer:
        x = self._lift(x)
        if dtype is None and x.dtype == "bool":
            raise TypeError(f"{name} is for numeric dtypes, got bool: use xp.count_nonzero, at {users_line()}")
        return x if dtype is None else self.astype(x, dtype)

    def _extreme(self, name: str, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Tracer:
        x = self._lift(x)
        if any(x.shape[a] == 0 for a in normalized_axes(axis, x.ndim)):
            raise ValueError(f"{name} of an empty axis, at {users_line()}")
        return self._reduction(name, x, axis, keepdims)

    max, min = partialmethod(_extreme, "max"), partialmethod(_extreme, "min")

    def mean(self, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Tracer:
        x = self._floating("mean", x)
        count = math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim))
        return self.divide(self.sum(x, axis=axis, keepdims=keepdims), float(count))

    def var(self, x: Any, /, *, axis: Any = None, correction: Any = 0.0, keepdims: Any = False) -> Tracer:
        x = self._floating("var", x)
        count = math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim))
        away = self.subtract(x, self.mean(x, axis=axis, keepdims=True))
        spread = self.square(self.abs(away) if x.dtype.kind == "complex floating" else away)
        return self.divide(self.sum(spread, axis=axis, keepdims=keepdims), float(count - correction))

    def std(self, x: Any, /, *, axis: Any = None, correction: Any = 0.0, keepdims: Any = False) -> Tracer:
        return self.sqrt(self.var(x, axis=axis, correction=correction, keepdims=keepdims))

    def _floating(self, name: str, x: Any) -> Tracer:
        x = self._lift(x)
        if not x.dtype.is_floating:
            raise TypeError(f"{name} is for floating dtypes, got {x.dtype}: convert with xp.astype, at {users_line()}")
        return x

    def _cumulative(
        self, name: str, x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: Any = False
    ) -> Tracer:
        x = self._accumulated(x, dtype, name)
        if axis is None and x.ndim != 1:
            raise ValueError(f"{name} needs axis= for {x.ndim} dimensions, at {users_line()}")
        axis = normalized_axis(axis or 0, x.ndim)
        kept = x.dtype if dtype is not None else accumulator(x.dtype)
        result = self._emit(name, (x,), ArrayType(x.shape, kept), axis=axis, **unusual_dtype(x, kept))
        if not include_initial:
            return result
        thin = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        first = self.full(thin, 0 if name == "cumulative_sum" else 1, dtype=result.dtype)
        return self.concat([first, result], axis=axis)

    cumulative_sum = partialmethod(_cumulative, "cumulative_sum")
    cumulative_prod = partialmethod(_cumulative, "cumulative_prod")

    def diff(self, x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tracer:
        axis = normalized_axis(axis, x.ndim)
        x = self.concat([a for a in (prepend, x, append) if a is not None], axis=axis)
        head = (slice(None),) * axis
        for _ in range(n):
            x = self.subtract(x[(*head, slice(1, None))], x[(*head, slice(None, -1))])
        return x

    # Searching, sorting, testing

    def _test(self, name: str, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Tracer:
        return self._reduction(name, self._truth(x), axis, keepdims)

    all, any = partialmethod(_test, "all"), partialmethod(_test, "any")

    def _truth(self, x: Any) -> Tracer:
        x = self._lift(x)
        return x if x.dtype == "bool" else self.not_equal(x, 0)

    def count_nonzero(self, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Tracer:
        return self.sum(self.astype(self._truth(x), INDEX), axis=axis, keepdims=keepdims)

    def _arg_extreme(self, name: str, x: Any, /, *, axis: int | None = None, keepdims: Any = False) -> Tracer:
        x = self._lift(x)
        axis = None if axis is None else normalized_axis(axis, x.ndim)
        shape = reduced_shape(x.shape, normalized_axes(axis, x.ndim), keepdims)
        return self._emit(name, (x,), ArrayType(shape, INDEX), axis=axis, keepdims=bool(keepdims))

    argmax, argmin = partialmethod(_arg_extreme, "argmax"), partialmethod(_arg_extreme, "argmin")

    def _sorting(self, name: str, x: Any, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Tracer:
        type = ArrayType(tuple(x.shape), INDEX if name == "argsort" else dtype_name(x.dtype))
        return self._emit(name, (x,), type, axis=normalized_axis(axis, x.ndim), descending=descending, stable=stable)

    sort, argsort = partialmethod(_sorting, "sort"), partialmethod(_sorting, "argsort")

    def searchsorted(self, x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tracer:
        x1, x2 = self._lift(x1), self._lift(x2)
        x1 = x1 if sorter is None else self.take(x1, sorter, axis=0)
        return self._emit("searchsorted", (x1, x2), ArrayType(x2.shape, INDEX), side=side)


UNARY_FAMILIES = {
    "floating": "acos acosh asin asinh atan atanh cos cosh exp expm1 log log10 log1p log2 reciprocal sin sinh sqrt tan tanh",
    "numeric": "ceil floor negative positive round sign square trunc",
    "boolean": "logical_not",
    "integral or bool": "bitwise_invert",
    "numeric to bool": "isfinite isinf isnan",
    "floating to bool": "signbit",
}
BINARY_FAMILIES = {
    "floating": "atan2 copysign divide hypot logaddexp nextafter",
    "numeric": "add floor_divide maximum minimum multiply pow remainder subtract",
    "boolean": "logical_and logical_or logical_xor",
    "integral": "bitwise_left_shift bitwise_right_shift",
    "integral or bool": "bitwise_and bitwise_or bitwise_xor",
    "any to bool": "equal greater greater_equal less less_equal not_equal",
}
UNARY = tuple(" ".join(UNARY_FAMILIES.values()).split())
BINARY = tuple(" ".join(BINARY_FAMILIES.values()).split())
NOT_TRACEABLE = {
    "nonzero": "its result's shape depends on values; use xp.where(condition, a, b)",
    **dict.fromkeys(
        ("unique_all", "unique_counts", "unique_inverse", "unique_values"), "its result's shape depends on values"
    ),
    "from_dlpack": "it reads another library's memory; convert before the function is called",
    "isin": "it is not in version 2024.12 of the standard; compare with x[..., None] == values and xp.any",
}


class _Info:
    """The Array API inspection functions."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def capabilities(self) -> dict[str, Any]:
        return {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": 32}

    def default_device(self) -> Any:
        return self._device

    def devices(self) -> list[Any]:
        return [self._device]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        dtypes = {"real floating": FLOAT, "complex floating": DType("complex128")}
        return {**dtypes, "integral": INDEX, "indexing": INDEX}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        names = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128".split()
        wanted = kind if isinstance(kind, tuple) else (kind,)
        return {n: DType(n) for n in names if kind is None or any(DType(n).kind in ACCEPTS[k] for k in wanted)}


def _elementwise_function(name: str, count: int, accepts: str) -> Callable[..., Tracer]:
    kinds, _, returns = accepts.partition(" to ")

    def function(self: TracingNamespace, /, *arrays: Any) -> Tracer:
        if len(arrays) != count:
            raise TypeError(f"{name}() takes {count} argument{'s' * (count > 1)}, got {len(arrays)}")
        return self._elementwise(name, arrays, kinds, returns or None)

    function.__name__ = name
    return function


for _count, _families in ((1, UNARY_FAMILIES), (2, BINARY_FAMILIES)):
    for _accepts, _names in _families.items():
        for _name in _names.split():
            setattr(TracingNamespace, _name, _elementwise_function(_name, _count, _accepts))


TRACING: Functions = {
    **{name: lambda xp, x, name=name: xp.linalg.packed(name, x) for name in PACKED},
    "index_add": TracingNamespace.index_add, "rounded_matmul": TracingNamespace.rounded_matmul,
    "stop_gradient": TracingNamespace.stop_gradient,
}  # fmt: skip
"""How `execute` traces the operations that the Array API lacks."""


@lru_cache(maxsize=1 << 12)
def _elementwise_type(accepts: str, returns: str | None, *arguments: Any) -> ArrayType | None:
    """Return the type of an elementwise operation's result; None if its arguments have several dtypes, or do not fit.

    Arguments are the types of arrays, and those of Python numbers.
    """
    types = [a for a in arguments if isinstance(a, ArrayType)]
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1 or not all(isinstance(a, ArrayType) or a in PYTHON_NUMBERS for a in arguments):
        return None
    (dtype,) = dtypes
    numbers = [a() for a in arguments if not isinstance(a, ArrayType)]
    if dtype.kind not in ACCEPTS[accepts] or not all(fits(number, dtype) for number in numbers):
        return None
    try:
        shape = broadcast_shape("", [t.shape for t in types])
    except ValueError:
        return None
    return ArrayType(shape, DType(returns) if returns else dtype)


PYTHON_NUMBERS = (bool, int, float, complex)


def _as_array(xp: TracingNamespace, value: Any) -> Any:
    """Return Python scalars unchanged; NumPy scalars, which have a dtype, as arrays of the program."""
    if isinstance(value, np.generic):
        return xp.asarray(value)
    if type(value) is np.ndarray and value.dtype.kind == "O":
        return xp._lift(value)
    if not is_scalar(value) and not is_array(value):
        raise TypeError(f"expected an array, got {type(value).__name__}: {shortened(value)}, at {users_line()}")
    return value


def _product_shape(x1: Any, x2: Any) -> tuple[int, ...]:
    if x1.shape[-1] != x2.shape[-2]:
        raise ValueError(
            f"matmul: {type_of(x1)} has {x1.shape[-1]} columns and {type_of(x2)} has {x2.shape[-2]} rows, at {users_line()}"
        )
    return (*broadcast_shape("matmul", [x1.shape[:-2], x2.shape[:-2]]), x1.shape[-2], x2.shape[-1])


def _of_one_kind(xp: TracingNamespace, arguments: Sequence[Any]) -> list[Any]:
    """Convert booleans to the others' dtype, and integers together with float64 or a Python float to float64, as NumPy does."""
    if any(isinstance(a, complex) and not isinstance(a, np.generic) for a in arguments):
        arguments = [_as_complex(xp, a) if is_array(a) else a for a in arguments]
    dtypes = dict.fromkeys(dtype_name(a.dtype) for a in arguments if is_array(a))
    numeric = [d for d in dtypes if d != "bool"]
    if numeric and all(d.is_integer for d in numeric) and any(type(a) is float for a in arguments):
        return [xp.astype(a, FLOAT) if is_array(a) else a for a in arguments]
    if len(dtypes) == 1 or not numeric:
        return list(arguments)
    into = {"bool": numeric[0]} if len(numeric) == 1 else {}
    if "float64" in numeric and all(d.is_integer or d == "float64" for d in numeric):
        into = dict.fromkeys(dtypes, DType("float64"))
    return [xp.astype(a, into.get(dtype_name(a.dtype), dtype_name(a.dtype))) if is_array(a) else a for a in arguments]


def _as_complex(xp: TracingNamespace, x: Any) -> Any:
    """Return a real floating array in the complex dtype of its precision; others as they are."""
    return xp.astype(x, complex_dtype(x)) if dtype_name(x.dtype).kind == "real floating" else x


def _nested(values: Any) -> Any:
    return tuple(map(_nested, values)) if isinstance(values, list) else values


def _contains_tracer(values: Any) -> bool:
    return any(_contains_tracer(v) if isinstance(v, (list, tuple)) else is_array(v) for v in values)
