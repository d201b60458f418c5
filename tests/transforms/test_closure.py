"""What a function closes over is never stale."""

from __future__ import annotations

import functools
import gc
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

SCALE: Any = 2.0


def _scaled_by_a_global(x: Any) -> Any:
    return x * SCALE


def _through_a_helper(x: Any) -> Any:
    return _scaled_by_a_global(x) + 0.0


class Scaled:
    def __init__(self) -> None:
        self.factor: Any = 2.0

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    def loss(self, x: Any) -> Any:
        return pnn.xp.sum(self(x))


@pytest.mark.parametrize("new", [3.0, 3, np.float64(3.0), np.asarray(3.0)])
def test_a_number_in_a_closure_is_read_at_each_call(new: Any) -> None:
    k: Any = 2.0
    g = pnn.grad(lambda x: x * k)
    twice = pnn.grad(lambda x: pnn.grad(lambda y: y * y * k)(x))
    nested = pnn.compile(pnn.grad(lambda x: x * k))
    x = np.asarray(1.0)
    assert (float(g(x)), float(twice(x)), float(nested(x))) == (2.0, 4.0, 2.0)
    k = new
    assert (float(g(x)), float(twice(x)), float(nested(x))) == (3.0, 6.0, 3.0)
    k = 2.0
    assert float(g(x)) == 2.0


@pytest.mark.parametrize("function", [_scaled_by_a_global, _through_a_helper])
def test_a_global_is_read_at_each_call(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g = pnn.grad(function)
    assert g(np.asarray(1.0)) == 2.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert g(np.asarray(1.0)) == 3.0
    monkeypatch.setitem(globals(), "SCALE", np.asarray(4.0))
    assert g(np.asarray(1.0)) == 4.0


def test_zero_and_minus_zero_are_different_values() -> None:
    k: Any = 0.0
    inverse = pnn.compile(lambda x: 1.0 / (x * k))
    with np.errstate(divide="ignore"):
        assert float(inverse(np.asarray(1.0))) == np.inf
        k = -0.0
        assert float(inverse(np.asarray(1.0))) == -np.inf
    name = pnn.compile(lambda x: x + {int: 1.0, bool: 2.0, float: 3.0}[type(k)])
    for k, result in ((1, 1.0), (True, 2.0), (1.0, 3.0), (1, 1.0)):  # noqa: B007 - the function reads k
        assert float(name(np.asarray(0.0))) == result


@pytest.mark.parametrize(
    ("first", "second", "read"),
    [
        ((2.0, "a"), (3.0, "a"), lambda v: v[0]),
        ({"k": 2.0}, {"k": 3.0}, lambda v: v["k"]),
        ([np.asarray(2.0)], [np.asarray(3.0)], lambda v: v[0]),
        (functools.partial(lambda k: k, 2.0), functools.partial(lambda k: k, 3.0), lambda v: v()),
        (lambda: 2.0, lambda: 3.0, lambda v: v()),
    ],
)
def test_containers_and_functions_in_a_closure_are_read_at_each_call(first: Any, second: Any, read: Any) -> None:
    value = first
    g = pnn.grad(lambda x: x * read(value))
    assert g(np.asarray(1.0)) == 2.0
    value = second
    assert g(np.asarray(1.0)) == 3.0


def test_a_dict_is_read_after_it_was_changed_in_place() -> None:
    options = {"k": 2.0, "w": np.asarray(1.0)}
    g = pnn.grad(lambda x: x * options["k"] * options["w"])
    assert g(np.asarray(1.0)) == 2.0
    options["k"] = 3.0
    assert g(np.asarray(1.0)) == 3.0
    options["w"][()] = 2.0
    assert g(np.asarray(1.0)) == 6.0


@pytest.mark.parametrize("new", [3.0, np.asarray(3.0)])
def test_attributes_of_an_object_are_read_at_each_call(new: Any) -> None:
    scaled = Scaled()
    calls = [pnn.grad(scaled.loss), pnn.grad(scaled), pnn.grad(lambda x: scaled(x))]
    assert [float(g(np.asarray(1.0))) for g in calls] == [2.0] * 3
    scaled.factor = new
    assert [float(g(np.asarray(1.0))) for g in calls] == [3.0] * 3


def test_defaults_are_read_at_each_call() -> None:
    def function(x: Any, k: Any = 2.0, *, more: Any = 1.0) -> Any:
        return x * k * more

    g = pnn.grad(function)
    assert g(np.asarray(1.0)) == 2.0
    function.__defaults__ = (3.0,)
    assert g(np.asarray(1.0)) == 3.0
    function.__kwdefaults__ = {"more": 2.0}
    assert g(np.asarray(1.0)) == 6.0


def test_an_array_of_any_library_in_a_closure_is_read_at_each_call(library: Any) -> None:
    w = library.array([1.0, 2.0])
    g = pnn.grad(lambda x: pnn.xp.sum(x * (w * 2.0)))
    x = library.array([1.0, 1.0])
    assert library.numpy(g(x)).tolist() == [2.0, 4.0]
    w = library.array([3.0, 4.0])
    assert library.numpy(g(x)).tolist() == [6.0, 8.0]


def test_a_function_that_counts_its_traces_is_traced_once() -> None:
    count = 0

    def function(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * 2.0

    compiled = pnn.compile(function)
    for _ in range(3):
        compiled(np.ones(1))
    assert count == 1


def test_a_closure_over_itself_is_deallocated() -> None:
    def make() -> None:
        def function(x: Any) -> Any:
            return x * 2.0 if function else x

        pnn.compile(function)(np.ones(1))

    make()
    gc.collect()
    assert pnn.program_cache.info().size == 0
