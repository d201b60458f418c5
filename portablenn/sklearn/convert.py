"""scikit-learn's own perceptrons as ours and back, with their weights.

Requires scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network as reference
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from ..arrays import to_numpy
from .inputs import Labels
from .mlp import MLPClassifier, MLPRegressor

FIGURES = ("loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "n_iter_", "t_", "n_layers_",
           "n_outputs_", "out_activation_", "n_features_in_", "feature_names_in_", "_no_improvement_count")  # fmt: skip


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
    ours = kinds[type(estimator)](**estimator.get_params(deep=False), **parameters)
    if isinstance(ours, MLPClassifier):
        kind = estimator._label_binarizer.y_type_
        ours._labels = Labels("multiclass" if kind == "multiclass" else kind, np.asarray(estimator.classes_))
        ours.classes_ = estimator.classes_
    ours.n_outputs_ = estimator.n_outputs_
    sizes = [b.shape[0] for b in estimator.intercepts_[:-1]]
    ours._random_state = np.random.RandomState(0)
    ours._build(sizes, estimator.n_features_in_, str(estimator.coefs_[0].dtype))
    _copy_figures(estimator, ours)
    pieces = {f"dense_{i}.kernel": w for i, w in enumerate(estimator.coefs_, 1)}
    ours._network.set_parameters(pieces | {f"dense_{i}.bias": b for i, b in enumerate(estimator.intercepts_, 1)})
    ours._settle_where(np.empty((0, 0)))
    return ours


def to_sklearn(estimator: MLPClassifier | MLPRegressor) -> Any:
    """scikit-learn's own, with the parameters that it knows, the weights and the figures of ours: it predicts the same.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> ours = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    >>> bool((to_sklearn(ours).predict(X) == ours.predict(X)).all())
    True
    """
    check_is_fitted(estimator)
    kind = reference.MLPClassifier if isinstance(estimator, MLPClassifier) else reference.MLPRegressor
    if estimator.batch_norm or (isinstance(estimator.activation, str) is False):
        raise ValueError("scikit-learn's own has neither batch_norm nor an activation for each layer")
    known = kind().get_params(deep=False)
    activation = {"sigmoid": "logistic"}.get(estimator.activation, estimator.activation)
    if activation not in ("identity", "logistic", "tanh", "relu"):
        raise ValueError(f"scikit-learn's own has no activation {activation!r}")
    if estimator.loss not in ("log_loss", "squared_error", "poisson"):
        raise ValueError(f"scikit-learn's own has no loss {estimator.loss!r}")
    given = {k: v for k, v in estimator.get_params(deep=False).items() if k in known} | {"activation": activation}
    theirs = kind(**given)
    _copy_figures(estimator, theirs)
    theirs.coefs_ = [np.array(to_numpy(w)) for w in estimator.coefs_]
    theirs.intercepts_ = [np.array(to_numpy(b)) for b in estimator.intercepts_]
    if isinstance(estimator, MLPClassifier):
        labels = estimator._labels
        binarizer = LabelBinarizer()
        several = labels.kind == "multilabel-indicator"
        binarizer.fit(np.eye(len(labels.classes), dtype=int) if several else labels.classes)
        theirs._label_binarizer, theirs.classes_ = binarizer, labels.classes
    return theirs


def _copy_figures(source: Any, target: Any) -> None:
    for name in FIGURES:
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))
