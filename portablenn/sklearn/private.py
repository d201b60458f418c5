"""The private parts of scikit-learn that portablenn uses, each with the reason; checked against scikit-learn 1.9.1."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.linear_model import Perceptron
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import LabelBinarizer

try:
    # Validates `_parameter_constraints` before a fit. The public `check_scalar` knows numbers only, and has other messages.
    from sklearn.base import _fit_context

    # What the searches take rows by, of arrays, tables, lists and sparse matrices. There is no public one.
    from sklearn.utils import _safe_indexing as take_rows

    # The constraints of parameters are written in these classes.
    from sklearn.utils._param_validation import Interval, StrOptions

    # Shared parameters accept what scikit-learn's own estimators accept, in each version of it.
    CONSTRAINTS: dict[str, dict[str, Any]] = {
        kind.__name__: kind._parameter_constraints
        for kind in (MLPClassifier, MLPRegressor, Perceptron, RandomizedSearchCV)
    }

    # Whether weights of the rows are passed on to the scorers is decided by this one.
    scorers_accept_weights = RandomizedSearchCV._check_scorers_accept_sample_weight
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"portablenn.sklearn works with scikit-learn 1.9, and version {sklearn.__version__} lacks a part that it uses "
        f'({error}): pip install "scikit-learn==1.9.*"'
    ) from error

validated = _fit_context(prefer_skip_nested_validation=True)
"""Decorate ``fit`` or ``partial_fit``: validate the constructor's parameters first."""

validated_outside = _fit_context(prefer_skip_nested_validation=False)
"""Decorate ``fit`` of an estimator of estimators: validate its own parameters first, and those of the others later."""

__all__ = [
    "CONSTRAINTS",
    "Interval",
    "StrOptions",
    "scorers_accept_weights",
    "set_label_binarizer",
    "set_private_attributes",
    "set_splitter",
    "take_rows",
    "validated",
    "validated_outside",
]


def set_private_attributes(estimator: Any, no_improvement_count: int) -> None:
    """Set what training with ``partial_fit`` or ``warm_start`` reads of scikit-learn's estimators."""
    estimator._no_improvement_count = no_improvement_count
    estimator._best_coefs = [w.copy() for w in estimator.coefs_]
    estimator._best_intercepts = [b.copy() for b in estimator.intercepts_]


def set_label_binarizer(estimator: Any, kind: str) -> None:
    """Set what ``predict`` reads of scikit-learn's ``MLPClassifier``, for its ``classes_`` and the type of its targets."""
    classes = estimator.classes_
    several = kind == "multilabel-indicator"
    estimator._label_binarizer = LabelBinarizer().fit(np.eye(len(classes), dtype=int) if several else classes)


def set_splitter(search: Any, splitter: Any) -> None:
    """Set the splitter that scikit-learn's searches remember, by which their metadata are routed."""
    search._checked_cv_orig = splitter
