"""Losses: one number for a batch, from raw outputs and targets.

Each loss is its formula for a row; weighting and reduction are common to all. A function of (predictions, targets) in
Array API code that returns one number for each row, or one for the batch, is a loss, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of, stop_gradient
from . import activations
from .lookup import lookup
from .numbers import check_number, is_used, take_numbers_of_numpy


@dataclass(frozen=True)
class Loss:
    """The base of all losses.

    Parameters
    ----------
    reduction
        "mean" over the rows (weighted, if rows have weights), or "sum". The loss of a row is the sum over its outputs.

    Attributes
    ----------
    targets : str
        The kind of the targets: "values", (rows, outputs); "classes", class labels, or 0 and 1 for one output; or
        "counts", values of at least 0.
    signed : bool
        Whether the formula takes classes as -1 and 1 instead of 0 and 1.
    exclusive : bool
        Whether each row has exactly one class (softmax), so that several labels per row are not possible.
    link : callable or None
        The function from raw outputs to the values or probabilities that they represent, if any (the inverse of what is
        called the link function of a generalized linear model).

    Examples
    --------
    A custom loss is a subclass with a formula for each output:

    >>> import numpy as np
    >>> class Quartic(Loss):
    ...     def elements(self, xp, p, t):
    ...         return (p - t) ** 4
    >>> float(Quartic()(np.asarray([[2.0], [0.0]]), np.asarray([[0.0], [0.0]])))
    8.0
    """

    reduction: str = "mean"
    targets: ClassVar[str] = "values"
    signed: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False
    link: ClassVar[Any] = staticmethod(activations.identity)

    def __post_init__(self) -> None:
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f'reduction must be "mean" or "sum", got {self.reduction!r}')

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """Return the loss of a batch, an array of shape ().

        Parameters
        ----------
        predictions
            Raw outputs, (rows, outputs).
        targets
            (rows, outputs) in the predictions' dtype; class numbers, integers of shape (rows,), for losses of classes.
        weights
            One number for each row, (rows,), or None.

        Raises
        ------
        ValueError
            For arrays of other shapes, which would broadcast.
        """
        rows = self.of_rows(predictions, targets)
        return reduced(array_namespace(rows), rows, weights, self.reduction)

    def of_rows(self, predictions: Array, targets: Array) -> Array:
        """Return the loss of each row, (rows,), of predictions and targets as `__call__` takes them."""
        xp = array_namespace(predictions, targets)
        self._check_shapes(predictions, targets)
        if targets.ndim == 1:
            targets = one_hot(targets, predictions.shape[1], predictions.dtype)
        return self.rows(xp, predictions, 2.0 * targets - 1.0 if self.signed else targets)

    def _check_shapes(self, predictions: Array, targets: Array) -> None:
        p, t = tuple(predictions.shape), tuple(targets.shape)
        if len(p) != 2:
            raise ValueError(f"expected predictions of shape (rows, outputs), got {p}")
        if t != p and not (self.targets == "classes" and t == p[:1]):
            classes = f", or class numbers of shape {p[:1]}" if self.targets == "classes" else ""
            raise ValueError(f"expected targets of the predictions' shape, {p}{classes}, got {t}")

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the loss of each row, (rows,)."""
        return xp.sum(self.elements(xp, p, t), axis=1)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the loss of each output of each row, (rows, outputs)."""
        raise NotImplementedError


def reduced(xp: Any, rows: Array, weights: Array | None, reduction: str) -> Array:
    """Return the mean (Σ w l / Σ w) or the sum (Σ w l) of the rows' losses; 0 where all weights are 0."""
    if weights is not None and tuple(weights.shape) != tuple(rows.shape):
        raise ValueError(f"expected weights of shape {tuple(rows.shape)}, one for each row, got {tuple(weights.shape)}")
    if weights is None:
        return xp.mean(rows) if reduction == "mean" else xp.sum(rows)
    total = xp.sum(rows * weights)
    return total * inverse(xp, xp.sum(weights)) if reduction == "mean" else total


