"""Ensembles of multi-layer perceptrons that are trained together, with scikit-learn's names and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if

from ..program.ir import Array, dtype_name
from ..runtime.arrays import array_namespace, to_numpy
from ..training.ensemble import Ensemble
from . import inputs, private
from .base import CheckedInputMixin, ScoreMixin
from .mlp import MLPClassifier, MLPRegressor, as_integers, has_probabilities
from .together import Job, fit_together

OF_MEMBERS = ("n_features_in_", "feature_names_in_", "classes_")
"""Fitted attributes that are those of the members."""


class _MLPEnsemble(CheckedInputMixin, BaseEstimator):
    """The base of classifier and regressor."""

    _member: ClassVar[Any]
    """The class of the members."""
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_estimators": [private.Interval(Integral, 1, None, closed="left")],
        "bootstrap": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self, estimator: Any = None, n_estimators: int = 10, *, bootstrap: bool = True, random_state: Any = None
    ) -> None:
        self.estimator, self.n_estimators = estimator, n_estimators
        self.bootstrap, self.random_state = bootstrap, random_state

    @private.validated
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train all members on X and y, from new initial weights.

        Parameters
        ----------
        X : array of any library, table, sparse matrix or list of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        """
        first = self._member() if self.estimator is None else self.estimator
        random_state = check_random_state(self.random_state)
        seeds = random_state.randint(np.iinfo(np.int32).max, size=self.n_estimators)
        members = [clone(first).set_params(random_state=int(seed), warm_start=False) for seed in seeds]
        drawn: list[np.ndarray | None] = [None] * len(members)
        if self.bootstrap:
            count = inputs.rows(clone(first), X, reset=True).shape[0]
            weights = inputs.weights(sample_weight, np.empty((count, 0)), "float64")
            drawn = [_drawn(random_state, count, weights) for _ in members]
        jobs = [Job(one, X, y, sample_weight, rows) for one, rows in zip(members, drawn, strict=True)]
        for error in fit_together(jobs):
            if error is not None:
                raise error
        fitted = self._attributes(members, drawn, X, y, sample_weight)
        for name in OF_MEMBERS:
            self.__dict__.pop(name, None)
        self.__dict__.update(fitted)
        return self

    def _attributes(
        self, members: Sequence[Any], drawn: Sequence[np.ndarray | None], X: Any, y: Any, sample_weight: Any
    ) -> dict[str, Any]:
        """Return the fitted attributes."""
        same = {name: getattr(members[0], name) for name in OF_MEMBERS if hasattr(members[0], name)}
        return {"estimators_": members, "_ensemble": Ensemble([one.network_ for one in members]), **same}

    @property
    def ensemble_(self) -> Ensemble:
        """The networks, as an `Ensemble`."""
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'ensemble_': fit it first")
        return self._ensemble

    @property
    def _like(self) -> Any:
        return self.estimators_[0]._like

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")


_KINDS = {"binary": "labels", "multiclass": "labels", "multilabel-indicator": "label_sets"}
"""What a network predicts for each kind of targets."""


def _drawn(random_state: np.random.RandomState, count: int, weights: np.ndarray | None) -> np.ndarray:
    """Return row numbers drawn with replacement, of which at least one has a weight above 0."""
    while True:
        rows = np.sort(random_state.randint(count, size=count))
        if weights is None or weights[rows].any():
            return rows


def _document(summary: str, member: str, attributes: str, examples: str) -> str:
    """Return the docstring of an ensemble: its specific part, and the parameters and attributes that both share."""
    return f"""{summary}

    Parameters
    ----------
    estimator : {member}, default=None
        The members, but for their random state; None for ``{member}()``.
    n_estimators : int, default=10
        Number of members.
    bootstrap : bool, default=True
        Whether each member is trained on as many rows as there are, drawn with replacement (Breiman 1996, "Bagging
        predictors"); else members differ in initial weights and order of rows. If it is set, ``early_stopping`` of members
        holds out rows of those drawn, of which some are also trained on, and ``class_weight="balanced"`` counts all rows.
    random_state : int, RandomState instance or None, default=None
        Decides the members' random states and rows.

    Attributes
    ----------
    {attributes}estimators_ : list of {member}
        The members.
    ensemble_ : portablenn.Ensemble
        Their networks.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    {examples.strip()}
    """


