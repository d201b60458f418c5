"""Orders of rows that are made on an accelerator, where a sort takes less time than on the host; and those of many networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from .. import random
from ..data.chunks import Batching, Orders
from ..nn.model import Model
from ..program.ir import Array, dtype_name
from ..runtime.arrays import array_namespace
from ..runtime.backend import Backend
from ..transforms.compile import compile_for
from ..transforms.vmap import vmap

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


def orders_of_members(model: Model, backend: Backend, batching: Batching, seeds: Sequence[int]) -> Orders:
    """Return the orders of several networks with an axis of members in front, (members, epochs, epoch_rows)."""
    keys = np.stack([random.new_key(seed, random.ORDER) for seed in seeds])
    first = orders_for(model, backend, batching, seeds[0])
    if isinstance(first, DeviceOrders) and (len(seeds) - 1).bit_length() + _bits(batching) <= BITS:
        return MembersDeviceOrders(batching, keys, model, backend)
    return MembersOrders(batching, keys)


@dataclass(frozen=True)
class MembersOrders(Orders):
    """The orders of several networks, made on the host; ``key`` has shape (members, 2)."""

    @property
    def count(self) -> int:
        return len(self.key)

    def on_host(self, first: int, epochs: int) -> np.ndarray:
        order, subset = self.positions(first, epochs), self.batching.subset
        if subset is None or subset.ndim == 1:
            return order if subset is None else subset[order]
        return np.take_along_axis(subset[:, None, :], order, axis=2)

    def positions(self, first: int, epochs: int) -> np.ndarray:
        """Return the positions of rows in the subset of each member, (members, epochs, epoch_rows)."""
        plain = replace(self.batching, subset=None)
        if plain.order == "shuffle":
            return Orders(plain, self.key).on_host(first, epochs)  # of all members at once
        if plain.order == "random":
            return np.stack([Orders(plain, key).on_host(first, epochs) for key in self.key])
        one = Orders(plain, self.key[0]).on_host(first, epochs)
        return np.broadcast_to(one, (len(self.key), *one.shape))


@dataclass(frozen=True)
class MembersDeviceOrders(DeviceOrders):
    """The same orders, by one sort of the rows of all members; ``key`` has shape (members, 2)."""

    @property
    def count(self) -> int:
        return len(self.key)

    def __call__(self, first: int, epochs: int) -> Array:
        with self.backend.context():
            return self.backend.xp.stack([self._order(epoch) for epoch in range(first, first + epochs)], axis=1)

    def _order(self, epoch: int) -> Array:
        xp, subset, bits = self.backend.xp, self.batching.subset, _bits(self.batching)
        keys = self._keys_of_epoch(self.backend.asarray(np.asarray([epoch]), "int32"))
        order = xp.bitwise_and(xp.sort(xp.reshape(keys, (-1,))), (1 << bits) - 1)
        if subset is not None and subset.ndim == 1:
            order = xp.take(self._subset, order, axis=0)
        order = xp.reshape(order, (self.key.shape[0], self.batching.count))
        return order if subset is None or subset.ndim == 1 else xp.take_along_axis(self._subset, order, axis=1)

    @cached_property
    def _keys_of_epoch(self) -> Callable[[Array], Array]:
        key = self.backend.asarray(self.key, "int32")
        xp, count = self.backend.xp, self.batching.count
        numbers, members = (
            xp.arange(n, dtype=xp.int64, device=self.backend.device) for n in (count, self.key.shape[0])
        )
        keys = partial(_sort_keys_of_members, bits=_bits(self.batching))
        keys.__name__ = f"{_sort_keys_of_members.__name__}_{_bits(self.batching)}"  # type: ignore[attr-defined]
        run = compile_for(self.backend, keys, self.model, key, key[0, :1], numbers, members)
        return lambda epoch: run(key, epoch, numbers, members)


BITS = 31
"""Bits of a sort key, int64, for the numbers of row and member, besides 32 random ones."""


def _bits(batching: Batching) -> int:
    """Return the number of bits of a row number."""
    return max(1, (batching.count - 1).bit_length())


def _sort_keys_of_members(key: Array, stream: Array, numbers: Array, members: Array, bits: int) -> Array:
    """Return (members, rows): of each the number of the member, the random word of `_sort_keys`, and the row number."""

    def of_member(key: Array, member: Array) -> Array:
        xp = array_namespace(key, stream, numbers)
        words = xp.reshape(random.bits(key, stream, numbers.shape[0]), (-1,))
        return (member * 2**32 + xp.astype(words, xp.int64) + 2**31) * 2**bits + numbers

    return vmap(of_member)(key, members)


def _sort_keys(key: Array, stream: Array, numbers: Array) -> Array:
    """Return row numbers with a random word of 32 bits above each, int64."""
    xp = array_namespace(key, stream, numbers)
    words = xp.reshape(random.bits(key, stream, numbers.shape[0]), (-1,))
    return xp.astype(words, xp.int64) * 2**32 + numbers
