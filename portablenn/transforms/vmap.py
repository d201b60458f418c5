"""`vmap`: a function of one element is done for many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..program.batching import mapping
from ..program.ir import Array
from ..program.trace import function_name
from ..runtime.arrays import array_namespace, is_array
from .compile import NUMBERS, check_function, surroundings
from .tree import LEAF, Structure, tree_flatten, tree_unflatten

__all__ = ["vmap"]


def vmap(fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """Return a function that does ``fun`` for each element along an axis of its arguments, all at once.

    Parameters
    ----------
    fun
        A function of arrays, or nested dicts, lists and tuples of arrays, as for `grad`. It runs at each call, and sees
        arrays without the mapped axis; it must do the same operations for each element.
    in_axes
        The axis of each positional argument that is mapped over: an integer for all, or a tuple with an entry for each: an
        integer, None (the argument is the same for each element), or a tree of these. Keyword arguments are mapped over axis 0.
    out_axes
        Where the mapped axis stands in the result: an integer, or a tree of integers.

    Returns
    -------
    callable
        Takes the arguments of ``fun``, with one axis more where they are mapped; returns its results, with one axis more.

    Raises
    ------
    ValueError
        At the call, if the mapped axes have different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.vmap(np.dot, in_axes=(0, None))(np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([10.0, 1.0]))
    array([12., 34.])
    """
    check_function(fun)

    @functools.wraps(fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        name = function_name(fun)
        if isinstance(in_axes, (tuple, list)) and len(in_axes) != len(args):
            raise ValueError(f"in_axes has {len(in_axes)} entries, and {name} was called with {len(args)} arguments")
        leaves, structure = tree_flatten((args, kwargs))
        arguments, keywords = structure[-1]
        axes = [*_axes(in_axes, arguments, name), *_axes(0, keywords, name)]
        mapped = [
            _moved(leaf, axis, name) if axis is not None else leaf for leaf, axis in zip(leaves, axes, strict=True)
        ]
        sizes = {int(x.shape[0]) for x, axis in zip(mapped, axes, strict=True) if axis is not None}
        if len(sizes) != 1:
            shapes = ", ".join(str(tuple(x.shape)) for x, axis in zip(leaves, axes, strict=True) if axis is not None)
            what = f"of one length, got shapes {shapes} over in_axes={in_axes}" if sizes else "in at least one argument"
            raise ValueError(f"vmap maps over axes {what}")
        backend, xp, device = surroundings([a for a in mapped if is_array(a)])
        with backend.context(), mapping(xp, sizes.pop(), device, backend.functions) as trace:
            inner = [
                trace.element(x) if axis is not None else trace.lift(x) if is_array(x) else x
                for x, axis in zip(mapped, axes, strict=True)
            ]
            positional, named = tree_unflatten(structure, inner)
            results, result_structure = tree_flatten(fun(*positional, **named))
            for result in results:
                if not (is_array(result) or isinstance(result, NUMBERS)):
                    raise TypeError(f"expected arrays from {name}, got {type(result).__name__}: {result!r}")
            values = [trace.all_elements(result) for result in results]
        places = _axes(out_axes, result_structure, name)
        return tree_unflatten(result_structure, [_to_axis(v, place) for v, place in zip(values, places, strict=True)])

    return call


def _axes(axes: Any, structure: Structure, name: str) -> list[int | None]:
    """Return the axis of each leaf, given an axis, or a tree of axes that may end before the leaves do."""
    return list(_spread(axes, structure, name))


def _spread(axes: Any, structure: Structure, name: str) -> Iterator[int | None]:
    if axes is None or isinstance(axes, (int, np.integer)):
        yield from [None if axes is None else int(axes)] * _count(structure)
        return
    names = (
        []
        if structure in (LEAF, None) or structure[2] is None
        else [n if isinstance(n, str) else n[1] for n in structure[2]]
    )
    parts = [axes.get(n, axes) for n in names] if isinstance(axes, dict) else axes
    children = () if structure in (LEAF, None) else structure[-1]
    fits = (
        isinstance(axes, dict) == bool(names) and len(axes) == len(children) and (not names or set(names) == set(axes))
    )
    if not isinstance(parts, (tuple, list)) or not fits:
        raise ValueError(f"the axes {axes!r} do not fit the structure of what {name} takes or returns")
    for part, child in zip(parts, children, strict=True):
        yield from _spread(part, child, name)


def _count(structure: Structure) -> int:
    """Return the number of leaves."""
    return 1 if structure == LEAF else 0 if structure is None else sum(map(_count, structure[-1]))


def _moved(x: Any, axis: int, name: str) -> Array:
    """Return an array with the mapped axis in front."""
    if not is_array(x) or not -x.ndim <= axis < x.ndim:
        shown = f"shape {tuple(x.shape)}" if is_array(x) else repr(x)
        raise ValueError(f"vmap maps {name} over axis {axis} of an argument with {shown}: give None in in_axes for it")
    return array_namespace(x).moveaxis(x, axis, 0) if axis % x.ndim else x


def _to_axis(x: Any, axis: int | None) -> Any:
    if axis is None:
        raise ValueError("out_axes are integers: the result has the mapped axis in any case")
    value = np.asarray(x) if isinstance(x, np.generic) else x
    return array_namespace(value).moveaxis(value, 0, axis) if axis % value.ndim else value
