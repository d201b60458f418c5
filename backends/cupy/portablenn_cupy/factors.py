"""The factors of products in bfloat16, which are stored in it, so that each is rounded once and read at half the bytes."""

from __future__ import annotations

from typing import Any

from portablenn.program.ir import DType, Program
from portablenn.program.precision import lower_products
from portablenn.program.simplify import simplify
from portablenn.program.tracer import Tracer

BFLOAT16 = DType("bfloat16")


def with_stored_factors(program: Program) -> Program:
    """Return a program whose products in bfloat16 multiply arrays of this dtype; cuBLAS rounds to TF32 itself."""
    lowered = lower_products(
        program, _convert, lambda xp, a, b, precision: xp.rounded_matmul(a, b, precision=precision)
    )
    return program if lowered is program else simplify(lowered)


def _convert(xp: Any, x: Tracer, precision: str) -> Tracer:
    return xp.astype(x, BFLOAT16) if precision == BFLOAT16 else x