def inverse(xp: Any, total: Array) -> Array:
    """Return 1 / total, and 0 for 0: a batch whose weights are all 0 changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> inverse(np, np.asarray([4.0, 0.0])).tolist()
    [0.25, 0.0]
    """
    counts = total > 0.0
    return xp.where(counts, 1.0 / xp.where(counts, total, 1.0), 0.0)


def one_hot(classes: Array, count: int, dtype: Any) -> Array:
    """Return class numbers, (rows,), as rows of ``count`` zeros with a 1 at the class; for a count of 1 the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> one_hot(np.asarray([1, 0]), 3, np.float32).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    xp = array_namespace(classes)
    column = xp.expand_dims(classes, axis=1)
    if count == 1:
        return xp.astype(column, dtype)
    numbers = xp.arange(count, dtype=classes.dtype, device=device_of(classes))
    return xp.astype(column == numbers, dtype)


class SquaredError(Loss):
    """(p - t)².

    Examples
    --------
    >>> import numpy as np
    >>> float(SquaredError()(np.asarray([[3.0]]), np.asarray([[1.0]])))
    4.0
    """

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return xp.square(p - t)


class HalfSquaredError(Loss):
    """½ (p - t)², whose derivative is p - t.

    Examples
    --------
    >>> import numpy as np
    >>> float(HalfSquaredError()(np.asarray([[3.0]]), np.asarray([[1.0]])))
    2.0
    """

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return 0.5 * xp.square(p - t)


class AbsoluteError(Loss):
    """|p - t|.

    Examples
    --------
    >>> import numpy as np
    >>> float(AbsoluteError()(np.asarray([[3.0]]), np.asarray([[1.0]])))
    2.0
    """

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return xp.abs(p - t)


@dataclass(frozen=True)
class Huber(Loss):
    """½ e² for an error |e| ≤ δ, else δ (|e| - ½ δ) (Huber 1964).

    Examples
    --------
    >>> import numpy as np
    >>> float(Huber()(np.asarray([[3.0]]), np.asarray([[1.0]])))
    1.5
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        take_numbers_of_numpy(self)
        check_number("delta", self.delta)
        if self.delta == 0:
            raise ValueError("delta must be positive: with 0 the loss is 0 for every error")

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """Return c (|e| - ½ c) with c = min(|e|, δ), which is both cases."""
        error = xp.abs(p - t)
        inner = xp.minimum(error, self.delta)
        return inner * (error - 0.5 * inner)


class Poisson(Loss):
    """exp(p) - t p: the raw output is the logarithm of the rate, which ``predict`` returns.

    Examples
    --------
    >>> import numpy as np
    >>> float(Poisson()(np.asarray([[0.0]]), np.asarray([[2.0]])))
    1.0
    """

    targets = "counts"

    @staticmethod
    def link(p: Array) -> Array:
        """Return the rate."""
        return array_namespace(p).exp(p)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return xp.exp(p) - t * p


