"""x[key] of tracers is what NumPy's x[key] is, and so is its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn

X = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
ROWS, TABLE = np.asarray([2, 0, -1]), np.asarray([[1], [-4]])
KEYS: dict[str, Any] = {
    "one array": (ROWS,), "an array behind slices": (slice(None), slice(1, 3), ROWS), "a table": ((TABLE + 3) % 3,), "a list": ([0, 2],),
    "an array and an integer": (ROWS, 1), "an integer and an array": (0, ROWS), "separated": (ROWS, slice(None), 1),
    "separated arrays": (ROWS, slice(None), ROWS, slice(None, None, -1)), "two arrays": (ROWS, ROWS), "broadcast": (TABLE[:1], slice(None), ROWS),
    "broadcast together": (ROWS, TABLE), "a new axis before": (None, ROWS, ROWS), "a new axis after": (ROWS, None, ROWS), "dots": (..., [0, 1, 1]),
    "dots between": (ROWS, ..., [0, 1, 0]), "three arrays": (slice(None), ROWS, ROWS, [0, 1, 1]), "an empty array": (np.zeros(0, dtype=int), ROWS[:0]),
    "backwards": (slice(None, None, -2), ROWS), "an integer far from an array": (1, slice(None), slice(None), [0, 1]),
    "an integer of numpy": (np.int64(1), ROWS), "zero dimensions": (np.asarray(1), ROWS),
}  # fmt: skip
MASKS: dict[str, Any] = {
    "all axes": (X > 0,), "some axes": (X[..., 0, 0] > 0,), "behind a slice": (slice(1), X[0, :, :, 0] > 0),
    "with an array": (X[:, 0, 0, 0] > -9, ROWS), "with an integer": (X[:, 0, 0, 0] > 0, 1), "nothing": (X > 99,),
}  # fmt: skip


def _weighted(key: Any) -> Any:
    weights = np.arange(1.0, X[key].size + 1).reshape(X[key].shape)
    return lambda x: pnn.xp.sum(x[key] * weights)


@pytest.mark.parametrize("name", KEYS)
def test_indices_choose_what_numpys_do(name: str) -> None:
    key = KEYS[name]
    np.testing.assert_array_equal(pnn.compile(lambda x: x[key])(X), X[key])
    np.testing.assert_array_equal(pnn.vmap(lambda x: x[key])(np.stack([X, -X])), np.stack([X[key], -X[key]]))


@pytest.mark.parametrize("name", KEYS | MASKS)
def test_a_gradient_goes_back_to_the_elements_that_were_chosen(name: str) -> None:
    key = (KEYS | MASKS)[name]
    right = np.zeros_like(X)
    np.add.at(right, key, np.arange(1.0, X[key].size + 1).reshape(X[key].shape))
    np.testing.assert_array_equal(pnn.grad(_weighted(key))(X), right)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ((ROWS, [0, 1]), "do not broadcast together"),
        ((ROWS, [0, 1, 4]), "out of bounds"),
        ((ROWS, [0, 1, -5]), "out of bounds"),
        ((9, ROWS), "index 9 is out of range"),
        ((ROWS, ROWS, ROWS, [0] * 3, 0), "5 indices for 4 dimensions"),
        ((..., ROWS, ...), "more than one"),
        ((ROWS, 1.5), "an index is an integer"),
    ],
)
def test_a_wrong_index_is_an_error(key: Any, says: str) -> None:
    for function in (pnn.grad(lambda x: pnn.xp.sum(x[key])), pnn.compile(lambda x: x[key])):
        with raises((IndexError, ValueError), says):
            function(X)


def test_masks_of_other_libraries_choose_elements(library: Any) -> None:
    x = library.array([1.0, -2.0, 3.0])
    gradient = pnn.grad(lambda x: pnn.xp.sum(x[x > 0] ** 2))(x)
    np.testing.assert_allclose(library.numpy(gradient), [2.0, 0.0, 6.0], rtol=1e-15)  # CUDA's power rounds differently
