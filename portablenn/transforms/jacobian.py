"""`jvp`, `jacobian`, `hessian` and `hvp`: derivatives made of `vjp`, `grad` and `vmap`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of
from .grad import check_argnums, grad
from .tree import tree_flatten, tree_unflatten
from .vjp import Recorded, vjp
from .vmap import vmap

__all__ = ["hessian", "hvp", "jacobian", "jvp"]


def jvp(fun: Callable[..., Any], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return the value of a function and its derivative along tangents of its arguments.

    The cotangents of the arguments are a linear function of that of the result; the tangent is pulled back through it (Griewank
    & Walther, Evaluating Derivatives, 2008, chapter 3).

    Parameters
    ----------
    fun
        As for `vjp`.
    args
        A tuple of its arguments, real floating arrays and Python floats, or trees of these.
    tangents
        A tuple of the same structure, shapes and dtypes.

    Returns
    -------
    value, tangent
        What ``fun`` returns, and the directional derivative of that, in the same structure.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> value, tangent = pnn.jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0))
    >>> float(value), float(tangent)
    (6.0, 23.0)
    """
    if not (isinstance(args, (tuple, list)) and isinstance(tangents, (tuple, list)) and len(args) == len(tangents)):
        raise TypeError("jvp takes a tuple of arguments and a tuple of as many tangents: jvp(f, (x,), (v,))")
    value, pullback = vjp(fun, *args)
    leaves, structure = tree_flatten(value)
    zeros = tree_unflatten(structure, [array_namespace(leaf).zeros_like(leaf) for leaf in leaves])
    _, push = vjp(pullback, zeros)
    return value, push(tuple(tangents))[0]


def jacobian(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes all derivatives of an array function.

    It goes back from each element of the result, or forward from each element of the argument, whichever are fewer.

    Parameters
    ----------
    fun
        As for `vjp`; returns an array, or a tree of arrays.
    argnums
        Positional arguments to differentiate by: one number, or several for a tuple.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns the tree of its result, with the tree of an argument in place of each array: one
        of shape (2, 3), by an argument of shape (4,), has derivatives of shape (2, 3, 4).

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.jacobian(lambda x: x**2)(np.asarray([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    numbers = check_argnums(fun, argnums)

    @functools.wraps(fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        recorded = Recorded(fun, args, kwargs, numbers)
        inputs = [x.value for x in recorded.by]
        outputs = tree_flatten(recorded.value)[0]
        if sum(map(_size, inputs)) < sum(map(_size, outputs)):
            table = _columns(recorded, inputs, outputs)
        else:
            table = [_row(recorded, i, y) for i, y in enumerate(outputs)]
        trees = [_argument_trees(recorded, row) for row in table]
        rows = [tree[0] for tree in trees] if isinstance(argnums, int) else trees
        return tree_unflatten(recorded.structure, rows)

    return call


def _argument_trees(recorded: Recorded, leaves: Sequence[Array]) -> tuple[Any, ...]:
    rest = iter(leaves)
    return tuple([tree_unflatten(structure, rest) for structure in recorded.structures])


def _basis(x: Array) -> Array:
    """Return one array of the type of ``x`` for each of its elements, which is 1 there and 0 elsewhere."""
    xp = array_namespace(x)
    unit = xp.eye(_size(x), dtype=x.dtype, device=device_of(x))
    return xp.reshape(unit, (_size(x), *x.shape))


def _size(x: Array) -> int:
    return math.prod(x.shape)


def _row(recorded: Recorded, position: int, output: Array) -> list[Array]:
    """Return the derivatives of one result by all arguments, going back from each of its elements."""

    def pulled(cotangent: Array) -> list[Array]:
        cotangents = [array_namespace(y).zeros_like(y) for y in tree_flatten(recorded.value)[0]]
        cotangents[position] = cotangent
        return tree_flatten(recorded.pull(cotangents))[0]

    shape = tuple(output.shape)
    found = vmap(pulled)(_basis(output))
    return [array_namespace(g).reshape(g, (*shape, *g.shape[1:])) for g in found]


def _columns(recorded: Recorded, inputs: Sequence[Array], outputs: Sequence[Array]) -> list[list[Array]]:
    """Return the derivatives of each result by each argument, going forward from each element of an argument."""
    zeros = [array_namespace(y).zeros_like(y) for y in outputs]
    linear = Recorded(lambda *g: tree_flatten(recorded.pull(list(g)))[0], zeros, {}, range(len(zeros)))
    columns = []
    for k, x in enumerate(inputs):

        def pushed(tangent: Array, k: int = k) -> tuple[Array, ...]:
            tangents = [array_namespace(v).zeros_like(v) for v in inputs]
            tangents[k] = tangent
            return linear.pull(tangents)

        found = vmap(pushed)(_basis(x))
        last = [array_namespace(t).moveaxis(t, 0, -1) for t in found]
        columns.append([array_namespace(t).reshape(t, (*t.shape[:-1], *x.shape)) for t in last])
    return [list(row) for row in zip(*columns, strict=True)]


def hessian(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes the second derivatives of a scalar function.

    Parameters
    ----------
    fun, argnums
        As for `grad`.

    Returns
    -------
    callable
        Takes the arguments of ``fun``; returns `jacobian` of `grad`: for an argument of shape (n,) an array of shape (n, n).

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.hessian(lambda x: x[0] ** 2 * x[1])(np.asarray([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    return jacobian(grad(fun, argnums), argnums)


def hvp(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of (x, v) that computes the product of the Hessian of a scalar function at x with v.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.hvp(lambda x: x[0] ** 2 * x[1])(np.asarray([1.0, 3.0]), np.asarray([1.0, 0.0]))
    array([6., 2.])
    """
    gradient = grad(fun)

    @functools.wraps(fun, updated=())
    def call(x: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
        _, pullback = vjp(lambda x: gradient(x, *args, **kwargs), x)
        return pullback(v)[0]  # the Hessian is symmetric

    return call
