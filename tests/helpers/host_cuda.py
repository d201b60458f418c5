"""A stand-in for a CUDA device: kernels compiled as C++ for the host, one worker each, and a stream that can be captured.

During a capture it raises where CuPy does: for memory, copies from and to the host, waiting.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from portablenn_cupy import CupyBackend
from portablenn_cupy.fair_lock import FairLock
from portablenn_cupy.kernels import FUNCTIONS, PRELUDE, Kernel, addresses, leading_dimension

import portablenn as pnn
from portablenn.program.interpret import rounded
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Product

COMPILER = shutil.which("g++") or shutil.which("c++")

ON_THE_HOST = (
    """#include <cmath>
using namespace std;
#define METHOD inline
#define WORKER static METHOD
#define __global__
#define __device__
#define __launch_bounds__(threads)
static inline void __syncthreads() {}
typedef long long index_t;
static int the_part = 0;
extern "C" void set_part(int p) { the_part = p; }
WORKER index_t first_element() { return 0; }
WORKER index_t element_step() { return 1; }
WORKER index_t first_column() { return 0; }
WORKER index_t column_step() { return 1; }
WORKER index_t first_row() { return 0; }
WORKER index_t row_step() { return 1; }
WORKER int lane() { return 0; }
WORKER int lanes() { return 1; }
WORKER int band() { return 0; }
WORKER int bands() { return 1; }
WORKER int part() { return the_part; }
WORKER bool is_first() { return true; }
template <class F, class T> WORKER T over_lanes(F, T x) { return x; }
template <class F, class T> WORKER T over_bands(F, T x) { return x; }
"""
    + FUNCTIONS
)
"""The functions of `PRELUDE` for one worker."""


class Memory:
    """Some bytes that hold nonsense until they are written."""

    def __init__(self, nbytes: int) -> None:
        memory = np.full(max(nbytes, 1) + 128, 0xCD, dtype=np.uint8)
        self.bytes = memory[-memory.__array_interface__["data"][0] % 64 :]  # aligned, as CUDA's is


class HostCuda:
    """Does what `portablenn_cupy.device.Cuda` does."""

    def __init__(self) -> None:
        self.captured: list[Callable[[], None]] | None = None
        self.launches = 0
        self.lock = FairLock()
        self.broken = ""

    def memory(self, nbytes: int) -> Memory:
        self.forbid("memory")
        return Memory(nbytes)

    def forbid(self, what: str) -> None:
        if self.captured is not None:
            raise NotImplementedError(f"{what} is not possible while a stream is captured")

    @staticmethod
    def address(memory: Any) -> int:
        array = memory.bytes if isinstance(memory, Memory) else memory
        return int(array.__array_interface__["data"][0])

    def add(self, loop: Any) -> None:
        pass

    def free(self) -> None:
        pass

    def functions(self, calls: Sequence[Kernel | Product]) -> dict[str, Any]:
        self.forbid("compiling")
        kernels = by_name(calls)
        library = compiled("".join(kernel.text for kernel in kernels.values()))
        return {name: (library, getattr(library, name)) for name in kernels}

    def run(
        self,
        calls: Sequence[Kernel | Product],
        functions: dict[str, Any],
        base: Callable[[Storage], int],
        branches: Any = None,
    ) -> None:
        for call in calls if branches is None else late_streams_first(calls, branches):
            if isinstance(call, Product):
                self._do(functools.partial(multiply, call, addresses(call.buffers, base)))
            else:
                self._do(self._work(functions[call.name], call, addresses(call.arguments, base)))

    def _work(self, function: Any, call: Kernel, pointers: Sequence[int]) -> Callable[[], None]:
        return functools.partial(launch, *function, call.grid[1], pointers, call.numbers)

    def _do(self, work: Callable[[], None]) -> None:
        if self.captured is None:
            work()
            self.launches += 1
        else:
            self.captured.append(work)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        if self.broken:
            raise NotImplementedError(self.broken)
        self.captured = []
        try:
            enqueue()
            work = self.captured
        finally:
            self.captured = None
        return Graph(work)

    def wait(self) -> None:
        self.forbid("waiting")

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.forbid("a copy outside a kernel")
        ctypes.memmove(target, source, nbytes)

    def clear(self, target: int, nbytes: int) -> None:
        self.forbid("clearing")
        ctypes.memset(target, 0, nbytes)

    @contextlib.contextmanager
    def active(self, begins: bool = True, ends: bool = True) -> Iterator[None]:
        self.forbid("waiting")
        with self.lock:
            yield


def late_streams_first(calls: Sequence[Kernel | Product], branches: Any) -> Iterator[Kernel | Product]:
    """The calls in an order that the streams allow, and that is as far from theirs as possible."""
    waiting = [[i for i, s in enumerate(branches.streams) if s == stream] for stream in range(branches.count)]
    done: set[int] = set()
    while any(waiting):
        for queue in reversed(waiting):
            if queue and done.issuperset(branches.waits[queue[0]]):
                done.add(queue[0])
                yield calls[queue.pop(0)]
                break
        else:
            raise AssertionError("the streams wait for each other")


class Graph:
    """Captured work."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def launch(self) -> None:
        for one in self.work:
            one()


