"""Multi-layer perceptrons for classes and for values, with scikit-learn's names and meaning, on any array library.

Requires scikit-learn. A thin face on `Network`: here are scikit-learn's parameters, its first weights and its order of
the rows (the same ``random_state`` gives the same network as scikit-learn's own), its rules for stopping and the
attributes it promises; the training is the network's.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn import neural_network as reference
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from ..callbacks import Callback
from ..nn import activations, losses, optimizers
from ..nn.layers import BatchNorm, Dense, Dropout
from ..nn.schedules import InverseScaling
from ..program.ir import Array
from ..runtime.arrays import array_namespace, to_numpy
from ..training.network import Network
from . import inputs
from .base import OnNetwork
from .inputs import Labels
from .private import to_sklearn
from .stopping import HalfPoissonDeviance, MeanOfOutputs, Steady, Watch

STOCHASTIC = ("sgd", "adam")
BUILT = ("hidden_layer_sizes", "activation", "loss", "dropout", "batch_norm", "dtype", "backend")
"""The parameters that a network is made of."""
HALF, POISSON = losses.HalfSquaredError(), losses.Poisson()

OURS: dict[str, list[Any]] = {
    "activation": [StrOptions({"logistic", *activations.ACTIVATIONS}), callable, "array-like"],
    "backend": "no_validation",  # type: ignore[dict-item]
    "dtype": "no_validation",  # type: ignore[dict-item]
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "batch_norm": ["boolean"],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "clip_value": [Interval(Real, 0, None, closed="neither"), None],
    "callbacks": [list, tuple],
}
"""What is allowed of the parameters that scikit-learn's own do not have, or have with fewer values."""

PARAMETERS = """
    Parameters
    ----------
    {first}hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter,
    shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction,
    beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As scikit-learn's own estimator has them. ``activation`` may also be any of portablenn's, a function in Array API
        code, or a list of one for each hidden layer.
    backend : default "auto"
        What to train on: "auto" for where X lies, or what `portablenn.get_backend` takes.
    dtype : {{"float32", "float64"}}, default None
        None is float32 for X of float32, else float64.
    dropout : float, default 0
        Share of each hidden layer's outputs that is dropped while training.
    batch_norm : bool, default False
        Whether each hidden layer's outputs are normalised.
    clip_norm, clip_value : float, default None
        Bounds of the gradient's norm, and of its elements; not with "lbfgs".
    callbacks : list
        See `portablenn.callbacks`.

    Attributes
    ----------
    {attributes}coefs_, intercepts_ : list of arrays, (inputs, units) and (units,)
        In the library and on the device of X.
    loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, n_layers_, n_outputs_,
    out_activation_, t_, n_features_in_, feature_names_in_
        As scikit-learn's own estimator has them.
    backend_ : str
        What it was trained on.
    network_ : portablenn.Network
        The network itself."""


def _is_stochastic(estimator: Any) -> bool:
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def _has_probabilities(estimator: Any) -> bool:
    if estimator.loss != "log_loss" and losses.get(estimator.loss).link is None:
        raise AttributeError(f"predict_proba is for losses that have probabilities: loss={estimator.loss!r} has none.")
    return True


