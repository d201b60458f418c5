"""A stand-in for CuPy without a GPU: NumPy's functions on memory that only "the device" may touch, and CUDA's rules.

Work is executed when it is enqueued, but what a GPU is free to reorder is checked: each access to memory has to be ordered after
the accesses that it conflicts with, by its stream, by events or by waiting (vector clocks, as race detectors of threads have).
A captured graph is executed in the order that is farthest from the one of the capture. References are to CuPy 14.2.0.

`install` registers it under the names that the plug-in imports. Kernels are compiled as C++ for the host. Kernels access memory
from where their pointers point to, which is all that is known of them.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import functools
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

LEGACY = 0
"""The handle of the default stream."""

UNIT = 512
"""Bytes that allocations are rounded up to (cupy/cuda/memory.pyx:40)."""

TEXTS = {
    "cudaErrorInvalidValue": (1, "invalid argument"),
    "cudaErrorMemoryAllocation": (2, "out of memory"),
    "cudaErrorIllegalAddress": (700, "an illegal memory access was encountered"),
    "cudaErrorStreamCaptureUnsupported": (900, "operation not permitted when stream is capturing"),
    "cudaErrorStreamCaptureInvalidated": (901, "operation failed due to a previous error during capture"),
    "cudaErrorStreamCaptureUnjoined": (904, "capturing stream has unjoined work"),
    "cudaErrorStreamCaptureIsolation": (905, "dependency created on uncaptured work in another stream"),
}


class CUDARuntimeError(RuntimeError):
    """As cupy_backends/cuda/api/runtime.pyx raises it."""

    def __init__(self, name: str) -> None:
        self.status, text = TEXTS[name]
        super().__init__(f"{name}: {text}")


class CUDADriverError(RuntimeError):
    """As cupy_backends/cuda/api/driver.pyx raises it."""


class OutOfMemoryError(MemoryError):
    """As cupy/cuda/memory.pyx:55 raises it."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class RaceError(AssertionError):
    """Two accesses to the same memory that a GPU may execute in either order."""


class Gpu:
    """What the process shares: memory, the work that is done, and what goes wrong."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.limit = int(os.environ.get("FAKE_CUPY_BYTES", 1 << 36))
        self.allocated = 0
        self.starts: list[int] = []
        self.blocks: dict[int, Block] = {}
        self.done: dict[int, int] = {}
        self.streams: dict[int, Stream] = {}
        self.capturing: list[Capture] = []
        self.launches = 0
        self.pool = MemoryPool()
        self.fault: BaseException | None = None
        self.faults: list[tuple[int, str]] = []
        self.on_launch: Callable[[], None] | None = None  # called before a graph is launched
        for fault in filter(None, os.environ.get("FAKE_CUPY_FAULTS", "").split()):
            part, _, kind = fault.partition("=")  # "smoke=hang kernels=crash:50": the part, and at which launch
            kind, _, launch = kind.partition(":")
            if part == os.environ.get("ON_GPU_PART"):
                self.faults.append((int(launch or 20), kind))

    def block(self, address: int) -> Block | None:
        """The block of memory that an address points into."""
        i = bisect.bisect_right(self.starts, address) - 1
        block = self.blocks[self.starts[i]] if i >= 0 else None
        return block if block is not None and address < block.start + block.nbytes else None

    def launched(self) -> None:
        """Count a launch, and fail as is planned."""
        self.raise_fault()
        self.launches += 1
        for launch, kind in self.faults:
            if launch == self.launches:
                self.fail(kind)

    def fail(self, kind: str) -> None:
        if kind in ("hang", "orphan"):  # in the driver, where Python handles no signal
            if kind == "orphan":  # and a child has the part's output open, and outlives it
                subprocess.Popen(["sleep", "60"], start_new_session=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            time.sleep(100_000)
        elif kind == "crash":
            ctypes.string_at(0)
        elif kind == "memory":
            self.limit = self.allocated
        else:
            self.fault = CUDARuntimeError(kind)

    def raise_fault(self) -> None:
        """Raise what a kernel did earlier: CUDA reports it at a later call, and at every one from then on."""
        if self.fault is not None:
            raise self.fault


class Block:
    """A piece of device memory, and who accessed it last."""

    def __init__(self, nbytes: int) -> None:
        memory = np.full(nbytes + UNIT, 0xCD, dtype=np.uint8)  # nonsense until it is written
        self.bytes = memory[-memory.__array_interface__["data"][0] % UNIT :][:nbytes]
        self.start, self.nbytes = int(self.bytes.__array_interface__["data"][0]), nbytes
        self.accesses: list[Access] = []
        self.used = True


Access = tuple[int, int, bool, tuple[int, int]]
"""Start and end address, whether it writes, and the stream with the number of the work on it."""

Range = tuple[int, int, bool]


def check_order(records: list[Access], one: Range, stamp: tuple[int, int], clocks: Sequence[dict[int, int]]) -> None:
    """Note an access; raise if one that it conflicts with is not ordered before it."""
    start, end, writes = one
    kept = []
    for record in records:
        other_start, other_end, other_writes, (stream, number) = record
        conflict = other_start < end and start < other_end and (writes or other_writes)
        if conflict and not any(number <= clock.get(stream, 0) for clock in clocks):
            kinds = ["writes" if w else "reads" for w in (writes, other_writes)]
            raise RaceError(
                f"work {stamp[1]} on stream {stamp[0]} {kinds[0]} memory that work {number} on stream {stream} "
                f"{kinds[1]}, which it does not wait for"
            )
        within = start <= other_start and other_end <= end
        if not (within and (writes or (not other_writes and stream == stamp[0]))):
            kept.append(record)
    records[:] = [*kept, (*one, stamp)]


# Streams, events, capture


class Work:
    """A piece of work: what it executes, and the memory that it accesses."""

    def __init__(self, run: Callable[[], None], ranges: Iterable[Range]) -> None:
        self.run, self.ranges = run, list(ranges)
        self.stamp = (0, 0)
        self.clock: dict[int, int] = {}


class Capture:
    """A graph that is being captured."""

    def __init__(self, origin: Stream, mode: int) -> None:
        self.origin, self.mode, self.thread = origin, mode, threading.get_ident()
        self.work: list[Work] = []
        self.accesses: dict[int, list[Access]] = {}
        self.streams: set[Stream] = {origin}
        self.invalid = False

    def invalidate(self, name: str) -> CUDARuntimeError:
        self.invalid = True
        return CUDARuntimeError(name)


class Event:
    """As cupy/cuda/stream.pyx has it: what the stream had been given to do when it was recorded."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.clock: dict[int, int] = {}
        self.capture: Capture | None = None
        self.time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current()
        with gpu.lock:
            self.clock, self.capture, self.time = dict(stream.clock), stream.capture, time.perf_counter()

    def synchronize(self) -> None:
        wait_for(self)

    @property
    def done(self) -> bool:
        return True


