"""The mathematics of a network as pure functions: initial values, forward pass, objective, and one training step.

Models are compared by value, so that equal networks share their compiled programs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..program.ir import Array, ArrayType, DType, dtype_name
from ..program.trace import trace
from ..random import WEIGHTS, Stream, new_key
from ..runtime.arrays import array_namespace
from ..transforms.grad import value_and_grad
from ..transforms.precision import check_precision, with_precision
from . import layers as own_layers
from .flat_params import FlatParams
from .losses import Loss, inverse
from .numbers import is_used
from .optimizers import Optimizer


class State(NamedTuple):
    """The arrays that a step updates: the vectors of parameters, optimizer slots and layer statistics."""

    theta: Array
    slots: tuple[Array, ...]
    statistics: Array


class Batches(NamedTuple):
    """The inputs of a step besides the state."""

    x: Array  # (rows, inputs), any real dtype; converted batch by batch
    y: Array  # (rows,) class numbers, or (rows, outputs)
    weights: Array | None  # (rows,)
    order: Array | None  # (steps, batch) row numbers; None if every step takes all rows in their order
    keys: Array | None  # (layers, 2), int32: the keys of the layers' random numbers
    first_step: Array  # int32, (): the number of the first step


@dataclass(frozen=True)
class Model:
    """A network without its state."""

    layers: tuple[tuple[str, Any], ...]  # pairs of a name and a layer
    parameters: FlatParams
    statistics: FlatParams
    loss: Loss  # which is minimized
    optimizer: Optimizer
    dtype: str  # of parameters and computations, such as "float32"
    precision: str | None = (
        None  # what the factors of matrix products are rounded to, "tf32" or "bfloat16"; None: nothing
    )
    report_loss: Loss | None = None  # what history, `evaluate` and the line search of L-BFGS report; None for `loss`

    def __post_init__(self) -> None:
        for part in (*(layer for _, layer in self.layers), self.loss, self.optimizer, self.report_loss):
            _check_equality(part)
        check_precision(self.precision)
        if self.precision is not None and self.dtype != "float32":
            raise ValueError(
                f"precision={self.precision!r} is for dtype='float32', got dtype={str(self.dtype)!r}: pass dtype='float32'"
            )
        if self.reported.reduction != self.loss.reduction:
            raise ValueError(
                f"expected report_loss with reduction {self.loss.reduction!r}, as loss has, got {self.reported.reduction!r}"
            )

    @functools.cached_property
    def functions(self) -> tuple[Any, ...]:
        """Functions and objects of users in layers, losses and optimizer; what they read besides their arguments may change."""
        parts = (*(layer for _, layer in self.layers), self.loss, self.optimizer, self.report_loss)
        return tuple(function for part in parts for function in _functions_of(part))

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, without the functions that were found in them, which may not be picklable by themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "functions"}

    @property
    def reported(self) -> Loss:
        """The loss whose value is reported."""
        return self.loss if self.report_loss is None else self.report_loss

    def forward(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return the raw outputs, (rows, outputs), as in prediction; of the vector of parameters, or its arrays by name."""
        params = theta if isinstance(theta, dict) else self.parameters.split(array_namespace(theta), theta)
        return with_precision(self._forward, self.precision)(params, statistics, x)[0]

    def _forward(
        self,
        params: dict[str, Array],
        statistics: Array,
        x: Array,
        training: bool = False,
        keys: Array | None = None,
        step: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the raw outputs, and the statistics after this batch."""
        xp = array_namespace(x, statistics, *params.values())
        x = xp.astype(x, getattr(xp, self.dtype))
        updated = self.statistics.split(xp, statistics)
        for number, (name, layer) in enumerate(self.layers):
            prefix = f"{name}."
            own = {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}
            own |= self.statistics.split(xp, statistics, prefix)
            facts: dict[str, Any] = {"training": training, "random": None}
            if keys is not None and step is not None:
                facts["random"] = Stream(xp.reshape(keys[number : number + 1, :], (2,)), step)
            if training and hasattr(layer, "update_statistics"):
                new = layer.update_statistics(xp, own, x)
                updated |= {prefix + key: value for key, value in new.items()}
            x = layer.apply(xp, own, x, **{f: facts[f] for f in accepted(layer) if f in facts})
        return x, self.statistics.join(xp, updated, statistics)

    def objective(
        self, theta: Array, statistics: Array, batch: Batches, step: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """Return ((reported loss of a batch, new statistics), gradient of the loss), the gradient as one vector."""
        xp = array_namespace(theta)

        def loss_of(params: dict[str, Array]) -> tuple[Array, tuple[Array, Array]]:
            forward = with_precision(self._forward, self.precision)
            outputs, updated = forward(params, statistics, batch.x, True, batch.keys, step)
            facts = outputs, self.as_targets(batch.y), batch.weights
            loss = self.loss(*facts)
            return loss, (loss if self.report_loss is None else self.report_loss(*facts), updated)

        (_, reported), gradients = value_and_grad(loss_of, has_aux=True)(self.parameters.split(xp, theta))
        return reported, self.parameters.join(xp, gradients, theta)

    def penalized_objective(
        self, theta: Array, statistics: Array, batch: Batches, penalty_mask: Array | None, step: Array
    ) -> tuple[Array, Array, Array]:
        """Return the loss with penalties, its gradient, and the new statistics."""
        xp = array_namespace(theta)
        (loss, updated), gradient = self.objective(theta, statistics, batch, step)
        optimizer = self.optimizer
        if is_used(optimizer.l1) or is_used(optimizer.l2):
            if optimizer.penalty_per_row:
                assert penalty_mask is not None
                count = batch.x.shape[0]
                penalty_mask = penalty_mask * (
                    1.0 / count if batch.weights is None else inverse(xp, xp.sum(batch.weights))
                )
            loss = loss + optimizer.penalty(xp, theta, penalty_mask)
            gradient = optimizer.penalized(xp, gradient, theta, penalty_mask)
        return loss, gradient, updated

    def step(self, iteration: Array, state: State, batches: Batches, penalty_mask: Array | None) -> tuple[State, Array]:
        """Take one training step; return the new state, and the loss of the batch before it, with penalties.

        ``iteration`` is an int32 array of shape (), from 0: the number of the step in this run.
        """
        xp = array_namespace(state.theta)
        step_number = batches.first_step + iteration
        batch = self.batch(xp, iteration, batches)
        loss, gradient, statistics = self.penalized_objective(
            state.theta, state.statistics, batch, penalty_mask, step_number
        )
        step = xp.astype(step_number, getattr(xp, self.dtype))
        theta, slots = self.optimizer.apply_gradient(xp, state.theta, gradient, state.slots, step, penalty_mask)
        return State(theta, slots, statistics), loss

    def batch(self, xp: Any, iteration: Array, batches: Batches) -> Batches:
        """Return the rows of one step."""
        if batches.order is None:
            return batches
        rows = xp.take(batches.order, xp.reshape(iteration, (1,)), axis=0)
        rows = xp.reshape(rows, (batches.order.shape[1],))
        x, y = (xp.take(a, rows, axis=0) for a in (batches.x, batches.y))
        weights = None if batches.weights is None else xp.take(batches.weights, rows, axis=0)
        return batches._replace(x=x, y=y, weights=weights, order=None)

    def as_targets(self, y: Array) -> Array:
        """Return targets of two dimensions in the model's dtype, and class numbers unchanged."""
        xp = array_namespace(y)
        return y if y.ndim == 1 else xp.astype(y, getattr(xp, self.dtype))

    def evaluate_batch(
        self, theta: Array, statistics: Array, x: Array, y: Array, weights: Array | None
    ) -> tuple[Array, Array]:
        """Return the reported loss of some rows, and the number, or the weight, of those whose class is predicted correctly."""
        xp = array_namespace(theta, x)
        outputs = self.forward(theta, statistics, x)
        loss = self.reported(outputs, self.as_targets(y), weights)
        if self.loss.targets != "classes":
            return loss, xp.zeros_like(loss)
        correct = self.correct(xp, outputs, y)
        return loss, xp.sum(correct if weights is None else correct * weights)

    def correct(self, xp: Any, outputs: Array, y: Array) -> Array:
        """Return 1 for each row whose class is predicted correctly, else 0, (rows,); for rows of several labels the share."""
        if outputs.shape[1] == 1:
            hit = xp.reshape(outputs > 0.0, (-1,)) == (xp.reshape(y, (-1,)) > 0)
        elif y.ndim == 1:
            hit = xp.astype(xp.argmax(outputs, axis=1), xp.int32) == xp.astype(y, xp.int32)
        elif self.loss.exclusive:
            hit = xp.argmax(outputs, axis=1) == xp.argmax(y, axis=1)
        else:
            return xp.mean(xp.astype((outputs > 0.0) == (y > 0), outputs.dtype), axis=1)
        return xp.astype(hit, outputs.dtype)

    def classes(self, outputs: Array) -> Array:
        """Return the most likely class of each row, (rows,)."""
        xp = array_namespace(outputs)
        if outputs.shape[1] == 1:
            return xp.astype(xp.reshape(outputs > 0.0, (-1,)), xp.int32)
        return xp.argmax(outputs, axis=1)

    # Predictions: functions of parameters, statistics and rows, as `forward` is

    def labels(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return class numbers, (rows,)."""
        return self.classes(self.forward(theta, statistics, x))

    def signed_labels(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return -1 or 1 for each row, (rows,)."""
        return self.labels(theta, statistics, x) * 2 - 1

    def label_sets(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return 0 or 1 for each label, (rows, outputs)."""
        xp = array_namespace(x)
        return xp.astype(self.forward(theta, statistics, x) > 0.0, xp.int32)

    def layer_outputs(self, theta: Array, statistics: Array, x: Array) -> list[Array]:
        """Return the output of each layer, (rows, units) each, as in prediction."""
        parts = (dataclasses.replace(self, layers=self.layers[:last]) for last in range(1, len(self.layers) + 1))
        return [part.forward(theta, statistics, x) for part in parts]  # what they share is computed once

    def values(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return predicted values, (rows, outputs), or (rows,) for one output."""
        outputs = self.forward(theta, statistics, x)
        values = outputs if self.loss.link is None else self.loss.link(outputs)
        return array_namespace(x).reshape(values, (-1,)) if outputs.shape[1] == 1 else values

    def probabilities(self, theta: Array | dict[str, Array], statistics: Array, x: Array) -> Array:
        """Return the probability of each class, (rows, classes): two columns for one output."""
        xp = array_namespace(x)
        probabilities = self.loss.link(self.forward(theta, statistics, x))
        if probabilities.shape[1] > 1:
            return probabilities
        return xp.concat([1.0 - probabilities, probabilities], axis=1)


def _check_equality(part: Any) -> None:
    """Raise `TypeError` for an object of a subclass of a dataclass that has attributes by which it is not compared."""
    kind = type(part)
    if not dataclasses.is_dataclass(part) or "__dataclass_params__" in vars(kind) or "__eq__" in vars(kind):
        return
    unknown = sorted(set(vars(part)) - {field.name for field in dataclasses.fields(part)})
    if unknown:
        raise TypeError(
            f"{kind.__name__} has attributes that are not fields, {', '.join(unknown)}: decorate the class with "
            "@dataclasses.dataclass(frozen=True), so that two of its objects which differ in them are not taken for equal"
        )


def _functions_of(part: Any) -> Iterator[Any]:
    """Yield what of a layer, loss, optimizer or schedule, or of its fields, is a function or an object of a user's class.

    Objects that are compared by fields which cannot change are not among them, but the functions of their classes are.
    """
    own = __package__.partition(".")[0] + "."
    if isinstance(part, FunctionType):
        if not (part.__module__ or "").startswith(own):
            yield part
    elif isinstance(part, (tuple, list)):
        for item in part:
            yield from _functions_of(item)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        for kind in type(part).__mro__:
            if kind is not object and not kind.__module__.startswith(own):
                yield from (value for value in vars(kind).values() if isinstance(value, FunctionType))
        for field in dataclasses.fields(part):
            yield from _functions_of(getattr(part, field.name))
        if not type(part).__dataclass_params__.frozen:  # type: ignore[attr-defined]
            yield part
    elif callable(part) or hasattr(part, "apply"):
        yield part
        yield from (
            value for kind in type(part).__mro__ for value in vars(kind).values() if isinstance(value, FunctionType)
        )


def accepted(layer: Any) -> tuple[str, ...]:
    """Return the names of the parameters of ``layer.apply`` besides (xp, params, x)."""
    method = getattr(layer.apply, "__func__", None)
    return _parameters(layer.apply)[3:] if method is None else _parameters(method)[4:]


@functools.lru_cache(maxsize=256)
def _parameters(function: Any) -> tuple[str, ...]:
    """Return the names of a function's parameters, which takes some microseconds to find out."""
    return tuple(inspect.signature(function).parameters)


def initial_values(
    layers: Sequence[tuple[str, Any]], inputs: int, seed: int, dtype: DType
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[int]]:
    """Return initial parameters and statistics by full name, on the host, and the outputs of each layer, by tracing."""
    params: dict[str, np.ndarray] = {}
    statistics: dict[str, np.ndarray] = {}
    widths: list[int] = []
    for number, (name, layer) in enumerate(layers):
        width = widths[-1] if widths else inputs
        own = layer.init(new_key(seed, WEIGHTS, number), width)
        if not isinstance(own, Mapping):
            raise TypeError(f"expected init of {name} to return a dict of arrays by name, got {type(own).__name__}")
        kept = layer.init_statistics(width) if hasattr(layer, "init_statistics") else {}
        params |= {f"{name}.{key}": np.asarray(value, dtype=np.float64) for key, value in own.items()}
        statistics |= {f"{name}.{key}": np.asarray(value, dtype=np.float64) for key, value in kept.items()}
        widths.append(_width(name, layer, {**own, **kept}, width, dtype))
    return params, statistics, widths


def _width(name: str, layer: Any, params: Mapping[str, Any], inputs: int, dtype: DType) -> int:
    """Return the number of outputs of a layer."""
    shapes = tuple((key, np.shape(value)) for key, value in params.items())
    if type(layer).__module__ == own_layers.__name__:
        return _known_width(name, layer, shapes, inputs, dtype)
    return _traced_width(name, layer, shapes, inputs, dtype)


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def _traced_width(name: str, layer: Any, shapes: Shapes, inputs: int, dtype: DType) -> int:
    def applied(x: Array, *values: Array) -> Array:
        result = layer.apply(array_namespace(x), dict(zip(dict(shapes), values, strict=True)), x)
        if not hasattr(result, "dtype"):
            raise TypeError(f"expected apply of {name} to return an array, got {type(result).__name__}")
        return result

    types = [ArrayType(shape, dtype) for _, shape in shapes]
    output = trace(applied, ArrayType((3, inputs), dtype), *types).outputs[0].type
    if len(output.shape) != 2 or output.shape[0] != 3:
        raise ValueError(f"expected apply of {name} to return shape (3, outputs) for 3 rows, got {output}")
    if dtype_name(output.dtype) != dtype:
        raise TypeError(f"expected apply of {name} to keep the dtype, {dtype}, got {output.dtype}")
    return output.shape[1]


_known_width = functools.lru_cache(maxsize=256)(_traced_width)  # an ensemble has many networks of the same layers
