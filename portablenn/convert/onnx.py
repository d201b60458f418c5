"""Export of networks to ONNX, and import of feed-forward graphs.

A graph is read strictly: operators, shapes and sizes are validated before a network is built; data outside the file is an
error.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..files import atomic
from ..files.safetensors_file import FileFormatError, file_errors
from ..nn import losses
from ..nn.layers import Activation, BatchNorm, Dense, Dropout, NTKDense, PeriodicEmbedding, Scale
from ..runtime.arrays import to_numpy
from ..training.network import Network

OPSET, IR_VERSION = 20, 9
MAX_NODES, MAX_BYTES, MAX_WIDTH = 10_000, 1 << 31, 1 << 24
DOMAINS = ("", "ai.onnx")

OPERATORS = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "leaky_relu": "LeakyRelu", "elu": "Elu", "selu": "Selu",
    "gelu": "Gelu", "mish": "Mish", "softplus": "Softplus", "softmax": "Softmax",
}  # fmt: skip
"""Activations that are one operator."""

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Gelu": {"approximate": "tanh"},
    "Softmax": {"axis": -1},
}
DEFAULTS: dict[str, dict[str, Any]] = {**ATTRIBUTES, "Gelu": {"approximate": "none"}}
"""Values of attributes that a graph leaves out."""


def _need_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError('ONNX files need onnx: pip install "portablenn[onnx]"') from error
    return onnx


def to_onnx(network: Any, path: str | Path, probabilities: bool = False) -> None:
    """Write a network as a float32 ONNX graph from "X", (rows, inputs), to "output", the result of ``forward``.

    Parameters
    ----------
    network
        Network of built-in layers and activations.
    path
        The file.
    probabilities
        Whether to add an output "probabilities"; requires a classification loss.

    Raises
    ------
    TypeError, ValueError
        If a layer or an activation is user-defined, or the loss has no probabilities.

    Examples
    --------
    >>> import tempfile
    >>> import pytest
    >>> _ = pytest.importorskip("onnx")
    >>> import portablenn as pnn
    >>> path, net = Path(tempfile.mkdtemp()) / "net.onnx", pnn.mlp([2, 3, 1])
    >>> to_onnx(net, path)
    >>> bool((from_onnx(path).forward([[1.0, 2.0]]) == net.forward([[1.0, 2.0]])).all())
    True
    """
    onnx = _need_onnx()
    graph = _Graph(onnx)
    known = {name: to_numpy(value) for name, value in (network.parameters | network.statistics).items()}
    x = "X"
    for name, layer in network.model.layers:
        own = {n.rpartition(".")[2]: v for n, v in known.items() if n.rpartition(".")[0] == name}
        x = graph.layer(x, name, layer, own)
    outputs = [("output", network.outputs)]
    graph.add("Identity", [x], "output")
    if probabilities:
        links = {losses.SoftmaxCrossEntropy: "softmax", losses.SigmoidCrossEntropy: "sigmoid"}
        link = links.get(type(network.loss))
        if link is None:
            raise ValueError(f"probabilities require a classification loss, got {type(network.loss).__name__}")
        columns = graph.activation("output", link, "link")
        if network.outputs == 1:  # two classes, as in predict_proba
            other = graph.add("Sub", [graph.constant("one", 1.0), columns], "other")
            columns = graph.add("Concat", [other, columns], "both", axis=1)
        graph.add("Identity", [columns], "probabilities")
        outputs.append(("probabilities", max(2, network.outputs)))
    model = graph.model(network.inputs, outputs)
    onnx.checker.check_model(model, full_check=True)
    atomic.write(path, model.SerializeToString())


class _Graph:
    """The nodes and initializers of a graph that is being built."""

    def __init__(self, onnx: Any) -> None:
        self.onnx, self.nodes, self.initializers = onnx, list[Any](), list[Any]()

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        make_node = self.onnx.helper.make_node
        self.nodes.append(make_node(operator, inputs, [output], name=f"{output}_{operator}", **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype, order="C"), name))
        return name

    def layer(self, x: str, name: str, layer: Any, own: dict[str, np.ndarray]) -> str:
        """Add the nodes of a layer with arrays ``own``; return the name of its output."""
        if type(layer) is Dropout:
            return x
        if type(layer) is Activation:
            return self.activation(x, layer.activation, name)
        if type(layer) is BatchNorm:
            order = ("scale", "shift", "mean", "variance")
            inputs = [x, *(self.constant(f"{name}.{piece}", own[piece]) for piece in order)]
            return self.add("BatchNormalization", inputs, name, epsilon=layer.epsilon, momentum=layer.momentum)
        if type(layer) is Scale:
            return self.add("Mul", [x, self.constant(f"{name}.scale", own["scale"] * layer.rate)], name)
        if type(layer) is PeriodicEmbedding:
            return self.periodic_embedding(x, name, layer, own)
        if type(layer) is NTKDense:
            layer, own = layer.as_dense(own)
        if type(layer) is not Dense:
            raise TypeError(f"{name} is {type(layer).__name__}, a user-defined layer, which has no counterpart in ONNX")
        inputs = [x, self.constant(f"{name}.kernel", own["kernel"])]
        inputs += [self.constant(f"{name}.bias", own["bias"])] if layer.use_bias else []
        plain = layer.activation in (None, "identity")
        y = self.add("Gemm", inputs, name if plain else f"{name}.affine")
        return y if plain else self.activation(y, layer.activation, name)

    def periodic_embedding(self, x: str, name: str, layer: PeriodicEmbedding, own: dict[str, np.ndarray]) -> str:
        """Add the nodes of the layer's formula, with columns as a batch of matrices: (columns, rows, …)."""
        scaled = {piece: value * layer.rate for piece, value in own.items()}
        columns, _, outputs = own["kernel"].shape
        values = {
            "frequencies": (2.0 * np.pi * scaled["frequencies"])[:, None, :],
            "phases": scaled["phases"][:, None, :],
            "kernel": scaled["kernel"],
            "bias": scaled["bias"][:, None, :],
        }
        constants = {piece: self.constant(f"{name}.{piece}", value) for piece, value in values.items()}
        whole = {"starts": [0], "ends": [columns], "axes": [1], "last": [2], "flat": [0, columns * outputs]}
        integers = {piece: self.constant(f"{name}.{piece}", value, np.int64) for piece, value in whole.items()}
        some = self.add("Slice", [x, integers["starts"], integers["ends"], integers["axes"]], f"{name}.some")
        transposed = self.add("Transpose", [some], f"{name}.columns", perm=[1, 0])
        single = self.add("Unsqueeze", [transposed, integers["last"]], f"{name}.single")
        turned = self.add("Mul", [single, constants["frequencies"]], f"{name}.turned")
        angles = self.add("Add", [turned, constants["phases"]], f"{name}.angles")
        mixed = self.add("MatMul", [self.add("Cos", [angles], f"{name}.waves"), constants["kernel"]], f"{name}.mixed")
        shifted = self.add("Add", [mixed, constants["bias"]], f"{name}.shifted")
        by_row = self.add("Transpose", [shifted], f"{name}.by_row", perm=[1, 0, 2])
        embedded = self.add("Reshape", [by_row, integers["flat"]], f"{name}.embedded")
        return self.add("Concat", [embedded, x], name, axis=1)

    def activation(self, x: str, activation: Any, name: str) -> str:
        """Add the nodes of an activation; the last one outputs ``name``."""
        if activation in (None, "identity"):
            return x
        if activation == "silu":
            return self.add("Mul", [x, self.add("Sigmoid", [x], f"{name}.sigmoid")], name)
        if activation == "step":
            zero = self.constant(f"{name}.zero", 0.0)
            reached = self.add("GreaterOrEqual", [x, zero], f"{name}.reached")
            return self.add("Cast", [reached], name, to=self.onnx.TensorProto.FLOAT)
        if activation not in OPERATORS:
            kind = "is a function" if callable(activation) else "has no ONNX operator"
            raise TypeError(f"the activation of {name}, {activation!r}, {kind}: use a built-in one by name")
        operator = OPERATORS[activation]
        return self.add(operator, [x], name, **ATTRIBUTES.get(operator, {}))

    def model(self, inputs: int, outputs: list[tuple[str, int]]) -> Any:
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        made = [helper.make_tensor_value_info(name, kind, ["rows", width]) for name, width in outputs]
        given = [helper.make_tensor_value_info("X", kind, ["rows", inputs])]
        graph = helper.make_graph(self.nodes, "portablenn", given, made, self.initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="portablenn"
        )


