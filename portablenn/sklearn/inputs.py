"""What scikit-learn's users hand in, as a network takes it: rows, targets, weights; and labels as numbers and back.

Requires scikit-learn. Arrays of other libraries than NumPy stay where they are, whether scikit-learn's dispatch is on or
not; targets and weights follow X. Labels are looked at on the host, once a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils import _safe_indexing, check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, validate_data

from ..data import validation
from ..data.sources import is_sparse
from ..program.ir import Array, dtype_name
from ..runtime.arrays import array_namespace, device_of, is_array, to_numpy
from ..runtime.registry import get_backend


def is_foreign(x: Any) -> bool:
    """Whether it is an array of another library than NumPy."""
    return is_array(x) and not isinstance(x, np.ndarray)


def rows(estimator: Any, X: Any, reset: bool) -> Any:
    """X, checked: a NumPy array, a sparse matrix in rows, or an array of another library.

    Raises
    ------
    ValueError, TypeError
        As scikit-learn's own estimators say it.
    """
    if is_foreign(X):
        return _foreign_rows(estimator, X, reset)
    return validate_data(estimator, _from_table(X), accept_sparse="csr", dtype="numeric", reset=reset)


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
    """A table that scikit-learn does not read by itself (pyarrow's), as pandas or polars would hold it; else X."""
    if type(X).__module__.partition(".")[0] != "pyarrow":
        return X
    import narwhals as nw

    table = nw.from_native(X, eager_only=True)
    try:
        return table.to_polars()
    except ImportError:
        pass
    try:
        return table.to_pandas()
    except ImportError:
        raise ImportError(
            "scikit-learn reads a table of pyarrow as one of pandas or polars: pip install pandas"
        ) from None


def float_dtype(wanted: Any, X: Any) -> str:
    """The network's dtype: what is wanted; else that of X, if it is float32, else float64."""
    if wanted is not None:
        return str(validation.check_float_dtype(wanted))
    return "float32" if dtype_name(X.dtype) == "float32" else "float64"


def weights(sample_weight: Any, X: Any, dtype: str) -> np.ndarray | None:
    """A weight a row, on the host, or None."""
    if sample_weight is None:
        return None
    stand_in = np.empty((X.shape[0], 1), dtype=dtype)
    return np.asarray(
        _check_sample_weight(on_host(sample_weight), stand_in, dtype=np.dtype(dtype), ensure_non_negative=True)
    )


def on_host(y: Any) -> Any:
    """Targets where NumPy reads them."""
    return to_numpy(y) if is_foreign(y) else y


def values(y: Any, X: Any, estimator: Any) -> np.ndarray:
    """Numbers to be predicted, (rows, outputs), and whether there is one a row."""
    return _beside_rows(y, X, estimator, "numeric")


def _beside_rows(y: Any, X: Any, estimator: Any, dtype: str | None) -> np.ndarray:
    """Targets on the host, as many as there are rows; a single column is (rows,)."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    checked = check_array(on_host(y), input_name="y", ensure_2d=False, dtype=dtype, estimator=estimator)
    check_consistent_length(X, checked)
    if checked.ndim == 2 and checked.shape[1] == 1:
        checked = column_or_1d(checked, warn=True)
    return checked


@dataclass(frozen=True)
class Labels:
    """The classes, and what kind of targets they came from: "binary", "multiclass" or "multilabel-indicator"."""

    kind: str
    classes: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, classes: Any = None) -> Labels:
        """Of checked targets; ``classes`` are those of all calls, where they are known beforehand."""
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            return cls(kind, np.arange(y.shape[1]))
        found = unique_labels(y if classes is None else on_host(classes))
        return cls("binary" if len(found) <= 2 else "multiclass", found)

    @property
    def outputs(self) -> int:
        """Of a network that tells them apart."""
        return 1 if self.kind == "binary" else len(self.classes)

    def numbers(self, y: np.ndarray) -> np.ndarray:
        """Labels as class numbers, (rows,), or as rows of 0 and 1."""
        if self.kind == "multilabel-indicator":
            return np.asarray(y).astype(np.int64)
        return np.searchsorted(self.classes, y).astype(np.int64)

    def known(self, y: np.ndarray) -> bool:
        """Whether all labels are among the classes."""
        return self.kind == "multilabel-indicator" or bool(np.isin(y, self.classes).all())

    def labels(self, numbers: Array) -> Array:
        """Class numbers as labels: where the numbers are, or NumPy's if no other library has such (text)."""
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


def targets(y: Any, X: Any, estimator: Any) -> np.ndarray:
    """Labels on the host, (rows,), or rows of 0 and 1."""
    checked = _beside_rows(y.toarray() if is_sparse(y) else y, X, estimator, None)
    check_classification_targets(checked)
    if checked.dtype == object and not isinstance(checked.flat[0], str):
        checked = np.asarray(checked.tolist())
    return checked


def beside(X: Any, array: np.ndarray | None) -> Any:
    """An array of the host in the library and on the device of X."""
    if array is None or not is_foreign(X):
        return array
    return get_backend(X).asarray(array)


def under_dispatch(array: np.ndarray, X: Any) -> Any:
    """A fitted attribute: in the library of X where scikit-learn's dispatch is on, and it has such a dtype; else NumPy's."""
    return beside(X, array) if get_config()["array_api_dispatch"] and array.dtype.kind in "biuf" else array


def taken(x: Any, numbers: np.ndarray) -> Any:
    """Some rows, where they are."""
    if not is_foreign(x):
        return _safe_indexing(x, numbers)
    return array_namespace(x).take(x, get_backend(x).indices(numbers), axis=0)


def part(x: Any, target: np.ndarray, weights: np.ndarray | None, numbers: np.ndarray) -> Any:
    """Rows, targets and weights of some rows."""
    return taken(x, numbers), target[numbers], None if weights is None else weights[numbers]


def all_classes(labels: Labels | None, classes: Any) -> None:
    """What partial_fit is told of the classes: all in the first call, in later ones the same or nothing.

    Raises
    ------
    ValueError
        For anything else.
    """
    if labels is None:
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
    elif classes is not None and not np.array_equal(labels.classes, unique_labels(on_host(classes))):
        raise ValueError(
            f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {labels.classes!r}"
        )


def score(
    usual: Callable[..., float], metric: Callable[..., float], estimator: Any, X: Any, y: Any, sample_weight: Any
) -> float:
    """scikit-learn's own score; of foreign arrays, where its dispatch is off, by way of the host."""
    if get_config()["array_api_dispatch"] or not any(map(is_foreign, (X, y, sample_weight))):
        return usual(X, y, sample_weight=sample_weight)
    return float(metric(on_host(y), on_host(estimator.predict(X)), sample_weight=on_host(sample_weight)))
