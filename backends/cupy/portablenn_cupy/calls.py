"""The calls of a schedule, in order: kernels, and the products that are left to cuBLAS."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from portablenn.runtime.backend import UnsupportedError
from portablenn.runtime.kernels.schedule import Collect, Count, Instruction, Product

from .kernels import KERNELS, NAME, Kernel, end_of_step, leading_dimension
from .products import product_kernel

PRODUCT = 1 << 21
"""Multiplications of a product up to which the kernel of this plug-in is faster than cuBLAS (measured on an H200)."""

LENGTH = 4096
"""Length of such a product's sums, of which a thread computes a part."""

FEW = 1 << 15
"""Threads of a product's kernel up to which they share sums: a GPU has ten times as many."""

COLLECTED = 1024
"""Elements of a result up to which the kernel that counts the step collects it, too."""


def calls(
    instructions: Sequence[Instruction], product: Callable[[Product], Kernel | None] | None = None, joined: bool = True
) -> list[Kernel | Product]:
    """Return the kernels and products of instructions; equal kernels have the same name.

    ``product`` returns the kernel of a product, None for cuBLAS; ``joined`` lets one kernel end a step.
    """
    product = product or _small_product
    names: dict[str, str] = {}
    made: list[Kernel | Product] = []
    others, end = _joined(instructions) if joined else (instructions, [])
    for instruction in others:
        if isinstance(instruction, Product):
            made.append(product(instruction) or _for_cublas(instruction))
        else:
            made.append(KERNELS[type(instruction)](instruction))
    return [_named(call, names) if isinstance(call, Kernel) else call for call in [*made, *end]]


def _named(kernel: Kernel, names: dict[str, str]) -> Kernel:
    name = names.setdefault(kernel.text, f"{NAME}_{len(names)}")
    return replace(kernel, name=name, text=kernel.text.replace(f"void {NAME}(", f"void {name}(", 1))


def _joined(instructions: Sequence[Instruction]) -> tuple[Sequence[Instruction], list[Kernel]]:
    """Return the other instructions, and the kernel of those that collect small results and count the step, if any."""
    others = list(instructions)
    if not others or not isinstance(count := others.pop(), Count):
        return instructions, []
    collects: list[Collect] = []
    while others and isinstance(last := others[-1], Collect) and math.prod(last.source.shape) <= COLLECTED:
        collects.append(last)
        others.pop()
    return others, [end_of_step(collects, count)]


def _small_product(call: Product) -> Kernel | None:
    length = call.a.shape[-1]
    small = math.prod(call.sizes) * call.stacked <= PRODUCT and length <= LENGTH
    return product_kernel(call, FEW) if small else None


def _for_cublas(call: Product) -> Product:
    shapes = call.a.shape, call.b.shape
    if max(*itertools.chain(*shapes), *(leading_dimension(x)[1] for x in (call.a, call.b))) >= 2**31:
        raise UnsupportedError(f"products of {shapes[0]} and {shapes[1]}: cuBLAS takes 32-bit integers")
    return call