def merge(clock: dict[int, int], other: dict[int, int]) -> None:
    for stream, number in other.items():
        clock[stream] = max(clock.get(stream, 0), number)


class Stream:
    """As cupy/cuda/stream.pyx has it."""

    null: Stream
    _handles = itertools.count(16, 16)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = LEGACY if null else next(Stream._handles)
        self.device_id = -1 if null else 0
        self.blocking = not non_blocking
        self.clock: dict[int, int] = {}
        self.capture: Capture | None = None
        self.host_copies: list[tuple[int, Callable[[], None]]] = []
        gpu.streams[self.ptr] = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def use(self) -> Stream:
        local().current = self
        return self

    def __enter__(self) -> Stream:
        local().stack.append(self)
        return self.use()

    def __exit__(self, *_: Any) -> None:
        """Return to the stream of the block around it, not to one chosen by `use` (stream.pyx:47-53)."""
        local().stack.pop()
        local().current = local().stack[-1]

    def enqueue(self, run: Callable[[], None], ranges: Iterable[Range] = ()) -> None:
        """Execute work in the order of this stream, or capture it."""
        with gpu.lock:
            work = Work(run, ranges)
            if self.blocking and self.capture is None:  # the default stream waits for blocking ones, and they for it
                for other in list(gpu.streams.values()):
                    if other.blocking and (self.ptr == LEGACY or other.ptr == LEGACY):
                        if other.capture is not None:
                            raise other.capture.invalidate("cudaErrorStreamCaptureUnsupported")
                        merge(self.clock, other.clock)
            number = self.clock[self.ptr] = self.clock.get(self.ptr, 0) + 1
            work.stamp, work.clock = (self.ptr, number), dict(self.clock)
            for one in work.ranges:
                block = accessible(one)
                if self.capture is None:
                    check_order(block.accesses, one, work.stamp, (self.clock, gpu.done))
                else:
                    records = self.capture.accesses.setdefault(block.start, [])
                    check_order(records, one, work.stamp, (self.clock,))
            if self.capture is not None:
                if self.capture.invalid:
                    raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
                self.capture.work.append(work)
                return
        run()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        with gpu.lock:
            if event.capture is not None and event.capture in gpu.capturing:
                if self.capture is None:  # it takes part in the capture from now on
                    self.capture, self.kept = event.capture, self.clock
                    self.clock = {}
                    event.capture.streams.add(self)
                merge(self.clock, event.clock)
            elif self.capture is not None:
                raise self.capture.invalidate("cudaErrorStreamCaptureIsolation")
            else:
                merge(self.clock, event.clock)

    def synchronize(self) -> None:
        wait_for(self)

    def is_capturing(self) -> bool:
        return self.capture is not None

    def begin_capture(self, mode: int | None = None) -> None:
        """Relaxed by default, so that memory can be allocated (stream.pyx:395-404)."""
        if self.ptr == LEGACY:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        with gpu.lock:
            if self.capture is not None:
                raise self.capture.invalidate("cudaErrorStreamCaptureUnsupported")
            self.capture = Capture(self, runtime.streamCaptureModeRelaxed if mode is None else mode)
            self.kept, self.clock = self.clock, {}
            gpu.capturing.append(self.capture)

    def end_capture(self) -> Graph:
        with gpu.lock:
            capture = self.capture
            if capture is None or capture.origin is not self:
                raise CUDARuntimeError("cudaErrorInvalidValue")
            joined = self.clock
            gpu.capturing.remove(capture)
            for stream in capture.streams:
                stream.capture, stream.clock = None, stream.kept
            if capture.invalid:
                raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
            if any(work.stamp[1] > joined.get(work.stamp[0], 0) for work in capture.work):
                raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined")
            return Graph(capture.work)


