"""Dataset: what users pass to ``fit`` and ``evaluate``, validated, and placed where the network runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import random
from ..nn.losses import Loss
from ..program.ir import Array
from ..runtime.arrays import array_namespace, is_array, to_numpy
from ..runtime.backend import Backend
from . import validation
from .blocks import Validate, Validated
from .chunks import Samples
from .sources import BatchStream, Blocks, BlocksSubset


@dataclass(frozen=True)
class Spec:
    """What a network accepts: columns of X, columns of its output, its loss, and its dtype."""

    inputs: int
    outputs: int
    loss: Loss
    dtype: str


@dataclass(frozen=True)
class Dataset:
    """Rows, targets and weights that a network accepts."""

    x: Any  # an array or a `Source`, (rows, columns); or `Blocks` or a `BatchStream`, which bring targets and weights
    y: Any  # class numbers, (rows,), or values, (rows, outputs)
    weights: Any  # (rows,), or None
    rows: int  # number of rows; 0 for a stream of unknown length
    labels: tuple[int, int] | None  # the two labels, if there is one output and a classification loss
    multilabel: bool  # whether a row of 0 and 1 has a sum that is not 1
    sample: Any  # some of the rows, whose library and device are those of all
    validate: Validate | None = None  # of blocks and streams: validates what is read later

    @property
    def samples(self) -> Samples:
        """Rows, targets and weights."""
        return Samples(self.x, self.y, self.weights)

    @property
    def columns(self) -> int:
        """Number of columns of X."""
        return int(self.x.columns if isinstance(self.x, Blocks) else self.x.shape[1])

    def to(self, backend: Backend, dtype: str) -> Dataset:
        """Place the arrays on a backend; blocks and batches follow when they are read."""
        if self.validate is not None:
            return self
        x = backend.asarray(self.x) if is_array(self.x) else self.x
        weights = None if self.weights is None else backend.asarray(self.weights, dtype)
        return replace(self, x=x, y=backend.asarray(self.y), weights=weights)

    def take(self, backend: Backend, rows: np.ndarray) -> Dataset:
        """Return the rows with these numbers, on the backend."""
        index = backend.indices(rows)

        def taken(part: Any) -> Any:
            return backend.xp.take(backend.asarray(part), index, axis=0) if is_array(part) else part.subset(rows)

        x, y, weights = self.samples.map(taken)
        return replace(self, x=x, y=y, weights=weights, rows=len(rows))

    def split_blocks(self, seed: int, share: float) -> tuple[Dataset, Dataset]:
        """Split the rows of each block for training and validation, a share that has at least one row in all."""
        key, sizes = random.new_key(seed, random.SPLIT), self.x.sizes
        ends = np.cumsum([0, *sizes])
        held_out_before = np.maximum(np.rint(ends * share).astype(int), ends > 0)  # of all rows up to the block
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for number, size in enumerate(sizes):
            permuted = random.permutations(key, number, 1, size)[0]
            count = min(size, int(held_out_before[number + 1] - held_out_before[number]))
            parts.append((np.sort(permuted[count:]), np.sort(permuted[:count])))
        subsets = (BlocksSubset(self.x, rows) for rows in zip(*parts))
        train, held_out = (replace(self, x=subset, rows=sum(subset.sizes)) for subset in subsets)
        if not train.rows:
            raise ValueError(f"validation_split={share} of {sum(sizes)} rows leaves none to train on")
        return train, held_out


def make_dataset(
    spec: Spec, X: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, name: str = ""
) -> Dataset:
    """Validate arrays, blocks, or an iterable of batches, as `Network.fit` takes them.

    ``name`` is a prefix of the arguments' names in error messages.
    """
    iterable = hasattr(X, "__iter__") and not hasattr(X, "shape")  # a data frame has a shape
    if y is None and not is_array(X) and (isinstance(X, Blocks) or iterable or callable(X)):
        if sample_weight is not None or class_weight is not None:
            raise ValueError(
                "sample_weight and class_weight are for arrays: blocks and batches bring their own weights"
            )
        return _deferred(spec, X, name)
    if y is None:
        raise TypeError("y is missing: pass X and y, blocks such as portablenn.data.Rows, or an iterable of batches")
    samples, labels = _validate_arrays(spec, X, y, sample_weight, class_weight, name)
    multilabel = is_multilabel(spec, samples.y)
    return Dataset(*samples, int(samples.x.shape[0]), labels, multilabel, samples.x)


def make_validation_dataset(spec: Spec, validation_data: Any) -> Dataset:
    """Validate the argument ``validation_data`` of ``fit``."""
    first = validation_data[0] if isinstance(validation_data, (tuple, list)) and len(validation_data) else None
    list_of_batches = isinstance(first, (tuple, list)) and len(first) in (2, 3) and all(map(is_array, first))
    arrays = isinstance(validation_data, (tuple, list)) and not list_of_batches
    if is_array(validation_data) or (arrays and len(validation_data) not in (2, 3)):
        got = "an array" if is_array(validation_data) else f"{len(validation_data)} items"
        raise ValueError(
            f"validation_data must be (X, y), (X, y, weights), blocks, or an iterable of batches, got {got}"
        )
    if arrays:
        x, y, weights = (*validation_data, None)[:3]
        return make_dataset(spec, x, y, weights, name="validation_data")
    return make_dataset(spec, validation_data, name="validation_data")


def _deferred(spec: Spec, X: Any, name: str) -> Dataset:
    """Make a dataset of blocks or a stream: the first batch is validated now, each when it is read."""
    blocks = isinstance(X, Blocks)
    if blocks and not sum(X.sizes):
        raise ValueError(f"{name} X has no rows".strip())
    source: Any = X if blocks else BatchStream(X)
    first = X.read(next(i for i, n in enumerate(X.sizes) if n)) if blocks else source.first
    x, y, weights = first
    samples, labels = _validate_arrays(spec, x, y, weights, None, name, partial=True)

    def validate(x: Any, y: Any, weights: Any = None) -> Validated:
        (x, y, weights), own_labels = _validate_arrays(spec, x, y, weights, None, name, partial=True)
        if own_labels != labels and (-1, 1) in (own_labels, labels):
            raise ValueError(
                "some batches have labels -1 and 1, others 0 and 1 or only one: use 0 and 1 in all batches"
            )
        multilabel = is_multilabel(spec, y)
        x = x if is_array(x) else x.take(np.arange(x.shape[0]))
        if blocks:
            x, y, weights = (None if a is None else to_numpy(a) for a in (x, y, weights))
        if weights is not None:
            xp = array_namespace(weights)
            weights = xp.astype(weights, getattr(xp, spec.dtype))
        return Validated(Samples(x, y, weights), multilabel)

    rows = int(sum(source.sizes)) if blocks else 0
    return Dataset(source, None, None, rows, labels, is_multilabel(spec, samples.y), samples.x, validate)


def _validate_arrays(
    spec: Spec, X: Any, y: Any, sample_weight: Any, class_weight: Any, name: str, partial: bool = False
) -> tuple[Samples, tuple[int, int] | None]:
    """Validate arrays where they are; multiply class weights into the weights. All weights of ``partial`` rows may be 0."""
    prefix = f"{name} " if name else ""
    x = validation.check_inputs(X, spec.inputs, spec.dtype, f"{prefix}X")
    validation.check_same_library(x, {"y": y, "sample_weight": sample_weight})
    rows = x.shape[0]
    target, labels = validation.check_targets(y, rows, spec.outputs, spec.loss, spec.dtype, f"{prefix}y")
    weights = None
    if sample_weight is not None:
        weights = validation.check_sample_weight(sample_weight, rows, f"{prefix}sample_weight", partial)
    if class_weight is not None:
        if spec.loss.targets != "classes" or target.ndim != 1:
            raise ValueError(
                "class_weight is for classification losses with one label per row: use sample_weight instead"
            )
        by_class = validation.class_weight_table(class_weight, target, max(spec.outputs, 2), labels)
        by_row = by_class[to_numpy(target).astype(np.int64)]
        weights = by_row if weights is None else by_row * to_numpy(weights)
    return Samples(x, target, weights), labels


def is_multilabel(spec: Spec, y: Array) -> bool:
    """Return whether some row has several labels, or none."""
    if spec.loss.targets != "classes" or spec.loss.exclusive or y.ndim == 1:
        return False
    xp = array_namespace(y)
    return bool(xp.any(xp.sum(xp.astype(y, xp.float32), axis=1) != 1.0))


def split_rows(seed: int, rows: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows to train on and of a share to validate on, sorted, decided by the seed.

    Examples
    --------
    >>> [len(rows) for rows in split_rows(0, 10, 0.2)]
    [8, 2]
    """
    held_out = max(1, round(rows * share))
    if held_out >= rows:
        raise ValueError(f"validation_split={share} of {rows} rows leaves none to train on")
    permuted = random.permutations(random.new_key(seed, random.SPLIT), 0, 1, rows)[0]
    return np.sort(permuted[held_out:]), np.sort(permuted[:held_out])


def split(rows: int, shares: Mapping[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Divide row numbers at random, the same way on every machine.

    Parameters
    ----------
    rows
        Number of rows.
    shares
        {name: share}, whose sum is 1.
    seed
        Decides which rows.

    Returns
    -------
    dict
        {name: sorted row numbers, int64}; every row is in exactly one of them.

    Examples
    --------
    >>> parts = split(10, {"train": 0.8, "test": 0.2})
    >>> parts["train"].shape, parts["test"].shape
    ((8,), (2,))
    """
    if not math.isclose(sum(shares.values()), 1.0) or min(shares.values()) < 0:
        raise ValueError(f"shares must be at least 0 and sum to 1, got {dict(shares)}")
    permuted = random.permutations(random.new_key(seed, random.SPLIT), 1, 1, rows)[0]
    ends = np.rint(np.cumsum([0.0, *shares.values()]) * rows).astype(int)
    return {name: np.sort(permuted[a:b]) for name, a, b in zip(shares, ends, ends[1:])}
