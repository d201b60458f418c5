"""Model files: a network as safetensors with strictly validated JSON metadata. Nothing in a file names code.

A file holds each parameter and statistic under its name, the optimizer's vectors as "optimizer.<name>", and in its
metadata, under "portablenn", the layers, the loss and the optimizer. A file of an ensemble holds all this of each member, the
names with its number in front, as in "0.dense_1.kernel".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn import layers, losses, optimizers, schedules
from . import safetensors_file
from .safetensors_file import FileFormatError, Types

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
MAX_LAYERS = 10_000
MAX_WIDTH = 1 << 31
MAX_DEPTH = 8
MAX_NUMBER = 1e30
_SLOT = "optimizer."
_FACTS: dict[str, Any] = {
    "inputs": int, "layers": list, "loss": dict, "optimizer": dict, "dtype": str, "seed": int, "steps": int, "epochs": int,
    "labels": list, "multilabel": bool, "table": (dict, type(None)), "precision": (str, type(None)),
}  # fmt: skip
_ALLOWED: dict[str, dict[str, Any]] = {
    "layer": {kind.__name__: kind for kind in layers.LAYERS},
    "loss": {kind.__name__: kind for kind in losses.LOSSES.values()},
    "optimizer": {kind.__name__: kind for kind in optimizers.OPTIMIZERS.values()},
    "schedule": {kind.__name__: kind for kind in schedules.SCHEDULES},
}


def write(path: str | Path, facts: Mapping[str, Any], arrays: Mapping[str, Any], slots: Mapping[str, Any]) -> None:
    """Write a network atomically; raise TypeError if a layer, activation, loss or schedule is user-defined.

    ``facts`` has the keys of ``_FACTS``, "table" being the description of a table model's preprocessing, or None; ``arrays``
    are parameters and statistics, ``slots`` the optimizer's vectors.
    """
    safetensors_file.write(path, VERSION, _described(facts), {**arrays, **_slots_by_name(slots)})


Contents = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
"""Facts, arrays and slots of a network; see `write`."""


def write_members(path: str | Path, members: Sequence[Contents]) -> None:
    """Write the networks of an ensemble, atomically, into one file."""
    described = [_described(facts) for facts, _, _ in members]
    named = {
        f"{k}.{name}": array
        for k, (_, arrays, slots) in enumerate(members)
        for name, array in {**arrays, **_slots_by_name(slots)}.items()
    }
    safetensors_file.write(path, VERSION, {"members": described}, named)


def read_members(path: str | Path) -> list[tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Return what `write_members` was given; see `safetensors_file.read` for the errors."""

    def check(description: dict[str, Any], types: Types) -> list[dict[str, Any]]:
        safetensors_file.check_fields(description, {"members": list})
        parts = _by_member(types)
        if not description["members"] or set(parts) != {str(k) for k in range(len(description["members"]))}:
            raise FileFormatError("its arrays are not those of its members")
        found = []
        for k, one in enumerate(description["members"]):
            if not isinstance(one, dict):
                raise FileFormatError(f"member {k} is a {type(one).__name__}")
            facts, expected = _validated(one)
            _check_types(parts[str(k)], expected, facts["dtype"])
            found.append(facts)
        return found

    facts, arrays = safetensors_file.read(path, "file of an ensemble", VERSION, check)
    parts = _by_member(arrays)
    return [(one, *_without_slots(parts[str(k)])) for k, one in enumerate(facts)]


