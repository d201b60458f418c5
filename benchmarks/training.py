"""An epoch of four classifiers (float32, Adam, softmax cross-entropy, shuffled batches): ours and its peers, in turn.

Peers are those that are installed, each as its users would write it: scikit-learn's MLPClassifier, PyTorch eager with
its fused Adam, and JAX with one jitted step and donated buffers.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable

import numpy as np
from rounds import machine, report, seconds

import portablenn as pnn

WORKLOADS = {
    "A 784-16-16-10, batch 128": ([784, 16, 16, 10], 60_000, 128),
    "B 784-512-512-10, batch 128": ([784, 512, 512, 10], 20_000, 128),
    "C 28-256-256-2, batch 1024": ([28, 256, 256, 2], 300_000, 1024),
    "D 20-64-64-2, batch 200": ([20, 64, 64, 2], 100_000, 200),
}
Epoch = Callable[[], object]


def ours(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int) -> Epoch:
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=pnn.Adam(1e-3), backend="numpy")
    return lambda: net.fit(X, y, epochs=1, batch_size=batch)


def scikit_learn(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int) -> Epoch:
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(sizes[1:-1], batch_size=batch, alpha=0.0)
    classes = np.arange(sizes[-1])
    return lambda: net.partial_fit(X, y, classes=classes)


def pytorch(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int) -> Epoch:
    import torch

    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    optimizer, loss_of = torch.optim.Adam(net.parameters(), fused=True), torch.nn.CrossEntropyLoss()
    x_all, y_all = torch.from_numpy(X), torch.from_numpy(y)

    def epoch() -> float:
        order, total = torch.randperm(len(y)), torch.zeros(())
        for rows in order.split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(net(x_all[rows]), y_all[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return float(total) / len(y)

    return epoch


def jax_jit(sizes: list[int], X: np.ndarray, y: np.ndarray, batch: int) -> Epoch:
    import functools

    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(sizes))
    params = [(jnp.asarray(rng.normal(0, a**-0.5, (a, b)), "float32"), jnp.zeros(b, "float32")) for a, b in shapes]
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = [params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), "float32"), jnp.zeros((), "float32")]
    x_all, y_all = jnp.asarray(X), jnp.asarray(y)

    def loss_of(params, x, target):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        logits = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
        return -jnp.mean(jnp.take_along_axis(logits, target[:, None], axis=1))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x_all, y_all, rows):
        params, m, v, t, total = state
        loss, g = jax.value_and_grad(loss_of)(params, x_all[rows], y_all[rows])
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        params = jax.tree.map(
            lambda p, m, v: p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), params, m, v
        )
        return [params, m, v, t, total + loss * rows.shape[0]]

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(len(y)).astype(np.int32)
        for start in range(0, len(y), batch):
            state = step(state, x_all, y_all, order[start : start + batch])
        return float(state[4])

    return epoch


PEERS = {"scikit-learn": ("sklearn", scikit_learn), "PyTorch eager": ("torch", pytorch), "jax.jit": ("jax", jax_jit)}


def main() -> None:
    print(machine())
    for title, (sizes, rows, batch) in WORKLOADS.items():
        rng = np.random.default_rng(0)
        X, y = rng.random((rows, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], rows)
        epochs = {"portablenn": ours(sizes, X, y, batch)}
        for name, (package, peer) in PEERS.items():
            if importlib.util.find_spec(package):
                epochs[name] = peer(sizes, X, y, batch)
        report(f"{title}, {rows:,} rows", seconds(epochs, rounds=5))


if __name__ == "__main__":
    main()
