"""Steps so small that overhead dominates arithmetic: the 3-4-1 network, online training, many small fits.

Each function returns a function that runs all steps.
"""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .rounds import Timed

INPUTS = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=float)
TARGETS = np.array([[0.0], [1], [1], [0]])


def three_layers_ours(steps: int, backend: str) -> Timed:
    """Full batches of four rows, as in the tutorial "a neural network in 11 lines"."""
    import portablenn as pnn

    loss = pnn.losses.HalfSquaredError(reduction="sum")
    layers = [pnn.Dense(n, "sigmoid", use_bias=False, kernel_init="uniform") for n in (4, 1)]
    net = pnn.Network(layers, 3, loss, pnn.SGD(1.0), backend=backend, dtype="float64", seed=1)
    return lambda: net.fit(INPUTS, TARGETS, epochs=steps, batch_size=None)


def three_layers_by_hand(steps: int) -> Timed:
    """The tutorial's loop, without its prints."""

    def loop() -> None:
        X, y = INPUTS, TARGETS
        rng = np.random.RandomState(1)
        syn0, syn1 = 2 * rng.random_sample((3, 4)) - 1, 2 * rng.random_sample((4, 1)) - 1
        for _ in range(steps):
            l0 = X
            l1 = 1 / (1 + np.exp(-(np.dot(l0, syn0))))
            l2 = 1 / (1 + np.exp(-(np.dot(l1, syn1))))
            l2_error = y - l2
            l2_delta = l2_error * (l2 * (1 - l2))
            l1_error = l2_delta.dot(syn1.T)
            l1_delta = l1_error * (l1 * (1 - l1))
            syn1 += l1.T.dot(l2_delta)
            syn0 += l0.T.dot(l1_delta)

    return loop


def three_layers_jax(steps: int) -> Timed:
    """``jax.lax.fori_loop`` around a step written by hand."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, y = jnp.asarray(INPUTS), jnp.asarray(TARGETS)
    rng = np.random.RandomState(1)
    start = jnp.asarray(2 * rng.random_sample((3, 4)) - 1), jnp.asarray(2 * rng.random_sample((4, 1)) - 1)

    def step(_: Any, weights: Any) -> Any:
        syn0, syn1 = weights
        l1 = jax.nn.sigmoid(X @ syn0)
        l2 = jax.nn.sigmoid(l1 @ syn1)
        l2_delta = (y - l2) * l2 * (1 - l2)
        l1_delta = (l2_delta @ syn1.T) * l1 * (1 - l1)
        return syn0 + X.T @ l1_delta, syn1 + l1.T @ l2_delta

    run = jax.jit(lambda weights: jax.lax.fori_loop(0, steps, step, weights))
    return lambda: jax.block_until_ready(run(start))


ROWS = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
PARITY = ROWS.sum(axis=1, keepdims=True) % 2


def online_ours(steps: int, backend: str) -> Timed:
    """One row per step, in random order."""
    import portablenn as pnn

    facts = {"loss": "half_squared_error", "optimizer": pnn.SGD(0.1), "dtype": "float64"}
    net = pnn.mlp([3, 8, 1], "sigmoid", backend=backend, **facts)
    return lambda: net.fit(ROWS, PARITY, epochs=steps // 8, batch_size=1)


def online_by_hand(steps: int) -> Timed:
    """The same in NumPy, one row at a time."""

    def loop() -> None:
        rng = np.random.default_rng(0)
        w1, b1, w2, b2 = rng.normal(size=(3, 8)), np.zeros(8), rng.normal(size=(8, 1)), np.zeros(1)
        for _ in range(steps // 8):
            for i in rng.permutation(8):
                x, y = ROWS[i : i + 1], PARITY[i : i + 1]
                hidden = 1 / (1 + np.exp(-(x @ w1 + b1)))
                error = hidden @ w2 + b2 - y
                back = (error @ w2.T) * hidden * (1 - hidden)
                w2 -= 0.1 * (hidden.T @ error)
                b2 -= 0.1 * error[0]
                w1 -= 0.1 * (x.T @ back)
                b1 -= 0.1 * back[0]

    return loop


def tracing_ours(sizes: list[int], backend: str) -> Timed:
    """Trace and compile a training step again; no step is run."""
    import portablenn as pnn
    from portablenn.nn.model import Batches
    from portablenn.transforms.compile import prepared, trace_loop

    X, order = np.zeros((256, sizes[0]), dtype=np.float32), np.zeros((2, 128), dtype=np.int64)
    y = np.zeros(256, dtype=np.int64)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=pnn.Adam(1e-3), backend=backend)

    def run() -> None:
        batches = Batches(X, y, None, order, None, np.asarray(0, dtype=np.int32))
        traced, _ = trace_loop(net.model.step, net.state, batches, None)
        program = prepared(traced, net.backend)
        loop = net.backend.compile_loop(program, 4)
        assert loop.source  # the source is generated here

    return run


def tracing_jax(sizes: list[int]) -> Timed:
    """``jax.jit`` of a hand-written step, traced and compiled again."""
    import jax
    import jax.numpy as jnp

    from .classifiers import jax_training

    state, step = jax_training(sizes)
    x, y = jnp.zeros((128, sizes[0]), "float32"), jnp.zeros(128, "int32")

    def run() -> None:
        jax.clear_caches()
        jax.jit(step).lower(state, x, y).compile()

    return run


SCRIPTS = {
    "ours": """import portablenn as pnn
