"""Gathering of rows from a large array with software prefetching.

A processor cannot predict the addresses of rows in a shuffled order, so it would wait for each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from portablenn.program.ir import ArrayType, Operation
from portablenn.runtime.numpy.lowering import Code, Operand, gather

from .compiled import compiled

AHEAD = 8192
"""Bytes between the row that is copied and the one that is prefetched."""
MAX_AHEAD = 64
LINE = 64
"""Bytes of a cache line."""

TEXT = f"""from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BYTE, FLAG, INT = ir.IntType(8).as_pointer(), ir.IntType(1), ir.IntType(32)


def at(context, builder, kind, array, place):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


@intrinsic
def fetch(typing, array, place):
    def write(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [BYTE, INT, INT, INT])
        function = builder.module.declare_intrinsic("llvm.prefetch", [BYTE], kind)
        facts = [INT(0), INT(3), INT(1)]  # read, highest locality, data
        builder.call(function, [at(context, builder, signature.args[0], *arguments), *facts])
        return context.get_dummy_value()

    return types.void(array, place), write


@intrinsic
def copy(typing, to, there, source, here, size):
    def write(context, builder, signature, arguments):
        to, there, source, here, size = arguments
        function = builder.module.declare_intrinsic("llvm.memcpy", [BYTE, BYTE, size.type])
        target = at(context, builder, signature.args[0], to, there)
        origin = at(context, builder, signature.args[2], source, here)
        builder.call(function, [target, origin, size, FLAG(0)])
        return context.get_dummy_value()

    return types.void(to, there, source, here, size), write


def loops(x, size, ahead, indices, y):
    rows, count = x.shape[0] // size, indices.shape[0]
    for r in range(-ahead, count):
        if r + ahead < count:
            start = indices[r + ahead] % rows * size
            for place in range(start, start + size, {LINE}):
                fetch(x, place)
            fetch(x, start + size - 1)
        if r >= 0:
            copy(y, r * size, x, indices[r] % rows * size, size)
"""
BYTES = types.Array(types.uint8, 1, "C")
SIGNATURE = (BYTES, types.int64, types.int64, types.Array(types.int64, 1, "C"), BYTES)


def gathered(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> bool:
    """Write the line that gathers rows of an input, if prefetching pays; indices wrap, as in all loops of steps."""
    x, indices = arguments
    size = int(np.prod(x.type.shape[1:])) * np.dtype(x.type.dtype).itemsize
    inside = indices.array is not None and indices.array.flags.c_contiguous and indices.array.dtype == np.int64
    here = out.array is not None and out.array.flags.c_contiguous
    is_input = x.array is None and x.name.startswith("x")  # so it is the same in each step
    fits = is_input and operation.parameters["axis"] == 0 and len(indices.type.shape) == 1
    pays = size >= LINE and x.type.shape[0] > 0 and not numba.config.DISABLE_JIT
    if not (fits and inside and here and pays and code.take_mode == "wrap"):
        return False
    function = compiled(TEXT, SIGNATURE)
    take = code.once(f"{code.bind(functools.partial(_taker, function, size, x.type))}({x.name})")
    code.lines.append(f"{take}({indices.text(code)}, {code.bind(_bytes(out.array))}, {out.text(code)})")
    return True


def _taker(function: Callable[..., None], size: int, type: ArrayType, x: np.ndarray) -> Callable[..., None]:
    """Return ``take(indices, bytes of out, out)`` for this array; NumPy's if it is not contiguous or of another dtype."""
    matches = x.dtype == np.dtype(type.dtype) and x.shape[1:] == type.shape[1:] and len(x) > 0
    if not (matches and x.flags.c_contiguous):
        return lambda indices, _, out: gather(x, indices, 0, out, "wrap")
    source, ahead = _bytes(np.asarray(x)), min(max(1, AHEAD // size), MAX_AHEAD)
    return lambda indices, target, _: function(source, size, ahead, indices, target)


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)
