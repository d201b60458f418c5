"""Metrics: those of scikit-learn, a baseline that is the best constant, importances that find what a model uses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

pytest.importorskip("pyarrow")
sklearn_metrics = pytest.importorskip("sklearn.metrics")

from portablenn.tables import Preprocessor, Target  # noqa: E402
from portablenn.tables.columns import CategoricalColumn, NumericColumn  # noqa: E402
from portablenn.tables.linear import linear_network  # noqa: E402
from portablenn.tables.metrics import (  # noqa: E402
    MAX_PAIRS,
    compute_metrics,
    doubtful_columns,
    importances,
    measure,
    worse_than_constant,
)
from portablenn.tables.spill import EncodedPart  # noqa: E402

VALUES = Target("y", None, mean=1000.0, scale=10.0)
CLASSES = Target("y", ("7", "9", "12"), labels_are="integer")
COLUMNS = (NumericColumn("useless", 0.0, 1.0, False), NumericColumn("used", 0.0, 1.0, False))


def _model(target: Target, predict: Any, predict_proba: Any = None) -> Any:
    network = SimpleNamespace(
        predict=lambda rows: predict(getattr(rows, "cells", rows)),
        predict_proba=lambda rows: predict_proba(getattr(rows, "cells", rows)),
        model=SimpleNamespace(layers=()),
    )
    return SimpleNamespace(target=target, preprocessor=Preprocessor(COLUMNS, target), network=network)


def _part(cells: np.ndarray, targets: Any, columns: Any = COLUMNS) -> EncodedPart:
    return EncodedPart(Preprocessor(columns, VALUES), cells, np.asarray(targets))


def test_metrics_of_a_regression_are_in_the_units_of_the_target() -> None:
    cells = np.random.default_rng(0).normal(size=(700, 2)).astype(np.float32)
    part = _part(cells, cells[:, 1] + 0.5)
    model = _model(VALUES, lambda cells: cells[:, 1])
    result = measure(model, model.network, part, np.asarray([0.0, 0.2]))
    assert result["metrics"]["mean_absolute_error"] == pytest.approx(5.0)
    assert result["metrics"]["root_mean_squared_error"] == pytest.approx(5.0)
    true, constant = VALUES.decode(part.targets), np.full(700, 1001.0)
    assert result["metrics"]["r2"] == pytest.approx(sklearn_metrics.r2_score(true, true - 5.0))
    assert result["baseline"]["r2"] == pytest.approx(sklearn_metrics.r2_score(true, constant))
    assert len(result["predicted"]) == MAX_PAIRS
    np.testing.assert_allclose(np.subtract(*np.transpose(result["predicted"])), 5.0, rtol=1e-3)
    assert [result["predicted"][i][0] for i in (0, -1)] == pytest.approx([true[0], true[-1]], rel=1e-6)
    assert list(result["importances"]) == ["used", "useless"]
    assert result["importances"]["useless"] == pytest.approx(0.0, abs=1e-12)
    assert result["importances"]["used"] == pytest.approx(2.0, abs=0.3)


def test_metrics_of_a_classification_are_those_of_scikit_learn() -> None:
    targets = np.asarray([0, 0, 1, 2, 2, 2], dtype=np.int32)
    probabilities = np.asarray([[8, 1, 1], [1, 8, 1], [2, 6, 2], [1, 1, 8], [0, 0, 10], [5, 1, 4]]) / 10
    model = _model(CLASSES, lambda cells: probabilities.argmax(axis=1), lambda cells: probabilities)
    part = _part(np.zeros((6, 2), np.float32), targets)
    result = measure(model, model.network, part, np.asarray([0, 2, 2, 2]))
    true, predicted = CLASSES.labels[targets], CLASSES.labels[probabilities.argmax(axis=1)]
    assert result["metrics"] == {
        "accuracy": pytest.approx(4 / 6),
        "balanced_accuracy": pytest.approx(sklearn_metrics.balanced_accuracy_score(true, predicted)),
        "f1_macro": pytest.approx(sklearn_metrics.f1_score(true, predicted, average="macro")),
        "log_loss": pytest.approx(sklearn_metrics.log_loss(targets, probabilities)),
    }
    assert result["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert result["baseline"]["accuracy"] == pytest.approx(0.5)
    assert result["baseline"]["log_loss"] == pytest.approx(
        -(2 * math.log(2 / 7) + math.log(1 / 7) + 3 * math.log(4 / 7)) / 6
    )


def test_a_class_may_be_absent_from_the_training_rows() -> None:
    model = _model(CLASSES, lambda cells: np.asarray([0, 2]), lambda cells: np.eye(3)[[0, 2]])
    part = _part(np.zeros((2, 2), np.float32), [0, 2])
    baseline = measure(model, model.network, part, np.asarray([0, 0, 1, 1]))["baseline"]
    assert baseline["log_loss"] == pytest.approx(-(math.log(3 / 7) + math.log(1 / 7)) / 2)


def test_the_log_loss_of_float32_probabilities_is_computed_in_float64() -> None:
    probabilities = np.asarray([[0.1, 0.9], [0.3, 0.7]], dtype=np.float32)
    metrics = compute_metrics(
        _model(Target("y", ("a", "b")), None, lambda cells: probabilities), None, np.asarray([0, 1])
    )
    expected = -np.log(probabilities.astype(np.float64)[[0, 1], [0, 1]]).mean()
    assert metrics["log_loss"] == pytest.approx(expected, rel=1e-14)


def test_two_classes_have_a_roc_auc_where_both_occur() -> None:
    target, scores = Target("y", ("no", "yes")), np.asarray([0.1, 0.6, 0.4, 0.9])
    model = _model(target, None, lambda cells: np.stack([1 - scores, scores], axis=1))
    metrics = compute_metrics(model, None, np.asarray([0, 0, 1, 1]))
    assert metrics["roc_auc"] == 0.75
    assert "roc_auc" not in compute_metrics(model, None, np.asarray([1, 1, 1, 1]))


def test_importances_of_classes_are_falls_of_the_accuracy() -> None:
    cells = np.repeat(np.eye(2, dtype=np.float32), 500, axis=0)
    model = _model(Target("y", ("a", "b")), lambda cells: (cells[:, 1] > 0.5).astype(int))
    found = importances(model, _part(cells, np.repeat([0, 1], 500)))
    assert found == {"used": pytest.approx(0.5, abs=0.05), "useless": 0.0}
    assert found == importances(model, _part(cells, np.repeat([0, 1], 500)))


def test_importances_of_values_do_not_depend_on_their_scale() -> None:
    cells = np.random.default_rng(0).normal(size=(700, 2)).astype(np.float32)
    found, wide = (
        importances(_model(VALUES, lambda cells, k=k: k * cells[:, 1]), _part(cells, k * (cells[:, 1] + 0.5)))
        for k in (1.0, 8.0)
    )
    assert wide == pytest.approx(found, rel=1e-5)


def test_importances_need_two_rows_and_a_target_that_varies() -> None:
    model, cells = _model(VALUES, lambda cells: cells[:, 1]), np.ones((3, 2), np.float32)
    assert importances(model, _part(cells[:1], np.zeros(1))) == {}
    assert all(math.isnan(value) for value in importances(model, _part(cells, np.zeros(3))).values())


def test_one_row_has_no_r2() -> None:
    metrics = compute_metrics(_model(VALUES, lambda cells: np.zeros(1)), np.zeros((1, 2)), np.asarray([0.5]))
    assert math.isnan(metrics["r2"])
    assert metrics["mean_absolute_error"] == pytest.approx(5.0)


@pytest.mark.parametrize("target", [VALUES, CLASSES], ids=["values", "classes"])
@pytest.mark.parametrize("first", ["dense", "dense without bias", "normalized", "scaled", "scaled NTK"])
def test_importances_are_those_of_predicting_all_inputs_again(first: str, target: Target) -> None:
    random = np.random.default_rng(0)
    columns = (
        NumericColumn("a", 1.0, 2.0, missing=True),
        CategoricalColumn("c", ("p", "q"), missing=True),
        NumericColumn("b", 0.0, 1.0, missing=False),
    )
    layers = [pnn.Dense(8, "tanh", use_bias=first == "dense"), pnn.BatchNorm(), pnn.Dropout(0.3)]
    layers = [pnn.BatchNorm(), *layers] if first == "normalized" else layers
    layers = [pnn.Scale(6.0), *layers] if first == "scaled" else layers
    layers = [pnn.Scale(6.0), pnn.NTKDense(8, "mish"), pnn.NTKDense(8, "mish")] if first == "scaled NTK" else layers
    outputs = 1 if target.classes is None else 3
    loss = "squared_error" if target.classes is None else "softmax_cross_entropy"
    network = pnn.Network([*layers, pnn.Dense(outputs)], 6, loss, backend="numpy")
    cells = np.stack([random.normal(size=300), random.integers(-2, 2, 300), random.normal(size=300)], axis=1)
    cells[::7, 0] = np.nan
    values = np.nan_to_num(cells[:, 0]) + cells[:, 1]
    targets = np.digitize(values, (-1.0, 0.5)) if target.classes else values.astype(np.float32)
    network.fit(Preprocessor(columns, target).expand(cells.astype(np.float32)), targets, epochs=30)
    model = SimpleNamespace(target=target, preprocessor=Preprocessor(columns, target), network=network)
    part = _part(cells.astype(np.float32), targets)
    slow = SimpleNamespace(predict=network.predict, model=SimpleNamespace(layers=()))
    expected = importances(SimpleNamespace(**{**vars(model), "network": slow}), part)
    found = importances(model, part)
    assert set(found) == {"a", "b", "c"}
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(set(found.values())) == 3
    assert max(found.values()) > 0.1


def test_importances_of_many_columns_use_fewer_rows() -> None:
    columns = tuple(NumericColumn(f"x{i}", 0.0, 1.0, False) for i in range(2000))
    rows: set[int] = set()
    network = SimpleNamespace(predict=lambda x: rows.add(len(x)) or x[:, 0], model=SimpleNamespace(layers=()))
    model = SimpleNamespace(target=VALUES, preprocessor=Preprocessor(columns[:300], VALUES), network=network)
    cells = np.random.default_rng(0).normal(size=(2000, 300)).astype(np.float32)
    importances(model, _part(cells, cells[:, 0]))
    assert len(rows) == 1
    assert 0.95 * 400_000 / 300 < rows.pop() <= 400_000 / 300


DOUBTFUL: dict[str, tuple[Any, str]] = {
    "row numbers": (lambda y: np.arange(len(y)), "its values ascend from row to row"),
    "the target again": (lambda y: 3.0 - 2.0 * y, "it has the order of the target"),
    "a function of the target": (lambda y: np.exp(y), "it has the order of the target"),
    "something near the target": (lambda y: y + np.random.default_rng(1).normal(size=len(y)), ""),
    "two values": (lambda y: y > 0, ""),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_identifiers_and_what_gives_the_target_away_are_doubtful(name: str) -> None:
    values, expected = DOUBTFUL[name]
    y = np.random.default_rng(0).normal(size=400).astype(np.float32)
    part = _part(np.stack([np.asarray(values(y), np.float32), y[::-1]], axis=1), y)
    found = doubtful_columns(Preprocessor(COLUMNS, VALUES), part)
    assert list(found) == (["useless"] if expected else [])
    assert not expected or found["useless"].startswith(expected)


@pytest.mark.parametrize(
    ("metrics", "baseline", "expected"),
    [
        ({"root_mean_squared_error": 2.0}, {"root_mean_squared_error": 2.5}, ""),
        ({"root_mean_squared_error": 2.5}, {"root_mean_squared_error": 2.5}, "root mean squared error 2.5 against 2.5"),
        ({"accuracy": 0.5, "log_loss": 0.6}, {"accuracy": 0.5, "log_loss": 0.7}, ""),
        ({"accuracy": 0.6, "log_loss": 0.8}, {"accuracy": 0.5, "log_loss": 0.7}, ""),
        (
            {"accuracy": 0.5, "log_loss": 0.7},
            {"accuracy": 0.5, "log_loss": 0.7},
            "accuracy 0.5 against 0.5, log loss 0.7 ag",
        ),
        ({}, {}, ""),
    ],
)
def test_a_model_is_compared_with_a_constant(metrics: Any, baseline: Any, expected: str) -> None:
    found = worse_than_constant({"metrics": metrics, "baseline": baseline})
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_the_linear_network_is_scikit_learns_model() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    random = np.random.default_rng(0)
    cells = random.normal(size=(400, 2)).astype(np.float32)
    values = (cells @ [1.0, -2.0] + random.normal(size=400)).astype(np.float32)
    train, new = _part(cells[:300], values[:300]), cells[300:]
    expected = Ridge(alpha=1.0).fit(cells[:300], values[:300]).predict(new)
    np.testing.assert_allclose(linear_network(train, None, "numpy").predict(new), expected, rtol=1e-4, atol=1e-5)
    for edges, number, present in (((-1.0, 1.0), 5, [0, 2, 4]), ((0.5,), 4, [0, 2])):  # other classes do not occur
        classes = np.digitize(values, edges) * 2
        fitted = LogisticRegression(max_iter=200).fit(cells[:300], classes[:300])
        network = linear_network(_part(cells[:300], classes[:300]), number, "numpy")
        found = np.asarray(network.predict_proba(new))
        np.testing.assert_allclose(found[:, present], fitted.predict_proba(new), atol=1e-4)
        assert np.delete(found, present, axis=1).max() < 1e-8
    assert linear_network(_part(cells[:2], [3, 3]), 5, "numpy").predict(new).tolist() == [3] * 100


def test_the_linear_model_is_measured_beside() -> None:
    random = np.random.default_rng(0)
    cells = random.normal(size=(500, 2)).astype(np.float32)
    part = _part(cells, cells[:, 1])
    result = measure(_model(VALUES, lambda cells: cells[:, 0]), linear_network(part, None, "numpy"), part, part.targets)
    assert result["linear"]["r2"] == pytest.approx(1.0, abs=1e-3)
    assert set(result["linear"]) == set(result["metrics"])
