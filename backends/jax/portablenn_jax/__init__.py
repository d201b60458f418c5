"""portablenn on JAX, on CPU and CUDA: a program is one jitted function, and many steps are one ``lax.scan``.

Products of float32 run in full precision, also where the hardware has a faster mode. ``jax.jit`` compiles the interpreter
itself, so its results are not compared with it at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from portablenn.program.interpret import SIGNIFICANT_BITS, Functions, interpret
from portablenn.program.ir import Array, Program
from portablenn.program.precision import PRECISIONS
from portablenn.runtime.backend import Backend, Compiled
from portablenn.runtime.numpy.lowering import address

STEADY = {"xla_cpu_use_fusion_emitters": False}
"""Options of the CPU's compiler. With jaxlib 0.10 and these emitters, some steps of 784-512-512-10, usually 4 ms, take 10 to
70 ms; without them none did, and no workload of the benchmarks was slower."""


@cache
def compiler_options(platform: str) -> dict[str, bool] | None:
    """Return `STEADY` on the CPU, if this version's compiler accepts it; tried on a sum."""
    if platform != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=STEADY)(0)
    except Exception:  # the option is unknown to this version
        return None
    return STEADY


def index_add(xp: Any, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """Add updates to rows of x with the scatter operation of JAX."""
    return jnp.moveaxis(jnp.moveaxis(x, axis, 0).at[indices].add(jnp.moveaxis(updates, axis, 0)), 0, axis)


def rounded_matmul(xp: Any, a: Array, b: Array, *, precision: str) -> Array:
    """Round by an operation of XLA's, as XLA may leave out a conversion to bfloat16 and back."""
    explicit = SIGNIFICANT_BITS[precision] - 1
    a, b = (lax.reduce_precision(x, exponent_bits=8, mantissa_bits=explicit) for x in (a, b))
    return jnp.matmul(a, b)


def tensor_core_matmul(xp: Any, a: Array, b: Array, *, precision: str) -> Array:
    """Return a product of rounded numbers, with sums of float32, by a GPU's tensor cores."""
    if precision == "tf32":
        return jnp.matmul(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)
    return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def has_tensor_cores(device: Any) -> bool:
    """Return whether it is a CUDA device that multiplies TF32 and bfloat16: Ampere or newer."""
    cuda = "cuda" in str(getattr(getattr(device, "client", None), "platform_version", "")).lower()
    return cuda and float(getattr(device, "compute_capability", 0) or 0) >= 8.0


class JaxBackend(Backend):
    """JAX: the interpreter under ``jax.jit``."""

    guarded = False
    precisions = PRECISIONS
    install = 'pip install "portablenn-jax[cuda13]", or [cuda12], or "portablenn-jax" for the CPU'

    @property
    def accelerated(self) -> bool:  # type: ignore[override]
        """Whether the device is a GPU."""
        return bool(self.device.platform != "cpu")

    def _copied_from_host(self, x: np.ndarray, dtype: Any) -> Array:
        """Copy once, where JAX's ``asarray`` copies twice; completed on return, as the host's array may change then."""
        given = x if dtype is None else x.astype(dtype, copy=False)
        array = jax.block_until_ready(jax.device_put(given, self.device))
        # aligned memory may be shared, in spite of may_alias=False
        if not isinstance(array, jax.core.Tracer) and array.unsafe_buffer_pointer() == address(given):
            array = jax.device_put(given.copy(), self.device)
        return array

    def receive(self, array: Any) -> Callable[[], np.ndarray]:
        """Start to copy ``array``; later work does not delay it."""
        if hasattr(array, "copy_to_host_async"):
            array.copy_to_host_async()
        return lambda: self.to_numpy(array)

    def compile(self, program: Program) -> Compiled:
        run = self._jitted(partial(self._run, program))
        run.how = "jax.jit"
        return run

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """Return one scan, compiled for each number of steps; it updates its carry in place."""

        def step(data: tuple[Array, ...], carry: tuple[Array, ...], iteration: Array) -> Any:
            results = self._run(program, iteration, *carry, *data)
            return results[:carried], results[carried:]

        def loop(count: int, *arrays: Array) -> tuple[Array, ...]:
            iterations = lax.iota("int32", count)
            carry, collected = lax.scan(partial(step, arrays[carried:]), arrays[:carried], iterations)
            return (*carry, *collected)

        scan = self._jitted(loop, static_argnums=0)
        scan.how = "one scan"
        return scan

    def _jitted(self, function: Any, **facts: Any) -> Any:
        platform = getattr(self.device, "platform", "")  # JAX's tracers have no device yet
        return jax.jit(function, compiler_options=compiler_options(platform), **facts)

    def _run(self, program: Program, *arrays: Array) -> tuple[Array, ...]:
        with self.context():
            return interpret(self.xp, program, *arrays, functions=self.functions)

    @property
    def functions(self) -> Functions:  # type: ignore[override]
        """JAX adds at indices in order on the CPU; a GPU's atomics do so in any."""
        ordered = {"index_add": index_add} if getattr(self.device, "platform", "") == "cpu" else {}
        return {"rounded_matmul": tensor_core_matmul if has_tensor_cores(self.device) else rounded_matmul, **ordered}

    def context(self) -> Any:
        return jax.default_matmul_precision("highest")

    def synchronize(self) -> None:
        jax.block_until_ready(jax.device_put(0.0, self.device) + 0.0)

    def devices(self) -> list[str]:
        kinds = {device.platform for device in jax.devices()} | {"cpu"}
        return [str(device) for kind in sorted(kinds) for device in jax.devices(kind)]

    def memory(self) -> tuple[int, int] | None:
        """Return the figures of the device's allocator; None on the CPU, which has none."""
        figures = self.device.memory_stats()
        if not figures or "bytes_limit" not in figures:
            return None
        return figures["bytes_limit"] - figures["bytes_in_use"], figures["bytes_limit"]

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether the message says so, as JAX has no class for this error."""
        return "RESOURCE_EXHAUSTED" in str(error) or super().is_out_of_memory(error)

    @classmethod
    def accelerator(cls) -> str | None:
        """Return JAX's default platform, if that is not the CPU."""
        return None if jax.default_backend() == "cpu" else jax.default_backend()
