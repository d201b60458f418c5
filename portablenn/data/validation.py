"""Checks of what users hand in: one clear error before anything changes, naming what was found and what is accepted.

Requires nothing of any library. Values are looked at once a call of ``fit`` or ``predict``, never in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..nn.losses import Loss
from ..program.ir import Array, DType, dtype_name
from ..runtime.arrays import array_namespace, device_of, is_array
from .sources import SparseRows, is_sparse


def as_array(value: Any, name: str) -> Array:
    """``value`` as an array: lists and tables become NumPy's; arrays of any library stay.

    Raises
    ------
    TypeError
        If it is not numbers.
    """
    if value is None:
        raise TypeError(f"{name} is None: expected an array")
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} is sparse, a {type(value).__name__}: make it dense, {name}.toarray()")
    if not is_array(value):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"{name} cannot be made an array ({error}): expected rows of equal length") from None
    if (
        isinstance(value, np.ndarray)
        and value.dtype == object
        and all(isinstance(v, (Real, np.bool_)) for v in value.flat)
    ):
        value = value.astype(np.float64)  # a table whose columns are of several kinds, all of them numbers
    if hasattr(value, "detach"):
        value = value.detach()  # from gradients of the library's own
    kind = _kind(value)
    if kind == "complex floating":
        raise TypeError(f"{name} has dtype {value.dtype}: expected real numbers; take its real part")
    if kind == "":
        fix = (
            "numpy.unique(y, return_inverse=True) numbers labels of any kind"
            if name.endswith("y")
            else ("encode text and categories as numbers first")
        )
        raise TypeError(f"{name} has dtype {value.dtype}: expected real numbers; {fix}")
    return value


def _kind(array: Array) -> str:
    try:
        return dtype_name(array.dtype).kind
    except TypeError:
        return ""


def inputs(x: Any, width: int, dtype: str, name: str = "X") -> Array | SparseRows:
    """``x`` as rows of ``width`` numbers that are finite in ``dtype``; SciPy's sparse matrices stay sparse.

    Raises
    ------
    TypeError, ValueError
        For another kind, number of dimensions, width, no rows, NaN, infinity, or numbers beyond the dtype.
    """
    if is_sparse(x):
        x = SparseRows.of(x)
        values = as_array(x.matrix.data, name)
    else:
        x = values = as_array(x, name)
    if len(x.shape) != 2:
        fix = f"; for one row, {name}.reshape(1, -1)" if len(x.shape) == 1 else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected two dimensions, (rows, {width}){fix}")
    if x.shape[0] == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected at least one row")
    if x.shape[1] != width:
        raise ValueError(f"{name} has {x.shape[1]} columns: this network has inputs={width}")
    finite(values, name, dtype)
    return x


def finite(x: Array, name: str, dtype: str) -> None:
    """Refuse NaN, infinity, and what would become infinity in ``dtype``.

    Looks at sums first, which cost one pass and no memory, and closer only if those are not finite. A product with ones
    has them in a third of the time, as it is by two threads and by BLAS.
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
        with np.errstate(all="ignore"):
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
    place = where if x.ndim == 1 else f"row {where // x.shape[1]}, column {where % x.shape[1]}"
    value = float(xp.reshape(x, (-1,))[where])
    if np.isfinite(value):
        raise ValueError(
            f'{name} holds {value:g} at {place}, which {dtype} does not: scale the data, or use dtype="float64"'
        )
    raise ValueError(
        f"{name} holds NaN or infinity, first at {place}: remove those rows or fill them in, for example with "
        "sklearn.impute.SimpleImputer"
    )


def targets(
    y: Any, rows: int, outputs: int, loss: Loss, dtype: str, name: str = "y"
) -> tuple[Array, tuple[int, int] | None]:
    """Targets as a loss wants them.

    Returns
    -------
    targets : array
        For losses of classes integers (rows,), or (rows, outputs) if they were given so; else (rows, outputs).
    labels : (int, int) or None
        The two labels, if there is one output and a loss of classes.

    Raises
    ------
    TypeError, ValueError
        For another kind, number of rows or outputs, NaN, infinity, or values that the loss has no meaning for.
    """
    y = as_array(y, name)
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {tuple(y.shape)}: expected ({rows},) or ({rows}, {outputs})")
    if y.shape[0] != rows:
        raise ValueError(f"{name} has {y.shape[0]} rows and X has {rows}: expected as many")
    finite(y, name, dtype)
    xp = array_namespace(y)
    if dtype_name(y.dtype) == "bool":
        y = xp.astype(y, xp.int32)
    column = y.ndim == 2 and y.shape[1] == 1
    if loss.targets == "classes" and (y.ndim == 1 or column):
        return _classes(xp, xp.reshape(y, (-1,)) if column else y, outputs, loss, name)
    if y.ndim == 1:
        y = xp.reshape(y, (-1, 1))
    if y.shape[1] != outputs:
        raise ValueError(f"{name} has {y.shape[1]} columns and the network has {outputs} outputs: expected as many")
    lowest, highest = _range(xp, y)
    if loss.targets == "counts" and lowest < 0:
        raise ValueError(f"{name} holds {lowest:g}: the loss {loss_name(loss)} is for values of at least 0")
    if loss.targets == "classes" and not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"{name} holds values from {lowest:g} to {highest:g} in {outputs} columns: the loss {loss_name(loss)} takes "
            f"columns of 0 and 1, or one class number from 0 to {outputs - 1} a row"
        )
    if loss.exclusive and bool(xp.any(xp.abs(xp.sum(xp.astype(y, xp.float32), axis=1) - 1.0) > 1e-3)):
        raise ValueError(
            f"{name} has rows whose sum is not 1: the loss {loss_name(loss)} is for one class a row. For several labels a "
            'row use loss="sigmoid_cross_entropy"'
        )
    return y, None


