"""Intake: what users hand to ``fit``, ``evaluate`` and ``predict``, checked, and as training wants it.

Requires a network that says what it takes. Nothing of the network changes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import random
from ..nn.optimizers import LBFGS
from ..program.ir import Array
from ..runtime.arrays import array_namespace, array_type, is_array, to_numpy
from ..runtime.backend import Backend, OutOfMemoryError
from ..runtime.registry import get_backend
from . import validation
from .batching import Data
from .sources import Blocks, SomeRows, Stream


@dataclass(frozen=True)
class Taken:
    """Rows, targets and weights that are right for a network, still where they were.

    Attributes
    ----------
    x, y, weights
        As `feeding.Data` has them, before they are moved.
    rows
        How many; 0 of a stream, where nobody knows.
    labels
        The two labels, if there is one output and a loss of classes.
    several
        Whether rows have several labels, or none.
    first
        Rows of it that say what library it belongs to.
    check
        Of what comes later.
    """

    x: Any
    y: Any
    weights: Any
    rows: int
    labels: tuple[int, int] | None
    several: bool
    first: Any
    check: Callable[..., tuple[Any, ...]] | None = None

    def home(self, network: Any) -> Backend:
        """Where to train: where the network was told to be, else where the data are."""
        foreign = is_array(self.first) and not isinstance(self.first, np.ndarray)
        return get_backend(self.first) if foreign and not network.settled else network.backend

    @property
    def data(self) -> Data:
        """For training."""
        return Data(self.x, self.y, self.weights, self.check)

    def on(self, backend: Backend, dtype: str) -> Taken:
        """On a backend; what comes later is moved then."""
        if self.check is not None:
            return self
        weights = None if self.weights is None else backend.asarray(self.weights, dtype)
        return replace(
            self, x=backend.asarray(self.x) if is_array(self.x) else self.x, y=backend.asarray(self.y), weights=weights
        )

    def some(self, backend: Backend, rows: np.ndarray) -> Taken:
        """Some of the rows, by their numbers."""
        weights = None if self.weights is None else taken(backend, self.weights, rows)
        x = taken(backend, self.x, rows) if is_array(self.x) else self.x.part(rows)
        return replace(self, x=x, y=taken(backend, self.y, rows), weights=weights, rows=len(rows))

    def split_blocks(self, seed: int, share: float) -> tuple[Taken, Taken]:
        """Rows of each block to train on, and those set apart."""
        parts = set_blocks_apart(seed, self.x, share)
        train, apart = (replace(self, x=part, rows=sum(part.sizes)) for part in parts)
        return train, apart


def taken(backend: Backend, array: Array, rows: np.ndarray) -> Array:
    """Some rows of an array, on the backend."""
    return backend.xp.take(backend.asarray(array), backend.indices(rows), axis=0)


def take(network: Any, X: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, where: str = "") -> Taken:
    """Arrays, blocks or a stream of batches, checked.

    Raises
    ------
    TypeError, ValueError
        For anything else, or what the network cannot take.
    """
    batches = hasattr(X, "__iter__") and not hasattr(X, "shape")  # a table is none
    if y is None and not is_array(X) and (isinstance(X, Blocks) or batches or callable(X)):
        if sample_weight is not None or class_weight is not None:
            raise ValueError("sample_weight and class_weight go with arrays: here weights come with the batches")
        return _later(network, X, where)
    if y is None:
        raise TypeError("y is missing: hand over X and y, blocks as of portablenn.data.Rows, or an iterable of batches")
    x, target, weights, labels = _arrays(network, X, y, sample_weight, class_weight, where)
    return Taken(x, target, weights, int(x.shape[0]), labels, _several(network, target), x)


def take_validation(network: Any, given: Any) -> Taken:
    """What ``fit`` was handed to be evaluated after each epoch."""
    first = given[0] if isinstance(given, (tuple, list)) and len(given) else None
    batch = isinstance(first, (tuple, list)) and len(first) in (2, 3) and all(map(is_array, first))
    if isinstance(given, (tuple, list)) and not batch:
        if len(given) not in (2, 3):
            raise ValueError("validation_data is (X, y) or (X, y, weights), blocks, or an iterable of batches")
        x, y, *rest = given
        return take(network, x, y, rest[0] if rest else None, where="validation_data")
    if is_array(given):
        raise ValueError(
            "validation_data is (X, y) or (X, y, weights), blocks, or an iterable of batches, found an array"
        )
    return take(network, given, None, where="validation_data")


def together(
    given: Taken,
    held_out: Taken | None,
    optimizer: Any,
    epochs: int,
    batch_size: int | None,
    order: Any,
    validation_split: float,
    steps_per_epoch: int | None,
) -> None:
    """Refuse what does not go together with the kind of data.

    Raises
    ------
    ValueError
        It says what does.
    """
    stream, blocks = isinstance(given.x, Stream), given.check is not None and not isinstance(given.x, Stream)
    if steps_per_epoch is not None and order != "random" and not stream:
        raise ValueError(f'steps_per_epoch goes with order="random": with {order!r} an epoch is all rows')
    if held_out is not None and isinstance(held_out.x, Stream) and held_out.x.once and epochs > 1:
        raise ValueError("validation_data is a generator, which ends after one epoch: hand over a list, or arrays")
    if stream and given.x.once and epochs > 1:
        raise ValueError(
            f"a generator ends after one epoch and epochs is {epochs}: hand over a function of the epoch's number that "
            "returns one, or a list"
        )
    if stream and validation_split:
        raise ValueError(
            "validation_split is for data that can be gone through in any order: hand over validation_data"
        )
    if stream and isinstance(optimizer, LBFGS):
        raise ValueError(
            "L-BFGS looks at all rows in each iteration: hand over arrays or blocks, or use another optimizer"
        )
    if blocks and order not in ("shuffle", "sequential"):
        raise ValueError(f'the order of blocks is "shuffle" or "sequential", found {order!r}')
    if blocks and batch_size is None and not isinstance(optimizer, LBFGS):
        raise ValueError("batch_size=None would hold all blocks in memory at once: give a number, or use LBFGS")


def _later(network: Any, X: Any, where: str) -> Taken:
    """Blocks or a stream: its first batch is looked at now, each is checked when it comes."""
    blocks = isinstance(X, Blocks)
    if blocks and not sum(X.sizes):
        raise ValueError(f"{where} X holds no rows".strip())
    source: Any = X if blocks else Stream(X)
    first = X.read(next(i for i, n in enumerate(X.sizes) if n)) if blocks else source.first
    x, y, weights = first
    _, target, _, labels = _arrays(network, x, y, weights, None, where, some=True)
    training = not where

    def check(x: Any, y: Any, weights: Any = None) -> tuple[Any, ...]:
        x, y, weights, found = _arrays(network, x, y, weights, None, where, some=True)
        if found != labels and (-1, 1) in (found, labels):
            raise ValueError(
                "some batches have labels -1 and 1, others 0 and 1 or one of them alone: use 0 and 1 in all"
            )
        if training and not network.multilabel and _several(network, y):
            network.multilabel = True
        x = x if is_array(x) else x.take(np.arange(x.shape[0]))
        if blocks:
            x, y, weights = (None if a is None else to_numpy(a) for a in (x, y, weights))
        if weights is not None:
            xp = array_namespace(weights)
            weights = xp.astype(weights, getattr(xp, network.dtype))
        return x, y, weights

    rows = int(sum(source.sizes)) if blocks else 0
    several = _several(network, target)
    return Taken(source, None, None, rows, labels, several, x, check)


def _arrays(
    network: Any, X: Any, y: Any, sample_weight: Any, class_weight: Any, where: str, some: bool = False
) -> tuple[Array, Array, Array | None, tuple[int, int] | None]:
    """Checked, still where they were; class weights have become weights of rows. ``some`` rows may all have weight 0."""
    prefix = f"{where} " if where else ""
    x = validation.inputs(X, network.inputs, network.dtype, f"{prefix}X")
    given = {"y": y} if sample_weight is None else {"y": y, "sample_weight": sample_weight}
    validation.one_library(x, given)
    rows = x.shape[0]
    target, labels = validation.targets(y, rows, network.outputs, network.loss, network.dtype, f"{prefix}y")
    weights = None if sample_weight is None else validation.weights(sample_weight, rows, f"{prefix}sample_weight", some)
    if class_weight is not None:
        if network.loss.targets != "classes" or target.ndim != 1:
            raise ValueError("class_weight is for losses of classes with one label a row: use sample_weight")
        count = max(network.outputs, 2)
        table = validation.class_weights(class_weight, target, count, labels)
        by_class = table[to_numpy(target).astype(np.int64)]
        weights = by_class if weights is None else by_class * to_numpy(weights)
    return x, target, weights, labels


def _several(network: Any, y: Array) -> bool:
    """Whether rows of 0 and 1 say more than which one class a row has."""
    if network.loss.targets != "classes" or network.loss.exclusive or y.ndim == 1:
        return False
    xp = array_namespace(y)
    return bool(xp.any(xp.sum(xp.astype(y, xp.float32), axis=1) != 1.0))


def set_apart(seed: int, rows: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on and those set apart, in order; the same for the same seed.

    Examples
    --------
    >>> [len(rows) for rows in set_apart(0, 10, 0.2)]
    [8, 2]
    """
    apart = max(1, round(rows * share))
    if apart >= rows:
        raise ValueError(f"validation_split={share} of {rows} rows leaves none to train on")
    permuted = random.permutations(random.new_key(seed, random.SPLIT), 0, 1, rows)[0]
    return np.sort(permuted[apart:]), np.sort(permuted[:apart])


