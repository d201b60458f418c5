"""Nested dicts, lists and tuples: taken apart into leaves and put together again.

Requires nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Structure = Any
"""What is left of a tree without its leaves; hashable. `LEAF` stands where each leaf was."""

LEAF = "*"


def tree_flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves in order (dicts by sorted key), and the structure that they were in.

    Examples
    --------
    >>> tree_flatten({"b": 1, "a": [2, 3]})
    ([2, 3, 1], (<class 'dict'>, ('a', 'b'), ((<class 'list'>, None, ('*', '*')), '*')))
    """
    if isinstance(tree, dict):
        try:
            names: Any = tuple(sorted(tree))
        except TypeError:  # keys of several kinds
            names = tuple(tree)
        children = [tree[name] for name in names]
    elif isinstance(tree, (list, tuple)):
        names, children = None, list(tree)
    else:
        return [tree], LEAF
    leaves: list[Any] = []
    structures = []
    for child in children:
        more, structure = tree_flatten(child)
        leaves += more
        structures.append(structure)
    if names is not None and not all(type(name) is str for name in names):
        names = tuple((type(name), name) for name in names)  # 1 and True are equal, and different keys of a program
    return leaves, (type(tree), names, tuple(structures))


def tree_unflatten(structure: Structure, leaves: list[Any]) -> Any:
    """The tree of this structure with these leaves.

    Examples
    --------
    >>> leaves, structure = tree_flatten({"b": 1, "a": [2, 3]})
    >>> tree_unflatten(structure, [x * 10 for x in leaves])
    {'a': [20, 30], 'b': 10}
    """
    return _built(structure, iter(leaves))


def _built(structure: Structure, leaves: Iterator[Any]) -> Any:
    if structure is LEAF or structure == LEAF:
        return next(leaves)
    kind, names, structures = structure
    children = [_built(s, leaves) for s in structures]
    if names is not None:
        names = [
            name[1] if type(name) is tuple and len(name) == 2 and type(name[0]) is type else name for name in names
        ]
        return kind(zip(names, children, strict=True)) if kind is dict else dict(zip(names, children, strict=True))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)
