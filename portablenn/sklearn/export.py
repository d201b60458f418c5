"""Ours with the weights of scikit-learn's own.

Requires scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.utils.validation import check_is_fitted

from .inputs import Labels
from .mlp import MLPClassifier, MLPRegressor
from .private import copy_figures


def from_sklearn(estimator: Any, **parameters: Any) -> MLPClassifier | MLPRegressor:
    """Ours, with the parameters, weights and figures of a fitted ``MLPClassifier`` or ``MLPRegressor`` of scikit-learn's.

    Parameters
    ----------
    estimator
        Theirs, fitted.
    **parameters
        Of ours alone, such as ``backend="cupy"``.

    Returns
    -------
    MLPClassifier or MLPRegressor
        It predicts the same.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier as Theirs
    >>> X, y = load_iris(return_X_y=True)
    >>> theirs = Theirs((8,), solver="lbfgs", max_iter=2000, random_state=0).fit(X, y)
    >>> bool((from_sklearn(theirs).predict(X) == theirs.predict(X)).all())
    True
    """
    kinds = {reference.MLPClassifier: MLPClassifier, reference.MLPRegressor: MLPRegressor}
    if type(estimator) not in kinds:
        raise TypeError(
            f"from_sklearn takes a fitted MLPClassifier or MLPRegressor of scikit-learn's, found {estimator!r}"
        )
    check_is_fitted(estimator)
    ours = kinds[type(estimator)](**(estimator.get_params(deep=False) | parameters))
    if isinstance(ours, MLPClassifier):
        kind = estimator._label_binarizer.y_type_
        ours._labels = Labels("multiclass" if kind == "multiclass" else kind, np.asarray(estimator.classes_))
        ours.classes_ = estimator.classes_
    ours.n_outputs_ = estimator.n_outputs_
    sizes = [b.shape[0] for b in estimator.intercepts_[:-1]]
    ours._random_state = np.random.RandomState(0)
    ours._build(sizes, estimator.n_features_in_, str(estimator.coefs_[0].dtype))
    copy_figures(estimator, ours)
    pieces = {f"dense_{i}.kernel": w for i, w in enumerate(estimator.coefs_, 1)}
    ours._network.set_parameters(pieces | {f"dense_{i}.bias": b for i, b in enumerate(estimator.intercepts_, 1)})
    ours._settle_where(np.empty((0, 0)))
    return ours
