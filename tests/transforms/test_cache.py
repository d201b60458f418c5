"""The cache of programs: its bounds, and how long its entries live."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.transforms.cache import CacheInfo, ProgramCache


class Sized:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Owner:
    pass


@dataclass(frozen=True)
class Make:
    number: int


def _size() -> int:
    gc.collect()
    return pnn.program_cache.info().size


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    cache = ProgramCache(maxsize=2)
    cache.add("a", Sized(1))
    cache.add("b", Sized(1))
    assert cache.find("a").nbytes == 1
    cache.add("c", Sized(1))
    assert [key for key in "abc" if cache.find(key) is not None] == ["a", "c"]
    assert cache.info() == CacheInfo(3, 3, 2, 2, 2, cache.maxbytes)


def test_a_cache_of_size_zero_keeps_nothing() -> None:
    cache = ProgramCache(maxsize=0)
    cache.add("a", Sized(1))
    assert cache.info().size == 0


def test_the_bound_in_bytes_holds_and_besides_it_one_larger_entry_stays() -> None:
    cache = ProgramCache(maxbytes=100)
    for key, nbytes in (("a", 40), ("b", 60), ("c", 1)):
        cache.add(key, Sized(nbytes))
    assert [key for key in "abc" if cache.find(key) is not None] == ["b", "c"]
    cache.add("d", Sized(1000))
    cache.add("e", Sized(40))  # a large network's training and prediction alternate
    assert [key for key in "abcde" if cache.find(key) is not None] == ["c", "d", "e"]
    cache.add("f", Sized(101))
    assert [key for key in "abcdef" if cache.find(key) is not None] == ["c", "e", "f"]


def test_the_bounds_in_entries_and_in_bytes_hold_together() -> None:
    cache = ProgramCache(maxsize=3, maxbytes=100)
    for key, nbytes in (("a", 10), ("b", 1000), ("c", 60), ("d", 60)):
        cache.add(key, Sized(nbytes))
    assert [key for key in "abcd" if cache.find(key) is not None] == ["b", "d"]
    cache.add("e", Sized(1))
    cache.add("f", Sized(1))
    assert [key for key in "abcdef" if cache.find(key) is not None] == ["d", "e", "f"]


def test_sizes_of_entries_that_grow_are_updated() -> None:
    cache = ProgramCache(maxbytes=100)
    first = Sized(1)
    cache.add("a", first)
    first.nbytes = 100
    cache.add("b", Sized(1))
    assert cache.find("a") is None


def test_an_entry_is_dropped_with_any_of_its_owners() -> None:
    cache = ProgramCache()
    one, two = Owner(), Owner()
    cache.add("a", Sized(1), (one, two))
    cache.add("b", Sized(1), (one,))
    del two
    gc.collect()
    assert cache.find("a") is None
    assert cache.find("b") is not None
    del one
    gc.collect()
    assert cache.info().size == 0


def test_owners_that_cannot_be_weakly_referenced_are_kept_with_the_entry() -> None:
    cache = ProgramCache()
    cache.add("a", Sized(1), ((1, 2),))
    gc.collect()
    assert cache.find("a") is not None


def test_an_owner_deallocated_while_the_cache_is_locked_is_dropped_afterwards() -> None:
    cache = ProgramCache()
    owner = Owner()
    cache.add("a", Sized(1), (owner,))
    with cache._lock:
        del owner
        gc.collect()
    assert cache.find("a") is None
    assert cache.info().size == 0


def test_equal_values_share_entries_which_are_dropped_with_the_last_one() -> None:
    cache = ProgramCache(spare=0)
    one, two = Make(1), Make(1)
    group = cache.group(one)
    cache.add((group, "a"), Sized(1), (), group)
    assert cache.group(two) is group
    assert cache.group(Make(2)) is not group
    del one
    gc.collect()
    assert cache.find((group, "a")) is not None
    del two
    gc.collect()
    assert cache.info().size == 0


def test_entries_of_deallocated_values_are_kept_within_the_spare_bytes() -> None:
    cache = ProgramCache(spare=100)
    for number, nbytes in enumerate((60, 50, 40)):
        make = Make(number)
        cache.add((cache.group(make), "a"), Sized(nbytes), (), cache.group(make))
        del make
        gc.collect()
    assert cache.info().nbytes == 90
    again = Make(2)
    assert cache.find((cache.group(again), "a")).nbytes == 40
    cache.spare = 0
    del again
    gc.collect()
    assert cache.info().size == 0


def test_deallocated_values_leave_nothing_in_the_cache() -> None:
    cache = ProgramCache()
    for number in range(20):
        cache.group(Make(number))
    gc.collect()
    cache.add("a", Sized(1))
    assert len(cache._groups) == 0


def test_threads_can_use_a_cache_while_owners_are_deallocated() -> None:
    cache = ProgramCache(maxsize=8)
    failures: list[Any] = []

    def work(seed: int) -> None:
        try:
            for i in range(300):
                owner = Owner()
                cache.add((seed, i % 5), Sized(1), (owner,))
                cache.find((seed, (i + 1) % 5))
                cache.group(Make(i % 3))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not failures
    assert cache.info().size == 0


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    def loss(self, x: Any) -> Any:
        return pnn.xp.sum(x * self.factor)


def test_the_program_of_a_function_is_dropped_with_it() -> None:
    x = np.ones(3)
    table = np.ones(3)
    double, scaled = (lambda x: x * 2.0 + table), Scaled(3.0)
    calls = [pnn.compile(double), pnn.compile(scaled), pnn.compile(scaled.loss)]
    for call in calls:
        call(x)
    assert _size() == 3
    del call, calls, double
    assert _size() == 2
    del scaled
    assert _size() == 0


def test_functions_that_do_the_same_share_the_program_of_their_gradient() -> None:
    scaled, other = Scaled(3.0), Scaled(4.0)
    for _ in range(3):
        assert pnn.grad(scaled.loss)(np.ones(2)).tolist() == [3.0, 3.0]
        assert pnn.grad(other.loss)(np.ones(2)).tolist() == [4.0, 4.0]
    assert (pnn.program_cache.info().hits, pnn.program_cache.info().misses) == (5, 2)


def test_the_arrays_of_fresh_closures_are_not_kept() -> None:
    kept: list[Any] = []
    for _ in range(5):
        X = np.ones(200_000)
        kept.append(weakref.ref(X))
        pnn.grad(lambda p, X=X: pnn.xp.sum(p * X * p))(np.ones(200_000))
    del X
    assert all(array() is None for array in kept)
    assert _size() == 1


def test_a_program_counts_the_memory_that_it_computes_in() -> None:
    call = pnn.compile(lambda x: pnn.xp.sum(pnn.xp.exp(x) * 2.0))
    before = pnn.program_cache.info().nbytes
    call(np.ones(100_000))
    assert 800_000 <= pnn.program_cache.info().nbytes - before <= 1_200_000


def test_dropped_networks_leave_at_most_the_spare_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = np.ones((8, 50), dtype=np.float32), np.zeros(8, dtype=int)

    def trained(rate: float) -> pnn.Network:
        net = pnn.mlp([50, 400, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(rate), backend="numpy")
        net.fit(X, y, epochs=1, batch_size=4)
        return net

    net = trained(0.1)
    size = pnn.program_cache.info().nbytes
    monkeypatch.setattr(pnn.program_cache, "spare", 2 * size)
    for i in range(1, 6):
        net = trained(0.1 + i)
    del net
    gc.collect()
    assert 0 < pnn.program_cache.info().nbytes <= 2 * size
    monkeypatch.setattr(pnn.program_cache, "spare", 0)
    net = trained(0.1)
    assert _size() == 1
    del net
    assert _size() == 0


class Slotted:
    __slots__ = ("__weakref__", "number")


def test_a_static_argument_is_not_kept_alive_by_the_programs_that_were_made_for_it() -> None:
    double = pnn.compile(lambda x, _: x * 2.0)
    x, first = np.ones(3), Slotted()
    double(x, first)
    before, alive = _size(), weakref.ref(first)
    double(x, first)
    assert _size() == before
    del first
    assert _size() == before - 1
    assert alive() is None


def test_an_object_that_has_the_id_of_a_former_static_argument_has_a_program_of_its_own() -> None:
    scaled, numbers = pnn.compile(lambda x, by: x * by.number), []
    for number in range(20):
        by = Slotted()
        by.number = float(number)
        numbers.append(float(scaled(np.ones(1), by)[0]))
        del by
    assert numbers == list(range(20))


def test_large_static_arguments_count_as_bytes_of_the_cache() -> None:
    first = pnn.compile(lambda x, text: x[: len(text)])
    before = pnn.program_cache.info().nbytes
    first(np.ones(3), "a" * 1_000_000)
    assert pnn.program_cache.info().nbytes - before > 1_000_000
