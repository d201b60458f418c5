"""An epoch of a classifier: portablenn's, and each peer's as its users would write it well.

All train with Adam on softmax cross-entropy, float32, on shuffled batches gathered from a data set in memory. Each function
returns a function that runs one epoch.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .rounds import Timed


def data(sizes: list[int], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class numbers."""
    rng = np.random.default_rng(0)
    return rng.random((rows, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], rows)


def ours(sizes: list[int], rows: int, batch: int, backend: str) -> Timed:
    import portablenn as pnn

    X, y = data(sizes, rows)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", optimizer=pnn.Adam(1e-3), backend=backend)
    return lambda: net.fit(X, y, epochs=1, batch_size=batch)


def scikit_learn(sizes: list[int], rows: int, batch: int) -> Timed:
    from sklearn.neural_network import MLPClassifier

    X, y = data(sizes, rows)
    net = MLPClassifier(sizes[1:-1], batch_size=batch, alpha=0.0)
    classes = np.arange(sizes[-1])
    return lambda: net.partial_fit(X, y, classes=classes)


def torch_network(sizes: list[int]) -> Any:
    """Return linear layers with ReLU between them."""
    import torch

    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def pytorch(
    sizes: list[int], rows: int, batch: int, compiled: bool = False, mode: str | None = None, device: str = "cpu"
) -> Timed:
    import torch

    X, y = data(sizes, rows)
    net = torch_network(sizes).to(device)
    optimizer, loss_of = torch.optim.Adam(net.parameters(), fused=True), torch.nn.CrossEntropyLoss()
    x_all, y_all = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)

    def forward(x: Any, target: Any) -> Any:
        return loss_of(net(x), target)

    run = torch.compile(forward, mode=mode) if compiled else forward

    def epoch() -> float:
        order, total = torch.randperm(len(y), device=device), torch.zeros((), device=device)
        for some in order.split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = run(x_all[some], y_all[some])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(some)
        return float(total) / len(y)

    return epoch


def jax_logits(params: Any, x: Any) -> Any:
    import jax

    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x @ params[-1][0] + params[-1][1]


def jax_training(sizes: list[int]) -> tuple[Any, Any]:
    """Return a state (parameters, Adam's vectors, steps, sum of losses) and the step from one to the next."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(sizes))
    params = [(jnp.asarray(rng.normal(0, a**-0.5, (a, b)), "float32"), jnp.zeros(b, "float32")) for a, b in shapes]
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = [params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), "float32"), jnp.zeros((), "float32")]

    def loss_of(params: Any, x: Any, target: Any) -> Any:
        logits = jax.nn.log_softmax(jax_logits(params, x))
        return -jnp.mean(jnp.take_along_axis(logits, target[:, None], axis=1))

    def step(state: Any, x: Any, target: Any) -> Any:
        params, m, v, t, total = state
        loss, g = jax.value_and_grad(loss_of)(params, x, target)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        params = jax.tree.map(
            lambda p, m, v: p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), params, m, v
        )
        return [params, m, v, t, total + loss * x.shape[0]]

    return state, step


def jax_jit(sizes: list[int], rows: int, batch: int) -> Timed:
    import jax
    import jax.numpy as jnp

    X, y = data(sizes, rows)
    rng = np.random.default_rng(0)
    state, step = jax_training(sizes)
    x_all, y_all = jnp.asarray(X), jnp.asarray(y)
    run = functools.partial(jax.jit, donate_argnums=0)(lambda state, x, y, some: step(state, x[some], y[some]))

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(len(y)).astype(np.int32)
        for start in range(0, len(y), batch):
            state = run(state, x_all, y_all, order[start : start + batch])
        return float(state[4])

    return epoch


def keras_on_jax(sizes: list[int], rows: int, batch: int) -> Timed:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    X, y = data(sizes, rows)
    layers = [keras.layers.Dense(n, activation="relu") for n in sizes[1:-1]] + [keras.layers.Dense(sizes[-1])]
    net = keras.Sequential(layers)
    net.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return lambda: net.fit(X, y, batch_size=batch, epochs=1, verbose=0)


def thinc(sizes: list[int], rows: int, batch: int) -> Timed:
    from thinc.api import Adam, Relu, Softmax, chain

    X, y = data(sizes, rows)
    net = chain(*(Relu(n) for n in sizes[1:-1]), Softmax(sizes[-1]))
    targets = np.eye(sizes[-1], dtype=np.float32)[y]
    net.initialize(X=X[:5], Y=targets[:5])
    optimizer = Adam(1e-3)

    def epoch() -> None:
        for x, target in net.ops.multibatch(batch, X, targets, shuffle=True):
            guess, backpropagate = net.begin_update(x)
            backpropagate((guess - target) / len(x))
            net.finish_update(optimizer)

    return epoch


def limit(sizes: list[int], rows: int, batch: int) -> Timed:
    """Only the matrix products of each step, and one pass over the bytes that must move: rows, parameters, Adam's vectors."""
    X, _ = data(sizes, rows)
    rng = np.random.default_rng(1)
    order = rng.permutation(rows)
    weights = [rng.random(shape, dtype=np.float32) for shape in itertools.pairwise(sizes)]
    vectors = [np.zeros(sum(w.size for w in weights), dtype=np.float32) for _ in range(3)]

    def buffers(count: int) -> list[Any]:
        values = [np.zeros((count, n), dtype=np.float32) for n in sizes]
        return [values, [np.zeros_like(v) for v in values], [np.zeros_like(w) for w in weights]]

    kept = {count: buffers(count) for count in {batch, rows % batch or batch}}

    def epoch() -> None:
        for start in range(0, rows, batch):
            some = order[start : start + batch]
            values, back, gradients = kept[len(some)]
            np.take(X, some, axis=0, out=values[0], mode="wrap")
            for i, w in enumerate(weights):
                np.dot(values[i], w, out=values[i + 1])
            for i in reversed(range(len(weights))):
                np.dot(values[i].T, back[i + 1], out=gradients[i])
                if i:
                    np.dot(back[i + 1], weights[i].T, out=back[i])
            for vector in vectors:
                np.negative(vector, out=vector)

    return epoch


