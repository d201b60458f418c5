"""portablenn on CuPy: groups of operations as generated CUDA kernels, and a training step as one CUDA graph.

Requires CuPy and a GPU of CUDA; importing it requires neither. Where there is no kernel for an operation, or recording
fails, CuPy runs operation by operation, and the compiled function's ``how`` says why.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from portablenn.program.ir import Array, ArrayType, Program
from portablenn.runtime.backend import NUMPY, Backend, BackendError, Compiled
from portablenn.runtime.kernels.schedule import Schedule, is_small, make_schedule

from .kernels import expressible, reduction_parts
from .small import ELEMENTS, MULTIPLICATIONS

__all__ = ["CupyBackend"]


class CupyBackend(Backend):
    """CuPy's arrays on one CUDA device."""

    install = 'pip install "portablenn-cupy[cuda13]" (or cuda12, or rocm: what the driver supports)'

    def __init__(self, name: str, xp: Any, device: Any) -> None:
        self.cupy = importlib.import_module("cupy")
        number = _number(self.cupy, device)
        why_not = unusable(number)
        if why_not:
            raise BackendError(why_not)
        self.name, self.xp, self.device = name, xp, self.cupy.cuda.Device(number)

    @property
    def device_name(self) -> str:
        """The device's number."""
        return str(self.device.id)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, on this device."""
        with self.device:
            return super().asarray(x, dtype)

    def send(self, x: Any) -> Callable[[], Array]:
        """Copied on a stream of its own, beside what is being computed; not yet run on hardware."""
        if not isinstance(x, np.ndarray):
            return super().send(x)
        with self.device:
            computing = self.cupy.cuda.get_current_stream()
            self._copies.wait_event(computing.record())  # memory that is used again may still be read until then
            with self._copies:
                array = self.cupy.asarray(x, blocking=False)
            done = self._copies.record()

        def claim() -> Array:
            with self.device:
                self.cupy.cuda.get_current_stream().wait_event(done)
            return array

        return claim

    @functools.cached_property
    def _copies(self) -> Any:
        with self.device:
            return self.cupy.cuda.Stream(non_blocking=True)

    def compile(self, program: Program) -> Compiled:
        """Kernels and products one after the other; or the interpreter, see the result's ``how``."""
        from .graph import Straight

        types = [v.type for v in program.outputs]
        return self._chosen(
            len(program.inputs),
            lambda: Straight(self._cuda, schedule(program), types, self._make, self._as_input),
            lambda: self._on_device(super(CupyBackend, self).compile(program)),
        )

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """One step recorded as a graph and replayed, or many small ones in one kernel; or the interpreter: see ``how``."""
        from .graph import OneKernel, Replayed

        carry = [v.type for v in program.inputs[1 : 1 + carried]]
        small = is_small(program, MULTIPLICATIONS, ELEMENTS) and os.environ.get("PORTABLENN_CUPY") != "graph"
        way = OneKernel if small else Replayed
        return self._chosen(
            len(program.inputs),
            lambda: way(self._cuda, schedule(program, carried, not small), carry, self._make, self._as_input),
            lambda: self._on_device(super(CupyBackend, self).compile_loop(program, carried)),
        )

    def _chosen(self, takes: int, ours: Callable[[], Compiled], interpreted: Callable[[], Compiled]) -> Compiled:
        wish = os.environ.get("PORTABLENN_CUPY", "")
        reason = "PORTABLENN_CUPY=eager" if wish == "eager" else ""
        return Chosen(takes, ours, interpreted, self.is_out_of_memory, self._free, reason)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """CuPy's own error, or what CUDA says where it makes a graph."""
        return super().is_out_of_memory(error) or "cudaErrorMemoryAllocation" in str(error)

    def _free(self) -> None:
        """Give back what nobody holds any more."""
        if "_cuda" in vars(self):
            with contextlib.suppress(Exception):
                self._cuda.free()

    def _on_device(self, run: Compiled) -> Compiled:
        def on_device(*arrays: Any) -> tuple[Array, ...]:
            with self.device:
                return run(*arrays)

        return on_device

    @functools.cached_property
    def _cuda(self) -> Any:
        return _cuda(self.device.id)

    def _make(self, type: ArrayType) -> Array:
        return self.cupy.empty(type.shape, dtype=type.dtype)

    def _as_input(self, array: Any) -> Array:
        with self.device:
            return self.cupy.ascontiguousarray(self.cupy.asarray(array)).reshape(np.shape(array))

    def synchronize(self) -> None:
        """Wait for the device."""
        self.device.synchronize()

    def devices(self) -> list[str]:
        """The numbers of CUDA's devices."""
        return [str(i) for i in range(self.cupy.cuda.runtime.getDeviceCount())]

    def memory(self) -> tuple[int, int] | None:
        """What the driver says; memory that CuPy's pool keeps for later counts as free."""
        with self.device:
            free, total = self.device.mem_info
            return free + self.cupy.get_default_memory_pool().free_bytes(), total

    @classmethod
    def accelerator(cls) -> str | None:
        """CUDA's current device, if it can add and multiply."""
        cupy = importlib.import_module("cupy")
        if not cupy.is_available():
            return None
        number = _current(cupy)
        return None if unusable(number) else str(number)


