"""A pytest plug-in: scikit-learn's own tests of its perceptrons, with our classes in the place of theirs.

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
    "test_fit": "sets _coef_grads and _intercept_grads, and reads what its own steps left there",
    "test_gradient": "calls _loss_grad_lbfgs",
    "test_learning_rate_warmstart": "reads _optimizer",
    "test_adaptive_learning_rate": "reads _optimizer",
}
"""Tests that need scikit-learn's private parts, and which."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        reason = EXPECTED.get(item.name)
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
