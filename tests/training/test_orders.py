"""Orders of rows made on a device are those of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn import random
from portablenn.data.chunks import Batching, Orders
from portablenn.training import orders as orders_module
from portablenn.training.orders import DeviceOrders, orders_for

MODEL = pnn.mlp([3, 2]).model
X = np.random.default_rng(0).normal(size=(50, 3))
Y = X[:, :2]


class Accelerated(pnn.Backend):
    accelerated = True


@pytest.mark.parametrize("subset", [None, np.arange(100)[::-3]])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_device_makes_the_order_of_the_host(other_library: Any, rows: int, subset: np.ndarray | None) -> None:
    rows = rows if subset is None else len(subset)
    batching = Batching(rows, 8, "shuffle", rows, subset)
    orders = DeviceOrders(batching, random.new_key(5, random.ORDER), MODEL, other_library.backend)
    there = orders(3, 2)
    assert type(there) is type(other_library.xp.zeros(1))
    np.testing.assert_array_equal(other_library.numpy(there), orders.on_host(3, 2))


def test_orders_are_made_on_accelerators_only() -> None:
    backend = Accelerated("numpy", pnn.get_backend("numpy").xp)
    shuffled, few = (Batching(rows, 8, "shuffle", rows) for rows in (1 << 14, 50))
    assert type(orders_for(MODEL, pnn.get_backend("numpy"), shuffled, 0)) is Orders
    assert type(orders_for(MODEL, backend, shuffled, 0)) is DeviceOrders
    assert type(orders_for(MODEL, backend, few, 0)) is Orders
    assert type(orders_for(MODEL, backend, Batching(1 << 14, 8, "sequential", 1 << 14), 0)) is Orders


def test_a_backend_that_compiles_slowly_does_so_once_for_any_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "ROWS", 0)
    monkeypatch.setattr(Accelerated, "pads_orders", True)
    ours, oracle = (
        pnn.mlp([3, 4, 2], backend=b, dtype="float64", seed=2)
        for b in (
            Accelerated("array_api_strict", pnn.get_backend("array_api_strict").xp),
            pnn.get_backend("array_api_strict"),
        )
    )
    programs = []
    for epochs in (1, 3, 2):
        for net in (ours, oracle):
            misses = pnn.program_cache.info().misses
            net.fit(X[:48], Y[:48], epochs=epochs, batch_size=16)
            programs += [pnn.program_cache.info().misses - misses]
    assert programs[::2] == [2, 0, 0]  # the step and the order
    assert programs[1::2] == [1, 1, 1]
    np.testing.assert_array_equal(ours.backend.to_numpy(ours.state.theta), oracle.backend.to_numpy(oracle.state.theta))


@pytest.mark.parametrize("watched", [False, True])
def test_training_takes_the_rows_in_the_same_order(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "ROWS", 0)

    class Rows(pnn.callbacks.Callback):
        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def on_steps_end(self, network: Any, steps: Any) -> None:
            self.seen += [steps.rows(i) for i in range(steps.last - steps.first + 1)]

    results = []
    for backend in (
        Accelerated("array_api_strict", pnn.get_backend("array_api_strict").xp),
        pnn.get_backend("array_api_strict"),
    ):
        net, rows = pnn.mlp([3, 4, 2], backend=backend, dtype="float64", seed=2), Rows()
        net.fit(
            X, Y, epochs=3, batch_size=16, callbacks=[rows] if watched else [], validation_split=0.2 if watched else 0.0
        )
        results.append((backend.to_numpy(net.state.theta), np.concatenate(rows.seen) if watched else None))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
