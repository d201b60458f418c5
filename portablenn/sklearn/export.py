"""Conversion between the estimators and scikit-learn's own: parameters, weights and fitted attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from ..runtime.arrays import to_numpy
from .inputs import Labels
from .mlp import MLPClassifier, MLPRegressor
from .private import set_label_binarizer, set_private_attributes

FITTED = """loss_ loss_curve_ best_loss_ validation_scores_ best_validation_score_ n_iter_ t_ n_layers_ n_outputs_
out_activation_ n_features_in_ feature_names_in_""".split()
"""The fitted attributes that both have, besides weights and classes."""


def from_sklearn(estimator: Any, **parameters: Any) -> MLPClassifier | MLPRegressor:
    """Return a portablenn estimator with the parameters, weights and attributes of a fitted one of scikit-learn.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        A fitted estimator.
    **parameters
        Parameters of the new estimator that differ or that scikit-learn does not have, such as ``backend="cupy"``.

    Returns
    -------
    MLPClassifier or MLPRegressor
        An estimator whose predictions are the same.

    Raises
    ------
    TypeError
        For any other estimator.

    Examples
    --------
    >>> from sklearn import neural_network
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> source = neural_network.MLPClassifier((8,), solver="lbfgs", max_iter=2000, random_state=0).fit(X, y)
    >>> bool((from_sklearn(source).predict(X) == source.predict(X)).all())
    True
    """
    kinds = {reference.MLPClassifier: MLPClassifier, reference.MLPRegressor: MLPRegressor}
    if type(estimator) not in kinds:
        raise TypeError(f"expected a fitted MLPClassifier or MLPRegressor of scikit-learn, got {estimator!r}")
    check_is_fitted(estimator)
    new = kinds[type(estimator)](**(estimator.get_params(deep=False) | parameters))
    if isinstance(new, MLPClassifier):
        several = "multilabel-indicator" if estimator.n_outputs_ > 1 else "binary"
        kind = "multiclass" if estimator.out_activation_ == "softmax" else several
        new._labels, new.classes_ = Labels(kind, np.asarray(estimator.classes_)), estimator.classes_
    new.n_outputs_ = estimator.n_outputs_
    new._random_state = np.random.RandomState(0)
    sizes = [b.shape[0] for b in estimator.intercepts_[:-1]]
    new._build(sizes, estimator.n_features_in_, str(estimator.coefs_[0].dtype))
    _copy_fitted(estimator, new)
    new._no_improvement_count = getattr(estimator, "_no_improvement_count", 0)
    kernels = {f"dense_{i}.kernel": w for i, w in enumerate(estimator.coefs_, 1)}
    new._network.set_parameters(kernels | {f"dense_{i}.bias": b for i, b in enumerate(estimator.intercepts_, 1)})
    new._record_placement(np.empty((0, 0)))
    return new


def to_sklearn(estimator: MLPClassifier | MLPRegressor) -> Any:
    """Return scikit-learn's own estimator with the weights and attributes, and the parameters that it has.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        A fitted estimator.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        An estimator whose predictions are the same.

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
    if not isinstance(estimator, (MLPClassifier, MLPRegressor)):
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
    _copy_fitted(estimator, new)
    new.coefs_ = [np.array(to_numpy(w)) for w in estimator.coefs_]
    new.intercepts_ = [np.array(to_numpy(b)) for b in estimator.intercepts_]
    set_private_attributes(new, estimator._no_improvement_count)
    if isinstance(estimator, MLPClassifier):
        new.classes_ = estimator._labels.classes
        set_label_binarizer(new, estimator._labels.kind)
    return new


def _copy_fitted(source: Any, target: Any) -> None:
    for name in FITTED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
