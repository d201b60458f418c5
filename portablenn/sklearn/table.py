"""Estimators of tables: the network of `TableModel`, with its preprocessing, for data frames and arrays of any type of cell."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..data.sources import is_sparse
from ..data.validation import class_weight_table
from ..tables.columns import SAME_VALUE
from ..tables.model import TableModel
from ..tables.preprocessing import IGNORED, IS_INDEX
from ..tables.presets import PRESETS
from ..tables.readers import Table, is_missing, open_table
from . import inputs
from .base import UnchangedOnErrorMixin
from .private import Interval, StrOptions, validated

_LABELS_ARE = {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}
"""The type of a `Target`'s labels, by the kind of their dtype; text otherwise."""

EXPECTED = (IGNORED, IS_INDEX, SAME_VALUE)
"""Why columns are left out without a warning."""

_PARAMETERS = """
    preset : {"default", "fast"}, default="default"
        The network and how it is trained; see `portablenn.TableModel.train`, also for the parameters that follow.
    hidden, activation, dropout, learning_rate, epochs, batch_size, patience : default=None
        None for the values of the preset.
    column_types : dict, default=None
        {column: "number", "date", "category" or "ignore"}; the columns of arrays are "x0", "x1", …
    callbacks : sequence of portablenn.callbacks.Callback, default=()
        Called in training.
    backend : str, module or array, default="auto"
        Where to train: what `portablenn.get_backend` accepts.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, of the order of rows, and of which rows choose the best epoch.
"""


