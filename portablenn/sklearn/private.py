"""scikit-learn's own perceptrons, with the weights of ours.

Requires scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from ..runtime.arrays import to_numpy

FIGURES = ("loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "n_iter_", "t_", "n_layers_",
           "n_outputs_", "out_activation_", "n_features_in_", "feature_names_in_", "_no_improvement_count")  # fmt: skip


def to_sklearn(estimator: Any) -> Any:
    """scikit-learn's own, with the parameters that it knows, the weights and the figures of ours: it predicts the same.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from portablenn.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> ours = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    >>> bool((to_sklearn(ours).predict(X) == ours.predict(X)).all())
    True
    """
    if not hasattr(estimator, "_built"):
        raise TypeError(f"to_sklearn takes a fitted MLPClassifier or MLPRegressor of ours, found {estimator!r}")
    check_is_fitted(estimator)
    built = estimator._built
    kind = reference.MLPClassifier if is_classifier(estimator) else reference.MLPRegressor
    if built["batch_norm"] or not isinstance(built["activation"], str):
        raise ValueError("scikit-learn's own has neither batch_norm nor an activation for each layer")
    known = kind().get_params(deep=False)
    activation = {"sigmoid": "logistic"}.get(built["activation"], built["activation"])
    if activation not in ("identity", "logistic", "tanh", "relu"):
        raise ValueError(f"scikit-learn's own has no activation {activation!r}")
    if built["loss"] not in ("log_loss", "squared_error", "poisson"):
        raise ValueError(f"scikit-learn's own has no loss {built['loss']!r}")
    given = {k: v for k, v in (estimator.get_params(deep=False) | built).items() if k in known} | {
        "activation": activation
    }
    theirs = kind(**given)
    copy_figures(estimator, theirs)
    theirs.coefs_ = [np.array(to_numpy(w)) for w in estimator.coefs_]
    theirs.intercepts_ = [np.array(to_numpy(b)) for b in estimator.intercepts_]
    theirs._best_coefs = [w.copy() for w in theirs.coefs_]
    theirs._best_intercepts = [b.copy() for b in theirs.intercepts_]
    if is_classifier(estimator):
        labels = estimator._labels
        binarizer = LabelBinarizer()
        several = labels.kind == "multilabel-indicator"
        binarizer.fit(np.eye(len(labels.classes), dtype=int) if several else labels.classes)
        theirs._label_binarizer, theirs.classes_ = binarizer, labels.classes
    return theirs


def copy_figures(source: Any, target: Any) -> None:
    """The fitted attributes that both have."""
    for name in FIGURES:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
