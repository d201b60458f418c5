"""A search over parameters in which the networks of all candidates and splits are trained together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from numbers import Integral
from typing import Any, ClassVar

import joblib
import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, ParameterSampler, RandomizedSearchCV, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable

from . import private
from .mlp import MLPClassifier, MLPRegressor
from .together import Halving, Job, fit_together

NETWORKS = (MLPClassifier, MLPRegressor)


class MLPSearchCV(RandomizedSearchCV):
    """A search over parameters by cross-validation, of which all networks are trained together.

    As scikit-learn's `RandomizedSearchCV`, with the same attributes and scores; candidates whose networks differ only in
    numbers, such as ``alpha`` and ``learning_rate_init``, are trained in one program. So are those of all splits.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor of portablenn, or a Pipeline that ends with one
        What is searched for; other estimators are fitted one after the other.
    param_distributions : dict or list of dicts
        Names of parameters, and distributions with a method ``rvs``, or lists to choose from.
    n_iter : int, default=10
        Number of candidates that are drawn; None for each combination of the lists, as in ``GridSearchCV``.
    factor : int, default=None
        With a number, successive halving: after ``min_epochs`` epochs only one of ``factor`` candidates is trained on, the best
        ones, after ``factor`` times as many epochs one of ``factor`` of these, and so on. None: all, for as long as
        ``max_iter`` says. Those that stopped for reasons of their own are not compared, and "lbfgs" has no epochs.
    min_epochs : int, default=10
        See ``factor``.
    scoring, refit, cv, verbose, random_state, error_score, return_train_score
        As in scikit-learn's ``RandomizedSearchCV``.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, refit_time_, multimetric_, \
classes_, n_features_in_, feature_names_in_
        As in ``RandomizedSearchCV``. ``mean_fit_time`` is the time of all fits, divided by their number. With ``factor``,
        ``cv_results_["dropped"]`` says which candidates were dropped; ``best_index_`` is none of them.

    Notes
    -----
    The rows of all splits are in memory at the same time, and with a pipeline those of each of its settings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from portablenn.sklearn import MLPClassifier, MLPSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier((8,), max_iter=1000, learning_rate_init=0.05, random_state=0)
    >>> search = MLPSearchCV(net, {"alpha": [1e-4, 1.0, 100.0]}, n_iter=None, cv=3).fit(X, y)
    >>> search.best_params_["alpha"] < 100.0
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **{k: v for k, v in RandomizedSearchCV._parameter_constraints.items() if k not in ("n_jobs", "pre_dispatch")},
        "n_iter": [private.Interval(Integral, 1, None, closed="left"), None],
        "factor": [private.Interval(Integral, 2, None, closed="left"), None],
        "min_epochs": [private.Interval(Integral, 1, None, closed="left")],
    }
    n_jobs: ClassVar[int] = 1
    """scikit-learn's code asks for the clones of the estimator in turn."""
    pre_dispatch: ClassVar[str] = "2*n_jobs"

    def __init__(
        self, estimator: Any, param_distributions: Any, *, n_iter: int | None = 10, factor: int | None = None,
        min_epochs: int = 10, scoring: Any = None, refit: Any = True, cv: Any = None, verbose: int = 0,
        random_state: Any = None, error_score: Any = np.nan, return_train_score: bool = False,
    ) -> None:  # fmt: skip
        self.factor, self.min_epochs = factor, min_epochs
        self.estimator, self.param_distributions, self.n_iter = estimator, param_distributions, n_iter
        self.scoring, self.refit, self.cv, self.verbose = scoring, refit, cv, verbose
        self.random_state, self.error_score, self.return_train_score = random_state, error_score, return_train_score

    def fit(self, X: Any, y: Any = None, **params: Any) -> MLPSearchCV:
        """Train and score all candidates, and the best one on all rows.

        Parameters
        ----------
        X : array of any library, table or list of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        **params
            As in ``RandomizedSearchCV``, such as ``sample_weight`` and ``groups``.
        """
        search = copy(self)
        search._fits = _Fits(
            self.estimator, check_cv(self.cv, y, classifier=is_classifier(self.estimator)), X, y, params
        )
        fits = search._fits
        search.estimator, search.cv = fits.template(), fits
        if self.factor is not None:
            fits.halving, search.refit = self._halving(), fits.choose(self.refit)
        try:
            super(MLPSearchCV, search).fit(X, y, **params)
        finally:
            del search._fits
            fits.release()
        fits.describe(search.cv_results_)
        search.estimator, search.cv, search._checked_cv_orig = self.estimator, self.cv, fits.cv
        if self.factor is not None:
            search.refit = self.refit
            if not callable(self.refit):
                search.best_score_ = search.cv_results_[f"mean_test_{_metric(self.refit)}"][search.best_index_]
        self.__dict__.update(vars(search))
        return self

    def _run_search(self, evaluate_candidates: Any) -> None:
        """Evaluate the candidates; called by scikit-learn's ``fit``."""
        if self.n_iter is None:
            candidates = list(ParameterGrid(self.param_distributions))
        else:
            candidates = list(ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state))
        self._fits.candidates = candidates
        evaluate_candidates(candidates)

    def _halving(self) -> tuple[int, int, Any]:
        """Return the factor, the least number of epochs, and the scorer that candidates are compared by."""
        scoring = self.scoring
        if isinstance(scoring, (list, tuple, set, dict)):
            if not isinstance(self.refit, str):
                raise ValueError(f"factor compares candidates by one score: name one of {list(scoring)} as refit")
            scoring = scoring[self.refit] if isinstance(scoring, dict) else self.refit
        assert self.factor is not None
        return self.factor, self.min_epochs, check_scoring(self.estimator, scoring)


