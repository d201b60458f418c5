"""Each kernel and product of a training step on CuPy, one by one: its time beside the bytes and operations it needs.

A call is repeated in a CUDA graph of its own, so that launching costs nothing, on the same data each time: what fits in the
cache is read from there. Sorted by time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn
from portablenn.data.chunks import Batching
from portablenn.nn.model import Batches
from portablenn.runtime.arrays import to_numpy
from portablenn.runtime.kernels.buffers import ITEMSIZE
from portablenn.runtime.kernels.schedule import Product
from portablenn.testing.networks import compiled_for
from portablenn.training.members import TrainedMembers
from portablenn.training.step import compiled_steps

from .classifiers import data
from .gpu import NETWORKS

REPEATS = 20
"""Maximum number of calls per graph."""


class Step:
    """A training step, of one network or of many, after it has run: its loop, and the arrays that it reads."""

    def __init__(self, run: Any, call: Callable[[int], Any], count: int) -> None:
        self.count = count
        call(self.count)  # which compares it with the interpreter
        self.loop = run.loop._fast  # type: ignore[attr-defined]
        launcher = self.loop._launcher

        def watched(carry: Any, inputs: Any) -> Any:
            self.carry, self.inputs = carry, [self.loop.copies.get(i, array) for i, array in enumerate(inputs)]
            return launcher(carry, inputs)

        self.loop._launcher = watched
        call(self.count)

    def seconds(self, launch: Any, times: int) -> float:
        """Return the device's median seconds of ``launch``; the step's counter starts at zero each time."""
        import cupy

        found = []
        with self.loop.device.active():
            for _ in range(6):
                self.loop._load_carry(self.carry)
                start, end = cupy.cuda.Event(), cupy.cuda.Event()
                start.record()
                for _ in range(times):
                    launch()
                end.record()
                end.synchronize()
                found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3 / times)
        return float(np.median(found[1:]))

    def measured(self) -> dict[str, Any]:
        """Return the seconds of the whole step, and of each call with its bytes and operations."""
        loop, calls = self.loop, []
        repeats = min(REPEATS, self.count)  # each collects a row
        step = self.seconds(next(iter(loop.captured.values())).launch, self.count)
        for call in loop.calls:
            with loop.device.active():
                graph = loop.device.capture(lambda call=call: loop._run([call] * repeats, self.inputs))
            fact: dict[str, Any] = {"seconds": self.seconds(graph.launch, 1) / repeats}
            if isinstance(call, Product):
                m, k, n = call.sizes
                times = f"{call.stacked} of " if call.stacked > 1 else ""
                fact |= {"name": f"product {times}{m}x{k}x{n}", "operations": 2 * m * n * k * call.stacked}
                buffers: Any = call.buffers
            else:
                buffers = call.arguments
                shapes = " ".join(f"{b.storage.kind}{list(b.shape)}" for b in buffers)
                fact |= {
                    "name": call.name,
                    "grid": call.grid,
                    "block": call.block,
                    "buffers": shapes,
                    "text": call.text,
                }
            seen = {(id(b.storage), b.offset): _nbytes(b) for b in buffers}
            calls.append(fact | {"bytes": sum(seen.values())})
        return {"step": step, "how": loop.how, "calls": calls}


def step_of_network(sizes: list[int], rows: int, batch: int, precision: str | None) -> Step:
    x, y = data(sizes, rows)
    adam = pnn.Adam(1e-3)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=adam, backend="cupy", precision=precision)
    order = np.random.default_rng(0).permutation(rows)[: rows // batch * batch].reshape(-1, batch)
    return Step(*compiled_for(net, x, y, order), len(order))


def step_of_members(sizes: list[int], rows: int, batch: int, precision: str | None, members: int) -> Step:
    """Return the step of networks with other rates and batches."""
    x, y = data(sizes, rows)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", backend="cupy", precision=precision)
    rates = np.geomspace(1e-4, 1e-2, members)
    settings = [{"seed": k, "optimizer.learning_rate": rate} for k, rate in enumerate(rates)]
    ens, home = pnn.Ensemble(net, members=settings), net.backend
    (group,) = ens._groups
    count = rows // batch
    batching = Batching(count * batch, batch, "shuffle", count * batch)
    trained = TrainedMembers(group, ens.networks, home, batching, share_order=False)
    order = to_numpy(trained.orders(0, 1))
    rows_of_steps = home.indices(order.reshape(members, count, batch))
    first = home.asarray(np.asarray(0, dtype=np.int32))
    batches = Batches(home.asarray(x), home.asarray(y), None, rows_of_steps, trained.keys, first)
    given = trained.state, batches, trained.penalty_mask, trained.values
    run = compiled_steps(trained.stack, home, *given)
    return Step(run, lambda steps: run(steps, *given), count)


def _nbytes(buffer: Any) -> int:
    """Return the bytes of the elements of a buffer; those that a broadcast repeats count once."""
    lengths = (n for n, stride in zip(buffer.shape, buffer.strides, strict=True) if stride)
    return math.prod(lengths) * ITEMSIZE[buffer.dtype]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="the JSON file")
    options.add_argument("--only", nargs="*", default=["A 128", "D 200", "B 128", "B 8192", "I 8192"])
    options.add_argument("--precision", choices=["tf32", "bfloat16"], help="of products; full by default")
    options.add_argument("--members", type=int, help="of an ensemble; one network by default")
    given = options.parse_args()
    os.environ["PORTABLENN_CUPY"] = "graph"
    results = {}
    for work in given.only:
        name, batch = work.split()[0], int(work.split()[1])
        sizes, rows = NETWORKS[name]
        facts = sizes, min(rows, 20 * batch), batch, given.precision
        step = step_of_members(*facts, given.members) if given.members else step_of_network(*facts)
        found = results[work] = step.measured()
        given.out.write_text(json.dumps(results, indent=1) + "\n")
        total = sum(c["seconds"] for c in found["calls"])
        print(f"\n{work}: {found['how']}; step {found['step'] * 1e6:.1f} us, sum of calls {total * 1e6:.1f} us")
        for c in sorted(found["calls"], key=lambda c: -c["seconds"]):
            rate = f"{c['bytes'] / c['seconds'] / 1e9:7.0f} GB/s"
            if "operations" in c:
                rate += f" {c['operations'] / c['seconds'] / 1e12:6.1f} TFLOP/s"
            print(f"{c['seconds'] * 1e6:9.2f} us {rate}  {c['name']} {c.get('grid', '')} {c.get('buffers', '')[:90]}")


if __name__ == "__main__":
    main()