def _by_member(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of each member, without its number."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        number, _, own = name.partition(".")
        parts.setdefault(number, {})[own] = value
    return parts


def _described(facts: Mapping[str, Any]) -> dict[str, Any]:
    description = {
        **facts,
        "layers": [_encode(layer, "layer") for layer in facts["layers"]],
        "loss": _encode(facts["loss"], "loss"),
        "optimizer": _encode(facts["optimizer"], "optimizer"),
    }
    if description["precision"] is None:  # a file without it is read by versions that do not know it
        del description["precision"]
    return description


def _slots_by_name(slots: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{_SLOT}{name}": vector for name, vector in slots.items()}


def _without_slots(named: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return arrays, and slots, each by name."""
    slots = {name.removeprefix(_SLOT): v for name, v in named.items() if name.startswith(_SLOT)}
    return {name: v for name, v in named.items() if not name.startswith(_SLOT)}, slots


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the facts, arrays and slots that `write` was given; see `safetensors_file.read` for the errors."""

    def check(description: dict[str, Any], types: Types) -> dict[str, Any]:
        if "members" in description:
            raise FileFormatError("it holds an ensemble: load it with portablenn.Ensemble.load")
        facts, expected = _validated(description)
        _check_types(types, expected, facts["dtype"])
        return facts

    facts, arrays = safetensors_file.read(path, "model file", VERSION, check)
    return (facts, *_without_slots(arrays))


def _encode(thing: Any, role: str) -> dict[str, Any]:
    """Return an object of an allowed class as JSON values: the class's name and the fields."""
    kind = type(thing).__name__
    if _ALLOWED[role].get(kind) is not type(thing):
        raise TypeError(f"the {role} {thing!r} is user-defined and a file holds no code: save net.parameters instead")
    facts: dict[str, Any] = {"kind": kind}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if field.name.endswith("_init"):
            continue  # the file has the values
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = _encode(value, "schedule")
        elif callable(value):
            raise TypeError(
                f"{field.name} of the {role} {kind} is a function and a file holds no code: use a built-in one by name, or "
                "save net.parameters instead"
            )
        facts[field.name] = value.item() if isinstance(value, np.generic) else value
    return facts


def _decode(facts: Any, role: str, depth: int = 0) -> Any:
    """Return the object that `_encode` described."""
    if depth > MAX_DEPTH:
        raise FileFormatError(f"the {role} is nested more than {MAX_DEPTH} levels deep")
    name = facts.get("kind") if isinstance(facts, dict) else None
    kind = _ALLOWED[role].get(name) if isinstance(name, str) else None
    if kind is None:
        raise FileFormatError(f"unknown {role} {name!r}")
    known = {field.name for field in dataclasses.fields(kind) if not field.name.endswith("_init")}
    given = {name: value for name, value in facts.items() if name != "kind"}
    if set(given) != known:
        raise FileFormatError(f"the {role} {facts['kind']} has fields {sorted(given)}, expected {sorted(known)}")
    for name, value in given.items():
        if isinstance(value, dict):
            given[name] = _decode(value, "schedule", depth + 1)
        elif not isinstance(value, (str, int, float, type(None))):
            raise FileFormatError(f"{name} of the {role} {facts['kind']} is a {type(value).__name__}")
        elif isinstance(value, (int, float)) and not abs(value) < MAX_NUMBER:
            raise FileFormatError(f"{name} of the {role} {facts['kind']} is not a number below {MAX_NUMBER:g}")
    if role == "layer" and facts["kind"] in ("Dense", "NTKDense"):
        given["kernel_init"] = "zeros"
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise FileFormatError(str(error)) from None


def _validated(description: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the facts of a validated description, with objects for their descriptions, and each array's shape by name."""
    description = {"precision": None, **description}
    safetensors_file.check_fields(description, _FACTS)
    if not 1 <= description["inputs"] <= MAX_WIDTH or not 1 <= len(description["layers"]) <= MAX_LAYERS:
        raise FileFormatError("the number of inputs or of layers is 0 or too large")
    if description["dtype"] not in ("float32", "float64") or description["labels"] not in ([0, 1], [-1, 1]):
        raise FileFormatError(f"invalid dtype or labels, got {description['dtype']!r} and {description['labels']!r}")
    made = [_decode(facts, "layer") for facts in description["layers"]]
    optimizer = _decode(description["optimizer"], "optimizer")
    shapes = _shapes(made, description["inputs"])
    count = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith((".mean", ".variance")))
    shapes |= {f"{_SLOT}{name}": (count,) for name in optimizer.slots}
    return {**description, "layers": made, "loss": _decode(description["loss"], "loss"), "optimizer": optimizer}, shapes


def _shapes(made: list[Any], width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in zip(layers.layer_names(made), made, strict=True):
        if isinstance(layer, (layers.Dense, layers.NTKDense)):
            shapes[f"{name}.kernel"] = (width, layer.units)
            if isinstance(layer, layers.NTKDense) or layer.use_bias:
                shapes[f"{name}.bias"] = (layer.units,)
            width = layer.units
        elif isinstance(layer, layers.Scale):
            shapes[f"{name}.scale"] = (width,)
        elif isinstance(layer, layers.PeriodicEmbedding):
            try:
                own = layer.shapes(width)
            except ValueError as error:
                raise FileFormatError(f"{name}: {error}") from None
            shapes |= {f"{name}.{part}": shape for part, shape in own.items()}
            width += math.prod(own["bias"])
        elif isinstance(layer, layers.BatchNorm):
            shapes |= {f"{name}.{part}": (width,) for part in ("scale", "shift", "mean", "variance")}
    return shapes


def _check_types(types: Types, expected: dict[str, tuple[int, ...]], dtype: str) -> None:
    """Raise FileFormatError unless the arrays are those that the description requires."""
    if set(types) != set(expected):
        missing, extra = sorted(set(expected) - set(types)), sorted(set(types) - set(expected))
        raise FileFormatError(f"missing arrays {missing[:5]}, unexpected arrays {extra[:5]}")
    code = {"float32": "F32", "float64": "F64"}[dtype]
    for name, (kind, shape) in types.items():
        if (kind, shape) != (code, expected[name]):
            raise FileFormatError(f"expected {name} of {code}{list(expected[name])}, got {kind}{list(shape)}")
