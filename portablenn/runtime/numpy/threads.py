"""Threads of matrix products: large ones are split into blocks, one for each thread; all others run on one thread.

The worker threads of OpenBLAS spin while they wait for each other. Where other processes want the cores, an epoch of a small
network took 60 times as long on two of them as on one. So BLAS keeps to one thread inside compiled programs, and products that
gain from more threads are split here, among threads that sleep while they wait. Blocks of rows start at multiples of `ROWS`,
which OpenBLAS's kernels compute in the same way as within the whole product: no result depends on how many threads there are.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ...program.ir import Program
from . import subnormals

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Two matrices, and where their product goes."""

MULTIPLICATIONS = 5_000_000
"""Multiplications that are worth waking a thread for."""

ROWS = 24
"""Blocks start at multiples of this: the kernels of OpenBLAS compute 4, 8, 12 or 24 rows at once."""

UNTHREADED = 1 << 13
"""Multiplications up to which no BLAS uses more than one thread."""

_chosen: int | None = None


def set_threads(count: int | None) -> None:
    """Set how many threads a large matrix product may use on NumPy; results do not depend on it.

    It concerns OpenBLAS, which NumPy's wheels for Linux and Windows bring; other libraries decide for themselves.

    Parameters
    ----------
    count
        At least 1. None, the default, means the environment variable ``PORTABLENN_THREADS``, or else as many as the process may
        use: its cores by CPU affinity and control group, at most the threads of BLAS (``OMP_NUM_THREADS``,
        ``threadpoolctl.threadpool_limits``).

    Raises
    ------
    ValueError
        If ``count`` is not a positive integer.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.set_threads(1)
    >>> pnn.get_threads()
    1
    >>> pnn.set_threads(None)
    """
    global _chosen
    _chosen = None if count is None else _positive("count", count)


def get_threads() -> int:
    """Return how many threads a large matrix product may use on NumPy; see `set_threads`.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.get_threads() >= 1
    True
    """
    if _openblas() is _UNKNOWN:
        return 1
    if _chosen is not None:
        return _chosen
    if named := os.environ.get("PORTABLENN_THREADS"):
        return _positive("PORTABLENN_THREADS", int(named) if named.isdecimal() else named)
    return min(_cores(), _quota(), single_thread.limit)


def _positive(name: str, count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name}: expected a positive integer, got {count!r}")
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _quota(root: str = "/sys/fs/cgroup") -> int:
    """Return how many cores the control group may use, rounded down, as versions 2 and 1 of control groups say it."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(map(_read, (os.path.join(root, file) for file in files))).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return max(1, int(quota) // int(period))
    return 1 << 30


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


class SingleThread:
    """A context in which BLAS uses one thread; nested and concurrent ones share it, and the last restores the number before.

    The number belongs to the process: what other Python threads compute meanwhile is also limited.
    """

    def __init__(self) -> None:
        self._lock, self._depth, self._before = threading.Lock(), 0, 1

    @property
    def limit(self) -> int:
        """How many threads BLAS uses outside the context; 1 if that is not known."""
        return self._before if self._depth else _openblas().get()

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._before = _openblas().get()
                if self._before != 1:
                    _openblas().set(1)
            self._depth += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self.restore()

    def restore(self) -> None:
        """Give BLAS its threads again."""
        if self._before != 1:
            _openblas().set(self._before)

    def abandon(self) -> None:
        """End all contexts, as in a forked process, in which nobody else will."""
        self.restore()
        self._lock, self._depth, self._before = threading.Lock(), 0, 1


single_thread = SingleThread()


class _OpenBlas(NamedTuple):
    """How to read and to set the number of threads of the OpenBLAS that NumPy uses.

    With another library (MKL, Accelerate) it is always 1, and nothing is set.
    """

    get: Callable[[], int]
    set: Callable[[int], Any]


_UNKNOWN = _OpenBlas(lambda: 1, lambda count: None)


@cache
def _openblas() -> _OpenBlas:
    """Find the library: in NumPy's wheel, or, if another one is in use and threadpoolctl is installed, by that."""
    import ctypes

    package = os.path.dirname(np.__file__)
    folders = filter(os.path.isdir, (f"{package}.libs", os.path.join(package, ".dylibs")))
    for path in (os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if "openblas" in name):
        functions = ctypes.CDLL(path)
        for name in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
            if hasattr(functions, name.format("set_num_threads")):
                return _OpenBlas(*(getattr(functions, name.format(f"{verb}_num_threads")) for verb in ("get", "set")))
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return _UNKNOWN
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return _OpenBlas(found[0].get_num_threads, found[0].set_num_threads) if len(found) == 1 else _UNKNOWN


