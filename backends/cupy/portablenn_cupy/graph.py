"""Running a schedule: a program call by call, a training step as a graph that is replayed, or many in one kernel.

Requires a device (`device.Cuda`, or a test's stand-in). What changes from step to step (the number of the step, carried
values) lives on the device, so a replay sends nothing and reads nothing.
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
"""Bytes of an input up to which it is copied to memory of its own at each call, so that the graph need not be recorded
anew where it lies elsewhere next time, as the order of the rows does each epoch."""

STEPS = 8192
"""Of a kernel that does many: a desktop's driver ends one that runs for seconds."""

Make = Callable[[ArrayType], Array]


class Straight:
    """A program, its kernels asked for one by one on the caller's stream; calls from several threads do not meet."""

    def __init__(self, device: Any, schedule: Schedule, types: Sequence[ArrayType], make: Make, as_input: Any) -> None:
        self.device, self.schedule, self.types, self.make, self.as_input = device, schedule, types, make, as_input
        self.calls = kernels(schedule.instructions)
        self.functions = device.functions(self.calls)
        with device.working():
            self.constants = [as_input(c) for c in schedule.constants]
        self.how = f"{len(schedule.instructions)} kernels and products a call"

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        device = self.device
        with device.working():
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
    """A loop of steps. The caller's carried arrays are copied into homes of our own, and at the end out of them."""

    how = ""

    def __init__(self, device: Any, schedule: Schedule, carry: Sequence[ArrayType], make: Make, as_input: Any) -> None:
        self.device, self.schedule, self.carry, self.make, self.as_input = device, schedule, carry, make, as_input
        self.nbytes = schedule.arena + sum(map(nbytes_of, carry))
        self.calls = self._calls()
        self.functions = device.functions(self.calls)
        with device.working():
            self.constants = [as_input(c) for c in schedule.constants]
            self.arena = device.memory(schedule.arena)
            self.homes = [device.memory(nbytes_of(t)) for t in carry]
            self.counter = device.memory(4)
        self.kept: list[Any] = []
        self.rows = 0
        self.lock = threading.Lock()

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        with self.lock, self.device.working():
            arrays = tuple(map(self.as_input, arrays))
            carry, data = arrays[: len(self.carry)], arrays[len(self.carry) :]
            if count > self.rows:
                self._make_room(max(count, 2 * self.rows))
            if count:
                self._advance(count, carry, data)
            else:
                self._set(carry)
            return self._results(count)

    def _calls(self) -> list[Kernel | Product]:
        return kernels(self.schedule.instructions)

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        """Set out from the carried arrays, and do so many steps."""
        raise NotImplementedError

    def _make_room(self, rows: int) -> None:
        """For what is kept of each step."""
        self.kept = [self.device.memory(rows * nbytes_of(t)) for t in self.schedule.collected]
        self.rows = rows

    def _set(self, carry: Sequence[Array]) -> None:
        device = self.device
        device.clear(device.address(self.counter), 4)
        for home, array in zip(self.homes, carry, strict=True):
            device.copy(device.address(home), device.address(array), int(array.nbytes))

    def _base(self, storage: Storage, inputs: Sequence[Any]) -> int:
        device = self.device
        if storage.kind == "carry":
            return int(device.address(self.homes[storage.index]))
        if storage.kind == "counter":
            return int(device.address(self.counter))
        if storage.kind == "collected":
            return int(device.address(self.kept[storage.index]))
        return _base(device, storage, self.arena, inputs, self.constants)

    def _results(self, count: int) -> tuple[Array, ...]:
        carried = [self._copied(memory, type) for memory, type in zip(self.homes, self.carry, strict=True)]
        kept = zip(self.kept or [None] * len(self.schedule.collected), self.schedule.collected, strict=True)
        return (*carried, *(self._copied(m, ArrayType((count, *t.shape), t.dtype)) for m, t in kept))

    def _copied(self, memory: Any, type: ArrayType) -> Array:
        result = self.make(type)
        if nbytes_of(type):
            self.device.copy(self.device.address(result), self.device.address(memory), nbytes_of(type))
        return result


class Replayed(Loop):
    """One step is recorded as a graph, which is then launched once a step."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.copies: dict[int, Any] = {}
        self.recorded: tuple[Any, Any] | None = None
        self.how = f"a CUDA graph of {len(self.calls)} kernels and products a step"

    def _make_room(self, rows: int) -> None:
        self.recorded = None
        super()._make_room(rows)

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        inputs = [self._steady(i, array) for i, array in enumerate(data)]
        graph = self._graph(inputs, carry)
        self._set(carry)
        for _ in range(count):
            graph.launch()

    def _steady(self, index: int, array: Array) -> Any:
        """The array, or a copy of a small one where it always lies."""
        nbytes = int(array.nbytes)
        if nbytes > SMALL:
            return array
        if index not in self.copies:
            self.copies[index] = self.device.memory(nbytes)
        self.device.copy(self.device.address(self.copies[index]), self.device.address(array), nbytes)
        return self.copies[index]

    def _graph(self, inputs: list[Any], carry: Sequence[Array]) -> Any:
        """The graph for inputs at these addresses. It is run once without recording: libraries set themselves up then."""
        where = tuple(map(self.device.address, inputs))
        if self.recorded is None or self.recorded[0] != where:

            def ask() -> None:
                self.device.run(self.calls, self.functions, lambda storage: self._base(storage, inputs))

            self._set(carry)
            ask()
            self.recorded = (where, self.device.record(ask))
        return self.recorded[1]


class OneKernel(Loop):
    """Small steps: one kernel of one block does many, and nothing is asked for in between."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.how = f"a CUDA kernel that does many steps of {len(self.schedule.instructions)} calls"

    def _calls(self) -> list[Kernel | Product]:
        return [many_steps(self.schedule)]

    def _advance(self, count: int, carry: Sequence[Array], data: Sequence[Array]) -> None:
        self._set(carry)
        (kernel,) = self.calls
        for start in range(0, count, STEPS):
            some = replace(kernel, numbers=(min(STEPS, count - start),))  # type: ignore[type-var]
            self.device.run([some], self.functions, lambda storage: self._base(storage, data))


def _base(device: Any, storage: Storage, arena: Any, inputs: Sequence[Any], constants: Sequence[Any]) -> int:
    if storage.kind == "arena":
        return int(device.address(arena)) + storage.index
    return int(device.address((inputs if storage.kind == "input" else constants)[storage.index]))


def _copy_out(device: Any, buffer: Buffer, base: Callable[[Storage], int], result: Array, type: ArrayType) -> None:
    """A result of a program, which lies in order: see `schedule.Schedule.results`."""
    source = base(buffer.storage) + buffer.offset * ITEMSIZE[buffer.dtype]
    device.copy(device.address(result), source, nbytes_of(type))
