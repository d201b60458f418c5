"""Indexing, ``x[key]``: a key becomes slices of positive step, and at most one `take`."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .ir import dtype_name
from .tracer import Tracer, users_line
from .type_rules import INDEX, broadcast_shape, is_array


def getitem(xp: Any, x: Tracer, key: Any) -> Tracer:
    """Return ``x[key]`` for slices, integers, None, Ellipsis, integer arrays, and, if their values are known, bool arrays."""
    entries = [
        xp.asarray(k) if isinstance(k, (list, tuple)) else k for k in (key if isinstance(key, tuple) else (key,))
    ]
    keys = full_key(list(itertools.chain.from_iterable(_without_masks(xp, k) for k in entries)), x.ndim)
    by_axis = [k for k in keys if k is not None]
    has_arrays = any(map(is_array, keys))
    slices = tuple(
        slice(0, n, 1) if is_array(k) or (has_arrays and isinstance(k, int)) else positive_slice(k, axis, n)
        for axis, (k, n) in enumerate(zip(by_axis, x.shape, strict=True))
    )
    x = xp.sliced(x, slices)
    backwards = tuple(a for a, k in enumerate(by_axis) if isinstance(k, slice) and (k.step or 1) < 0)
    if backwards:
        x = xp.flip(x, axis=backwards)
    if has_arrays:
        return _gather(xp, x, keys)
    return xp.reshape(x, _indexed_shape(keys, x.shape))


def _without_masks(xp: Any, entry: Any) -> Sequence[Any]:
    """Return an entry of a key; indices by axis in place of a bool array."""
    if not (is_array(entry) and dtype_name(entry.dtype) == "bool"):
        return [entry]
    indices: list[Any] = xp.mask_indices(entry)
    return indices


def _gather(xp: Any, x: Tracer, keys: Sequence[Any]) -> Tracer:
    """Take elements by integer arrays, which are broadcast together, and by integers among them, as NumPy does.

    The axes that are indexed become one, in front, which is taken from. In the result they stand where they stood, if they
    were next to each other; else in front.
    """
    chosen = [isinstance(k, int) or is_array(k) for k in keys]
    first, last = chosen.index(True), len(keys) - 1 - chosen[::-1].index(True)
    place = first if all(chosen[first : last + 1]) else 0
    axes, rest, axis = [], [], 0
    for k, is_chosen in zip(keys, chosen, strict=True):
        if is_chosen:
            axes.append(axis)
        elif k is not None:
            rest.append(axis)
        axis += k is not None
    indices = [k for k, is_chosen in zip(keys, chosen, strict=True) if is_chosen]
    common = broadcast_shape("x[...]", [tuple(k.shape) for k in indices if is_array(k)])
    lengths = [x.shape[a] for a in axes]
    if len(axes) == 1:
        flat = xp.reshape(indices[0], (-1,))
        taken = xp.take(x, flat, axis=axes[0])
        moved = xp.moveaxis(taken, axes[0], 0) if axes[0] else taken
    else:
        flat = xp.reshape(xp.broadcast_to(_flat_index(xp, indices, lengths), common), (-1,))
        front = xp.permute_dims(x, (*axes, *rest))
        front = xp.reshape(front, (math.prod(lengths), *(x.shape[a] for a in rest)))
        moved = xp.take(front, flat, axis=0)
    kept = iter([x.shape[a] for a in rest])
    others = [1 if k is None else next(kept) for k, is_chosen in zip(keys, chosen, strict=True) if not is_chosen]
    result = xp.reshape(moved, (*common, *others))
    rank = len(common)
    return xp.moveaxis(result, tuple(range(rank)), tuple(range(place, place + rank))) if place and rank else result


def _flat_index(xp: Any, indices: Sequence[Any], lengths: Sequence[int]) -> Any:
    """Return positions in the flat axes; an index that is out of range on one axis is out of range of all."""
    flat, valid = None, None
    for index, length in zip(indices, lengths, strict=True):
        if isinstance(index, int):
            if not -length <= index < length:
                raise IndexError(f"index {index} is out of range for an axis of length {length}, at {users_line()}")
            index = xp.full((), index % length, dtype=INDEX)
        index = xp.astype(index, INDEX)
        inside = xp.logical_and(index >= -length, index < length)
        index = xp.where(index < 0, index + length, index)
        flat = index if flat is None else flat * length + index
        valid = inside if valid is None else xp.logical_and(valid, inside)
    return xp.where(valid, flat, math.prod(lengths))


def full_key(entries: Sequence[Any], rank: int) -> list[Any]:
    """Return an index with one entry for each axis, and None for each new one.

    Entries are slices, Python integers, None and integer arrays.
    """
    keys = [k if k is None or k is Ellipsis or isinstance(k, slice) or is_indices(k) else whole(k) for k in entries]
    used = sum(1 for k in keys if k is not None and k is not Ellipsis)
    if used > rank:
        raise IndexError(f"{used} indices for {rank} dimensions, at {users_line()}")
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1:
        raise IndexError(f"an index holds more than one '...', at {users_line()}")
    at = dots[0] if dots else len(keys)
    return [*keys[:at], *[slice(None)] * (rank - used), *keys[at + len(dots) :]]


def is_indices(key: Any) -> bool:
    """Return whether a part of an index is an array, not a NumPy integer or the index of one element."""
    return is_array(key) and not isinstance(key, np.generic)


def whole(key: Any) -> int:
    """Return an index as a Python integer."""
    if isinstance(key, (bool, str)) or not hasattr(key, "__index__"):
        raise IndexError(f"an index is an integer, a slice, None or an integer array, got {key!r}, at {users_line()}")
    return operator.index(key)


def positive_slice(key: Any, axis: int, length: int) -> slice:
    """Return the elements of one axis that a part of an index selects, in the order of the axis; an integer selects one."""
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


def _indexed_shape(keys: Sequence[Any], counts: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of ``x[keys]``: without the axes of integers, with an axis of length 1 for each None."""
    lengths = iter(counts)
    pairs = [(k, 1 if k is None else next(lengths)) for k in keys]
    return tuple(n for k, n in pairs if not isinstance(k, int))
