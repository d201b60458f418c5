"""What the CUDA kernels of training steps take of a GPU, by its compiler, and what a step moves and computes: no GPU is needed.

Writes a table in Markdown. nvcc has to be there.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from portablenn_cupy import CupyBackend, schedule
from portablenn_cupy.branches import branches
from portablenn_cupy.calls import calls
from portablenn_cupy.kernels import PRELUDE, Kernel
from portablenn_cupy.small import ELEMENTS, MULTIPLICATIONS, many_steps

import portablenn as pnn
from portablenn.nn.model import Batches
from portablenn.program.precision import with_plain_products
from portablenn.program.simplify import simplify
from portablenn.runtime.kernels.buffers import ITEMSIZE
from portablenn.runtime.kernels.schedule import Product, is_small
from portablenn.testing.networks import NETWORKS as SMALL
from portablenn.testing.networks import X, targets_of
from portablenn.transforms.compile import trace_loop

from .gpu import NETWORKS

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
"""Ampere, Hopper and Blackwell."""

CALL = 1.3e-6
"""Seconds of the shortest node of a graph, as measured on an H200."""

BANDWIDTH = 3.5e12
"""Bytes per second that its kernels reach with large arrays."""

RATES = {None: 50e12, "tf32": 300e12, "bfloat16": 700e12}
"""Operations per second that cuBLAS reaches with large products of each precision."""

REGISTERS, SHARED = 65_536, 48 * 1024
"""Of a block, at most, on each of these architectures."""


def step_of(net: pnn.Network, x: np.ndarray, y: np.ndarray, batch: int) -> Any:
    """Return the program of a training step, as the plug-in gets it, and how many arrays it carries."""
    order = np.zeros((1, batch), dtype=np.int64)
    batches = Batches(x, y, None, order, net._layer_keys(), np.asarray(0, np.int32))
    program, _ = trace_loop(net.model.step, net.state, batches, net._penalty_mask())
    return simplify(with_plain_products(program, CupyBackend.precisions)), 2 + len(net.state.slots)


def compiled(kernels: Sequence[Kernel], architecture: str) -> dict[str, tuple[int, int, int]]:
    """Return registers of a thread, bytes of shared memory of a block, and bytes spilled, of each kernel by name."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.cu"
        source.write_text(PRELUDE + "".join({k.name: k.text for k in kernels}.values()))
        command = ["nvcc", "-cubin", f"-arch={architecture}", "--std=c++17", "--fmad=false", "-Xptxas", "-v"]
        done = subprocess.run(
            [*command, str(source), "-o", f"{folder}/out"], capture_output=True, text=True, check=True
        )
    found = {}
    for part in done.stderr.split("Compiling entry function")[1:]:
        name = re.findall(r"'(\w+)'", part)[0]
        registers = int(re.findall(r"Used (\d+) registers", part)[0])
        shared = int((re.findall(r"(\d+) bytes smem", part) or ["0"])[0])
        found[name] = registers, shared, sum(map(int, re.findall(r"(\d+) bytes spill", part)))
    return found


def work(call: Kernel | Product) -> float:
    """Return the time of a call's memory or of its operations, the longer one, by the model."""
    operations = (
        2.0 * math.prod(call.sizes) * call.stacked / RATES[call.precision] if isinstance(call, Product) else 0.0
    )
    return max(operations, nbytes(call) / BANDWIDTH)


def nbytes(call: Kernel | Product) -> int:
    """Return the bytes that a call reads and writes; of an input that it gathers from, as many as it writes."""
    buffers = call.buffers if isinstance(call, Product) else call.arguments
    sizes = [math.prod(n for n, s in zip(b.shape, b.strides, strict=True) if s) * ITEMSIZE[b.dtype] for b in buffers]
    gathers = [i for i, b in enumerate(buffers) if b.storage.kind == "input" and sizes[i] > sizes[-1]]
    return sum(sizes[-1] if i in gathers else size for i, size in enumerate(sizes))


def chain(made: Sequence[Kernel | Product]) -> float:
    """Return the time of the longest chain of calls that wait for each other."""
    plan, ends = branches(made), []
    for i, call in enumerate(made):
        before = [j for j in range(i) if plan.streams[j] == plan.streams[i]][-1:]
        ends.append(max(CALL, work(call)) + max((ends[j] for j in (*before, *plan.waits[i])), default=0.0))
    return max(ends)


def row(title: str, net: pnn.Network, x: np.ndarray, y: np.ndarray, batch: int) -> str:
    """Return a line of the table."""
    program, carried = step_of(net, x, y, batch)
    one = is_small(program, MULTIPLICATIONS, ELEMENTS)
    made = [many_steps(schedule(program, carried, False))] if one else calls(schedule(program, carried).instructions)
    kernels = [call for call in made if isinstance(call, Kernel)]
    facts = []
    for architecture in ARCHITECTURES:
        found = compiled(kernels, architecture)
        for kernel in kernels:
            registers, shared, _ = found[kernel.name]
            if registers * math.prod(kernel.block) > REGISTERS or shared > SHARED:
                raise SystemExit(
                    f"{title}: {kernel.name} takes {registers} registers and {shared} bytes on {architecture}"
                )
        facts.append("{}, {:,}, {:,}".format(*map(max, zip(*found.values(), strict=True))))
    graph = calls(schedule(program, carried).instructions)
    moved = sum(map(nbytes, graph)) / 1e6
    operations = sum(2.0 * math.prod(c.sizes) * c.stacked for c in graph if isinstance(c, Product)) / 1e9
    modelled = "" if one else f"{max(chain(made), sum(map(work, made))) * 1e6:,.0f}"
    nodes = "one kernel" if one else f"{len(made)} ({sum(isinstance(c, Product) for c in made)})"
    return f"| {title} | {nodes} | {' | '.join(facts)} | {moved:,.2f} | {operations:,.2f} | {modelled} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, help="the Markdown file; the screen by default")
    given = options.parse_args()
    head = ("training step", "nodes (cuBLAS)", *ARCHITECTURES, "MB", "GFLOP of cuBLAS", "modelled µs")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in ("A 128", "D 200", "B 128", "B 8192", "I 8192"):
        name, batch = one.split()[0], int(one.split()[1])
        sizes, rows = NETWORKS[name]
        x, y = np.zeros((rows, sizes[0]), np.float32), np.zeros(rows, np.int64)
        for precision in (None, "tf32", "bfloat16") if batch == 8192 else (None,):
            title = f"{'-'.join(map(str, sizes))}, batch {batch}{f', {precision}' if precision else ''}"
            adam: Any = {"optimizer": pnn.Adam(1e-3), "backend": "numpy", "precision": precision}
            lines.append(row(title, pnn.mlp(sizes, loss="softmax_cross_entropy", **adam), x, y, batch))
            print(lines[-1], flush=True)
    for name, make in SMALL.items():
        net = make(backend="numpy", dtype="float32", seed=0)
        lines.append(row(f"{name} of the tests, batch 16", net, X.astype(np.float32), targets_of(net), 16))
        print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
