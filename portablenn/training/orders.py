"""Orders of rows that are made on an accelerator: there a sort of many rows takes less time than one on the host and a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import random
from ..data.chunks import Batching, Orders
from ..nn.model import Model
from ..program.ir import Array, dtype_name
from ..runtime.arrays import array_namespace
from ..runtime.backend import Backend
from ..transforms.compile import compile_for

ROWS = 1 << 14
"""Rows from which an order is made on the device: fewer are sorted faster on the host."""


def orders_for(model: Model, backend: Backend, batching: Batching, seed: int) -> Orders:
    """Return the orders of rows for training, which are the same on every device."""
    key = random.new_key(seed, random.ORDER)
    large = backend.accelerated and batching.count >= ROWS
    if large and batching.order == "shuffle" and dtype_name(backend.xp.arange(1).dtype) == "int64":
        return DeviceOrders(batching, key, model, backend)
    return Orders(batching, key)


@dataclass(frozen=True)
class DeviceOrders(Orders):
    """`random.permutations` on the device of a backend; what is compiled for it is kept with the programs of ``model``."""

    model: Model
    backend: Backend

    def __call__(self, first: int, epochs: int) -> Array:
        with self.backend.context():
            return self.backend.xp.stack([self._order(epoch) for epoch in range(first, first + epochs)])

    def _order(self, epoch: int) -> Array:
        """Return the row numbers of one epoch."""
        xp, subset = self.backend.xp, self.batching.subset
        keys = self._keys_of_epoch(self.backend.asarray(np.asarray([epoch]), "int32"))
        order = xp.bitwise_and(xp.sort(keys), 0xFFFFFFFF)
        return order if subset is None else xp.take(self._subset, order, axis=0)

    @cached_property
    def _keys_of_epoch(self) -> Callable[[Array], Array]:
        """`_sort_keys`, compiled, as a function of the epoch's number, (1,)."""
        key = self.backend.asarray(self.key, "int32")
        xp = self.backend.xp
        numbers = xp.arange(self.batching.count, dtype=xp.int64, device=self.backend.device)
        run = compile_for(self.backend, _sort_keys, self.model, key, key[:1], numbers)
        return lambda epoch: run(key, epoch, numbers)

    @cached_property
    def _subset(self) -> Array:
        return self.backend.asarray(self.batching.subset, "int64")


def _sort_keys(key: Array, stream: Array, numbers: Array) -> Array:
    """Return row numbers with a random word of 32 bits above each, int64."""
    xp = array_namespace(key, stream, numbers)
    words = xp.reshape(random.bits(key, stream, numbers.shape[0]), (-1,))
    return xp.astype(words, xp.int64) * 2**32 + numbers
