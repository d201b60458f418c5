"""Files of and for other programs: what ONNX's own runtime, PyTorch and Keras make of them is what the network makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.nn.activations import ACTIVATIONS

X = np.random.default_rng(0).normal(size=(37, 5)).astype("f4")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def _network(activation: Any = "relu", **facts: Any) -> pnn.Network:
    layers = [
        pnn.Dense(8, activation), pnn.BatchNorm(0.8), pnn.Dropout(0.3), pnn.Dense(6, use_bias=False),
        pnn.Activation("tanh"), pnn.Dense(3),
    ]  # fmt: skip
    net = pnn.Network(layers, 5, "softmax_cross_entropy", backend="numpy", **facts)
    net.fit(X, Y, epochs=3)
    return net


# ONNX


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_layer_computes_the_same_in_onnx(activation: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net, path = _network(activation), tmp_path / "net.onnx"
    pnn.to_onnx(net, path, probabilities=True)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.concatenate([X, 30 * X, np.zeros_like(X)])
    output, probabilities = session.run(["output", "probabilities"], {"X": x})
    np.testing.assert_allclose(output, net.forward(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, net.predict_proba(x), rtol=1e-5, atol=1e-5)
    back = pnn.from_onnx(path, loss="softmax_cross_entropy", backend="numpy")
    np.testing.assert_allclose(back.forward(x), net.forward(x), rtol=1e-5, atol=1e-5)
    kinds = [pnn.Dense, pnn.BatchNorm, pnn.Dense, pnn.Dense]
    assert [type(layer) for layer in back.layers] == kinds  # an activation is that of the layer before it
    pnn.to_onnx(back, tmp_path / "again.onnx", probabilities=True)
    assert pnn.from_onnx(tmp_path / "again.onnx", backend="numpy").layers == back.layers


def test_layers_for_tables_compute_the_same_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    layers = [
        pnn.PeriodicEmbedding(3, rate=0.1, columns=2),
        pnn.Scale(6.0),
        pnn.NTKDense(8, "mish"),
        pnn.Dropout(0.1),
        pnn.NTKDense(3),
    ]
    net = pnn.Network(layers, 5, "softmax_cross_entropy", backend="numpy")
    net.fit(X, Y, epochs=3)
    pnn.to_onnx(net, tmp_path / "net.onnx", probabilities=True)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    output, probabilities = session.run(["output", "probabilities"], {"X": X})
    np.testing.assert_allclose(output, net.forward(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, net.predict_proba(X), rtol=1e-5, atol=1e-5)


def test_one_output_has_the_probabilities_of_two_classes_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = pnn.mlp([5, 4, 1], loss="sigmoid_cross_entropy", backend="numpy")
    pnn.to_onnx(net, tmp_path / "net.onnx", probabilities=True)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    output, probabilities = session.run(["output", "probabilities"], {"X": X})
    np.testing.assert_allclose(output, net.forward(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, net.predict_proba(X), rtol=1e-5, atol=1e-5)
    assert probabilities.shape == (len(X), 2)
    back = pnn.from_onnx(tmp_path / "net.onnx", loss="sigmoid_cross_entropy", backend="numpy")
    np.testing.assert_allclose(back.predict_proba(X), net.predict_proba(X), rtol=1e-5, atol=1e-5)


def test_a_round_trip_is_equal_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net = pnn.mlp([5, 7, 2], activation="gelu", backend="numpy")
    pnn.to_onnx(net, tmp_path / "net.onnx")
    back = pnn.from_onnx(tmp_path / "net.onnx", backend="numpy")
    np.testing.assert_array_equal(back.state.theta, net.state.theta)
    assert back.layers == net.layers


def test_a_file_of_pytorch_is_read(tmp_path: Path) -> None:
    onnx, torch = pytest.importorskip("onnx"), pytest.importorskip("torch")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    module = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.SiLU(), torch.nn.Linear(6, 2))
    weights = [p.detach().numpy() for p in module.parameters()]
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    nodes = [  # as torch.onnx.export writes them
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["a"], alpha=1.0, beta=1.0, transB=1),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["m"]),
        helper.make_node("Gemm", ["m", "2.weight", "2.bias"], ["y"], alpha=1.0, beta=1.0, transB=1),
    ]
    _write(
        onnx,
        tmp_path / "t.onnx",
        nodes,
        {n: numpy_helper.from_array(w, n) for n, w in zip(names, weights, strict=True)},
        5,
        2,
    )
    net = pnn.from_onnx(tmp_path / "t.onnx", backend="numpy")
    np.testing.assert_allclose(net.forward(X), module(torch.asarray(X)).detach().numpy(), rtol=1e-5, atol=1e-6)


def _write(
    onnx: Any, path: Path, nodes: list[Any], tensors: dict[str, Any], inputs: int, outputs: int, **facts: Any
) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, ["rows", w]) for n, w in (("x", inputs), ("y", outputs))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], list(tensors.values()))
    model = helper.make_model(graph, opset_imports=facts.get("opsets", [helper.make_opsetid("", 20)]), ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _hostile(onnx: Any) -> dict[str, tuple[list[Any], dict[str, Any], str]]:
    helper, tensor = onnx.helper, onnx.TensorProto
    kernel = helper.make_tensor("w", tensor.FLOAT, [5, 2], np.ones(10))
    outside = helper.make_tensor("w", tensor.FLOAT, [5, 2], np.ones(10))
    outside.ClearField("float_data")
    outside.data_location = tensor.EXTERNAL
    outside.external_data.add(key="location", value="../../../../etc/passwd")
    huge, wrapping, negative = (helper.make_tensor("w", tensor.FLOAT, [5, 2], np.ones(10)) for _ in range(3))
    huge.dims[:] = [5, 2**40]
    wrapping.dims[:] = [2**32, 2**32]
    negative.dims[:] = [5, -2]
    text = helper.make_tensor("w", tensor.STRING, [5, 2], [b"x"] * 10)
    matmul = helper.make_node("MatMul", ["x", "w"], ["y"])

    def chain(operator: str, **facts: Any) -> list[Any]:
        return [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(operator, ["a"], ["y"], **facts)]

    loop = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["x"])]
    return {
        "external data (CVE-2024-27318)": ([matmul], {"w": outside}, "is stored outside the file"),
        "a size without data": ([matmul], {"w": huge}, "declares the shape"),
        "a product that wraps": ([matmul], {"w": wrapping}, "declares the shape"),
        "a negative size": ([matmul], {"w": negative}, "declares the shape"),
        "text for numbers": ([matmul], {"w": text}, "expected .* to be an array of floating-point numbers"),
        "a missing array": ([matmul], {}, "is not an array of the file"),
        "a loop": (loop, {"w": kernel}, "cycle|expected a chain"),
        "an operator that runs a subgraph": (chain("If"), {"w": kernel}, "expected a chain of known operators"),
        "an operator of another domain": (chain("PyOp", domain="ai.onnx.contrib"), {"w": kernel}, "ai.onnx.contrib"),
        "another slope": (chain("LeakyRelu", alpha=0.2), {"w": kernel}, "alpha=0.2"),
        "the exact gelu": (chain("Gelu"), {"w": kernel}, "approximate='none'"),
        "a node without outputs": (
            [helper.make_node("MatMul", ["x", "w"], [])],
            {"w": kernel},
            "not a valid graph|expected",
        ),
        "a kernel for other columns": (
            [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])],
            {"w": kernel},
            r"expected a kernel of 2 rows, got shape \(5, 2\)",
        ),
        "a bias of another length": (
            [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])],
            {"w": kernel, "b": helper.make_tensor("b", tensor.FLOAT, [3], np.ones(3))},
            "expected an array of length 2, got 3",
        ),
        "NaN": ([matmul], {"w": helper.make_tensor("w", tensor.FLOAT, [5, 2], np.full(10, np.nan))}, "NaN or infinity"),
        "no layer": ([helper.make_node("Relu", ["x"], ["y"])], {}, "no Gemm and no MatMul"),
        "an operator named as a method": (
            [helper.make_node("Width", ["x"], ["y"])],
            {},
            "expected a chain of known operators",
        ),
    }


HOSTILE = [
    "external data (CVE-2024-27318)", "a size without data", "a product that wraps", "a negative size", "text for numbers",
    "a missing array", "a loop", "an operator that runs a subgraph", "an operator of another domain", "another slope", "the exact gelu",
    "a node without outputs", "a kernel for other columns", "a bias of another length", "NaN", "no layer",
    "an operator named as a method",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_an_unsupported_graph_raises(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    cases = _hostile(onnx)
    assert list(cases) == HOSTILE
    nodes, tensors, says = cases[name]
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("ai.onnx.contrib", 1)]
    path = _write(onnx, tmp_path / "h.onnx", nodes, tensors, 5, 2, **({"opsets": opsets} if "domain" in name else {}))
    with pytest.raises(pnn.FileFormatError, match=says):
        pnn.from_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"PK\x03\x04", b"\x80\x04cos\nsystem\n.", b"\x08" * 1000])
def test_a_file_that_is_not_onnx_raises(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "h.onnx").write_bytes(content)
    with pytest.raises(pnn.FileFormatError):
        pnn.from_onnx(tmp_path / "h.onnx")


OWN: dict[str, tuple[Callable[[], pnn.Network], str]] = {
    "a function": (lambda: pnn.mlp([2, 2], output_activation=lambda x: x * 2), "use a built-in one by name"),
    "probabilities of values": (lambda: pnn.mlp([2, 2]), "probabilities require a classification loss"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_network_without_a_counterpart_is_not_written(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    make, says = OWN[name]
    with pytest.raises((TypeError, ValueError), match=says):
        pnn.to_onnx(make(), tmp_path / "n.onnx", probabilities=True)
    assert not list(tmp_path.iterdir())


# Weights of PyTorch and Keras


def test_weights_are_exchanged_with_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    net, path = _network(), tmp_path / "w.safetensors"
    pnn.save_weights(net, path, "torch")
    nn = torch.nn
    module = nn.Sequential(
        nn.Linear(5, 8),
        nn.ReLU(),
        nn.BatchNorm1d(8),
        nn.Dropout(0.3),
        nn.Linear(8, 6, bias=False),
        nn.Tanh(),
        nn.Linear(6, 3),
    )
    missing = module.load_state_dict(load_file(path), strict=False)
    assert (missing.unexpected_keys, missing.missing_keys) in (([], []), ([], ["2.num_batches_tracked"]))
    module.eval()
    np.testing.assert_allclose(module(torch.asarray(X)).detach().numpy(), net.forward(X), rtol=1e-4, atol=1e-5)
    save_file({f"net.{k}": v.contiguous() for k, v in module.state_dict().items()}, path)
    other = _network(seed=5)
    pnn.load_weights(other, path)
    np.testing.assert_array_equal(other.forward(X), net.forward(X))


def test_weights_are_exchanged_with_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("jax")
    keras = pytest.importorskip("keras")
    from safetensors.numpy import load_file, save_file

    net, path = _network(), tmp_path / "w.safetensors"
    pnn.save_weights(net, path, "keras")
    keras.utils.clear_session()
    model = keras.Sequential(
        [
            keras.layers.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(epsilon=1e-5),
            keras.layers.Dropout(0.3), keras.layers.Dense(6, "tanh", use_bias=False), keras.layers.Dense(3),
        ]
    )  # fmt: skip
    arrays = load_file(path)
    by_path = {"/".join(v.path.split("/")[-2:]): v for v in model.variables if "seed" not in v.path}
    assert set(by_path) == set(arrays)
    for name, variable in by_path.items():
        variable.assign(arrays[name])
    np.testing.assert_allclose(np.asarray(model(X)), net.forward(X), rtol=1e-4, atol=1e-5)
    save_file({v.path: np.asarray(v.value) for v in by_path.values()}, path)
    other = _network(seed=5)
    pnn.load_weights(other, path)
    np.testing.assert_array_equal(other.forward(X), net.forward(X))


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for layout in ("torch", "keras"):
        net, other = (pnn.mlp([3] * 13, seed=seed, backend="numpy") for seed in (0, 1))
        pnn.save_weights(net, tmp_path / layout, layout)
        pnn.load_weights(other, tmp_path / layout)
        np.testing.assert_array_equal(other.state.theta, net.state.theta)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an extra layer": (lambda a: a.update({"9.weight": a["0.weight"], "9.bias": a["0.bias"]}), "expected 2 dense layers and 0 batch norms, got 3 and 0"),
    "another shape": (lambda a: a.update({"0.weight": a["0.weight"].T.copy()}), r"expected 0.weight to hold numbers of shape \[4, 5\], got F32\[5, 4\]"),
    "integers": (lambda a: a.update({"0.bias": a["0.bias"].astype("i4")}), "0.bias .* got I32"),
    "no bias": (lambda a: a.pop("0.bias") is None, "expected .*bias.*got .*weight"),
    "NaN": (lambda a: a["0.bias"].fill(np.nan), "holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_do_not_match_raise_and_change_nothing(name: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    net, path = pnn.mlp([5, 4, 2], backend="numpy"), tmp_path / "w.safetensors"
    pnn.save_weights(net, path)
    arrays = load_file(path)
    change, says = WRONG[name]
    change(arrays)
    save_file(arrays, path)
    before = net.state.theta.copy()
    with pytest.raises(pnn.FileFormatError, match=says):
        pnn.load_weights(net, path)
    np.testing.assert_array_equal(net.state.theta, before)
