"""Model files: a network as safetensors, with what it is made of as strictly checked JSON. Nothing in a file names code.

Requires safetensors (the extra "files"). A file holds each parameter and statistic under its name, the optimizer's
vectors as "optimizer.<name>", and in its metadata, under "portablenn", the layers, the loss and the optimizer with their
facts. It is written to a temporary file beside it, flushed and renamed, so that a file of that name is always whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn import layers, losses, optimizers, schedules
from . import safetensors_file
from .safetensors_file import FileFormatError, Types

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
MOST_LAYERS = 10_000
MOST_WIDTH = 1 << 31
MOST_NESTED = 8
LARGEST = 1e30
_SLOT = "optimizer."
_ALLOWED: dict[str, dict[str, Any]] = {
    "layer": {kind.__name__: kind for kind in (layers.Dense, layers.Activation, layers.Dropout, layers.BatchNorm)},
    "loss": {kind.__name__: kind for kind in losses.LOSSES.values()},
    "optimizer": {kind.__name__: kind for kind in optimizers.OPTIMIZERS.values()},
    "schedule": {
        kind.__name__: kind
        for kind in (
            schedules.CosineDecay,
            schedules.ExponentialDecay,
            schedules.InverseScaling,
            schedules.InverseTimeDecay,
            schedules.StepDecay,
            schedules.WarmUp,
        )
    },
}


def write(path: str | Path, facts: Mapping[str, Any], arrays: Mapping[str, Any], slots: Mapping[str, Any]) -> None:
    """Write a network to ``path``; what was there before stays until the new file is whole.

    Parameters
    ----------
    path
        The file.
    facts
        "inputs", "layers", "loss", "optimizer", "dtype", "seed", "steps", "epochs", "labels", "multilabel"; and "table", what a
        model of a table knows beside its network, or None.
    arrays
        Parameters and statistics by name.
    slots
        The optimizer's vectors by name.

    Raises
    ------
    TypeError
        If a layer, activation, loss or schedule is a user's own: a file holds data, not code.
    """
    description = {
        **facts,
        "version": VERSION,
        "layers": [_described(layer, "layer") for layer in facts["layers"]],
        "loss": _described(facts["loss"], "loss"),
        "optimizer": _described(facts["optimizer"], "optimizer"),
    }
    named = {**arrays, **{f"{_SLOT}{name}": vector for name, vector in slots.items()}}
    safetensors_file.write(path, description, named)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The facts, arrays and slots that `write` was given; nothing is allocated before all is checked.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is not such a file, whole and of a known version.
    """

    def check(description: dict[str, Any], types: Types) -> dict[str, Any]:
        facts, expected = _checked(description)
        _compare(types, expected, facts["dtype"])
        return facts

    with safetensors_file.refused(path, "model file"):
        facts, found = safetensors_file.read(path, check)
    slots = {name.removeprefix(_SLOT): v for name, v in found.items() if name.startswith(_SLOT)}
    return facts, {name: v for name, v in found.items() if not name.startswith(_SLOT)}, slots


def _described(thing: Any, role: str) -> dict[str, Any]:
    """An object of an allowed kind as JSON: its kind and its facts."""
    kind = type(thing).__name__
    if _ALLOWED[role].get(kind) is not type(thing):
        raise TypeError(
            f"the {role} {thing!r} is not portablenn's own and a file holds no code: save net.parameters instead"
        )
    facts: dict[str, Any] = {"kind": kind}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if field.name.endswith("_init"):
            continue  # the values themselves are in the file
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = _described(value, "schedule")
        elif callable(value):
            raise TypeError(
                f"{field.name} of the {role} {kind} is a function and a file holds no code: use one of portablenn's by its "
                "name, or save net.parameters instead"
            )
        facts[field.name] = value.item() if isinstance(value, np.generic) else value
    return facts


