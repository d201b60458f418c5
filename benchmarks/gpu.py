"""An epoch of several classifiers on a GPU, with the data on the device: portablenn on each library and its peers, in turns.

Writes JSON and a table after each workload. ``--device cpu --quick`` checks the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import itertools
import json
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn

from .classifiers import data, jax_training, pytorch, torch_network
from .rounds import Timed, machine
from .small_steps import three_layers_ours

NETWORKS = {
    "A": ([784, 16, 16, 10], 60_000),
    "B": ([784, 512, 512, 10], 60_000),
    "C": ([28, 256, 256, 2], 300_000),
    "D": ([20, 64, 64, 2], 100_000),
    "I": ([1024, 4096, 4096, 1024], 65_536),
}
"""Layer sizes and rows by the name of the workload."""

WORKLOADS = ("A 128", "D 200", "I 8192", "B 128", "B 8192", "C 1024", "A 1024", "C 8192", "A 8192", "D 8192")
"""Name and batch size, the most telling first."""

EPOCHS = 10
"""Epochs per call of ``fit`` where its fixed costs, such as the checks of the data, are to be spread over several."""

STEPS = 400
"""Maximum number of steps per timed call: enough to be far above the clock's resolution, few enough for slow peers."""


JAX_PRECISIONS = {None: "highest", "tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}


def ours(sizes: list[int], rows: int, batch: int, backend: str, precision: str | None, epochs: int = 1) -> Timed:
    """portablenn, with the data on the device beforehand; some ``epochs`` per call of ``fit``."""
    X, y = data(sizes, rows)
    adam = pnn.Adam(1e-3)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=adam, backend=backend, precision=precision)
    x_there, y_there = net.backend.asarray(X), net.backend.asarray(y)

    def epoch() -> object:
        net.fit(x_there, y_there, epochs=epochs, batch_size=batch)
        return net.backend.synchronize()

    epoch.epochs = epochs  # type: ignore[attr-defined]
    return epoch


def torch_graph(sizes: list[int], rows: int, batch: int, device: str, precision: str | None) -> Timed:
    """The whole step (forward, backward, optimizer) as one CUDA graph, as PyTorch's documentation shows it."""
    import torch

    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)
    X, y = data(sizes, rows)
    net = torch_network(sizes).to(device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True, capturable=True)
    loss_of = torch.nn.CrossEntropyLoss()
    x_all, y_all = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    some, total = torch.zeros(batch, dtype=torch.int64, device=device), torch.zeros((), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with half:
            loss = loss_of(net(x_all[some]), y_all[some])
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def epoch(kept: object = step) -> float:  # the graph reads the memory of what the step refers to
        total.zero_()
        for chosen in torch.randperm(len(y), device=device).split(batch):
            if len(chosen) == batch:
                some.copy_(chosen)
                graph.replay()
        return float(total)

    return epoch


def jax_scan(sizes: list[int], rows: int, batch: int, device: str, precision: str | None) -> Timed:
    """All steps of an epoch in one call."""
    import jax

    jax.config.update("jax_default_matmul_precision", JAX_PRECISIONS[precision])
    X, y = data(sizes, rows)
    rng, steps = np.random.default_rng(0), rows // batch
    there = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    state, step = jax_training(sizes)
    state = jax.device_put(state, there)
    x_all, y_all = jax.device_put(X, there), jax.device_put(y.astype(np.int32), there)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, x: Any, y: Any, order: Any) -> Any:
        return jax.lax.scan(lambda state, some: (step(state, x[some], y[some]), None), state, order)[0]

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(rows)[: steps * batch].astype(np.int32).reshape(steps, batch)
        state = run(state, x_all, y_all, jax.device_put(order, there))
        return float(state[4])

    return epoch