def predict_ours(sizes: list[int], rows: int, backend: str) -> Timed:
    import portablenn as pnn

    X, y = data(sizes, rows)
    net = pnn.mlp(sizes, loss="softmax_cross_entropy", backend=backend)
    net.fit(X[:100], y[:100])
    return lambda: net.predict(X)


def predict_scikit_learn(sizes: list[int], rows: int) -> Timed:
    from sklearn.neural_network import MLPClassifier

    X, y = data(sizes, rows)
    net = MLPClassifier(sizes[1:-1], max_iter=1).partial_fit(X[:100], y[:100], classes=np.arange(sizes[-1]))
    return lambda: net.predict(X)


def predict_pytorch(sizes: list[int], rows: int) -> Timed:
    import torch

    X, _ = data(sizes, rows)
    net, x_all = torch_network(sizes), torch.from_numpy(X)

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([net(x).argmax(1) for x in x_all.split(8192)]).numpy()

    return predict


def predict_jax(sizes: list[int], rows: int) -> Timed:
    import jax
    import jax.numpy as jnp

    X, _ = data(sizes, rows)
    params, x_all = jax_training(sizes)[0][0], jnp.asarray(X)
    classes = jax.jit(lambda params, x: jnp.argmax(jax_logits(params, x), axis=1))
    return lambda: np.asarray(classes(params, x_all))


def _serve(predict: Callable[[np.ndarray], Any], sizes: list[int], calls: int) -> Timed:
    """Return ``calls`` predictions of one row."""
    row = data(sizes, 100)[0][:1].copy()

    def run() -> None:
        for _ in range(calls):
            predict(row)

    return run


def serve_ours(sizes: list[int], calls: int, backend: str) -> Timed:
    import portablenn as pnn

    return _serve(pnn.mlp(sizes, loss="softmax_cross_entropy", backend=backend).predict, sizes, calls)


def serve_predictor(sizes: list[int], calls: int) -> Timed:
    """A function for one row."""
    import portablenn as pnn

    return _serve(pnn.mlp(sizes, loss="softmax_cross_entropy", backend="numpy").predictor(), sizes, calls)


def serve_estimator(sizes: list[int], calls: int) -> Timed:
    from portablenn.sklearn import MLPClassifier

    X, y = data(sizes, 100)
    net = MLPClassifier(sizes[1:-1], backend="numpy").partial_fit(X, y, classes=np.arange(sizes[-1]))
    return _serve(net.predict, sizes, calls)


def serve_scikit_learn(sizes: list[int], calls: int) -> Timed:
    from sklearn.neural_network import MLPClassifier

    X, y = data(sizes, 100)
    net = MLPClassifier(sizes[1:-1]).partial_fit(X, y, classes=np.arange(sizes[-1]))
    return _serve(net.predict, sizes, calls)


def serve_pytorch(sizes: list[int], calls: int) -> Timed:
    import torch

    net = torch_network(sizes)

    def predict(row: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(row)).argmax(1).numpy()

    return _serve(predict, sizes, calls)


def serve_by_hand(sizes: list[int], calls: int) -> Timed:
    """Products, biases and ReLU in NumPy, without any check."""
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=pair).astype("float32"), np.zeros(pair[1], "float32")) for pair in itertools.pairwise(sizes)
    ]

    def predict(x: np.ndarray) -> np.ndarray:
        for kernel, bias in layers[:-1]:
            x = np.maximum(x @ kernel + bias, 0)
        kernel, bias = layers[-1]
        return np.argmax(x @ kernel + bias, axis=1)

    return _serve(predict, sizes, calls)
