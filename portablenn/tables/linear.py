"""The linear model beside a network: what the same inputs say without hidden layers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..nn.layers import Dense
from ..training.network import Network
from .spill import EncodedPart

MAX_INPUTS = 1 << 21
"""Maximum number of inputs, rows times columns, that a linear model is fitted to, in groups spread over the rows."""

LOGISTIC_STEPS = 200
"""Maximum number of steps of the logistic regression, which need not converge to be compared with."""

ABSENT = -30.0
"""Logit of classes that no training row has."""


def linear_network(part: EncodedPart, classes: int | None, backend: Any) -> Network:
    """Return a network of one layer with the weights of scikit-learn's ridge or logistic regression.

    Parameters
    ----------
    part
        The training rows.
    classes
        Number of classes; None for values.
    backend
        See `Network`.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    rows = max(2, MAX_INPUTS // part.columns)
    cells, y = part.sample(rows)
    x = part.preprocessor.expand(cells)
    loss = "squared_error" if classes is None else "softmax_cross_entropy"
    network = Network([Dense(classes or 1)], part.columns, loss, backend=backend)
    kernel, bias = np.zeros((part.columns, classes or 1)), np.full(classes or 1, ABSENT)
    present = np.unique(y)
    if classes is None:
        fitted = Ridge(alpha=1.0).fit(x, y)
        kernel[:, 0], bias[0] = fitted.coef_, fitted.intercept_
    elif len(present) == 1:
        bias[present] = 0.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            fitted = LogisticRegression(max_iter=LOGISTIC_STEPS).fit(x, y, sample_weight=part.weights_of(y))
        first = len(present) - len(fitted.coef_)  # of two classes it has the second one's weights only
        kernel[:, present[first:]], bias[present[first:]], bias[present[:first]] = (
            fitted.coef_.T,
            fitted.intercept_,
            0.0,
        )
    network.set_parameters({"dense_1.kernel": kernel, "dense_1.bias": bias})
    return network
