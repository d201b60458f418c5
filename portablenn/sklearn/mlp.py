"""Multi-layer perceptrons with scikit-learn's names and meaning, on any array library.

The same ``random_state`` gives the same network as scikit-learn's own estimators: initial weights, order of rows, stopping
rules and fitted attributes are theirs; the training is `Network`'s.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from ..callbacks import Callback
from ..nn import losses
from ..nn.layers import BatchNorm, Dense, Dropout
from ..program.ir import Array
from ..runtime.arrays import array_namespace, to_numpy
from ..training.network import Network
from . import inputs, parameters, private
from .base import NetworkEstimator, ScoreMixin
from .export import to_sklearn
from .inputs import Labels, Samples
from .report_losses import HalfPoissonDeviance, MeanHalfSquaredError
from .solvers import STOCHASTIC, fit_lbfgs, fit_stochastic

BUILT = ("hidden_layer_sizes", "activation", "loss", "dropout", "batch_norm", "dtype", "precision", "backend")
"""The parameters that a network is built from."""
REPORTED: dict[losses.Loss, losses.Loss] = {
    losses.HalfSquaredError(): MeanHalfSquaredError(),
    losses.Poisson(): HalfPoissonDeviance(),
}
"""The losses whose values scikit-learn reports, where they are not those that train."""


def _is_stochastic(estimator: Any) -> bool:
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def has_probabilities(estimator: Any) -> bool:
    if estimator.loss != "log_loss" and losses.get(estimator.loss).link is None:
        raise AttributeError(f"predict_proba requires a loss with probabilities, and loss={estimator.loss!r} has none")
    return True


def as_integers(array: Array) -> Array:
    """Return an array in the integers that its library uses by default."""
    xp = array_namespace(array)
    return xp.astype(array, xp.int64 if xp.arange(1).dtype == xp.int64 else xp.int32)


class _MLP(NetworkEstimator):
    """The base of classifier and regressor."""

    loss_curve_: list[float]
    validation_scores_: list[float] | None
    _scored: ClassVar[str]
    """The method of a `Model` from which `_validation_score` is computed."""

    # Training

    @private.validated
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X and y; from new initial weights unless ``warm_start`` is set.

        Parameters
        ----------
        X : array of any library, table, sparse matrix or list of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        """
        with self._unchanged_on_error():
            return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        reset = not hasattr(self, "_network") or not (self.warm_start or incremental)
        if not reset:
            self._check_network_unchanged()
        samples = self._start(inputs.rows(self, X, reset=reset), y, sample_weight, reset, incremental)
        self._train(samples, incremental)
        self._finish(samples.x)
        return self

    @private.validated
    def _start(self, x: Any, y: Any, sample_weight: Any, reset: bool, incremental: bool) -> Samples:
        """Validate targets and weights for validated rows, and build the network if ``reset``."""
        sizes = self._hidden_layer_sizes()
        if self.early_stopping and incremental and self.solver in STOCHASTIC:
            raise ValueError("partial_fit does not support early_stopping=True")
        target = self._targets(y, x, reset, incremental)
        dtype = inputs.float_dtype(self.dtype, x)
        samples = Samples(x, target, self._weights(target, sample_weight, x, dtype))
        self._random_state = check_random_state(self.random_state)
        if reset:
            self._build(sizes, x.shape[1], dtype)
        if not incremental:
            self._network.reset_optimizer()
            self._optimizer_started = False
        return samples

    def _train(self, samples: Samples, incremental: bool) -> None:
        if self.solver == "lbfgs":
            fit_lbfgs(self, samples)
        else:
            fit_stochastic(self, samples, incremental)

    def _finish(self, x: Any) -> None:
        """Record where the rows and the network are, and check what was learned."""
        self._record_placement(x)
        if not all(bool(np.isfinite(to_numpy(a)).all()) for a in self._network.parameters.values()):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )

    def _targets(self, y: Any, x: Any, reset: bool, incremental: bool) -> np.ndarray:
        """Validate y; if ``reset``, set the attributes of the outputs."""
        raise NotImplementedError

    def _weights(self, target: np.ndarray, sample_weight: Any, x: Any, dtype: str) -> np.ndarray | None:
        return inputs.weights(sample_weight, x, dtype)

    def _stratify(self, target: np.ndarray) -> np.ndarray | None:
        """Return the classes whose proportions are kept where rows are held out for early stopping."""
        return None

    def _validation_score(self, raw: np.ndarray, held_out: Samples) -> float:
        """Return the score of what the model's method ``_scored`` returns for held-out rows."""
        raise NotImplementedError

    def to_sklearn(self) -> Any:
        """Return scikit-learn's own estimator with the same weights; see `portablenn.sklearn.to_sklearn`."""
        return to_sklearn(self)

    # The network

    def _hidden_layer_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = [operator.index(n) for n in (sizes if hasattr(sizes, "__iter__") else [sizes])]
        if any(n <= 0 for n in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _hidden_activations(self, count: int) -> Sequence[Any]:
        given = self.activation
        if isinstance(given, str) or callable(given):
            given = [given] * count
        if len(given) != count:
            raise ValueError(f"expected an activation for each of {count} hidden layers, got {len(given)}")
        return ["sigmoid" if a == "logistic" else a for a in given]

    def _build(self, sizes: list[int], features: int, dtype: str) -> None:
        """Build the network with scikit-learn's initial weights, and reset the fitted attributes."""
        layers: list[Any] = []
        for units, activation in zip(sizes, self._hidden_activations(len(sizes)), strict=True):
            layers.append(Dense(units, activation, kernel_init="zeros"))
            layers += [BatchNorm()] if self.batch_norm else []
            layers += [Dropout(self.dropout)] if self.dropout else []
        layers.append(Dense(self.n_outputs_, kernel_init="zeros"))
        weights = self._initial_weights([features, *sizes, self.n_outputs_])
        seed = int(self._random_state.randint(2**31 - 1)) if self.dropout else 0
        facts: dict[str, Any] = {"backend": self.backend, "dtype": dtype, "seed": seed, "precision": self.precision}
        self._network = Network(layers, features, self._loss(), **facts)
        model = self._network.model
        self._network.model = replace(model, report_loss=REPORTED.get(model.loss))
        self._network.set_parameters(weights)
        self.n_layers_ = len(sizes) + 2
        self.n_iter_ = self.t_ = 0
        self._optimizer_started, self._no_improvement_count = False, 0
        self._built = {name: getattr(self, name) for name in BUILT}
        if self.solver in STOCHASTIC:
            self._reset_history()

    def _loss(self) -> Any:
        raise NotImplementedError

    def _initial_weights(self, widths: list[int]) -> dict[str, np.ndarray]:
        factor = 2.0 if isinstance(self.activation, str) and self.activation == "logistic" else 6.0
        weights: dict[str, np.ndarray] = {}
        for i, (a, b) in enumerate(pairwise(widths), 1):
            bound = np.sqrt(factor / (a + b))
            weights[f"dense_{i}.kernel"] = self._random_state.uniform(-bound, bound, (a, b))
            weights[f"dense_{i}.bias"] = self._random_state.uniform(-bound, bound, b)
        return weights

    def _reset_history(self) -> None:
        self.loss_curve_ = []
        self.validation_scores_ = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        self.best_loss_ = None if self.early_stopping else np.inf

    def _check_network_unchanged(self) -> None:
        changed = [name for name, value in self._built.items() if not np.array_equal(getattr(self, name), value)]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed since the network was built, which a warm start or partial_fit continues: "
                "set warm_start=False and fit again"
            )

    # Fitted attributes

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (inputs, units)."""
        return self._parameters("coefs_", "kernel")

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (units,)."""
        return self._parameters("intercepts_", "bias")

    def _parameters(self, attribute: str, kind: str) -> list[Array]:
        arrays = self._fitted_network(attribute).parameters
        return [self._to_input_library(arrays[f"dense_{i}.{kind}"]) for i in range(1, self.n_layers_)]


