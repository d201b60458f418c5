"""Sums at indices, on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

AT_ONCE = 1 << 15
"""Elements that are added at a time, so that their positions take little memory."""


def index_add(xp: Any, x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int) -> np.ndarray:
    """Return ``x`` with ``updates`` added at ``indices`` along an axis, one after the other."""
    out = np.array(x, order="C")
    add_at(out, indices, updates, axis, "raise")
    return out


def add_at(out: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: int, mode: str) -> None:
    """Add ``updates`` to ``out`` at ``indices`` along an axis, one after the other."""
    if not indices.size or not out.size:
        return
    if mode == "wrap":
        indices = indices % out.shape[axis]
    if axis or not out.flags.c_contiguous:
        np.add.at(np.moveaxis(out, axis, 0), indices, np.moveaxis(updates, axis, 0))
        return
    flat, within = out.reshape(-1), np.arange(out[0].size)
    some = max(1, AT_ONCE // within.size)
    for start in range(0, indices.size, some):
        places = indices[start : start + some, None].astype(np.intp) * within.size + within
        np.add.at(flat, places.reshape(-1), updates[start : start + some].reshape(-1))