def products(sizes: list[int], rows: int, batch: int, device: str, precision: str | None) -> Timed:
    """Only the matrix products of an epoch's steps, by PyTorch: the limit of the device."""
    import torch

    shapes, dtype = list(itertools.pairwise(sizes)), torch.bfloat16 if precision == "bfloat16" else torch.float32
    values = [torch.randn(batch, n, device=device, dtype=dtype) for n in sizes]
    weights = [torch.randn(shape, device=device, dtype=dtype) for shape in shapes]

    def epoch() -> None:
        torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        for _ in range(rows // batch):
            for i, w in enumerate(weights):
                torch.mm(values[i], w)
                torch.mm(values[i].T, values[i + 1])
                if i:
                    torch.mm(values[i + 1], w.T)
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch


def timed(epochs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch, taken in turns after two untimed calls; what fails is left out, its reason printed."""
    for name in list(epochs):
        try:
            epochs[name]()
            epochs[name]()
        except Exception:
            print(f"{name} failed:")
            traceback.print_exc()
            del epochs[name]
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            times[name].append((time.perf_counter() - start) / getattr(epoch, "epochs", 1))
    return times


def candidates(
    device: str, sizes: list[int], rows: int, batch: int, chosen: str, precision: str | None
) -> dict[str, Timed]:
    """Return the contestants: of the ``chosen`` set "fast" (ours on CuPy and the fastest peers) or "more"."""
    plain = {"sizes": sizes, "rows": rows, "batch": batch, "device": device}
    there: dict[str, Any] = plain | {"precision": precision}
    facts = {name: value for name, value in there.items() if name != "device"}
    cuda = device == "cuda"
    fast: dict[str, tuple[str, Callable[..., Timed], dict[str, Any]]] = {
        f"portablenn on {'cupy' if cuda else 'numpy'}": (
            "cupy" if cuda else "numpy", ours, facts | {"backend": "cupy" if cuda else "numpy"}
        ),
        f"portablenn on {'cupy' if cuda else 'numpy'}, {EPOCHS} epochs per fit": (
            "cupy" if cuda else "numpy", ours, facts | {"backend": "cupy" if cuda else "numpy", "epochs": EPOCHS}
        ),
        "PyTorch, CUDA graph" if cuda else "PyTorch eager":
            ("torch", torch_graph, there) if cuda else ("torch", pytorch, plain),
        "jax.jit, scan": ("jax", jax_scan, there),
        "matrix products only": ("torch", products, there),
    }  # fmt: skip
    more = {next(iter(fast)): fast[next(iter(fast))]}
    more |= {f"portablenn on {lib}": (lib, ours, facts | {"backend": f"{lib}:{device}"}) for lib in ("torch", "jax")}
    if cuda and precision is None:
        more["PyTorch eager"] = ("torch", pytorch, plain)
        more["torch.compile"] = ("torch", pytorch, plain | {"compiled": True, "mode": "reduce-overhead"})
    epochs = {}
    for name, (package, make, arguments) in (fast if chosen == "fast" else more).items():
        if importlib.util.find_spec(package):
            try:
                epochs[name] = make(**arguments)
            except Exception as error:
                print(f"{name} is left out: {type(error).__name__}: {error}")
    return epochs


def small_steps(device: str, rounds: int, count: int) -> dict[str, list[float]]:
    """Return steps per second of workload J: the tutorial's 3-4-1 network, full batches of four rows, float64."""
    backends = {"cpu": ["numpy"], "cuda": ["cupy", "torch:cuda", "jax:cuda"]}[device]
    epochs = {  # fit reads its losses, so it waits for the device
        f"portablenn on {backend}": three_layers_ours(count, backend)
        for backend in backends
        if importlib.util.find_spec(backend.partition(":")[0])
    }
    return {name: [count / t for t in times] for name, times in timed(epochs, rounds).items()}


def on_device(device: str) -> dict[str, str]:
    facts = {"date": datetime.date.today().isoformat()} | machine()
    if device == "cuda":
        import cupy

        facts["device"] = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return facts


def table(facts: dict[str, str], results: dict[str, dict[str, list[float]]]) -> str:
    """Return Markdown: the median time of an epoch, and each ratio to the first backend of portablenn."""
    lines = [", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    for title, times in results.items():
        first = next(iter(times), None)
        lines += [f"**{title}**", "", "| | median ms | times ours: min, median, max |", "|---|---|---|"]
        for name, values in times.items():
            ratios = [theirs / mine for theirs, mine in zip(values, times[first or name], strict=True)]
            shown = "" if name == first else f"{min(ratios):.2f}, {statistics.median(ratios):.2f}, {max(ratios):.2f}"
            lines.append(f"| {name} | {statistics.median(values) * 1e3:.2f} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options.add_argument("--quick", action="store_true", help="one round of few rows, to check that the script runs")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu", help="without .json")
    options.add_argument("--only", nargs="*", default=WORKLOADS, metavar="WORKLOAD", help='such as "A 128"')
    options.add_argument("--contestants", choices=["fast", "more"], default="fast")
    options.add_argument("--precision", choices=["tf32", "bfloat16"], help="of products; full by default")
    options.add_argument("--small", action="store_true", help="workload J, the smallest steps, instead")
    options.add_argument("--seconds", type=float, default=240.0, help="start no new workload after this many seconds")
    given = options.parse_args()
    start, rounds = time.perf_counter(), 1 if given.quick else 5
    facts, results = on_device(given.device), {}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.small:
        rates = small_steps(given.device, rounds, 500 if given.quick else 20_000)
        record = {"machine": facts, "steps per second, 3-4-1": rates}
        given.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        print(*(f"{name}: {statistics.median(v):,.0f} steps per second" for name, v in rates.items()), sep="\n")
        return
    for work in given.only:
        if time.perf_counter() - start > given.seconds:
            print(f"no time left for {work}")
            continue
        name, batch = work.split()[0], int(work.split()[1])
        sizes, rows = NETWORKS[name]
        batch = min(batch, 128 if given.quick else batch)
        rows = min(rows, STEPS * batch, 1000 if given.quick else rows) // batch * batch
        title = f"{name} {'-'.join(map(str, sizes))}, batch {batch}, {rows:,} rows"
        chosen = candidates(given.device, sizes, rows, batch, given.contestants, given.precision)
        results[title] = timed(chosen, rounds)
        record = {"machine": facts, "precision": given.precision, "seconds": results}
        given.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(table(facts, results))
        print(table({}, {title: results[title]}), flush=True)


if __name__ == "__main__":
    main()
