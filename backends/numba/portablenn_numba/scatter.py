"""Rows added to a table at indices, one after the other: `numpy.add.at` in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from portablenn.program.ir import Operation
from portablenn.runtime.numpy.lowering import Code, Operand

from .compiled import compiled

TEXT = """def loops(y, indices, updates, wraps):
    rows, columns = y.shape
    for r in range(indices.shape[0]):
        i = indices[r] % rows if wraps else indices[r]
        if i < -rows or i >= rows:
            raise IndexError("index_add: an index is out of range")
        i = i + rows if i < 0 else i
        for j in range(columns):
            y[i, j] += updates[r, j]
"""


def added(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> bool:
    """Write the lines that add rows of floating numbers along axis 0; leave everything else to NumPy."""
    x, indices, updates = arguments
    array, dtype = out.array, out.type.dtype
    if array is None or not array.flags.c_contiguous or not array.size or numba.config.DISABLE_JIT:
        return False
    if operation.parameters["axis"] != 0 or dtype not in ("float32", "float64"):
        return False
    table = types.Array(numba.from_dtype(np.dtype(dtype)), 2, "C")
    function = compiled(TEXT, (table, types.Array(types.int64, 1, "C"), table, types.boolean))
    add = functools.partial(_add, function, array.reshape(len(array), -1), code.take_mode == "wrap")
    code.call(np.copyto, out.text(code), x.text(code))
    code.call(add, indices.text(code), updates.text(code))
    return True


def _add(function: Callable[..., None], y: np.ndarray, wraps: bool, indices: np.ndarray, updates: np.ndarray) -> None:
    rows = np.ascontiguousarray(updates, dtype=y.dtype).reshape(len(indices), y.shape[1])
    function(y, np.ascontiguousarray(indices, dtype=np.int64), rows, wraps)
