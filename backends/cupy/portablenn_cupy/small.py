"""Small steps as one kernel: a single block executes all instructions of a step, one after the other, and step after step.

A graph's node costs about a microsecond, however small; here a call costs a barrier of the block.
"""

from __future__ import annotations

from portablenn.program.ir import DType
from portablenn.runtime.kernels.buffers import Buffer, Storage
from portablenn.runtime.kernels.schedule import Product, Schedule

from .kernels import TYPES, Kernel, kernels, located

MULTIPLICATIONS = 16384
"""Of all products of a step, up to which one block is faster than many; see `portablenn.runtime.kernels.schedule.is_small`."""

ELEMENTS = 8192
"""Of the largest value of a step, likewise."""

BLOCK = (32, 8)


def many_steps(schedule: Schedule) -> Kernel:
    """A kernel ``steps(storages…, count)``. No reduction of the schedule is in parts."""
    names: dict[str, str] = {}
    storages: dict[str, Storage] = {}
    lines: list[str] = []
    for call in kernels(schedule.instructions):
        kernel = _product(call) if isinstance(call, Product) else call
        text = kernel.text.replace(f'extern "C" __global__ void {kernel.name}(', "static __device__ void call(", 1)
        name = names.setdefault(text, f"call_{len(names)}")
        lines += [
            f"{name}({', '.join(_pointer(buffer, storages) for buffer in kernel.arguments)});",
            "__syncthreads();",
        ]
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
    """Where a buffer lies, from the start of its storage; storages of the arena lie in one, some bytes ahead."""
    storage = buffer.storage
    if storage.kind == "arena":
        storages.setdefault("arena", ARENA)
        return f"({TYPES[buffer.dtype]}*)(arena + {storage.index}) + {buffer.offset}"
    name = f"{storage.kind}_{storage.index}"
    storages.setdefault(name, storage)
    return f"({TYPES[buffer.dtype]}*){name} + {buffer.offset}"


ARENA = Storage(0)
"""The start of the arena."""


def _product(call: Product) -> Kernel:
    """A worker an element of the result."""
    (rows, inner), columns = call.a.shape, call.b.shape[1]
    (down_a, across_a), (down_b, across_b), dtype = call.a.strides, call.b.strides, TYPES[call.out.dtype]
    text = (
        f'extern "C" __global__ void product(const {dtype}* p0, const {dtype}* p1, {dtype}* p2) {{\n'
        f"for (index_t i = first_element(); i < {rows * columns}; i += element_step()) {{\n"
        f"const index_t r = i / {columns}, c = i % {columns};\n{dtype} total = 0;\n"
        f"for (index_t k = 0; k < {inner}; ++k)\n"
        f"total += p0[r * {down_a} + k * {across_a}] * p1[k * {down_b} + c * {across_b}];\n"
        f"p2[{located(call.out, 'i')}] = total;\n}}\n}}\n"
    )
    return Kernel("product", text, (1, 1), BLOCK, call.buffers)