class MLPEnsembleClassifier(ScoreMixin, ClassifierMixin, _MLPEnsemble):
    __doc__ = _document(
        "Multi-layer perceptrons for classification that are trained together and predict by the mean of their probabilities.",
        "MLPClassifier",
        """classes_ : array of shape (n_classes,)
        The labels.
    """,
        """
    >>> from sklearn.datasets import load_iris
    >>> from portablenn.sklearn import MLPClassifier, MLPEnsembleClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier((8,), max_iter=1000, learning_rate_init=0.05)
    >>> MLPEnsembleClassifier(net, 5, random_state=0).fit(X, y).score(X, y) > 0.9
    True""",
    )

    _member: ClassVar[Any] = MLPClassifier
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [MLPClassifier, None],
        **_MLPEnsemble._parameter_constraints,
    }

    def predict(self, X: Any) -> Array:
        """Return the label of the highest mean probability of each row, (n_samples,), or rows of 0 and 1, where X is."""
        x = self._checked(X, "predict")
        labels, ensemble = self.estimators_[0]._labels, self._ensemble
        return labels.decode(as_integers(ensemble.predict_as(_KINDS[labels.kind], x)))

    @available_if(lambda self: has_probabilities(self.estimator or MLPClassifier()))
    def predict_proba(self, X: Any) -> Array:
        """Return the mean probability of each class, (n_samples, n_classes); with several labels, of each label alone."""
        x = self._checked(X, "predict_proba")
        return self._ensemble.predict_proba(x)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPEnsembleRegressor(ScoreMixin, RegressorMixin, _MLPEnsemble):
    __doc__ = _document(
        "Multi-layer perceptrons for regression that are trained together and predict by their mean.",
        "MLPRegressor",
        """noise_ : array of shape () or (n_outputs,), or None
        With ``bootstrap``, the standard deviation of the targets around the mean prediction that the spread of members does not
        explain, estimated from the rows that each member was not trained on.
    """,
        """
    >>> import numpy as np
    >>> from portablenn.sklearn import MLPEnsembleRegressor, MLPRegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> net = MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.05)
    >>> ensemble = MLPEnsembleRegressor(net, 5, random_state=0).fit(X, X[:, 0] ** 2)
    >>> mean, deviation = ensemble.predict(X, return_std=True)
    >>> mean.shape, deviation.shape
    ((100,), (100,))""",
    )

    _member: ClassVar[Any] = MLPRegressor
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [MLPRegressor, None],
        **_MLPEnsemble._parameter_constraints,
    }

    def _attributes(
        self, members: Sequence[Any], drawn: Sequence[np.ndarray | None], X: Any, y: Any, sample_weight: Any
    ) -> dict[str, Any]:
        fitted = super()._attributes(members, drawn, X, y, sample_weight)
        return {**fitted, "noise_": self._noise(fitted, drawn, X, y, sample_weight) if self.bootstrap else None}

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return mean values, (n_samples,) or (n_samples, n_outputs), where X is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        return_std : bool, default=False
            Whether to return (mean, standard deviation), the latter of a new target: from the spread of the members and
            ``noise_`` (Heskes 1997, "Practical confidence and prediction intervals"). It requires ``bootstrap``.
        """
        x = self._checked(X, "predict")
        mean = self._ensemble.predict(x)
        if not return_std:
            return mean
        if self.noise_ is None:
            raise ValueError(
                "return_std requires rows that a member was not trained on: set bootstrap=True and fit again"
            )
        if np.isnan(self.noise_).any():
            raise ValueError(
                "return_std requires rows that several members were not trained on: increase n_estimators and fit again"
            )
        xp, spread, count = array_namespace(mean), self._ensemble.predict_std(x), len(self.estimators_)
        noise = inputs.like(mean, np.asarray(self.noise_**2, dtype=str(dtype_name(mean.dtype))))
        return mean, xp.sqrt(spread * spread * ((count + 1) / (count - 1)) + noise)  # as in `_noise`

    @staticmethod
    def _noise(
        fitted: dict[str, Any], drawn: Sequence[np.ndarray | None], X: Any, y: Any, sample_weight: Any
    ) -> np.ndarray:
        """Return the deviation of targets from what members predict that have not seen them, less the spread of their mean."""
        first = fitted["estimators_"][0]
        x = inputs.rows(first, X, reset=False)
        each = to_numpy(fitted["_ensemble"].predict_members(x)).astype(np.float64)
        target = np.asarray(inputs.values(y, x, first), dtype=np.float64).reshape(each.shape[1:])
        apart = np.ones((len(each), len(target)), dtype=bool)
        for k, rows in enumerate(drawn):
            apart[k, rows] = False
        counts = apart.sum(axis=0)
        apart = apart.reshape(*apart.shape, *[1] * (each.ndim - 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            n = counts.reshape(-1, *[1] * (each.ndim - 2))
            mean = (each * apart).sum(axis=0) / n
            spread = (np.square(each - mean) * apart).sum(axis=0) / (n - 1)
            errors = np.square(target - mean) - spread * (1 + 1 / n)
        weights = np.ones(len(target)) if sample_weight is None else np.asarray(inputs.to_host(sample_weight))
        weights = np.where(counts > 1, np.broadcast_to(weights, counts.shape), 0.0)
        if not weights.any():
            return np.full(each.shape[2:], np.nan)
        errors = np.where(weights.reshape(n.shape) > 0, errors, 0.0)
        return np.sqrt(np.maximum(0.0, np.tensordot(weights, errors, axes=(0, 0)) / weights.sum()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