def from_onnx(path: str | Path, loss: Any = "squared_error", **network: Any) -> Network:
    """Return the network of a feed-forward ONNX graph, with its weights.

    Parameters
    ----------
    path
        A file with one input, (rows, columns), and a chain of Gemm, MatMul, Add, BatchNormalization, Dropout, Identity and
        activations to its first output.
    loss, **network
        Other arguments of `Network`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    FileFormatError
        If it is not such a graph: another operator, a branch, sizes that do not match, data outside the file.

    Examples
    --------
    >>> import tempfile
    >>> import pytest
    >>> _ = pytest.importorskip("onnx")
    >>> import portablenn as pnn
    >>> path = Path(tempfile.mkdtemp()) / "net.onnx"
    >>> to_onnx(pnn.mlp([2, 3, 1]), path)
    >>> from_onnx(path, backend="numpy")
    <Network 2-3-1, 13 parameters, float32, numpy>
    """
    onnx = _need_onnx()
    with file_errors(path, "ONNX file"):
        if os.path.getsize(path) > MAX_BYTES:
            raise FileFormatError(f"it is larger than {MAX_BYTES} bytes")
        content = Path(path).read_bytes()
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf has several classes
            raise FileFormatError(f"it is not an ONNX model: {str(error)[:200]}") from None
        try:
            made, values, width = _Chain(onnx, model).read()
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"it is not a valid graph: {error!r}") from None
    facts: dict[str, Any] = {"dtype": "float32"} | network
    net = Network(made, width, loss, **facts)
    names = [name for name, _ in net.model.layers]
    net.set_parameters({f"{name}.{k}": v for name, own in zip(names, values) for k, v in own.items()})
    return net


