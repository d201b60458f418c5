"""Estimators that are fitted together are those that they would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import portablenn as pnn
from portablenn.callbacks import Callback
from portablenn.sklearn import MLPClassifier, MLPRegressor
from portablenn.sklearn.together import Job, fit_together

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
VALUES = scale(load_diabetes().target)
ROWS = scale(load_diabetes().data)
SAME = (
    "n_iter_",
    "t_",
    "n_layers_",
    "n_outputs_",
    "n_features_in_",
    "out_activation_",
    "backend_",
    "_no_improvement_count",
)


def check(estimators: Any, data: Any, weights: Any = None, atol: float = 1e-10) -> list[Any]:
    """Fit estimators together and alone, on each of some X and y; return those fitted together."""
    jobs = [Job(clone(e), x, y, weights) for e in estimators for x, y in data]
    assert fit_together(jobs) == [None] * len(jobs)
    for job in jobs:
        one = clone(job.estimator).fit(job.X, job.y, sample_weight=job.sample_weight)
        assert vars(job.estimator).keys() == vars(one).keys()
        for a, b in zip(job.estimator.coefs_ + job.estimator.intercepts_, one.coefs_ + one.intercepts_, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)
        for name in SAME:
            assert getattr(job.estimator, name) == getattr(one, name), name
        for name in ("loss_curve_", "best_loss_", "loss_", "validation_scores_", "best_validation_score_"):
            if getattr(one, name, None) is not None:
                np.testing.assert_allclose(getattr(job.estimator, name), getattr(one, name), rtol=1e-9)
        np.testing.assert_allclose(job.estimator.predict(job.X), one.predict(job.X), rtol=1e-9)
    return [job.estimator for job in jobs]


FOLDS = [(X[::2], Y[::2]), (X[25:], Y[25:]), (X[:90], Y[:90])]  # the last one has two classes only


@pytest.mark.parametrize("early_stopping", [False, True])
def test_classifiers(early_stopping: bool) -> None:
    common = {"max_iter": 25, "early_stopping": early_stopping, "n_iter_no_change": 3, "tol": 1e-2}
    nets = [
        MLPClassifier((8,), alpha=alpha, learning_rate_init=rate, random_state=k, solver=solver, **common)
        for k, (alpha, rate) in enumerate(((1e-4, 0.01), (1.0, 0.03), (0.1, 0.3)))
        for solver in ("adam", "sgd")
    ]
    nets += [
        MLPClassifier((6, 5), random_state=1, batch_norm=True, dropout=0.3, **common),
        MLPClassifier((6, 5), random_state=2, batch_norm=True, dropout=0.3, **common),
        MLPClassifier((8,), random_state=2, shuffle=False, batch_size=16, **common),
        MLPClassifier((8,), random_state=2, solver="sgd", learning_rate="invscaling", power_t=0.2, **common),
        MLPClassifier((8,), random_state=2, solver="sgd", learning_rate="adaptive", **common),
        MLPClassifier((8,), random_state=2, solver="lbfgs", max_iter=5),
        MLPClassifier((8,), random_state=2, class_weight="balanced", **common),
    ]
    fitted = check(nets, FOLDS)
    lengths = {e.n_iter_ for e in fitted[:18]}
    assert len(lengths) > 2  # some were stopped before others


@pytest.mark.parametrize("early_stopping", [False, True])
def test_regressors_of_one_and_several_values(early_stopping: bool) -> None:
    common = {"max_iter": 12, "early_stopping": early_stopping, "n_iter_no_change": 2}
    nets = [
        MLPRegressor(hidden_layer_sizes=(6,), alpha=a, random_state=k, **common) for k, a in enumerate((0.0, 0.1, 3.0))
    ]
    nets.append(MLPRegressor("huber", (6,), random_state=0, **common))
    several = np.stack([VALUES, VALUES**2], axis=1)
    check(nets, [(ROWS[:300], VALUES[:300]), (ROWS[100:400], VALUES[100:400]), (ROWS[:300], several[:300])])


def test_weights_of_rows_and_several_labels() -> None:
    labels = np.stack([Y > 0, Y == 1], axis=1).astype(int)
    nets = [MLPClassifier((6,), random_state=k, max_iter=10) for k in range(3)]
    check(nets, [(X, labels), (X, Y)], np.linspace(0.0, 2.0, len(X)))


def test_other_libraries(other_library: Any) -> None:
    nets = [MLPClassifier((6,), alpha=a, random_state=0, max_iter=4, early_stopping=True) for a in (0.1, 1.0)]
    x, y = (other_library.array(a) for a in (X, Y))
    jobs = [Job(clone(e), x, y) for e in nets]
    assert fit_together(jobs) == [None, None]
    for job in jobs:
        one = clone(job.estimator).fit(x, y)
        assert job.estimator.backend_ == one.backend_
        for a, b in zip(job.estimator.coefs_, one.coefs_, strict=True):
            np.testing.assert_allclose(other_library.numpy(a), other_library.numpy(b), rtol=0, atol=1e-12)
        assert type(job.estimator.predict(x)) is type(one.predict(x))


def test_rows_may_be_chosen_for_each() -> None:
    rows = [np.random.default_rng(k).integers(0, 150, 120) for k in range(3)]
    jobs = [Job(MLPClassifier((6,), random_state=k, max_iter=6), X, Y, rows=rows[k]) for k in range(3)]
    jobs.append(Job(MLPClassifier((6,), random_state=3, max_iter=6, solver="lbfgs"), X, Y, rows=rows[0]))
    assert fit_together(jobs) == [None] * 4
    for job in jobs:
        one = clone(job.estimator).fit(X[job.rows], Y[job.rows])
        np.testing.assert_allclose(job.estimator.coefs_[0], one.coefs_[0], rtol=0, atol=1e-10)


def test_many_estimators_are_few_programs(program_sizes: list[int]) -> None:
    jobs = [
        Job(MLPClassifier((4,), alpha=10.0**-k, max_iter=2), x, y)
        for k in range(6)
        for x, y in ((X, Y), (X[::-1], Y[::-1]))
    ]
    fit_together(jobs)
    assert program_sizes == [12]


def test_errors_are_those_of_the_estimators_and_do_not_keep_others_from_being_fitted() -> None:
    wrong = [
        Job(MLPClassifier((-1,)), X, Y),
        Job(MLPClassifier(alpha="much"), X, Y),
        Job(MLPClassifier(), np.full((150, 4), np.nan), Y),
        Job(MLPClassifier(loss="huber"), X, Y),
        Job(MLPRegressor(), X, np.asarray(["a"] * 150)),
        Job(MLPClassifier(early_stopping=True, validation_fraction=0.001), X, Y),
        Job(MLPRegressor(solver="sgd", learning_rate_init=1e200, max_iter=3), X, Y),
    ]
    right = Job(MLPClassifier((6,), random_state=0, max_iter=5), X, Y)
    *errors, none = fit_together([*wrong, right])
    assert none is None
    for job, error in zip(wrong, errors, strict=True):
        with pytest.raises((ValueError, TypeError)) as alone:
            clone(job.estimator).fit(job.X, job.y)
        assert (type(error), str(error)) == (alone.type, str(alone.value))
    np.testing.assert_allclose(
        right.estimator.coefs_[0], clone(right.estimator).fit(X, Y).coefs_[0], rtol=0, atol=1e-12
    )


def test_what_cannot_be_joined_is_fitted_alone() -> None:
    class Count(Callback):
        epochs = 0

        def on_epoch_end(self, network: Any, epoch: int, logs: Any) -> None:
            Count.epochs += 1

    jobs = [
        Job(MLPClassifier((4,), max_iter=3, random_state=0), sp.csr_array(X), Y),
        Job(MLPClassifier((4,), max_iter=3, random_state=0, callbacks=[Count()]), X, Y),
    ]
    assert fit_together(jobs) == [None, None]
    assert Count.epochs == 3
    np.testing.assert_allclose(jobs[0].estimator.coefs_[0], jobs[1].estimator.coefs_[0], rtol=0, atol=1e-12)


def test_members_without_a_random_state_follow_numpys_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fitted() -> list[Any]:
        np.random.seed(0)
        nets = [MLPClassifier((size,), max_iter=4, batch_size=20) for size in (4, 5, 6, 7)]
        assert fit_together([Job(net, X, Y) for net in nets]) == [None] * 4
        return [net.coefs_[0] for net in nets]

    threads = pnn.get_threads()
    pnn.set_threads(2)
    try:
        runs = [fitted() for _ in range(4)]
    finally:
        pnn.set_threads(threads)
    for run in runs[1:]:
        for a, b in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_network_whose_score_never_was_finite_keeps_its_last_weights() -> None:
    net = MLPRegressor(
        hidden_layer_sizes=(5,), solver="sgd", learning_rate_init=1e200, early_stopping=True, max_iter=3, batch_size=300,
        random_state=0,
    )  # fmt: skip
    (error,) = fit_together([Job(net, ROWS, VALUES)])
    assert "non-finite parameter weights" in str(error)


def test_each_that_has_not_converged_warns() -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\)") as caught:
        fit_together([Job(MLPClassifier((4,), max_iter=2), X, Y) for _ in range(3)])
    assert len(caught) == 3
