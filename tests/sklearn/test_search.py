"""MLPSearchCV finds what scikit-learn's searches find."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV, ShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, scale
from sklearn.random_projection import GaussianRandomProjection
from sklearn.utils.estimator_checks import check_estimator

from portablenn.nn.losses import Poisson
from portablenn.sklearn import MLPClassifier, MLPRegressor, MLPSearchCV, together

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
NET = MLPClassifier((6,), random_state=0, max_iter=15)
RANGES = {"alpha": loguniform(1e-5, 10), "learning_rate_init": loguniform(1e-3, 0.1)}


def check_same(ours: Any, theirs: Any, **data: Any) -> None:
    x, y = data.pop("X", X), data.pop("y", Y)
    ours.fit(x, y, **data)
    theirs.fit(x, y, **data)
    times = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for name, values in theirs.cv_results_.items():
        if name == "params":
            assert list(map(str, ours.cv_results_[name])) == list(map(str, values))
        elif values.dtype.kind == "f" and name not in times:
            np.testing.assert_allclose(ours.cv_results_[name], values, rtol=0, atol=1e-9, err_msg=name)
        elif name not in times:
            assert list(map(str, ours.cv_results_[name])) == list(map(str, values)), name
    assert (theirs.cv_results_["mean_fit_time"] > 1e-4).all() == (ours.cv_results_["mean_fit_time"] > 1e-4).all()
    assert set(vars(ours)) - set(vars(theirs)) <= {
        "param_distributions",
        "n_iter",
        "random_state",
        "factor",
        "min_epochs",
    }
    assert set(vars(theirs)) - set(vars(ours)) <= {"n_jobs", "pre_dispatch", "param_grid"}
    for name in ("best_index_", "n_splits_", "multimetric_"):
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    if hasattr(theirs, "best_estimator_"):
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
        assert ours.score(x, y) == theirs.score(x, y)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cv": ShuffleSplit(3, random_state=1), "return_train_score": True},
        {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"},
        {"scoring": lambda estimator, x, y: float(estimator.coefs_[0][0, 0]), "refit": False},
    ],
)
def test_draws_and_scores_are_scikit_learns(settings: Any) -> None:
    same = {"n_iter": 5, "random_state": 3, **settings}
    check_same(MLPSearchCV(NET, RANGES, **same), RandomizedSearchCV(NET, RANGES, **same))


def test_every_combination_is_tried_without_a_number_of_draws() -> None:
    grid = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(4,), (6, 3)], "early_stopping": [False, True]}
    check_same(MLPSearchCV(NET, grid, n_iter=None, cv=3), GridSearchCV(NET, grid, cv=3))


def test_weights_and_groups_are_passed_on() -> None:
    data = {"sample_weight": np.linspace(0.1, 2.0, len(X)), "groups": np.arange(len(X)) % 6}
    same = {"n_iter": 3, "random_state": 0, "cv": GroupKFold(3)}
    check_same(MLPSearchCV(NET, RANGES, **same), RandomizedSearchCV(NET, RANGES, **same), **data)


@pytest.mark.parametrize(
    "ranges",
    [
        {"mlpclassifier__alpha": [1e-4, 1.0], "pca__n_components": [2, 3, 4]},
        {
            "mlpclassifier": [MLPClassifier((4,), random_state=1, max_iter=5), LogisticRegression()],
            "pca": ["passthrough", PCA(2)],
        },
    ],
)
def test_a_pipeline_is_fitted_on_the_rows_of_each_split(ranges: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), PCA(), NET)
    check_same(
        MLPSearchCV(pipeline, ranges, n_iter=None, cv=3), GridSearchCV(pipeline, ranges, cv=3), X=load_iris().data
    )


def test_a_regressor() -> None:
    net = MLPRegressor(hidden_layer_sizes=(5,), random_state=0, max_iter=10)
    same = {"n_iter": 4, "random_state": 3, "cv": 3}
    check_same(MLPSearchCV(net, RANGES, **same), RandomizedSearchCV(net, RANGES, **same), y=X[:, 3])


def test_other_estimators_are_searched_one_by_one() -> None:
    ranges = {"C": loguniform(1e-3, 10)}
    same = {"n_iter": 3, "random_state": 3}
    check_same(
        MLPSearchCV(LogisticRegression(), ranges, **same), RandomizedSearchCV(LogisticRegression(), ranges, **same)
    )


def test_candidates_that_fail_have_no_score() -> None:
    grid = {"learning_rate_init": [0.01, -1.0]}
    with pytest.warns(UserWarning, match="non-finite"), pytest.warns(FitFailedWarning, match="3 fits failed"):
        search = MLPSearchCV(NET, grid, n_iter=None, cv=3).fit(X, Y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    with pytest.raises(ValueError, match="learning_rate_init"):
        MLPSearchCV(NET, grid, n_iter=None, cv=3, error_score="raise").fit(X, Y)
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        MLPSearchCV(NET, {"rate": [1.0]}, n_iter=None).fit(X, Y)


def test_an_error_leaves_the_search_as_it_was() -> None:
    search = MLPSearchCV(NET, {"alpha": [0.1, 1.0]}, n_iter=None, cv=3)
    before = dict(vars(search))
    with pytest.raises(ValueError, match="inconsistent numbers"):
        search.fit(X, Y[:-1])
    assert vars(search) == before
    assert "fit" not in vars(NET)


def test_all_candidates_and_splits_of_one_size_are_one_program(program_sizes: list[int]) -> None:
    MLPSearchCV(NET, RANGES, n_iter=4, cv=3, refit=False).fit(X, Y)
    assert program_sizes == [12]


GRID = {"learning_rate_init": [1e-5, 0.03, 1e-4, 0.1, 1e-6, 0.05, 1e-3, 0.01, 3e-3]}
SLOW = MLPClassifier((6,), random_state=0, max_iter=40, tol=0.0)


@pytest.mark.parametrize("pipeline", [False, True])
def test_successive_halving_trains_the_best_on(pipeline: bool) -> None:
    net = make_pipeline(StandardScaler(), SLOW) if pipeline else SLOW
    grid = {f"mlpclassifier__{name}" if pipeline else name: values for name, values in GRID.items()}
    search = MLPSearchCV(net, grid, n_iter=None, cv=3, factor=3, min_epochs=5).fit(X, Y)
    results = search.cv_results_
    assert results["dropped"].sum() == 8  # after 5 epochs 6 of 9, after 15 epochs 2 of 3
    scores = {}
    for epochs in (5, 15, 40):
        first = MLPSearchCV(clone(net), grid, n_iter=None, cv=3, refit=False)
        first.estimator.set_params(**{"mlpclassifier__max_iter" if pipeline else "max_iter": epochs})
        scores[epochs] = first.fit(X, Y).cv_results_["mean_test_score"]
    three = np.argsort(-scores[5], kind="stable")[:3]
    one = three[np.argmax(scores[15][three])]
    for k in range(9):
        epochs = 5 if k not in three else 15 if k != one else 40
        np.testing.assert_allclose(results["mean_test_score"][k], scores[epochs][k], rtol=0, atol=1e-9)
    assert (search.best_index_, search.best_score_) == (one, results["mean_test_score"][one])
    assert search.refit is True
    assert search.best_params_ == results["params"][one]


def test_halving_compares_by_one_score_and_spares_those_that_have_stopped() -> None:
    with pytest.raises(ValueError, match=r"name one of \['accuracy', 'neg_log_loss'\] as refit"):
        MLPSearchCV(SLOW, GRID, factor=2, scoring=["accuracy", "neg_log_loss"], refit=False).fit(X, Y)
    with pytest.raises(ValueError, match="factor"):
        MLPSearchCV(SLOW, GRID, factor=1).fit(X, Y)
    search = MLPSearchCV(SLOW, {"solver": ["lbfgs", "adam", "sgd"]}, n_iter=None, cv=3, factor=2, min_epochs=3)
    with pytest.warns(UserWarning, match="factor has no effect on 3 fits"):
        search.fit(X, Y)
    assert search.cv_results_["dropped"].tolist()[0] is False
    assert search.cv_results_["dropped"].sum() == 1
    never = MLPSearchCV(SLOW, GRID, n_iter=None, cv=3, factor=2, min_epochs=40).fit(X, Y)
    assert not never.cv_results_["dropped"].any()
    hopeless = MLPSearchCV(
        MLPRegressor(random_state=0, solver="sgd", max_iter=9, learning_rate_init=0.01),
        {"learning_rate_init": [1e200, 0.01, 0.1]}, n_iter=None, cv=3, factor=3, min_epochs=2,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="non-finite"), pytest.warns(FitFailedWarning, match="3 fits failed"):
        hopeless.fit(X, X[:, 0])
    assert hopeless.best_index_ in (1, 2)


def test_the_best_is_none_of_the_dropped_ones() -> None:
    scores = {"scoring": lambda e, x, y: -float(e.n_iter_), "factor": 2, "min_epochs": 5, "cv": 3, "n_iter": None}
    for refit in (False, True, lambda results: int(np.nanargmax(results["mean_test_score"]))):
        search = MLPSearchCV(SLOW, GRID, refit=refit, **scores).fit(X, Y)
        assert not search.cv_results_["dropped"][search.best_index_]
        assert search.best_params_ == search.cv_results_["params"][search.best_index_]
    named = MLPSearchCV(SLOW, GRID, n_iter=3, cv=3, scoring="accuracy", refit="accuracy", factor=2).fit(X, Y)
    assert named.best_score_ == named.cv_results_["mean_test_score"][named.best_index_]


def test_halving_scores_the_rows_that_are_held_out_with_their_weights() -> None:
    seen: list[Any] = []

    def score(truth: Any, guess: Any, sample_weight: Any = None) -> float:
        seen.append((len(truth), sample_weight is not None))
        return float(np.mean(truth == guess))

    search = MLPSearchCV(SLOW, GRID, n_iter=3, cv=3, factor=3, scoring=make_scorer(score), refit=False)
    search.fit(X, Y, sample_weight=np.ones(150))
    assert set(seen) == {(50, True)}
    assert len(seen) == 18  # of three candidates and splits, once in training and once at the end

    def broken(*_: Any) -> float:
        raise RuntimeError("no score")

    with pytest.warns(UserWarning, match="no score|non-finite"):
        MLPSearchCV(SLOW, GRID, n_iter=3, cv=3, factor=3, scoring=broken, refit=False).fit(X, Y)


class Scaled(MLPClassifier):
    """A subclass with a fit and a predict of its own."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        self.factor_ = 100.0
        return super().fit(np.asarray(X) * self.factor_, y, sample_weight)

    def predict(self, X: Any) -> Any:
        return super().predict(np.asarray(X) * self.factor_)