def can_split(a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether a product of these shapes is large enough for two threads."""
    return _pieces(a, b) > 1


def _pieces(a: Sequence[int], b: Sequence[int]) -> int:
    """Return for how many threads a product of these shapes is large enough."""
    *batch, rows, columns = (*np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2])), a[-2], b[-1])
    if columns < 2:  # a matrix and a vector: limited by memory
        return 1
    return min(batch[0] if batch else rows // ROWS, math.prod(batch) * rows * a[-1] * columns // MULTIPLICATIONS)


def uses_threads(program: Program) -> bool:
    """Return whether BLAS would use several threads for a product of ``program``; sums are products, too."""
    return any(
        o.multiplications > UNTHREADED
        if o.name in ("matmul", "vecdot")
        else o.name == "sum" and any(v.type.size > UNTHREADED for v in o.reads)
        for o in program.operations
    )


def most_threads(program: Program) -> int:
    """Return for how many threads the largest product of ``program`` is large enough."""
    products = (o.reads for o in program.operations if o.name == "matmul" and len(o.reads) == 2)
    shapes = ([v.type.shape for v in reads] for reads in products)
    return max((_pieces(a, b) for a, b in shapes if min(len(a), len(b)) > 1), default=1)


def describe(most: int) -> str:
    """Return on how many threads products run that are large enough for ``most``; "" if that is one.

    Examples
    --------
    >>> set_threads(2)
    >>> describe(8), describe(1)
    ('large products on 2 threads', '')
    >>> set_threads(None)
    """
    if most < 2:
        return ""
    if _openblas() is _UNKNOWN:
        return "products on the threads of BLAS"
    count = min(most, get_threads())
    return f"large products on {count} thread{'s' if count > 1 else ''}"


def matmul(*arrays: np.ndarray) -> None:
    """Compute ``a @ b`` into ``out`` for (a, b, out, a, b, out, …), which share no memory, at once.

    Each product has an equal share of the threads, and uses as many of these as its size is worth.
    """
    threads = get_threads()
    products: list[Block] = list(zip(arrays[::3], arrays[1::3], arrays[2::3], strict=True))
    for start in range(0, len(products), threads):
        some = products[start : start + threads]
        blocks = [block for product in some for block in _blocks(*product, threads // len(some))]
        if len(blocks) == 1 or not _workers.multiply(blocks):
            for product in some:
                _multiply(*product)


def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    (np.dot if out.ndim == 2 else np.matmul)(a, b, out)


def _start(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


class _Worker:
    """A thread that sleeps until there is a block of a product for it: half the price of an executor's."""

    def __init__(self) -> None:
        self._start, self._end = threading.Lock(), threading.Lock()
        self._start.acquire()
        self._end.acquire()
        self._block: Block | None = None
        self._environment: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="portablenn-product", daemon=True).start()

    def _run(self) -> None:
        np.seterr(all="ignore")  # as in the plan that is executed
        while True:
            self._start.acquire()
            assert self._block is not None
            try:
                subnormals.restore(self._environment)
                _multiply(*self._block)
            except BaseException as error:
                self._error = error
            self._block = None
            self._end.release()

    def start(self, block: Block, environment: Any) -> None:
        """Begin to multiply, with the floating-point environment of another thread."""
        self._block, self._environment, self._error = block, environment, None
        self._start.release()

    def wait(self) -> BaseException | None:
        """Wait until it has ended, even if a signal's handler raises: until then it writes to memory of the caller."""
        raised: BaseException | None = None
        while True:
            try:
                self._end.acquire()
            except BaseException as error:
                raised = error
            if self._block is None:
                return raised or self._error


class _Workers:
    """Workers for one product at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []

    def multiply(self, blocks: Sequence[Block]) -> bool:
        """Compute each block's ``a @ b`` into its ``out``; return False at once if another thread uses the workers."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            first, *others = blocks
            while len(self._workers) < len(others):
                self._workers.append(_Worker())
            busy: list[_Worker] = []
            environment = subnormals.current()
            try:
                for worker, block in zip(self._workers, others, strict=False):
                    worker.start(block, environment)
                    busy.append(worker)
                _multiply(*first)
            except BaseException:
                self._workers = []  # a lock may be left in another state than the next product expects
                raise
            finally:
                errors = [error for worker in busy if (error := worker.wait()) is not None]
            if errors:
                self._workers = []
                raise errors[0]
        finally:
            self._lock.release()
        return True


_workers = _Workers()


def _start_anew() -> None:
    """Forget the other threads of the process that was forked: their workers, and their contexts."""
    global _workers
    _workers = _Workers()
    single_thread.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _blocks(a: np.ndarray, b: np.ndarray, out: np.ndarray, count: int) -> list[Block]:
    """Return at most ``count`` parts of a product: some of the matrices of a batch, or else some rows of one matrix."""
    count = min(count, _pieces(a.shape, b.shape))
    if count < 2 or _start(a) == _start(b):  # NumPy has another way for a matrix and its own transpose
        return [(a, b, out)]
    if out.ndim > 2:
        a, b = (np.broadcast_to(x, (*out.shape[:-2], *x.shape[-2:])) for x in (a, b))
        starts = [i * out.shape[0] // count for i in range(count + 1)]
        return [(a[i:j], b[i:j], out[i:j]) for i, j in pairwise(starts)]
    units = -(-len(a) // ROWS)
    starts = [min(len(a), ROWS * (i * units // count)) for i in range(count + 1)]
    return [(a[i:j], b, out[i:j]) for i, j in pairwise(starts)]