class MLPClassifier(ScoreMixin, ClassifierMixin, _MLP):
    __doc__ = parameters.document(
        "A multi-layer perceptron for classification, with one label or several per row.",
        "MLPClassifier",
        """
    loss : str or portablenn.losses.Loss, default="log_loss"
        Or any other loss of classes in portablenn.
    class_weight : dict, "balanced" or list of dict, default=None
        Weights of the classes, multiplied by those of the rows.""",
        """classes_ : array of shape (n_classes,)
        The labels; in the library of X under scikit-learn's dispatch.
    """,
        """
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y).score(X, y) > 0.95
    True""",
    )

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **private.CONSTRAINTS["MLPClassifier"],
        **parameters.CONSTRAINTS,
        "class_weight": [private.StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: Any = "relu", *, solver: str = "adam", alpha: float = 0.0001,
        batch_size: int | str = "auto", learning_rate: str = "constant", learning_rate_init: float = 0.001,
        power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True, random_state: Any = None, tol: float = 1e-4,
        verbose: bool | int = False, warm_start: bool = False, momentum: float = 0.9, nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: int = 10, max_fun: int = 15000, loss: str | losses.Loss = "log_loss", class_weight: Any = None,
        backend: Any = "auto", dtype: Any = None, precision: str | None = None, dropout: float = 0.0, batch_norm: bool = False,
        clip_norm: float | None = None, clip_value: float | None = None, callbacks: Sequence[Callback] = (),
    ) -> None:  # fmt: skip
        self._set_parameters(locals())

    _scored: ClassVar[str] = "forward"

    def _targets(self, y: Any, x: Any, reset: bool, incremental: bool) -> np.ndarray:
        target = inputs.labels(y, x, self)
        if reset and not (incremental and hasattr(self, "_labels")):
            self._set_labels(Labels.from_targets(target), x)
        elif self.warm_start and not incremental:
            unique = unique_labels(target)
            if set(unique) != set(self._labels.classes):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                    f"got {self._labels.classes}, `y` has {unique}"
                )
        elif not self._labels.contain(target):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self._labels.classes}. 'y' has "
                f"{unique_labels(target)}."
            )
        return self._labels.encode(target)

    def _set_labels(self, labels: Labels, x: Any) -> None:
        self._labels = labels
        self.n_outputs_ = labels.outputs
        self.out_activation_ = "softmax" if labels.kind == "multiclass" else "logistic"
        self.classes_ = labels.attribute(x)

    def _loss(self) -> Any:
        if self.loss != "log_loss":
            if losses.get(self.loss).targets != "classes":
                raise ValueError(
                    f"loss={self.loss!r} is for values: expected a loss of classes, such as 'log_loss' or 'hinge'"
                )
            return self.loss
        return "softmax_cross_entropy" if self._labels.kind == "multiclass" else "sigmoid_cross_entropy"

    def _weights(self, target: np.ndarray, sample_weight: Any, x: Any, dtype: str) -> np.ndarray | None:
        weights = super()._weights(target, sample_weight, x, dtype)
        if self.class_weight is None:
            return weights
        labels = target if target.ndim == 2 else self._labels.classes[target]
        by_class = compute_sample_weight(self.class_weight, labels).astype(dtype)
        return by_class if weights is None else by_class * weights

    def _stratify(self, target: np.ndarray) -> np.ndarray | None:
        # booleans in a column, as in scikit-learn, whose error messages show them
        return target.astype(bool)[:, None] if self.n_outputs_ == 1 else None

    @available_if(_is_stochastic)
    @private.validated
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """Train for one epoch on X and y.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels of this and later calls; required in the first call.
        """
        with self._unchanged_on_error():
            labels = getattr(self, "_labels", None)
            inputs.check_all_classes(labels, classes)
            if labels is None:
                target = inputs.labels(y, X, self)
                several = type_of_target(target).startswith("multilabel")
                self._set_labels(Labels.from_targets(target, None if several else classes), X)
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Return the label of each row, (n_samples,), or rows of 0 and 1, where X is; text is in NumPy arrays."""
        return self._predict(self._checked(X, "predict"))

    def _predict(self, x: Any) -> Array:
        return self._decode(self._network.forward(x))

    def _decode(self, raw: Array) -> Array:
        """Return the labels for outputs of the network."""
        xp = array_namespace(raw)
        if self._labels.kind == "multiclass":
            return self._labels.decode(xp.argmax(raw, axis=1))
        numbers = as_integers(raw > 0.0)
        return self._labels.decode(numbers if self._labels.kind != "binary" else xp.reshape(numbers, (-1,)))

    @available_if(has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (n_samples, n_classes); with several labels, of each label alone."""
        x = self._checked(X, "predict_proba")
        return self._network.predict_proba(x)

    @available_if(has_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`."""
        x = self._checked(X, "predict_log_proba")
        probability = self._network.predict_proba(x)
        with np.errstate(divide="ignore"):
            return array_namespace(probability).log(probability)

    def _validation_score(self, raw: np.ndarray, held_out: Samples) -> float:
        if not np.isfinite(raw).all():
            return float("nan")
        target = held_out.target
        truth = target if target.ndim == 2 else self._labels.classes[target]
        return float(accuracy_score(truth, self._decode(raw), sample_weight=held_out.weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(ScoreMixin, RegressorMixin, _MLP):
    __doc__ = parameters.document(
        "A multi-layer perceptron for regression, with one value or several per row.",
        "MLPRegressor",
        """
    loss : str or portablenn.losses.Loss, default="squared_error"
        "squared_error" and "poisson" mean ½ (p - t)² and half the Poisson deviance, as in scikit-learn; or any other loss of
        values in portablenn.""",
        "",
        """
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> net = MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> net.score(X, X[:, 0] ** 2) > 0.99
    True""",
    )

    _parameter_constraints: ClassVar[dict[str, Any]] = private.CONSTRAINTS["MLPRegressor"] | parameters.CONSTRAINTS

    def __init__(
        self, loss: str | losses.Loss = "squared_error", hidden_layer_sizes: Any = (100,), activation: Any = "relu", *,
        solver: str = "adam", alpha: float = 0.0001, batch_size: int | str = "auto", learning_rate: str = "constant",
        learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
        random_state: Any = None, tol: float = 1e-4, verbose: bool | int = False, warm_start: bool = False,
        momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: int = 10, max_fun: int = 15000, backend: Any = "auto", dtype: Any = None,
        precision: str | None = None, dropout: float = 0.0, batch_norm: bool = False, clip_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:  # fmt: skip
        self._set_parameters(locals())

    _scored: ClassVar[str] = "values"

    def _targets(self, y: Any, x: Any, reset: bool, incremental: bool) -> np.ndarray:
        target = inputs.values(y, x, self)
        if reset:
            self.n_outputs_ = 1 if target.ndim == 1 else target.shape[1]
            self.out_activation_ = "exp" if self.loss == "poisson" else "identity"
        if self.loss == "poisson" and float(target.min()) < 0:
            raise ValueError("Some value(s) of y are out of the valid range of the loss 'HalfPoissonLoss'.")
        return target

    def _loss(self) -> Any:
        if self.loss == "squared_error":
            return losses.HalfSquaredError()
        if losses.get(self.loss).targets == "classes":
            raise ValueError(
                f"loss={self.loss!r} is for classes: expected a loss of values, such as 'squared_error' or 'huber'"
            )
        return self.loss

    @available_if(_is_stochastic)
    @private.validated
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch on X and y, as in `fit`."""
        with self._unchanged_on_error():
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Return values, (n_samples,) or (n_samples, n_outputs), where X is."""
        x = self._checked(X, "predict")
        return self._network.predict(x)

    def _validation_score(self, raw: np.ndarray, held_out: Samples) -> float:
        if not np.isfinite(raw).all():
            return float("nan")
        return float(r2_score(held_out.target, raw, sample_weight=held_out.weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
