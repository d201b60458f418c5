"""Execution of a schedule: a program kernel by kernel, a training step as a CUDA graph, or many steps in one kernel.

It needs a `device.Cuda`. What changes from step to step (the step counter, carried values) is in device memory, so launching
a graph again transfers nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from portablenn.program.ir import Array, ArrayType
from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer, Storage, nbytes_of
from portablenn.runtime.kernels.schedule import Product, Schedule

from .kernels import Kernel, kernels
from .small import many_steps

SMALL = 16 << 20
"""Bytes up to which an input is copied to a fixed address at each call. Otherwise a new address, such as that of the order of
the rows in each epoch, needs a new graph."""

STEPS = 8192
"""Maximum number of steps per kernel: a desktop's driver ends a kernel that runs for seconds."""

Make = Callable[[ArrayType], Array]


class CompiledProgram:
    """A program whose kernels are launched one by one, in memory allocated for each call."""

    def __init__(self, device: Any, schedule: Schedule, types: Sequence[ArrayType], make: Make, as_input: Any) -> None:
        self.device, self.schedule, self.types, self.make, self.as_input = device, schedule, types, make, as_input
        self.calls = kernels(schedule.instructions)
        self.functions = device.functions(self.calls)
        with device.active():
            self.constants = [as_input(c) for c in schedule.constants]
        self.how = f"{len(schedule.instructions)} kernels and products per call"

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        device = self.device
        with device.active():
            arrays = [self.as_input(x) for x in inputs]
            arena = device.memory(self.schedule.arena)

            def base(storage: Storage) -> int:
                return _base(device, storage, arena, arrays, self.constants)

            device.run(self.calls, self.functions, base)
            results = []
            for buffer, type in zip(self.schedule.results, self.types, strict=True):
                result = self.make(type)
                _copy_out(device, buffer, base, result, type)
                results.append(result)
        return tuple(results)


class Loop:
    """A loop of steps in its own memory: carried arrays are copied in before the first step, and out after the last."""

    how = ""

    def __init__(self, device: Any, schedule: Schedule, carry: Sequence[ArrayType], make: Make, as_input: Any) -> None:
        self.device, self.schedule, self.carry, self.make, self.as_input = device, schedule, carry, make, as_input
        self.nbytes = schedule.arena + sum(map(nbytes_of, carry))
        self.calls = self._calls()
        self.functions = device.functions(self.calls)
        with device.active():
            self.constants = [as_input(c) for c in schedule.constants]
            self.arena = device.memory(schedule.arena)
            self.carried = [device.memory(nbytes_of(t)) for t in carry]
            self.counter = device.memory(4)
        self.collected: list[Any] = []
        self.rows = 0
        self.lock = threading.Lock()

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        with self.lock, self.device.active():
            arrays = tuple(map(self.as_input, arrays))
            carry, data = arrays[: len(self.carry)], arrays[len(self.carry) :]
            if count > self.rows:
                self._allocate(max(count, 2 * self.rows))
            if count:
                self._advance(count, carry, data)
            else:
                self._load_carry(carry)
            return self._results(count)

    def _calls(self) -> list[Kernel | Product]:
        return kernels(self.schedule.instructions)

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        """Run ``count`` steps from the carried arrays."""
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

    def _base(self, storage: Storage, inputs: Sequence[Any]) -> int:
        device = self.device
        if storage.kind == "carry":
            return int(device.address(self.carried[storage.index]))
        if storage.kind == "counter":
            return int(device.address(self.counter))
        if storage.kind == "collected":
            return int(device.address(self.collected[storage.index]))
        return _base(device, storage, self.arena, inputs, self.constants)

    def _results(self, count: int) -> tuple[Array, ...]:
        carried = [self._copied(memory, type) for memory, type in zip(self.carried, self.carry, strict=True)]
        collected = zip(self.collected or [None] * len(self.schedule.collected), self.schedule.collected, strict=True)
        return (*carried, *(self._copied(m, ArrayType((count, *t.shape), t.dtype)) for m, t in collected))

    def _copied(self, memory: Any, type: ArrayType) -> Array:
        result = self.make(type)
        if nbytes_of(type):
            self.device.copy(self.device.address(result), self.device.address(memory), nbytes_of(type))
        return result


class GraphLoop(Loop):
    """A loop that captures one step as a CUDA graph and launches it once per step."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.copies: dict[int, Any] = {}
        self.captured: tuple[Any, Any] | None = None
        self.how = f"a CUDA graph of {len(self.calls)} kernels and products per step"

    def _allocate(self, rows: int) -> None:
        self.captured = None
        super()._allocate(rows)

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        inputs = [self._at_fixed_address(i, array) for i, array in enumerate(data)]
        graph = self._graph(inputs, carry)
        self._load_carry(carry)
        for _ in range(count):
            graph.launch()

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
        if self.captured is None or self.captured[0] != where:

            def enqueue() -> None:
                self.device.run(self.calls, self.functions, lambda storage: self._base(storage, inputs))

            self._load_carry(carry)
            enqueue()
            self.captured = (where, self.device.capture(enqueue))
        return self.captured[1]


class KernelLoop(Loop):
    """A loop of small steps: one kernel of one block runs many."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.how = f"a CUDA kernel that runs many steps of {len(self.schedule.instructions)} operations"

    def _calls(self) -> list[Kernel | Product]:
        return [many_steps(self.schedule)]

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        self._load_carry(carry)
        (kernel,) = self.calls
        for start in range(0, count, STEPS):
            some = replace(kernel, numbers=(min(STEPS, count - start),))  # type: ignore[type-var]
            self.device.run([some], self.functions, lambda storage: self._base(storage, data))


def _base(device: Any, storage: Storage, arena: Any, inputs: Sequence[Any], constants: Sequence[Any]) -> int:
    if storage.kind == "arena":
        return int(device.address(arena)) + storage.index
    return int(device.address((inputs if storage.kind == "input" else constants)[storage.index]))


def _copy_out(device: Any, buffer: Buffer, base: Callable[[Storage], int], result: Array, type: ArrayType) -> None:
    """Copy a result, which is contiguous (see `schedule.Schedule.results`), to an array of the caller."""
    source = base(buffer.storage) + buffer.offset * ITEMSIZE[buffer.dtype]
    device.copy(device.address(result), source, nbytes_of(type))
