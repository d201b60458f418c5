"""portablenn on CuPy: groups of operations as generated CUDA kernels, and a training step as one CUDA graph.

Importing it requires neither CuPy nor a GPU. A program with an operation that has no kernel runs through the interpreter.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from portablenn.program.ir import Array, ArrayType, Program
from portablenn.program.precision import PRECISIONS
from portablenn.runtime.backend import NUMPY, Backend, BackendError, Compiled
from portablenn.runtime.kernels.schedule import Schedule, is_small, make_schedule

from .factors import with_stored_factors
from .fair_lock import lock_of
from .kernels import expressible, reduction_parts
from .small import ELEMENTS, MULTIPLICATIONS

APART = 16 << 20
"""Bytes up to which the values of a step share no memory, so that more of its calls can run at the same time."""


ALIGNMENT = 16
"""Bytes of which the address of an input is a multiple if kernels read several of its elements at once."""


class CupyBackend(Backend):
    """CuPy's arrays on one CUDA device."""

    accelerated = True
    pads_orders = True
    _reader: Any = None  # the stream that read what was sent last
    precisions = PRECISIONS
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
        """The number of the device."""
        return str(self.device.id)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        with self.device:
            return super().asarray(x, dtype)

    def send(self, x: Any) -> Callable[[], Array]:
        """Start to copy ``x`` on a separate stream while other work is running."""
        if not isinstance(x, np.ndarray):
            return super().send(x)
        with self.device:
            computing = self.cupy.cuda.get_current_stream()
            if self._reader not in (None, computing):
                self.synchronize()  # reused memory may be read on the other stream
            self._reader = computing
            self._copies.wait_event(computing.record())  # or on this one
            self._copies.use()  # not "with": that forgets a stream which the caller chose with use()
            try:
                array = self.cupy.asarray(x, blocking=False)
            finally:
                computing.use()
            done = self._copies.record()

        def claim() -> Array:
            with self.device:
                self.cupy.cuda.get_current_stream().wait_event(done)
            return array

        return claim

    def receive(self, array: Any) -> Callable[[], np.ndarray]:
        """Start to copy ``array`` after the work that is enqueued now; later work does not delay it."""
        if not isinstance(array, self.cupy.ndarray):
            return super().receive(array)
        with self.device:
            pinned = self.cupy.cuda.alloc_pinned_memory(max(1, array.nbytes))
            on_host = np.frombuffer(pinned, dtype=array.dtype, count=array.size).reshape(array.shape)
            stream = self.cupy.cuda.get_current_stream()
            array.get(stream=stream, out=on_host, blocking=False)
            done = stream.record()

        def claim() -> np.ndarray:
            done.synchronize()
            return on_host.copy()

        return claim

    @functools.cached_property
    def _copies(self) -> Any:
        with self.device:
            return self.cupy.cuda.Stream(non_blocking=True)

    def compile(self, program: Program) -> Compiled:
        """Return a callable that launches kernels and matrix products one by one."""
        if os.environ.get("PORTABLENN_CUPY") == "eager":
            return self.interpreter(program, "PORTABLENN_CUPY=eager")
        from .graph import CompiledProgram

        types = [[v.type for v in variables] for variables in (program.inputs, program.outputs)]
        return CompiledProgram(self._cuda, schedule(program), *types, self._make, self._as_input)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """Return a loop that launches each step as a CUDA graph, or that runs many small steps in one kernel."""
        mode = os.environ.get("PORTABLENN_CUPY")
        if mode == "eager":
            return self.interpreter_loop(program, carried, "PORTABLENN_CUPY=eager")
        from .graph import GraphLoop, KernelLoop

        small = mode != "graph" and is_small(program, MULTIPLICATIONS, ELEMENTS)
        types = [v.type for v in program.inputs[1:]]
        loop = KernelLoop if small else GraphLoop
        return loop(self._cuda, schedule(program, carried, not small), types, carried, self._make, self._as_input)

    def context(self) -> Any:
        return self.device

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether it is CuPy's own error, or one of CUDA's runtime or driver, as when a graph is created."""
        names = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
        return super().is_out_of_memory(error) or any(name in str(error) for name in names)

    def free(self) -> None:
        """Empty the memory pools of this device."""
        if "_cuda" in vars(self):
            with contextlib.suppress(Exception):
                self._cuda.free()

    @functools.cached_property
    def _cuda(self) -> Any:
        return _cuda(self.device.id)

    def _make(self, type: ArrayType) -> Array:
        return self.cupy.empty(type.shape, dtype=type.dtype)

    def _as_input(self, array: Any, packed: bool) -> Array:
        """Return an input as a contiguous array; ``packed`` if kernels read several of its elements at once.

        It is copied only where necessary: large inputs are views of the users' data, such as all rows but the first ones.
        """
        with self.device:
            array = self.cupy.ascontiguousarray(self.cupy.asarray(array)).reshape(np.shape(array))
            return array.copy() if array.data.ptr % (ALIGNMENT if packed else array.itemsize) else array

    def synchronize(self) -> None:
        with lock_of(self.device.id):  # waiting for a device makes the captures on it invalid, other threads' too
            self.device.synchronize()

    def devices(self) -> list[str]:
        return [str(i) for i in range(self.cupy.cuda.runtime.getDeviceCount())]

    def memory(self) -> tuple[int, int] | None:
        with self.device:
            free, total = self.device.mem_info
            return free + self.cupy.get_default_memory_pool().free_bytes(), total  # what the pool caches is free

    @classmethod
    def accelerator(cls) -> str | None:
        """Return CUDA's current device, if it can add and multiply."""
        cupy = importlib.import_module("cupy")
        if not cupy.is_available():
            return None
        number = _current(cupy)
        return None if unusable(number) else str(number)


