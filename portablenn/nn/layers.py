"""Layers: frozen dataclasses of plain values, and the mathematics of the forward pass.

A layer has ``init(key, inputs)``, which returns its parameters on the host, and ``apply(xp, params, x)``, in Array API code.
If ``apply`` has parameters of these names it also gets ``training`` (bool) and ``random`` (None unless training; else it has
``uniform(shape, dtype)`` and ``keep_mask(shape, rate)``, with different numbers in each layer and at each step). A layer with
statistics, which training updates without a gradient, also has ``init_statistics(inputs)`` and
``update_statistics(xp, params, x)``; ``apply`` gets them among ``params``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..program.ir import Array
from ..random import Stream, fold_in
from . import activations, initializers
from .numbers import check_number, check_positive, check_positive_integer, take_numbers_of_numpy

Parameters = dict[str, Array]


@dataclass(frozen=True)
class Dense:
    """Affine map and activation, y = f(x W + b); x: (rows, inputs), W: (inputs, units), b: (units,), y: (rows, units).

    Parameters
    ----------
    units
        Number of outputs.
    activation
        A name, a function of an array, or None.
    use_bias
        Whether there is a bias b.
    kernel_init, bias_init
        An initializer's name, an initializer, or an array.

    Examples
    --------
    >>> params = {"kernel": np.ones((2, 1)), "bias": np.asarray([0.5])}
    >>> Dense(1).apply(np, params, np.asarray([[1.0, 2.0]])).tolist()
    [[3.5]]
    """

    units: int
    activation: str | activations.Activation | None = None
    use_bias: bool = True
    kernel_init: Any = field(default="glorot_uniform", compare=False)  # layers that compute the same are equal
    bias_init: Any = field(default="zeros", compare=False)

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_positive_integer("units", self.units)
        activations.get(self.activation)

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        """Return the initial kernel and bias, float64."""
        kernel = initializers.initial(self.kernel_init, fold_in(key, 0), (inputs, self.units), "the kernel")
        if not self.use_bias:
            return {"kernel": kernel}
        bias = initializers.initial(self.bias_init, fold_in(key, 1), (self.units,), "the bias")
        return {"kernel": kernel, "bias": bias}

    def apply(self, xp: Any, params: Parameters, x: Array) -> Array:
        y = x @ params["kernel"]
        return activations.get(self.activation)(y + params["bias"] if self.use_bias else y)


@dataclass(frozen=True)
class NTKDense:
    """`Dense` in the NTK parametrization, y = f(x W / √inputs + r c), whose learning rate suits any number of inputs.

    The weights W and the bias r c begin normally distributed with variance 1, or as 0 (Jacot, Gabriel & Hongler 2018). As
    Adam's steps have the size of its rate, the bias r c changes ``bias_rate`` r times as fast as the weights.

    Parameters
    ----------
    units, activation
        As for `Dense`.
    bias_rate
        Factor r of the bias's learning rate.
    kernel_init, bias_init
        Initial W and r c, as for `Dense`; by default of variance 1.

    Examples
    --------
    >>> params = {"kernel": np.ones((4, 1)), "bias": np.asarray([5.0])}
    >>> NTKDense(1, bias_rate=0.1).apply(np, params, np.ones((1, 4))).tolist()
    [[2.5]]
    """

    units: int
    activation: str | activations.Activation | None = None
    bias_rate: float = 0.1
    kernel_init: Any = field(default_factory=lambda: initializers.Normal(std=1.0), compare=False)
    bias_init: Any = field(default_factory=lambda: initializers.Normal(std=1.0), compare=False)

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_positive_integer("units", self.units)
        activations.get(self.activation)
        check_positive("bias_rate", self.bias_rate)

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        """Return the initial kernel and bias, float64."""
        kernel = initializers.initial(self.kernel_init, fold_in(key, 0), (inputs, self.units), "the kernel")
        bias = initializers.initial(self.bias_init, fold_in(key, 1), (self.units,), "the bias")
        return {"kernel": kernel, "bias": bias / self.bias_rate}

    def apply(self, xp: Any, params: Parameters, x: Array) -> Array:
        y = (x @ params["kernel"]) * (1.0 / math.sqrt(x.shape[1])) + params["bias"] * self.bias_rate
        return activations.get(self.activation)(y)

    def as_dense(self, params: Parameters) -> tuple[Dense, Parameters]:
        """Return the `Dense` layer that computes the same up to rounding, and its parameters."""
        scaled = {
            "kernel": params["kernel"] / math.sqrt(params["kernel"].shape[0]),
            "bias": params["bias"] * self.bias_rate,
        }
        return Dense(self.units, self.activation), scaled


@dataclass(frozen=True)
class Scale:
    """Each column times a learned factor r s, which begins as 1; x: (rows, inputs), s: (inputs,).

    As Adam's steps have the size of its rate, the factor changes ``rate`` r times as fast as other parameters. In front of a
    network for tables it learns which columns matter (Holzmüller, Grinsztajn & Steinwart 2024).

    Examples
    --------
    >>> Scale(rate=6.0).apply(np, {"scale": np.asarray([0.5, 1 / 6])}, np.ones((1, 2))).tolist()
    [[3.0, 1.0]]
    """

    rate: float = 1.0

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_positive("rate", self.rate)

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        """Return the factors 1, divided by the rate."""
        return {"scale": np.full(inputs, 1.0 / self.rate)}

    def apply(self, xp: Any, params: Parameters, x: Array) -> Array:
        return x * (params["scale"] * self.rate)


@dataclass(frozen=True)
class PeriodicEmbedding:
    """Each number as several: learned periodic functions of it, mixed linearly, and the number itself (PBLD).

    For column j of x, (rows, inputs), e_j = cos(2π x_j f_j + p_j) W_j + b_j has ``units`` - 1 elements. The result is
    (e_1, e_2, …, x): (rows, columns × (units - 1) + inputs). In front of a network for tables it lets the network learn
    functions of a column that are not smooth (Gorishniy, Rubachev & Babenko 2022; in this form Holzmüller, Grinsztajn &
    Steinwart 2024).

    Parameters
    ----------
    units
        Elements for each column, of which one is the number itself; at least 2.
    frequencies
        Number of frequencies f_j of each column.
    sigma
        Standard deviation of the initial frequencies, which are normally distributed, in periods per unit of x.
    rate
        Factor of the learning rate of this layer's parameters: Adam's steps have the size of its rate.
    columns
        How many columns, the first ones, have embeddings; None for all. Columns of zeros and ones need none.

    Examples
    --------
    >>> layer = PeriodicEmbedding(units=2, frequencies=1)
    >>> params = {
    ...     "frequencies": np.ones((1, 1)),
    ...     "phases": np.zeros((1, 1)),
    ...     "kernel": np.ones((1, 1, 1)),
    ...     "bias": np.zeros((1, 1)),
    ... }
    >>> layer.apply(np, params, np.asarray([[0.0], [0.5], [1.0]])).tolist()
    [[1.0, 0.0], [-1.0, 0.5], [1.0, 1.0]]
    """

    units: int = 4
    frequencies: int = 16
    sigma: float = 0.1
    rate: float = 1.0
    columns: int | None = None

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_positive_integer("units", self.units)
        if self.units < 2:
            raise ValueError("units must be at least 2, as one of them is the number itself, got 1")
        check_positive_integer("frequencies", self.frequencies)
        check_positive("sigma", self.sigma)
        check_positive("rate", self.rate)
        if self.columns is not None:
            check_positive_integer("columns", self.columns)

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes; raise ValueError if there are fewer inputs than columns."""
        columns = inputs if self.columns is None else self.columns
        if columns > inputs:
            raise ValueError(f"columns must be at most the number of inputs, {inputs}, got {columns}")
        waves = (columns, self.frequencies)
        outputs = self.units - 1
        return {"frequencies": waves, "phases": waves, "kernel": (*waves, outputs), "bias": (columns, outputs)}

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        """Return frequencies of standard deviation sigma, phases in [-π, π), kernels and biases within 1/√frequencies."""
        bound = 1.0 / math.sqrt(self.frequencies)
        distributions = {
            "frequencies": initializers.Normal(std=self.sigma), "phases": initializers.Uniform(-math.pi, math.pi),
            "kernel": initializers.Uniform(-bound, bound), "bias": initializers.Uniform(-bound, bound),
        }  # fmt: skip
        return {
            name: initializers.initial(distributions[name], fold_in(key, i), shape, f"the {name}") / self.rate
            for i, (name, shape) in enumerate(self.shapes(inputs).items())
        }

    def apply(self, xp: Any, params: Parameters, x: Array) -> Array:
        frequencies, phases, kernel, bias = (
            params[name] * self.rate for name in ("frequencies", "phases", "kernel", "bias")
        )
        columns = xp.permute_dims(x[:, : kernel.shape[0]], (1, 0))
        waves = xp.cos(columns[:, :, None] * (2.0 * math.pi * frequencies)[:, None, :] + phases[:, None, :])
        embedded = xp.permute_dims(waves @ kernel + bias[:, None, :], (1, 0, 2))
        return xp.concat([xp.reshape(embedded, (x.shape[0], kernel.shape[0] * kernel.shape[2])), x], axis=1)


