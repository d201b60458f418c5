"""portablenn on PyTorch, on CPU, CUDA and MPS: operation by operation, without PyTorch's own gradients.

Requires PyTorch. ``torch.compile`` and CUDA graphs are not used yet: the first takes many seconds a program on the CPU,
the second has not been tried on hardware.
"""

from __future__ import annotations

import torch

from portablenn.backend import Backend, Compiled
from portablenn.program.interpret import interpret
from portablenn.program.ir import Array, Program


class TorchBackend(Backend):
    """PyTorch: the interpreter under ``torch.no_grad``."""

    def compile(self, program: Program) -> Compiled:
        """The interpreter, which records no gradients of its own."""

        @torch.no_grad()
        def run(*arrays: Array) -> tuple[Array, ...]:
            return interpret(self.xp, program, *arrays, device=self.device)

        return run

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def devices(self) -> list[str]:
        """The CPU, and the GPUs there are."""
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]

    def memory(self) -> tuple[int, int] | None:
        """What CUDA says; nobody says for the CPU."""
        return torch.cuda.mem_get_info(self.device) if self.device.type == "cuda" else None

    @classmethod
    def accelerator(cls) -> str | None:
        """CUDA's first device, or Apple's; Apple's has no float64."""
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else None
