"""Conversion of scikit-learn's fitted estimators to ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.utils.validation import check_is_fitted

from .export import copy_fitted
from .inputs import Labels
from .mlp import MLPClassifier, MLPRegressor


def from_sklearn(estimator: Any, **parameters: Any) -> MLPClassifier | MLPRegressor:
    """Return a portablenn estimator that predicts the same as a fitted one of scikit-learn, with its parameters and attributes.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        A fitted estimator.
    **parameters
        Parameters of the new estimator that differ or that scikit-learn does not have, such as ``backend="cupy"``.

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
    copy_fitted(estimator, new)
    new._no_improvement_count = getattr(estimator, "_no_improvement_count", 0)
    kernels = {f"dense_{i}.kernel": w for i, w in enumerate(estimator.coefs_, 1)}
    new._network.set_parameters(kernels | {f"dense_{i}.bias": b for i, b in enumerate(estimator.intercepts_, 1)})
    new._record_placement(np.empty((0, 0)))
    return new
