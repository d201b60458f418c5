"""portablenn on NumPy arrays with Numba: the plan, with each group of elementwise operations one compiled loop.

Loops run on one thread, besides the threads of BLAS: both pools spin while they wait, and on two cores two
of them made a step a hundred times slower.
"""

from __future__ import annotations

import contextlib
from typing import Any

from portablenn.program.ir import Program
from portablenn.runtime.backend import Compiled, NumpyBackend, UnsupportedError
from portablenn.runtime.kernels.schedule import is_small
from portablenn.runtime.numpy.plan import Pool, plan, plan_loop

from .loops import Loops
from .steps import ELEMENTS, MULTIPLICATIONS, Steps, small_steps


class NumbaBackend(NumpyBackend):
    """NumPy's arrays on the CPU, through the plan with compiled loops."""

    library = "numpy"
    install = 'pip install "portablenn-numba"'

    def __init__(self, name: str, xp: Any, device: Any) -> None:
        super().__init__()
        if device not in (None, self.device):
            raise ValueError(f"it runs on 'cpu' only, got {device!r}")
        self.name = name

    def compile(self, program: Program) -> Compiled:
        return plan(program, Loops())

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """Return one compiled function of small steps, or the plan's loop."""
        if is_small(program, MULTIPLICATIONS, ELEMENTS):
            with contextlib.suppress(UnsupportedError):
                steps = small_steps(program, carried)
                return Pool(lambda: Steps(steps), "one compiled loop", looped=True)
        return plan_loop(program, carried, Loops())
