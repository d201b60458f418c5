"""Activations: functions of an array in Array API code, by name.

A user's function of an array can be given wherever a name can.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..program.ir import Array
from ..runtime.arrays import array_namespace, stop_gradient
from .lookup import lookup

Activation = Callable[[Array], Array]


def identity(x: Array) -> Array:
    """Return the array unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> identity(np.asarray([-1.0, 2.0])).tolist()
    [-1.0, 2.0]
    """
    return x


def step(x: Array) -> Array:
    """Return 1 where x ≥ 0, else 0: the threshold neuron (McCulloch & Pitts 1943); its gradient is 0.

    Examples
    --------
    >>> import numpy as np
    >>> step(np.asarray([-1.0, 0.0, 2.0])).tolist()
    [0.0, 1.0, 1.0]
    """
    xp = array_namespace(x)
    return xp.astype(x >= 0.0, x.dtype)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which never overflows.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.asarray([0.0, -800.0])).tolist()
    [0.5, 0.0]
    """
    return array_namespace(x).tanh(x * 0.5) * 0.5 + 0.5


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> tanh(np.asarray([0.0])).tolist()
    [0.0]
    """
    return array_namespace(x).tanh(x)


def relu(x: Array) -> Array:
    """Return max(x, 0), with derivative 0 at 0.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.asarray([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return array_namespace(x).maximum(x, 0.0)


def leaky_relu(x: Array) -> Array:
    """Return x where x > 0, else x / 100 (Maas, Hannun & Ng 2013).

    Examples
    --------
    >>> import numpy as np
    >>> leaky_relu(np.asarray([-1.0, 2.0])).tolist()
    [-0.01, 2.0]
    """
    return array_namespace(x).maximum(x, x * 0.01)


def elu(x: Array) -> Array:
    """Return x where x > 0, else exp(x) - 1 (Clevert, Unterthiner & Hochreiter 2016).

    Examples
    --------
    >>> import numpy as np
    >>> elu(np.asarray([-1.0, 2.0])).round(6).tolist()
    [-0.632121, 2.0]
    """
    xp = array_namespace(x)
    return xp.maximum(x, 0.0) + xp.expm1(xp.minimum(x, 0.0))


def selu(x: Array) -> Array:
    """Return 1.0507 · (x where x > 0, else 1.6733 · (exp(x) - 1)) (Klambauer et al. 2017).

    Examples
    --------
    >>> import numpy as np
    >>> selu(np.asarray([-1.0, 2.0])).round(6).tolist()
    [-1.111331, 2.101402]
    """
    xp = array_namespace(x)
    negative = xp.expm1(xp.minimum(x, 0.0)) * (1.0507009873554805 * 1.6732632423543772)
    return xp.maximum(x, 0.0) * 1.0507009873554805 + negative


def mish(x: Array) -> Array:
    """Return x tanh(softplus(x)) (Misra 2020), as x n / (n + 2) with n = w (w + 2) and w = exp(x), which has one exponential.

    Examples
    --------
    >>> import numpy as np
    >>> mish(np.asarray([-1.0, 2.0])).round(6).tolist()
    [-0.303401, 1.943959]
    """
    xp = array_namespace(x)
    w = xp.exp(xp.minimum(x, 20.0))  # from 20 on, n / (n + 2) is 1
    n = w * (w + 2.0)
    return x * (n / (n + 2.0))


def gelu(x: Array) -> Array:
    """Return x Φ(x) in the tanh approximation (Hendrycks & Gimpel 2016): the standard has no error function.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.asarray([0.0, 10.0])).tolist()
    [0.0, 10.0]
    """
    inner = (x + 0.044715 * (x * x * x)) * math.sqrt(2.0 / math.pi)
    return 0.5 * x * (array_namespace(x).tanh(inner) + 1.0)


def silu(x: Array) -> Array:
    """Return x sigmoid(x) (Elfwing, Uchibe & Doya 2018).

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.asarray([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow.

    Examples
    --------
    >>> import numpy as np
    >>> softplus(np.asarray([0.0, 800.0])).round(6).tolist()
    [0.693147, 800.0]
    """
    return array_namespace(x).logaddexp(x, 0.0)


def softmax(x: Array) -> Array:
    """Return exp(x) divided by its sum along the last axis, without overflow.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.asarray([[0.0, 0.0], [0.0, 800.0]])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    xp = array_namespace(x)
    powers = xp.exp(x - stop_gradient(xp.max(x, axis=-1, keepdims=True)))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


ACTIVATIONS: dict[str, Activation] = {
    function.__name__: function
    for function in (identity, step, sigmoid, tanh, relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, softmax)
}


def get(activation: str | Activation | None) -> Activation:
    """Return the activation of this name (`ValueError` if unknown); a function is returned unchanged, `identity` for None.

    Examples
    --------
    >>> import numpy as np
    >>> get("relu")(np.asarray([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if activation is None:
        return identity
    if callable(activation):
        return activation
    return lookup("activation", ACTIVATIONS, activation, "a function")
