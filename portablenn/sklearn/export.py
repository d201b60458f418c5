"""Export of fitted estimators to scikit-learn's own: parameters, weights and fitted attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from ..runtime.arrays import to_numpy
from .base import NetworkEstimator
from .private import set_label_binarizer, set_private_attributes

FITTED = """loss_ loss_curve_ best_loss_ validation_scores_ best_validation_score_ n_iter_ t_ n_layers_ n_outputs_
out_activation_ n_features_in_ feature_names_in_""".split()
"""The fitted attributes that both have, besides weights and classes."""


def to_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's own estimator that predicts the same, with the attributes and the parameters that it has.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        A fitted estimator.

    Raises
    ------
    TypeError
        For any other estimator.
    ValueError
        For a network that scikit-learn does not have.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from portablenn.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    >>> bool((to_sklearn(net).predict(X) == net.predict(X)).all())
    True
    """
    if not (isinstance(estimator, NetworkEstimator) and hasattr(estimator, "to_sklearn")):
        raise TypeError(f"expected a fitted MLPClassifier or MLPRegressor of portablenn, got {estimator!r}")
    check_is_fitted(estimator)
    built = estimator._built
    if built["batch_norm"] or not isinstance(built["activation"], str):
        raise ValueError("scikit-learn has neither batch_norm nor an activation for each layer")
    activation = {"sigmoid": "logistic"}.get(built["activation"], built["activation"])
    if activation not in ("identity", "logistic", "tanh", "relu"):
        raise ValueError(f"scikit-learn has no activation {activation!r}")
    if built["loss"] not in ("log_loss", "squared_error", "poisson"):
        raise ValueError(f"scikit-learn has no loss {built['loss']!r}")
    kind = reference.MLPClassifier if is_classifier(estimator) else reference.MLPRegressor
    parameters = estimator.get_params(deep=False) | built | {"activation": activation}
    new = kind(**{name: parameters[name] for name in kind().get_params(deep=False) if name in parameters})
    copy_fitted(estimator, new)
    new.coefs_ = [np.array(to_numpy(w)) for w in estimator.coefs_]
    new.intercepts_ = [np.array(to_numpy(b)) for b in estimator.intercepts_]
    set_private_attributes(new, estimator._no_improvement_count)
    if is_classifier(estimator):
        new.classes_ = estimator._labels.classes
        set_label_binarizer(new, estimator._labels.kind)
    return new


def copy_fitted(source: Any, target: Any) -> None:
    """Copy the fitted attributes that estimators of both libraries have."""
    for name in FITTED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
