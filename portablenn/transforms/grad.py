"""`grad` and `value_and_grad`: reverse-mode derivatives of functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..runtime.arrays import array_namespace
from .compile import check_function
from .vjp import Recorded

__all__ = ["elementwise_grad", "grad", "value_and_grad"]


def grad(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes the gradient of a scalar function.

    A branch that ``where`` does not take contributes nothing. At points without a derivative the gradient is a subgradient: 0
    for `abs`, `hypot` and square roots of sums of squares at 0, equal shares for ties of ``max`` and ``min``.

    Parameters
    ----------
    fun
        As for `compile`; returns one real scalar array.
    argnums
        Positional arguments to differentiate by: one number, or several for a tuple of gradients.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns gradients in the structure of those arguments, in the same library.

    Raises
    ------
    NotDifferentiableError
        At the call, if the result is not a real scalar, or an argument holds anything but real floating arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.grad(lambda x: pnn.xp.sum(x**3))(np.asarray([1.0, 2.0]))
    array([ 3., 12.])
    >>> cube = lambda x: x**3
    >>> float(pnn.grad(pnn.grad(cube))(np.asarray(2.0)))
    12.0
    """
    return _differentiated(fun, argnums, has_aux=False, with_value=False)


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """Return a function that computes the value and the gradient of a scalar function in one pass.

    Parameters
    ----------
    fun, argnums
        As for `grad`.
    has_aux
        Whether ``fun`` returns (scalar, rest); the rest is then returned unchanged.

    Returns
    -------
    callable
        Returns (value, gradients), or ((value, rest), gradients) with ``has_aux``.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> value, gradient = pnn.value_and_grad(lambda p: p["a"] * p["b"])({"a": np.asarray(2.0), "b": np.asarray(3.0)})
    >>> float(value), float(gradient["a"]), float(gradient["b"])
    (6.0, 3.0, 2.0)
    """
    return _differentiated(fun, argnums, has_aux=has_aux, with_value=True)


def elementwise_grad(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes the derivative of an elementwise function at each element.

    It is the gradient of the sum of the results.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.elementwise_grad(np.sin)(np.asarray([0.0, np.pi]))
    array([ 1., -1.])
    """

    def total(*args: Any, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        return array_namespace(result).sum(result)

    check_argnums(fun, argnums)
    return grad(functools.wraps(fun, updated=())(total), argnums)


def check_argnums(fun: Any, argnums: Any) -> tuple[int, ...]:
    """Return the numbers of the arguments to differentiate by; raise TypeError if something else was given."""
    check_function(fun)
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    if not (isinstance(numbers, (tuple, list)) and all(isinstance(n, int) for n in numbers)):
        raise TypeError(
            f"argnums must be an integer or a sequence of integers, got {argnums!r}; call the function that grad(fun) returns"
        )
    return tuple(numbers)


def _differentiated(
    fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, with_value: bool
) -> Callable[..., Any]:
    numbers = check_argnums(fun, argnums)

    @functools.wraps(fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        recorded = Recorded(fun, args, kwargs, numbers, has_aux)
        recorded.check_scalar()
        trees = recorded.pull([None])
        gradients = trees[0] if isinstance(argnums, int) else trees
        if not with_value:
            return gradients
        return ((recorded.value, recorded.rest) if has_aux else recorded.value), gradients

    return call