def wait_for(work: Event | Stream) -> None:
    """Wait as the host does for what an event or a stream stands for."""
    with gpu.lock:
        if work.capture is not None:
            raise work.capture.invalidate("cudaErrorStreamCaptureUnsupported")
        gpu.raise_fault()
        merge(gpu.done, work.clock)
        finish_host_copies()


def finish_host_copies() -> None:
    """Let copies to the host arrive that are done."""
    for stream in list(gpu.streams.values()):
        done = gpu.done.get(stream.ptr, 0)
        for number, copy in list(stream.host_copies):
            if number <= done:
                copy()
                stream.host_copies.remove((number, copy))


def forbid(what: str) -> None:
    """Raise where a call is unsafe during a capture: by the mode, of this thread or of any (CUDA's stream capture modes)."""
    for capture in gpu.capturing:
        ours = capture.thread == threading.get_ident()
        if capture.mode == runtime.streamCaptureModeGlobal or (
            capture.mode == runtime.streamCaptureModeThreadLocal and ours
        ):
            raise capture.invalidate("cudaErrorStreamCaptureUnsupported")


class Graph:
    """A captured graph: one piece of work on the stream on which it is launched."""

    def __init__(self, work: list[Work]) -> None:
        self.order = late_first(work)
        extents: dict[int, list[int]] = {}
        for start, end, writes in itertools.chain.from_iterable(one.ranges for one in work):
            block = accessible((start, end, writes))
            known = extents.setdefault(block.start, [start, end, 0])
            extents[block.start] = [min(known[0], start), max(known[1], end), known[2] | writes]
        self.ranges = [(start, end, bool(writes)) for start, end, writes in extents.values()]

    def launch(self, stream: Stream | None = None) -> None:
        """Launch it; its memory may have been freed and allocated again since the capture, but has to be allocated."""
        if gpu.on_launch is not None:
            gpu.on_launch()
        with gpu.lock:
            gpu.launched()
        (stream or current()).enqueue(self._run, self.ranges)

    def _run(self) -> None:
        for work in self.order:
            work.run()


def late_first(work: Sequence[Work]) -> list[Work]:
    """Work in the order that is as far from the given one as the graph allows."""
    before = [
        {j for j, other in enumerate(work) if j != i and other.stamp[1] <= one.clock.get(other.stamp[0], 0)}
        for i, one in enumerate(work)
    ]
    left, done, order = set(range(len(work))), set[int](), []
    while left:
        one = max(i for i in left if before[i] <= done)
        left.remove(one)
        done.add(one)
        order.append(work[one])
    return order


class Local(threading.local):
    """Each thread has its own current stream."""

    def __init__(self) -> None:
        self.current = Stream.null
        self.stack = [Stream.null]


def local() -> Local:
    return _local


def current(device_id: int = -1) -> Stream:
    return _local.current


# Memory


def accessible(one: Range) -> Block:
    """The block of a range; the error of a kernel that accesses memory which is not there, or not any more."""
    block = gpu.block(one[0])
    if block is None or not block.used or one[1] > block.start + block.nbytes:
        gpu.fault = CUDARuntimeError("cudaErrorIllegalAddress")
        raise RaceError(
            f"memory at {one[0]:#x} is not allocated" if block is None or block.used else "memory was freed"
        )
    return block


class PooledMemory:
    """Memory that returns to the stream's part of the pool from which it came (memory.pyx:1388-1398)."""

    def __init__(self, pool: MemoryPool, stream: int, block: Block) -> None:
        self.pool, self.stream, self.block = pool, stream, block

    def __del__(self) -> None:
        self.block.used = False
        self.pool.free.setdefault(self.stream, []).append(self.block)


class MemoryPointer:
    def __init__(self, memory: PooledMemory | None) -> None:
        self.mem = memory
        self.ptr = 0 if memory is None else memory.block.start