def by_name(calls: Sequence[Kernel | Product]) -> dict[str, Kernel]:
    return {call.name: call for call in calls if isinstance(call, Kernel)}


def launch(library: Any, function: Any, parts: int, pointers: Sequence[int], numbers: Sequence[Any]) -> None:
    given = [np.ctypeslib.as_ctypes_type(n.dtype)(n.item()) for n in numbers]
    for part in range(parts):
        library.set_part(part)
        function(*map(ctypes.c_void_p, pointers), *given)


def multiply(call: Product, pointers: Sequence[int]) -> None:
    """As cuBLAS is asked to, from pointers and distances of lines."""
    a, b = (lines(buffer, pointer) for buffer, pointer in zip((call.a, call.b), pointers, strict=False))
    if call.a.dtype == "bfloat16":
        a, b = ((x.astype(np.uint32) << 16).view(np.float32) for x in (a, b))
    if call.precision == "tf32":
        a, b = (rounded(np, x, "tf32") for x in (a, b))
    memory(call.out, pointers[2])[...] = a @ b


def numpy_dtype(buffer: Buffer) -> np.dtype[Any]:
    """NumPy has no bfloat16."""
    return np.dtype("uint16" if buffer.dtype == "bfloat16" else buffer.dtype)


def lines(buffer: Buffer, pointer: int) -> np.ndarray:
    turned, step = leading_dimension(buffer)
    itemsize = numpy_dtype(buffer).itemsize
    strides = (itemsize, step * itemsize) if turned else (step * itemsize, itemsize)
    over = tuple(stride * itemsize for stride in buffer.strides[:-2])
    return np.lib.stride_tricks.as_strided(memory(buffer, pointer, flat=True), buffer.shape, (*over, *strides))


def memory(buffer: Buffer, pointer: int, flat: bool = False) -> np.ndarray:
    count = int(np.prod(buffer.shape)) if not flat else 1
    raw = (ctypes.c_char * (count * numpy_dtype(buffer).itemsize)).from_address(pointer)
    array = np.frombuffer(raw, dtype=numpy_dtype(buffer))
    return array if flat else array.reshape(buffer.shape)


@functools.cache
def compiled(text: str, prelude: str = ON_THE_HOST, *options: str) -> Any:
    """The kernels as a library of the host."""
    folder = Path(tempfile.gettempdir()) / "portablenn-host-kernels"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256((prelude + text).encode()).hexdigest()[:24]
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source = Path(work) / "kernels.cpp"
            source.write_text(prelude + text)
            built = Path(work) / "kernels.so"
            # -ffp-contract=off: rounded operation by operation, as the oracle is; a GPU contracts to fused multiply-add
            command = [COMPILER, "-shared", "-fPIC", "-O0", "-std=c++17", "-ffp-contract=off", "-Wall", "-Werror",
                       "-Wno-unused", "-Wno-maybe-uninitialized", "-Wno-tautological-compare", "-Wno-overflow", *options, str(source), "-o", str(built)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)  # type: ignore[arg-type]
            assert done.returncode == 0, done.stderr[:3000]
            built.replace(library)
    return ctypes.CDLL(str(library))


