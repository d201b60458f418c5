"""Validation of rows, targets, weights and classes; and labels as class numbers and back.

Arrays of other libraries than NumPy stay where they are, whether scikit-learn's dispatch is on or not; targets and weights are
validated on the host and follow X to its device.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from ..data import validation
from ..data.sources import is_sparse
from ..program.ir import Array, dtype_name
from ..runtime.arrays import array_namespace, device_of, is_array, to_numpy
from ..runtime.registry import get_backend

SMALL = 8192
"""Elements of X up to which the checks of scikit-learn take a good part of the time of a prediction."""


def is_foreign(x: Any) -> bool:
    """Return whether x is an array of another library than NumPy."""
    return is_array(x) and not isinstance(x, np.ndarray)


def rows(estimator: Any, X: Any, reset: bool) -> Any:
    """Validate X, with scikit-learn's messages: return a NumPy array, a CSR matrix, or an array of another library."""
    if not reset and _is_small_and_valid(estimator, X):
        return X
    if is_foreign(X):
        return _foreign_rows(estimator, X, reset)
    return validate_data(estimator, _from_table(X), accept_sparse="csr", dtype="numeric", reset=reset)


def _is_small_and_valid(estimator: Any, X: Any) -> bool:
    """Return whether scikit-learn would return X unchanged, without its checks, which take longer than a prediction."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and 0 < X.size <= SMALL
        and X.dtype.char in "fd"
        and X.dtype.isnative
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")  # else scikit-learn warns that X has none
        and math.isfinite(np.vdot(X, X))  # a sum that overflows is left to scikit-learn's check
    )


def _foreign_rows(estimator: Any, X: Array, reset: bool) -> Array:
    name = type(estimator).__name__
    if X.ndim != 2:
        hint = " Reshape your data using X.reshape(-1, 1) or X.reshape(1, -1)." if X.ndim == 1 else ""
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead.{hint}")
    if X.shape[0] == 0 or X.shape[1] == 0:
        what = "sample(s)" if X.shape[0] == 0 else "feature(s)"
        raise ValueError(
            f"Found array with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required by {name}."
        )
    if dtype_name(X.dtype).kind == "complex floating":
        raise ValueError(f"Complex data not supported\n{X}\n")
    xp = array_namespace(X)
    if dtype_name(X.dtype).is_floating and not bool(xp.all(xp.isfinite(X))):
        raise ValueError(f"Input X contains NaN or infinity.\n{name} does not accept such values.")
    if reset:
        estimator.n_features_in_ = X.shape[1]
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif estimator.n_features_in_ != X.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input"
        )
    return X


def _from_table(X: Any) -> Any:
    """Return a table of pyarrow, which scikit-learn does not read, as one of polars or pandas; anything else unchanged."""
    if type(X).__module__.partition(".")[0] != "pyarrow":
        return X
    import narwhals as nw

    table = nw.from_native(X, eager_only=True)
    for convert in (table.to_polars, table.to_pandas):
        with suppress(ImportError):
            return convert()
    raise ImportError("tables of pyarrow require polars or pandas: pip install pandas")


def float_dtype(wanted: Any, X: Any) -> str:
    """Return ``wanted``; if that is None, float32 for X of float32, else float64."""
    if wanted is not None:
        return str(validation.check_float_dtype(wanted))
    return "float32" if dtype_name(X.dtype) == "float32" else "float64"


def weights(sample_weight: Any, X: Any, dtype: str) -> np.ndarray | None:
    """Validate weights of rows: return (rows,) on the host, or None."""
    if sample_weight is None:
        return None
    count = X.shape[0]
    if isinstance(sample_weight, Number):
        sample_weight = np.full(count, sample_weight)
    checked = check_array(to_host(sample_weight), ensure_2d=False, dtype=dtype, order="C", input_name="sample_weight")
    if checked.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got {checked.ndim}D array. Expected either a scalar value or a 1D "
            f"array of length {count}."
        )
    if checked.shape != (count,):
        raise ValueError(f"sample_weight.shape == {checked.shape}, expected {(count,)}!")
    if not checked.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if checked.min() < 0:
        raise ValueError("Negative values in data passed to `sample_weight`.")
    return checked


def to_host(y: Any) -> Any:
    """Return an array of another library as NumPy's, anything else unchanged."""
    return to_numpy(y) if is_foreign(y) else y


