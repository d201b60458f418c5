"""An epoch of some classifiers on a GPU, data on the device: ours on each library, and its peers there, in turn.

Peers: PyTorch eager with its fused Adam, PyTorch with torch.compile(mode="reduce-overhead"), which is a CUDA graph, and
JAX with one jitted step and donated buffers. Writes JSON and a table. ``--device cpu --quick`` tries the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn

NETWORKS = {
    "A 784-16-16-10": ([784, 16, 16, 10], 60_000),
    "B 784-512-512-10": ([784, 512, 512, 10], 20_000),
    "C 28-256-256-2": ([28, 256, 256, 2], 300_000),
    "D 20-64-64-2": ([20, 64, 64, 2], 100_000),
}
LARGE = {"I 1024-4096-4096-1024": ([1024, 4096, 4096, 1024], 65_536)}
STEPS = 400
"""Steps a timed call, at most: enough to be far above the clock's grain, few enough for slow peers."""


def ours(backend: str, sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int) -> tuple[Callable[[], object], str]:
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=pnn.Adam(1e-3), backend=backend)
    x_there, y_there = net.backend.asarray(X), net.backend.asarray(y)

    def epoch() -> object:
        net.fit(x_there, y_there, epochs=1, batch_size=batch)
        return net.backend.synchronize()

    return epoch, backend