class _Chain:
    """A graph that is read from its input to its output."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, graph = onnx, model.graph
        if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_NODES:
            raise FileFormatError(f"it has more than {MAX_NODES} nodes")
        if model.functions or graph.sparse_initializer or model.training_info:
            raise FileFormatError("functions, sparse arrays and training information are not supported")
        foreign = {o.domain for o in model.opset_import} | {node.domain for node in graph.node}
        if foreign - set(DOMAINS):
            raise FileFormatError(f"operators of {sorted(foreign - set(DOMAINS))} are not supported")
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                value = next((a.t for a in node.attribute if a.name == "value"), None)
                if value is None or len(node.output) != 1:
                    raise FileFormatError("it has a constant that is not an array")
                self.tensors[node.output[0]] = value
        self.nodes = [node for node in graph.node if node.op_type != "Constant"]
        self.takers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        given = [i for i in graph.input if i.name not in self.tensors]
        if len(given) != 1 or not graph.output:
            raise FileFormatError(f"expected 1 input and an output, got {len(given)} and {len(graph.output)}")
        self.input, self.output = given[0], graph.output[0].name

    def read(self) -> tuple[list[Any], list[dict[str, np.ndarray]], int]:
        """Return the layers, the arrays of each, and the number of inputs."""
        parts: list[tuple[Any, dict[str, np.ndarray]]] = []
        x = self.input.name
        for _ in range(len(self.nodes)):
            if x == self.output:
                break
            x, layer, own = self._next(x)
            parts += [] if layer is None else [(layer, own)]
        if x != self.output:
            raise FileFormatError("it has a cycle")
        parts = _joined(parts)
        width = self._width(next((own for _, own in parts if own), {}))
        _check_widths(parts, width)
        return [layer for layer, _ in parts], [own for _, own in parts], width

    def _width(self, own: dict[str, np.ndarray]) -> int:
        """Return the number of columns of the input, which the graph or its first array gives."""
        dims = self.input.type.tensor_type.shape.dim
        declared = dims[1].dim_value if len(dims) == 2 else 0
        if len(dims) not in (0, 2):
            raise FileFormatError(f"expected an input (rows, columns), got {len(dims)} dimensions")
        by_array = own["kernel"].shape[0] if "kernel" in own else len(own["scale"]) if "scale" in own else 0
        width = declared or by_array
        if not 1 <= width <= MAX_WIDTH or (declared and by_array and declared != by_array):
            raise FileFormatError(f"its input has {declared} columns and its first array is for {by_array}")
        return int(width)

    def _next(self, x: str) -> tuple[str, Any, dict[str, np.ndarray]]:
        """Return the name of the output of the layer that takes ``x``, and the layer, None if it does nothing."""
        takers = self.takers.get(x, [])
        if len(takers) == 1:
            if takers[0].op_type in self._READERS:
                return takers[0].output[0], *self._READERS[takers[0].op_type](self, takers[0], x)
            name = next((a for a, operator in OPERATORS.items() if operator == takers[0].op_type), None)
            if name is not None:
                return takers[0].output[0], *self._activation(takers[0], x, name)
            if takers[0].op_type == "GreaterOrEqual":
                return self._step(takers[0], x)
        if {node.op_type for node in takers} == {"Sigmoid", "Mul"} and len(takers) == 2:
            gate, product = sorted(takers, key=lambda node: node.op_type, reverse=True)
            if set(product.input) == {x, gate.output[0]} and len(self.takers.get(gate.output[0], ())) == 1:
                return product.output[0], Activation("silu"), {}
        kinds = ", ".join(sorted({node.op_type for node in takers})) or "nothing"
        raise FileFormatError(f"{x!r} goes to {kinds}: expected a chain of known operators")

    def _attributes(self, node: Any, allowed: dict[str, Any], ignored: tuple[str, ...] = ()) -> None:
        """Raise FileFormatError for attributes that have no counterpart."""
        given = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        for name, value in {**DEFAULTS.get(node.op_type, {}), **given}.items():
            value = value.decode() if isinstance(value, bytes) else value
            same = name in allowed and (
                math.isclose(value, allowed[name], rel_tol=1e-6) if isinstance(value, float) else value == allowed[name]
            )
            if not same and name not in ignored:
                raise FileFormatError(
                    f"expected {node.op_type} with {name}={allowed.get(name)!r}, got {name}={value!r}"
                )

    def _array(self, name: str, dims: int) -> np.ndarray:
        """Return an array of the graph after validating its size."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise FileFormatError(f"{name!r} is not an array of the file")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise FileFormatError(f"{name!r} is stored outside the file, which is not supported")
        kinds = (self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.DOUBLE, self.onnx.TensorProto.FLOAT16)
        if tensor.data_type not in kinds or len(tensor.dims) != dims:
            raise FileFormatError(f"expected {name!r} to be an array of floating-point numbers with {dims} dimensions")
        if any(not 1 <= n <= MAX_WIDTH for n in tensor.dims) or math.prod(tensor.dims) * 2 > tensor.ByteSize():
            raise FileFormatError(f"{name!r} declares the shape {list(tensor.dims)}, for which it is too small")
        try:
            array = np.asarray(self.onnx.numpy_helper.to_array(tensor), dtype=np.float64)
        except Exception as error:  # a damaged array fails in many ways
            raise FileFormatError(f"{name!r} is damaged: {str(error)[:100]}") from None
        if array.shape != tuple(tensor.dims) or not np.isfinite(array).all():
            raise FileFormatError(f"{name!r} is damaged, or holds NaN or infinity")
        return array

    def _gemm(self, node: Any, x: str) -> tuple[Any, dict[str, np.ndarray]]:
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        self._attributes(node, {"alpha": 1.0, "beta": 1.0, "transA": 0}, ("transB",))
        if len(node.input) not in (2, 3) or node.input[0] != x:
            raise FileFormatError("a Gemm does not multiply the output of the node before it")
        kernel = self._array(node.input[1], 2)
        own = {"kernel": kernel.T if turned else kernel}
        if len(node.input) == 3 and node.input[2]:
            own["bias"] = self._array(node.input[2], 1)
        return Dense(own["kernel"].shape[1], use_bias="bias" in own, kernel_init="zeros"), own

    def _matmul(self, node: Any, x: str) -> tuple[Any, dict[str, np.ndarray]]:
        self._attributes(node, {})
        if len(node.input) != 2 or node.input[0] != x:
            raise FileFormatError("a MatMul multiplies from the left")
        kernel = self._array(node.input[1], 2)
        return Dense(kernel.shape[1], use_bias=False, kernel_init="zeros"), {"kernel": kernel}

    def _add(self, node: Any, x: str) -> tuple[Any, dict[str, np.ndarray]]:
        """Return a bias, which `_joined` merges with the layer before it."""
        self._attributes(node, {})
        others = [name for name in node.input if name != x]
        if len(others) != 1:
            raise FileFormatError("an Add has no bias")
        return _BIAS, {"bias": self._array(others[0], 1)}

    def _batch_normalization(self, node: Any, x: str) -> tuple[Any, dict[str, np.ndarray]]:
        if len(node.input) != 5 or node.input[0] != x or len(node.output) != 1:
            raise FileFormatError("a BatchNormalization is in training mode")
        self._attributes(node, {"training_mode": 0, "spatial": 1}, ("epsilon", "momentum"))
        facts = {a.name: float(a.f) for a in node.attribute if a.name in ("epsilon", "momentum")}
        pieces = ("scale", "shift", "mean", "variance")
        own = {piece: self._array(name, 1) for piece, name in zip(pieces, node.input[1:])}
        epsilon, momentum = facts.get("epsilon", 1e-5), facts.get("momentum", 0.9)
        if not (0 <= momentum < 1 and epsilon >= 0 and bool(np.all(own["variance"] + epsilon > 0))):
            raise FileFormatError(f"a BatchNormalization has momentum {momentum} and epsilon {epsilon}")
        return BatchNorm(momentum, epsilon), own

    def _activation(self, node: Any, x: str, name: str) -> tuple[Any, dict[str, np.ndarray]]:
        allowed = dict(ATTRIBUTES.get(node.op_type, {}))
        if node.op_type == "Softmax" and any(a.name == "axis" and a.i == 1 for a in node.attribute):
            allowed["axis"] = 1
        self._attributes(node, allowed)
        return Activation(name), {}

    def _identity(self, node: Any, x: str) -> tuple[None, dict[str, np.ndarray]]:
        return None, {}

    def _dropout(self, node: Any, x: str) -> tuple[None, dict[str, np.ndarray]]:
        if len(node.input) > 2 and node.input[2]:
            raise FileFormatError("a Dropout is in training mode")
        return None, {}

    def _step(self, node: Any, x: str) -> tuple[str, Any, dict[str, np.ndarray]]:
        """Return the step activation: (x ≥ 0) as a number."""
        zero = self.tensors.get(node.input[1]) if len(node.input) == 2 and node.input[0] == x else None
        scalar = zero is not None and not zero.dims and not zero.external_data
        casts = self.takers.get(node.output[0], [])
        if not scalar or self.onnx.numpy_helper.to_array(zero) != 0.0 or [c.op_type for c in casts] != ["Cast"]:
            raise FileFormatError("a GreaterOrEqual is not a threshold of 0")
        return casts[0].output[0], Activation("step"), {}

    _READERS: ClassVar[dict[str, Any]] = {
        "Add": _add, "BatchNormalization": _batch_normalization, "Dropout": _dropout, "Gemm": _gemm, "Identity": _identity,
        "MatMul": _matmul,
    }  # fmt: skip


