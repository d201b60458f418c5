"""The estimators against scikit-learn's own: the same random_state gives the same losses, scores and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import linear_model, neural_network
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import portablenn.sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
SEVERAL = make_multilabel_classification(120, 8, n_classes=4, random_state=0)
COUNTS = DIABETES[0], np.floor(DIABETES[1] / 50)
BOTH = DIABETES[0], scale(np.stack([DIABETES[1], DIABETES[0][:, 2]], axis=1))


def _pair(kind: str, **parameters: Any) -> tuple[Any, Any]:
    module = linear_model if kind == "Perceptron" else neural_network
    return getattr(ours, kind)(**parameters, backend="numpy"), getattr(module, kind)(**parameters)


CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "adam": ("MLPClassifier", IRIS, {}),
    "short last batch": ("MLPClassifier", IRIS, {"batch_size": 37}),
    "two classes": ("MLPClassifier", CANCER, {"hidden_layer_sizes": (9, 5), "activation": "tanh"}),
    "labels of text": ("MLPClassifier", (IRIS[0], np.asarray(["c", "a", "b"])[IRIS[1]]), {"activation": "logistic"}),
    "several labels": ("MLPClassifier", SEVERAL, {"alpha": 0.1}),
    "sgd": ("MLPClassifier", IRIS, {"solver": "sgd", "learning_rate_init": 0.05}),
    "sgd without momentum": ("MLPClassifier", IRIS, {"solver": "sgd", "momentum": 0.0}),
    "heavy ball": ("MLPClassifier", IRIS, {"solver": "sgd", "nesterovs_momentum": False}),
    "inverse scaling": ("MLPClassifier", IRIS, {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2}),
    "adaptive": (
        "MLPClassifier", IRIS,
        {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 0.02, "n_iter_no_change": 2},
    ),
    "full batch": ("MLPClassifier", IRIS, {"solver": "sgd", "batch_size": 150, "learning_rate_init": 0.1}),
    "in order": ("MLPClassifier", IRIS, {"shuffle": False, "batch_size": 10}),
    "early stopping": ("MLPClassifier", CANCER, {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3}),
    "early stopping of three classes": ("MLPClassifier", IRIS, {"early_stopping": True, "max_iter": 40}),
    "several counts": ("MLPRegressor", (IRIS[0], np.stack([IRIS[1], IRIS[1] * 3, 2 - IRIS[1]], axis=1)), {"loss": "poisson"}),
    "values": ("MLPRegressor", (DIABETES[0], scale(DIABETES[1])), {}),
    "several values": ("MLPRegressor", BOTH, {"alpha": 0.5}),
    "counts": ("MLPRegressor", COUNTS, {"loss": "poisson"}),
    "early stopping of values": ("MLPRegressor", BOTH, {"early_stopping": True, "max_iter": 60}),
}  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_each_epoch_is_scikit_learns(name: str, weighted: bool) -> None:
    kind, (X, y), parameters = CASES[name]
    X = scale(X)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X)) if weighted else None
    mine, theirs = _pair(kind, **{"random_state": 3, "max_iter": 25, **parameters})
    for estimator in (mine, theirs):
        estimator.fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(mine.loss_curve_, theirs.loss_curve_, rtol=1e-6)
    assert mine.n_iter_ == theirs.n_iter_
    assert mine.t_ == theirs.t_
    assert mine.out_activation_ == theirs.out_activation_
    if parameters.get("early_stopping"):
        np.testing.assert_allclose(mine.validation_scores_, theirs.validation_scores_, rtol=1e-6)
        np.testing.assert_allclose(mine.best_validation_score_, theirs.best_validation_score_, rtol=1e-6)
    else:
        np.testing.assert_allclose(mine.best_loss_, theirs.best_loss_, rtol=1e-6)
    for a, b in zip([*mine.coefs_, *mine.intercepts_], [*theirs.coefs_, *theirs.intercepts_], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    method = "predict_proba" if kind == "MLPClassifier" else "predict"
    np.testing.assert_allclose(getattr(mine, method)(X), getattr(theirs, method)(X), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        mine.predict(X) if method != "predict" else 0, theirs.predict(X) if method != "predict" else 0
    )


@pytest.mark.parametrize("name", ["adam", "sgd", "inverse scaling", "values", "several labels"])
@pytest.mark.parametrize("way", ["warm", "partial"])
def test_continued_training_is_scikit_learns(name: str, way: str) -> None:
    kind, (X, y), parameters = CASES[name]
    X = scale(X)
    pair = _pair(
        kind, **{"random_state": np.random.RandomState(1), "max_iter": 5, "warm_start": way == "warm", **parameters}
    )
    for estimator in pair:
        estimator.random_state = 5
        for _ in range(4):
            if way == "warm":
                estimator.fit(X, y)
            else:
                classes = np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
                extra = {"classes": classes} if kind == "MLPClassifier" else {}
                estimator.partial_fit(X, y, **extra)
    np.testing.assert_allclose(pair[0].loss_curve_, pair[1].loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd", "inverse scaling"])
def test_partial_fits_of_any_size_are_scikit_learns(name: str) -> None:
    kind, (X, y), parameters = CASES[name]
    X = scale(X)
    pair = _pair(kind, **{"random_state": 5, **parameters})
    for estimator in pair:
        for count in (100, 100, 7, 1, 150, 150):
            estimator.partial_fit(X[-count:], y[-count:], classes=[0, 1, 2])
    np.testing.assert_allclose(pair[0].loss_curve_, pair[1].loss_curve_, rtol=1e-6)
    for estimator in pair:
        estimator.set_params(alpha=5.0).partial_fit(X, y).partial_fit(X, y)
    np.testing.assert_allclose(pair[0].loss_curve_, pair[1].loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("name", ["adam", "two classes", "values", "counts", "several counts", "several labels"])
def test_each_iteration_of_lbfgs_is_scikit_learns(name: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    curve: list[float] = []
    real = scipy.optimize.minimize

    def minimize(*arguments: Any, **named: Any) -> Any:
        return real(*arguments, callback=lambda intermediate_result: curve.append(intermediate_result.fun), **named)

    monkeypatch.setattr(scipy.optimize, "minimize", minimize)
    kind, (X, y), parameters = CASES[name]
    facts = {**parameters, "hidden_layer_sizes": (9,), "activation": activation, "solver": "lbfgs", "alpha": 0.1}
    mine, theirs = (e.fit(scale(X), y) for e in _pair(kind, **facts, random_state=0, max_iter=30))
    np.testing.assert_allclose(mine.loss_curve_, curve, rtol=1e-6)
    assert mine.n_iter_ == theirs.n_iter_


@pytest.mark.parametrize("data", [IRIS, CANCER, (CANCER[0], np.where(CANCER[1], "good", "bad"))])
@pytest.mark.parametrize("parameters", [{}, {"fit_intercept": False, "eta0": 0.3}, {"class_weight": "balanced"}])
def test_perceptrons_in_order_are_scikit_learns(data: Any, parameters: dict[str, Any]) -> None:
    X, y = scale(data[0]), data[1]
    mine, theirs = _pair("Perceptron", shuffle=False, tol=None, max_iter=7, **parameters)
    mine.fit(X, y), theirs.fit(X, y)
    np.testing.assert_allclose(mine.coef_, theirs.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mine.intercept_, theirs.intercept_, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))


def test_a_perceptrons_fit_of_one_epoch_starts_from_zero_and_warns() -> None:
    X, y = scale(IRIS[0]), IRIS[1]
    for perceptron in _pair("Perceptron", shuffle=False, max_iter=1):
        with pytest.warns(ConvergenceWarning, match="Maximum number"):
            first = perceptron.fit(X, y).coef_
        with pytest.warns(ConvergenceWarning, match="Maximum number"):
            np.testing.assert_array_equal(perceptron.fit(X, y).coef_, first)
