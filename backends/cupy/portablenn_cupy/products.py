"""Kernels of small matrix products, for which cuBLAS takes 5 µs however small they are (measured on an H200).

A thread computes one result. Where there are fewer results than threads, the bands of a block share each sum.
"""

from __future__ import annotations

from portablenn.runtime.kernels.schedule import Product

from .kernels import TYPES, WARP, Kernel, kernel_of, located, number, per_element

SHORT = 24
"""Length of a sum up to which sharing it does not pay."""


def product_kernel(call: Product, few: int, bands: int | None = None) -> Kernel:
    """Return the kernel of a product; up to ``few`` results, the ``bands`` of a block share each sum."""
    rows, length, columns = call.sizes
    results = rows * columns * call.stacked
    (*over_a, down_a, across_a), (*over_b, down_b, across_b) = call.a.strides, call.b.strides
    kind = TYPES[call.out.dtype]
    first_a, first_b = (f"m * {over[0]} + " if over else "" for over in (over_a, over_b))
    row = (
        f"const index_t m = i / {rows * columns}, r = i / {columns} % {rows}"
        if over_a
        else f"const index_t r = i / {columns}"
    )
    place = f"{row}, c = i % {columns};\n{kind} total = {number(0, call.out.dtype)};\n"
    term = (
        f"total += ({kind})p0[{first_a}r * {down_a} + k * {across_a}] * "
        f"({kind})p1[{first_b}k * {down_b} + c * {across_b}];\n"
    )
    store = f"p2[{located(call.out, 'i')}] = total;"
    if results > few or length <= SHORT:
        return per_element(call.buffers, results, f"{place}for (index_t k = 0; k < {length}; ++k)\n{term}{store}")
    bands = bands or min(32, max(4, 1 << (length // 8).bit_length()))
    body = (
        f"for (index_t b = first_column(); b < {-(-results // WARP) * WARP}; b += column_step()) {{\n"
        f"const index_t i = b < {results} ? b : {results - 1};\n{place}"
        f"for (index_t k = band(); k < {length}; k += bands())\n{term}"
        f"total = over_bands(Sum(), total);\nif (band() == 0 && b < {results}) {store}\n}}\n"
    )
    return kernel_of(call.buffers, body, (-(-results // WARP), 1), (WARP, bands))