def _metric(refit: Any) -> str:
    return refit if isinstance(refit, str) else "score"


class _Fits:
    """The clones that scikit-learn's search asks for, each fitted already; and the splits that it asks for before."""

    def __init__(self, estimator: Any, cv: Any, X: Any, y: Any, params: Mapping[str, Any]) -> None:
        self._estimator, self.cv, self._data = estimator, cv, (*indexable(X, y), params)
        self._templates: list[Any] = []
        self.candidates: Sequence[Mapping[str, Any]] = ()
        self._splits: list[tuple[np.ndarray, np.ndarray]] = []
        self._fitted: Iterator[Any] | None = None
        self._seconds = 0.0
        self.halving: tuple[int, int, Any] | None = None
        self._dropped: np.ndarray | None = None  # whether each candidate was

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cv, name)

    def split(self, *arguments: Any, **named: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the splits of the cross-validation."""
        self._splits = list(self.cv.split(*arguments, **named))
        return self._splits

    def template(self) -> Any:
        """Return the estimator that the search clones twice: once at first, and then for each candidate and split."""
        outer, inner = self._templates = [clone(self._estimator), clone(self._estimator)]
        inner.__sklearn_clone__ = self._next
        outer.__sklearn_clone__ = lambda: inner
        return outer

    def release(self) -> None:
        """Let the estimators be like any others again; some are kept, as by a scorer."""
        for estimator in self._templates:
            vars(estimator).pop("__sklearn_clone__", None)

    def _next(self) -> Any:
        """Return the fitted estimator of the next candidate and split; after the last one a new estimator."""
        if self._fitted is None:
            start = time.perf_counter()
            self._fitted = iter(self._fit())
            self._seconds = time.perf_counter() - start
        return next(self._fitted, None) or clone(self._estimator)

    def choose(self, refit: Any) -> Any:
        """Return a function that chooses the best candidate that was not dropped, as ``refit`` of the search."""

        def best(results: dict[str, Any]) -> int:
            dropped = np.zeros(len(self.candidates), dtype=bool) if self._dropped is None else self._dropped
            kept = {n: np.where(dropped, np.nan, v) if n.startswith("mean_test_") else v for n, v in results.items()}
            if callable(refit):
                return int(refit(kept))
            scores = kept[f"mean_test_{_metric(refit)}"]
            return 0 if np.isnan(scores).all() else int(np.nanargmax(scores))

        return best if refit else refit

    def describe(self, results: dict[str, Any]) -> None:
        """Replace the times of the search, in which the estimators were fitted already, and say which were dropped."""
        if self._dropped is not None:
            results["dropped"] = self._dropped
        if self._seconds:
            count = len(self.candidates)
            results["mean_fit_time"] = np.full(count, self._seconds / (count * len(self._splits)))
            results["std_fit_time"] = np.zeros(count)

    def _fit(self) -> list[Any]:
        X, y, params = self._data
        weights = params.get("sample_weight")
        unknown = set(params) - {"sample_weight", "groups"}
        pipeline = isinstance(self._estimator, Pipeline)
        network = self._estimator.steps[-1][1] if pipeline else self._estimator
        can_join = isinstance(network, NETWORKS) and not (unknown or (pipeline and weights is not None))
        if not can_join or (get_config()["enable_metadata_routing"] and params) or y is None:
            return []
        rows = [
            tuple(None if a is None else _safe_indexing(a, train) for a in (X, y, weights)) for train, _ in self._splits
        ]
        prepared = _Prepared()
        clones, errors, jobs = list[Any](), list[Exception | None](), list[tuple[int, Job]]()
        for candidate in self.candidates:
            for split, (x, target, weight) in enumerate(rows):
                one = clone(self._estimator).set_params(**clone(candidate, safe=False))
                errors.append(None)
                if not isinstance(one.steps[-1][1] if pipeline else one, NETWORKS):
                    clones.append(clone(self._estimator))  # is fitted by the search
                    continue
                clones.append(one)
                try:
                    network, x = prepared.network(one, split, x, target)
                    jobs.append((len(clones) - 1, Job(network, x, target, weight)))
                except Exception as error:
                    errors[-1] = error
        halving = None if self.halving is None else self._make_halving(clones, [k for k, _ in jobs], len(rows))
        for (k, _), failed in zip(jobs, fit_together([job for _, job in jobs], halving), strict=True):
            errors[k] = failed
        if halving is not None:
            self._dropped = np.isin(np.arange(len(self.candidates)), list(halving.dropped))
        joined = {k for k, _ in jobs}
        return [_fitted(c, e) if k in joined or e else c for k, (c, e) in enumerate(zip(clones, errors, strict=True))]

    def _make_halving(self, clones: Sequence[Any], joined: Sequence[int], splits: int) -> Halving:
        """Return the halving of jobs, each of which fits one of the clones."""
        assert self.halving is not None
        factor, min_epochs, scorer = self.halving
        X, y, _ = self._data

        def score(job: int) -> float:
            test = self._splits[joined[job] % splits][1]
            try:
                return float(scorer(clones[joined[job]], _safe_indexing(X, test), _safe_indexing(y, test)))
            except ValueError:  # of predictions that are not finite
                return float("nan")

        return Halving(factor, min_epochs, [k // splits for k in joined], score)


class _Prepared:
    """What the steps of a pipeline before the network make of the rows of each split, computed once for each setting."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[list[Any], Any]] = {}

    def network(self, estimator: Any, split: int, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the network of an estimator, and the rows that it is trained on; fit the steps before it."""
        if not isinstance(estimator, Pipeline):
            return estimator, x
        before = estimator.steps[:-1]
        if before:
            key = split, joblib.hash(before)
            if key not in self._known:
                steps = Pipeline(before)
                self._known[key] = steps.fit_transform(x, y), steps.steps
            x, steps = self._known[key]
            estimator.steps[:-1] = steps
        return estimator.steps[-1][1], x


def _fitted(estimator: Any, error: Exception | None) -> Any:
    """Let the next ``set_params`` and ``fit`` of an estimator, those of the search, change nothing, or raise the error."""

    def fit(*_: Any, **__: Any) -> Any:
        del estimator.fit, estimator.set_params
        if error is not None:
            raise error
        return estimator

    estimator.fit, estimator.set_params = fit, lambda **_: estimator
    return estimator