WORKERS = """#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
using namespace std;
struct Three { int x = 0, y = 0, z = 0; };
static thread_local Three threadIdx, blockIdx;
static Three blockDim, gridDim;
static unique_ptr<barrier<>> the_block;
static vector<unique_ptr<barrier<>>> warps;
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static
static void __syncthreads() { the_block->arrive_and_wait(); }
template <class T> static T __shfl_xor_sync(unsigned, T x, int d) {
    static T lanes[1024];
    const int me = threadIdx.y * blockDim.x + threadIdx.x;
    lanes[me] = x;
    warps[me / 32]->arrive_and_wait();
    const T theirs = lanes[me ^ d];
    warps[me / 32]->arrive_and_wait();
    return theirs;
}
template <class A> static A argument(void* p) {
    if constexpr (is_pointer_v<A>) return (A)p;
    A number;
    memcpy(&number, &p, sizeof number);
    return number;
}
template <class... A, size_t... I> static void called(void (*f)(A...), void** p, index_sequence<I...>) { f(argument<A>(p[I])...); }
template <class... A> static void grid(void (*f)(A...), void** p, int gx, int gy, int bx, int by) {
    gridDim = {gx, gy, 1}; blockDim = {bx, by, 1};
    for (int y = 0; y < gy; ++y) for (int x = 0; x < gx; ++x) {
        the_block = make_unique<barrier<>>(bx * by);
        warps.clear();
        for (int i = 0; i < bx * by; i += 32) warps.push_back(make_unique<barrier<>>(min(32, bx * by - i)));
        vector<thread> workers;
        for (int j = 0; j < by; ++j) for (int i = 0; i < bx; ++i) workers.emplace_back([=] {
            threadIdx = {i, j, 0}; blockIdx = {x, y, 0};
            called(f, p, index_sequence_for<A...>());
        });
        for (auto& worker : workers) worker.join();
    }
}
"""
"""What the device's own prelude asks of CUDA, with a thread of the host for each worker of a block."""


class ManyWorkers(HostCuda):
    """Runs the text that a GPU runs, prelude and all: each block with all its workers, one block after the other."""

    def functions(self, calls: Sequence[Kernel | Product]) -> dict[str, Any]:
        kernels = by_name(calls)
        text = "".join(
            f'{kernel.text}extern "C" void run_{name}(void** p, int gx, int gy, int bx, int by) '
            f"{{ grid({name}, p, gx, gy, bx, by); }}\n"
            for name, kernel in kernels.items()
        )
        library = compiled(text, WORKERS + PRELUDE, "-std=c++20", "-pthread")
        return {name: getattr(library, f"run_{name}") for name in kernels}

    def _work(self, function: Any, call: Kernel, pointers: Sequence[int]) -> Callable[[], None]:
        numbers = [ctypes.c_void_p(int.from_bytes(n.tobytes(), "little")) for n in call.numbers]
        given = (ctypes.c_void_p * (len(pointers) + len(numbers)))(*pointers, *numbers)
        return functools.partial(function, given, *call.grid, *call.block)


class HostCupy(CupyBackend):
    """The CuPy plug-in with NumPy's arrays and the stand-in's device."""

    def __init__(self, cuda: HostCuda | None = None) -> None:
        self.name, self.xp, self.device = "host_cupy", pnn.get_backend("numpy").xp, "cpu"
        self.cuda = self._cuda = cuda or HostCuda()

    @property
    def device_name(self) -> str:
        return "cpu"

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        return pnn.get_backend("numpy").asarray(x, dtype)

    def receive(self, array: Any) -> Callable[[], np.ndarray]:
        return pnn.Backend.receive(self, array)

    def memory(self) -> None:
        return None

    def _make(self, type: Any) -> np.ndarray:
        self.cuda.forbid("memory")
        return np.empty(type.shape, dtype=type.dtype)

    def _as_input(self, array: Any, packed: bool) -> np.ndarray:
        self.cuda.forbid("a copy from the host")
        return np.ascontiguousarray(array).reshape(np.shape(array))

    def context(self) -> Any:
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        self.cuda.forbid("waiting")
