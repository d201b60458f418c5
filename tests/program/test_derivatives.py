"""The table of docs/derivatives.md, line by line, on each library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "derivatives.md"
LINES = [
    tuple(cell.strip() for cell in line.split("|")[1:4])
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def arrays(text: str) -> list[np.ndarray]:
    parts = [[float(number) for number in part.split(",")] for part in text.split(";")]
    return [np.asarray(part if len(part) > 1 else part[0]) for part in parts]


def test_the_table_is_read() -> None:
    assert len(LINES) > 20


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("function", "at", "gradient"), LINES)
def test_the_gradient_is_what_the_table_says(library: Any, function: str, at: str, gradient: str) -> None:
    points, wanted = arrays(at), arrays(gradient)
    code = re.sub(r"`", "", function)
    fun = eval(f"lambda {', '.join('ab'[: len(points)])}: {code}", {"xp": pnn.xp})
    found = pnn.grad(fun, argnums=tuple(range(len(points))))(*(library.array(p) for p in points))
    for ours, meant in zip(found, wanted, strict=True):
        np.testing.assert_allclose(library.numpy(ours), meant, rtol=1e-12, atol=0.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_branch_that_is_not_taken_contributes_nothing_through_shapes_and_sums(library: Any) -> None:
    """The mask goes backward through what moves values, and through what broadcasts them."""
    xp = pnn.xp

    def moved(x: Any) -> Any:
        powers = xp.exp(xp.reshape(xp.flip(x), (3, 2)))
        chosen = xp.where(xp.permute_dims(powers, (1, 0)) < 1e300, xp.permute_dims(powers, (1, 0)), 1.0)
        return xp.sum(chosen)

    x = np.asarray([1000.0, 0.0, 1.0, 1000.0, 2.0, 1000.0])
    found = library.numpy(pnn.grad(moved)(library.array(x)))
    np.testing.assert_allclose(found, np.where(x < 100, np.exp(np.minimum(x, 100.0)), 0.0), rtol=1e-12)

    def shared(s: Any) -> Any:
        return xp.sum(xp.where(xp.zeros_like(s * xp.ones((3,), dtype=s.dtype)) > 0.0, xp.exp(s), s))

    assert float(library.numpy(pnn.grad(shared)(library.array(1000.0)))) == 3.0

    def joined(x: Any) -> Any:
        both = xp.concat([xp.log(x[:2]), x[2:]])
        return xp.sum(xp.where(xp.isfinite(both), both, 0.0)[1:])

    found = library.numpy(pnn.grad(joined)(library.array([0.0, 2.0, 3.0])))
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0], rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_value_that_is_used_in_a_branch_and_outside_counts_everywhere() -> None:
    xp = pnn.xp

    def both(x: Any) -> Any:
        root = xp.sqrt(x)
        return xp.sum(xp.where(x > 1.0, root, 0.0) + root)

    np.testing.assert_allclose(pnn.grad(both)(np.asarray([0.25, 4.0])), [1.0, 0.5])
    assert np.isinf(pnn.grad(both)(np.asarray([0.0]))[0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_only_sums_of_squares_are_norms() -> None:
    """The derivative of sqrt(x) ** 2 at 0 is 1: 0 would be wrong, and NaN says that it is not known."""
    xp = pnn.xp
    assert np.isnan(pnn.grad(lambda x: xp.sqrt(x) ** 2)(np.asarray(0.0)))
    assert np.isinf(pnn.grad(lambda x: xp.sqrt(xp.sum(x)))(np.zeros(2))).all()
    assert not np.isfinite(pnn.grad(lambda x: xp.sqrt(xp.sum(x * x * -1.0 + x)))(np.zeros(2))).any()
    assert not np.isfinite(pnn.grad(lambda x: xp.sum(x**3 / 2.0 + x) ** 0.5)(np.zeros(2))).any()
    assert np.isinf(pnn.grad(lambda x: xp.sqrt(x * x + -1.0))(np.asarray(1.0)))
    assert np.isinf(pnn.grad(lambda x: xp.sqrt(x @ xp.flip(x)))(np.asarray([0.0, 1.0]))[0])
    assert np.isinf(pnn.grad(lambda x: xp.sqrt(x * x + xp.astype(xp.asarray([-1]), x.dtype)[0]))(np.asarray(1.0)))
    for pole in (lambda x: xp.sum(x * x) ** -0.5, lambda x: 1.0 / xp.sqrt(xp.sum(x * x))):
        assert not np.isfinite(pnn.grad(pole)(np.zeros(2))).any()
    for norm in (
        lambda x: xp.sqrt(xp.mean(xp.square(x)) * 3.0), lambda x: xp.sqrt(x @ x), lambda x: xp.sum(x**2 / 2.0) ** 0.5,
        lambda x: xp.sum(xp.sqrt(xp.reshape(x, (1, -1)) ** 2 + 0.5 * xp.flip(x) ** 2)),
    ):  # fmt: skip
        np.testing.assert_array_equal(pnn.grad(norm)(np.zeros(2)), [0.0, 0.0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_second_derivatives_keep_to_the_branch() -> None:
    xp = pnn.xp
    curve = pnn.grad(pnn.grad(lambda x: xp.where(x > 0.0, xp.log(x), x**3)))
    assert float(curve(np.asarray(-2.0))) == -12.0
    assert float(curve(np.asarray(2.0))) == -0.25


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("function", "second"),
    [
        (lambda x: pnn.xp.sqrt(pnn.xp.sum(x * x)) ** 2, [2.0, 2.0]), (lambda x: pnn.xp.square(np.linalg.norm(x)), [2.0, 2.0]),
        (lambda x: pnn.xp.std(x) * pnn.xp.std(x) * 3.0, [1.5, 1.5]), (lambda x: pnn.xp.sum(x * x) ** 1, [2.0, 2.0]),
        (lambda x: pnn.xp.sum(x * x) ** 1.0, [2.0, 2.0]),
    ],
)  # fmt: skip
def test_squares_of_norms_have_all_derivatives_at_zero(function: Any, second: list[float]) -> None:
    def curvature(x: Any, i: int) -> Any:
        return pnn.grad(function)(x)[i]

    found = [pnn.grad(lambda x, i=i: curvature(x, i))(np.zeros(2))[i] for i in range(2)]  # type: ignore[misc]
    np.testing.assert_allclose(found, second, rtol=1e-12)


def test_mixed_derivatives_of_a_power_agree() -> None:
    power = lambda a, b: a**b  # noqa: E731
    first = pnn.grad(lambda a, b: pnn.grad(power, argnums=0)(a, b), argnums=1)
    second = pnn.grad(lambda a, b: pnn.grad(power, argnums=1)(a, b), argnums=0)
    for b, meant in ((0.0, 0.5), (2.0, 2.0 + 4.0 * np.log(2.0))):
        for mixed in (first, second):
            assert float(mixed(np.asarray(2.0), np.asarray(b))) == pytest.approx(meant)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_negative_number_has_no_power_to_differentiate() -> None:
    assert np.isnan(pnn.grad(lambda b: (-2.0) ** b)(np.asarray(3.0)))
    assert float(pnn.grad(lambda b: 0.0**b)(np.asarray(3.0))) == 0.0
    assert np.isnan(pnn.grad(lambda b: 0.0**b)(np.asarray(-1.0)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_missing_values_are_masked_in_a_loss(library: Any) -> None:
    xp = pnn.xp
    target = library.array([np.nan, 1.0, 3.0])

    def loss(x: Any) -> Any:
        return xp.sum(xp.where(xp.isnan(target), 0.0, xp.abs(x - target)))

    np.testing.assert_array_equal(library.numpy(pnn.grad(loss)(library.array([1.0, 2.0, 2.0]))), [0.0, 1.0, -1.0])

    def taken(x: Any) -> Any:
        some = xp.take(xp.log(x), xp.asarray([0, 2]), axis=0)
        return xp.sum(xp.where(xp.isfinite(some), some, 0.0)) + xp.max(xp.where(x > 0.0, xp.log(x), -1.0))

    np.testing.assert_allclose(
        library.numpy(pnn.grad(taken)(library.array([0.0, 1.0, 4.0]))), [0.0, 0.0, 0.5], rtol=1e-12
    )
