"""The generator against published answers, its numbers against their distributions, and the same bits everywhere."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portablenn as pnn
from portablenn import random


def _words(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.uint32).view(np.int32)


# Random123 1.14, tests/kat_vectors, "threefry2x32 20": counter, key, result
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_threefry_gives_the_published_answers(counter: Any, key: Any, answer: Any, library: Any) -> None:
    first, second = (library.array(_words(word)) for word in counter)
    result = random.threefry2x32(library.array(_words(*key)), (first, second))
    assert [int(library.numpy(word)[0]) & 0xFFFFFFFF for word in result] == list(answer)


def test_threefry_planned_gives_the_same_bits() -> None:
    key, counter = _words(1, 2), _words(*range(1000))
    plain = random.threefry2x32(key, (counter, counter))
    for word, planned in zip(plain, pnn.compile(random.threefry2x32)(key, (counter, counter)), strict=True):
        np.testing.assert_array_equal(word, planned)


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 4))
def test_a_single_key_is_made_of_the_same_words(words: tuple[int, ...]) -> None:
    first, second, number, index = (np.asarray([w], dtype=np.uint32).view(np.int32) for w in words)
    key = np.concatenate([first, second])
    meant = np.concatenate(random.threefry2x32(key, (number, index)))
    np.testing.assert_array_equal(random.fold_in(key, *words[2:]), meant, strict=True)


def test_bits_and_masks_are_the_same_in_every_library(other_library: Any) -> None:
    key, streams = random.new_key(7, random.MASKS, 2), np.asarray([0, 5, 2**31 - 1], dtype=np.int32)
    expected = random.bits(key, streams, 101)
    found = random.bits(other_library.array(key), other_library.array(streams), 101)
    np.testing.assert_array_equal(other_library.numpy(found), expected)
    step = np.asarray(3, dtype=np.int32)
    mask = random.keep_mask(key, step, (13, 7), 0.3)
    other = random.keep_mask(other_library.array(key), other_library.array(step), (13, 7), 0.3)
    np.testing.assert_array_equal(other_library.numpy(other), mask)


DIGESTS = [
    "67ad123e3fd2",
    "bbe5ec050331",
    "a3ae108f693c",
    "4c5f5291fa1a",
    "5e817a5850cb",
    "12f4213f9ca0",
]


def test_the_numbers_stay_what_they_are() -> None:
    """A change of any bit here would change every network ever trained: these digests are for good."""
    key = random.new_key(2**40 + 3, random.WEIGHTS, 5)
    made = [
        key,
        random.uniform(key, (1000,)),
        random.normal(key, (1000,)),
        random.permutations(key, 2, 3, 100),
        random.draws(key, 0, 2, 50, 17),
        random.bits(key, np.arange(3, dtype=np.int32), 33),
    ]
    digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:12] for a in made]
    assert digests == DIGESTS


def test_keys_of_different_purposes_layers_and_seeds_differ() -> None:
    keys = {
        tuple(random.new_key(seed, purpose, index).tolist())
        for seed in (0, 1, 2**32, 2**64 - 1)
        for purpose in (random.WEIGHTS, random.ORDER, random.MASKS, random.SPLIT)
        for index in range(5)
    }
    assert len(keys) == 4 * 4 * 5


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", True, None])
def test_a_seed_is_a_whole_number_of_64_bits(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected an integer"):
        random.new_key(seed, random.WEIGHTS)


def test_uniform_numbers_are_evenly_distributed() -> None:
    u = random.uniform(random.new_key(0, random.WEIGHTS), (100_000,))
    assert 0 < u.min() < u.max() < 1
    counts = np.histogram(u, bins=100, range=(0, 1))[0]
    chi_squared = ((counts - 1000.0) ** 2 / 1000.0).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom: outside with probability 1e-4


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    z = random.normal(random.new_key(0, random.WEIGHTS), (200_000,))
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03
    assert abs((z**4).mean() - 3) < 0.06


def test_the_normal_quantile_agrees_with_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    p = np.concatenate([10.0 ** np.arange(-300, 0), np.linspace(0.001, 0.999, 999), 1 - 10.0 ** np.arange(-15, -1.0)])
    np.testing.assert_allclose(random.normal_quantile(p), special.ndtri(p), rtol=2e-14, atol=1e-15)


def test_a_permutation_has_each_row_once_and_epochs_differ() -> None:
    orders = random.permutations(random.new_key(0, random.ORDER), 0, 4, 1000)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({tuple(order) for order in orders}) == 4


def test_an_epochs_order_does_not_depend_on_which_epochs_are_made_with_it() -> None:
    key = random.new_key(3, random.ORDER)
    together = random.permutations(key, 0, 5, 77)
    np.testing.assert_array_equal(together[3], random.permutations(key, 3, 1, 77)[0])
    np.testing.assert_array_equal(random.draws(key, 0, 5, 20, 9)[4], random.draws(key, 4, 1, 20, 9)[0])


def test_every_permutation_of_three_rows_is_equally_likely() -> None:
    orders = random.permutations(random.new_key(1, random.ORDER), 0, 6000, 3)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert (np.abs(counts - 1000) < 130).all()


def test_draws_hit_every_row_equally_often() -> None:
    counts = np.bincount(random.draws(random.new_key(0, random.ORDER), 0, 1, 70_000, 7)[0], minlength=7)
    assert (np.abs(counts - 10_000) < 400).all()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_a_mask_drops_its_share(rate: float) -> None:
    mask = random.keep_mask(random.new_key(0, random.MASKS), np.asarray(0, dtype=np.int32), (300, 300), rate)
    assert abs(mask.mean() - (1 - rate)) < 0.006


def test_masks_of_different_steps_are_independent() -> None:
    key = random.new_key(0, random.MASKS)
    one, two = (random.keep_mask(key, np.asarray(step, dtype=np.int32), (300, 300), 0.5) for step in (0, 1))
    assert abs((one == two).mean() - 0.5) < 0.01


def test_a_rate_of_one_drops_everything() -> None:
    key = random.new_key(0, random.MASKS)
    assert not random.keep_mask(key, np.asarray(0, dtype=np.int32), (10,), 1.0).any()