class ScaledPipeline(Pipeline):
    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        return super().fit(np.asarray(X) * 100.0, y, **params)


def test_subclasses_are_fitted_by_their_own_fit() -> None:
    grid = {"alpha": [1e-4, 1.0]}
    net = Scaled((6,), random_state=0, max_iter=5)
    check_same(MLPSearchCV(net, grid, n_iter=None, cv=3), GridSearchCV(net, grid, cv=3))
    pipeline = ScaledPipeline([("net", NET)])
    grid = {"net__alpha": [1e-4, 1.0]}
    check_same(MLPSearchCV(pipeline, grid, n_iter=None, cv=3), GridSearchCV(pipeline, grid, cv=3))


def test_steps_that_cannot_be_pickled_or_draw_are_not_shared() -> None:
    pipeline = make_pipeline(FunctionTransformer(lambda x: 2 * x), NET)
    grid = {"mlpclassifier__alpha": [1e-4, 1.0]}
    check_same(MLPSearchCV(pipeline, grid, n_iter=None, cv=3), GridSearchCV(pipeline, grid, cv=3))
    drawn = make_pipeline(GaussianRandomProjection(2), NET)
    score = lambda e, x, y: float(e[0].components_[0, 0])  # noqa: E731
    search = MLPSearchCV(drawn, grid, n_iter=None, cv=2, scoring=score, refit=False).fit(X, Y)
    firsts = [search.cv_results_[f"split{k}_test_score"] for k in range(2)]
    assert len(set(np.concatenate(firsts).tolist())) == 4


