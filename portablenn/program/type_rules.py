"""Shape and dtype rules of the Array API: promotion, broadcasting, reductions and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ir import ArrayType, DType, dtype_name
from .tracer import Tracer, users_line

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
        if not fits(scalar, dtype):
            raise TypeError(
                f"{name} of {dtype} and the Python {type(scalar).__name__} {scalar!r}: the standard leaves the result "
                f"open, so libraries differ, at {users_line()}\nConvert the array with xp.astype."
            )
    return dtype


def fits(scalar: Any, dtype: DType) -> bool:
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
    return isinstance(value, Tracer) or (hasattr(value, "dtype") and hasattr(value, "shape"))


def type_of(x: Any) -> ArrayType:
    return ArrayType(tuple(x.shape), dtype_name(x.dtype))


def real_dtype(x: Any) -> str:
    name = dtype_name(x.dtype)
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def complex_dtype(x: Any) -> DType:
    """Return the complex dtype of the precision of a real floating array."""
    into = {"float32": "complex64", "float64": "complex128"}.get(dtype_name(x.dtype))
    if into is None:
        raise TypeError(f"{x.dtype} has no complex dtype: convert with xp.astype, at {users_line()}")
    return DType(into)


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
