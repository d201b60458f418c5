"""Many steps as replays of one CUDA graph. On the CPU it is tested with a recorder in place of `capture`.

A graph reads and writes the memory that it was captured with, so the carry, the number of the iteration and small data have
permanent buffers. Large data are read in place, to save memory: when their address has changed, the step is captured again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from portablenn.program.ir import Array, ArrayType, Program
from portablenn.runtime.backend import Compiled

LARGE = 1 << 22
"""Number of elements from which data are read in place."""


def capture(step: Callable[[], None], device: Any) -> Callable[[], None]:
    """Return a function that replays ``step``; it runs once before, as libraries initialize themselves at their first use."""
    with torch.cuda.device(device):
        graph, current, side = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            step()
        current.wait_stream(side)
        # other threads may use CUDA meanwhile, such as JAX's: "global" would make their calls fail
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    return graph.replay


def zeros(t: ArrayType, device: Any, *rows: int) -> Array:
    """Return an array of zeros of this type, with leading ``rows``."""
    return torch.zeros((*rows, *t.shape), dtype=getattr(torch, t.dtype), device=device)


class GraphLoop:
    """``loop(count, *carry, *data)``; captured at first, when large data have moved, and for more steps than before."""

    how = "CUDA graph"

    def __init__(self, step: Compiled, program: Program, carried: int, device: Any) -> None:
        self.step, self.carried, self.device, self.lock = step, carried, device, threading.Lock()
        first, *types = (v.type for v in program.inputs)
        self.iteration, self.outputs = zeros(first, device), [v.type for v in program.outputs[carried:]]
        self.buffers = [zeros(t, device) if i < carried or t.size < LARGE else None for i, t in enumerate(types)]
        self.capacity, self.where, self.rows, self.replay = 0, [], [], None

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        where = [(a.data_ptr(), a.stride()) for a, b in zip(arrays, self.buffers) if b is None]
        with self.lock:  # equal networks share this loop, also between threads
            self._fill(arrays)
            if count > self.capacity or where != self.where:
                self.capacity, self.where = max(count, self.capacity), where
                self.replay = None  # before the new one allocates
                self.rows = [zeros(t, self.device, self.capacity) for t in self.outputs]
                inputs = [a if b is None else b for a, b in zip(arrays, self.buffers)]
                self.replay = capture(lambda: self._advance(inputs), self.device)
                self._fill(arrays)
            for _ in range(count):
                self.replay()
            return tuple(b.clone() for b in (*self.buffers[: self.carried], *(kept[:count] for kept in self.rows)))

    def _fill(self, arrays: tuple[Array, ...]) -> None:
        self.iteration.zero_()
        for buffer, array in zip(self.buffers, arrays):
            if buffer is not None:
                buffer.copy_(array)

    def _advance(self, inputs: list[Array]) -> None:
        """Run one step in place: the part that is captured."""
        results, carry = self.step(self.iteration, *inputs), inputs[: self.carried]
        replaced = {c.untyped_storage().data_ptr() for c in carry}
        results = [r.clone() if r.untyped_storage().data_ptr() in replaced else r for r in results]
        row = self.iteration.reshape(1).to(torch.int64)
        for kept, value in zip(self.rows, results[self.carried :]):
            kept.index_copy_(0, row, value[None])
        for buffer, value in zip(carry, results):
            buffer.copy_(value)
        self.iteration.add_(1)