class _MLP(OnNetwork):
    """What both have in common: from the parameters to a network, and what is to be told of it."""

    loss_curve_: list[float]
    validation_scores_: list[float] | None

    # Training

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X, (rows, features), and y, (rows,) or (rows, outputs); anew unless ``warm_start``.

        Parameters
        ----------
        X : array of any library, table, sparse matrix or list of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or values.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts.

        Returns
        -------
        self
        """
        with self._whole():
            return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        sizes = self.hidden_layer_sizes
        sizes = [operator.index(n) for n in (sizes if hasattr(sizes, "__iter__") else [sizes])]
        if any(n <= 0 for n in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        if self.early_stopping and incremental and self.solver in STOCHASTIC:
            raise ValueError("partial_fit does not support early_stopping=True")
        anew = not hasattr(self, "_network") or not (self.warm_start or incremental)
        if not anew:
            self._refuse_another_network()
        x = inputs.rows(self, X, reset=anew)
        target = self._targets(y, x, anew, incremental)
        dtype = inputs.float_dtype(self.dtype, x)
        weights = self._weights(target, sample_weight, x, dtype)
        self._random_state = check_random_state(self.random_state)
        if anew:
            self._build(sizes, x.shape[1], dtype)
        if not incremental:
            self._forget_steps()
        if self.solver == "lbfgs":
            self._minimize(x, target, weights)
        else:
            self._descend(x, target, weights, incremental)
        self._settle_where(x)
        if not all(bool(np.isfinite(to_numpy(a)).all()) for a in self._network.parameters.values()):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        return self

    def _forget_steps(self) -> None:
        """What the optimizer remembers of a fit before."""
        self._network.optimizer = optimizers.SGD()
        self._network.steps = 0
        self._going = False

    def _descend(self, x: Any, target: np.ndarray, weights: np.ndarray | None, incremental: bool) -> None:
        network, held_out = self._network, None
        if self.early_stopping:
            x, target, weights, held_out = self._split(x, target, weights)
        count = x.shape[0]
        if self.batch_size == "auto":
            batch = min(200, count)
        else:
            if self.batch_size > count:
                warnings.warn(
                    "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
                )
            batch = int(np.clip(self.batch_size, 1, count))
        steps = -(-count // batch)
        if not (incremental and self._going):
            network.optimizer = self._optimizer_for(count, steps)
            self._going = True
        else:
            network.optimizer = replace(
                network.optimizer, l2=self.alpha, learning_rate=self._rate_of_today(count, steps)
            )
        if not hasattr(self, "best_loss_"):
            self._no_figures()
        self.n_iter_, self._converged = 0, False
        watch = Watch(self, held_out, count)
        order = np.arange(count)

        def shuffled(_: int) -> np.ndarray:
            nonlocal order  # in the order that sklearn.utils.shuffle would put it
            places = np.arange(count)
            self._random_state.shuffle(places)
            order = order[places]
            return order

        epochs = 1 if incremental else self.max_iter
        try:
            self._train(x, target, weights, epochs, batch, shuffled if self.shuffle else "sequential", watch)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        else:
            if not incremental and not self._converged and self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        if watch.best is not None:
            network.state = watch.best

    def _minimize(self, x: Any, target: np.ndarray, weights: np.ndarray | None) -> None:
        network = self._network
        network.optimizer = optimizers.LBFGS(l2=self.alpha, shared=True, tolerance=self.tol, budget=self.max_fun)
        self._train(x, target, weights, self.max_iter, None, "sequential", Steady(self.verbose))
        self.loss_curve_ = list(network.history.get("loss", []))
        self.n_iter_ = len(self.loss_curve_)
        if self.loss_curve_:
            self.loss_ = self.loss_curve_[-1]
        else:
            self.loss_ = network.evaluate(x, inputs.beside(x, target), inputs.beside(x, weights))["loss"]
        self.t_ += self.n_iter_ * x.shape[0]
        spent = network.history.evaluations > self.max_fun
        if spent or self.n_iter_ >= self.max_iter:
            limit = "ITERATIONS" if self.n_iter_ >= self.max_iter else "F,G EVALUATIONS"
            warnings.warn(
                f"lbfgs failed to converge after {self.n_iter_} iteration(s) (status=1):\nSTOP: TOTAL NO. OF {limit} REACHED "
                "LIMIT\n\nIncrease the number of iterations to improve the convergence "
                f"(max_iter={self.max_iter}).",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _train(
        self,
        x: Any,
        target: np.ndarray,
        weights: np.ndarray | None,
        epochs: int,
        batch: int | None,
        order: Any,
        watch: Callback,
    ) -> None:
        network = self._network
        plain = network.model.loss
        if plain in (HALF, POISSON):  # while it learns, the loss has scikit-learn's value, too
            network.model = replace(network.model, loss=MeanOfOutputs() if plain == HALF else HalfPoissonDeviance())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "the loss is", RuntimeWarning)  # scikit-learn says it in its own way
                network.fit(
                    x,
                    inputs.beside(x, target),
                    epochs,
                    batch,
                    order,
                    sample_weight=inputs.beside(x, weights),
                    callbacks=[watch, *self.callbacks],
                )
        finally:
            network.model = replace(network.model, loss=plain)

    def _split(self, x: Any, target: np.ndarray, weights: np.ndarray | None) -> Any:
        """Rows to train on, and rows set apart to judge by."""
        two = is_classifier(self) and self.n_outputs_ == 1
        stratify = target.astype(bool)[:, None] if two else None  # as scikit-learn's own, whose messages name True
        train, apart = train_test_split(
            np.arange(x.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=stratify,
        )
        if len(apart) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return *inputs.part(x, target, weights, train), inputs.part(x, target, weights, apart)

    def _weights(self, target: np.ndarray, sample_weight: Any, x: Any, dtype: str) -> np.ndarray | None:
        return inputs.weights(sample_weight, x, dtype)

    def to_sklearn(self) -> Any:
        """scikit-learn's own estimator, with the weights and the parameters that it knows: it predicts the same."""
        return to_sklearn(self)

    # The network

    def _build(self, sizes: list[int], features: int, dtype: str) -> None:
        """A network with scikit-learn's first weights; and the figures of a training that has not begun."""
        wanted = self._hidden_activations(len(sizes))
        layers: list[Any] = []
        for units, activation in zip(sizes, wanted, strict=True):
            layers.append(Dense(units, activation, kernel_init="zeros"))
            layers += [BatchNorm()] if self.batch_norm else []
            layers += [Dropout(self.dropout)] if self.dropout else []
        layers.append(Dense(self.n_outputs_, kernel_init="zeros"))
        first: dict[str, np.ndarray] = {}
        for i, (a, b) in enumerate(zip([features, *sizes], [*sizes, self.n_outputs_], strict=True), 1):
            logistic = isinstance(self.activation, str) and self.activation == "logistic"
            bound = np.sqrt((2.0 if logistic else 6.0) / (a + b))
            first[f"dense_{i}.kernel"] = self._random_state.uniform(-bound, bound, (a, b))
            first[f"dense_{i}.bias"] = self._random_state.uniform(-bound, bound, b)
        seed = int(self._random_state.randint(2**31 - 1)) if self.dropout else 0
        self._network = Network(layers, features, self._loss(), backend=self.backend, dtype=dtype, seed=seed)
        self._network.set_parameters(first)
        self.n_layers_ = len(sizes) + 2
        self.n_iter_ = self.t_ = 0
        self._going = False
        self._no_improvement_count = 0
        self._built = {name: getattr(self, name) for name in BUILT}
        if self.solver in STOCHASTIC:
            self._no_figures()

    def _no_figures(self) -> None:
        self.loss_curve_ = []
        self.validation_scores_ = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        self.best_loss_ = None if self.early_stopping else np.inf

    def _refuse_another_network(self) -> None:
        changed = [name for name, value in self._built.items() if not np.array_equal(getattr(self, name), value)]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed since the network was made, and a warm start or partial_fit goes on with that: "
                "fit anew, with warm_start=False"
            )

    def _rate_of_today(self, rows: int, steps: int) -> Any:
        """The rate of a call of partial_fit after the first: of the same size the schedule goes on."""
        rate = self._network.optimizer.learning_rate
        if isinstance(rate, InverseScaling) and (rate.rows, rate.steps) != (rows, steps):
            return self.learning_rate_init / (self.t_ + 1) ** self.power_t
        if self.learning_rate == "invscaling" and self.solver == "sgd" and not isinstance(rate, InverseScaling):
            return self.learning_rate_init / (self.t_ + 1) ** self.power_t
        return rate

    def _hidden_activations(self, count: int) -> Sequence[Any]:
        given = self.activation
        if isinstance(given, str) or callable(given):
            given = [given] * count
        if len(given) != count:
            raise ValueError(
                f"activation has {len(given)} entries and there are {count} hidden layers: expected as many"
            )
        return ["sigmoid" if a == "logistic" else a for a in given]

    def _optimizer_for(self, rows: int, steps: int) -> optimizers.Optimizer:
        common = {"l2": self.alpha, "shared": True, "clip_norm": self.clip_norm, "clip_value": self.clip_value}
        if self.solver == "adam":
            moments = (self.beta_1, self.beta_2, self.epsilon)
            return optimizers.Adam(self.learning_rate_init, *moments, epsilon_hat=True, **common)
        rate: Any = self.learning_rate_init
        if self.learning_rate == "invscaling":
            rate = InverseScaling(rate, self.power_t, steps, rows, self.t_)
        return optimizers.SGD(rate, self.momentum, self.nesterovs_momentum and self.momentum > 0, **common)

    # What it is

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (inputs, units)."""
        return self._pieces("coefs_", "kernel")

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (units,)."""
        return self._pieces("intercepts_", "bias")

    def _pieces(self, name: str, kind: str) -> list[Array]:
        parameters = self._fitted(name).parameters
        return [self._near(parameters[f"dense_{i}.{kind}"]) for i in range(1, self.n_layers_)]

    @property
    def _coef(self) -> Array:
        return self.coefs_[0]

    def _validation_score(self, x: Any, target: np.ndarray, weights: np.ndarray | None) -> float:
        raise NotImplementedError


