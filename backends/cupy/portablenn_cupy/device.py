"""A CUDA device as a schedule needs it: memory, kernels, matrix products, recording and replaying.

Requires CuPy and cuBLAS. CuPy refuses cuBLAS while a stream is recorded (cupy issue 6290), so cuBLAS is called directly,
with a handle and a workspace of our own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cupy
import numpy as np

from portablenn.runtime.kernels.schedule import Product

from .kernels import PRELUDE, Kernel, addresses
from .products import leading_dimension

WORKSPACE = 32 << 20
"""Bytes that cuBLAS may use; NVIDIA's recommendation for Hopper."""

FULL_PRECISION = {"float32": 68, "float64": 70}
"""cublasComputeType_t: CUBLAS_COMPUTE_32F and _64F."""

TF32 = 77
"""CUBLAS_COMPUTE_32F_FAST_TF32: only where ``PORTABLENN_TF32=1`` asks for it."""

ALLOCATION_FAILED = 3
"""CUBLAS_STATUS_ALLOC_FAILED."""

CUDA_TYPES = {"float32": 0, "float64": 1}
"""cudaDataType_t: CUDA_R_32F and CUDA_R_64F."""


class Cuda:
    """One device of CUDA, with a stream and a memory pool of its own."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.lock = threading.RLock()
        with device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.pool = cupy.cuda.MemoryPool()
            self.blas = _Blas(self.pool)

    def memory(self, nbytes: int) -> Any:
        """Device memory that lives as long as the object; ``address`` gives where. For use while `working`."""
        return self.pool.malloc(max(nbytes, 1))

    @staticmethod
    def address(memory: Any) -> int:
        """Of memory, or of an array."""
        return int(memory.data.ptr if isinstance(memory, cupy.ndarray) else memory.ptr)

    def free(self) -> None:
        """Give what nobody holds any more back to the device."""
        with self.device:  # a pool frees what it has on the current device
            self.pool.free_all_blocks()
            cupy.get_default_memory_pool().free_all_blocks()

    def functions(self, calls: Sequence[Kernel | Product]) -> dict[str, Any]:
        """The kernels by name, compiled together; CuPy keeps what it compiled on disk."""
        kernels = {call.name: call for call in calls if isinstance(call, Kernel)}
        if not kernels:
            return {}
        code = PRELUDE + "".join(kernel.text for kernel in kernels.values())
        with self.device:
            module = cupy.RawModule(code=code, options=("--std=c++17", "--fmad=false"))
            return {name: module.get_function(name) for name in kernels}

    def run(self, calls: Sequence[Kernel | Product], functions: dict[str, Any], base: Callable[[Any], int]) -> None:
        """Ask the current stream for all calls, in order."""
        stream = cupy.cuda.get_current_stream()
        for call in calls:
            if isinstance(call, Product):
                self.blas.product(stream, call, addresses((call.a, call.b, call.out), base))
            else:
                pointers = [np.uint64(a) for a in addresses(call.arguments, base)]
                numbers = [np.int32(n) for n in call.numbers]
                functions[call.name]((*call.grid, 1), (*call.block, 1), (*pointers, *numbers))

    def record(self, ask: Callable[[], None]) -> Any:
        """A graph of what ``ask`` asks of the stream; ``launch`` runs it on the current stream."""
        self.stream.begin_capture()
        try:
            ask()
        except BaseException:
            with contextlib.suppress(Exception):  # the recording is spoilt; the reason is the first error
                self.stream.end_capture()
            raise
        return self.stream.end_capture()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Within the device, on the current stream."""
        if nbytes:
            stream = cupy.cuda.get_current_stream()
            cupy.cuda.runtime.memcpyAsync(target, source, nbytes, 3, stream.ptr)  # 3: from device to device

    def clear(self, target: int, nbytes: int) -> None:
        """Fill with zeros, on the current stream."""
        cupy.cuda.runtime.memsetAsync(target, 0, nbytes, cupy.cuda.get_current_stream().ptr)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Inside, work goes to the stream of our own, after what the caller's stream was asked before.

        One thread at a time: what another asked of the stream while it is recorded would become part of the graph, and
        the handle of cuBLAS is not for two. Work is only asked for here, so nobody waits long.
        """
        with self.lock, self.device:
            callers = cupy.cuda.get_current_stream()
            self.stream.wait_event(callers.record())
            self.stream.use()  # not "with": that forgets a stream which the caller chose with use()
            try:
                yield
            except BaseException:
                callers.use()
                with contextlib.suppress(Exception):
                    callers.wait_event(self.stream.record())
                raise
            callers.use()
            callers.wait_event(self.stream.record())


class _Blas:
    """cuBLAS, through ctypes."""

    def __init__(self, pool: Any) -> None:
        self.library = _cublas()
        self.handle = ctypes.c_void_p()
        _check("cublasCreate", self.library.cublasCreate_v2(ctypes.byref(self.handle)))
        self.workspace = pool.malloc(WORKSPACE)
        self.compute = dict(FULL_PRECISION)
        if os.environ.get("PORTABLENN_TF32") == "1":
            self.compute["float32"] = TF32

    def product(self, stream: Any, call: Product, pointers: Sequence[int]) -> None:
        """Rows by rows: cuBLAS counts down columns first, so it is asked for the transposed product of the transposed."""
        library, handle = self.library, self.handle
        _check("cublasSetStream", library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)))
        workspace = ctypes.c_void_p(self.workspace.ptr)
        _check("cublasSetWorkspace", library.cublasSetWorkspace_v2(handle, workspace, ctypes.c_size_t(WORKSPACE)))
        (a, b, out), dtype = pointers, call.out.dtype
        scalar = ctypes.c_float if dtype == "float32" else ctypes.c_double
        one, zero, kind = scalar(1.0), scalar(0.0), CUDA_TYPES[dtype]
        (rows, inner), columns = call.a.shape, call.b.shape[1]
        turned_a, step_a = leading_dimension(call.a)
        turned_b, step_b = leading_dimension(call.b)
        status = library.cublasGemmEx(
            handle, int(turned_b), int(turned_a), columns, rows, inner, ctypes.byref(one),
            ctypes.c_void_p(b), kind, step_b, ctypes.c_void_p(a), kind, step_a, ctypes.byref(zero),
            ctypes.c_void_p(out), kind, columns, self.compute[dtype], -1,
        )  # fmt: skip
        _check("cublasGemmEx", status)


def _cublas() -> Any:
    """The library that CuPy itself uses."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        return ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


def _check(name: str, status: int) -> None:
    if status == ALLOCATION_FAILED:
        raise MemoryError(f"{name} of cuBLAS found no memory")
    if status != 0:
        raise RuntimeError(f"{name} of cuBLAS failed with status {status}")
