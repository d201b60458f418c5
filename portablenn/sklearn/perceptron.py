"""Rosenblatt's perceptron with scikit-learn's names and meaning: a layer without activation, learnt a row at a time.

Requires scikit-learn. A thin face on `Network` with the loss `portablenn.losses.Perceptron`; of more than two classes each
output learns one against the rest, all in the same order of the rows.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn import linear_model as reference
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import unique_labels

from ..callbacks import Callback
from ..nn import losses, optimizers
from ..nn.layers import Dense
from ..program.ir import Array
from ..runtime.arrays import array_namespace, to_numpy
from ..training.network import Network
from . import inputs
from .base import OnNetwork
from .inputs import Labels


class Perceptron(ClassifierMixin, OnNetwork):
    """A linear classifier that moves its weights by each row that it gets wrong (Rosenblatt 1958).

    Drop-in for ``sklearn.linear_model.Perceptron``, on the library and device of X. Of more than two classes all are learnt in
    one order of the rows, and ``tol`` is for the sum of their losses, so weights equal scikit-learn's with
    ``shuffle=False, tol=None``; ``l1`` is a plain subgradient, which makes weights small but not 0.

    Parameters
    ----------
    penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, eta0, n_jobs, random_state, early_stopping,
    validation_fraction, n_iter_no_change, class_weight, warm_start
        As scikit-learn's own estimator has them; ``n_jobs`` changes nothing, for all classes are learnt at once.
    backend : default "auto"
        What to train on: "auto" for where X lies, or what `portablenn.get_backend` takes.
    dtype : {"float32", "float64"}, default None
        None is float32 for X of float32, else float64.

    Attributes
    ----------
    coef_ : array, (1, n_features) or (n_classes, n_features)
        Weights, in the library and on the device of X.
    intercept_ : array, (1,) or (n_classes,)
        Biases.
    classes_, n_iter_, t_, n_features_in_, feature_names_in_
        As scikit-learn's own estimator has them.
    backend_ : str
        What it was trained on.
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
        **reference.Perceptron._parameter_constraints,
        "backend": "no_validation",
        "dtype": "no_validation",
    }

    def __init__(
        self,
        *,
        penalty: str | None = None,
        alpha: float = 0.0001,
        l1_ratio: float = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        eta0: float = 1.0,
        n_jobs: int | None = None,
        random_state: Any = 0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
        warm_start: bool = False,
        backend: Any = "auto",
        dtype: Any = None,
    ) -> None:
        self._keep(locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None, sample_weight: Any = None
    ) -> Perceptron:
        """Train on X, (rows, features), and labels y, (rows,); anew unless ``warm_start``.

        Parameters
        ----------
        X : array of any library, table, sparse matrix or list of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Labels.
        coef_init, intercept_init : array-like, default=None
            Weights and biases to begin with.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts.

        Returns
        -------
        self
        """
        with self._whole():
            return self._fit(X, y, sample_weight, None, coef_init, intercept_init)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Perceptron:
        """Go once through X and y.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels there will be; needed in the first call.

        Returns
        -------
        self
        """
        inputs.all_classes(getattr(self, "_labels", None), classes)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y). In place of y you can use a large enough sample of "
                "the full training set target to properly estimate the class frequency distributions. Pass the resulting "
                "weights as the class_weight parameter."
            )
        if self.early_stopping:
            raise ValueError("early_stopping should be False with partial_fit")
        with self._whole():
            return self._fit(X, y, sample_weight, classes, incremental=True)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        classes: Any,
        coef_init: Any = None,
        intercept_init: Any = None,
        incremental: bool = False,
    ) -> Perceptron:
        anew = not hasattr(self, "_network") or not (self.warm_start or incremental)
        x = inputs.rows(self, X, reset=anew)
        target = inputs.targets(y, x, self)
        if target.ndim == 2:
            raise ValueError(f"y should be a 1d array, got an array of shape {target.shape} instead.")
        if anew:
            self._labels = Labels.of(target, classes)
        elif not self._labels.known(target):
            raise ValueError(f"`y` has classes not in `self.classes_`: {unique_labels(target)}, {self._labels.classes}")
        labels = self._labels
        if len(labels.classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(labels.classes)} class")
        numbers = labels.numbers(target)
        dtype = inputs.float_dtype(self.dtype, x)
        weights = inputs.weights(sample_weight, x, dtype)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=labels.classes, y=target)[numbers].astype(dtype)
            weights = by_class if weights is None else weights * by_class
        if anew:
            self.classes_ = inputs.under_dispatch(labels.classes, x)
            self._build(x.shape[1], dtype)
        if coef_init is not None or intercept_init is not None:
            self._begin_at(coef_init, intercept_init)
        self._learn(x, numbers, weights, incremental)
        self._settle_where(x)
        return self

    def _build(self, features: int, dtype: str) -> None:
        layer = Dense(self._labels.outputs, use_bias=self.fit_intercept, kernel_init="zeros")
        share = {
            None: (0.0, 0.0),
            "l2": (0.0, 1.0),
            "l1": (1.0, 0.0),
            "elasticnet": (self.l1_ratio, 1.0 - self.l1_ratio),
        }
        l1, l2 = share[self.penalty]
        self._network = Network(
            [layer],
            features,
            losses.Perceptron(reduction="sum"),
            optimizers.SGD(self.eta0, l1=l1 * self.alpha, l2=l2 * self.alpha),
            backend=self.backend,
            dtype=dtype,
        )
        self.t_ = 1.0

    def _begin_at(self, coef: Any, intercept: Any) -> None:
        shapes = self._network.model.parameters.shapes
        given = {}
        if coef is not None:
            coef = np.atleast_2d(np.asarray(coef))
            if coef.shape[::-1] != shapes["dense_1.kernel"]:
                raise ValueError("Provided coef_init does not match dataset.")
            given["dense_1.kernel"] = coef.T
        if intercept is not None and self.fit_intercept:
            intercept = np.asarray(intercept).reshape(-1)
            if intercept.shape != shapes["dense_1.bias"]:
                raise ValueError("Provided intercept_init does not match dataset.")
            given["dense_1.bias"] = intercept
        self._network.set_parameters(given)

    def _learn(self, x: Any, numbers: np.ndarray, weights: np.ndarray | None, incremental: bool) -> None:
        random, held_out, network = check_random_state(self.random_state), None, self._network
        chosen = np.arange(x.shape[0])
        if self.early_stopping:
            chosen, apart = train_test_split(
                chosen, test_size=self.validation_fraction, random_state=random, stratify=numbers
            )
            held_out = inputs.part(x, numbers, weights, apart)
            x, numbers, weights = inputs.part(x, numbers, weights, chosen)
        count = x.shape[0]

        def shuffled(_: int) -> np.ndarray:
            order = np.arange(count)
            random.shuffle(order)
            return order

        watch = _Watch(self, held_out, count)
        network.fit(
            x,
            inputs.beside(x, numbers),
            1 if incremental else self.max_iter,
            1,
            shuffled if self.shuffle else "sequential",
            sample_weight=inputs.beside(x, weights),
            callbacks=[watch],
        )
        self.n_iter_ = watch.epochs
        self.t_ += float(self.n_iter_ * count)
        if not incremental and self.tol is not None and not watch.steady:
            warnings.warn(
                "Maximum number of iteration reached before convergence. Consider increasing max_iter to improve the fit.",
                ConvergenceWarning,
                stacklevel=4,
            )

    @property
    def coef_(self) -> Array:
        """Weights, (1, n_features) or (n_classes, n_features)."""
        kernel = self._near(self._fitted("coef_").parameters["dense_1.kernel"])
        return array_namespace(kernel).permute_dims(kernel, (1, 0))

    @property
    def intercept_(self) -> Array:
        """Biases, (1,) or (n_classes,)."""
        parameters = self._fitted("intercept_").parameters
        if "dense_1.bias" in parameters:
            return self._near(parameters["dense_1.bias"])
        return self._near(parameters["dense_1.kernel"][0, :] * 0.0)

    @property
    def _coef(self) -> Array:
        return self.coef_

    def decision_function(self, X: Any) -> Array:
        """How far each row is on a class's side: (n_samples,) for two classes, else (n_samples, n_classes)."""
        return self._scores(self._checked(X, "decision_function"))

    def _scores(self, x: Any) -> Array:
        raw = self._network.forward(x)
        return array_namespace(raw).reshape(raw, (-1,)) if raw.shape[1] == 1 else raw

    def predict(self, X: Any) -> Array:
        """The label of each row, (n_samples,)."""
        return self._predicted(self._checked(X, "predict"))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy, as scikit-learn's own; also of arrays that NumPy does not read by itself."""
        return inputs.score(super().score, accuracy_score, self, X, y, sample_weight)

    def _predicted(self, x: Any) -> Array:
        scores = self._scores(x)
        xp = array_namespace(scores)
        if scores.ndim == 1:
            return self._labels.labels(xp.astype(scores > 0.0, xp.arange(1).dtype))
        return self._labels.labels(xp.argmax(scores, axis=1))


