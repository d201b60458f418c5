"""Optimizers, in order of increasing complexity: the parameter vector in, the parameter vector out.

Each is its formula, in vectors. ``step`` is an array of shape () in the vectors' dtype, from 0, and stays on the device, as do
the learning rate and the bias corrections, so that one compiled step serves every ``step``.

All of them take ``l1`` and ``l2``, which add l1 ‖W‖₁ + ½ l2 ‖W‖² to the loss (with ``penalty_per_row`` divided by the number of
rows of the batch, or by the sum of their weights, as scikit-learn does); ``weight_decay`` (decoupled: the weights shrink by
rate · weight_decay · W; Loshchilov & Hutter 2019), all three for kernels only, not for biases; and ``clip_norm`` (Pascanu,
Mikolov & Bengio 2013) and ``clip_value``, which clip the gradient first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..program.ir import Array
from .lookup import lookup
from .numbers import check_number, check_positive_integer, is_used, take_numbers_of_numpy
from .schedules import Schedule, rate

Slots = tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer:
    """The base of all optimizers, which differ in `direction`.

    Attributes
    ----------
    learning_rate
        A number, or a function of the step.

    Examples
    --------
    A custom optimizer is a subclass with the direction of a step:

    >>> import numpy as np
    >>> class SignDescent(Optimizer):
    ...     def direction(self, xp, gradient, slots, step, learning_rate):
    ...         return -learning_rate * xp.sign(gradient), slots
    >>> theta, slots = SignDescent(0.5).update(np, np.zeros(2), np.asarray([3.0, -1.0]), (), np.asarray(0))
    >>> theta.tolist()
    [-0.5, 0.5]
    """

    learning_rate: float | Schedule = 0.01
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    clip_value: float | None = field(default=None, kw_only=True)
    penalty_per_row: bool = field(default=False, kw_only=True)

    slots: ClassVar[tuple[str, ...]] = ()
    """The names of the vectors kept from step to step; all start as zeros."""

    fractions: ClassVar[tuple[str, ...]] = ()
    """The names of the fields that must be in [0, 1)."""

    def __post_init__(self) -> None:
        """Validate the fields; NumPy's numbers become Python's."""
        take_numbers_of_numpy(self)
        if not callable(self.learning_rate):
            check_number("learning_rate", self.learning_rate, " or a schedule")
        for name in ("l1", "l2", "weight_decay", "epsilon", *self.fractions):
            check_number(name, getattr(self, name, 0.0))
        for name in self.fractions:
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
        for name in ("clip_norm", "clip_value"):
            bound = getattr(self, name)
            if bound is not None:
                check_number(name, bound)
                if bound == 0:
                    raise ValueError(f"{name} must be a positive number or None, got {bound!r}")

    @property
    def penalizes(self) -> bool:
        """Whether kernels are treated differently from biases."""
        return is_used(self.l1) or is_used(self.l2) or is_used(self.weight_decay)

    def update(
        self, xp: Any, theta: Array, gradient: Array, slots: Slots, step: Array, penalty_mask: Array | None = None
    ) -> tuple[Array, Slots]:
        """Take one step; return the parameters and the slots after it.

        Parameters
        ----------
        xp
            The namespace.
        theta, gradient
            Vectors of the same length: the parameters, and the gradient of the loss.
        slots
            One vector for each name in `slots`.
        step
            The number of the step, from 0; shape ().
        penalty_mask
            A vector of ones for kernels and zeros for the rest; None for all ones.
        """
        return self.apply_gradient(
            xp, theta, self.penalized(xp, gradient, theta, penalty_mask), slots, step, penalty_mask
        )

    def apply_gradient(
        self, xp: Any, theta: Array, gradient: Array, slots: Slots, step: Array, penalty_mask: Array | None = None
    ) -> tuple[Array, Slots]:
        """Clip the gradient, to which penalties have been added, and take one step; training calls this."""
        if self.clip_value is not None:
            gradient = xp.clip(gradient, -self.clip_value, self.clip_value)
        if self.clip_norm is not None:
            norm = xp.sqrt(xp.sum(gradient * gradient))
            gradient = gradient * (self.clip_norm / xp.maximum(norm, self.clip_norm))
        learning_rate = rate(self.learning_rate, step)
        direction, slots = self.direction(xp, gradient, slots, step, learning_rate)
        if is_used(self.weight_decay):
            theta = theta - self.weight_decay * learning_rate * _masked(penalty_mask, theta)
        return theta + direction, slots

    def direction(self, xp: Any, gradient: Array, slots: Slots, step: Array, learning_rate: Any) -> tuple[Array, Slots]:
        """Return what to add to the parameters, and the new slots."""
        raise NotImplementedError

    def penalized(self, xp: Any, gradient: Array, theta: Array, penalty_mask: Array | None) -> Array:
        """Return the gradient of the loss with the l1 and l2 penalties."""
        if is_used(self.l2):
            gradient = gradient + self.l2 * _masked(penalty_mask, theta)
        if is_used(self.l1):
            gradient = gradient + self.l1 * _masked(penalty_mask, xp.sign(theta))
        return gradient

    def penalty(self, xp: Any, theta: Array, penalty_mask: Array | None) -> Array:
        """Return the l1 and l2 penalties, of shape ()."""
        terms = []
        if is_used(self.l2):
            terms.append(0.5 * self.l2 * xp.sum(_masked(penalty_mask, theta) * theta))
        if is_used(self.l1):
            terms.append(self.l1 * xp.sum(_masked(penalty_mask, xp.abs(theta))))
        return sum(terms[1:], start=terms[0])


def _masked(penalty_mask: Array | None, theta: Array) -> Array:
    return theta if penalty_mask is None else theta * penalty_mask


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, θ ← θ - η g; with momentum v ← μ v - η g, θ ← θ + v (Polyak 1964).

    With ``nesterov``, θ ← θ + μ v - η g after the update of v (Sutskever et al. 2013).

    Examples
    --------
    >>> import numpy as np
    >>> theta, g = np.asarray([1.0]), np.asarray([0.5])
    >>> SGD(0.1).update(np, theta, g, (), np.asarray(0.0))[0].tolist()
    [0.95]
    """

    momentum: float = 0.0
    nesterov: bool = False
    fractions: ClassVar[tuple[str, ...]] = ("momentum",)

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        """The velocity, if there is momentum."""
        return ("velocity",) if is_used(self.momentum) else ()

    def direction(self, xp: Any, gradient: Array, slots: Slots, step: Array, learning_rate: Any) -> tuple[Array, Slots]:
        downhill = -learning_rate * gradient
        if not is_used(self.momentum):
            return downhill, ()
        velocity = self.momentum * slots[0] + downhill
        return (self.momentum * velocity + downhill if self.nesterov else velocity), (velocity,)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s ← s + g², θ ← θ - η g / (√s + ε) (Duchi, Hazan & Singer 2011).

    Examples
    --------
    >>> import numpy as np
    >>> Adagrad(0.1).update(np, np.ones(1), np.asarray([0.5]), (np.zeros(1),), np.asarray(0.0))[0].round(6).tolist()
    [0.9]
    """

    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("squares",)

    def direction(self, xp: Any, gradient: Array, slots: Slots, step: Array, learning_rate: Any) -> tuple[Array, Slots]:
        squares = slots[0] + gradient * gradient
        return -learning_rate * gradient / (xp.sqrt(squares) + self.epsilon), (squares,)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s ← ρ s + (1 - ρ) g², θ ← θ - η g / (√s + ε) (Tieleman & Hinton 2012).

    Examples
    --------
    >>> import numpy as np
    >>> theta, g, zero = np.ones(1), np.asarray([0.5]), np.zeros(1)
    >>> RMSprop(0.1, decay=0.75).update(np, theta, g, (zero,), np.asarray(0.0))[0].round(6).tolist()
    [0.8]
    """

    learning_rate: float | Schedule = 0.001
    decay: float = field(default=0.9, metadata={"static": True})  # 1 - decay is computed in float64
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("squares",)
    fractions: ClassVar[tuple[str, ...]] = ("decay",)

    def direction(self, xp: Any, gradient: Array, slots: Slots, step: Array, learning_rate: Any) -> tuple[Array, Slots]:
        squares = self.decay * slots[0] + (1.0 - self.decay) * (gradient * gradient)
        return -learning_rate * gradient / (xp.sqrt(squares) + self.epsilon), (squares,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1): m and s are running means of g and g², both corrected for their start at 0.

    θ ← θ - η m̂ / (√ŝ + ε) with m̂ = m / (1 - β₁ᵗ), ŝ = s / (1 - β₂ᵗ), t from 1. With ``epsilon_hat`` ε is added to √s,
    not √ŝ, as at the end of the paper's section 2 and in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> theta, g, zero = np.asarray([1.0]), np.asarray([0.5]), np.zeros(1)
    >>> Adam(0.1).update(np, theta, g, (zero, zero), np.asarray(0.0))[0].round(6).tolist()
    [0.9]
    """

    learning_rate: float | Schedule = 0.001
    beta_1: float = field(default=0.9, metadata={"static": True})  # 1 - beta_1 is computed in float64
    beta_2: float = field(default=0.999, metadata={"static": True})
    epsilon: float = 1e-8
    epsilon_hat: bool = field(default=False, kw_only=True)
    slots: ClassVar[tuple[str, ...]] = ("mean", "squares")
    fractions: ClassVar[tuple[str, ...]] = (
        "beta_1",
        "beta_2",
    )

    def direction(self, xp: Any, gradient: Array, slots: Slots, step: Array, learning_rate: Any) -> tuple[Array, Slots]:
        """Return the direction; corrections, of shape (), are combined before they meet the vectors, which saves a pass."""
        mean = self.beta_1 * slots[0] + (1.0 - self.beta_1) * gradient
        squares = self.beta_2 * slots[1] + (1.0 - self.beta_2) * (gradient * gradient)
        t = step + 1.0
        root = xp.sqrt(1.0 - xp.pow(self.beta_2, t))
        scale = -learning_rate * root / (1.0 - xp.pow(self.beta_1, t))
        epsilon = self.epsilon if self.epsilon_hat else self.epsilon * root
        return scale * (mean / (xp.sqrt(squares) + epsilon)), (mean, squares)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Examples
    --------
    >>> AdamW(1e-3, weight_decay=0.05).weight_decay
    0.05
    """

    weight_decay: float = field(default=0.01, kw_only=True)


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """Limited-memory BFGS for full batches (Liu & Nocedal 1989), with a line search for the strong Wolfe conditions.

    ``fit`` runs it for at most ``epochs`` iterations, until no element of the gradient exceeds ``tolerance``; each uses all
    rows, whatever ``batch_size`` and ``order`` are. The line search runs on the host; see `lbfgs`.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=LBFGS(), dtype="float64")
    >>> history = net.fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0], epochs=20)
    >>> net.predict([[3.0]]).round(4).tolist()
    [7.0]
    """

    learning_rate: float | Schedule = 1.0
    memory: int = 10
    tolerance: float = 1e-6
    max_evaluations: int = 20
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay or self.clip_norm or self.clip_value or callable(self.learning_rate):
            raise ValueError(
                "LBFGS minimises the loss itself: it supports l1 and l2, but not weight_decay, clipping or schedules"
            )
        check_number("tolerance", self.tolerance)
        for name in ("memory", "max_evaluations", *(["budget"] if self.budget is not None else [])):
            check_positive_integer(name, getattr(self, name))


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, Adagrad, RMSprop, Adam, AdamW, LBFGS)
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return the optimizer of this name with its defaults (`ValueError` if unknown); an optimizer is returned unchanged.

    Examples
    --------
    >>> get("sgd").learning_rate
    0.01
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        raise ValueError(f"{optimizer.__name__} is a class: expected an instance, {optimizer.__name__}(…)")
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    return lookup("optimizer", OPTIMIZERS, name, "an object such as Adam(1e-3)")()
