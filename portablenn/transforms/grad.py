"""`grad` and `value_and_grad`: reverse-mode derivatives of functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..program.autodiff import NotDifferentiableError, value_and_gradients
from ..program.ir import Array, Program
from .compile import Arguments, Transform, function_name, transformed
from .tree import LEAF, Structure, tree_unflatten

__all__ = ["grad", "value_and_grad"]


def grad(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function.

    Parameters
    ----------
    fun
        As for `compile`; returns one real scalar array.
    argnums
        By which positional arguments; one number, or several for a tuple of gradients.

    Returns
    -------
    callable
        Takes what ``fun`` does; returns gradients in the structure of those arguments, in the same library.

    Raises
    ------
    NotDifferentiableError
        At the call: if the result is no real scalar, or an argument holds anything but real floating arrays.

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
    both = value_and_grad(fun, argnums)

    @functools.wraps(fun, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    gradient.program = both.program  # type: ignore[attr-defined]
    return gradient


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a scalar function and its gradient, from one pass.

    Parameters
    ----------
    fun, argnums
        As for `grad`.
    has_aux
        Whether ``fun`` returns (scalar, anything else); the rest is then passed on.

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
    several = isinstance(argnums, (tuple, list)) and all(isinstance(n, int) for n in argnums)
    if not (isinstance(argnums, int) or several):
        raise TypeError(
            f"argnums is the number of an argument, or several, found {argnums!r}; grad(fun) is then called"
        )
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    return transformed(fun, functools.partial(_Differentiated, argnums=numbers, single=single, has_aux=has_aux))


class _Differentiated(Transform):
    def __init__(self, fun: Callable[..., Any], argnums: tuple[int, ...], single: bool, has_aux: bool) -> None:
        super().__init__(fun)
        self.argnums = argnums
        self.single = single
        self.has_aux = has_aux

    @property
    def facts(self) -> Hashable:
        return (self.argnums, self.has_aux)

    def change(self, program: Program, arguments: Arguments) -> Program:
        numbers = [n for argnum in self.argnums for n in arguments.array_numbers(argnum)]
        return value_and_gradients(program, numbers)

    def result(self, arrays: Sequence[Array], structure: Structure, arguments: Arguments) -> Any:
        if structure != LEAF and not self.has_aux:
            raise NotDifferentiableError(
                f"{function_name(self.fun)} must return one scalar array; for (scalar, rest) use "
                "value_and_grad(..., has_aux=True)"
            )
        count = len(arrays) - sum(arguments.counts[n] for n in self.argnums)
        value, rest = tree_unflatten(structure, list(arrays[:count])), list(arrays[count:])
        gradients = []
        for argnum in self.argnums:
            size = arguments.counts[argnum]
            gradients.append(tree_unflatten(arguments.structure_of(argnum), rest[:size]))
            rest = rest[size:]
        return value, gradients[0] if self.single else tuple(gradients)
