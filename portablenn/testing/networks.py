"""Small networks of every kind, and the deviation of training on a backend from training on NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..nn import schedules
from ..nn.layers import BatchNorm, Dense, Dropout, NTKDense, PeriodicEmbedding, Scale
from ..nn.losses import SoftmaxCrossEntropy
from ..nn.model import Batches
from ..nn.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from ..program.ir import dtype_name
from ..runtime.backend import NUMPY, Backend
from ..training.mlp import mlp
from ..training.network import Network
from ..training.step import compiled_steps

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(96, 6))
CLASSES = _RNG.integers(0, 4, 96)
VALUES = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)

NETWORKS: dict[str, Callable[..., Network]] = {
    "linear": lambda **f: mlp([6, 2], optimizer=SGD(0.05), **f),
    "relu": lambda **f: mlp([6, 16, 8, 4], loss="softmax_cross_entropy", optimizer=Adam(1e-3), **f),
    "sigmoid": lambda **f: mlp([6, 8, 4], "sigmoid", loss="sigmoid_cross_entropy", optimizer=SGD(0.1, momentum=0.9), **f),
    "tanh": lambda **f: mlp([6, 8, 2], "tanh", loss="huber", optimizer=RMSprop(1e-3, l2=0.01), **f),
    "gelu": lambda **f: mlp([6, 8, 2], "gelu", loss="poisson", optimizer=Adagrad(0.01, clip_norm=1.0), **f),
    "hinge": lambda **f: mlp([6, 8, 4], "elu", loss="hinge", optimizer=AdamW(1e-3), **f),
    "deep": lambda **f: Network(
        [Dense(16, "silu"), BatchNorm(), Dropout(0.3), Dense(8, "softplus"), Dropout(0.1), Dense(4)],
        inputs=6,
        loss="softmax_cross_entropy",
        optimizer=Adam(schedules.CosineDecay(1e-3, 100)),
        **f,
    ),
    "tables": lambda **f: Network(
        [PeriodicEmbedding(3, 4, rate=0.5, columns=2), Scale(6.0), NTKDense(16, "mish"), NTKDense(8, "selu"), NTKDense(4)],
        inputs=6,
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        optimizer=Adam(schedules.CosLog(0.02, 30), beta_2=0.95),
        **f,
    ),
}  # fmt: skip
"""Functions of ``backend``, ``dtype`` and ``seed`` that return a network for `X`."""

TOLERANCES = {("float64", 1): 1e-12, ("float32", 1): 1e-5, ("float64", 20): 1e-9, ("float32", 20): 1e-4}
"""Largest deviation of the parameters from the float64 oracle's, by dtype and number of steps: max |a - b| / max |b|."""


def targets_of(network: Network) -> np.ndarray:
    """Return targets for the rows of `X` that fit the network's loss."""
    if network.loss.targets == "classes":
        return CLASSES
    return np.abs(VALUES) if network.loss.targets == "counts" else VALUES


def deviation(name: str, backend: Backend, dtype: str, steps: int) -> float:
    """Return the deviation of `trained` from NumPy in float64, relative to the largest parameter."""
    return trained(name, backend, dtype, steps)[1]


def trained(name: str, backend: Backend, dtype: str, steps: int) -> tuple[Network, float]:
    """Return a network after some steps, and its deviation from NumPy in float64 for the same weights and batches."""
    network = NETWORKS[name](backend=backend, dtype=dtype, seed=3)
    oracle = NETWORKS[name](backend=NUMPY, dtype="float64", seed=3)
    oracle.set_parameters(dict(NETWORKS[name](backend=NUMPY, dtype=dtype, seed=3).parameters))
    for one in (network, oracle):
        one.fit(X.astype(dtype), targets_of(one), batch_size=16, order="random", steps_per_epoch=steps)
    actual = np.asarray(backend.to_numpy(network.state.theta), dtype=np.float64)
    right = oracle.state.theta
    return network, float(np.max(np.abs(actual - right)) / np.max(np.abs(right)))


def compiled_for(
    network: Network, x: np.ndarray, y: np.ndarray, order: np.ndarray
) -> tuple[Callable[..., Any], Callable[[int], Any]]:
    """Return a network's compiled loop over these rows, in this order, (steps, batch), and a function that runs it.

    The function runs a number of steps from the network's state, and returns the state after them and their losses.
    """
    backend = network.backend
    rows = backend.asarray(order, dtype_name(backend.xp.arange(1).dtype))
    first = backend.asarray(np.asarray(0, dtype=np.int32), "int32")
    batches = Batches(backend.asarray(x, network.dtype), backend.asarray(y), None, rows, network._layer_keys(), first)
    state, penalty_mask = network.state, network._penalty_mask()
    run = compiled_steps(network.model, backend, state, batches, penalty_mask)
    return run, lambda count: run(count, state, batches, penalty_mask)
