"""Models of the same structure as one: a step of many networks, in which numbers such as learning rates may differ."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..program.ir import Array
from ..transforms.vmap import vmap
from .model import Batches, Model, State

PARTS = ("loss", "optimizer", "report_loss")
"""The fields of a model, besides its layers, that have numbers."""


def numbers_of(model: Model) -> dict[str, float]:
    """Return the numbers that a step of the model reads, such as {"optimizer.learning_rate": 0.1}, by the names of fields.

    Those of a user's own classes are not among them, nor what decides the operations of a step, such as a number of units.
    """
    return dict(_numbers(model))


def _numbers(model: Model) -> Iterator[tuple[str, float]]:
    for name, part in (*((name, getattr(model, name)) for name in PARTS), *model.layers):
        yield from _numbers_of(part, name)


def _numbers_of(part: Any, path: str) -> Iterator[tuple[str, float]]:
    for name in _fields_of_numbers(type(part)):  # type: ignore[arg-type]
        value = getattr(part, name)
        if isinstance(value, (int, float)):
            yield f"{path}.{name}", float(value)
        else:  # perhaps a schedule
            yield from _numbers_of(value, f"{path}.{name}")


@functools.cache
def _fields_of_numbers(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields that are numbers which a step reads, or objects that may have such, as a schedule has."""
    if not is_dataclass(kind) or not kind.__module__.startswith(__package__):
        return ()
    found = (f for f in fields(kind) if not f.metadata.get("static"))
    return tuple(f.name for f in found if "float" in str(f.type))


def with_numbers(model: Model, numbers: Mapping[str, Any]) -> Model:
    """Return the model with other numbers, or arrays of shape (), which are not validated."""
    changed = copy.copy(model)
    for name in PARTS:
        object.__setattr__(changed, name, _with(getattr(model, name), numbers, name))
    layers = tuple((name, _with(layer, numbers, name)) for name, layer in model.layers)
    object.__setattr__(changed, "layers", layers)
    return changed


def _with(part: Any, numbers: Mapping[str, Any], path: str) -> Any:
    inside = [name for name in numbers if name.startswith(f"{path}.")]
    if not inside:
        return part
    changed = copy.copy(part)
    for field in fields(part):
        name = f"{path}.{field.name}"
        value = numbers[name] if name in numbers else _with(getattr(part, field.name), numbers, name)
        object.__setattr__(changed, field.name, value)
    return changed


def structure(model: Model) -> Model:
    """Return the model with 1 for each number that is not 0: networks whose structures are equal can be trained together."""
    return with_numbers(model, {name: float(value != 0) for name, value in numbers_of(model).items()})


@dataclass(frozen=True)
class ModelStack:
    """Models that are equal but for the numbers of these names; all arrays have an axis of members in front."""

    model: Model
    varying: tuple[str, ...] = ()

    @property
    def functions(self) -> tuple[Any, ...]:
        """See `Model.functions`."""
        return self.model.functions

    @classmethod
    def of(cls, models: list[Model]) -> tuple[ModelStack, list[list[float]]]:
        """Return the stack of models of one structure, and for each number that varies its value in each model."""
        found = [numbers_of(model) for model in models]
        varying = tuple(name for name in found[0] if len({numbers[name] for numbers in found}) > 1)
        stack = cls(with_numbers(models[0], dict.fromkeys(varying, 1.0)), varying)
        return stack, [[numbers[name] for numbers in found] for name in varying]

    def step(
        self, iteration: Array, state: State, batches: Batches, penalty_mask: Array | None, values: tuple[Array, ...]
    ) -> tuple[State, Array]:
        """Take one training step of each member, as `Model.step` does; return the new state, and the losses, (members,).

        ``values`` are the numbers that vary, (members,) each. If ``batches.order`` has an axis of members,
        (members, steps, batch), each has batches of its own; ``batches.keys`` has shape (members, layers, 2).
        """

        def one(state: State, order: Array | None, keys: Array | None, values: tuple[Array, ...]) -> Any:
            return self._of(values).step(iteration, state, batches._replace(order=order, keys=keys), penalty_mask)

        own_order = batches.order is not None and batches.order.ndim == 3
        axes = (0, 0 if own_order else None, 0, 0)
        return vmap(one, in_axes=axes)(state, batches.order, batches.keys, values)

    def apply(
        self,
        method: str,
        values: tuple[Array, ...],
        theta: Array,
        statistics: Array,
        *rows: Array | None,
        own_rows: bool = False,
    ) -> Any:
        """Return what a method of the model, such as ``forward``, returns for each member, with an axis of members in front.

        With ``own_rows`` the rows have an axis of members in front, too.
        """

        def one(values: tuple[Array, ...], *arguments: Any) -> Any:
            return getattr(self._of(values), method)(*arguments)

        axes = (0, 0, 0, *[0 if own_rows else None] * len(rows))
        return vmap(one, in_axes=axes)(values, theta, statistics, *rows)

    def _of(self, values: tuple[Array, ...]) -> Model:
        """Return the model of a member."""
        return with_numbers(self.model, dict(zip(self.varying, values, strict=True)))