class _TableEstimator(UnchangedOnErrorMixin, BaseEstimator):
    """The base of classifier and regressor."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "preset": [StrOptions(set(PRESETS))],
        "hidden": ["array-like", None],
        "activation": [str, None],
        "dropout": [Interval(Real, 0, 1, closed="left"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "column_types": [Mapping, None],
        "callbacks": [list, tuple],
        "backend": "no_validation",
        "random_state": ["random_state"],
    }
    _task: ClassVar[str]

    def __init__(
        self, *, preset: str = "default", hidden: Any = None, activation: str | None = None, dropout: float | None = None,
        learning_rate: float | None = None, epochs: int | None = None, batch_size: int | None = None,
        patience: int | None = None, column_types: Mapping[str, str] | None = None, callbacks: Any = (),
        backend: Any = "auto", random_state: Any = None,
    ) -> None:  # fmt: skip
        self.preset, self.hidden, self.activation, self.dropout = preset, hidden, activation, dropout
        self.learning_rate, self.epochs, self.batch_size, self.patience = learning_rate, epochs, batch_size, patience
        self.column_types, self.callbacks, self.backend, self.random_state = (
            column_types,
            callbacks,
            backend,
            random_state,
        )

    def _fit(self, X: Any, y: np.ndarray, name: str, **settings: Any) -> TableModel:
        """Return a model of the columns of X and of y, which is called ``name``; after an error the estimator is as it was."""
        with self._unchanged_on_error():
            return self._train(self._table(X, reset=True), y, name, **settings)

    def _train(self, table: Table, y: np.ndarray, name: str, **settings: Any) -> TableModel:
        while name in table.columns or name in table.index:
            name = f"{name}_"
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        of_preset = ("preset", "hidden", "activation", "dropout", "learning_rate", "epochs", "batch_size", "patience")
        self._columns = table.columns
        model = TableModel.train(
            _with_column(table, name, y),
            name,
            task=self._task,
            test_share=0.0,
            column_types=self.column_types,
            callbacks=self.callbacks,
            backend=self.backend,
            seed=int(seed),
            **{parameter: getattr(self, parameter) for parameter in of_preset},
            **settings,
        )
        for column, reason in model.results["left_out"].items():
            if reason not in EXPECTED:
                warnings.warn(f"column {column!r} is left out: {reason}", RuntimeWarning, stacklevel=4)
        return model

    def _target(self, X: Any, y: Any) -> tuple[np.ndarray, str]:
        """Return y validated, (n_samples,), and its name, "target" if it has none."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        name = getattr(y, "name", None)
        y = column_or_1d(inputs.to_host(y), warn=True)
        _check_present(y)
        check_consistent_length(X, y)
        return y, name if isinstance(name, str) and name else "target"

    def _table(self, X: Any, reset: bool) -> Table:
        """Return X, validated as scikit-learn does, as a table; for a prediction, with the names of the columns of ``fit``."""
        if is_sparse(X):
            raise TypeError(
                f"Sparse data was passed for X, but {type(self).__name__} requires dense data: use X.toarray()"
            )
        if isinstance(X, np.ma.MaskedArray):
            X = np.ma.filled(X.astype(object), None)
        if not _is_frame(X):
            if isinstance(X, (list, tuple)):
                X = np.asarray(X, dtype=object)  # else numbers among texts would become texts, and booleans numbers
            X = validate_data(
                self,
                inputs.to_host(X),
                dtype=None,
                ensure_all_finite="allow-nan",
                ensure_min_samples=2 if reset else 1,
                reset=reset,
            )
            table = open_table({f"x{i}": X[:, i] for i in range(X.shape[1])})
        else:
            validate_data(self, X, skip_check_array=True, reset=reset)
            table = open_table(X)
            if not table.columns:
                raise ValueError(
                    f"Found array with 0 feature(s) while a minimum of 1 is required by {type(self).__name__}."
                )
        return table if reset or table.columns == self._columns else _renamed(table, self._columns)

    def predict(self, X: Any) -> np.ndarray:
        """Return the label or value of each row, (n_samples,).

        Parameters
        ----------
        X : data frame, array of any library or list of shape (n_samples, n_features)
            Rows, with the columns of ``fit``.
        """
        check_is_fitted(self)
        return self.model_.predict(self._table(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TableClassifier(ClassifierMixin, _TableEstimator):
    """A classifier of tables with columns of numbers, texts and dates, also with missing cells.

    The network and the preprocessing are those of `portablenn.TableModel`: by default RealMLP-TD-S (Holzmüller, Grinsztajn &
    Steinwart 2024). A tenth of the rows, of small tables at least 100 or a fifth, choose the best epoch.

    Parameters
    ----------
    {parameters}
    class_weight : dict or "balanced", default=None
        {label: weight} of the rows of a class in the loss, or "balanced" for the same total weight of each.

    Attributes
    ----------
    model_ : portablenn.TableModel
        The trained model; ``model_.save(path)`` writes it for `portablenn predict`.
    classes_ : array of shape (n_classes,)
        Labels.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.asarray([[30, "Oslo"], [50, "Oslo"], [30, "Rome"], [50, "Rome"]] * 50, dtype=object)
    >>> y = np.asarray(["basic", "gold", "gold", "basic"] * 50)
    >>> TableClassifier(preset="fast", epochs=200, random_state=0).fit(X, y).predict(X[:4]).tolist()
    ['basic', 'gold', 'gold', 'basic']
    """

    _task = "classification"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_TableEstimator._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self, *, preset: str = "default", hidden: Any = None, activation: str | None = None, dropout: float | None = None,
        learning_rate: float | None = None, epochs: int | None = None, batch_size: int | None = None,
        patience: int | None = None, column_types: Mapping[str, str] | None = None, class_weight: Any = None,
        callbacks: Any = (), backend: Any = "auto", random_state: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            preset=preset, hidden=hidden, activation=activation, dropout=dropout, learning_rate=learning_rate, epochs=epochs,
            batch_size=batch_size, patience=patience, column_types=column_types, callbacks=callbacks, backend=backend,
            random_state=random_state,
        )  # fmt: skip
        self.class_weight = class_weight

    @validated
    def fit(self, X: Any, y: Any) -> TableClassifier:
        """Train on X and y, from new initial weights.

        Parameters
        ----------
        X : data frame, array of any library or list of shape (n_samples, n_features)
            Rows; the cells of a column are numbers, texts or dates, or missing.
        y : array-like of shape (n_samples,)
            Labels.
        """
        y, name = self._target(X, y)
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(classes)} class")
        weights = self.class_weight
        if isinstance(weights, dict):
            weights = dict(enumerate(class_weight_table(weights, numbers, len(classes), classes.tolist()).tolist()))
        model = self._fit(X, numbers, name, class_weight=weights)
        # trained on class numbers, as labels may be texts that mark missing cells; a saved model predicts the labels
        target = replace(
            model.target,
            classes=tuple(classes.astype(str) if classes.dtype.kind in "mM" else map(str, classes.tolist())),
            labels_are=_LABELS_ARE.get(classes.dtype.kind, "text"),
        )
        model.preprocessor = replace(model.preprocessor, target=target)
        self.model_, self.classes_ = model, classes
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each row, (n_samples,).

        Parameters
        ----------
        X : data frame, array of any library or list of shape (n_samples, n_features)
            Rows, with the columns of ``fit``.
        """
        codes = self.predict_proba(X).argmax(axis=1)
        return self.classes_[codes]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n_samples, n_classes), in the order of ``classes_``; see `predict`."""
        check_is_fitted(self)
        return self.model_.predict_proba(self._table(X, reset=False))


