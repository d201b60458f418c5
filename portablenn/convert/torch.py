"""Conversion of PyTorch modules, with their weights. It does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..nn import losses
from ..nn.layers import Activation, BatchNorm, Dense, Dropout
from ..runtime.arrays import to_numpy
from ..training.network import Network

Arrays = dict[str, np.ndarray]

ACTIVATIONS = {
    "ELU": "elu", "GELU": "gelu", "Identity": "identity", "LeakyReLU": "leaky_relu", "Mish": "mish", "ReLU": "relu",
    "SELU": "selu", "SiLU": "silu", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softmax": "softmax", "Tanh": "tanh",
}  # fmt: skip
DEFAULTS = {"alpha": 1.0, "approximate": "tanh", "negative_slope": 0.01, "beta": 1, "threshold": 20, "dim": 1}
"""Values required of the parameters of PyTorch's activations, which are fixed in ours."""


def from_torch(module: Any, loss: Any = "squared_error", **network: Any) -> Network:
    """Return the network of a ``torch.nn.Sequential``, with its weights; it predicts as the module does in ``eval`` mode.

    Parameters
    ----------
    module
        A Sequential of Linear, BatchNorm1d, Dropout, activations, and Sequentials of such.
    loss
        See `losses`. A last Softmax or Sigmoid is left out where the loss takes logits.
    **network
        Other arguments of `Network`: optimizer, backend, seed. The dtype is the module's.

    Raises
    ------
    TypeError, ValueError
        For other modules, or parameters that have no counterpart here.

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> from_torch(module, backend="numpy")
    <Network 2-3-3-1, 13 parameters, float32, numpy>
    """
    made = [_LAYERS[_kind(part)](part) for part in _flat(module)]
    links = {"Softmax": losses.SoftmaxCrossEntropy, "Sigmoid": losses.SigmoidCrossEntropy}
    last = _kind(list(_flat(module))[-1]) if made else ""
    if last in links and isinstance(losses.get(loss), links[last]):
        made.pop()
    dense = [(layer, values) for layer, values in made if isinstance(layer, Dense)]
    if not dense:
        raise ValueError(f"expected a Sequential with at least one Linear, got {type(module).__name__} with none")
    facts: dict[str, Any] = {"dtype": str(dense[0][1]["kernel"].dtype)} | network
    net = Network([layer for layer, _ in made], inputs=dense[0][1]["kernel"].shape[0], loss=loss, **facts)
    names = [name for name, _ in net.model.layers]
    net.set_parameters(
        {f"{name}.{k}": v for name, (_, values) in zip(names, made, strict=True) for k, v in values.items()}
    )
    return net


def _flat(module: Any) -> Any:
    if type(module).__name__ != "Sequential":
        yield module
        return
    for part in module:
        yield from _flat(part)


def _kind(module: Any) -> str:
    name = type(module).__name__
    if name not in _LAYERS or not type(module).__module__.startswith("torch.nn."):
        raise TypeError(f"{name} has no counterpart: expected a Sequential of {', '.join(sorted(_LAYERS))}")
    return name


def _linear(module: Any) -> tuple[Dense, Arrays]:
    kernel = np.ascontiguousarray(to_numpy(module.weight.detach()).T)
    values = {"kernel": kernel}
    if module.bias is not None:
        values["bias"] = to_numpy(module.bias.detach())
    return Dense(kernel.shape[1], use_bias=module.bias is not None, kernel_init="zeros"), values


def _batch_norm(module: Any) -> tuple[BatchNorm, Arrays]:
    if module.running_mean is None or not module.affine or module.momentum is None:
        raise ValueError(f"{module} has no counterpart: expected affine, momentum and running statistics")
    pieces = {
        "scale": module.weight, "shift": module.bias, "mean": module.running_mean, "variance": module.running_var,
    }  # fmt: skip
    values = {name: to_numpy(tensor.detach()) for name, tensor in pieces.items()}
    return BatchNorm(momentum=1.0 - module.momentum, epsilon=module.eps), values


def _activation(module: Any) -> tuple[Activation, Arrays]:
    for name, value in DEFAULTS.items():
        if getattr(module, name, value) not in (value, -1 if name == "dim" else value):
            raise ValueError(f"{module} has no counterpart: expected {name}={value!r}")
    return Activation(ACTIVATIONS[type(module).__name__]), {}


_LAYERS: dict[str, Callable[[Any], tuple[Any, Arrays]]] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "Dropout": lambda module: (Dropout(module.p), {}),
    **dict.fromkeys(ACTIVATIONS, _activation),
}
