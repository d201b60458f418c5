"""Small steps as one kernel: a single block executes all instructions of a step in order, and all steps.

A node of a graph costs about a microsecond, however small; here a call costs a barrier within the block.
"""

from __future__ import annotations

from portablenn.program.ir import DType
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Product, Schedule

from .kernels import TYPES, Kernel, kernels, located, per_element

MULTIPLICATIONS = 16384
"""Multiplications of a step up to which one block is faster than many; see `portablenn.runtime.kernels.schedule.is_small`."""

ELEMENTS = 8192
"""Elements of the largest value of such a step."""

BLOCK = (32, 8)

ARENA = Storage(0)
"""The start of the arena."""


def many_steps(schedule: Schedule) -> Kernel:
    """Return a kernel ``steps(*storages, count)`` for a schedule without reductions in parts."""
    names: dict[str, str] = {}
    storages: dict[str, Storage] = {}
    lines: list[str] = []
    for call in kernels(schedule.instructions):
        kernel = _product(call) if isinstance(call, Product) else call
        text = kernel.text.replace(f'extern "C" __global__ void {kernel.name}(', "static __device__ void call(", 1)
        name = names.setdefault(text, f"call_{len(names)}")
        pointers = ", ".join(_pointer(buffer, storages) for buffer in kernel.arguments)
        lines += [f"{name}({pointers});", "__syncthreads();"]
    functions = "".join(text.replace("void call(", f"void {name}(", 1) for text, name in names.items())
    parameters = "".join(f"char* {name}, " for name in storages)
    body = "\n".join(lines)
    text = (
        f'{functions}extern "C" __global__ void steps({parameters}int count) {{\n'
        f"for (int s = 0; s < count; ++s) {{\n{body}\n}}\n}}\n"
    )
    starts = tuple(Buffer(storage, 0, (1,), (1,), DType("int8")) for storage in storages.values())
    return Kernel("steps", text, (1, 1), BLOCK, starts, (0,))


def _pointer(buffer: Buffer, storages: dict[str, Storage]) -> str:
    """Return the pointer to a buffer as an expression, and add the parameter that it uses to ``storages``."""
    storage, name = buffer.storage, f"{buffer.storage.kind}_{buffer.storage.index}"
    if storage.kind == "arena":  # all its storages are parts of one
        storage, name = ARENA, f"(arena + {storage.index})"
    storages.setdefault("arena" if storage is ARENA else name, storage)
    return f"({TYPES[buffer.dtype]}*){name} + {buffer.offset}"


def _product(call: Product) -> Kernel:
    """Return the kernel of a product: a thread per element of the result."""
    (rows, inner), columns = call.a.shape, call.b.shape[1]
    (down_a, across_a), (down_b, across_b) = call.a.strides, call.b.strides
    body = (
        f"const index_t r = i / {columns}, c = i % {columns};\n{TYPES[call.out.dtype]} total = 0;\n"
        f"for (index_t k = 0; k < {inner}; ++k)\n"
        f"total += p0[r * {down_a} + k * {across_a}] * p1[k * {down_b} + c * {across_b}];\n"
        f"p2[{located(call.out, 'i')}] = total;"
    )
    return per_element(call.buffers, rows * columns, body)
