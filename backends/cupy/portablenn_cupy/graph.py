"""Execution of a schedule: a program kernel by kernel, a training step as a CUDA graph, or many steps in one kernel.

What changes from step to step (the step counter, carried values) is in device memory, so launching a graph again transfers
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from portablenn.program.ir import Array, ArrayType
from portablenn.runtime.kernels.buffers import Storage, nbytes_of
from portablenn.runtime.kernels.schedule import Product, Schedule

from .branches import Branches, branches
from .calls import calls
from .kernels import Kernel, addresses
from .small import many_steps

SMALL = 16 << 20
"""Bytes up to which an input is copied to a fixed address at each call, because a new address needs a new graph."""

COLLECTED = 1 << 18
"""Bytes of collected results that are allocated at least, because for more of them steps are captured again."""

GRAPHS = 4
"""Maximum number of graphs of a step, for data in as many places: networks that are equal share them."""

STEPS = 8192
"""Maximum number of steps per kernel: a desktop's driver ends a kernel that runs for seconds."""

LAUNCHES = 64
"""Maximum number of graphs that a thread launches before another thread may enqueue its work."""

Make = Callable[[ArrayType], Array]


class _Scheduled:
    """A schedule on a `device.Cuda`, with compiled kernels; ``inputs`` and ``types`` are those of its inputs and results."""

    def __init__(
        self,
        device: Any,
        schedule: Schedule,
        inputs: Sequence[ArrayType],
        types: Sequence[ArrayType],
        make: Make,
        as_input: Any,
    ) -> None:
        self.device, self.schedule, self.types, self.make, self.as_input = device, schedule, types, make, as_input
        self.inputs = [(t.shape, np.dtype(t.dtype)) for t in inputs]
        self.calls = self._calls()
        self.packed = {b.storage.index for call in self.calls if isinstance(call, Kernel) for b in call.packed_inputs}
        self.functions = device.functions(self.calls)
        with device.active():
            self.constants = [as_input(c, False) for c in schedule.constants]

    @property
    def _given(self) -> int:
        """Number of inputs that kernels read where they are."""
        return len(self.inputs)

    def _calls(self) -> list[Kernel | Product]:
        return calls(self.schedule.instructions)

    def _checked(self, arrays: Sequence[Any]) -> list[Array]:
        """Return the inputs as arrays of the device; kernels would read beyond arrays of other shapes."""
        first = len(arrays) - self._given  # those before it are copied into memory of this plug-in
        checked = [self.as_input(x, i - first in self.packed) for i, x in enumerate(arrays)]
        for i, (array, (shape, dtype)) in enumerate(zip(checked, self.inputs, strict=True)):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"input {i}: expected {dtype}{list(shape)}, got {array.dtype}{list(array.shape)}")
        return checked

    def _base(self, storage: Storage, arena: Any, inputs: Sequence[Any]) -> int:
        """Return the address of a storage."""
        if storage.kind == "arena":
            return int(self.device.address(arena)) + storage.index
        return int(self.device.address((inputs if storage.kind == "input" else self.constants)[storage.index]))

    def _copy_to(self, results: Sequence[Array], sources: Sequence[int], types: Sequence[ArrayType]) -> None:
        """Copy what is at some addresses into arrays of the caller, which were made on its stream: it may free them there."""
        for result, source, type in zip(results, sources, types, strict=True):
            self.device.copy(self.device.address(result), source, nbytes_of(type))


class CompiledProgram(_Scheduled):
    """A program whose kernels are launched one by one, in memory allocated for each call."""

    @property
    def how(self) -> str:
        """The way in which it runs."""
        return f"{len(self.schedule.instructions)} kernels and products per call"

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        device = self.device
        results = tuple(map(self.make, self.types))
        with device.active():
            arrays = self._checked(inputs)
            arena = device.memory(self.schedule.arena)

            def base(storage: Storage) -> int:
                return self._base(storage, arena, arrays)

            device.run(self.calls, self.functions, base)
            self._copy_to(results, addresses(self.schedule.results, base), self.types)  # contiguous
        return results


