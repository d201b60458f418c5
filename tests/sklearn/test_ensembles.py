"""Ensembles as estimators: their members, what they predict together, and how sure they are of it."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator

from portablenn.sklearn import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
NET = MLPClassifier((6,), max_iter=30, learning_rate_init=0.01)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_members_are_the_estimators_that_they_would_be_alone(bootstrap: bool) -> None:
    ensemble = MLPEnsembleClassifier(NET, 4, bootstrap=bootstrap, random_state=0).fit(X, Y)
    random_state = np.random.RandomState(0)
    seeds = random_state.randint(np.iinfo(np.int32).max, size=4)
    for seed, member in zip(seeds, ensemble.estimators_, strict=True):
        rows = np.sort(random_state.randint(150, size=150)) if bootstrap else np.arange(150)
        one = clone(NET).set_params(random_state=int(seed)).fit(X[rows], Y[rows])
        np.testing.assert_allclose(member.coefs_[0], one.coefs_[0], rtol=0, atol=1e-12)
    mean = np.mean([member.predict_proba(X) for member in ensemble.estimators_], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), mean, rtol=1e-12)
    np.testing.assert_array_equal(ensemble.predict(X), mean.argmax(axis=1))
    assert NET.random_state is None


@pytest.mark.parametrize(
    "y",
    [
        np.asarray(["no", "yes"])[(Y > 0).astype(int)],
        np.stack([Y > 0, Y == 1], 1).astype(int),
        np.eye(2, dtype=int)[(Y > 0).astype(int)],
    ],
)
def test_two_classes_and_several_labels(y: Any) -> None:
    ensemble = MLPEnsembleClassifier(NET, 3, random_state=0).fit(X, y)
    assert (ensemble.predict(X).shape, ensemble.predict(X).dtype) == (y.shape, y.dtype)
    assert ensemble.score(X, y) > 0.6
    assert ensemble.predict_proba(X).shape == (150, 2)


def test_losses_without_probabilities_have_none() -> None:
    ensemble = MLPEnsembleClassifier(clone(NET).set_params(loss="hinge"), 3, random_state=0).fit(X, Y > 0)
    assert not hasattr(ensemble, "predict_proba")
    assert ensemble.score(X, Y > 0) > 0.9


def test_results_are_where_the_rows_are(other_library: Any) -> None:
    x, y = other_library.array(X), other_library.array(Y)
    ensemble = MLPEnsembleClassifier(clone(NET).set_params(max_iter=3), 3, random_state=0).fit(x, y)
    on_numpy = MLPEnsembleClassifier(clone(NET).set_params(max_iter=3), 3, random_state=0).fit(X, Y)
    assert type(ensemble.predict_proba(x)) is type(x)
    np.testing.assert_allclose(other_library.numpy(ensemble.predict_proba(x)), on_numpy.predict_proba(X), rtol=1e-9)


def _sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (count, 2))
    return x, np.sin(2 * x[:, 0]) + x[:, 1] + rng.normal(0, 0.3, count)


def test_intervals_hold_as_many_new_targets_as_they_say() -> None:
    net = MLPRegressor(hidden_layer_sizes=(20,), max_iter=150, learning_rate_init=0.02)
    ensemble = MLPEnsembleRegressor(net, 20, random_state=0).fit(*_sample(300, 0))
    x, y = _sample(2000, 1)
    mean, deviation = ensemble.predict(x, return_std=True)
    np.testing.assert_array_equal(mean, ensemble.predict(x))
    inside = np.abs(y - mean) < 1.645 * deviation
    assert 0.86 < inside.mean() < 0.94
    assert 0.25 < ensemble.noise_ < 0.4
    spread = np.std([member.predict(x) for member in ensemble.estimators_], axis=0)
    np.testing.assert_allclose(deviation**2, spread**2 * 21 / 19 + ensemble.noise_**2, rtol=1e-9)
    assert (np.abs(y - mean) < 1.645 * spread).mean() < 0.6  # the spread alone is not enough


def test_rows_of_weight_zero_say_nothing_of_the_noise() -> None:
    x, y = _sample(200, 0)
    y[:50] += 100.0
    weights = np.r_[np.zeros(50), np.ones(150)]
    net = MLPRegressor(hidden_layer_sizes=(10,), max_iter=80, learning_rate_init=0.02)
    assert MLPEnsembleRegressor(net, 10, random_state=0).fit(x, y, weights).noise_ < 2.0


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_deviation_is_that_of_new_targets_whatever_the_number_of_members(count: int) -> None:
    """Members whose errors are drawn: the variance of a new target around their mean is spread · (1 + 1 / members) + noise."""
    rng, rows, seen = np.random.default_rng(0), 4000, 200_000
    drawn = [np.flatnonzero(rng.random(rows) < 0.5) for _ in range(count)]
    each, y = rng.normal(0, 0.8, (count, rows)), rng.normal(0, 1.0, rows)
    ensemble = SimpleNamespace(predict_members=lambda _: each)
    fitted = {"estimators_": [MLPRegressor(max_iter=1).fit(np.zeros((2, 1)), [0.0, 1.0])], "_ensemble": ensemble}
    noise = MLPEnsembleRegressor._noise(fitted, drawn, np.zeros((rows, 1)), y, None)
    new = rng.normal(0, 0.8, (count, seen))
    truth = np.mean((rng.normal(0, 1.0, seen) - new.mean(axis=0)) ** 2)
    said = np.mean(new.var(axis=0)) * (count + 1) / (count - 1) + noise**2
    assert abs(said / truth - 1) < 0.06


def test_weights_count_as_often_in_the_noise() -> None:
    x, y = _sample(200, 0)
    y[:100] += np.random.default_rng(1).normal(0, 3.0, 100)
    net = MLPRegressor(hidden_layer_sizes=(10,), max_iter=80, learning_rate_init=0.02, random_state=0)
    noises = [
        MLPEnsembleRegressor(net, 10, random_state=0).fit(x, y, np.repeat(weights, 100)).noise_
        for weights in ((1.0, 0.05), (0.05, 1.0))
    ]
    assert noises[0] > 2 * noises[1]


def test_members_are_new_in_each_fit_and_so_is_the_noise() -> None:
    net = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, warm_start=True)
    ensemble = MLPEnsembleRegressor(net, 3, random_state=0).fit(X, X[:, 0])
    assert [member.warm_start for member in ensemble.estimators_] == [False] * 3
    assert ensemble.noise_ is not None
    assert ensemble.set_params(bootstrap=False).fit(X, X[:, 0]).noise_ is None
    single = MLPEnsembleRegressor(net, 1, random_state=0).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="increase n_estimators"):
        single.predict(X, return_std=True)


def test_rows_are_drawn_until_one_counts() -> None:
    weights = np.zeros(150)
    weights[7] = 1.0
    ensemble = MLPEnsembleClassifier(clone(NET).set_params(max_iter=1), 6, random_state=0).fit(X, Y, weights)
    assert all(member.loss_ > 0 for member in ensemble.estimators_)


def test_numbers_of_single_precision_stay_so() -> None:
    x = X.astype("f4")
    ensemble = MLPEnsembleRegressor(MLPRegressor(max_iter=2), 3, random_state=0).fit(x, x[:, 0])
    assert [a.dtype for a in ensemble.predict(x, return_std=True)] == ["float32", "float32"]


def test_several_values_have_a_noise_each() -> None:
    y = np.stack([X[:, 0], 10 * X[:, 1] ** 2], axis=1)
    net = MLPRegressor(hidden_layer_sizes=(6,), max_iter=20)
    ensemble = MLPEnsembleRegressor(net, 6, random_state=0).fit(X, y)
    mean, deviation = ensemble.predict(X, return_std=True)
    assert (mean.shape, deviation.shape, ensemble.noise_.shape) == ((150, 2), (150, 2), (2,))


def test_a_deviation_needs_rows_that_members_have_not_seen() -> None:
    ensemble = MLPEnsembleRegressor(MLPRegressor(max_iter=2), 2, bootstrap=False).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="set bootstrap=True and fit again"):
        ensemble.predict(X, return_std=True)


def test_wrong_members_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'estimator' parameter of MLPEnsembleClassifier must be .*MLPClassifier"):
        MLPEnsembleClassifier(MLPRegressor()).fit(X, Y)
    with pytest.raises(ValueError, match="n_estimators"):
        MLPEnsembleClassifier(NET, 0).fit(X, Y)
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        MLPEnsembleClassifier(MLPClassifier((0,))).fit(X, Y)
    with pytest.raises(AttributeError, match="fit it first"):
        MLPEnsembleClassifier(NET).ensemble_  # noqa: B018


def test_an_error_leaves_the_ensemble_as_it_was() -> None:
    ensemble = MLPEnsembleClassifier(NET, 2, random_state=0).fit(X, Y)
    before, members = ensemble.predict_proba(X), ensemble.estimators_
    with pytest.raises(ValueError, match="NaN"):
        ensemble.fit(np.full_like(X, np.nan), Y)
    assert ensemble.estimators_ is members
    np.testing.assert_array_equal(ensemble.predict_proba(X), before)


def test_an_ensemble_is_pickled() -> None:
    ensemble = MLPEnsembleClassifier(NET, 2, random_state=0).fit(X, Y)
    again = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(again.predict_proba(X), ensemble.predict_proba(X))
    assert len(again.ensemble_) == 2


ONLINE = {"check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"}
"""A row of weight 0 takes a place in the order of steps and among the rows that are drawn."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "ensemble",
    [
        MLPEnsembleClassifier(MLPClassifier(max_iter=60), 3),
        MLPEnsembleRegressor(MLPRegressor(max_iter=100, learning_rate_init=0.01), 3),
    ],
)
def test_scikit_learns_checks_hold(ensemble: Any) -> None:
    failed = [r for r in check_estimator(ensemble, on_fail=None) if r["status"] == "failed"]
    assert {r["check_name"] for r in failed if "cudaError" not in str(r["exception"])} == ONLINE
