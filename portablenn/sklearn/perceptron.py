"""Rosenblatt's perceptron with scikit-learn's names and meaning: a layer without activation, trained row by row.

With more than two classes each output learns one class against the rest, all in the same order of the rows.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import unique_labels

from ..nn import losses, optimizers
from ..nn.layers import Dense
from ..program.ir import Array
from ..runtime.arrays import array_namespace
from ..training.network import Network
from . import inputs, private
from .base import NetworkEstimator, ScoreMixin
from .inputs import Labels, Samples
from .solvers import hold_out, train
from .stopping import LinearStopping


class Perceptron(ScoreMixin, ClassifierMixin, NetworkEstimator):
    """A linear classifier that updates its weights at each row that it gets wrong (Rosenblatt 1958).

    Drop-in for ``sklearn.linear_model.Perceptron``, on the library and device of X. With more than two classes all are
    trained in one order of the rows, and ``tol`` is for the sum of their losses, so weights equal scikit-learn's with
    ``shuffle=False, tol=None``; ``l1`` is a plain subgradient, which makes weights small but not 0.

    Parameters
    ----------
    penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, eta0, n_jobs, random_state, early_stopping,
    validation_fraction, n_iter_no_change, class_weight, warm_start
        As in scikit-learn; ``n_jobs`` is ignored, since all classes are trained at once.
    backend : str, module or array, default="auto"
        Where to train: "auto" for where X is, or what `portablenn.get_backend` accepts.
    dtype : {"float32", "float64"}, default=None
        None is float32 for X of float32, else float64.

    Attributes
    ----------
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
        Weights, in the library and on the device of X.
    intercept_ : array of shape (1,) or (n_classes,)
        Biases.
    classes_, n_iter_, t_, n_features_in_, feature_names_in_
        As in scikit-learn.
    backend_ : str
        The backend that the network was trained on.
    network_ : portablenn.Network
        The network itself.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]]), np.asarray([0, 0, 0, 1])
    >>> Perceptron().fit(X, y).predict(X).tolist()
    [0, 0, 0, 1]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **private.CONSTRAINTS["Perceptron"],
        "backend": "no_validation",
        "dtype": "no_validation",
    }

    def __init__(
        self, *, penalty: str | None = None, alpha: float = 0.0001, l1_ratio: float = 0.15, fit_intercept: bool = True,
        max_iter: int = 1000, tol: float | None = 1e-3, shuffle: bool = True, verbose: int = 0, eta0: float = 1.0,
        n_jobs: int | None = None, random_state: Any = 0, early_stopping: bool = False, validation_fraction: float = 0.1,
        n_iter_no_change: int = 5, class_weight: Any = None, warm_start: bool = False, backend: Any = "auto", dtype: Any = None,
    ) -> None:  # fmt: skip
        self._set_parameters(locals())

    @private.validated
    def fit(
        self, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None, sample_weight: Any = None
    ) -> Perceptron:
        """Train on X and y; from weights of 0 unless ``warm_start`` is set.

        Parameters
        ----------
        X : array of any library, table, sparse matrix or list of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        coef_init, intercept_init : array-like, default=None
            Initial weights and biases.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        """
        with self._unchanged_on_error():
            samples = self._prepare(X, y, sample_weight, not self.warm_start)
            if coef_init is not None or intercept_init is not None:
                self._set_weights(coef_init, intercept_init)
            rule = self._train(samples, self.max_iter)
            if self.tol is not None and not rule.converged:
                warnings.warn(
                    "Maximum number of iteration reached before convergence. Consider increasing max_iter to improve the fit.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
            return self

    @private.validated
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Perceptron:
        """Train for one epoch on X and y.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels of this and later calls; required in the first call.
        """
        inputs.check_all_classes(getattr(self, "_labels", None), classes)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y). In place of y you can use a large enough sample of "
                "the full training set target to properly estimate the class frequency distributions. Pass the resulting "
                "weights as the class_weight parameter."
            )
        if self.early_stopping:
            raise ValueError("early_stopping should be False with partial_fit")
        with self._unchanged_on_error():
            self._train(self._prepare(X, y, sample_weight, False, classes), 1)
            return self

    def _prepare(self, X: Any, y: Any, sample_weight: Any, reset: bool, classes: Any = None) -> Samples:
        """Validate the arguments of a fit; build a network where there is none, or ``reset``."""
        reset = reset or not hasattr(self, "_network")
        x = inputs.rows(self, X, reset=reset)
        target = inputs.labels(y, x, self)
        if target.ndim == 2:
            raise ValueError(f"y should be a 1d array, got an array of shape {target.shape} instead.")
        if reset:
            self._labels = Labels.from_targets(target, classes)
        elif not self._labels.contain(target):
            raise ValueError(f"`y` has classes not in `self.classes_`: {unique_labels(target)}, {self._labels.classes}")
        labels = self._labels
        if len(labels.classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(labels.classes)} class")
        numbers = labels.encode(target)
        dtype = inputs.float_dtype(self.dtype, x)
        weights = inputs.weights(sample_weight, x, dtype)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=labels.classes, y=target)[numbers].astype(dtype)
            weights = by_class if weights is None else weights * by_class
        if reset:
            self.classes_ = labels.attribute(x)
            self._build(x.shape[1], dtype)
        return Samples(x, numbers, weights)

    def _build(self, features: int, dtype: str) -> None:
        layer = Dense(self._labels.outputs, use_bias=self.fit_intercept, kernel_init="zeros")
        l1 = {"l1": 1.0, "elasticnet": self.l1_ratio}.get(self.penalty, 0.0)
        l2 = 0.0 if self.penalty is None else 1.0 - l1
        optimizer = optimizers.SGD(self.eta0, l1=l1 * self.alpha, l2=l2 * self.alpha)
        loss = losses.Perceptron(reduction="sum")
        self._network = Network([layer], features, loss, optimizer, backend=self.backend, dtype=dtype)
        self.t_ = 1.0

    def _set_weights(self, coef: Any, intercept: Any) -> None:
        shapes = self._network.model.parameters.shapes
        weights = {}
        if coef is not None:
            coef = np.atleast_2d(np.asarray(coef))
            if coef.shape[::-1] != shapes["dense_1.kernel"]:
                raise ValueError("Provided coef_init does not match dataset.")
            weights["dense_1.kernel"] = coef.T
        if intercept is not None and self.fit_intercept:
            intercept = np.asarray(intercept).reshape(-1)
            if intercept.shape != shapes["dense_1.bias"]:
                raise ValueError("Provided intercept_init does not match dataset.")
            weights["dense_1.bias"] = intercept
        self._network.set_parameters(weights)

    def _train(self, samples: Samples, epochs: int) -> LinearStopping:
        """Train row by row; return the stopping rule, which knows whether it converged."""
        random_state, held_out = check_random_state(self.random_state), None
        if self.early_stopping:
            target = samples.target
            samples, held_out = map(samples.take, hold_out(target, self.validation_fraction, random_state, target))

        def shuffled(_: int) -> np.ndarray:
            order = np.arange(samples.rows)
            random_state.shuffle(order)
            return order

        rule = LinearStopping(self, held_out, samples.rows)
        train(self._network, samples, epochs, 1, shuffled if self.shuffle else "sequential", [rule])
        self.n_iter_ = rule.epochs
        self.t_ += float(self.n_iter_ * samples.rows)
        self._record_placement(samples.x)
        return rule

    @property
    def coef_(self) -> Array:
        """Weights, (1, n_features) or (n_classes, n_features)."""
        kernel = self._to_input_library(self._fitted_network("coef_").parameters["dense_1.kernel"])
        return array_namespace(kernel).permute_dims(kernel, (1, 0))

    @property
    def intercept_(self) -> Array:
        """Biases, (1,) or (n_classes,)."""
        parameters = self._fitted_network("intercept_").parameters
        if "dense_1.bias" in parameters:
            return self._to_input_library(parameters["dense_1.bias"])
        return self._to_input_library(parameters["dense_1.kernel"][0, :] * 0.0)

    def decision_function(self, X: Any) -> Array:
        """Return the score of each class, (n_samples, n_classes), or of the second of two classes, (n_samples,)."""
        return self._scores(self._checked(X, "decision_function"))

    def _scores(self, x: Any) -> Array:
        raw = self._network.forward(x)
        return array_namespace(raw).reshape(raw, (-1,)) if raw.shape[1] == 1 else raw

    def predict(self, X: Any) -> Array:
        """Return the label of each row, (n_samples,)."""
        return self._predict(self._checked(X, "predict"))

    def _predict(self, x: Any) -> Array:
        scores = self._scores(x)
        xp = array_namespace(scores)
        if scores.ndim == 1:
            return self._labels.decode(xp.astype(scores > 0.0, xp.arange(1).dtype))
        return self._labels.decode(xp.argmax(scores, axis=1))