class MemoryPool:
    """As SingleDeviceMemoryPool: free memory is kept by the stream that was the current one when it was allocated, and is
    used again on this stream only, without waiting (memory.pyx:1352-1386). Blocks are not split."""

    def __init__(self) -> None:
        self.free: dict[int, list[Block]] = {}
        self.total = 0
        self.limit = 0  # of the total; 0 for none

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def malloc(self, nbytes: int) -> MemoryPointer:
        size = -(-nbytes // UNIT) * UNIT
        if size == 0:
            return MemoryPointer(None)  # its address is 0 (memory.pyx:1358)
        with gpu.lock:
            stream = current().ptr
            free = self.free.setdefault(stream, [])
            block = next((b for b in free if b.nbytes == size), None)
            if block is not None:
                free.remove(block)
                block.used = True
            else:
                block = self._new(size)
            return MemoryPointer(PooledMemory(self, stream, block))

    def _new(self, size: int) -> Block:
        """As _try_malloc: what is free is given back if the device has too little (memory.pyx:1518-1563)."""
        forbid("cudaMalloc")
        if self._exceeded_by(size):
            gc.collect()
            self.free_all_blocks()
        if self._exceeded_by(size):
            raise OutOfMemoryError(size, self.total)
        block = Block(size)
        gpu.allocated += size
        self.total += size
        bisect.insort(gpu.starts, block.start)
        gpu.blocks[block.start] = block
        return block

    def _exceeded_by(self, size: int) -> bool:
        return gpu.allocated + size > gpu.limit or 0 < self.limit < self.total + size

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        with gpu.lock:
            for blocks in self.free.values():
                for block in blocks:
                    forbid("cudaFree")
                    gpu.starts.remove(block.start)
                    del gpu.blocks[block.start]
                    gpu.allocated -= block.nbytes
                    self.total -= block.nbytes
                blocks.clear()

    def free_bytes(self) -> int:
        return sum(block.nbytes for blocks in self.free.values() for block in blocks)

    def total_bytes(self) -> int:
        return self.total

    def used_bytes(self) -> int:
        return self.total - self.free_bytes()


# Arrays


def extent(array: np.ndarray, writes: bool) -> list[Range]:
    if array.size == 0:
        return []
    start = end = int(array.__array_interface__["data"][0])
    for length, stride in zip(array.shape, array.strides, strict=True):
        start += min(0, (length - 1) * stride)
        end += max(0, (length - 1) * stride)
    return [(start, end + array.itemsize, writes)]


class ndarray:  # noqa: N801
    """NumPy's arrays in device memory: what would read them on the host raises, as in CuPy, unless it is asked for."""

    __array_priority__ = 100
    _host: np.ndarray
    data: MemoryPointer

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        dtype = np.dtype(dtype)
        shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
        self.memory = gpu.pool.malloc(int(np.prod(shape)) * dtype.itemsize)
        block = None if self.memory.mem is None else self.memory.mem.block
        buffer = np.empty(0, np.uint8) if block is None else block.bytes
        self._place(np.ndarray(shape, dtype, buffer) if block is not None else np.empty(shape, dtype))

    def _place(self, host: np.ndarray) -> None:
        self._host = host
        self.data = MemoryPointer(self.memory.mem)
        self.data.ptr = int(host.__array_interface__["data"][0]) if host.size else 0

    @classmethod
    def _view(cls, host: np.ndarray, memory: MemoryPointer) -> ndarray:
        array = cls.__new__(cls)
        array.memory = memory
        array._place(host)
        return array

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(0))
    T = property(lambda self: apply(lambda a: a.T, (self,)))
    mT = property(lambda self: apply(lambda a: a.mT, (self,)))  # noqa: N815
    real = property(lambda self: apply(lambda a: a.real, (self,)))
    imag = property(lambda self: apply(lambda a: a.imag, (self,)))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def get(self, stream: Stream | None = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """Copy to the host; without ``blocking`` it arrives later."""
        stream = stream or current()
        if stream.capture is not None:
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        gpu.raise_fault()
        found: list[np.ndarray] = []
        stream.enqueue(lambda: found.append(self._host.copy(order="C")), extent(self._host, False))
        if blocking:
            stream.synchronize()
            if out is None:
                return found[0]
            out[...] = found[0]
            return np.asarray(out)
        out = np.empty_like(found[0]) if out is None else out
        out.reshape(-1).view(np.uint8)[...] = 0xCD
        stream.host_copies.append((stream.clock[stream.ptr], lambda: out.__setitem__(..., found[0])))
        return np.asarray(out)

    def copy(self, order: str = "C") -> ndarray:
        return apply(lambda a: np.array(a, order="C", copy=True), (self,))

    def __getitem__(self, key: Any) -> ndarray:
        def item(a: np.ndarray, key: Any) -> np.ndarray:
            found = a[key]
            whole = key if isinstance(key, tuple) else (key,)
            return a[(*whole, ...)] if isinstance(found, np.generic) and Ellipsis not in map(id_or, whole) else found

        return apply(item, (self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        apply(lambda a, key, value: a.__setitem__(key, value), (self, key, value), changes=self)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return int(self.get().__index__())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def item(self, *where: Any) -> Any:
        return self.get().item(*where)

    def tolist(self) -> Any:
        return self.get().tolist()

    def __repr__(self) -> str:
        return repr(self.get())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __reduce__(self) -> Any:
        return array, (self.get(),)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("the stand-in has no memory of a GPU to export")


def id_or(key: Any) -> Any:
    return key if key is Ellipsis else id(key)


def unwrapped(value: Any, found: list[ndarray]) -> Any:
    if isinstance(value, ndarray):
        found.append(value)
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (list, tuple):
        return type(value)(unwrapped(v, found) for v in value)
    return value


def apply(function: Callable[..., Any], args: Any, kwargs: Any = None, changes: ndarray | None = None) -> Any:
    """Execute a function of NumPy on the device, on the current stream."""
    found: list[ndarray] = []
    args = [unwrapped(a, found) for a in args]
    kwargs = {name: unwrapped(a, found) for name, a in (kwargs or {}).items()}
    stream = current()
    results: list[Any] = []

    def run() -> None:
        with np.errstate(all="ignore"):
            results.append(function(*args, **kwargs))

    if changes is None:
        run()
        wrapped, viewed = wrap(results[0], found, stream)
        if viewed:
            return wrapped
    if stream.capture is not None:  # CuPy captures its own kernels; the plug-in has none, so here they are errors
        raise RuntimeError("the stand-in does not capture CuPy's own functions")
    gpu.launched() if found else gpu.raise_fault()
    out = kwargs.get("out")
    written = [a for a in found if a is changes or a._host is out]
    ranges = [r for a in found for r in extent(a._host, any(a is w for w in written))]
    stream.enqueue(run if changes is not None else lambda: None, ranges)
    return written[0] if written else wrapped


def wrap(result: Any, found: list[ndarray], stream: Stream) -> tuple[Any, bool]:
    """The result as arrays of the device, and whether they are views."""
    if isinstance(result, (tuple, list)) and any(isinstance(r, (np.ndarray, np.generic)) for r in result):
        parts = [wrap(r, found, stream) for r in result]
        values = [value for value, _ in parts]
        made = type(result)(*values) if hasattr(result, "_fields") else type(result)(values)
        return made, all(viewed for _, viewed in parts)
    if not isinstance(result, (np.ndarray, np.generic)) or (isinstance(result, np.generic) and not found):
        return result, not found
    host = np.asarray(result)
    for one in found:
        if host is one._host:
            return one, True
        if host.size and one.size and one.memory.mem is not None and isinstance(result, np.ndarray):
            block = one.memory.mem.block
            if block.start <= host.__array_interface__["data"][0] < block.start + block.nbytes:
                return ndarray._view(host, one.memory), True
    made = ndarray(host.shape, host.dtype)
    stream.enqueue(lambda: made._host.__setitem__(..., host), extent(made._host, True))
    return made, False


def operator(name: str) -> Any:
    in_place = name.startswith("__i") and name not in ("__invert__",)

    def method(self: ndarray, *args: Any) -> Any:
        if any(isinstance(a, np.ndarray) and a.ndim for a in args):
            raise TypeError(f"Unsupported type {type(args[0])}")
        args = tuple(a.item() if isinstance(a, np.ndarray) else a for a in args)
        if in_place:
            apply(lambda a, *b: getattr(a, name)(*b), (self, *args), changes=self)
            return self
        return apply(lambda a, *b: getattr(a, name)(*b), (self, *args))

    return method


def method(name: str) -> Any:
    changing = name in ("fill", "sort")

    def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        given = (self, *args)
        return apply(lambda a, *b, **c: getattr(a, name)(*b, **c), given, kwargs, self if changing else None)

    return call


BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
for _name in [*(f"{p}{n}" for n in BINARY for p in ("", "r", "i")), *"lt le eq ne gt ge neg pos abs invert".split()]:
    setattr(ndarray, f"__{_name}__", operator(f"__{_name}__"))
for _name in (
    "all any argmax argmin argsort astype clip conj cumprod cumsum diagonal dot fill flatten max mean min nonzero prod ravel "
    "repeat reshape round sort squeeze std sum swapaxes take trace transpose var view"
).split():
    setattr(ndarray, _name, method(_name))


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> ndarray:
    """Copy from the host unless it is there; refused during a capture (memory.pyx:615-622)."""
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    host = np.array([unwrapped_item(x) for x in a] if isinstance(a, (list, tuple)) else a, dtype=dtype, order="C")
    if current().capture is not None:
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
    made = ndarray(host.shape, host.dtype)
    gpu.raise_fault()
    current().enqueue(lambda: made._host.__setitem__(..., host), extent(made._host, True))
    return made


def unwrapped_item(value: Any) -> Any:
    return value.get() if isinstance(value, ndarray) else value


def array(obj: Any, dtype: Any = None, copy: Any = True, **_: Any) -> ndarray:
    made = asarray(obj, dtype)
    return made.copy() if copy and made is obj else made


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Memory as it is."""
    return ndarray(shape, dtype)


def ascontiguousarray(a: ndarray) -> ndarray:
    return a if a.flags.c_contiguous else a.copy()


def from_dlpack(x: Any) -> ndarray:
    if not isinstance(x, ndarray):
        raise BufferError("CPU arrays cannot be directly imported to CuPy.")
    return x


# Kernels

SIGNATURE = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\((\d+)\) )?(\w+)\(([^)]*)\)')


class RawModule:
    """CUDA text, compiled at the first use as C++ for the host."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), **_: Any) -> None:
        self.code = code

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self.code, name)


class RawKernel:
    """A kernel that checks how it is launched (the limits of all devices since compute capability 3.5)."""

    LARGEST = 1024

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), **_: Any) -> None:
        import host_cuda
        from portablenn_cupy.kernels import PRELUDE

        bounds, _, parameters = next(m.groups() for m in SIGNATURE.finditer(code) if m[2] == name)
        self.bound = int(bounds or self.LARGEST)
        self.parameters = [p.strip() for p in parameters.split(",")]
        ours = code.startswith(PRELUDE)
        forbid("cuModuleLoadData")
        if ours:
            library = host_cuda.compiled(code.removeprefix(PRELUDE))
            self.run = functools.partial(host_cuda.launch, library, getattr(library, name))
        else:  # with the workers that it names itself
            wrapper = (
                f'extern "C" void run(void** p, int gx, int gy, int bx, int by) {{ grid({name}, p, gx, gy, bx, by); }}'
            )
            library = host_cuda.compiled(code + wrapper, host_cuda.WORKERS, "-std=c++20", "-pthread")
            self.run = None
            self.library = library

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0) -> None:
        grid, block = (
            tuple(max(1, n) for n in (*sizes, 1, 1)[:3]) for sizes in (grid, block)
        )  # as cupy/cuda/function.pyx:142-152 does
        threads = block[0] * block[1] * block[2]
        allowed = (
            grid[0] < 2**31 and max(grid[1:]) < 2**16 and threads <= min(self.bound, self.LARGEST) and block[2] <= 64
        )
        size = sum(8 if not hasattr(a, "nbytes") or isinstance(a, ndarray) else a.nbytes for a in args)
        if not allowed or shared_mem > 48 << 10 or size > 4096:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: invalid argument: grid {grid}, block {block}, {size} bytes"
            )
        if len(args) != len(self.parameters):
            raise AssertionError(f"{len(args)} arguments for {self.parameters}")
        pointers, numbers, ranges = [], [], []
        for parameter, arg in zip(self.parameters, args, strict=True):
            if "*" not in parameter:
                numbers.append(arg)
                continue
            address = arg.data.ptr if isinstance(arg, ndarray) else int(arg)
            pointers.append(address)
            if address:
                end = address + 1
                found = gpu.block(address)
                if parameter.startswith("char*") and found is not None:  # all that begins there
                    end = found.start + found.nbytes
                ranges.append((address, end, not parameter.startswith("const ")))
        with gpu.lock:
            gpu.launched()
        merged: dict[tuple[int, int], bool] = {}
        for start, end, writes in ranges:
            merged[start, end] = merged.get((start, end), False) or writes
        if self.run is not None:
            run = functools.partial(self.run, grid[1], pointers, numbers)
        else:
            given = (ctypes.c_void_p * len(pointers))(*pointers)
            run = functools.partial(self.library.run, given, grid[0], grid[1], block[0], block[1])
        current().enqueue(run, [(*place, writes) for place, writes in merged.items()])


