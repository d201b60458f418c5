"""Each operation for many elements at once gives what it gives for one element after the other."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest

import portablenn as pnn
from portablenn.program.batching import RULES
from portablenn.program.interpret import interpret
from portablenn.testing.operations import Arrays, cases

DTYPES = ("float64", "int32", "bool", "complex64")
MAPPED = {
    "all": Arrays(*[0] * 9),
    "first": Arrays(0, 0, 0, 0, None, 0, None, None, None),
    "second": Arrays(None, 0, None, 0, 0, None, 0, 0, 0),
}


def _several(x: Any, axis: int | None) -> Any:
    """Return three arrays along a new first axis: the given one, and others of the same elements."""
    flipped = np.reshape(np.flip(np.reshape(x, (-1,))), x.shape)
    return x if axis is None else np.stack([x, flipped, x])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mapped", MAPPED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_vmap_of_each_operation_equals_a_loop(dtype: str, mapped: str, on_numpy: None) -> None:
    axes = MAPPED[mapped]
    for name, case, arrays in cases(dtype):
        many = Arrays(*map(_several, arrays, axes))
        together = pnn.vmap(lambda *one, case=case: list(case(pnn.xp, Arrays(*one))), in_axes=tuple(axes))(*many)  # type: ignore[misc]
        program = _traced(case, arrays)
        for k in range(3):
            one = [x if axis is None else x[k] for x, axis in zip(many, axes, strict=True)]
            for found, right in zip(together, interpret(xp, program, *one), strict=True):
                assert found.dtype == right.dtype, name
                tolerance = 1e-6 if dtype == "complex64" else 1e-13
                np.testing.assert_allclose(found[k], right, rtol=tolerance, atol=tolerance, err_msg=name)


def _traced(case: Any, arrays: Arrays) -> pnn.Program:
    types = [pnn.ArrayType(x.shape, str(x.dtype)) for x in arrays]  # type: ignore[arg-type]
    return pnn.trace(lambda *one: list(case(pnn.xp, Arrays(*one))), *types)


def test_every_operation_on_arrays_has_a_rule() -> None:
    programs = [_traced(case, arrays) for dtype in DTYPES for _, case, arrays in cases(dtype)]
    assert {o.name for program in programs for o in program.operations if o.reads} - set(RULES) == set()


@pytest.mark.parametrize("x_is_mapped", [True, False])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements_take_rows_of_their_own(axis: int, x_is_mapped: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 5, 2))
    indices = rng.integers(-2, 2, (4, 6))
    x = x if x_is_mapped else x[0]
    found = pnn.vmap(lambda x, i: pnn.xp.take(x, i, axis=axis), in_axes=(0 if x_is_mapped else None, 0))(x, indices)
    for k in range(4):
        np.testing.assert_array_equal(found[k], np.take(x[k] if x_is_mapped else x, indices[k], axis=axis))


@pytest.mark.parametrize(
    "mapped", [(0, 0, 0), (None, 0, 0), (0, None, 0), (0, 0, None), (None, 0, None), (None, None, 0)]
)
def test_elements_add_at_indices_of_their_own(mapped: tuple[int | None, ...], library: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = (rng.standard_normal((4, 2, 3)), rng.integers(-3, 3, (4, 5)), rng.standard_normal((4, 2, 5)))
    arguments = [a if axis == 0 else a[0] for a, axis in zip(arrays, mapped, strict=True)]

    def add(x: Any, indices: Any, updates: Any) -> Any:
        return pnn.array_namespace(x, updates).index_add(x, indices, updates, axis=1)

    found = library.numpy(pnn.vmap(add, in_axes=mapped)(*map(library.array, arguments)))
    for k in range(4):
        x, indices, updates = (a[k] if axis == 0 else a for a, axis in zip(arguments, mapped, strict=True))
        right = x.copy()
        np.add.at(right, (slice(None), indices), updates)
        np.testing.assert_allclose(found[k], right, rtol=1e-12, atol=1e-12)


def test_an_index_out_of_range_of_one_element_does_not_read_another() -> None:
    with pytest.raises(IndexError):
        pnn.vmap(lambda x, i: pnn.xp.take(x, i, axis=0))(np.arange(6.0).reshape(2, 3), np.asarray([[3], [0]]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_elements_search_rows_of_their_own(side: str) -> None:
    rows = np.sort(np.random.default_rng(0).integers(0, 5, (3, 6)), axis=1).astype(float)
    values = np.arange(-1.0, 6.0)
    found = pnn.vmap(lambda row: pnn.xp.searchsorted(row, values, side=side))(rows)
    np.testing.assert_array_equal(found, [np.searchsorted(row, values, side=side) for row in rows])  # type: ignore[call-overload]