def _made(facts: Any, role: str, depth: int = 0) -> Any:
    """The object that `_described` told of."""
    if depth > MOST_NESTED:
        raise FileFormatError(f"its {role} is nested more than {MOST_NESTED} times")
    name = facts.get("kind") if isinstance(facts, dict) else None
    kind = _ALLOWED[role].get(name) if isinstance(name, str) else None
    if kind is None:
        raise FileFormatError(f"unknown {role} {name!r}")
    known = {field.name for field in dataclasses.fields(kind) if not field.name.endswith("_init")}
    given = {name: value for name, value in facts.items() if name != "kind"}
    if set(given) != known:
        raise FileFormatError(f"the {role} {facts['kind']} has facts {sorted(given)}, expected {sorted(known)}")
    for name, value in given.items():
        if isinstance(value, dict):
            given[name] = _made(value, "schedule", depth + 1)
        elif not isinstance(value, (str, int, float, type(None))):
            raise FileFormatError(f"{name} of the {role} {facts['kind']} is a {type(value).__name__}")
        elif isinstance(value, (int, float)) and not abs(value) < LARGEST:
            raise FileFormatError(f"{name} of the {role} {facts['kind']} is not a number below {LARGEST:g}")
    if role == "layer" and facts["kind"] == "Dense":
        given["kernel_init"] = "zeros"
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise FileFormatError(str(error)) from None


def _checked(description: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The facts, with objects made of their descriptions, and the name and shape of every array."""
    kinds: dict[str, Any] = {
        "version": int, "inputs": int, "layers": list, "loss": dict, "optimizer": dict, "dtype": str, "seed": int,
        "steps": int, "epochs": int, "labels": list, "multilabel": bool, "table": (dict, type(None)),
    }  # fmt: skip
    safetensors_file.known_version(description, VERSION)
    if set(description) != set(kinds):
        raise FileFormatError(f"it describes {sorted(description)}, expected {sorted(kinds)}")
    for name, kind in kinds.items():
        value = description[name]
        if type(value) not in (kind if isinstance(kind, tuple) else (kind,)) or (
            kind is int and not 0 <= value < 2**64
        ):
            raise FileFormatError(f"its {name} is {value!r}")
    if not 1 <= description["inputs"] <= MOST_WIDTH or not 1 <= len(description["layers"]) <= MOST_LAYERS:
        raise FileFormatError("it has no inputs, no layers or too many")
    if description["dtype"] not in ("float32", "float64") or description["labels"] not in ([0, 1], [-1, 1]):
        raise FileFormatError(f"its dtype is {description['dtype']!r} and its labels are {description['labels']!r}")
    made = [_made(facts, "layer") for facts in description["layers"]]
    optimizer = _made(description["optimizer"], "optimizer")
    shapes = _shapes(made, description["inputs"])
    count = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith((".mean", ".variance")))
    shapes |= {f"{_SLOT}{name}": (count,) for name in optimizer.slots}
    return {**description, "layers": made, "loss": _made(description["loss"], "loss"), "optimizer": optimizer}, shapes


def _shapes(made: list[Any], width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in zip(layers.layer_names(made), made, strict=True):
        if isinstance(layer, layers.Dense):
            shapes[f"{name}.kernel"] = (width, layer.units)
            if layer.use_bias:
                shapes[f"{name}.bias"] = (layer.units,)
            width = layer.units
        elif isinstance(layer, layers.BatchNorm):
            shapes |= {f"{name}.{part}": (width,) for part in ("scale", "shift", "mean", "variance")}
    return shapes


def _compare(found: Types, expected: dict[str, tuple[int, ...]], dtype: str) -> None:
    """Refuse a file whose arrays are not those that its description needs, before any is read."""
    if set(found) != set(expected):
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise FileFormatError(f"arrays are missing ({missing[:5]}) or too many ({extra[:5]})")
    code = {"float32": "F32", "float64": "F64"}[dtype]
    for name, (kind, shape) in found.items():
        if (kind, shape) != (code, expected[name]):
            raise FileFormatError(f"{name} is {kind}{list(shape)}, expected {code}{list(expected[name])}")
