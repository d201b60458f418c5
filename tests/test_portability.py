"""One network on every library: the same bits where they are promised, the stated tolerances elsewhere, nothing converted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.model import Batches, State
from portablenn.program.interpret import interpret
from portablenn.program.simplify import simplify

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6))
CLASSES = RNG.integers(0, 4, 96)
VALUES = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)

ZOO: dict[str, Any] = {
    "linear": lambda **f: pnn.mlp([6, 2], optimizer=pnn.SGD(0.05), **f),
    "relu": lambda **f: pnn.mlp([6, 16, 8, 4], loss="softmax_cross_entropy", optimizer=pnn.Adam(1e-3), **f),
    "sigmoid": lambda **f: pnn.mlp([6, 8, 4], "sigmoid", loss="sigmoid_cross_entropy", optimizer=pnn.SGD(0.1, momentum=0.9), **f),
    "tanh": lambda **f: pnn.mlp([6, 8, 2], "tanh", loss="huber", optimizer=pnn.RMSprop(1e-3, l2=0.01), **f),
    "gelu": lambda **f: pnn.mlp([6, 8, 2], "gelu", loss="poisson", optimizer=pnn.Adagrad(0.01, clip_norm=1.0), **f),
    "hinge": lambda **f: pnn.mlp([6, 8, 4], "elu", loss="hinge", optimizer=pnn.AdamW(1e-3), **f),
    "deep": lambda **f: pnn.Network(
        [pnn.Dense(16, "silu"), pnn.BatchNorm(), pnn.Dropout(0.3), pnn.Dense(8, "softplus"), pnn.Dropout(0.1), pnn.Dense(4)],
        inputs=6,
        loss="softmax_cross_entropy",
        optimizer=pnn.Adam(pnn.schedules.CosineDecay(1e-3, 100)),
        **f,
    ),
}  # fmt: skip


def _targets(net: pnn.Network) -> np.ndarray:
    if net.loss.targets == "classes":
        return CLASSES
    return np.abs(VALUES) if net.loss.targets == "counts" else VALUES


def _steps(name: str, backend: Any, dtype: str, count: int) -> np.ndarray:
    net = ZOO[name](backend=backend, dtype=dtype, seed=3)
    net.fit(X.astype(dtype), _targets(net), epochs=1, batch_size=16, order="random", steps_per_epoch=count)
    return np.asarray(net.backend.to_numpy(net.state.theta), dtype=np.float64)


def _deviation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    ("dtype", "count", "tolerance"),
    [("float64", 1, 1e-12), ("float32", 1, 1e-5), ("float64", 20, 1e-9), ("float32", 20, 1e-4)],
)
def test_training_agrees_with_the_float64_oracle(
    name: str, dtype: str, count: int, tolerance: float, library: Any
) -> None:
    start = ZOO[name](dtype="float32" if dtype == "float32" else "float64", seed=3)
    oracle = ZOO[name](backend="numpy", dtype="float64", seed=3)
    oracle.set_parameters(dict(start.parameters))  # the first weights, as rounded as the other's
    oracle.fit(X.astype(dtype), _targets(oracle), epochs=1, batch_size=16, order="random", steps_per_epoch=count)
    assert _deviation(_steps(name, library.name, dtype, count), oracle.state.theta) < tolerance


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_gives_the_same_first_weights_to_the_bit(name: str, dtype: str, other_library: Any) -> None:
    here, there = ZOO[name](dtype=dtype, seed=11), ZOO[name](dtype=dtype, seed=11, backend=other_library.name)
    for key, value in there.parameters.items():
        np.testing.assert_array_equal(other_library.numpy(value), here.parameters[key], strict=True)


def test_different_seeds_give_different_weights() -> None:
    first = {ZOO["relu"](seed=seed).parameters["dense_1.kernel"][0, 0].item() for seed in range(20)}
    assert len(first) == 20


def _seen_rows(backend: Any, order: str) -> np.ndarray:
    """The rows in the order in which training sees them: a one-weight network whose loss is the row's own number."""
    X = np.arange(20.0)[:, None]
    net = pnn.Network(
        [pnn.Dense(1, use_bias=False, kernel_init="ones")], inputs=1, loss=lambda p, t: p, optimizer=pnn.SGD(0.0),
        backend=backend, seed=9,
    )  # fmt: skip
    seen: list[float] = []

    class Watch(pnn.callbacks.Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            seen.append(logs["loss"])

    if order == "random":
        net.fit(X, X, epochs=20, batch_size=1, order=order, steps_per_epoch=1, callbacks=[Watch()])
    else:
        from portablenn.training import compiled_steps

        order_ = pnn.network.random.permutations(pnn.network.random.new_key(9, pnn.network.random.ORDER), 0, 1, 20)
        b = net.backend
        batches = Batches(
            b.asarray(X),
            b.asarray(X),
            None,
            b.asarray(order_.reshape(20, 1).astype(np.int32)),
            None,
            b.asarray(np.asarray(0, np.int32)),
        )
        _, losses = compiled_steps(net.model, b, net.state, batches, None)(20, net.state, batches, None)
        seen.extend(b.to_numpy(losses).tolist())
    return np.asarray(seen)


@pytest.mark.parametrize("order", ["shuffle", "random"])
def test_one_seed_gives_the_same_batches_to_the_bit(order: str, other_library: Any) -> None:
    np.testing.assert_array_equal(_seen_rows(other_library.name, order), _seen_rows("numpy", order))


def _masks(backend: Any) -> np.ndarray:
    """What dropout kept in three steps, as the update of a weight for each input shows it."""
    layers = [pnn.Dropout(0.5), pnn.Dense(1, use_bias=False, kernel_init="zeros")]
    net = pnn.Network(layers, inputs=50, loss=lambda p, t: p, optimizer=pnn.SGD(1.0), backend=backend, seed=4)
    kept = []
    for _ in range(3):
        before = net.backend.to_numpy(net.state.theta).copy()
        net.fit(np.ones((1, 50)), np.ones((1, 1)), epochs=1)
        kept.append(net.backend.to_numpy(net.state.theta) - before)
    return np.stack(kept)


def test_one_seed_gives_the_same_masks_to_the_bit(other_library: Any) -> None:
    here = _masks("numpy")
    assert set(np.unique(here)) == {-2.0, 0.0}
    np.testing.assert_array_equal(_masks(other_library.name), here)


def test_a_network_runs_where_its_data_lie(other_library: Any) -> None:
    net = ZOO["relu"](seed=0)
    x, y = other_library.array(X.astype("f4")), other_library.array(CLASSES)
    net.fit(x, y, epochs=2)
    assert net.backend == other_library.backend
    for array in (net.state.theta, net.predict(x), net.predict_proba(x), net.forward(x), *net.parameters.values()):
        assert type(array) is type(x)
        assert array.device == x.device
    assert isinstance(net.predict(X), np.ndarray)


def test_a_named_backend_wins_over_the_data(other_library: Any) -> None:
    net = ZOO["relu"](backend=other_library.name)
    net.fit(X, CLASSES)
    assert net.backend == other_library.backend
    assert isinstance(net.predict(X), np.ndarray)


@contextlib.contextmanager
def _strictest() -> Iterator[None]:
    import array_api_strict as strict

    flags = strict.get_array_api_strict_flags()
    try:
        strict.set_array_api_strict_flags(
            boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=(), api_version="2024.12"
        )
        yield
    finally:
        strict.set_array_api_strict_flags(
            **{k: flags[k] for k in ("boolean_indexing", "data_dependent_shapes", "enabled_extensions", "api_version")}
        )


def test_the_strictest_library_trains_without_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """On array-api-strict's second device, with every flag at its strictest, no array may leave or be asked for a value."""
    import array_api_strict as strict

    backend = pnn.get_backend("array_api_strict:device1")
    net = ZOO["deep"](backend=backend)
    x, y = backend.asarray(X.astype("f4")), backend.asarray(CLASSES)
    asked: list[str] = []
    array_type = type(x)
    for name in (
        "__array__",
        "__buffer__",
        "__dlpack__",
        "__float__",
        "__bool__",
        "__int__",
        "__index__",
        "__complex__",
    ):
        if (original := getattr(array_type, name, None)) is not None:
            monkeypatch.setattr(
                array_type, name, lambda self, *a, _o=original, _n=name, **k: (asked.append(_n), _o(self, *a, **k))[1]
            )
    with _strictest():
        order = backend.asarray(np.arange(96, dtype=np.int64).reshape(6, 16))
        batches = Batches(x, y, None, order, net._keys(), backend.asarray(np.asarray(0, np.int32)))
        from portablenn.training import compiled_steps

        run = compiled_steps(net.model, backend, net.state, batches, None)
        asked.clear()
        state, losses = run(6, net.state, batches, None)
        # 0-d arrays are what array-api-strict itself keeps as NumPy's; it converts nothing of ours
        assert asked == []
        assert losses.device == state.theta.device == strict.Device("device1")
        net.fit(x, y, epochs=20)
        assert net.evaluate(x, y)["loss"] < 1.5


def test_the_step_traces_under_jax_jit_so_nothing_reads_a_value() -> None:
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    net = ZOO["deep"](backend="numpy")
    state = State(net.state.theta, net.state.slots, net.state.statistics)
    order = np.arange(96).reshape(6, 16)
    batches = Batches(X.astype("f4"), CLASSES, np.ones(96, "f4"), order, net._keys(), np.asarray(0, np.int32))
    flat = [np.asarray(2, np.int32), state.theta, *state.slots, state.statistics, *batches]

    def step(iteration: Any, theta: Any, one: Any, two: Any, statistics: Any, *data: Any) -> Any:
        after, loss = net.model.step(iteration, State(theta, (one, two), statistics), Batches(*data), None)
        return [after.theta, *after.slots, after.statistics, loss]

    program = simplify(pnn.trace(step, *(pnn.ArrayType(a.shape, str(a.dtype)) for a in flat)))
    jitted = jax.jit(lambda *arrays: interpret(jnp, program, *arrays))(*map(jnp.asarray, flat))
    direct = jax.jit(step)(*map(jnp.asarray, flat))  # not even recorded: the model's own code, on JAX's tracers
    for result, unrecorded, expected in zip(jitted, direct, step(*flat), strict=True):
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.asarray(unrecorded), expected, rtol=1e-4, atol=1e-6)


