"""Metrics: how well a model predicts rows that it was not trained on, and which columns that depends on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..nn.layers import Dense, NTKDense, Scale
from ..runtime.arrays import to_numpy
from .columns import NumericColumn
from .preprocessing import Preprocessor
from .spill import EncodedPart

MAX_PAIRS = 500
"""Maximum number of true and predicted values that are kept for a picture."""

IMPORTANCE_ROWS = 2000
"""Maximum number of rows that importances are computed from."""

IMPORTANCE_CELLS = 400_000
"""Maximum number of cells that importances are computed from, in as many rows, and at least `MIN_IMPORTANCE_ROWS`."""

MIN_IMPORTANCE_ROWS = 200
MIN_DOUBTFUL_ROWS = 30
"""Number of rows, and of distinct values, below which the order of a column's values says nothing."""

IMPORTANCE_REPEATS = 3


def measure(model: Any, linear: Any, part: EncodedPart, train_targets: np.ndarray) -> dict[str, Any]:
    """Return the measurements of a `TableModel` on a part of the rows, as values for JSON.

    "metrics", "baseline" and "linear" are {name: value}; the baseline predicts the mean or most frequent class of the
    training rows, whose encoded targets are ``train_targets``; "linear" are those of the network ``linear``. "confusion"
    counts rows by true and predicted class; a regression has "predicted", pairs of true and predicted values, instead.
    "importances": see `importances`.
    """
    compare = _compare_values if model.target.classes is None else _compare_classes
    metrics = of_linear = compute_metrics(model, part, part.targets)
    if linear is not model.network:
        of_linear = compute_metrics(SimpleNamespace(target=model.target, network=linear), part, part.targets)
    return {
        "metrics": metrics,
        **compare(model, part, train_targets),
        "linear": of_linear,
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

    classes, true = model.target.class_count, part.targets
    confusion = metrics.confusion_matrix(true, np.asarray(model.network.predict(part)), labels=np.arange(classes))
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


def summarize_folds(folds: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, standard deviation and values of each metric that is finite in all folds; see `cross_validate`."""
    names = [name for name in folds[0] if all(math.isfinite(one.get(name, math.nan)) for one in folds)]
    values = {name: [one[name] for one in folds] for name in names}
    return {
        name: {"mean": float(np.mean(v)), "standard_deviation": float(np.std(v, ddof=1)), "folds": v}
        for name, v in values.items()
    }


def tabulate_folds(of_folds: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return what `TableModel.cross_validate` returns as the head and the rows of a table."""
    kinds = [of_folds[kind] for kind in ("metrics", "linear", "baseline")]
    rows = []
    for name in kinds[0]:
        of_kinds = (kind.get(name) for kind in kinds)
        cells = (f"{m['mean']:.4g} ± {m['standard_deviation']:.2g}" if m is not None else "" for m in of_kinds)
        rows.append((name.replace("_", " "), *cells))
    folds = max((len(m["folds"]) for m in kinds[0].values()), default=0)
    return (f"mean ± std of {folds} folds", "model", "linear model", "constant prediction"), rows


def worse_than_constant(results: dict[str, Any]) -> str:
    """Return how the metrics compare with those of a constant prediction if none is better; "" if one is, or if unknown.

    Compared are the root mean squared error of values, accuracy and log loss of classes, and balanced accuracy of classes that
    were weighted.
    """
    metrics, baseline = results.get("metrics") or {}, results.get("baseline") or {}
    names = ["balanced_accuracy"] if results.get("weighted") else ["root_mean_squared_error", "accuracy", "log_loss"]
    names = [n for n in names if n in metrics and n in baseline]
    if any((metrics[n] > baseline[n]) if n.endswith("accuracy") else (metrics[n] < baseline[n]) for n in names):
        return ""
    return ", ".join(f"{name.replace('_', ' ')} {metrics[name]:.4g} against {baseline[name]:.4g}" for name in names)


def importances(model: Any, part: EncodedPart, seed: int = 0) -> dict[str, float]:
    """Return {column: permutation importance}, largest first: the fall of accuracy or R² when its cells are shuffled.

    Values are NaN where R² is undefined, for constant targets. See Breiman (2001), "Random forests".
    """
    columns = model.preprocessor.columns
    rows = max(MIN_IMPORTANCE_ROWS, min(IMPORTANCE_ROWS, IMPORTANCE_CELLS // len(columns)))
    cells, targets = part.sample(rows)
    if len(targets) < 2:
        return {}
    generator, variance = np.random.default_rng(seed), float(np.var(targets))

    def score(predicted: np.ndarray) -> float:
        if model.target.classes is not None:
            return float(np.mean(predicted == targets))
        return 1.0 - float(np.mean((predicted - targets) ** 2)) / variance if variance else math.nan

    unshuffled, predict = _predictor_of_changes(model, cells)
    falls = {}
    for i, column in enumerate(columns):
        scores = [score(predict(i, generator.permutation(cells[:, i]))) for _ in range(IMPORTANCE_REPEATS)]
        falls[column.name] = score(unshuffled) - float(np.mean(scores))
    return dict(sorted(falls.items(), key=lambda pair: -pair[1]))


def _predictor_of_changes(model: Any, cells: np.ndarray) -> tuple[np.ndarray, Callable[[int, np.ndarray], np.ndarray]]:
    """Return the predictions for encoded cells, and a function that returns those with other cells in one column.

    Where the first layer, perhaps behind a `Scale`, is dense, only the column's share of its sums is computed again.
    """
    preprocessor, network = model.preprocessor, model.network
    layers = network.model.layers
    first = int(bool(layers) and isinstance(layers[0][1], Scale))
    if len(layers) <= first or not isinstance(layers[first][1], (Dense, NTKDense)):

        def predict(i: int, changed: np.ndarray) -> np.ndarray:
            others = cells.copy()
            others[:, i] = changed
            return np.asarray(network.predict(preprocessor.expand(others)))

        return np.asarray(network.predict(preprocessor.expand(cells))), predict
    arrays = {name: to_numpy(array) for name, array in (network.parameters | network.statistics).items()}

    def parameters_of(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}

    (name, dense), *others = layers[first:]
    own = parameters_of(name)
    if isinstance(dense, NTKDense):
        dense, own = dense.as_dense(own)
    kernel = own["kernel"]
    if first:
        kernel = parameters_of(layers[0][0])["scale"][:, None] * np.float32(layers[0][1].rate) * kernel
    own["kernel"] = np.eye(dense.units, dtype=kernel.dtype)  # of the sums
    ends = np.cumsum([len(column.input_names) for column in preprocessor.columns])
    sums = preprocessor.expand(cells).astype(kernel.dtype) @ kernel

    def outputs(sums: np.ndarray) -> np.ndarray:
        x = dense.apply(np, own, sums)
        for name, layer in others:
            x = layer.apply(np, parameters_of(name), x)
        return x.argmax(axis=1) if model.target.classes is not None else x[:, 0]

    def predict_changed(i: int, changed: np.ndarray) -> np.ndarray:
        column, part = preprocessor.columns[i], kernel[ends[i] - len(preprocessor.columns[i].input_names) : ends[i]]
        difference = np.stack(column.expand(changed), axis=1) - np.stack(column.expand(cells[:, i]), axis=1)
        return outputs(sums + difference @ part)

    return outputs(sums), predict_changed


def doubtful_columns(preprocessor: Preprocessor, part: EncodedPart) -> dict[str, str]:
    """Return {column of numbers: why it may be an identifier, or give the target away}."""
    cells, targets = part.sample(IMPORTANCE_ROWS)
    found = {}
    for i, column in enumerate(preprocessor.columns):
        values, rows = cells[:, i], np.isfinite(cells[:, i])
        if not isinstance(column, NumericColumn) or column.cells.date or rows.sum() < MIN_DOUBTFUL_ROWS:
            continue
        order = np.argsort(values[rows], kind="stable")
        sorted_targets, distinct = targets[rows][order], len(np.unique(values[rows]))
        if len(np.unique(sorted_targets)) < 2 or distinct < MIN_DOUBTFUL_ROWS:
            continue
        steps = np.diff(sorted_targets)
        ascends = preprocessor.target.classes is None and (bool(np.all(steps >= 0)) or bool(np.all(steps <= 0)))
        if rows.all() and bool(np.all(np.diff(values) > 0)):
            found[column.name] = "its values ascend from row to row, as identifiers do"
        elif ascends:
            found[column.name] = "it has the order of the target: is it known when predictions are made?"
    return found


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