class MLPClassifier(ClassifierMixin, _MLP):
    __doc__ = f"""A multi-layer perceptron that tells classes apart: of one label a row, or of several.

    Drop-in for ``sklearn.neural_network.MLPClassifier``, on the library and device of X.
    {
        PARAMETERS.format(
            first='''loss : str or portablenn.losses.Loss, default "log_loss"
        Or another of portablenn's losses of classes.
    class_weight : dict, "balanced" or list of dict, default None
        Weights of classes, times the rows' own.
    ''',
            attributes='''classes_ : array
        The labels; of the library of X under scikit-learn's dispatch.
    ''',
        )
    }

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **reference.MLPClassifier._parameter_constraints,
        **OURS,
        "loss": [str, losses.Loss],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        loss: str | losses.Loss = "log_loss",
        class_weight: Any = None,
        backend: Any = "auto",
        dtype: Any = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._keep(locals())

    def _targets(self, y: Any, x: Any, anew: bool, incremental: bool) -> np.ndarray:
        target = inputs.targets(y, x, self)
        if anew and not (incremental and hasattr(self, "_labels")):
            self._settle(Labels.of(target), x)
        elif self.warm_start and not incremental:
            found = unique_labels(target)
            if set(found) != set(self._labels.classes):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                    f"got {self._labels.classes}, `y` has {found}"
                )
        elif not self._labels.known(target):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self._labels.classes}. 'y' has "
                f"{unique_labels(target)}."
            )
        return self._labels.numbers(target)

    def _settle(self, labels: Labels, x: Any) -> None:
        self._labels = labels
        self.n_outputs_ = labels.outputs
        self.out_activation_ = "softmax" if labels.kind == "multiclass" else "logistic"
        self.classes_ = inputs.under_dispatch(labels.classes, x)

    def _loss(self) -> Any:
        if self.loss != "log_loss":
            if losses.get(self.loss).targets != "classes":
                raise ValueError(
                    f"loss={self.loss!r} is for values: expected a loss of classes, such as 'log_loss' or 'hinge'"
                )
            return self.loss
        return "softmax_cross_entropy" if self._labels.kind == "multiclass" else "sigmoid_cross_entropy"

    def _weights(self, target: np.ndarray, sample_weight: Any, x: Any, dtype: str) -> np.ndarray | None:
        own = super()._weights(target, sample_weight, x, dtype)
        if self.class_weight is None:
            return own
        labels = target if target.ndim == 2 else self._labels.classes[target]
        by_class = compute_sample_weight(self.class_weight, labels).astype(dtype)
        return by_class if own is None else by_class * own

    @available_if(_is_stochastic)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
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
        with self._whole():
            self._settle_all(classes, X, y)
            return self._fit(X, y, sample_weight, incremental=True)

    def _settle_all(self, classes: Any, X: Any, y: Any) -> None:
        """All classes there will be: in the first call they are learnt, in the others they must be the same."""
        labels = getattr(self, "_labels", None)
        inputs.all_classes(labels, classes)
        if labels is None:
            target = inputs.targets(y, X, self)
            several = type_of_target(target).startswith("multilabel")
            self._settle(Labels.of(target, None if several else classes), X)

    def predict(self, X: Any) -> Array:
        """The label of each row, (n_samples,), or rows of 0 and 1; where X is, but for labels of text, which NumPy has."""
        return self._predicted(self._checked(X, "predict"))

    def _predicted(self, x: Any) -> Array:
        raw = self._network.forward(x)
        xp = array_namespace(raw)
        if self._labels.kind == "multiclass":
            return self._labels.labels(xp.argmax(raw, axis=1))
        numbers = xp.astype(raw > 0.0, xp.int64 if xp.arange(1).dtype == xp.int64 else xp.int32)
        return self._labels.labels(numbers if self._labels.kind != "binary" else xp.reshape(numbers, (-1,)))

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n_samples, n_classes); of each label by itself where a row has several."""
        x = self._checked(X, "predict_proba")
        return self._network.predict_proba(x)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`."""
        x = self._checked(X, "predict_log_proba")
        probability = self._network.predict_proba(x)
        with np.errstate(divide="ignore"):
            return array_namespace(probability).log(probability)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy, as scikit-learn's own; also of arrays that NumPy does not read by itself."""
        return inputs.score(super().score, accuracy_score, self, X, y, sample_weight)

    def _validation_score(self, x: Any, target: np.ndarray, weights: np.ndarray | None) -> float:
        raw = to_numpy(self._network.forward(x))
        if not np.isfinite(raw).all():
            return float("nan")
        guess = to_numpy(self._predicted(x))
        truth = target if target.ndim == 2 else self._labels.classes[target]
        return float(accuracy_score(truth, guess, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        """With several labels a row."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _MLP):
    __doc__ = f"""A multi-layer perceptron that predicts values, one or several a row.

    Drop-in for ``sklearn.neural_network.MLPRegressor``, on the library and device of X.
    {
        PARAMETERS.format(
            first='''loss : str or portablenn.losses.Loss, default "squared_error"
        "squared_error" and "poisson" mean ½ (p - t)² and half the Poisson deviance, as in scikit-learn; or another of
        portablenn's losses.
    ''',
            attributes="",
        )
    }

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2).score(X, X[:, 0] ** 2) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **reference.MLPRegressor._parameter_constraints,
        **OURS,
        "loss": [str, losses.Loss],
    }

    def __init__(
        self,
        loss: str | losses.Loss = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        backend: Any = "auto",
        dtype: Any = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._keep(locals())

    def _targets(self, y: Any, x: Any, anew: bool, incremental: bool) -> np.ndarray:
        target = inputs.values(y, x, self)
        if anew:
            self.n_outputs_ = 1 if target.ndim == 1 else target.shape[1]
            self.out_activation_ = "exp" if self.loss == "poisson" else "identity"
        if self.loss == "poisson" and float(target.min()) < 0:
            raise ValueError("Some value(s) of y are out of the valid range of the loss 'HalfPoissonLoss'.")
        return target

    def _loss(self) -> Any:
        loss = {"squared_error": HALF, "poisson": POISSON}.get(self.loss) if isinstance(self.loss, str) else None
        if loss is None and losses.get(self.loss).targets == "classes":
            raise ValueError(
                f"loss={self.loss!r} is for classes: expected a loss of values, such as 'squared_error' or 'huber'"
            )
        return loss or self.loss

    @available_if(_is_stochastic)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Go once through X and y, as in `fit`.

        Returns
        -------
        self
        """
        with self._whole():
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Values, (n_samples,) or (n_samples, n_outputs), where X is."""
        x = self._checked(X, "predict")
        return self._network.predict(x)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², as scikit-learn's own; also of arrays that NumPy does not read by itself."""
        return inputs.score(super().score, r2_score, self, X, y, sample_weight)

    def _validation_score(self, x: Any, target: np.ndarray, weights: np.ndarray | None) -> float:
        guess = to_numpy(self._network.predict(x))
        return float(r2_score(target, guess, sample_weight=weights)) if np.isfinite(guess).all() else float("nan")

    def __sklearn_tags__(self) -> Any:
        """With several outputs."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