class _Watch(Callback):
    """scikit-learn's rules for linear models: stop where the loss, or the score of rows set apart, improves no more."""

    def __init__(self, estimator: Perceptron, held_out: Any, rows: int) -> None:
        self.estimator, self.held_out, self.rows = estimator, held_out, rows
        self.best, self.count, self.epochs, self.steady = -np.inf, 0, 0, False

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
        """True where training is to end."""
        e = self.estimator
        self.epochs += 1
        if not np.isfinite(logs["loss"]):
            raise ValueError(
                "Floating-point under-/overflow occurred at epoch #"
                f"{epoch}. Scaling input data with StandardScaler or MinMaxScaler might help."
            )
        if self.held_out is None:
            figure, least = -logs["loss"], (e.tol or 0.0) * self.rows
        else:
            x, numbers, weights = self.held_out
            truth = e._labels.classes[numbers]
            figure = accuracy_score(truth, to_numpy(e._predicted(x)), sample_weight=weights)
            least = e.tol or 0.0
        if e.verbose:
            print(f"-- Epoch {epoch}\nAvg. loss: {logs['loss'] / self.rows:f}")
        stale = e.tol is not None and figure < self.best + least
        self.count = self.count + 1 if stale else 0
        self.best = max(self.best, figure)
        self.steady = self.count >= e.n_iter_no_change
        return self.steady
