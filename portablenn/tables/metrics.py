"""How well a model of a table predicts rows that it was not trained on, and which columns that rests on.

Requires scikit-learn, whose metrics they are.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .preprocessing import Prepared

SHOWN = 500
"""Rows of a regression that are kept for a picture."""

TRIED = 2000
"""Rows that importances are measured with."""

REPEATS = 3


def measured(model: Any, rows: Prepared, trained_on: np.ndarray) -> dict[str, Any]:
    """Metrics of some rows, those of always saying the same, and what the pictures of a report show.

    Parameters
    ----------
    model
        A `TableModel`.
    rows
        To be predicted.
    trained_on
        The targets that it was trained on, encoded.

    Returns
    -------
    dict
        "metrics", "baseline"; "confusion" (true classes by predicted ones) or "predicted" (pairs of truth and prediction);
        "importances", {column: by how much the accuracy or R² falls when its cells change places}.
    """
    from sklearn import metrics

    target, found = model.target, {}
    if target.classes is None:
        truth, values = target.decoded(rows.targets), target.decoded(model.network.predict(rows))
        same = np.full(len(truth), float(np.mean(target.decoded(trained_on))))
        some = np.unique(np.linspace(0, len(truth) - 1, SHOWN).astype(int))
        pairs = [[float(f"{a:.7g}"), float(f"{b:.7g}")] for a, b in zip(truth[some], values[some])]
        found = {"predicted": pairs, "baseline": _of_values(truth, same)}
    else:
        truth, codes = target.labels[rows.targets], np.asarray(model.network.predict(rows))
        commonest = np.bincount(trained_on, minlength=len(target.classes)).argmax()
        same = np.full(len(truth), target.labels[commonest])
        confusion = metrics.confusion_matrix(rows.targets, codes, labels=range(len(target.classes)))
        shares = np.bincount(trained_on, minlength=len(target.classes)) / len(trained_on)
        unsure = float(-np.mean(np.log(np.clip(shares[rows.targets], 1e-15, 1.0))))
        baseline = {**_of_classes(truth, same), "log_loss": unsure}  # of always telling how frequent each class is
        found = {"confusion": confusion.tolist(), "baseline": baseline}
    return {"metrics": metrics_of(model, rows, rows.targets), **found, "importances": importances(model, rows)}


def metrics_of(model: Any, rows: Any, targets: np.ndarray) -> dict[str, float]:
    """Metrics of some rows, as blocks, and their encoded targets."""
    from sklearn import metrics

    target = model.target
    if target.classes is None:
        return _of_values(target.decoded(targets), target.decoded(model.network.predict(rows)))
    probabilities = np.asarray(model.network.predict_proba(rows), dtype=np.float64)
    found = _of_classes(target.labels[targets], target.labels[probabilities.argmax(axis=1)])
    right = probabilities[np.arange(len(targets)), targets]
    found["log_loss"] = float(-np.mean(np.log(np.clip(right, 1e-15, 1.0))))
    if len(target.classes) == 2 and len(set(targets.tolist())) == 2:
        found["roc_auc"] = float(metrics.roc_auc_score(targets, probabilities[:, 1]))
    return found


def importances(model: Any, rows: Prepared, seed: int = 0) -> dict[str, float]:
    """By how much the accuracy, or R², falls when the cells of a column change places (Breiman 2001), largest first."""
    preparation = model.preparation
    cells, targets = rows.cells[:TRIED], rows.targets[:TRIED]
    if len(targets) < 2:
        return {}
    chance = np.random.default_rng(seed)

    def score(shown: np.ndarray) -> float:
        found = np.asarray(model.network.predict(preparation.expanded(shown)))
        if model.target.classes is not None:
            return float(np.mean(found == targets))
        spread = float(np.var(targets))
        return 1.0 - float(np.mean((found - targets) ** 2)) / spread if spread else math.nan

    whole, falls = score(cells), {}
    for i, column in enumerate(preparation.columns):
        scores = []
        for _ in range(REPEATS):
            mixed = cells.copy()
            mixed[:, i] = chance.permutation(mixed[:, i])
            scores.append(score(mixed))
        falls[column.name] = whole - float(np.mean(scores))
    return dict(sorted(falls.items(), key=lambda pair: -pair[1]))


def _of_values(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    return {
        "r2": float(metrics.r2_score(truth, found)) if len(truth) > 1 else math.nan,
        "mean_absolute_error": float(metrics.mean_absolute_error(truth, found)),
        "root_mean_squared_error": float(metrics.root_mean_squared_error(truth, found)),
    }


def _of_classes(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not among the rows
        return {
            "accuracy": float(metrics.accuracy_score(truth, found)),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(truth, found)),
            "f1_macro": float(metrics.f1_score(truth, found, average="macro", zero_division=0.0)),
        }
