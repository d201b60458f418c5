"""The linear model beside a network: what the same inputs say without hidden layers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .spill import EncodedPart

MAX_INPUTS = 1 << 21
"""Maximum number of inputs, rows times columns, that a linear model is fitted to: those of the first training rows."""

LOGISTIC_STEPS = 200
"""Maximum number of steps of the logistic regression, which need not converge to be compared with."""


class LinearModel:
    """Ridge regression of the scaled values, or logistic regression of the classes, by scikit-learn.

    It predicts the rows of a part as a network does.

    Parameters
    ----------
    part
        The training rows.
    classes
        Number of classes; None for values.
    """

    def __init__(self, part: EncodedPart, classes: int | None) -> None:
        from sklearn.linear_model import LogisticRegression, Ridge

        rows = max(2, MAX_INPUTS // part.columns)
        x, y = part.preprocessor.expand(part.cells[:rows]), part.targets[:rows]
        self.classes, self.present = classes, np.unique(y)
        self.fitted: Any = None  # if all rows are of one class
        if classes is None:
            self.fitted = Ridge(alpha=1.0).fit(x, y)
        elif len(self.present) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not converged
                self.fitted = LogisticRegression(max_iter=LOGISTIC_STEPS).fit(x, y)

    def predict(self, part: EncodedPart) -> np.ndarray:
        """Return scaled values or class indices, (rows,)."""
        if self.classes is not None:
            return self.predict_proba(part).argmax(axis=1)
        return np.concatenate([self.fitted.predict(part.read(block)[0]) for block in range(len(part.sizes))])

    def predict_proba(self, part: EncodedPart) -> np.ndarray:
        """Return class probabilities, (rows, classes); 0 for classes that no training row has."""
        assert self.classes is not None
        probabilities = np.zeros((len(part.targets), self.classes))
        if self.fitted is None:
            probabilities[:, self.present] = 1.0
        else:
            found = [self.fitted.predict_proba(part.read(block)[0]) for block in range(len(part.sizes))]
            probabilities[:, self.present] = np.concatenate(found)
        return probabilities
