"""Initializers: the initial values of a parameter, computed on the host.

An initializer is a function of a key and a shape; its values are float64 and bit-identical on every machine (see `random`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import random
from ..runtime.arrays import to_numpy
from .lookup import lookup

Initializer = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Uniform:
    """Uniform distribution between ``low`` and ``high``.

    Examples
    --------
    >>> Uniform(-0.1, 0.1)(random.new_key(0, random.WEIGHTS), (3, 2)).shape
    (3, 2)
    """

    low: float = -0.05
    high: float = 0.05

    def __call__(self, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return self.low + (self.high - self.low) * random.uniform(key, shape)


@dataclass(frozen=True)
class Normal:
    """Normal distribution.

    Examples
    --------
    >>> Normal(std=0.1)(random.new_key(0, random.WEIGHTS), (3, 2)).shape
    (3, 2)
    """

    mean: float = 0.0
    std: float = 0.05

    def __call__(self, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return self.mean + self.std * random.normal(key, shape)


@dataclass(frozen=True)
class Scaled:
    """Mean 0 and variance ``scale`` / fan, where fan is the number of inputs, or the mean of inputs and outputs.

    Glorot & Bengio (2010): scale 1, both; He et al. (2015): scale 2, inputs; LeCun et al. (1998): scale 1, inputs.
    """

    scale: float
    both: bool
    distribution: str

    def __call__(self, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        inputs, outputs = (shape[0], shape[-1]) if len(shape) > 1 else (1, shape[0])
        variance = self.scale / ((inputs + outputs) / 2 if self.both else inputs)
        if self.distribution == "normal":
            return math.sqrt(variance) * random.normal(key, shape)
        return math.sqrt(3.0 * variance) * (2.0 * random.uniform(key, shape) - 1.0)


def zeros(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros."""
    return np.zeros(shape)


def ones(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return ones."""
    return np.ones(shape)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "ones": ones,
    "uniform": Uniform(),
    "normal": Normal(),
    "glorot_uniform": Scaled(1.0, True, "uniform"),
    "glorot_normal": Scaled(1.0, True, "normal"),
    "he_uniform": Scaled(2.0, False, "uniform"),
    "he_normal": Scaled(2.0, False, "normal"),
    "lecun_uniform": Scaled(1.0, False, "uniform"),
    "lecun_normal": Scaled(1.0, False, "normal"),
}


def initial(initializer: Any, key: np.ndarray, shape: tuple[int, ...], what: str = "a parameter") -> np.ndarray:
    """Return the initial values of ``what``, from the name of an initializer, an initializer, or an array.

    Raises
    ------
    ValueError
        For an unknown name, or an array of another shape.
    """
    if isinstance(initializer, str):
        initializer = lookup("initializer", INITIALIZERS, initializer, f"an array of the shape of {what}, {shape}")
    values = initializer(key, shape) if callable(initializer) else initializer
    array = np.asarray(to_numpy(values), dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"expected initial values of shape {shape} for {what}, got {array.shape}")
    return array