def set_blocks_apart(seed: int, blocks: Blocks, share: float) -> tuple[SomeRows, SomeRows]:
    """Likewise of blocks: a share of the rows of each, and at least one of all."""
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    key, ends = random.new_key(seed, random.SPLIT), np.cumsum([0, *blocks.sizes])
    apart = np.maximum(
        np.rint(ends * share).astype(int), ends > 0
    )  # rounded for all rows up to there, and at least one
    for number, size in enumerate(blocks.sizes):
        permuted = random.permutations(key, number, 1, size)[0]
        count = min(size, int(apart[number + 1] - apart[number]))
        chosen.append((np.sort(permuted[count:]), np.sort(permuted[:count])))
    train, held_out = (SomeRows(blocks, part) for part in zip(*chosen))
    if not sum(train.sizes):
        raise ValueError(f"validation_split={share} of {sum(blocks.sizes)} rows leaves none to train on")
    return train, held_out


@contextmanager
def memory_told(network: Any, backend: Backend, given: Taken, batch: int) -> Iterator[None]:
    """Say what takes how much where the device's memory does not suffice."""
    try:
        yield
    except Exception as error:
        if not backend.is_out_of_memory(error) or not is_array(given.x):
            raise
        from ..training.memory_estimate import Demand

        types = (array_type(given.x), array_type(given.y), None if given.weights is None else array_type(given.weights))
        raise OutOfMemoryError(Demand(network.model, types, batch).told(backend, error)) from error
