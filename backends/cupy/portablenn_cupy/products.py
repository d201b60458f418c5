"""Kernels of small matrix products, for which cuBLAS takes 5 µs however small they are (measured on an H200).

A thread computes some rows of one column, so that each element of ``b`` that it reads serves several of them. Where there are
fewer results than threads, the bands of a block share the sum.
"""

from __future__ import annotations

from portablenn.runtime.kernels.schedule import Product

from .kernels import TYPES, WARP, Kernel, kernel_of, located, number, per_element

SHORT = 24
"""Length of a sum up to which sharing it does not pay."""


def product_kernel(call: Product, rows: int, few: int, bands: int | None = None) -> Kernel:
    """Return the kernel of a product, whose threads compute ``rows`` rows each.

    Up to ``few`` threads, the ``bands`` of a block share their sums.
    """
    (m, k), n = call.a.shape, call.b.shape[1]
    rows = min(rows, m)
    threads = -(-m // rows) * n
    if threads <= few and k > SHORT:
        return _shared_sums(call, rows, bands or min(32, max(4, 1 << (k // 8).bit_length())))
    body = f"{_start(call, rows)}for (index_t k = 0; k < {k}; ++k) {{\n{_terms(call, rows)}}}\n"
    body += "".join(f"{_guard(call, rows, q)}p2[{_target(call, q)}] = t{q};\n" for q in range(rows))
    return per_element(call.buffers, threads, f"{_place(call, rows, 'i')}{body}")


def _shared_sums(call: Product, rows: int, bands: int) -> Kernel:
    """Each thread of 32 columns × bands sums a part."""
    (m, k), n = call.a.shape, call.b.shape[1]
    threads = -(-m // rows) * n
    totals = ", ".join(f"t{q}" for q in range(rows))
    kind = TYPES[call.out.dtype]
    stores = "".join(
        f"if (band() == {q} % bands() && b < {threads}{_and_guard(call, rows, q)}) p2[{_target(call, q)}] = t[{q}];\n"
        for q in range(rows)
    )
    body = (
        f"for (index_t b = first_column(); b < {-(-threads // WARP) * WARP}; b += column_step()) {{\n"
        f"const index_t i = b < {threads} ? b : {threads - 1};\n{_place(call, rows, 'i')}{_start(call, rows)}"
        f"for (index_t k = band(); k < {k}; k += bands()) {{\n{_terms(call, rows)}}}\n"
        f"{kind} t[{rows}] = {{{totals}}};\nover_bands_each(Sum(), t);\n{stores}}}\n"
    )
    return kernel_of(call.buffers, body, (-(-threads // WARP), 1), (WARP, bands))


def _place(call: Product, rows: int, linear: str) -> str:
    """The first row and the column of a thread."""
    n = call.b.shape[1]
    return f"const index_t r = {linear} / {n} * {rows}, c = {linear} % {n};\n"


def _start(call: Product, rows: int) -> str:
    kind, zero = TYPES[call.out.dtype], number(0, call.out.dtype)
    return "".join(f"{kind} t{q} = {zero};\n" for q in range(rows))


def _terms(call: Product, rows: int) -> str:
    """Add the k-th terms of the sums; rows beyond the last are computed as the last and not stored."""
    (m, _), kind = call.a.shape, TYPES[call.out.dtype]
    (down_a, across_a), (down_b, across_b) = call.a.strides, call.b.strides
    lines = [f"const {kind} y = p1[k * {down_b} + c * {across_b}];\n"]
    for q in range(rows):
        row = f"(r + {q})" if m % rows == 0 else f"(r + {q} < {m} ? r + {q} : {m - 1})"
        lines.append(f"t{q} += p0[{row} * {down_a} + k * {across_a}] * y;\n")
    return "".join(lines)


def _target(call: Product, q: int) -> str:
    return located(call.out, f"((r + {q}) * {call.b.shape[1]} + c)")


def _guard(call: Product, rows: int, q: int) -> str:
    return f"if (r + {q} < {call.a.shape[0]}) " if call.a.shape[0] % rows else ""


def _and_guard(call: Product, rows: int, q: int) -> str:
    return f" && r + {q} < {call.a.shape[0]}" if call.a.shape[0] % rows else ""
