"""Shape and dtype rules of the Array API: promotion, broadcasting, reductions, axes and indexing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .ir import ArrayType, DType, dtype_name
from .tracer import NotTraceableError, users_line

INDEX = DType("int64")
BOOL = DType("bool")
FLOAT = DType("float64")
"""The dtype of ``xp.zeros(3)``, as NumPy's, so that a program means the same everywhere."""

FLOATS = frozenset({"real floating", "complex floating"})
NUMBERS = FLOATS | {"signed", "unsigned"}
ACCEPTS: dict[str, frozenset[str]] = {
    "floating": FLOATS,
    "numeric": NUMBERS,
    "boolean": frozenset({"bool"}),
    "integral or bool": frozenset({"signed", "unsigned", "bool"}),
    "integral": frozenset({"signed", "unsigned"}),
    "any": NUMBERS | {"bool"},
    # the kinds of xp.isdtype
    "bool": frozenset({"bool"}),
    "signed integer": frozenset({"signed"}),
    "unsigned integer": frozenset({"unsigned"}),
    "real floating": frozenset({"real floating"}),
    "complex floating": frozenset({"complex floating"}),
}


def promoted(name: str, arguments: Sequence[Any]) -> DType:
    """Return the common dtype by the standard's promotion rules; raise TypeError for mixed kinds, which it leaves open."""
    dtypes = list(dict.fromkeys(dtype_name(a.dtype) for a in arguments if is_array(a)))
    kinds = {d.kind for d in dtypes}
    mixed = len(kinds) > 1 and not (kinds <= FLOATS) and not (kinds <= {"signed", "unsigned"})
    if not mixed:
        dtype = dtypes[0] if len(dtypes) == 1 else DType(np.result_type(*dtypes).name)
        mixed = dtype.kind not in kinds  # int64 with uint64
    if mixed:
        raise TypeError(
            f"{name} of {' and '.join(dtypes)}: the standard leaves their common dtype open, so libraries differ, at "
            f"{users_line()}\nConvert one of them with xp.astype."
        )
    for scalar in (a for a in arguments if not is_array(a)):
        if not _fits(scalar, dtype):
            raise TypeError(
                f"{name} of {dtype} and the Python {type(scalar).__name__} {scalar!r}: the standard leaves the result "
                f"open, so libraries differ, at {users_line()}\nConvert the array with xp.astype."
            )
    return dtype


def _fits(scalar: Any, dtype: DType) -> bool:
    if isinstance(scalar, bool):
        return dtype == "bool"
    if isinstance(scalar, int):
        return dtype != "bool"
    return dtype.is_floating if isinstance(scalar, float) else dtype.kind == "complex floating"


def broadcast_shape(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the common shape by the standard's broadcasting rules."""
    rank = max((len(s) for s in shapes), default=0)
    common = [1] * rank
    for shape in shapes:
        for axis, length in enumerate(shape, rank - len(shape)):
            if length != 1 and common[axis] != 1 and length != common[axis]:
                text = " and ".join(str(s) for s in shapes)
                raise ValueError(f"{name}: the shapes {text} do not broadcast together, at {users_line()}")
            if length != 1:
                common[axis] = length
    return tuple(common)


def is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def type_of(x: Any) -> ArrayType:
    return ArrayType(tuple(x.shape), dtype_name(x.dtype))


def real_dtype(x: Any) -> str:
    name = dtype_name(x.dtype)
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def scalar_dtype(*scalars: Any) -> DType:
    if any(isinstance(s, complex) for s in scalars):
        return DType("complex128")
    if any(isinstance(s, float) for s in scalars):
        return FLOAT
    return BOOL if all(isinstance(s, bool) for s in scalars) else INDEX


def accumulator(dtype: DType) -> DType:
    """Return the dtype of a sum: small integers grow to 64 bits, as the standard asks of 64-bit platforms."""
    return DType("int64" if dtype.kind == "signed" else "uint64") if dtype.is_integer else dtype


def unusual_dtype(x: Any, dtype: DType | None) -> dict[str, DType]:
    """Return ``dtype=`` where a sum of small integers must not grow; else nothing, for each library's default is right."""
    if dtype is None or not x.dtype.is_integer or dtype == accumulator(x.dtype):
        return {}
    return {"dtype": dtype}


def shape_of(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)


def normalized_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for {rank} dimensions, at {users_line()}")
    return int(axis) % rank


def normalized_axes(axis: Any, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(normalized_axis(a, rank) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))))


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any) -> tuple[int, ...]:
    if keepdims:
        return tuple(1 if a in axes else n for a, n in enumerate(shape))
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def full_key(entries: Sequence[Any], rank: int) -> list[Any]:
    """Return an index with one entry for each axis, and None for each new one.

    Entries are slices, Python integers, None and at most one integer array.
    """
    for k in entries:
        if is_array(k) and dtype_name(k.dtype) == "bool":
            raise NotTraceableError(
                f"x[mask] has a result whose shape depends on values, at {users_line()}\nUse xp.where(mask, x, other)."
            )
    keys = [k if k is None or k is Ellipsis or isinstance(k, slice) or is_indices(k) else whole(k) for k in entries]
    if sum(1 for k in keys if is_array(k)) > 1:
        raise NotTraceableError(
            f"x[...] with several integer arrays cannot be traced, at {users_line()}\nUse xp.take_along_axis."
        )
    used = sum(1 for k in keys if k is not None and k is not Ellipsis)
    if used > rank:
        raise IndexError(f"{used} indices for {rank} dimensions, at {users_line()}")
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1:
        raise IndexError(f"an index holds more than one '...', at {users_line()}")
    at = dots[0] if dots else len(keys)
    return [*keys[:at], *[slice(None)] * (rank - used), *keys[at + len(dots) :]]


def is_indices(key: Any) -> bool:
    """Return whether a part of an index is an array, not a NumPy integer."""
    return is_array(key) and not isinstance(key, np.generic)


def whole(key: Any) -> int:
    """Return an index as a Python integer."""
    if isinstance(key, (bool, str)) or not hasattr(key, "__index__"):
        raise IndexError(f"an index is an integer, a slice, None or an integer array, got {key!r}, at {users_line()}")
    return operator.index(key)


def positive_slice(key: Any, axis: int, length: int) -> slice:
    """Return the elements of one axis that a part of an index selects, in the order of the axis.

    An integer selects one element; an array selects from all of them.
    """
    if is_array(key):
        return slice(0, length, 1)
    if not isinstance(key, slice):
        if not -length <= key < length:
            raise IndexError(f"index {key} is out of range for axis {axis} of length {length}")
        return slice(key % length, key % length + 1, 1)
    start, stop, step = key.indices(length)
    count = len(range(start, stop, step))
    if not count:
        return slice(0, 0, 1)
    if step < 0:
        start, step = start + (count - 1) * step, -step
    return slice(start, start + (count - 1) * step + 1, step)


def indexed_shape(keys: Sequence[Any], counts: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of ``x[keys]``: without the axes of integers, with an axis of length 1 for each None."""
    lengths = iter(counts)
    pairs = [(k, 1 if k is None else next(lengths)) for k in keys]
    return tuple(n for k, n in pairs if not isinstance(k, int))