net = pnn.mlp([5, 8, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(0.01), backend={backend!r})
net.fit(X, y, epochs=10, batch_size=20)""",
    "scikit_learn": """from sklearn.neural_network import MLPClassifier
MLPClassifier((8,), learning_rate_init=0.01, batch_size=20, max_iter=10).fit(X, y)""",
    "pytorch": """import torch
net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=0.01), torch.nn.CrossEntropyLoss()
x_all, y_all = torch.from_numpy(X), torch.from_numpy(y)
for _ in range(10):
    for some in torch.randperm(200).split(20):
        optimizer.zero_grad()
        loss_of(net(x_all[some]), y_all[some]).backward()
        optimizer.step()""",
    "nothing": "",
}
DATA = """import warnings
warnings.simplefilter("ignore")
import numpy as np
X = np.random.default_rng(0).random((200, 5), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)
"""


def start_up(kind: str, backend: str = "") -> Timed:
    """A new Python process that imports NumPy, makes 200 rows, imports a library and fits ten epochs of ten steps."""
    command = [sys.executable, "-c", DATA + SCRIPTS[kind].format(backend=backend)]
    return lambda: subprocess.run(command, check=True)


def importing(statement: str, backend: str = "") -> Timed:
    """A new Python process with one statement."""
    command = [sys.executable, "-c", statement]
    return lambda: subprocess.run(command, check=True)


def fits_ours(fits: int, backend: str) -> Timed:
    """A thousand small fits with different seeds: 200 rows, ten epochs of ten steps."""
    import portablenn as pnn

    X, y = _small()

    def run() -> None:
        for seed in range(fits):
            net = pnn.mlp([5, 8, 2], loss="softmax_cross_entropy", optimizer=pnn.Adam(0.01), backend=backend, seed=seed)
            net.fit(X, y, epochs=10, batch_size=20)

    return run


def quietly(run: Callable[[], None]) -> Timed:
    """Return ``run`` without warnings, such as those of too few epochs."""

    def quiet() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()

    return quiet


def fits_scikit_learn(fits: int) -> Timed:
    from sklearn.neural_network import MLPClassifier

    X, y = _small()

    def run() -> None:
        for seed in range(fits):
            net = MLPClassifier((8,), learning_rate_init=0.01, batch_size=20, max_iter=10, random_state=seed)
            net.fit(X, y)

    return quietly(run)


def _small() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).random((200, 5), dtype=np.float32)
    return X, (X[:, 0] > X[:, 1]).astype(int)


def estimators(package: str, epochs: int, **parameters: Any) -> Timed:
    """Fit a perceptron of 100 units to each of four data sets that come with scikit-learn, standardized."""
    from sklearn import datasets
    from sklearn.preprocessing import scale

    module, tasks = importlib.import_module(package), []
    for name in ("breast_cancer", "wine", "digits", "diabetes"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        regression = name == "diabetes"
        kind = module.MLPRegressor if regression else module.MLPClassifier
        tasks.append((scale(X), scale(y) if regression else y, kind))

    def run() -> None:
        for X, y, kind in tasks:
            kind(max_iter=epochs, tol=0.0, n_iter_no_change=epochs, random_state=0, **parameters).fit(X, y)

    return quietly(run)