def pytorch(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int, device: str, compiled: bool) -> Any:
    import torch

    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer, loss_of = torch.optim.Adam(net.parameters(), fused=True), torch.nn.CrossEntropyLoss()
    x_all, y_all = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)

    def forward(x: Any, target: Any) -> Any:
        return loss_of(net(x), target)

    run = torch.compile(forward, mode="reduce-overhead") if compiled else forward

    def epoch() -> float:
        order, total = torch.randperm(len(y), device=device), torch.zeros((), device=device)
        for rows in order.split(batch):
            if len(rows) < batch:
                break
            optimizer.zero_grad(set_to_none=True)
            loss = run(x_all[rows], y_all[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    return epoch


def torch_graph(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int, device: str) -> Any:
    """The whole step, forward, backward and optimiser, as one CUDA graph, as PyTorch's documentation shows it."""
    import torch

    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True, capturable=True)
    loss_of = torch.nn.CrossEntropyLoss()
    x_all, y_all = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    rows, total = torch.zeros(batch, dtype=torch.int64, device=device), torch.zeros((), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(net(x_all[rows]), y_all[rows])
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

    def epoch() -> float:
        total.zero_()
        for some in torch.randperm(len(y), device=device).split(batch):
            if len(some) == batch:
                rows.copy_(some)
                graph.replay()
        return float(total)

    return epoch


def jax_jit(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int, device: str) -> Any:
    import functools

    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")
    rng = np.random.default_rng(0)
    there = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    shapes = list(itertools.pairwise(sizes))
    params = [(jnp.asarray(rng.normal(0, a**-0.5, (a, b)), "float32"), jnp.zeros(b, "float32")) for a, b in shapes]
    zeros = jax.tree.map(jnp.zeros_like, params)
    zero = jnp.zeros((), "float32")
    state = jax.device_put([params, zeros, jax.tree.map(jnp.zeros_like, params), zero, zero + 0.0], there)
    x_all, y_all = jax.device_put(X, there), jax.device_put(y.astype(np.int32), there)

    def loss_of(params: Any, x: Any, target: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        logits = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
        return -jnp.mean(jnp.take_along_axis(logits, target[:, None], axis=1))

    def step(state: Any, rows: Any) -> Any:
        params, m, v, t, total = state
        loss, g = jax.value_and_grad(loss_of)(params, x_all[rows], y_all[rows])
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        params = jax.tree.map(
            lambda p, m, v: p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), params, m, v
        )
        return [params, m, v, t, total + loss], None

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, order: Any) -> Any:
        return jax.lax.scan(step, state, order)[0]

    steps = len(y) // batch

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(len(y))[: steps * batch].astype(np.int32).reshape(steps, batch)
        state = run(state, jax.device_put(order, there))
        return float(state[4])

    return epoch


def timed(epochs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, in turn, after two that are not counted; what fails is left out, with its reason printed."""
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
            times[name].append(time.perf_counter() - start)
    return times


def candidates(
    device: str, sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int
) -> dict[str, Callable[[], object]]:
    makers: dict[str, tuple[str, Callable[[], Any]]] = {}
    named = {"cpu": ["numpy", "torch:cpu", "jax:cpu"], "cuda": ["cupy", "torch:cuda", "jax:cuda"]}[device]
    for backend in named:
        library = backend.partition(":")[0]
        makers[f"portablenn on {library}"] = (library, lambda b=backend: ours(b, sizes, X, y, batch)[0])
    makers["PyTorch eager"] = ("torch", lambda: pytorch(sizes, X, y, batch, device, compiled=False))
    if device == "cuda":
        makers["torch.compile"] = ("torch", lambda: pytorch(sizes, X, y, batch, device, compiled=True))
        makers["PyTorch, CUDA graph"] = ("torch", lambda: torch_graph(sizes, X, y, batch, device))
    makers["jax.jit, scan"] = ("jax", lambda: jax_jit(sizes, X, y, batch, device))
    epochs = {}
    for name, (package, make) in makers.items():
        if importlib.util.find_spec(package):
            try:
                epochs[name] = make()
            except Exception as error:
                print(f"{name} cannot be made: {type(error).__name__}: {error}")
    return epochs


def small_steps(device: str, rounds: int, count: int) -> dict[str, list[float]]:
    """J: the 3-4-1 network of the tutorial, full batches of four rows, float64; steps a second."""
    X = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=float)
    y = np.array([[0.0], [1], [1], [0]])
    rates: dict[str, list[float]] = {}
    for backend in {"cpu": ["numpy"], "cuda": ["cupy", "torch:cuda", "jax:cuda"]}[device]:
        if not importlib.util.find_spec(backend.partition(":")[0]):
            continue
        net = pnn.mlp(
            [3, 4, 1], "sigmoid", loss="half_squared_error", optimizer=pnn.SGD(1.0), backend=backend, dtype="float64"
        )
        net.fit(X, y, epochs=count)
        for _ in range(rounds):
            start = time.perf_counter()
            net.fit(X, y, epochs=count)
            net.backend.synchronize()
            rates.setdefault(f"portablenn on {backend}", []).append(count / (time.perf_counter() - start))
    return rates


def machine(device: str) -> dict[str, str]:
    """What it ran on."""
    facts = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "processor": platform.machine(),
    }
    for package in ("numpy", "cupy", "torch", "jax", "array_api_compat"):
        if importlib.util.find_spec(package):
            facts[package] = str(getattr(importlib.import_module(package), "__version__", ""))
    if device == "cuda":
        import cupy

        facts["device"] = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return facts


def table(facts: dict[str, str], results: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: median seconds of an epoch, and each peer's ratio to the first of ours."""
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
    options.add_argument("--quick", action="store_true", help="one round of few rows: does the script run?")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--seconds", type=float, default=240.0, help="no new workload is begun after this long")
    given = options.parse_args()
    begun, rounds = time.perf_counter(), 1 if given.quick else 5
    facts, results = machine(given.device), {}
    batches = [128] if given.quick else [128, 1024, 8192]
    works = [(f"{name}, batch {b}", *NETWORKS[name], b) for b in batches for name in NETWORKS]
    works += [] if given.quick else [(f"{name}, batch 8192", *LARGE[name], 8192) for name in LARGE]
    rng = np.random.default_rng(0)
    for title, sizes, rows, batch in works:
        if time.perf_counter() - begun > given.seconds:
            print(f"no time is left for {title}")
            continue
        rows = min(rows, STEPS * batch, 1000 if given.quick else rows) // batch * batch
        X, y = rng.random((rows, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], rows)
        results[f"{title}, {rows:,} rows"] = timed(candidates(given.device, sizes, X, y, batch), rounds)
        print(table(facts, {title: results[f"{title}, {rows:,} rows"]}), flush=True)
    rates = small_steps(given.device, rounds, 500 if given.quick else 20_000)
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"{facts['date']}-{facts.get('device', given.device).replace(' ', '-')}"
    record = {"machine": facts, "seconds": results, "steps a second, 3-4-1": rates}
    (given.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    shown = "\n".join(f"| {k} | {statistics.median(v):,.0f} |" for k, v in rates.items())
    text = table(facts, results) + f"\n**J 3-4-1, float64, 4 rows**\n\n| | steps a second |\n|---|---|\n{shown}\n"
    (given.out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
