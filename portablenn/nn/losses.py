"""Losses: one number for a batch, from raw outputs and targets.

Requires nothing of any library. Each loss is its formula for a row; weighting and reduction are common to all. A
function of (predictions, targets) in Array API code that returns one number a row, or one for the batch, serves too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of, stop_gradient
from . import activations
from .lookup import lookup


@dataclass(frozen=True)
class Loss:
    """What all losses have in common.

    Parameters
    ----------
    reduction
        "mean" over the rows (weighted, if rows have weights), or "sum". A row's loss is the sum over its outputs.

    Attributes
    ----------
    targets : str
        What the targets are: "values" (rows, outputs), "classes" (labels of one-of-many, or 0 and 1 for one output), or
        "counts" (non-negative values).
    signed : bool
        Whether classes are told to the formula as -1 and 1 instead of 0 and 1.
    exclusive : bool
        Whether a row has exactly one class, however its targets are given.
    link : callable
        From raw outputs to the values or probabilities that they stand for; None where they stand for none.

    Examples
    --------
    A loss of one's own is a subclass with a formula for each output:

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
        """Refuse what cannot be meant."""
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f'reduction is "mean" or "sum", found {self.reduction!r}')

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """The loss of a batch.

        Parameters
        ----------
        predictions
            Raw outputs, (rows, outputs).
        targets
            (rows, outputs) in the predictions' dtype; class numbers, integers of shape (rows,), for losses of classes.
        weights
            One number a row, (rows,), or None.

        Returns
        -------
        array
            Of shape ().
        """
        xp = array_namespace(predictions, targets)
        if self.targets == "classes" and targets.ndim == 1:
            targets = one_hot(targets, predictions.shape[1], predictions.dtype)
        rows = self.rows(xp, predictions, 2.0 * targets - 1.0 if self.signed else targets)
        return reduced(xp, rows, weights, self.reduction)

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """The loss of each row, (rows,)."""
        return xp.sum(self.elements(xp, p, t), axis=1)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """The loss of each output of each row, (rows, outputs)."""
        raise NotImplementedError


def reduced(xp: Any, rows: Array, weights: Array | None, reduction: str) -> Array:
    """The mean (Σ w l / Σ w) or the sum (Σ w l) of the rows' losses; 0 where all weights are 0."""
    if weights is None:
        return xp.mean(rows) if reduction == "mean" else xp.sum(rows)
    total = xp.sum(rows * weights)
    return total * inverse(xp, xp.sum(weights)) if reduction == "mean" else total


def inverse(xp: Any, total: Array) -> Array:
    """1 / total of weights, and 0 for none: a batch of rows that do not count changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> inverse(np, np.asarray([4.0, 0.0])).tolist()
    [0.25, 0.0]
    """
    counts = total > 0.0
    return xp.where(counts, 1.0 / xp.where(counts, total, 1.0), 0.0)


def one_hot(classes: Array, count: int, dtype: Any) -> Array:
    """Class numbers, (rows,), as rows of ``count`` zeros with a 1 in the class's place; of one output, the number.

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
        """See the class."""
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
        """See the class."""
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
        """See the class."""
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

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """With c = min(|e|, δ) both cases are c (|e| - ½ c)."""
        error = xp.abs(p - t)
        inner = xp.minimum(error, self.delta)
        return inner * (error - 0.5 * inner)


class Poisson(Loss):
    """exp(p) - t p: the network's raw output is the logarithm of the rate; ``predict`` returns the rate.

    Examples
    --------
    >>> import numpy as np
    >>> float(Poisson()(np.asarray([[0.0]]), np.asarray([[2.0]])))
    1.0
    """

    targets = "counts"

    @staticmethod
    def link(p: Array) -> Array:
        """The rate."""
        return array_namespace(p).exp(p)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """See the class."""
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
        """The probability, of which also a small one keeps all its digits."""
        xp = array_namespace(p)
        small = xp.exp(-xp.abs(p))
        return xp.where(p >= 0.0, 1.0, small) / (1.0 + small)

    def elements(self, xp: Any, p: Array, t: Array) -> Array:
        """See the class."""
        return activations.softplus(p) - t * p


class SoftmaxCrossEntropy(Loss):
    """-Σ t log softmax(p) of logits p, as log Σ eᵖ - Σ t p, with the largest logit taken off first.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(SoftmaxCrossEntropy()(np.asarray([[0.0, 0.0]]), np.asarray([1]))), 6)
    0.693147
    """

    targets = "classes"
    exclusive = True
    link = staticmethod(activations.softmax)

    def rows(self, xp: Any, p: Array, t: Array) -> Array:
        """Targets of a row sum to 1."""
        logits = p - stop_gradient(xp.max(p, axis=1, keepdims=True))
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
        """See the class."""
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
        """A tie gives its gradient to the second argument."""
        return xp.maximum(0.0, -t * p)


@dataclass(frozen=True)
class Custom(Loss):
    """A user's own function of (predictions, targets)."""

    function: Callable[[Array, Array], Array] | None = None

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """What the function returns: one number a row is reduced, one for the batch stays."""
        assert self.function is not None
        xp = array_namespace(predictions, targets)
        rows = self.function(predictions, targets)
        if not hasattr(rows, "ndim"):
            raise TypeError(
                f"the loss function returns {type(rows).__name__}: expected an array of a loss a row, or one loss"
            )
        if rows.ndim == 2:
            rows = xp.sum(rows, axis=1)
        if rows.ndim == 1:
            return reduced(xp, rows, weights, self.reduction)
        if weights is not None:
            raise ValueError(
                "weights need a loss of each row: let the loss function return an array of shape (rows,), "
                "not one number"
            )
        return rows


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
    """Return the loss of this name; a loss is returned as it is, and a function as a loss.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.

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