class TableRegressor(RegressorMixin, _TableEstimator):
    """A regressor for tables with columns of numbers, texts and dates, also with missing cells.

    The network and the preprocessing are those of `portablenn.TableModel`: by default RealMLP-TD-S (Holzmüller, Grinsztajn &
    Steinwart 2024). A tenth of the rows, of small tables at least 100 or a fifth, choose the best epoch.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    model_ : portablenn.TableModel
        The trained model; ``model_.save(path)`` writes it for `portablenn predict`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).uniform(size=(400, 2))
    >>> TableRegressor(epochs=40, random_state=0).fit(X[:300], X[:300, 0] * X[:300, 1]).score(
    ...     X[300:], X[300:, 0] * X[300:, 1]
    ... ) > 0.9
    True
    """

    _task = "regression"

    @validated
    def fit(self, X: Any, y: Any) -> TableRegressor:
        """Train on X and y, from new initial weights.

        Parameters
        ----------
        X : data frame, array of any library or list of shape (n_samples, n_features)
            Rows; the cells of a column are numbers, texts or dates, or missing.
        y : array-like of shape (n_samples,)
            Values.
        """
        y, name = self._target(X, y)
        if y.dtype.kind in "mM":
            raise TypeError(f"y holds dates or times ({y.dtype}), which have no unit: convert them to numbers")
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        self.model_ = self._fit(X, y.astype(np.float64), name)
        return self


for _kind in (TableClassifier, TableRegressor):
    _kind.__doc__ = str(_kind.__doc__).replace("{parameters}", _PARAMETERS.strip())


def _check_present(y: np.ndarray) -> None:
    """Raise `ValueError` if a target is missing or not finite, whatever scikit-learn is told to assume."""
    if y.dtype.kind in "fc":
        missing = ~np.isfinite(y)
    elif y.dtype.kind in "mM":
        missing = np.isnat(y)
    elif y.dtype.kind == "O":
        missing = np.asarray([is_missing(cell) for cell in y])
    else:
        return
    if missing.any():
        what = "infinity" if y.dtype.kind == "f" and not np.isnan(y).any() else "NaN"
        raise ValueError(
            f"Input y contains {what}: {int(missing.sum())} targets are missing or not finite; leave out these rows"
        )


def _is_frame(X: Any) -> bool:
    """Return whether X is a data frame, whose columns have names and types."""
    return hasattr(X, "columns") or hasattr(X, "__dataframe__") or hasattr(X, "column_names")


def _renamed(table: Table, names: tuple[str, ...]) -> Table:
    """Return a table with other names of its columns, as arrays have none."""

    def batches() -> Iterator[Any]:
        yield from (batch.rename_columns(list(names)) for batch in table.batches())

    return replace(table, columns=names, batches=batches, index=())


def _with_column(table: Table, name: str, values: np.ndarray) -> Table:
    """Return a table with one more column, values: (rows,)."""
    import pyarrow

    def batches() -> Iterator[Any]:
        start = 0
        for batch in table.batches():
            yield batch.append_column(name, pyarrow.array(values[start : start + batch.num_rows]))
            start += batch.num_rows

    return replace(table, columns=(*table.columns, name), batches=batches)