def test_a_candidate_whose_loss_does_not_take_the_targets_fails_alone() -> None:
    grid = {"loss": ["squared_error", Poisson()]}
    net = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0)
    with pytest.warns(UserWarning, match="non-finite"), pytest.warns(FitFailedWarning, match="3 fits failed"):
        search = MLPSearchCV(net, grid, n_iter=None, cv=3).fit(X, X[:, 0])
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]


def test_wrong_parameters_are_scikit_learns_errors() -> None:
    for wrong in (MLPSearchCV(NET, GRID, cv="x"), MLPSearchCV(None, GRID), MLPSearchCV(NET, GRID, n_iter=0)):
        with pytest.raises(ValueError, match=r"The '(cv|estimator|n_iter)' parameter of MLPSearchCV must be"):
            wrong.fit(X, Y)


def test_ctrl_c_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together.EnsembleFit, "run", lambda self: setattr(self.history, "ended", "Ctrl-C in epoch 1"))
    search = MLPSearchCV(NET, GRID, n_iter=None, cv=3)
    before = dict(vars(search))
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)
    assert vars(search) == before
    assert "__sklearn_clone__" not in vars(NET)


def test_a_search_is_pickled_and_cloned() -> None:
    search = MLPSearchCV(NET, {"alpha": [0.1, 1.0]}, n_iter=None, cv=3).fit(X, Y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert again.score(X, Y) == search.score(X, Y)
    assert clone(search).get_params().keys() == search.get_params().keys()
    assert all("fit" not in vars(e) for e in (search.estimator, search.best_estimator_))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "search",
    [
        MLPSearchCV(MLPClassifier(max_iter=30, random_state=0), {"alpha": [1e-4, 1e-2]}, n_iter=None, cv=2, error_score="raise"),
        MLPSearchCV(MLPRegressor(max_iter=100, learning_rate_init=0.01, random_state=0), {"alpha": [1e-4, 1e-2]}, n_iter=2, cv=2),
    ],
)  # fmt: skip
def test_scikit_learns_checks_hold(search: Any) -> None:
    failed = [r for r in check_estimator(search, on_fail=None) if r["status"] == "failed"]
    assert [r["check_name"] for r in failed if "cudaError" not in str(r["exception"])] == []