class SigmoidCrossEntropy(Loss):
    """-t log σ(p) - (1 - t) log(1 - σ(p)) of logits p, as log(1 + eᵖ) - t p, which never overflows.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(SigmoidCrossEntropy()(np.asarray([[0.0]]), np.asarray([1]))), 6)
    0.693147
    """

    targets = "classes"

    @staticmethod
    def link(p: Array) -> Array:
        """Return the probability; a small one keeps all its digits, too."""
        xp = array_namespace(p)
        small = xp.exp(-xp.abs(p))
        return xp.where(p >= 0.0, 1.0, small) / (1.0 + small)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return activations.softplus(p) - t * p


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """-Σ t log softmax(p) of logits p, as log Σ eᵖ - Σ t p, after the largest logit is subtracted.

    With ``label_smoothing`` ε, the targets are (1 - ε) t + ε / classes (Szegedy et al. 2016).

    Examples
    --------
    >>> import numpy as np
    >>> round(float(SoftmaxCrossEntropy()(np.asarray([[0.0, 0.0]]), np.asarray([1]))), 6)
    0.693147
    """

    label_smoothing: float = 0.0
    targets = "classes"
    exclusive = True
    link = staticmethod(activations.softmax)

    def __post_init__(self) -> None:
        super().__post_init__()
        take_numbers_of_numpy(self)
        check_number("label_smoothing", self.label_smoothing)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing!r}")

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the loss of each row, whose targets sum to 1."""
        logits = p - stop_gradient(xp.max(p, axis=1, keepdims=True))
        if is_used(self.label_smoothing):
            t = (1.0 - self.label_smoothing) * t + self.label_smoothing / p.shape[1]
        return xp.log(xp.sum(xp.exp(logits), axis=1)) - xp.sum(t * logits, axis=1)


class Hinge(Loss):
    """max(0, 1 - t p) for classes t of -1 and 1 (Cortes & Vapnik 1995).

    Examples
    --------
    >>> import numpy as np
    >>> float(Hinge()(np.asarray([[0.25]]), np.asarray([1])))
    0.75
    """

    targets = "classes"
    signed = True
    link = None

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        return xp.maximum(0.0, 1.0 - t * p)


class Perceptron(Loss):
    """max(0, -t p) for classes t of -1 and 1: its gradient is Rosenblatt's rule (1958), which also moves at p = 0.

    Examples
    --------
    >>> import numpy as np
    >>> float(Perceptron()(np.asarray([[-0.25]]), np.asarray([1])))
    0.25
    """

    targets = "classes"
    signed = True
    link = None

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """Return the formula of the class; at a tie the second argument has the gradient."""
        return xp.maximum(0.0, -t * p)


@dataclass(frozen=True)
class Custom(Loss):
    """A user's function of (predictions, targets)."""

    function: Callable[[Array, Array], Array] | None = None

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """Return the loss of a batch: one number for each row is reduced, one for the batch is returned unchanged."""
        rows = self.of_rows(predictions, targets)
        if rows.shape:
            return reduced(array_namespace(rows), rows, weights, self.reduction)
        if weights is not None:
            raise ValueError(
                "weights need a loss for each row: expected a loss function that returns shape (rows,), got ()"
            )
        return rows

    def of_rows(self, predictions: Array, targets: Array) -> Array:
        """Return the loss of each row, (rows,), or of the batch, (), as the function does."""
        assert self.function is not None
        self._check_shapes(predictions, targets)
        rows = self.function(predictions, targets)
        if not hasattr(rows, "shape"):
            raise TypeError(f"expected a loss function that returns an array, got {type(rows).__name__}")
        shape, whole = tuple(rows.shape), tuple(predictions.shape)
        count = whole[:1]
        if shape not in ((), count, whole):
            hint = f"; ({count[0]},) and ({count[0]}, 1) broadcast to that" if shape == count * 2 else ""
            raise ValueError(
                f"the loss returned shape {shape} for predictions {whole} and targets {tuple(targets.shape)}: expected {whole} "
                f"(each output), {count} (each row) or () (the batch){hint}"
            )
        return array_namespace(rows).sum(rows, axis=1) if len(shape) == 2 else rows


LOSSES: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "half_squared_error": HalfSquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "poisson": Poisson,
    "sigmoid_cross_entropy": SigmoidCrossEntropy,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "hinge": Hinge,
    "perceptron": Perceptron,
}

NAMES = LOSSES | {"mse": SquaredError, "mae": AbsoluteError}
"""Names of losses, with second names. Unlike Keras's, "mse" and "mae" are sums over a row's outputs."""


def get(loss: str | Loss | Callable[[Array, Array], Array]) -> Loss:
    """Return the loss of this name (`ValueError` if unknown); a loss is returned unchanged, a function as a loss.

    Examples
    --------
    >>> import numpy as np
    >>> float(get("squared_error")(np.asarray([[1.0], [2.0]]), np.asarray([[0.0], [0.0]])))
    2.5
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Custom(function=loss)
    return lookup("loss", NAMES, loss, "a function of (predictions, targets)")()
