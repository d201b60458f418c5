"""portablenn on PyTorch, on CPU, CUDA and MPS, without PyTorch's own gradients.

On CUDA the steps of a training are replays of one CUDA graph, elsewhere they run through the
interpreter. ``PORTABLENN_TORCH`` = "graph", "compile" or "eager" chooses another way. Products of float32 run in full
precision, whatever ``torch.set_float32_matmul_precision`` or ``torch.autocast`` say for the rest of the program.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from portablenn.program.interpret import Functions, execute, interpret
from portablenn.program.ir import Array, Program
from portablenn.runtime.backend import Backend, Compiled

from .graph import GraphLoop, zeros

TENSORS_ALONE = frozenset(
    "atan2 copysign equal greater greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum "
    "minimum nextafter not_equal".split()
)
MATMULS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


SETTINGS = threading.RLock()
"""Held while work is enqueued on CUDA: the precision of products is a setting of the whole process."""


@contextmanager
def plainly(kind: str) -> Iterator[None]:
    """Disable gradients and autocast, and compute float32 in full precision; restore PyTorch's settings afterwards."""
    with SETTINGS if kind == "cuda" else nullcontext(), _in_full_precision(kind):
        yield


@contextmanager
def _in_full_precision(kind: str) -> Iterator[None]:
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
    """The namespace without array-api-compat's functions that copy to the device or read back, which no graph may do."""

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


def rounded_matmul(xp: Any, a: Array, b: Array, *, precision: str) -> Array:
    """Return a product of rounded numbers, with sums of float32: on CUDA by tensor cores."""
    if precision == "tf32":
        matmul = MATMULS[0]
        with SETTINGS:
            before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
            try:
                return torch.matmul(a, b)
            finally:
                matmul.fp32_precision = before
    a, b = a.to(torch.bfloat16), b.to(torch.bfloat16)
    if a.device.type == "cuda" and torch.version.cuda is not None and a.ndim == b.ndim == 2:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.matmul(a.to(torch.float32), b.to(torch.float32))


class TorchBackend(Backend):
    """PyTorch: the interpreter, captured as a CUDA graph, compiled, or operation by operation."""

    install = "pip install portablenn-torch, with the build of torch for your GPU: see https://pytorch.org/get-started"

    @property
    def accelerated(self) -> bool:  # type: ignore[override]
        """Whether the device is a GPU."""
        return bool(self.device.type == "cuda")

    def send(self, x: Any) -> Callable[[], Array]:
        """Start to copy ``x``; on CUDA on a separate stream while other work is running."""
        if self.device.type != "cuda" or not isinstance(x, np.ndarray):
            return super().send(x)
        computing, copies = torch.cuda.current_stream(self.device), self._copies
        with torch.cuda.stream(copies):
            array = torch.from_numpy(np.array(x, order="C")).pin_memory().to(self.device, non_blocking=True)
        array.record_stream(computing)  # its memory is not reused before the work that reads it is done

        def claim() -> Array:
            torch.cuda.current_stream(self.device).wait_stream(copies)
            return array

        return claim

    def receive(self, array: Any) -> Callable[[], np.ndarray]:
        """Start to copy ``array``; on CUDA after the work that is enqueued now, and later work does not delay it."""
        if self.device.type != "cuda" or not isinstance(array, torch.Tensor):
            return super().receive(array)
        on_host = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        on_host.copy_(array, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def claim() -> np.ndarray:
            done.synchronize()
            return np.asarray(on_host.numpy())

        return claim

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """Return a CUDA graph on CUDA, the interpreter elsewhere, unless ``PORTABLENN_TORCH`` names another way."""
        kind = self.device.type
        way = os.environ.get("PORTABLENN_TORCH") or ("graph" if kind == "cuda" else "eager")
        step = self._step(program)
        if way == "graph" and kind == "cuda":
            return GraphLoop(self._step(self._with_constants(program)), program, carried, self.device)
        if way == "compile":
            inputs = [zeros(v.type, self.device) for v in program.inputs]
            flat = make_fx(step)(*inputs)  # operations only: torch.compile fails on the interpreter
            loop = partial(self._loop, torch.compile(flat, dynamic=False, fullgraph=True), program, carried)
            loop.how = "torch.compile"  # type: ignore[attr-defined]
            return loop
        reason = "PORTABLENN_TORCH=eager" if way == "eager" else f"no {way} on {kind}"
        return self.interpreter_loop(program, carried, reason if os.environ.get("PORTABLENN_TORCH") else "")

    def _with_constants(self, program: Program) -> Program:
        """Return the program without "asarray", which copies from the host; a stream that is captured does not allow that."""
        made = [o for o in program.operations if o.name == "asarray"]
        values = {o.result: execute(self.xp, o, list(o.arguments), self.device) for o in made}
        others = tuple(o for o in program.operations if o.name != "asarray")
        return replace(program, operations=others, constants={**program.constants, **values})

    def context(self) -> Any:
        return plainly(self.device.type)

    def _step(self, program: Program) -> Compiled:
        return partial(interpret, Calls(self.xp), program, device=self.device, functions=self.functions)

    @property
    def functions(self) -> Functions:  # type: ignore[override]
        """PyTorch adds at indices in order on the CPU; CUDA's atomics do so in any."""
        ordered = {"index_add": index_add} if self.device.type == "cpu" else {}
        return {"rounded_matmul": rounded_matmul, **ordered}

    @property
    def precisions(self) -> tuple[str, ...]:  # type: ignore[override]
        """TF32 needs CUDA, and `torch.compile` does not see its setting; bfloat16 is a conversion elsewhere."""
        compiled = os.environ.get("PORTABLENN_TORCH") == "compile"
        cuda = self.device.type == "cuda" and torch.version.cuda is not None and not compiled
        return ("tf32", "bfloat16") if cuda else ("bfloat16",)

    def synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def devices(self) -> list[str]:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]

    def memory(self) -> tuple[int, int] | None:
        """Return CUDA's figures, with the memory that PyTorch only caches counted as free; None elsewhere."""
        if self.device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + cached, total

    def free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @classmethod
    def accelerator(cls) -> str | None:
        """Return CUDA's current device, or Apple's, which has no float64."""
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