@dataclass(frozen=True)
class Activation:
    """An activation as a layer, for when another layer comes between it and the affine map.

    Examples
    --------
    >>> Activation("relu").apply(np, {}, np.asarray([[-1.0, 2.0]])).tolist()
    [[0.0, 2.0]]
    """

    activation: str | activations.Activation | None = None

    def __post_init__(self) -> None:
        activations.get(self.activation)

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        return {}

    def apply(self, xp: Any, params: Parameters, x: Array) -> Array:
        return activations.get(self.activation)(x)


@dataclass(frozen=True)
class Dropout:
    """In training, set each element to 0 with probability ``rate`` and scale the others by 1 / (1 - rate).

    Srivastava et al. (2014), in the "inverted" form: in prediction the layer is the identity.

    Examples
    --------
    >>> Dropout(0.5).apply(np, {}, np.ones((1, 3))).tolist()  # in prediction
    [[1.0, 1.0, 1.0]]
    """

    rate: float = field(metadata={"static": True})  # decides which random words are kept

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_number("rate", self.rate)
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {self.rate!r}")

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        return {}

    def apply(
        self, xp: Any, params: Parameters, x: Array, training: bool = False, random: Stream | None = None
    ) -> Array:
        if not training or random is None or self.rate == 0:
            return x
        kept = xp.astype(random.keep_mask(tuple(x.shape), self.rate), x.dtype)
        return x * (kept * (1.0 / (1.0 - self.rate)))


