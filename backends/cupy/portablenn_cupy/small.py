"""Small steps as one kernel: one block, or a cluster of them, executes all instructions of a step in order, and all steps.

A node of a graph costs a microsecond or more, however small; here a call costs a barrier of the block or cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from portablenn.program.ir import DType, Program
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Schedule, is_small

from .calls import calls
from .kernels import NAME, TYPES, Kernel
from .products import product_kernel


@dataclass(frozen=True)
class Size:
    """The blocks of such a kernel, (lanes, bands) of each, and the rows of a product that one of its threads computes."""

    blocks: int
    block: tuple[int, int]
    rows: int


ONE_BLOCK, CLUSTER = Size(1, (32, 8), 1), Size(8, (32, 32), 4)
"""A cluster's blocks are near each other, so that waiting is fast; every device that has clusters has them of 8 blocks."""

CLUSTERS = 90
"""Compute capability of the first devices with clusters, times ten."""


def size_of(program: Program, capability: int) -> Size | None:
    """Return the size of the kernel that is the fastest for a step on such a device; None if a graph is faster.

    Limits were measured on an H200, for products of all layers together and for the largest value.
    """
    if is_small(program, 16384, 8192):
        return ONE_BLOCK
    return CLUSTER if capability >= CLUSTERS and is_small(program, 1 << 22, 1 << 17) else None


ARENA = Storage(0)
"""The start of the arena."""


def many_steps(schedule: Schedule, size: Size = ONE_BLOCK) -> Kernel:
    """Return a kernel ``steps(*storages, count)`` for a schedule without reductions in parts."""
    lanes, bands = size.block
    barrier = "__syncthreads();" if size.blocks == 1 else "cluster_barrier();"
    names: dict[str, str] = {}
    storages: dict[str, Storage] = {}
    lines: list[str] = []
    for kernel in calls(schedule.instructions, lambda product: product_kernel(product, size.rows, bands), joined=False):
        assert isinstance(kernel, Kernel)
        text = kernel.text.replace(f'extern "C" __global__ void {kernel.name}(', f"static __device__ void {NAME}(", 1)
        name = names.setdefault(text, f"call_{len(names)}")
        pointers = ", ".join(_pointer(buffer, storages) for buffer in kernel.arguments)
        lines += [f"{name}({pointers});", barrier]
    functions = "".join(text.replace(f"void {NAME}(", f"void {name}(", 1) for text, name in names.items())
    parameters = "".join(f"char* {name}, " for name in storages)
    body = "\n".join(lines)
    cluster = f"__cluster_dims__({size.blocks}, 1, 1) " if size.blocks > 1 else ""
    text = (
        f'{functions}extern "C" __global__ void __launch_bounds__({lanes * bands}) {cluster}steps({parameters}int count) {{\n'
        f"for (int s = 0; s < count; ++s) {{\n{body}\n}}\n}}\n"
    )
    starts = tuple(Buffer(storage, 0, (1,), (1,), DType("int8")) for storage in storages.values())
    return Kernel("steps", text, (size.blocks, 1), size.block, starts, (0,))


def _pointer(buffer: Buffer, storages: dict[str, Storage]) -> str:
    """Return the pointer to a buffer as an expression, and add the parameter that it uses to ``storages``."""
    storage, name = buffer.storage, f"{buffer.storage.kind}_{buffer.storage.index}"
    if storage.kind == "arena":  # all its storages are parts of one
        storage, name = ARENA, f"(arena + {storage.index})"
    storages.setdefault("arena" if storage is ARENA else name, storage)
    return f"({TYPES[buffer.dtype]}*){name} + {buffer.offset}"