_BIAS: Any = object()
"""Placeholder for a bias that belongs to the layer before it."""


def _joined(parts: list[tuple[Any, dict[str, np.ndarray]]]) -> list[tuple[Any, dict[str, np.ndarray]]]:
    """Merge dense layers with the biases and the activations that follow them."""
    made: list[tuple[Any, dict[str, np.ndarray]]] = []
    for layer, own in parts:
        before, theirs = made[-1] if made else (None, {})
        dense = before if isinstance(before, Dense) and before.activation is None else None
        if layer is _BIAS:
            if dense is None or dense.use_bias:
                raise FileFormatError("an Add does not follow a MatMul")
            made[-1] = replace(dense, use_bias=True), theirs | own
        elif isinstance(layer, Activation) and dense is not None:
            made[-1] = replace(dense, activation=layer.activation), theirs
        else:
            made.append((layer, own))
    return made


def _check_widths(parts: list[tuple[Any, dict[str, np.ndarray]]], width: int) -> None:
    """Raise FileFormatError if the shapes of arrays do not match."""
    if not any(isinstance(layer, Dense) for layer, _ in parts):
        raise FileFormatError("it has no Gemm and no MatMul")
    for layer, own in parts:
        if isinstance(layer, Dense):
            if own["kernel"].shape[0] != width:
                raise FileFormatError(f"expected a kernel of {width} rows, got shape {own['kernel'].shape}")
            width = layer.units
        lengths = {len(array) for name, array in own.items() if name != "kernel"}
        if lengths - {width}:
            raise FileFormatError(f"expected an array of length {width}, got {min(lengths - {width})}")