def schedule(program: Program, carried: int | None = None, shared: bool = True) -> Schedule:
    """The schedule of a program, or of a step, for the kernels of this plug-in; ``shared`` among many blocks."""
    parts = reduction_parts if shared else (lambda x, axes: 1)
    return make_schedule(program, NUMPY.xp, carried, expressible, parts)


class Chosen:
    """Kernels and graphs; or, where they cannot be had, what CuPy does by itself.

    Attributes
    ----------
    how
        Which of the two, and why.
    """

    def __init__(
        self,
        takes: int,
        ours: Callable[[], Compiled],
        interpreted: Callable[[], Compiled],
        is_out_of_memory: Callable[[BaseException], bool],
        free: Callable[[], None],
        wish: str,
    ) -> None:
        self.takes, self.ours, self.is_out_of_memory, self.free = takes, ours, is_out_of_memory, free
        self.interpreted: Callable[[], Compiled] | None = interpreted
        self.run: Compiled | None = None
        self.how = ""
        if wish:
            self._fall_back(wish)
        else:
            self._built()

    def __call__(self, *arrays: Any) -> tuple[Array, ...]:
        if len(arrays) != self.takes:
            raise TypeError(f"expected {self.takes} arguments, found {len(arrays)}")
        run = self.run or self._built()
        try:
            return run(*arrays)
        except Exception as error:
            if self.interpreted is None:  # it is what runs, or another thread has fallen back to it
                if run is self.run:
                    raise
            else:
                self._give_up(error)
        return (self.run or self._built())(*arrays)

    def _built(self) -> Compiled:
        try:
            run = self.run = self.ours()
            self.how = run.how  # type: ignore[attr-defined]
        except Exception as error:
            self._give_up(error)
        assert self.run is not None
        return self.run

    def _give_up(self, error: Exception) -> None:
        """Fall back to the interpreter for good; but without memory, only let go of all that was taken, and raise."""
        if self.is_out_of_memory(error):
            self.run = None  # it is built anew at the next call
            traceback.clear_frames(error.__traceback__)  # which hold what was being built
            self.free()
            raise error
        self._fall_back(f"{type(error).__name__}: {error}")

    def _fall_back(self, reason: str) -> None:
        if self.interpreted is not None:
            self.run, self.interpreted = self.interpreted(), None
        self.how = f"operation by operation: {reason}"


@functools.cache
def _cuda(number: int) -> Any:
    from .device import Cuda

    cupy = importlib.import_module("cupy")
    return Cuda(cupy.cuda.Device(number))


def _number(cupy: Any, device: Any) -> int:
    """Of a device as users name it ("1"), as CuPy does, or of the one in use."""
    if device is None:
        return _current(cupy)
    if isinstance(device, str) and not device.isdigit():
        raise BackendError(f"a CUDA device is a number, as in 'cupy:1'; found the device {device!r}")
    return int(getattr(device, "id", device))


def _current(cupy: Any) -> int:
    try:
        return int(cupy.cuda.runtime.getDevice())
    except Exception:  # whatever a driver that is not there does
        return 0


@functools.cache
def unusable(number: int) -> str:
    """Why a device cannot be used; "" if it can. Found by an addition and a product: a driver alone proves nothing."""
    cupy = importlib.import_module("cupy")
    if not cupy.is_available():
        return "no CUDA device was found. Check the driver with nvidia-smi, or choose 'auto' or 'numpy'"
    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= number < count:
        return f"there is no CUDA device {number}, only {', '.join(map(str, range(count)))}"
    try:
        with cupy.cuda.Device(number):
            one = cupy.ones((2, 2), dtype=cupy.float32)
            product = float(((one + one) @ one)[0, 0])
    except Exception as error:
        return (
            f"the device is there, but a product fails ({type(error).__name__}: {str(error).partition(chr(10))[0]}). CuPy "
            'needs CUDA\'s compiler and cuBLAS: pip install "cupy-cuda13x[ctk]" (or cuda12x)'
        )
    return "" if product == 4.0 else f"a product of ones gives {product}, not 4"
