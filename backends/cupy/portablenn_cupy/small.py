"""Small steps as one kernel: a single block executes all instructions of a step in order, and all steps.

A node of a graph costs a microsecond or more, however small; here a call costs a barrier within the block. A cluster of 8 or 16
blocks was tried on an H200: a call then costs as much as a node.
"""

from __future__ import annotations

import numpy as np

from portablenn.program.ir import DType
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Schedule

from .calls import calls
from .kernels import NAME, TYPES, Kernel, number
from .products import product_kernel

MULTIPLICATIONS = 1 << 16
"""Multiplications of a step up to which one block is faster than a graph; see `portablenn.runtime.kernels.schedule.is_small`.

On an H200 a step of 147,000 took as long as a graph without branches, one of 3,000 a third of it.
"""

ELEMENTS = 8192
"""Elements of the largest value of such a step."""

BLOCK = (32, 32)

FEW = 2048
"""Threads of a product's kernel up to which they share sums."""

NUMBERS = 256
"""Maximum number of numbers that are arguments: CUDA limits their bytes."""

ARENA = Storage(0)
"""The start of the arena."""


def many_steps(schedule: Schedule) -> Kernel:
    """Return a kernel ``steps(*storages, *numbers, count)`` for a schedule without reductions in parts."""
    lanes, bands = BLOCK
    names: dict[str, str] = {}
    storages: dict[str, Storage] = {}
    numbers: list[np.generic] = []
    lines: list[str] = []
    for kernel in calls(schedule.instructions, lambda product: product_kernel(product, FEW, bands), joined=False):
        assert isinstance(kernel, Kernel)
        text = kernel.text.replace(f'extern "C" __global__ void {kernel.name}(', f"static __device__ void {NAME}(", 1)
        name = names.setdefault(text, f"call_{len(names)}")
        arguments = [_pointer(buffer, storages) for buffer in kernel.arguments]
        for n in kernel.numbers:
            if len(numbers) < NUMBERS:
                arguments.append(f"n{len(numbers)}")
                numbers.append(n)
            else:
                arguments.append(number(n.item(), DType(n.dtype.name)))
        lines += [f"{name}({', '.join(arguments)});", "__syncthreads();"]
    functions = "".join(text.replace(f"void {NAME}(", f"void {name}(", 1) for text, name in names.items())
    parameters = "".join(f"char* {name}, " for name in storages)
    parameters += "".join(f"{TYPES[DType(n.dtype.name)]} n{i}, " for i, n in enumerate(numbers))
    body = "\n".join(lines)
    text = (
        f'{functions}extern "C" __global__ void __launch_bounds__({lanes * bands}) steps({parameters}int count) {{\n'
        f"for (int s = 0; s < count; ++s) {{\n{body}\n}}\n}}\n"
    )
    starts = tuple(Buffer(storage, 0, (1,), (1,), DType("int8")) for storage in storages.values())
    return Kernel("steps", text, (1, 1), BLOCK, starts, tuple(range(len(starts))), (*numbers, np.int32(0)))


def _pointer(buffer: Buffer, storages: dict[str, Storage]) -> str:
    """Return the pointer to a buffer as an expression, and add the parameter that it uses to ``storages``."""
    storage, name = buffer.storage, f"{buffer.storage.kind}_{buffer.storage.index}"
    if storage.kind == "arena":  # all its storages are parts of one
        storage, name = ARENA, f"(arena + {storage.index})"
    storages.setdefault("arena" if storage is ARENA else name, storage)
    return f"({TYPES[buffer.dtype]}*){name} + {buffer.offset}"