def _classes(xp: Any, y: Array, outputs: int, loss: Loss, name: str) -> tuple[Array, tuple[int, int] | None]:
    if not dtype_name(y.dtype).is_integer:
        whole = xp.astype(y, xp.int32)
        if bool(xp.any(xp.astype(whole, y.dtype) != y)):
            raise ValueError(f"{name} holds values that are not whole: the loss {loss_name(loss)} takes class numbers")
        y = whole
    lowest, highest = (int(v) for v in _range(xp, y))
    if outputs == 1:
        if lowest == -1 and not bool(xp.any(y == 0)) and highest <= 1:
            return xp.astype(xp.astype(y > 0, xp.int32), y.dtype), (-1, 1)
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(
                f"{name} holds labels from {lowest} to {highest}: with one output the loss {loss_name(loss)} takes 0 and 1, or "
                f"-1 and 1. For more classes give the last layer an output each"
            )
        return y, (0, 1)
    if lowest < 0 or highest >= outputs:
        raise ValueError(
            f"{name} holds labels from {lowest} to {highest}: a network with {outputs} outputs takes class numbers from 0 to "
            f"{outputs - 1}. numpy.unique(y, return_inverse=True) makes such numbers of any labels"
        )
    return y, None


def _range(xp: Any, y: Array) -> tuple[Any, Any]:
    return float(xp.min(y)), float(xp.max(y))


def loss_name(loss: Loss) -> str:
    """A loss's name, for messages."""
    return type(loss).__name__


def weights(value: Any, rows: int, name: str = "sample_weight", some: bool = False) -> Array:
    """One finite weight of at least 0 a row, not all 0 unless it is of some rows among others.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    w = as_array(value, name)
    if tuple(w.shape) != (rows,):
        raise ValueError(f"{name} has shape {tuple(w.shape)}: expected ({rows},), a weight a row")
    finite(w, name, "float32")
    xp = array_namespace(w)
    lowest, highest = _range(xp, w)
    if lowest < 0 or (highest == 0 and not some):
        raise ValueError(
            f"{name} goes from {lowest:g} to {highest:g}: expected weights of at least 0, not all of them 0"
        )
    return w


def class_weights(value: Any, classes: Array, count: int, labels: tuple[int, int] | None) -> np.ndarray:
    """A weight a class, (count,), from {label: weight} or "balanced" (rows / (classes · rows of the class)).

    Raises
    ------
    ValueError
        For labels that the network does not know, or weights that are not finite and at least 0.
    """
    xp = array_namespace(classes)
    if isinstance(value, str) and value == "balanced":
        rows = [float(xp.sum(xp.astype(classes == k, xp.int32))) for k in range(count)]
        present = sum(1 for r in rows if r)
        return np.asarray([classes.shape[0] / (present * r) if r else 0.0 for r in rows])
    if not isinstance(value, Mapping):
        raise ValueError(f'class_weight is {{label: weight}} or "balanced", found {value!r}')
    known = list(labels) if labels else list(range(count))
    unknown = [label for label in value if label not in known]
    if unknown:
        raise ValueError(
            f"class_weight has weights for {unknown}: the labels are {known if count < 20 else f'0 to {count - 1}'}"
        )
    table = np.ones(count)
    for label, weight in value.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"class_weight[{label!r}] is {weight!r}: expected a finite number of at least 0")
        table[known.index(label)] = weight
    return table


def callbacks(value: Any) -> list[Any]:
    """A list of objects with the methods of `callbacks.Callback`."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"callbacks is a list, found {value!r}")
    for callback in value:
        missing = [m for m in ("on_train_begin", "on_epoch_end", "on_train_end") if not hasattr(callback, m)]
        if missing or isinstance(callback, type):
            fix = "call it" if isinstance(callback, type) else "derive its class from portablenn.callbacks.Callback"
            raise TypeError(f"{callback!r} is no callback: {fix}")
    return list(value)


def output_activation(layer: Any, loss: Loss) -> None:
    """Refuse an output that is squashed twice."""
    activation = getattr(layer, "activation", None)
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", None)
    if loss.targets == "classes" and loss.link is not None and name in ("softmax", "sigmoid"):
        raise ValueError(
            f"the last layer has activation {name!r} and the loss {loss_name(loss)} takes logits, to which it applies its own: "
            "give the last layer no activation"
        )


def whole(value: Any, name: str, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, found {value!r}")
    return int(value)


def one_library(reference: Array, others: Mapping[str, Any]) -> None:
    """Refuse arrays of another library, or on another device, than ``reference`` (X); what is no array is host data."""
    reference = reference if is_array(reference) else np.zeros(0)
    xp, device = array_namespace(reference), device_of(reference)
    for name, other in others.items():
        if not is_array(other):
            continue
        if array_namespace(other) is not xp:
            raise TypeError(
                f"{name} is an array of {type(other).__module__.partition('.')[0]} and X one of "
                f"{type(reference).__module__.partition('.')[0]}: convert one of them"
            )
        if device_of(other) != device:
            raise TypeError(f"{name} is on {device_of(other)} and X on {device}: move one of them")


def float_dtype(value: Any) -> DType:
    """The dtype "float32" or "float64", by its name or as a library's dtype."""
    try:
        name = dtype_name(value)
    except TypeError:
        name = DType(str(value))
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype is 'float32' or 'float64', found {value!r}")
    return name
