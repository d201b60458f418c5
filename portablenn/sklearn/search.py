"""A search over parameters in which the networks of all candidates and splits are trained together."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from numbers import Integral, Number
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, ParameterSampler, RandomizedSearchCV, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable

from . import private
from .mlp import MLPClassifier, MLPRegressor
from .together import FIT, Halving, Job, fit_together

NETWORKS = (MLPClassifier, MLPRegressor)


class MLPSearchCV(RandomizedSearchCV):
    """A search over parameters by cross-validation, of which all networks are trained together.

    As scikit-learn's `RandomizedSearchCV`, with the same attributes and scores, but without ``n_jobs``. Candidates whose
    networks differ only in numbers, such as ``alpha`` and ``learning_rate_init``, are trained in one program, and so are those
    of all splits.

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
        ``max_iter`` says. It warns of candidates that are not trained together with others, such as those with "lbfgs".
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
        **{k: v for k, v in private.CONSTRAINTS["RandomizedSearchCV"].items() if k not in ("n_jobs", "pre_dispatch")},
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

    @private.validated_outside
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
        search._fits = _FittedClones(
            self.estimator, check_cv(self.cv, y, classifier=is_classifier(self.estimator)), X, y, params
        )
        fits = search._fits
        search.estimator, search.cv = fits.template(), fits
        if self.factor is not None:
            fits.halving = self._halving()
            search.refit = fits.best if self.refit else self.refit
            fits.refit = self.refit
            if params.get("sample_weight") is not None:
                fits.scores_take_weights = private.scorers_accept_weights(search)
        try:
            super(MLPSearchCV, search).fit(X, y, **params)
        finally:
            del search._fits
            fits.release()
        fits.describe(search.cv_results_)
        search.estimator, search.cv = self.estimator, self.cv
        private.set_splitter(search, fits.cv)
        if self.factor is not None:
            search.refit = self.refit
            results = search.cv_results_
            if not self.refit and not search.multimetric_:  # scikit-learn chose among all
                search.best_index_ = fits.best(results)
                search.best_params_ = results["params"][search.best_index_]
            if (self.refit or not search.multimetric_) and not callable(self.refit):
                search.best_score_ = results[fits.metric(results)][search.best_index_]
        self.__dict__.update(vars(search))
        return self

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        """Evaluate the candidates; called by scikit-learn's ``fit``."""
        if self.n_iter is None:
            candidates = list(ParameterGrid(self.param_distributions))
        else:
            candidates = list(ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state))
        self._fits.candidates = candidates
        count = len(candidates) * self.n_splits_
        context = callback_ctx.subcontext(task_name="search", max_subtasks=count, sequential_subtasks=False)
        context.call_on_fit_task_begin(estimator=self)
        evaluate_candidates(candidates, callback_ctx=context)
        context.call_on_fit_task_end(estimator=self)

    def _halving(self) -> tuple[int, int, Any]:
        """Return the factor, the least number of epochs, and the scorer that candidates are compared by."""
        scoring = self.scoring
        if isinstance(scoring, (list, tuple, set, dict)):
            if not isinstance(self.refit, str):
                raise ValueError(f"factor compares candidates by one score: name one of {list(scoring)} as refit")
            scoring = scoring[self.refit] if isinstance(scoring, dict) else self.refit
        assert self.factor is not None
        return self.factor, self.min_epochs, check_scoring(self.estimator, scoring)


