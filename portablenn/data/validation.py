"""Validation of what users pass, once per call of ``fit`` or ``predict``: an error comes before anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..nn.losses import Loss
from ..program.ir import Array, DType, dtype_name
from ..runtime.arrays import array_namespace, device_of, is_array
from ..runtime.numpy.threads import single_thread
from .sources import SparseRows, is_sparse


def check_array(value: Any, name: str) -> Array:
    """Return ``value`` as an array of real numbers, or raise `TypeError`; lists and data frames become arrays of NumPy."""
    if value is None:
        raise TypeError(f"{name} is None: expected an array")
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} must be dense, got the sparse {type(value).__name__}: use {name}.toarray()")
    if not is_array(value):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise TypeError(
                f"{name} cannot be converted to an array ({error}): expected rows of equal length"
            ) from None
    objects = isinstance(value, np.ndarray) and value.dtype == object
    if objects and all(isinstance(v, (Real, np.bool_)) for v in value.flat):
        value = value.astype(np.float64)  # a data frame with columns of several numeric dtypes
    if hasattr(value, "detach"):
        value = value.detach()  # from torch's autograd
    try:
        kind = dtype_name(value.dtype).kind
    except TypeError:
        kind = ""
    if kind == "complex floating":
        raise TypeError(f"expected real numbers in {name}, got dtype {value.dtype}: take the real part")
    if kind == "":
        fix = (
            "numpy.unique(y, return_inverse=True) turns labels into class numbers"
            if name.endswith("y")
            else "encode text and categories as numbers"
        )
        raise TypeError(f"expected real numbers in {name}, got dtype {value.dtype}: {fix}")
    return value


def check_columns(x: Any, width: int, name: str = "X") -> Array | SparseRows:
    """Return ``x`` as at least one row of ``width`` real numbers; sparse matrices stay sparse."""
    if is_sparse(x):
        x = SparseRows.of(x)
        check_array(x.matrix.data, name)
    else:
        x = check_array(x, name)
    if len(x.shape) != 2:
        fix = f": for one row use {name}.reshape(1, -1)" if len(x.shape) == 1 else ""
        raise ValueError(f"expected {name} of shape (rows, {width}), got {tuple(x.shape)}{fix}")
    if x.shape[0] == 0:
        raise ValueError(f"expected at least one row in {name}, got shape {tuple(x.shape)}")
    if x.shape[1] != width:
        raise ValueError(f"expected {width} columns in {name} (the network's inputs), got {x.shape[1]}")
    return x


def check_inputs(x: Any, width: int, dtype: str, name: str = "X") -> Array | SparseRows:
    """Return ``x`` as `check_columns` does, or raise an error if a number is not finite in ``dtype``."""
    x = check_columns(x, width, name)
    check_finite(x.matrix.data if isinstance(x, SparseRows) else x, name, dtype)
    return x


def check_finite(x: Array, name: str, dtype: str) -> None:
    """Raise an error for NaN, infinity, and numbers that overflow in ``dtype``.

    Row sums come first: they cost one pass and no memory. Elements are checked only if a sum is not finite. A product with
    ones takes a third of the time of a sum, because BLAS computes it.
    """
    own = dtype_name(x.dtype)
    if not own.is_floating:
        return
    xp = array_namespace(x)
    largest = float(np.finfo(dtype).max)
    wider = float(xp.finfo(x.dtype).max) > largest
    if wider:
        low, high = _range(xp, x)
        if -largest <= low and high <= largest:
            return
    else:
        with np.errstate(all="ignore"), single_thread:
            usual = own in ("float32", "float64")
            if x.ndim == 2 and usual:
                sums = x @ xp.ones(x.shape[1], dtype=x.dtype, device=device_of(x))
            else:
                sums = xp.sum(x, dtype=None if usual else xp.float32)
        if bool(xp.all(xp.isfinite(sums))):
            return
    bad = xp.logical_not(xp.abs(x) <= largest) if wider else xp.logical_not(xp.isfinite(x))
    if not bool(xp.any(bad)):
        return
    where = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int32)))
    place = where if x.ndim != 2 else f"row {where // x.shape[1]}, column {where % x.shape[1]}"
    value = float(xp.reshape(x, (-1,))[where])
    if np.isfinite(value):
        raise ValueError(
            f'{name} holds {value:g} at {place}, which overflows in {dtype}: scale the data, or use dtype="float64"'
        )
    raise ValueError(
        f"{name} holds NaN or infinity, first at {place}: drop those rows or impute the values, for example with "
        "sklearn.impute.SimpleImputer"
    )


def check_targets(
    y: Any, rows: int, outputs: int, loss: Loss, dtype: str, name: str = "y"
) -> tuple[Array, tuple[int, int] | None]:
    """Return targets as a loss takes them.

    Returns
    -------
    targets : array
        For classification losses integers of shape (rows,), or shape (rows, outputs) if passed so; else (rows, outputs).
    labels : (int, int) or None
        The two labels, if there is one output and a classification loss.
    """
    y = check_array(y, name)
    if y.ndim not in (1, 2):
        raise ValueError(f"expected {name} of shape ({rows},) or ({rows}, {outputs}), got {tuple(y.shape)}")
    if y.shape[0] != rows:
        raise ValueError(f"X and {name} must have the same number of rows, got {rows} and {y.shape[0]}")
    check_finite(y, name, dtype)
    xp = array_namespace(y)
    if dtype_name(y.dtype) == "bool":
        y = xp.astype(y, xp.int32)
    column = y.ndim == 2 and y.shape[1] == 1
    if loss.targets == "classes" and (y.ndim == 1 or column):
        return _classes(xp, xp.reshape(y, (-1,)) if column else y, outputs, loss, name)
    if y.ndim == 1:
        y = xp.reshape(y, (-1, 1))
    if y.shape[1] != outputs:
        raise ValueError(f"expected {outputs} columns in {name} (the network's outputs), got {y.shape[1]}")
    lowest, highest = _range(xp, y)
    if loss.targets == "counts" and lowest < 0:
        raise ValueError(f"the loss {type(loss).__name__} takes values of at least 0, got {lowest:g} in {name}")
    if loss.targets == "classes" and not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"the loss {type(loss).__name__} takes columns of 0 and 1, or one class number from 0 to {outputs - 1} per row, "
            f"got values from {lowest:g} to {highest:g} in {outputs} columns of {name}"
        )
    if loss.exclusive and bool(xp.any(xp.abs(xp.sum(xp.astype(y, xp.float32), axis=1) - 1.0) > 1e-3)):
        raise ValueError(
            f"{name} has rows whose sum is not 1: the loss {type(loss).__name__} is for one class per row. For several labels "
            'per row use loss="sigmoid_cross_entropy"'
        )
    return y, None


def _classes(xp: Any, y: Array, outputs: int, loss: Loss, name: str) -> tuple[Array, tuple[int, int] | None]:
    if not dtype_name(y.dtype).is_integer:
        whole = xp.astype(y, xp.int32)
        if bool(xp.any(xp.astype(whole, y.dtype) != y)):
            raise ValueError(
                f"the loss {type(loss).__name__} takes class numbers, got values in {name} that are not integers"
            )
        y = whole
    lowest, highest = (int(v) for v in _range(xp, y))
    if outputs == 1:
        if lowest == -1 and not bool(xp.any(y == 0)) and highest <= 1:
            return xp.astype(xp.astype(y > 0, xp.int32), y.dtype), (-1, 1)
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(
                f"with one output the loss {type(loss).__name__} takes labels 0 and 1, or -1 and 1, got labels from {lowest} "
                f"to {highest} in {name}: for more classes give the last layer one unit per class"
            )
        return y, (0, 1)
    if lowest < 0 or highest >= outputs:
        raise ValueError(
            f"a network with {outputs} outputs takes class numbers from 0 to {outputs - 1}, got labels from {lowest} to "
            f"{highest} in {name}: numpy.unique(y, return_inverse=True) turns any labels into class numbers"
        )
    return y, None


def _range(xp: Any, y: Array) -> tuple[Any, Any]:
    return float(xp.min(y)), float(xp.max(y))


def check_sample_weight(value: Any, rows: int, name: str = "sample_weight", partial: bool = False) -> Array:
    """Return one weight per row, finite and at least 0; not all may be 0, unless the rows are ``partial`` data."""
    w = check_array(value, name)
    if tuple(w.shape) != (rows,):
        raise ValueError(f"expected {name} of shape ({rows},), got {tuple(w.shape)}")
    check_finite(w, name, "float32")
    xp = array_namespace(w)
    lowest, highest = _range(xp, w)
    if lowest < 0 or (highest == 0 and not partial):
        raise ValueError(
            f"expected weights of at least 0, not all 0, in {name}, got weights from {lowest:g} to {highest:g}"
        )
    return w


def class_weight_table(value: Any, classes: Array, count: int, labels: Sequence[Any] | None) -> np.ndarray:
    """Return class weights, (count,), from {label: weight} or "balanced" (rows / (classes present · rows of the class))."""
    xp = array_namespace(classes)
    if isinstance(value, str) and value == "balanced":
        rows = [float(xp.sum(xp.astype(classes == k, xp.int32))) for k in range(count)]
        present = sum(1 for r in rows if r)
        return np.asarray([classes.shape[0] / (present * r) if r else 0.0 for r in rows])
    if not isinstance(value, Mapping):
        raise ValueError(f'class_weight must be {{label: weight}} or "balanced", got {value!r}')
    known = list(labels) if labels else list(range(count))
    unknown = [label for label in value if label not in known]
    if unknown:
        raise ValueError(
            f"class_weight has unknown labels {unknown}: the labels are {known if count < 20 else f'0 to {count - 1}'}"
        )
    table = np.ones(count)
    for label, weight in value.items():
        if not (isinstance(weight, (int, float, np.number)) and np.isfinite(weight) and weight >= 0):
            raise ValueError(f"class_weight[{label!r}] must be finite and at least 0, got {weight!r}")
        table[known.index(label)] = weight
    return table


def check_last_layer(layer: Any, outputs: int, loss: Loss) -> None:
    """Raise an error if the loss needs more outputs, or would apply the activation of the last layer a second time."""
    name = type(loss).__name__
    if loss.exclusive and outputs == 1:
        raise ValueError(
            f"the loss {name} requires one output per class, got a last layer with one unit: give it one unit per class, or "
            'use loss="sigmoid_cross_entropy"'
        )
    activation = getattr(layer, "activation", None)
    known = activation if isinstance(activation, str) else getattr(activation, "__name__", None)
    if loss.targets == "classes" and loss.link is not None and known in ("softmax", "sigmoid"):
        raise ValueError(
            f"the loss {name} takes logits, got a last layer with activation {known!r}: give the last layer no activation"
        )


def check_int(value: Any, name: str, minimum: int) -> int:
    """Return an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return int(value)


def check_same_library(reference: Array, others: Mapping[str, Any]) -> None:
    """Raise an error for arrays of another library or on another device than ``reference`` (X); lists are on the host."""
    reference = reference if is_array(reference) else np.zeros(0)
    xp, device = array_namespace(reference), device_of(reference)
    for name, other in others.items():
        if not is_array(other):
            continue
        if array_namespace(other) is not xp:
            raise TypeError(
                f"X and {name} must be arrays of one library, got {type(reference).__module__.partition('.')[0]} and "
                f"{type(other).__module__.partition('.')[0]}: convert one of them"
            )
        if device_of(other) != device:
            raise TypeError(
                f"X and {name} must be on one device, got {device} and {device_of(other)}: move one of them"
            )


def check_float_dtype(value: Any) -> DType:
    """Return "float32" or "float64" for its name or a dtype of any library."""
    try:
        name = dtype_name(value)
    except TypeError:
        name = DType(str(value))
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {value!r}")
    return name