def schedule(program: Program, carried: int | None = None, shared: bool = True) -> Schedule:
    """Return the schedule of a program, or of a step; reductions are ``shared`` by several blocks."""
    program = with_stored_factors(program)
    parts = reduction_parts if shared else (lambda x, axes: 1)
    return make_schedule(program, NUMPY.xp, carried, expressible, parts, APART if shared and carried is not None else 0)


@functools.cache
def _cuda(number: int) -> Any:
    from .device import Cuda

    cupy = importlib.import_module("cupy")
    return Cuda(cupy.cuda.Device(number))


def _number(cupy: Any, device: Any) -> int:
    """Return the number of a device, given by name ("1") or as CuPy's object; of the current one for None."""
    if device is None:
        return _current(cupy)
    if isinstance(device, str) and not device.isdigit():
        raise BackendError(f"expected the number of a CUDA device, as in 'cupy:1', got {device!r}")
    return int(getattr(device, "id", device))


def _current(cupy: Any) -> int:
    try:
        return int(cupy.cuda.runtime.getDevice())
    except Exception:  # without a driver
        return 0


@functools.cache
def unusable(number: int) -> str:
    """Return why a device is not usable; "" if it is. Tries an addition and a product, as a driver alone proves nothing."""
    cupy = importlib.import_module("cupy")
    if not cupy.is_available():
        return "no CUDA device is available. Check the driver with nvidia-smi, or choose 'auto' or 'numpy'"
    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= number < count:
        return f"there is no CUDA device {number}, only {', '.join(map(str, range(count)))}"
    try:
        with cupy.cuda.Device(number):
            one = cupy.ones((2, 2), dtype=cupy.float32)
            product = float(((one + one) @ one)[0, 0])
    except Exception as error:
        return (
            f"a product fails on the device ({type(error).__name__}: {str(error).partition(chr(10))[0]}). CuPy "
            'needs CUDA\'s compiler and cuBLAS: pip install "cupy-cuda13x[ctk]" (or cuda12x)'
        )
    return "" if product == 4.0 else f"a product of ones: expected 4, got {product}"
