"""Metrics: how well a model predicts rows that it was not trained on, and which columns that depends on."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .spill import EncodedPart

MAX_PAIRS = 500
"""Maximum number of true and predicted values that are kept for a picture."""

IMPORTANCE_ROWS = 2000
"""Maximum number of rows that importances are computed from."""

IMPORTANCE_REPEATS = 3


def measure(model: Any, part: EncodedPart, train_targets: np.ndarray) -> dict[str, Any]:
    """Return the measurements of a `TableModel` on a part of the rows, as values for JSON.

    "metrics" and "baseline" are {name: value}; the baseline predicts the mean or most frequent class of ``train_targets``,
    encoded, (rows,). "confusion" counts rows by true and predicted class; a regression has "predicted", pairs of true and
    predicted values, instead. "importances": see `importances`.
    """
    compare = _compare_values if model.target.classes is None else _compare_classes
    return {
        "metrics": compute_metrics(model, part, part.targets),
        **compare(model, part, train_targets),
        "importances": importances(model, part),
    }


def _compare_values(model: Any, part: EncodedPart, train_targets: np.ndarray) -> dict[str, Any]:
    target = model.target
    true, predicted = target.unscale(part.targets), target.unscale(model.network.predict(part))
    shown = np.unique(np.linspace(0, len(true) - 1, MAX_PAIRS).astype(int))
    pairs = [[float(f"{a:.7g}"), float(f"{b:.7g}")] for a, b in zip(true[shown], predicted[shown])]
    constant = np.full(len(true), float(np.mean(target.unscale(train_targets))))
    return {"predicted": pairs, "baseline": _regression_metrics(true, constant)}


def _compare_classes(model: Any, part: EncodedPart, train_targets: np.ndarray) -> dict[str, Any]:
    from sklearn import metrics

    classes, true = len(model.target.classes), part.targets
    confusion = metrics.confusion_matrix(true, np.asarray(model.network.predict(part)), labels=range(classes))
    counts = np.bincount(train_targets, minlength=classes)
    counts = counts if counts.all() else counts + 1  # a probability of 0 would make the model look good
    frequencies = counts / counts.sum()
    constant = np.full(len(true), frequencies.argmax())
    baseline = {**_classification_metrics(true, constant), "log_loss": _log_loss(frequencies[true])}
    return {"confusion": confusion.tolist(), "baseline": baseline}


def compute_metrics(model: Any, rows: Any, targets: np.ndarray) -> dict[str, float]:
    """Return {name: value} of a model's metrics for ``rows``, an array of inputs or `Blocks`, and their encoded targets."""
    from sklearn import metrics

    target = model.target
    if target.classes is None:
        return _regression_metrics(target.unscale(targets), target.unscale(model.network.predict(rows)))
    probabilities = np.asarray(model.network.predict_proba(rows), dtype=np.float64)
    values = _classification_metrics(targets, probabilities.argmax(axis=1))
    of_true = probabilities[np.arange(len(targets)), targets]
    values["log_loss"] = _log_loss(np.where(targets == -1, 0.0, of_true))  # -1: a class that the model does not know
    if len(target.classes) == 2 and set(targets.tolist()) == {0, 1}:
        values["roc_auc"] = float(metrics.roc_auc_score(targets, probabilities[:, 1]))
    return values


def _log_loss(probabilities: np.ndarray) -> float:
    """Return the mean negative logarithm of the true classes' probabilities, (rows,)."""
    return float(-np.mean(np.log(np.clip(probabilities, 1e-15, 1.0))))


def importances(model: Any, part: EncodedPart, seed: int = 0) -> dict[str, float]:
    """Return {column: permutation importance}, largest first: the fall of accuracy or R² when its cells are shuffled.

    Values are NaN where R² is undefined, for constant targets. See Breiman (2001), "Random forests".
    """
    preprocessor = model.preprocessor
    cells, targets = part.cells[:IMPORTANCE_ROWS], part.targets[:IMPORTANCE_ROWS]
    if len(targets) < 2:
        return {}
    generator = np.random.default_rng(seed)

    def score(cells: np.ndarray) -> float:
        predicted = np.asarray(model.network.predict(preprocessor.expand(cells)))
        if model.target.classes is not None:
            return float(np.mean(predicted == targets))
        variance = float(np.var(targets))
        return 1.0 - float(np.mean((predicted - targets) ** 2)) / variance if variance else math.nan

    unshuffled, falls = score(cells), {}
    for i, column in enumerate(preprocessor.columns):
        shuffled, scores = cells.copy(), []
        for _ in range(IMPORTANCE_REPEATS):
            shuffled[:, i] = generator.permutation(cells[:, i])
            scores.append(score(shuffled))
        falls[column.name] = unshuffled - float(np.mean(scores))
    return dict(sorted(falls.items(), key=lambda pair: -pair[1]))


def _regression_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    return {
        "r2": float(metrics.r2_score(true, predicted)) if len(true) > 1 else math.nan,
        "mean_absolute_error": float(metrics.mean_absolute_error(true, predicted)),
        "root_mean_squared_error": float(metrics.root_mean_squared_error(true, predicted)),
    }


def _classification_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that do not occur in these rows
        return {
            "accuracy": float(metrics.accuracy_score(true, predicted)),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(true, predicted)),
            "f1_macro": float(metrics.f1_score(true, predicted, average="macro", zero_division=0.0)),
        }
