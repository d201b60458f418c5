"""mlp: a network of dense layers from a list of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..nn.activations import Activation
from ..nn.layers import Dense
from .network import Network


def mlp(
    sizes: Sequence[int],
    activation: str | Activation = "relu",
    output_activation: str | Activation | None = None,
    use_bias: bool = True,
    kernel_init: Any = None,
    **network: Any,
) -> Network:
    """Return a network of dense layers.

    Parameters
    ----------
    sizes
        Number of inputs, units of the hidden layers, number of outputs.
    activation, output_activation
        Of the hidden layers, and of the last layer.
    use_bias
        Whether layers have a bias.
    kernel_init
        An initializer for all kernels; None for He's uniform with relu and similar activations, else Glorot's uniform.
    **network
        Other arguments of `Network`.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.mlp([784, 16, 16, 10], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.1)).parameter_count
    13002
    """
    if not isinstance(sizes, (list, tuple)) or len(sizes) < 2:
        raise ValueError(f"sizes must be [inputs, hidden units, …, outputs], got {sizes!r}")
    rectified = activation in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")
    init = kernel_init if kernel_init is not None else "he_uniform" if rectified else "glorot_uniform"
    hidden = [Dense(units, activation, use_bias, init) for units in sizes[1:-1]]
    last = Dense(sizes[-1], output_activation, use_bias, kernel_init if kernel_init is not None else "glorot_uniform")
    return Network([*hidden, last], inputs=sizes[0], **network)
