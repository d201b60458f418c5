"""The plug-in for torch: a CUDA graph, recorded and replayed on the CPU; torch.compile; full precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.runtime import guard

torch = pytest.importorskip("torch")
plug_in = pytest.importorskip("portablenn_torch")
graph = pytest.importorskip("portablenn_torch.graph")
modes = pytest.importorskip("torch.utils._python_dispatch")

HOST = ("aten._local_scalar_dense", "aten.nonzero", "aten.lift_fresh", "aten.masked_select")
"""What needs the host, or memory of a size that only the values tell: forbidden while a graph is captured."""


class Recorder(modes.TorchDispatchMode):
    """Like a CUDA graph: what is called, with the very memory that it was called with; replayed without Python's step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(function).startswith(HOST), f"{function} cannot be captured"
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            if function.is_view:
                continue
            again = function(*args, **kwargs)
            if again is not result:
                result.copy_(again)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The graph, on the CPU: its recordings."""
    recordings: list[Recorder] = []

    def capture(step: Callable[[], None], device: Any) -> Callable[[], None]:
        recordings.append(Recorder())
        with recordings[-1]:  # CUDA runs it once and then captures without running; a recording is both
            step()
        return recordings[-1].replay

    monkeypatch.setattr(graph, "capture", capture)
    monkeypatch.setattr(plug_in.TorchBackend, "compile_loop", graph_loop)
    return recordings


def graph_loop(self: Any, program: Any, carried: int) -> Any:
    return graph.GraphLoop(self._step(program), program, carried, "cpu")


def test_a_captured_step_copies_nothing_from_the_host() -> None:
    program = pnn.trace(
        lambda x: [pnn.array_namespace(x).take(x, pnn.array_namespace(x).asarray([2, 0]), axis=0)],
        pnn.ArrayType((3,), "float32"),
    )
    backend = pnn.get_backend("torch")
    without = backend._with_constants(program)
    assert [o.name for o in without.operations] == ["take"]
    x = torch.asarray([1.0, 2.0, 3.0])
    for one in (program, without):
        assert backend._step(one)(x)[0].tolist() == [3.0, 1.0]


def _data(rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(rows, 4)), np.arange(rows) % 3


def _net(**facts: Any) -> pnn.Network:
    layers = [pnn.Dense(8, "relu"), pnn.BatchNorm(), pnn.Dropout(0.2), pnn.Dense(3)]
    facts = {"loss": "softmax_cross_entropy", "optimizer": pnn.Adam(0.01), "dtype": "float64"} | facts
    return pnn.Network(layers, 4, **facts)


def test_a_replayed_step_computes_what_an_eager_one_does(captured: list[Recorder]) -> None:
    X, y = _data()
    net, oracle = _net(backend="torch"), _net(backend="numpy")
    for epochs, batch in ((3, 16), (1, 16), (2, None), (40, 16)):
        history = net.fit(X, y, epochs=epochs, batch_size=batch)
        losses = history["loss"]
        assert history.how == "torch on cpu: CUDA graph"
        np.testing.assert_allclose(losses, oracle.fit(X, y, epochs=epochs, batch_size=batch)["loss"], rtol=1e-9)
    for name, value in (net.parameters | net.statistics).items():
        np.testing.assert_allclose(value, (oracle.parameters | oracle.statistics)[name], rtol=1e-9)


def test_a_graph_is_kept_while_large_data_stay_at_their_address(
    captured: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "LARGE", 150)  # X is, order and y are not
    X, y = (torch.asarray(a) for a in _data(48))
    net, oracle = _net(), _net()
    for _ in range(3):
        net.fit(X, y, batch_size=16)
    assert len(captured) == 1
    elsewhere = X.clone()
    net.fit(elsewhere, y, batch_size=16)
    assert len(captured) == 2
    elsewhere *= 0.5  # the graph reads it where it lies
    net.fit(elsewhere, y, batch_size=16)
    assert len(captured) == 2
    for data in (X, X, X, X, elsewhere):
        oracle.fit(data.numpy(), y.numpy(), batch_size=16)
    np.testing.assert_allclose(net.state.theta, oracle.backend.to_numpy(oracle.state.theta), rtol=1e-9)


def test_small_data_are_copied_so_that_others_can_replace_them(captured: list[Recorder]) -> None:
    X, y = _data(48)
    net, oracle = _net(backend="torch"), _net(backend="numpy")
    for shift in range(3):
        for each in (net, oracle):
            each.fit(X + shift, y, batch_size=16)
    assert len(captured) == 1
    np.testing.assert_allclose(net.state.theta, oracle.state.theta, rtol=1e-9)


def test_what_a_graph_returned_stays_when_it_is_replayed_again(captured: list[Recorder]) -> None:
    X, y = _data()
    net = _net(backend="torch")
    net.fit(X, y)
    theta, before = net.state.theta, net.state.theta.clone()
    net.fit(X, y)
    assert torch.equal(theta, before)


@pytest.mark.parametrize("swapped", [False, True])
def test_results_that_are_each_others_inputs_do_not_overwrite_each_other(
    swapped: bool, captured: list[Recorder]
) -> None:
    def step(i: Any, a: Any, b: Any, data: Any) -> Any:
        return (b, a + data, a) if swapped else (a, b, b)

    types = [pnn.ArrayType((), "int32"), *([pnn.ArrayType((2,), "float64")] * 3)]
    program = pnn.trace(step, *types)
    backend = pnn.get_backend("torch")
    arrays = [torch.tensor([1.0, 2.0]).double(), torch.tensor([10.0, 20.0]).double(), torch.ones(2).double()]
    for count in (0, 1, 5):
        found = guard.compile_loop(backend, program, 2)(count, *arrays)
        expected = backend.interpreter_loop(program, 2)(count, *arrays)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error", "absolute_error", "huber"]
)
@pytest.mark.parametrize(
    "optimizer", [pnn.SGD(0.1, momentum=0.9, nesterov=True), pnn.AdamW(0.01), pnn.RMSprop(0.01, clip_value=1.0), pnn.Adagrad(0.1)]
)  # fmt: skip
def test_no_step_uses_an_operation_that_cannot_be_captured(loss: str, optimizer: Any, captured: list[Recorder]) -> None:
    X, y = _data()
    net = _net(backend="torch", loss=loss, optimizer=optimizer)
    net.fit(X, np.eye(3)[y], batch_size=16, sample_weight=np.arange(50.0))
    assert len(captured) == 2  # the short last batch is a step of its own


def test_where_a_graph_cannot_be_captured_the_interpreter_runs_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(step: Callable[[], None], device: Any) -> Callable[[], None]:
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graph, "capture", capture)
    monkeypatch.setattr(plug_in.TorchBackend, "compile_loop", graph_loop)
    program = pnn.trace(lambda i, a: a + 1.0, pnn.ArrayType((), "int32"), pnn.ArrayType((2,), "float64"))
    loop = guard.compile_loop(pnn.get_backend("torch"), program, 1)
    start = torch.zeros(2, dtype=torch.float64)
    with pytest.warns(
        guard.FastPathWarning, match="not permitted when stream is capturing.*the interpreter runs instead"
    ):
        assert [loop(3, start)[0].tolist(), start.tolist()] == [[3.0, 3.0], [0.0, 0.0]]
    assert loop.how == "interpreter: CUDA graph failed (RuntimeError: operation not permitted when stream is capturing)"


@pytest.mark.parametrize(
    ("asked", "how"),
    [
        ("", "interpreter"),
        ("eager", "interpreter: PORTABLENN_TORCH=eager"),
        ("graph", "interpreter: no graph on cpu"),
        ("quick", "interpreter: no quick on cpu"),
    ],
)
def test_a_way_that_is_not_available_is_named(asked: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_TORCH", asked)
    X, y = _data()
    assert _net(backend="torch").fit(X, y).how == f"torch on cpu: {how}"


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.skipif(not os.environ.get("PORTABLENN_SLOW"), reason="takes half a minute: PORTABLENN_SLOW=1 runs it")
def test_torch_compiles_a_step_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_TORCH", "compile")
    X, y = _data(32)
    net, oracle = _net(backend="torch"), _net(backend="numpy")
    history = net.fit(X, y, epochs=3, batch_size=16)
    assert history.how == "torch on cpu: torch.compile"
    np.testing.assert_allclose(history["loss"], oracle.fit(X, y, epochs=3, batch_size=16)["loss"], rtol=1e-9)


def test_the_users_autocast_and_precision_settings_have_no_effect() -> None:
    X, y = np.random.default_rng(0).normal(size=(256, 256)).astype("f4"), np.arange(256) % 3

    def trained() -> Any:
        pnn.program_cache.clear()
        net = pnn.mlp([256, 256, 3], loss="softmax_cross_entropy", backend="torch")
        net.fit(X, y, epochs=1, batch_size=None)
        return net.state.theta

    plain = trained()
    before = [matmul.fp32_precision for matmul in plug_in.MATMULS]
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(trained(), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        for matmul, mode in zip(plug_in.MATMULS, before, strict=True):
            matmul.fp32_precision = mode


def test_a_step_stays_on_its_device() -> None:
    """Tensors with a device and without values: another device, or a value that is read, raises."""
    from portablenn.nn.model import Batches
    from portablenn.program.interpret import interpret
    from portablenn.transforms.compile import trace_loop

    net = _net(backend="torch", optimizer=pnn.Adam(0.01, clip_norm=1.0))
    X, y = (torch.asarray(a) for a in _data())
    order, first = torch.zeros((3, 16), dtype=torch.int64), torch.asarray(0, dtype=torch.int32)
    program, _ = trace_loop(net.model.step, net.state, Batches(X, y, None, order, net._layer_keys(), first), None)
    inputs = [torch.empty(v.type.shape, dtype=getattr(torch, v.type.dtype), device="meta") for v in program.inputs]
    assert {o.device.type for o in interpret(net.backend.xp, program, *inputs, device="meta")} == {"meta"}