class Loop(_Scheduled):
    """A loop of steps in its own memory: carried arrays are copied in before the first step, and out after the last."""

    launches = 1
    """Maximum number of steps that are enqueued before another thread may enqueue its work."""

    def __init__(self, device: Any, schedule: Schedule, inputs: Sequence[ArrayType], carried: int, *facts: Any) -> None:
        types = inputs[:carried]
        super().__init__(device, schedule, inputs, types, *facts)
        self.lock = threading.Lock()
        self._forget()
        device.add(self)

    def _forget(self) -> None:
        """Give up all memory."""
        self.arena: Any = None
        self.counter: Any = None
        self.carried: list[Any] = []
        self.collected: list[Any] = []
        self.rows = 0

    def release(self) -> None:
        """Give up all memory, unless a call is running; the next call allocates it again.

        Its memory is its own, not shared with other loops: a graph holds addresses, and all graphs would have to be captured
        again when a larger loop needs more. The cache of programs bounds what loops keep together; docs/cuda.md has figures.
        """
        if self.lock.acquire(blocking=False):
            try:
                with self.device.active():
                    self.device.wait()  # it may be in use
                    self._forget()
            finally:
                self.lock.release()

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that it keeps, or will keep after its next call."""
        kept = sum(map(nbytes_of, self.types)) + self.rows * sum(map(nbytes_of, self.schedule.collected))
        return self.schedule.arena + kept + sum(int(c.nbytes) for c in self.constants)

    @property
    def _given(self) -> int:
        return len(self.inputs) - len(self.types)

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        types = [*self.types, *(ArrayType((count, *t.shape), t.dtype) for t in self.schedule.collected)]
        results = tuple(map(self.make, types))
        left, launch = count, None
        with self.lock:
            while True:
                some = min(left, self.launches)
                left -= some
                with self.device.active(begins=launch is None, ends=not left):
                    if launch is None:
                        checked = self._checked(
                            arrays
                        )  # here until the end: other threads' turns may reuse what is freed
                        launch = self._prepared(count, checked)
                    launch(some)
                    if not left:
                        self._copy_results(results, types)
                        return results

    def _prepared(self, count: int, arrays: Sequence[Array]) -> Callable[[int], None]:
        """Load the carried arrays, and return a function that enqueues some of ``count`` steps from there."""
        carry, data = arrays[: len(self.types)], arrays[len(self.types) :]
        if self.arena is None:
            self.carried = [self.device.memory(nbytes_of(t)) for t in self.types]
            self.counter = self.device.memory(4)
            self.arena = self.device.memory(self.schedule.arena)
        if count > self.rows:
            row = sum(map(nbytes_of, self.schedule.collected))
            self._allocate(max(count, 2 * self.rows, COLLECTED // max(1, row)))
        launch = self._launcher(carry, data) if count else lambda steps: None
        self._load_carry(carry)
        return launch

    def _copy_results(self, results: Sequence[Array], types: Sequence[ArrayType]) -> None:
        sources = [self.device.address(m) for m in (*self.carried, *self.collected)]
        sources += [0] * (len(types) - len(sources))  # nothing was collected yet
        self._copy_to(results, sources, types)

    def _launcher(self, carry: Sequence[Array], data: Sequence[Array]) -> Callable[[int], None]:
        """Return a function that enqueues steps on data; it may run steps itself, from the carried arrays."""
        raise NotImplementedError

    def _allocate(self, rows: int) -> None:
        """Allocate memory for the collected results of ``rows`` steps."""
        self.collected = [self.device.memory(rows * nbytes_of(t)) for t in self.schedule.collected]
        self.rows = rows

    def _load_carry(self, carry: Sequence[Array]) -> None:
        device = self.device
        device.clear(device.address(self.counter), 4)
        for memory, array in zip(self.carried, carry, strict=True):
            device.copy(device.address(memory), device.address(array), int(array.nbytes))

    def _run(self, calls: Sequence[Kernel | Product], inputs: Sequence[Any], branches: Branches | None = None) -> None:
        self.device.run(calls, self.functions, lambda storage: self._base(storage, self.arena, inputs), branches)

    def _base(self, storage: Storage, arena: Any, inputs: Sequence[Any]) -> int:
        own = {"carry": self.carried, "counter": [self.counter], "collected": self.collected}.get(storage.kind)
        return super()._base(storage, arena, inputs) if own is None else int(self.device.address(own[storage.index]))


class GraphLoop(Loop):
    """A loop that captures one step as a CUDA graph and launches it once per step."""

    launches = LAUNCHES

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.branches = branches(self.calls)
        self.how = f"a CUDA graph of {len(self.calls)} kernels and products per step"

    def _forget(self) -> None:
        self.captured: dict[tuple[int, ...], Any] = {}
        self.copies: dict[int, Any] = {}
        super()._forget()

    @property
    def nbytes(self) -> int:
        data = [nbytes_of(ArrayType(shape, dtype)) for shape, dtype in self.inputs[len(self.types) :]]
        return super().nbytes + sum(n for i, n in enumerate(data) if i in self.copies)

    def _allocate(self, rows: int) -> None:
        if self.captured:
            self.device.wait()  # one may be running
            self.captured.clear()
        super()._allocate(rows)

    def _launcher(self, carry: Sequence[Array], data: Sequence[Array]) -> Callable[[int], None]:
        graph = self._graph([self._at_fixed_address(i, array) for i, array in enumerate(data)], carry)

        def launch(steps: int) -> None:
            for _ in range(steps):
                graph.launch()

        return launch

    def _at_fixed_address(self, index: int, array: Array) -> Any:
        """Return the array, or its copy at a fixed address if it is small."""
        nbytes = int(array.nbytes)
        if nbytes > SMALL:
            return array
        if index not in self.copies:
            self.copies[index] = self.device.memory(nbytes)
        self.device.copy(self.device.address(self.copies[index]), self.device.address(array), nbytes)
        return self.copies[index]

    def _graph(self, inputs: list[Any], carry: Sequence[Array]) -> Any:
        """Return the graph for inputs at these addresses; the step runs once before it, so that libraries initialize."""
        where = tuple(map(self.device.address, inputs))
        if where not in self.captured:
            if len(self.captured) == GRAPHS:
                self.device.wait()  # the graph may be running
                del self.captured[next(iter(self.captured))]
            self._load_carry(carry)
            self._run(self.calls, inputs, self.branches)
            self.captured[where] = self.device.capture(lambda: self._run(self.calls, inputs, self.branches))
        return self.captured[where]


class KernelLoop(Loop):
    """A loop of small steps: one kernel of one block runs many."""

    launches = STEPS

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.how = f"a CUDA kernel that runs many steps of {len(self.schedule.instructions)} operations"

    def _calls(self) -> list[Kernel | Product]:
        return [many_steps(self.schedule)]

    def _launcher(self, carry: Sequence[Array], data: Sequence[Array]) -> Callable[[int], None]:
        (kernel,) = self.calls
        assert isinstance(kernel, Kernel)
        return lambda steps: self._run([replace(kernel, numbers=(*kernel.numbers[:-1], np.int32(steps)))], data)