def values(y: Any, X: Any, estimator: Any) -> np.ndarray:
    """Validate the targets of a regressor: return numbers on the host, (rows,) or (rows, outputs)."""
    return _targets(y, X, estimator, "numeric")


def labels(y: Any, X: Any, estimator: Any) -> np.ndarray:
    """Validate the targets of a classifier: return labels on the host, (rows,), or rows of 0 and 1."""
    checked = _targets(y.toarray() if is_sparse(y) else y, X, estimator, None)
    check_classification_targets(checked)
    return checked


def _targets(y: Any, X: Any, estimator: Any, dtype: str | None) -> np.ndarray:
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    checked = check_array(to_host(y), input_name="y", ensure_2d=False, dtype=dtype, estimator=estimator)
    check_consistent_length(X, checked)
    if checked.ndim == 2 and checked.shape[1] == 1:
        checked = column_or_1d(checked, warn=True)
    return checked


class Samples(NamedTuple):
    """Validated rows where they are, and on the host their targets and weights."""

    x: Any
    target: np.ndarray
    weights: np.ndarray | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    def take(self, indices: np.ndarray) -> Samples:
        if is_foreign(self.x):
            x = array_namespace(self.x).take(self.x, get_backend(self.x).indices(indices), axis=0)
        else:
            x = self.x[indices]
        return Samples(x, self.target[indices], None if self.weights is None else self.weights[indices])


@dataclass(frozen=True)
class Labels:
    """The classes, and the kind of targets that they came from: "binary", "multiclass" or "multilabel-indicator"."""

    kind: str
    classes: np.ndarray

    @classmethod
    def from_targets(cls, y: np.ndarray, classes: Any = None) -> Labels:
        """Return the labels of validated targets; ``classes`` are those of all later targets, if they are known."""
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            return cls(kind, np.arange(y.shape[1]))
        unique = unique_labels(y if classes is None else to_host(classes))
        return cls("binary" if len(unique) <= 2 else "multiclass", unique)

    @property
    def outputs(self) -> int:
        """Number of outputs of a network for these classes."""
        return 1 if self.kind == "binary" else len(self.classes)

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return labels as class numbers, (rows,), or rows of 0 and 1 as integers."""
        if self.kind == "multilabel-indicator":
            return np.asarray(y).astype(np.int64)
        return np.searchsorted(self.classes, y).astype(np.int64)

    def contain(self, y: np.ndarray) -> bool:
        """Return whether all labels are among the classes."""
        return self.kind == "multilabel-indicator" or bool(np.isin(y, self.classes).all())

    def decode(self, numbers: Array) -> Array:
        """Return class numbers as labels, in the library of the numbers if it holds the labels exactly, else in NumPy."""
        if self.kind == "multilabel-indicator":
            return numbers
        if len(self.classes) == 1:
            numbers = numbers * 0
        if not is_foreign(numbers):
            return self.classes[numbers]
        if self.classes.dtype.kind not in "biuf":
            return self.classes[to_numpy(numbers)]
        xp = array_namespace(numbers)
        table = xp.asarray(self.classes, device=device_of(numbers))
        if not np.array_equal(to_numpy(table), self.classes):  # a library without 64-bit numbers
            return self.classes[to_numpy(numbers)]
        return xp.take(table, xp.astype(numbers, xp.arange(1).dtype), axis=0)

    def attribute(self, X: Any) -> Any:
        """Return ``classes_``: in the library of X under scikit-learn's dispatch, if they are numbers, else in NumPy."""
        numbers = self.classes.dtype.kind in "biuf"
        return like(X, self.classes) if get_config()["array_api_dispatch"] and numbers else self.classes


def check_all_classes(labels: Labels | None, classes: Any) -> None:
    """Validate the ``classes`` of ``partial_fit``: all in the first call, the same or None in later ones."""
    if labels is None:
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
    elif classes is not None and not np.array_equal(labels.classes, unique_labels(to_host(classes))):
        raise ValueError(
            f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {labels.classes!r}"
        )


def like(X: Any, array: np.ndarray | None) -> Any:
    """Return an array of the host in the library and on the device of X."""
    if array is None or not is_foreign(X):
        return array
    return get_backend(X).asarray(array)
