"""`grad` and `value_and_grad`: reverse-mode derivatives of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..program.autodiff import NotDifferentiableError, value_and_gradients
from ..program.ir import Array, Program
from ..program.trace import function_name
from .compile import Arguments, Result, Transform, transformed
from .tree import LEAF, Structure, tree_unflatten

__all__ = ["grad", "value_and_grad"]


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
    return transformed(_Differentiated(fun, argnums, has_aux=False, with_value=False))


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
    return transformed(_Differentiated(fun, argnums, has_aux=has_aux, with_value=True))


class _Differentiated(Transform):
    def __init__(self, fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, with_value: bool) -> None:
        super().__init__(fun)
        self.single, self.has_aux, self.with_value = isinstance(argnums, int), has_aux, with_value
        numbers = (argnums,) if isinstance(argnums, int) else argnums
        if not (isinstance(numbers, (tuple, list)) and all(isinstance(n, int) for n in numbers)):
            raise TypeError(
                f"argnums must be an integer or a sequence of integers, got {argnums!r}; call the function that grad(fun) "
                "returns"
            )
        self.argnums = tuple(numbers)
        self.facts = (self.argnums, has_aux)

    def change(self, program: Program, result: Result, arguments: Arguments) -> Program:
        structure = result.structure
        if self.has_aux:
            if not (isinstance(structure, tuple) and structure[0] is tuple and len(structure[-1]) == 2):
                raise NotDifferentiableError(f"{function_name(self.fun)} must return (scalar, rest) with has_aux=True")
            structure = structure[-1][0]
        elif result.fixed:
            super().change(program, result, arguments)
        if structure != LEAF or 0 in result.fixed:
            raise NotDifferentiableError(
                f"{function_name(self.fun)} must return one scalar array; for (scalar, rest) use "
                "value_and_grad(..., has_aux=True)"
            )
        return value_and_gradients(program, [n for argnum in self.argnums for n in self._arrays(argnum, arguments)])

    def _arrays(self, argnum: int, arguments: Arguments) -> list[int]:
        """Return which of the arrays belong to a positional argument; its other leaves are an error."""
        counts = list(map(_count, _positional(arguments)))
        if not -len(counts) <= argnum < len(counts):
            raise TypeError(f"argnums={argnum} requires more positional arguments, got {len(counts)}")
        start = sum(counts[: argnum % len(counts)])
        leaves = range(start, start + counts[argnum])
        for i in leaves:
            if i not in arguments.positions:
                raise NotDifferentiableError(
                    f"argument {argnum} holds {arguments.leaves[i]!r}, a {type(arguments.leaves[i]).__name__}: gradients are "
                    "taken by arrays; convert it, for example with numpy.asarray"
                )
        return [arguments.positions.index(i) for i in leaves]

    def outcome(self, arrays: Sequence[Array], result: Result, arguments: Arguments) -> Any:
        structures = [_positional(arguments)[n] for n in self.argnums]
        first = len(arrays) - sum(map(_count, structures))
        rest = iter(arrays[first:])
        trees = [tree_unflatten(structure, rest) for structure in structures]
        gradients = trees[0] if self.single else tuple(trees)
        return (result.unflatten(arrays[:first]), gradients) if self.with_value else gradients


def _positional(arguments: Arguments) -> tuple[Structure, ...]:
    """Return the structure of each positional argument."""
    return arguments.structure[-1][0][-1]


def _count(structure: Structure) -> int:
    """Return the number of leaves."""
    return 1 if structure == LEAF else 0 if structure is None else sum(map(_count, structure[-1]))
