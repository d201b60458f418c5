"""portablenn on JAX, on CPU and CUDA: a program is one jitted function, and many steps are one ``lax.scan``.

Requires JAX. Products of float32 run in full precision, also where the hardware has a faster mode.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax import lax

from portablenn.backend import Backend, Compiled
from portablenn.program.interpret import interpret
from portablenn.program.ir import Array, Program

LARGE = 50_000_000
"""Multiplications of a step above which a call of its own does not count."""


def multiplications(program: Program) -> int:
    """Of the matrix products, which are nearly all."""
    products = (o for o in program.operations if o.name == "matmul")
    return sum(o.result.type.size * o.reads[0].type.shape[-1] for o in products)


class JaxBackend(Backend):
    """JAX: the interpreter under ``jax.jit``."""

    install = 'pip install "portablenn-jax[cuda13]", or [cuda12], or "portablenn-jax" for the CPU'

    def compile(self, program: Program) -> Compiled:
        """One jitted function."""
        return jax.jit(partial(self._run, program))

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """One scan, compiled anew for each number of steps; for large products on the CPU a call a step.

        Seen with jaxlib 0.10 on two cores, steps of 784-512-512-10, of 2 to 3 ms: in a scan, or with calls that queue up,
        the same program now and then stalls for 15 to 25 ms a step; calls that are waited for one by one do so rarely.
        For small steps the scan is faster by the price of a call, some 0.05 ms.
        """
        if self.device.platform == "cpu" and multiplications(program) > LARGE:
            return self._step_by_step(program, carried)
        return self._scanned(program, carried)

    def _step_by_step(self, program: Program, carried: int) -> Compiled:
        """Calls of one jitted step, each writing over the state of the one before; the caller's state is copied first."""
        jitted = jax.jit(partial(self._run, program), donate_argnums=tuple(range(1, 1 + carried)))

        def step(*arrays: Array) -> tuple[Array, ...]:
            return jax.block_until_ready(jitted(*arrays))

        def loop(count: int, *arrays: Array) -> tuple[Array, ...]:
            own = map(self.xp.copy, arrays[:carried])
            return self._loop(step, program, carried, count, *own, *arrays[carried:])

        loop.how = "a call a step"
        return loop

    def _scanned(self, program: Program, carried: int) -> Compiled:

        def step(data: tuple[Array, ...], carry: tuple[Array, ...], iteration: Array) -> Any:
            results = self._run(program, iteration, *carry, *data)
            return results[:carried], results[carried:]

        def loop(count: int, *arrays: Array) -> tuple[Array, ...]:
            iterations = lax.iota("int32", count)
            carry, collected = lax.scan(partial(step, arrays[carried:]), arrays[:carried], iterations)
            return (*carry, *collected)

        scan = jax.jit(loop, static_argnums=0)
        scan.how = "one scan"
        return scan

    def _run(self, program: Program, *arrays: Array) -> tuple[Array, ...]:
        with jax.default_matmul_precision("highest"):
            return interpret(self.xp, program, *arrays)

    def synchronize(self) -> None:
        """Wait for the device."""
        jax.block_until_ready(jax.device_put(0.0, self.device) + 0.0)

    def devices(self) -> list[str]:
        """Of every kind that JAX has here."""
        kinds = {device.platform for device in jax.devices()} | {"cpu"}
        return [str(device) for kind in sorted(kinds) for device in jax.devices(kind)]

    def memory(self) -> tuple[int, int] | None:
        """What the device's allocator says; the CPU's says nothing."""
        figures = self.device.memory_stats()
        if not figures or "bytes_limit" not in figures:
            return None
        return figures["bytes_limit"] - figures["bytes_in_use"], figures["bytes_limit"]

    def is_out_of_memory(self, error: BaseException) -> bool:
        """JAX says it in words."""
        return "RESOURCE_EXHAUSTED" in str(error) or super().is_out_of_memory(error)

    @classmethod
    def accelerator(cls) -> str | None:
        """JAX's default device, if that is not the CPU."""
        return None if jax.default_backend() == "cpu" else jax.default_backend()
