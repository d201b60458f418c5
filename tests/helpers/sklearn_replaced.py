"""A pytest plug-in that runs scikit-learn's own tests of its perceptrons on portablenn's classes.

``pytest -p sklearn_replaced --pyargs sklearn.neural_network.tests.test_mlp sklearn.linear_model.tests.test_perceptron``,
run by ``test_sklearn_own.py``. Nothing of those tests is copied.
"""

from __future__ import annotations

from typing import Any

import pytest
import sklearn.linear_model
import sklearn.neural_network

from portablenn.sklearn import MLPClassifier, MLPRegressor, Perceptron

sklearn.neural_network.MLPClassifier = MLPClassifier
sklearn.neural_network.MLPRegressor = MLPRegressor
sklearn.linear_model.Perceptron = Perceptron

EXPECTED = {
    "test_fit": "sets _coef_grads and _intercept_grads, and reads the gradients of its own steps there",
    "test_gradient": "calls _loss_grad_lbfgs",
    "test_learning_rate_warmstart": "reads _optimizer",
    "test_adaptive_learning_rate": "reads _optimizer",
}
"""Tests that read private attributes of scikit-learn's estimators, and which."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        reason = EXPECTED.get(item.name)
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
