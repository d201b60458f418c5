"""`with_precision`: functions whose matrix products multiply rounded numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..program.ir import Program
from ..program.precision import PRECISIONS, round_products
from .compile import Arguments, Result, Transform, transformed

__all__ = ["check_precision", "with_precision"]


def with_precision(fun: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
    """Return a function whose float32 matrix products, and those of its gradient, multiply numbers of a lower precision.

    Parameters
    ----------
    fun
        A function of arrays, as for `compile`.
    precision
        "tf32": factors have 11 significant bits, and sums are float32. "bfloat16": 8 bits. None: ``fun`` itself. Devices with
        tensor cores multiply such numbers many times faster; others round them by arithmetic, which is slower, for tests.
        A device may round less.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> product = with_precision(lambda a, b: a @ b, "bfloat16")
    >>> float(product(np.ones((1, 1), dtype=np.float32), np.full((1, 1), 1.003, dtype=np.float32))[0, 0])
    1.0
    """
    check_precision(precision)
    return fun if precision is None else transformed(_Rounded(fun, precision))


def check_precision(precision: Any) -> None:
    """Raise ValueError unless it is None or one of "tf32" and "bfloat16"."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be None, {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")


class _Rounded(Transform):
    def __init__(self, fun: Callable[..., Any], precision: str) -> None:
        super().__init__(fun)
        self.facts = self.precision = precision

    def change(self, program: Program, result: Result, arguments: Arguments) -> Program:
        return round_products(program, self.precision)
