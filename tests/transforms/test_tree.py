"""tree_flatten and tree_unflatten: order, types, and what distinguishes two structures."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest

from portablenn.transforms.tree import static_key, tree_flatten, tree_unflatten

Point = namedtuple("Point", ["x", "y"])


class Pair(Point):
    def __new__(cls, both: Any) -> Pair:
        return super().__new__(cls, both, both)


@pytest.mark.parametrize(
    "tree",
    [
        5,
        None,
        [],
        (),
        {},
        [1, (2, {"a": 3})],
        {"b": 1, "a": None},
        {1: "one", "a": "two", (0, 1): "three"},
        OrderedDict([("b", 1), ("a", 2)]),
        defaultdict(list, b=1, a=2),
        Counter(a=3, b=1),
        Point(1, [None, 2]),
        Pair(1),
    ],
)
def test_a_tree_comes_back_equal_and_of_the_same_type(tree: Any) -> None:
    leaves, structure = tree_flatten(tree)
    again = tree_unflatten(structure, leaves)
    assert again == tree
    assert type(again) is type(tree)
    assert hash(structure) == hash(tree_flatten(tree)[1])
    if isinstance(tree, OrderedDict):
        assert list(again) == list(tree)
    if isinstance(tree, defaultdict):
        assert again["new"] == []


def test_leaves_are_in_the_order_of_sorted_keys() -> None:
    assert tree_flatten({"b": 1, "a": [2, None, 3]})[0] == [2, 3, 1]
    assert tree_flatten(OrderedDict([("b", 1), ("a", 2)]))[0] == [1, 2]
    assert tree_flatten({2: "two", "a": "letter"})[0] == ["two", "letter"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1: 0}, {True: 0}),
        ({(1,): 0}, {(True,): 0}),
        ({"a": 0}, OrderedDict(a=0)),
        (defaultdict(list, a=0), defaultdict(dict, a=0)),
        ([0, 0], (0, 0)),
        ([None], [0]),
        ([None], [[]]),
        (Point(0, 0), (0, 0)),
        ([[0], 0], [0, [0]]),
    ],
)
def test_structures_of_different_trees_differ(one: Any, other: Any) -> None:
    assert tree_flatten(one)[1] != tree_flatten(other)[1]


def test_static_keys_of_equal_values_of_different_types_differ() -> None:
    values = [1, True, 1.0, 1 + 0j, "1", None, 0.0, -0.0, 0, False, (0.0,), (-0.0,), (1,), (True,), ((1,),), "0.0"]
    assert len({static_key(value) for value in values}) == len(values)
    assert static_key(float("nan")) == static_key(float("nan"))
    table: list[int] = []
    assert static_key(table) == static_key(table)
    assert hash(static_key(table)) == hash(static_key(table))
    assert static_key(table) != static_key([])
    assert static_key(table) != static_key(id(table))