# cuBLAS: a library of the host whose functions call Python


SHIM = r"""
static int (*set_stream)(void*), (*set_workspace)(void*, size_t);
static int (*gemm)(int, int, int, int, int, double, void*, int, int, void*, int, int, void*, int, int, int);
extern "C" void set_handlers(void* a, void* b, void* c) { (void*&)set_stream = a; (void*&)set_workspace = b; (void*&)gemm = c; }
extern "C" int cublasCreate_v2(void** h) { *h = h; return 0; }
extern "C" int cublasSetStream_v2(void*, void* s) { return set_stream(s); }
extern "C" int cublasSetWorkspace_v2(void*, void* w, size_t n) { return set_workspace(w, n); }
extern "C" int cublasGemmEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int at, int lda, void* b,
                            int bt, int ldb, const void*, void* c, int ct, int ldc, int compute, int) {
    double one = compute == 70 ? *(const double*)alpha : *(const float*)alpha;
    (void)bt;
    return gemm(ta, tb, m, n, k, one, a, at, lda, b, ldb, ct, c, ldc, compute, 0);
}
static size_t size(int type) { return type == 0 ? 4 : type == 1 ? 8 : 2; }
extern "C" int cublasGemmStridedBatchedEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int at, int lda,
                                          long long sa, void* b, int bt, int ldb, long long sb, const void* beta, void* c, int ct,
                                          int ldc, long long sc, int count, int compute, int algorithm) {
    for (long long i = 0; i < count; ++i) {
        int status = cublasGemmEx(h, ta, tb, m, n, k, alpha, (char*)a + i * sa * size(at), at, lda,
                                  (char*)b + i * sb * size(bt), bt, ldb, beta, (char*)c + i * sc * size(ct), ct, ldc, compute, algorithm);
        if (status) return status;
    }
    return 0;
}
"""


