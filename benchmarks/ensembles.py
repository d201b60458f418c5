"""``python -m benchmarks.ensembles``: an epoch of many networks at once, ours and peers', in turns.

Times are medians of rounds, in microseconds per member and step. JAX and PyTorch train all members on the same batches, as does
"same batches"; our other entries, and scikit-learn, have other batches for each member. scikit-learn trains its networks one
after the other: with joblib, its time is at best divided by the number of cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from .classifiers import data, jax_training, torch_network
from .rounds import Contestant, Timed, compete, machine

WORKLOADS = {
    "20-64-64-2, batch 200": ([20, 64, 64, 2], 20_000, 200),
    "8-32-2, batch 32": ([8, 32, 2], 1_000, 32),
    "784-16-16-10, batch 128": ([784, 16, 16, 10], 12_800, 128),
}
"""Layer sizes, rows and batch size."""


def ours(sizes: list[int], rows: int, batch: int, members: int, backend: str, share_order: bool = False) -> Timed:
    import portablenn as pnn

    X, y = data(sizes, rows)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", backend=backend)
    rates = np.geomspace(1e-4, 1e-2, members)
    settings = [{"seed": k, "optimizer.learning_rate": rate} for k, rate in enumerate(rates)]
    ens = pnn.Ensemble(net, members=settings)
    home = net.backend
    x_there, y_there = home.asarray(X), home.asarray(y)

    def epoch() -> None:
        ens.fit(x_there, y_there, batch_size=batch, share_order=share_order)
        home.synchronize()

    return epoch


def jax_vmap(sizes: list[int], rows: int, batch: int, members: int, device: str) -> Timed:
    import jax
    import jax.numpy as jnp

    X, y = data(sizes, rows)
    rng, steps = np.random.default_rng(0), rows // batch
    there = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    one, step = jax_training(sizes)
    state = jax.device_put(jax.tree.map(lambda a: jnp.broadcast_to(a, (members, *a.shape)), one), there)
    x_all, y_all = jax.device_put(X, there), jax.device_put(y.astype(np.int32), there)
    many = jax.vmap(step, in_axes=(0, None, None))

    @jax.jit
    def run(state: Any, x: Any, y: Any, order: Any) -> Any:
        return jax.lax.scan(lambda state, some: (many(state, x[some], y[some]), None), state, order)[0]

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(rows)[: steps * batch].astype(np.int32).reshape(steps, batch)
        state = run(state, x_all, y_all, jax.device_put(order, there))
        return float(state[4][0])

    return epoch


def torch_vmap(sizes: list[int], rows: int, batch: int, members: int, device: str) -> Timed:
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap

    X, y = data(sizes, rows)
    networks = [torch_network(sizes).to(device) for _ in range(members)]
    params, _ = stack_module_state(networks)
    params = {name: p.detach() for name, p in params.items()}
    optimizer = torch.optim.Adam(params.values(), fused=True)
    x_all, y_all = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)

    def loss_of(params: Any, x: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(networks[0], params, (x,)), target)

    gradients = vmap(grad_and_value(loss_of), in_dims=(0, None, None))

    def epoch() -> float:
        order, total = torch.randperm(len(y), device=device), torch.zeros(members, device=device)
        for some in order.split(batch):
            found, loss = gradients(params, x_all[some], y_all[some])
            for name, p in params.items():
                p.grad = found[name]
            optimizer.step()
            total += loss.detach()
        return float(total.sum())

    return epoch


def scikit_learn(sizes: list[int], rows: int, batch: int, members: int) -> Timed:
    from sklearn.neural_network import MLPClassifier

    X, y = data(sizes, rows)
    classes = np.arange(sizes[-1])
    networks = [MLPClassifier(sizes[1:-1], batch_size=batch, alpha=0.0, random_state=k) for k in range(members)]

    def epoch() -> None:
        for net in networks:
            net.partial_fit(X, y, classes=classes)

    return epoch


def contestants(
    sizes: list[int], rows: int, batch: int, members: int, device: str
) -> dict[str, tuple[Contestant, int]]:
    """Return the contestants by name, and how many networks each trains."""
    plain = {"sizes": sizes, "rows": rows, "batch": batch}
    many = plain | {"members": members}
    ways = {"cuda": ["cupy"], "cpu": ["numpy", "numba"]}[device]
    made: dict[str, tuple[Contestant, int]] = {}

    def add(name: str, maker: str, count: int, arguments: dict[str, Any], *packages: str) -> None:
        made[name] = Contestant(name, maker, arguments, packages), count

    for backend in ways:
        needs = () if backend == "numpy" else (backend,)
        add(f"portablenn on {backend}", "ensembles:ours", members, many | {"backend": backend}, *needs)
        add(
            f"{backend}, same batches",
            "ensembles:ours",
            members,
            many | {"backend": backend, "share_order": True},
            *needs,
        )
        add(f"{backend}, one network", "gpu:ours", 1, plain | {"backend": backend, "precision": None}, *needs)
    add("jax.vmap", "ensembles:jax_vmap", members, many | {"device": device}, "jax")
    add("torch.func.vmap", "ensembles:torch_vmap", members, many | {"device": device}, "torch")
    if device == "cpu":
        add("scikit-learn, one core", "ensembles:scikit_learn", 8, plain | {"members": 8}, "sklearn")
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--members", type=int, nargs="*", default=[256])
    options.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    options.add_argument("--only", nargs="*", default=list(WORKLOADS))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path, help="a JSON file")
    given = options.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    for title in given.only:
        sizes, rows, batch = WORKLOADS[title]
        for members in given.members:
            known = contestants(sizes, rows, batch, members, given.device)
            found = compete([contestant for contestant, _ in known.values()], given.rounds)
            print(f"\n{title}, {members} members: us per member and step, first call in s", flush=True)
            unit = {name: count * -(-rows // batch) / 1e6 for name, (_, count) in known.items()}
            for name, measured in found.items():
                print(
                    f"{name:28s} {statistics.median(measured.seconds) / unit[name]:9.3f} {measured.first:9.2f}",
                    flush=True,
                )
            results[f"{title}, {members} members"] = {
                name: {"us per member and step": [s / unit[name] for s in one.seconds], "first call, s": one.first}
                for name, one in found.items()
            }
            if given.out:
                given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
