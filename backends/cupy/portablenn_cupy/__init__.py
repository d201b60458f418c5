"""portablenn on CuPy: groups of operations as generated CUDA kernels, and a training step as one CUDA graph.

Requires CuPy and a GPU of CUDA; importing it requires neither. Where there is no kernel for an operation, or recording
fails, CuPy runs operation by operation, and the compiled function's ``how`` says why.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from portablenn.backend import NUMPY, Backend, BackendError, Compiled
from portablenn.program.ir import Array, ArrayType, Program

from .schedule import scheduled

__all__ = ["CupyBackend"]


class CupyBackend(Backend):
    """CuPy's arrays on one CUDA device."""

    install = 'pip install "portablenn-cupy[cuda13]" (or cuda12, or rocm: what the driver supports)'

    def __init__(self, name: str, xp: Any, device: Any) -> None:
        self.cupy = importlib.import_module("cupy")
        number = int(
            device
            if isinstance(device, (int, str))
            else getattr(device, "id", 0)
            if device is not None
            else _current(self.cupy)
        )
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

    def compile(self, program: Program) -> Compiled:
        """Kernels and products one after the other; or the interpreter, see the result's ``how``."""
        from .graph import Straight

        types = [v.type for v in program.outputs]
        return self._chosen(
            lambda: Straight(self._cuda, scheduled(program, NUMPY.xp), types, self._make, self._as_input),
            lambda: self._on_device(super(CupyBackend, self).compile(program)),
        )

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """One step recorded as a graph and replayed; or the interpreter, see the result's ``how``."""
        from .graph import Replayed

        carry = [v.type for v in program.inputs[1 : 1 + carried]]
        return self._chosen(
            lambda: Replayed(self._cuda, scheduled(program, NUMPY.xp, carried), carry, self._make, self._as_input),
            lambda: self._on_device(super(CupyBackend, self).compile_loop(program, carried)),
        )

    def _chosen(self, ours: Callable[[], Compiled], interpreted: Callable[[], Compiled]) -> Compiled:
        wish = os.environ.get("PORTABLENN_CUPY", "")
        return Chosen(ours, interpreted, lambda: self._cuda.free(), "PORTABLENN_CUPY=eager" if wish == "eager" else "")

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


class Chosen:
    """Kernels and graphs; or, where they cannot be had, what CuPy does by itself.

    Attributes
    ----------
    how
        Which of the two, and why.
    """

    def __init__(
        self, ours: Callable[[], Compiled], interpreted: Callable[[], Compiled], free: Callable[[], None], wish: str
    ) -> None:
        self.ours, self.free = ours, free
        self.interpreted: Callable[[], Compiled] | None = interpreted
        self.run: Compiled | None = None
        self.how = ""
        if wish:
            self._fall_back(wish)
        else:
            self._attempt(lambda: None)

    def __call__(self, *arrays: Any) -> tuple[Array, ...]:
        results = self._attempt(lambda: self.run(*arrays))  # type: ignore[misc]
        return self.run(*arrays) if results is None else results  # type: ignore[misc]

    def _attempt(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``; None if it failed and the interpreter has to do it."""
        try:
            if self.run is None:
                self.run = self.ours()
                self.how = self.run.how  # type: ignore[attr-defined]
            return work()
        except Exception as error:
            if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
                self.run = (
                    None if self.interpreted else self.run
                )  # its memory is given back; it is built anew next time
                self.free()
                raise
            if self.interpreted is None:
                raise
            self._fall_back(f"{type(error).__name__}: {error}")
            return None

    def _fall_back(self, reason: str) -> None:
        assert self.interpreted is not None
        self.run, self.interpreted = self.interpreted(), None
        self.how = f"operation by operation: {reason}"


@functools.cache
def _cuda(number: int) -> Any:
    from .device import Cuda

    cupy = importlib.import_module("cupy")
    return Cuda(cupy.cuda.Device(number))


def _current(cupy: Any) -> int:
    try:
        return int(cupy.cuda.runtime.getDevice())
    except Exception:
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
            f"the device is there, but a product fails ({type(error).__name__}: {str(error).splitlines()[0]}). CuPy needs "
            'CUDA\'s compiler and cuBLAS: pip install "cupy-cuda13x[ctk]" (or cuda12x)'
        )
    return "" if product == 4.0 else f"a product of ones gives {product}, not 4"