@dataclass(frozen=True)
class BatchNorm:
    """Normalize each column to mean 0 and variance 1, then scale and shift it (Ioffe & Szegedy 2015).

    In training, mean and (biased) variance are those of the batch; prediction uses running means of both, in which the past has
    weight ``momentum``.

    Examples
    --------
    >>> params = BatchNorm().init(np.zeros(2), 1)
    >>> BatchNorm(epsilon=0.0).apply(np, params, np.asarray([[1.0], [3.0]]), training=True).tolist()
    [[-1.0], [1.0]]
    """

    momentum: float = field(default=0.9, metadata={"static": True})  # 1 - momentum is computed in float64
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        take_numbers_of_numpy(self)
        check_number("epsilon", self.epsilon)
        check_number("momentum", self.momentum)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")

    def init(self, key: np.ndarray, inputs: int) -> Parameters:
        """Return scale 1 and shift 0."""
        return {"scale": np.ones(inputs), "shift": np.zeros(inputs)}

    def init_statistics(self, inputs: int) -> Parameters:
        """Return mean 0 and variance 1."""
        return {"mean": np.zeros(inputs), "variance": np.ones(inputs)}

    def update_statistics(self, xp: Any, params: Parameters, x: Array) -> Parameters:
        """Return the running statistics after a batch."""
        mean, variance = self._moments(xp, x)
        new = {"mean": mean, "variance": variance}
        return {name: self.momentum * params[name] + (1.0 - self.momentum) * new[name] for name in new}

    def apply(self, xp: Any, params: Parameters, x: Array, training: bool = False) -> Array:
        mean, variance = self._moments(xp, x) if training else (params["mean"], params["variance"])
        return (x - mean) / xp.sqrt(variance + self.epsilon) * params["scale"] + params["shift"]

    def _moments(self, xp: Any, x: Array) -> tuple[Array, Array]:
        return xp.mean(x, axis=0), xp.var(x, axis=0)


def layer_names(layers: Sequence[Any]) -> list[str]:
    """Return the default names, counted for each kind: dense_1, dense_2, batch_norm_1, …"""
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
        counts[kind] += 1
        names.append(f"{kind}_{counts[kind]}")
    return names


LAYERS = (Activation, BatchNorm, Dense, Dropout, NTKDense, PeriodicEmbedding, Scale)
"""The built-in layers, which model files may name."""