def test_the_step_runs_on_torchs_meta_device_where_nothing_has_a_value() -> None:
    torch = pytest.importorskip("torch")
    net = ZOO["relu"](backend="numpy")
    flat = [np.asarray(2, np.int32), net.state.theta, *net.state.slots, net.state.statistics, X.astype("f4"), CLASSES]
    flat += [np.arange(96).reshape(6, 16), np.asarray(0, np.int32)]

    def step(
        iteration: Any, theta: Any, one: Any, two: Any, statistics: Any, x: Any, y: Any, order: Any, first: Any
    ) -> Any:
        batches = Batches(x, y, None, order, None, first)
        after, loss = net.model.step(iteration, State(theta, (one, two), statistics), batches, None)
        return [after.theta, *after.slots, after.statistics, loss]

    program = simplify(pnn.trace(step, *(pnn.ArrayType(a.shape, str(a.dtype)) for a in flat)))
    xp = pnn.get_backend("torch").xp
    results = interpret(xp, program, *(torch.asarray(a).to("meta") for a in flat), device="meta")
    assert [tuple(r.shape) for r in results] == [v.type.shape for v in program.outputs]


@pytest.mark.parametrize("name", ["relu", "deep"])
def test_lbfgs_and_full_batches_agree_across_libraries(name: str, other_library: Any) -> None:
    def final(backend: Any) -> float:
        net = pnn.mlp(
            [6, 8, 4], "tanh", loss="softmax_cross_entropy", optimizer=pnn.LBFGS(), backend=backend, dtype="float64"
        )
        return net.fit(X, CLASSES, epochs=15)["loss"][-1]

    assert final(other_library.name) == pytest.approx(final("numpy"), rel=1e-6)
