"""Flattening and unflattening of trees (nested dicts, lists and tuples), as in JAX."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

Structure = Any
"""A tree without its leaves; hashable. `LEAF` replaces each leaf."""

LEAF = "*"


def tree_flatten(tree: Any) -> tuple[list[Any], Structure]:
    """Return the leaves of a tree in order, and its structure.

    Dicts are traversed in the order of sorted keys, an OrderedDict in its order. None is a tree without leaves.

    Examples
    --------
    >>> leaves, structure = tree_flatten({"b": 1, "a": [2, None, 3]})
    >>> tree_unflatten(structure, [x * 10 for x in leaves])
    {'a': [20, None, 30], 'b': 10}
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Structure:
    if isinstance(tree, dict):
        names = list(tree)
        if not isinstance(tree, OrderedDict):
            try:
                names.sort()
            except TypeError:  # keys of several types
                names = list(tree)
        children = tuple([_flatten(tree[name], leaves) for name in names])
        factory = tree.default_factory if isinstance(tree, defaultdict) else None
        return (
            type(tree),
            factory,
            tuple([name if type(name) is str else (static_key(name), name) for name in names]),
            children,
        )
    if isinstance(tree, (list, tuple)):
        return type(tree), None, None, tuple([_flatten(child, leaves) for child in tree])
    if tree is None:
        return None
    leaves.append(tree)
    return LEAF


def tree_unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """Return the tree of this structure with these leaves."""
    return _unflatten(structure, iter(leaves))


def _unflatten(structure: Structure, leaves: Iterator[Any]) -> Any:
    if structure == LEAF:
        return next(leaves)
    if structure is None:
        return None
    kind, factory, names, structures = structure
    children = [_unflatten(child, leaves) for child in structures]
    if names is None:
        return kind._make(children) if hasattr(kind, "_make") else kind(children)
    tree = kind(factory) if issubclass(kind, defaultdict) else kind()
    for name, child in zip(names, children, strict=True):
        tree[name if type(name) is str else name[1]] = child
    return tree


def static_key(value: Any) -> Hashable:
    """Return a key that is equal for the same values only: 1, 1.0 and True differ, and so do 0.0 and -0.0.

    An object that is not hashable, or whose class does not define equality, is compared by identity: the key has its id, and
    does not keep it alive.

    Examples
    --------
    >>> static_key(1) == static_key(True), static_key((0.0,)) == static_key((-0.0,))
    (False, False)
    """
    if isinstance(value, tuple):
        return (type(value), *map(static_key, value))
    if isinstance(value, (float, complex)):
        return type(value), repr(value)
    return (type(value), "id", id(value)) if is_compared_by_identity(value) else (type(value), value)


def is_compared_by_identity(value: Any) -> bool:
    """Return whether only the same object has the same `static_key`; who keeps the key has to know when the object is gone."""
    if type(value).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]
        return True
    try:
        hash(value)
    except TypeError:
        return True
    return False
