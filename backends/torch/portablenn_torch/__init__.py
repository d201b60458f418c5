"""portablenn on PyTorch, on CPU, CUDA and MPS, without PyTorch's own gradients.

Requires PyTorch. On CUDA the steps of a training are replays of one CUDA graph (not yet run on hardware), elsewhere they
run operation by operation. ``PORTABLENN_TORCH`` = "graph", "compile" or "eager" wishes otherwise; ``torch.compile`` takes
many seconds a program on the CPU. What cannot be had falls back to "eager", and ``how`` of the loop says why.

Products of float32 run in full precision, whatever ``torch.set_float32_matmul_precision`` or ``torch.autocast`` say for the
program around: there is no way yet to ask for less.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from portablenn.program.interpret import Functions, interpret
from portablenn.program.ir import Array, Program
from portablenn.runtime.backend import Backend, Compiled

from .graph import GraphLoop, zeros

TENSORS_ALONE = frozenset(
    "atan2 copysign equal greater greater_equal hypot less less_equal logaddexp maximum minimum nextafter not_equal".split()
)
MATMULS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@contextmanager
def plainly(kind: str) -> Iterator[None]:
    """No gradients, no autocast, and float32 in full precision; afterwards as it was."""
    changed = [(m, m.fp32_precision) for m in MATMULS if m.fp32_precision not in ("none", "ieee")]
    for matmul, _ in changed:
        matmul.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            yield
    finally:
        for matmul, mode in changed:
            matmul.fp32_precision = mode


class Calls:
    """The namespace, less what array-api-compat copies to the device, or reads back, at each call: no graph may do that."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.xp, name)
        return partial(self._of_tensors, function) if name in TENSORS_ALONE else function

    def _of_tensors(self, function: Any, a: Any, b: Any) -> Array:
        return function(self._filled(a, b), self._filled(b, a))

    def _filled(self, x: Any, other: Any) -> Array:
        if isinstance(x, torch.Tensor):
            return x
        return torch.full((), x, dtype=self.xp.result_type(x, other), device=other.device)

    def sign(self, x: Array) -> Array:
        return self.xp.sign(x) if x.dtype.is_complex else torch.where(torch.isnan(x), x, torch.sign(x))


def index_add(xp: Any, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """PyTorch's own, which takes no negative indices."""
    return x.index_add(axis, torch.where(indices < 0, indices + x.shape[axis], indices), updates)


class TorchLoop:
    """Many steps; ``how`` says in which way, and why not in the faster one that was tried."""

    def __init__(self, kind: str, how: str, eager: Compiled, make: Callable[[], Compiled] | None = None) -> None:
        self.kind, self.how, self.eager, self.make, self.fast = kind, how, eager, make, None

    def __call__(self, count: int, *arrays: Array) -> tuple[Array, ...]:
        """Steps are pure, so those that failed in the faster way can be taken again in the plain one."""
        with plainly(self.kind):
            if self.make is not None and count:
                try:
                    self.fast = self.fast or self.make()
                    return self.fast(count, *arrays)
                except Exception as error:  # whatever a compiler or a driver does
                    self.make = self.fast = None
                    self.how = f"eager: {self.how} failed ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            return self.eager(count, *arrays)


class TorchBackend(Backend):
    """PyTorch: the interpreter, as a CUDA graph, compiled, or operation by operation."""

    install = "pip install portablenn-torch, with the torch for your GPU: see https://pytorch.org/get-started"

    def send(self, x: Any) -> Callable[[], Array]:
        """On CUDA copied on a stream of its own, beside what is being computed; not yet run on hardware."""
        if self.device.type != "cuda" or not isinstance(x, np.ndarray):
            return super().send(x)
        computing, copies = torch.cuda.current_stream(self.device), self._copies
        with torch.cuda.stream(copies):
            array = torch.from_numpy(np.array(x, order="C")).pin_memory().to(self.device, non_blocking=True)
        array.record_stream(computing)  # its memory is not used again before what computes with it is done

        def claim() -> Array:
            torch.cuda.current_stream(self.device).wait_stream(copies)
            return array

        return claim

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def compile(self, program: Program) -> Compiled:
        """The interpreter, which records no gradients of its own."""

        def run(*arrays: Array) -> tuple[Array, ...]:
            with plainly(self.device.type):
                return self._step(program, *arrays)

        return run

    def compile_loop(self, program: Program, carried: int) -> TorchLoop:
        """A graph on CUDA, eager elsewhere, unless ``PORTABLENN_TORCH`` wishes otherwise."""
        kind = self.device.type
        wish = os.environ.get("PORTABLENN_TORCH") or ("graph" if kind == "cuda" else "eager")
        step = partial(self._step, program)
        eager = partial(self._loop, step, program, carried)
        if wish == "compile":

            def compiled() -> Compiled:
                inputs = [zeros(v.type, self.device) for v in program.inputs]
                flat = make_fx(step)(*inputs)  # the operations alone: torch.compile stumbles over the interpreter
                return partial(self._loop, torch.compile(flat, dynamic=False, fullgraph=True), program, carried)

            return TorchLoop(kind, "torch.compile", eager, compiled)
        if wish == "graph" and kind == "cuda":
            return TorchLoop(kind, "CUDA graph", eager, lambda: GraphLoop(step, program, carried, self.device))
        return TorchLoop(kind, "eager" if wish == "eager" else f"eager: no {wish} on {kind}", eager)

    def _step(self, program: Program, *arrays: Array) -> tuple[Array, ...]:
        return interpret(Calls(self.xp), program, *arrays, device=self.device, functions=self.functions)

    @property
    def functions(self) -> Functions:  # type: ignore[override]
        """PyTorch adds at indices in order on the CPU; CUDA's atomics do so in any."""
        return {"index_add": index_add} if self.device.type == "cpu" else {}

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def devices(self) -> list[str]:
        """The CPU, and the GPUs there are."""
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]

    def memory(self) -> tuple[int, int] | None:
        """What CUDA says, and what PyTorch keeps of it for itself; nobody says for the CPU."""
        if self.device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self.device)
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + kept, total

    @classmethod
    def accelerator(cls) -> str | None:
        """CUDA's first device, or Apple's; Apple's has no float64."""
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