class Cublas:
    """Products of column-major matrices."""

    def __init__(self) -> None:
        import host_cuda

        self.stream, self.workspace = LEGACY, 0
        self.library = host_cuda.compiled(SHIM, "#include <cstddef>\n")
        pointer, number = ctypes.c_void_p, ctypes.c_int
        kinds = [
            ctypes.CFUNCTYPE(number, pointer),
            ctypes.CFUNCTYPE(number, pointer, ctypes.c_size_t),
            ctypes.CFUNCTYPE(number, *[number] * 5, ctypes.c_double, *[pointer, number, number, pointer, number, number],
                             *[pointer, number, number, number]),
        ]  # fmt: skip
        functions = (self.set_stream, self.set_workspace, self.gemm)
        self.callbacks = [kind(f) for kind, f in zip(kinds, functions, strict=True)]
        self.library.set_handlers(*(ctypes.cast(c, pointer) for c in self.callbacks))

    def set_stream(self, stream: int | None) -> int:
        """It takes the workspace of the library's own from then on, by cuBLAS's documentation of cublasSetStream."""
        self.stream, self.workspace = stream or LEGACY, 0
        return 0

    def set_workspace(self, address: int, nbytes: int) -> int:
        self.workspace, self.nbytes = address, nbytes
        return 0

    def gemm(self, *facts: Any) -> int:
        try:
            self._gemm(*facts)
        except BaseException as error:
            gpu.fault = error
            return 14  # CUBLAS_STATUS_INTERNAL_ERROR
        return 0

    def _gemm(
        self, ta: int, tb: int, m: int, n: int, k: int, alpha: float, a: int, kind: int, lda: int, b: int, ldb: int,
        kind_c: int, c: int, ldc: int, compute: int, _: int,
    ) -> None:  # fmt: skip
        from portablenn.program.interpret import rounded

        if not self.workspace:
            raise AssertionError("cuBLAS would allocate a workspace, which is not possible during a capture")
        with gpu.lock:
            gpu.launched()
        dtype, dtype_c = ({0: np.float32, 1: np.float64, 14: np.uint16}[t] for t in (kind, kind_c))
        left = matrix(a, (k, m) if ta else (m, k), lda, dtype)
        right = matrix(b, (n, k) if tb else (k, n), ldb, dtype)
        out = matrix(c, (m, n), ldc, dtype_c)

        def run() -> None:
            x, y = (v.T if t else v for v, t in ((left, ta), (right, tb)))
            if kind == 14:
                x, y = ((v.astype(np.uint32) << 16).view(np.float32) for v in (x, y))
            if compute == 77:
                x, y = (rounded(np, v, "tf32") for v in (x, y))
            out[...] = alpha * (x @ y)

        ranges = [*extent(left, False), *extent(right, False), *extent(out, True)]
        ranges.append((self.workspace, self.workspace + self.nbytes, True))
        gpu.streams[self.stream].enqueue(run, ranges)