class _FittedClones:
    """The clones that scikit-learn's search asks for, each fitted already; and the splits that it asks for before."""

    def __init__(self, estimator: Any, cv: Any, X: Any, y: Any, params: Mapping[str, Any]) -> None:
        self._estimator, self.cv, self._data = estimator, cv, (*indexable(X, y), params)
        self._templates: list[Any] = []
        self.candidates: Sequence[Mapping[str, Any]] = ()
        self._splits: list[tuple[np.ndarray, np.ndarray]] = []
        self._fitted: Iterator[Any] | None = None
        self._seconds = 0.0
        self.halving: tuple[int, int, Any] | None = None
        self._joined = np.zeros(0, dtype=int)  # candidates whose networks were trained together
        self._dropped = np.zeros(0, dtype=int)  # candidates
        self.refit: Any = None  # of the search
        self.scores_take_weights = False

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

    def best(self, results: dict[str, Any]) -> int:
        """Return the best candidate that was not dropped, as ``refit`` of the search chooses."""
        kept = dict(results)
        for name in results:
            if name.startswith("mean_test_"):
                kept[name] = results[name].copy()
                kept[name][self._dropped] = np.nan
        if callable(self.refit):
            return int(self.refit(kept))
        scores = kept[self.metric(results)]
        return 0 if np.isnan(scores).all() else int(np.nanargmax(scores))

    def metric(self, results: dict[str, Any]) -> str:
        """Return the name of the score in the results that the search is for."""
        name = f"mean_test_{self.refit}"
        return name if name in results else "mean_test_score"

    def describe(self, results: dict[str, Any]) -> None:
        """Replace the times of those that the search found fitted already, and say which were dropped."""
        if self.halving is not None:
            results["dropped"] = np.isin(np.arange(len(self.candidates)), self._dropped)
        if len(self._joined):
            each = self._seconds / (len(self._joined) * len(self._splits))
            results["mean_fit_time"][self._joined], results["std_fit_time"][self._joined] = each, 0.0

    def _fit(self) -> list[Any]:
        X, y, params = self._data
        weights = params.get("sample_weight")
        pipeline = type(self._estimator) is Pipeline
        network = self._estimator.steps[-1][1] if pipeline else self._estimator
        plain = not set(params) - {"sample_weight", "groups"} and not isinstance(weights, Number)
        routed = get_config()["enable_metadata_routing"] and bool(params)
        if not _is_network(network) or not plain or routed or (pipeline and weights is not None) or y is None:
            return self._warn_of_halving(len(self.candidates) * len(self._splits))
        rows = [
            tuple(None if a is None else private.take_rows(a, train) for a in (X, y, weights))
            for train, _ in self._splits
        ]
        prepared = _Prepared()
        clones, errors, jobs = list[Any](), list[Exception | None](), list[tuple[int, Job]]()
        for candidate in self.candidates:
            for split, (x, target, weight) in enumerate(rows):
                one = clone(self._estimator).set_params(**clone(candidate, safe=False))
                errors.append(None)
                if not _is_network(one.steps[-1][1] if pipeline else one):
                    clones.append(clone(self._estimator))  # is fitted by the search
                    continue
                clones.append(one)
                try:
                    network, x = prepared.network(one, split, x, target)
                    jobs.append((len(clones) - 1, Job(network, x, target, weight)))
                except Exception as error:
                    errors[-1] = error
        numbers = [k for k, _ in jobs]
        halving = None if self.halving is None else self._make_halving(clones, numbers, len(rows))
        for k, failed in zip(numbers, fit_together([job for _, job in jobs], halving), strict=True):
            errors[k] = failed
        self._joined = np.unique(np.asarray(numbers, dtype=int) // len(rows))
        if halving is not None:
            self._dropped = np.asarray(sorted(halving.dropped), dtype=int)
            self._warn_of_halving(len(halving.alone) + len(clones) - len(jobs))
        chosen = set(numbers)
        return [_fitted(c, e) if k in chosen or e else c for k, (c, e) in enumerate(zip(clones, errors, strict=True))]

    def _warn_of_halving(self, alone: int) -> list[Any]:
        """Warn if estimators are fitted one by one, though halving was asked for; return no fitted ones."""
        if self.halving is not None and alone:
            message = (
                f"factor has no effect on {alone} fits, which are not trained together with others: those with lbfgs, "
                'learning_rate="adaptive", callbacks, sparse rows, or of other classes'
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        return []

    def _make_halving(self, clones: Sequence[Any], joined: Sequence[int], splits: int) -> Halving:
        """Return the halving of jobs, each of which fits one of the clones."""
        assert self.halving is not None
        factor, min_epochs, scorer = self.halving
        X, y, params = self._data
        weights = params.get("sample_weight") if self.scores_take_weights else None

        def score(job: int) -> float:
            test = self._splits[joined[job] % splits][1]
            named = {} if weights is None else {"sample_weight": private.take_rows(weights, test)}
            try:
                found = scorer(clones[joined[job]], private.take_rows(X, test), private.take_rows(y, test), **named)
                return float(found[self.refit] if isinstance(found, dict) else found)
            except Exception:  # the search calls the scorer again, and reports it
                return float("nan")

        return Halving(factor, min_epochs, [k // splits for k in joined], score)


def _is_network(estimator: Any) -> bool:
    """Return whether an estimator is fitted by the ``fit`` of this package."""
    return isinstance(estimator, NETWORKS) and type(estimator).fit is FIT


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
            key = split, self._hash(before)
            if key not in self._known:
                steps = Pipeline(before)
                self._known[key] = steps.fit_transform(x, y), steps.steps
            x, steps = self._known[key]
            estimator.steps[:-1] = steps
        return estimator.steps[-1][1], x

    @staticmethod
    def _hash(steps: list[Any]) -> Any:
        """Return a key of steps that are the same in all candidates; of those that may not be, one that no others have."""
        drawn = (name for _, step in steps for name, value in _parameters(step) if value is None)
        if any(name.endswith("random_state") for name in drawn):
            return object()
        try:
            return pickle.dumps(steps)
        except Exception:  # a function or a class that cannot be pickled
            return object()


def _parameters(step: Any) -> Iterable[tuple[str, Any]]:
    return step.get_params().items() if hasattr(step, "get_params") else ()  # "passthrough"


def _fitted(estimator: Any, error: Exception | None) -> Any:
    """Let the next ``set_params`` and ``fit`` of an estimator, those of the search, change nothing, or raise the error."""

    def fit(*_: Any, **__: Any) -> Any:
        del estimator.fit, estimator.set_params
        if error is not None:
            raise error
        return estimator

    estimator.fit, estimator.set_params = fit, lambda **_: estimator
    return estimator
