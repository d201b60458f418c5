"""One network on every library: the same bits where they are promised, the stated tolerances elsewhere, nothing converted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.nn.model import Batches, State
from portablenn.program.interpret import interpret
from portablenn.program.simplify import simplify
from portablenn.testing.networks import CLASSES, NETWORKS, X


def test_different_seeds_give_different_weights() -> None:
    first = {float(NETWORKS["relu"](seed=seed).parameters["dense_1.kernel"][0, 0]) for seed in range(20)}
    assert len(first) == 20


def test_a_network_runs_on_the_device_of_its_data(other_library: Any) -> None:
    net = NETWORKS["relu"](seed=0)
    x, y = other_library.array(X.astype("f4")), other_library.array(CLASSES)
    net.fit(x, y, epochs=2)
    assert net.backend == other_library.backend
    for array in (net.state.theta, net.predict(x), net.predict_proba(x), net.forward(x), *net.parameters.values()):
        assert type(array) is type(x)
        assert array.device == x.device
    assert isinstance(net.predict(X), np.ndarray)


def test_a_named_backend_wins_over_the_data(other_library: Any) -> None:
    net = NETWORKS["relu"](backend=other_library.name)
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
    net = NETWORKS["deep"](backend=backend)
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
        batches = Batches(x, y, None, order, net._layer_keys(), backend.asarray(np.asarray(0, np.int32)))
        from portablenn.training.step import compiled_steps

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

    net = NETWORKS["deep"](backend="numpy")
    state = State(net.state.theta, net.state.slots, net.state.statistics)
    order = np.arange(96).reshape(6, 16)
    batches = Batches(X.astype("f4"), CLASSES, np.ones(96, "f4"), order, net._layer_keys(), np.asarray(0, np.int32))
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


def test_the_step_runs_on_torchs_meta_device_which_has_no_values() -> None:
    torch = pytest.importorskip("torch")
    net = NETWORKS["relu"](backend="numpy")
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