def matrix(address: int, shape: tuple[int, int], leading: int, dtype: Any) -> np.ndarray:
    rows, columns = shape
    itemsize = np.dtype(dtype).itemsize
    raw = (ctypes.c_char * (((columns - 1) * leading + rows) * itemsize)).from_address(address)
    flat = np.frombuffer(raw, dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, (itemsize, leading * itemsize))


# The module


class Device:
    """The only device."""

    def __init__(self, device: Any = None) -> None:
        self.id = int(getattr(device, "id", device) or 0)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> Device:
        return self

    @property
    def mem_info(self) -> tuple[int, int]:
        return gpu.limit - gpu.allocated, gpu.limit

    compute_capability = "90"

    def synchronize(self) -> None:
        with gpu.lock:
            forbid("cudaDeviceSynchronize")
            if gpu.capturing:  # in any mode (CUDA: cudaStreamCaptureModeRelaxed)
                raise gpu.capturing[0].invalidate("cudaErrorStreamCaptureUnsupported")
            gpu.raise_fault()
            for stream in list(gpu.streams.values()):
                merge(gpu.done, stream.clock)
            finish_host_copies()


def memcpy_async(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    ranges = [(source, source + nbytes, False), (target, target + nbytes, True)]
    gpu.raise_fault()
    gpu.streams[stream].enqueue(lambda: ctypes.memmove(target, source, nbytes) and None, ranges)


def memset_async(target: int, value: int, nbytes: int, stream: int) -> None:
    gpu.raise_fault()
    gpu.streams[stream].enqueue(
        lambda: ctypes.memset(target, value, nbytes) and None, [(target, target + nbytes, True)]
    )


def elapsed(start: Event, end: Event) -> float:
    return (end.time - start.time) * 1e3


runtime: Any = types.ModuleType("cupy.cuda.runtime")
runtime.__dict__.update(
    CUDARuntimeError=CUDARuntimeError, memcpyAsync=memcpy_async, memsetAsync=memset_async, getDevice=lambda: 0,
    getDeviceCount=lambda: 1, runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 13000,
    getDeviceProperties=lambda number: {"name": b"a stand-in, no GPU", "major": 9, "minor": 0},
    streamCaptureModeGlobal=0, streamCaptureModeThreadLocal=1, streamCaptureModeRelaxed=2,
)  # fmt: skip
gpu = Gpu()
Stream.null = Stream(null=True)
_local = Local()

MISSING = frozenset(
    "acos acosh asin asinh atan atan2 atanh astype bitwise_count bitwise_invert bitwise_left_shift bitwise_right_shift concat "
    "isdtype matrix_transpose permute_dims pow unstack vecdot cumulative_sum cumulative_prod unique_all unique_counts "
    "unique_inverse unique_values".split()
)
"""Functions of NumPy that CuPy 14 lacks, or that array-api-compat brings in its own way."""


def function(host: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(host)
    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(host, args, kwargs)

    return call


def functions_of(host: Any, missing: Iterable[str] = ()) -> dict[str, Any]:
    found = {}
    for name in dir(host):
        value = getattr(host, name)
        if name.startswith("_") or name in missing or isinstance(value, types.ModuleType):
            continue
        is_function = callable(value) and not isinstance(value, type)
        found[name] = function(value) if is_function else value
    return found


def module(name: str, facts: dict[str, Any]) -> Any:
    made = types.ModuleType(name)
    made.__dict__.update(facts, __path__=[])
    made.__spec__ = types.SimpleNamespace(name=name, parent=name, submodule_search_locations=[])  # type: ignore[assignment]
    return made


def cupy_module() -> Any:
    """The module that stands in for cupy."""
    cuda = module("cupy.cuda", {
        "Device": Device, "Event": Event, "Graph": Graph, "MemoryPool": MemoryPool, "MemoryPointer": MemoryPointer,
        "Stream": Stream, "alloc_pinned_memory": bytearray, "get_current_stream": current, "get_elapsed_time": elapsed,
        "device": module("cupy.cuda.device", {"Device": Device}), "runtime": runtime,
    })  # fmt: skip
    cupy = module("cupy", functions_of(np, MISSING))
    cupy.__dict__.update(
        RawKernel=RawKernel, RawModule=RawModule, __version__="14.2.0", array=array, asarray=asarray, asnumpy=unwrapped_item,
        ascontiguousarray=ascontiguousarray, cuda=cuda, empty=empty, fft=module("cupy.fft", functions_of(np.fft)), from_dlpack=from_dlpack,
        get_default_memory_pool=lambda: gpu.pool, is_available=lambda: True,
        linalg=module("cupy.linalg", functions_of(np.linalg)), ndarray=ndarray,
    )  # fmt: skip
    ndarray.__module__ = "cupy"
    return cupy


@functools.cache
def modules() -> dict[str, Any]:
    """The modules by the names that the plug-in imports."""
    cupy = cupy_module()
    blas: list[Cublas] = []

    def load(name: str) -> Any:
        blas.extend([] if blas else [Cublas()])
        return types.SimpleNamespace(abs_path=blas[0].library._name)

    pathfinder = module("cuda.pathfinder", {"load_nvidia_dynamic_lib": load})
    return {
        "cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.device": cupy.cuda.device, "cupy.cuda.runtime": runtime, "cupy.linalg": cupy.linalg, "cupy.fft": cupy.fft,
        "cuda.pathfinder": pathfinder,
    }  # fmt: skip


wrappers: dict[str, Any] = {}
"""Modules of array-api-compat, which remembers them by the class of arrays."""


@contextlib.contextmanager
def installed() -> Iterator[Any]:
    """The stand-in in the place of cupy, and the plug-in's modules loaded anew with it; everything as before at the end."""
    names = ("cupy", "cuda", "array_api_compat.cupy", "portablenn_cupy")
    before = {n: m for n, m in sys.modules.items() if any(n == name or n.startswith(f"{name}.") for name in names)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(made := modules())
    sys.modules.update(wrappers)
    global gpu
    old, gpu = gpu, Gpu()
    gpu.streams.update(old.streams)
    try:
        yield made["cupy"]
    finally:
        wrappers.update((n, m) for n, m in sys.modules.items() if n.startswith("array_api_compat.cupy"))
        for name in list(sys.modules):
            if any(name == one or name.startswith(f"{one}.") for one in names):
                del sys.modules[name]
        sys.modules.update(before)
        gpu = old


def install() -> None:
    """Put the stand-in in the place of cupy for the whole process."""
    sys.modules.update(modules())
