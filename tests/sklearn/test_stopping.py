"""The stopping rules, fed with losses and scores."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from portablenn.nn.optimizers import SGD, Adam
from portablenn.sklearn.inputs import Samples
from portablenn.sklearn.stopping import LBFGSStopping, LinearStopping, StochasticStopping

HELD_OUT = Samples(np.eye(2), np.asarray([0, 1]), None)


def _estimator(scores: list[float] | None = None, **changed: Any) -> Any:
    left = iter(scores or [])
    facts = {
        "n_iter_": 0, "t_": 0, "loss_curve_": [], "best_loss_": np.inf, "best_validation_score_": -np.inf, "validation_scores_": [],
        "_no_improvement_count": 0, "_converged": False, "tol": 0.25, "n_iter_no_change": 2, "verbose": False, "solver": "sgd",
        "learning_rate": "constant", "_validation_score": lambda *_: next(left), "_scored": "forward",
        "early_stopping": scores is not None,
    }  # fmt: skip
    return SimpleNamespace(**(facts | changed))


def _epochs(rule: Any, losses: list[float], optimizer: Any = None) -> tuple[int | None, Any]:
    """Return the epoch that the rule stops at, and the network, whose state is the number of the epoch."""
    network = SimpleNamespace(state=0, optimizer=optimizer or SGD(0.5), _predict=lambda *_: np.zeros(2))
    for epoch, loss in enumerate(losses, 1):
        network.state = epoch
        if rule.on_epoch_end(network, epoch, {"loss": loss}):
            return epoch, network
    return None, network


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([2.0, 1.75, 1.5, 1.25, 1.0], None),  # each exactly tol below the best
        ([2.0, 1.875, 1.75, 1.625], 4),  # each less than tol below, three times
        ([2.0, 1.875, 1.75, 1.25, 1.125, 1.0], None),  # twice, an improvement, twice
        ([2.0, 3.0, 1.75, 1.75, 1.75, 1.75], 6),  # the best counts, not the one before
    ],
)
def test_training_stops_after_epochs_without_improvement_of_the_loss(losses: list[float], stops: int | None) -> None:
    e = _estimator()
    stopped, _ = _epochs(StochasticStopping(e, None, 7), losses)
    assert (stopped, e._converged) == (stops, stops is not None)
    assert (e.n_iter_, e.t_, e.loss_, e.loss_curve_) == (len(losses), 7 * len(losses), losses[-1], losses)
    assert e.best_loss_ == min(losses)
    assert e.validation_scores_ == []


@pytest.mark.parametrize(
    ("scores", "stops", "best"),
    [
        ([0.25, 0.5, 0.75, 1.0], None, 4),  # each exactly tol above the best
        ([0.5, 0.625, 0.625, 0.5], 4, 2),  # the best state is the first with the best score
        ([0.5, 0.25, 0.25, 0.75, 0.75, 0.75], None, 4),
    ],
)
def test_training_stops_after_epochs_without_improvement_of_the_score(
    scores: list[float], stops: int | None, best: int
) -> None:
    e = _estimator(scores)
    rule = StochasticStopping(e, HELD_OUT, 7)
    assert _epochs(rule, [1.0] * len(scores))[0] == stops
    assert (rule.best, e.best_validation_score_, e.validation_scores_) == (best, max(scores), scores)
    assert e.best_loss_ == np.inf


def test_an_adaptive_rate_is_divided_by_five_until_it_is_too_small(capsys: pytest.CaptureFixture[str]) -> None:
    e = _estimator(learning_rate="adaptive", verbose=True, n_iter_no_change=1)
    stopped, network = _epochs(StochasticStopping(e, None, 1), [1.0] * 9, SGD(4e-6))
    assert (stopped, network.optimizer) == (5, replace(SGD(4e-6), learning_rate=4e-6 / 5.0))
    lines = capsys.readouterr().out.splitlines()
    message = "Training loss did not improve more than tol=0.250000 for 1 consecutive epochs."
    assert lines[2:4] == ["Iteration 3, loss = 1.00000000", f"{message} Setting learning rate to 0.000001"]
    assert lines[-1] == f"{message} Learning rate too small. Stopping."
    assert _epochs(StochasticStopping(_estimator(learning_rate="adaptive"), None, 1), [1.0] * 9, SGD(1e-6))[0] == 4


def test_the_rate_of_adam_is_never_adapted(capsys: pytest.CaptureFixture[str]) -> None:
    e = _estimator([1.0] * 9, learning_rate="adaptive", solver="adam", verbose=True)
    stopped, network = _epochs(StochasticStopping(e, HELD_OUT, 1), [1.0] * 9, Adam(0.5))
    assert (stopped, network.optimizer) == (4, Adam(0.5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Validation score: 1.000000"
    assert lines[-1] == "Validation score did not improve more than tol=0.250000 for 2 consecutive epochs. Stopping."


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([1.0, 1.0 - 1e-8, 1.0 - 2e-8], None),
        ([1.0, 1.0 - 1e-9], 2),
        ([100.0, 100.0 - 1e-7], 2),  # relative above 1
        ([0.01, 0.01 - 1e-9], 2),  # absolute below
        ([-100.0, -100.0 - 1e-7], 2),
        ([2.220446049250313e-09, 0.0], 2),
        ([1.0, 0.5, 0.5], 3),
        ([1.0, 2.0], 2),
    ],
)
def test_lbfgs_stops_where_the_loss_stops_decreasing(
    losses: list[float], stops: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _epochs(LBFGSStopping(False), losses)[0] == stops
    assert capsys.readouterr().out == ""
    _epochs(LBFGSStopping(True), [0.5])
    assert capsys.readouterr().out == "Iteration 1, loss = 0.50000000\n"


@pytest.mark.parametrize(
    ("tol", "losses", "stops"),
    [
        (0.25, [8.0, 6.0, 4.0, 2.0], None),  # 8 rows: each exactly 8 tol below the best
        (0.25, [8.0, 7.0, 6.0], 3),
        (0.25, [8.0, 7.0, 5.0, 4.0, 4.0], 5),  # the second improves on the best, but not enough
        (0.0, [8.0, 8.0, 8.0, 8.0], None),
        (0.0, [8.0, 9.0, 9.0], 3),
        (None, [8.0, 9.0, 10.0, 11.0], None),
    ],
)
def test_a_perceptron_stops_after_epochs_without_improvement_of_the_loss(
    tol: float | None, losses: list[float], stops: int | None
) -> None:
    rule = LinearStopping(_estimator(tol=tol), None, 8)
    assert _epochs(rule, losses)[0] == stops
    assert (rule.epochs, rule.converged) == (len(losses), stops is not None)


def test_a_perceptron_stops_by_the_weighted_accuracy_of_held_out_rows(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = iter([["a", "a"], ["b", "a"], ["a", "b"], ["b", "a"], ["b", "a"]])
    labels = SimpleNamespace(classes=np.asarray(["a", "b"]))
    e = _estimator(_labels=labels, _predict=lambda _: np.asarray(next(guesses)), verbose=1)
    rule = LinearStopping(e, HELD_OUT._replace(weights=np.asarray([3.0, 1.0])), 4)
    assert _epochs(rule, [2.0] * 5)[0] == 5
    assert rule.best == 1.0
    assert capsys.readouterr().out.startswith("-- Epoch 1\nAvg. loss: 0.500000\n-- Epoch 2\n")
    first = LinearStopping(e, HELD_OUT._replace(weights=np.asarray([3.0, 1.0])), 4)
    e._predict = lambda _: np.asarray(["a", "a"])
    _epochs(first, [2.0])
    assert first.best == 0.75


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_perceptron_whose_loss_is_not_finite_raises(loss: float) -> None:
    with pytest.raises(ValueError, match="occurred at epoch #2"):
        _epochs(LinearStopping(_estimator(), None, 8), [1.0, loss])
