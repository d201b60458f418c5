"""A CUDA device for schedules: memory, kernels, matrix products, capture of graphs.

CuPy raises an error if cuBLAS is used while a stream is captured (cupy issue 6290), so cuBLAS is called directly, with a
separate handle and workspace.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cupy
import numpy as np

from portablenn.runtime.kernels.schedule import Product

from .branches import Branches
from .fair_lock import lock_of
from .kernels import PRELUDE, Kernel, addresses, leading_dimension

WORKSPACE = 32 << 20
"""Bytes that cuBLAS may use on each stream; NVIDIA's recommendation for Hopper."""

MODULES = 128
"""Maximum number of compiled modules that are kept for other programs with the same text."""

COMPUTE = {"float32": 68, "bfloat16": 68, "float64": 70}  # CUBLAS_COMPUTE_32F and _64F, by the dtype of the factors
TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
ALLOCATION_FAILED = 3  # CUBLAS_STATUS_ALLOC_FAILED
CUDA_TYPES = {"float32": 0, "float64": 1, "bfloat16": 14}  # CUDA_R_32F, CUDA_R_64F and CUDA_R_16BF


class Cuda:
    """One CUDA device, with a separate stream and memory pool."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.lock = lock_of(device.id)
        self.modules: dict[str, Any] = {}
        self.loops = weakref.WeakSet[Any]()
        with device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.others: list[Any] = []
            self.pool = cupy.cuda.MemoryPool()
            self.blas = _Blas(self.pool)

    def memory(self, nbytes: int) -> Any:
        """Allocate device memory, freed with the returned object; for use while `active`."""
        return self.pool.malloc(max(nbytes, 1))

    @staticmethod
    def address(memory: Any) -> int:
        """Return the address of memory or of an array."""
        return int(memory.data.ptr if isinstance(memory, cupy.ndarray) else memory.ptr)

    def add(self, loop: Any) -> None:
        """Note a loop, which keeps memory."""
        with self.lock:
            self.loops.add(loop)

    def free(self) -> None:
        """Return memory to the device: of loops that are not running, and what the pools do not use."""
        with self.lock:
            loops = list(self.loops)
        for loop in loops:
            loop.release()
        with self.lock, self.device:  # not during a capture; a pool frees memory of the current device only
            self.pool.free_all_blocks()
            cupy.get_default_memory_pool().free_all_blocks()

    def functions(self, calls: Sequence[Kernel | Product]) -> dict[str, Any]:
        """Compile the kernels together and return them by name; what was compiled is kept here by its text, by CuPy on disk."""
        kernels = {call.name: call for call in calls if isinstance(call, Kernel)}
        if not kernels:
            return {}
        code = PRELUDE + "".join(kernel.text for kernel in kernels.values())
        with self.device:
            module = self.modules.get(code) or cupy.RawModule(code=code, options=("--std=c++17", "--fmad=false"))
            functions = {name: module.get_function(name) for name in kernels}
        with self.lock:
            self.modules[code] = module
            if len(self.modules) > MODULES:
                del self.modules[next(iter(self.modules))]
        return functions

    def run(
        self,
        calls: Sequence[Kernel | Product],
        functions: dict[str, Any],
        base: Callable[[Any], int],
        branches: Branches | None = None,
    ) -> None:
        """Enqueue all calls on the current stream, in order, or in branches that begin and end there."""
        main = cupy.cuda.get_current_stream()
        if branches is None:
            for call in calls:
                self._enqueue(main, call, functions, base)
            return
        streams = [main, *self._streams(branches.count - 1)]
        awaited = {i for waits in branches.waits for i in waits}
        start = main.record()
        events: dict[int, Any] = {}
        for stream in streams[1:]:
            stream.wait_event(start)
        try:
            for i, (call, number, waits) in enumerate(zip(calls, branches.streams, branches.waits, strict=True)):
                stream = streams[number]
                for j in waits:
                    stream.wait_event(events[j])
                stream.use()  # not "with": that forgets the main one, see `active`
                self._enqueue(stream, call, functions, base)
                if i in awaited:
                    events[i] = stream.record()
        finally:
            main.use()
            for stream in streams[1:]:  # also after an error, so that no memory is used again too early
                with contextlib.suppress(Exception):
                    main.wait_event(stream.record())

    def _enqueue(self, stream: Any, call: Kernel | Product, functions: dict[str, Any], base: Any) -> None:
        if isinstance(call, Product):
            self.blas.product(stream, call, addresses((call.a, call.b, call.out), base))
        else:
            pointers = [np.uint64(a) for a in addresses(call.arguments, base)]
            functions[call.name]((*call.grid, 1), (*call.block, 1), (*pointers, *call.numbers))

    def _streams(self, count: int) -> list[Any]:
        """Return streams besides the first."""
        while len(self.others) < count:
            self.others.append(cupy.cuda.Stream(non_blocking=True))
        return self.others[:count]

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """Return a graph of the work that ``enqueue`` enqueues; its ``launch`` runs it on the current stream."""
        self.stream.begin_capture()
        try:
            enqueue()
        except BaseException:
            with contextlib.suppress(Exception):  # the capture is invalid; the first error is the reason
                self.stream.end_capture()
            raise
        return self.stream.end_capture()

    def wait(self) -> None:
        """Wait until this device's stream has done its work."""
        self.stream.synchronize()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy within the device, on the current stream."""
        if nbytes:
            stream = cupy.cuda.get_current_stream()
            cupy.cuda.runtime.memcpyAsync(target, source, nbytes, 3, stream.ptr)  # 3: from device to device

    def clear(self, target: int, nbytes: int) -> None:
        """Fill with zeros, on the current stream."""
        cupy.cuda.runtime.memsetAsync(target, 0, nbytes, cupy.cuda.get_current_stream().ptr)

    @contextlib.contextmanager
    def active(self, begins: bool = True, ends: bool = True) -> Iterator[None]:
        """Make this device's stream the current one, ordered after and before the work of the caller's stream.

        Of work in several turns, the one that ``begins`` waits for the caller's stream, which waits for the one that ``ends``.

        One thread at a time: work that another thread enqueued during a capture would become part of the graph, and the
        cuBLAS handle is not thread-safe. Work is only enqueued here, and many steps in several turns, so no thread waits long
        for another; on the device its work follows what was enqueued before it.
        """
        with self.lock, self.device:
            callers = cupy.cuda.get_current_stream()
            if begins:
                if callers.is_capturing():  # a graph of the caller's would use memory that is freed here
                    raise RuntimeError("the caller's stream is being captured")
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
            if ends:
                callers.wait_event(self.stream.record())


class _Blas:
    """cuBLAS, through ctypes."""

    def __init__(self, pool: Any) -> None:
        self.library = _cublas()
        self.handle = ctypes.c_void_p()
        _check("cublasCreate", self.library.cublasCreate_v2(ctypes.byref(self.handle)))
        self.pool = pool
        self.workspaces: dict[int, Any] = {}

    def product(self, stream: Any, call: Product, pointers: Sequence[int]) -> None:
        """Enqueue products of row-major matrices; cuBLAS is column-major, so it computes the transposed ones."""
        library, handle = self.library, self.handle
        _check("cublasSetStream", library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)))
        if stream.ptr not in self.workspaces:  # products of several streams run at the same time
            self.workspaces[stream.ptr] = self.pool.malloc(WORKSPACE)
        workspace = ctypes.c_void_p(self.workspaces[stream.ptr].ptr)
        _check("cublasSetWorkspace", library.cublasSetWorkspace_v2(handle, workspace, ctypes.c_size_t(WORKSPACE)))
        (a, b, out), dtype = pointers, call.a.dtype
        scalar = ctypes.c_double if dtype == "float64" else ctypes.c_float
        one, zero, kind = scalar(1.0), scalar(0.0), CUDA_TYPES[dtype]
        rows, inner, columns = call.sizes
        over_a, over_b, over_out = (
            ctypes.c_longlong(x.strides[0] if call.stacked > 1 else 0) for x in (call.a, call.b, call.out)
        )
        transposed_a, ld_a = leading_dimension(call.a)
        transposed_b, ld_b = leading_dimension(call.b)
        compute, kind_out = TF32 if call.precision == "tf32" else COMPUTE[dtype], CUDA_TYPES[call.out.dtype]
        turned = int(transposed_b), int(transposed_a)
        pointer_a, pointer_b, pointer_out = map(ctypes.c_void_p, (a, b, out))
        if call.stacked == 1:
            name, status = "cublasGemmEx", library.cublasGemmEx(
                handle, *turned, columns, rows, inner, ctypes.byref(one), pointer_b, kind, ld_b, pointer_a, kind, ld_a,
                ctypes.byref(zero), pointer_out, kind_out, columns, compute, -1,
            )  # fmt: skip
        else:
            name, status = "cublasGemmStridedBatchedEx", library.cublasGemmStridedBatchedEx(
                handle, *turned, columns, rows, inner, ctypes.byref(one), pointer_b, kind, ld_b, over_b, pointer_a, kind, ld_a,
                over_a, ctypes.byref(zero), pointer_out, kind_out, columns, over_out, call.stacked, compute, -1,
            )  # fmt: skip
        _check(name, status)


def _cublas() -> Any:
    """Load the cuBLAS that CuPy uses."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        return ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


def _check(name: str, status: int) -> None:
    if status == ALLOCATION_FAILED:
        raise MemoryError(f"cuBLAS: out of memory in {name}")
    if status != 0:
        raise RuntimeError(f"cuBLAS: {name} failed with status {status}")
