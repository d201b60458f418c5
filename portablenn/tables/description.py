"""Descriptions: a preprocessor as the plain values that a model file holds, and back, strictly validated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .columns import CategoricalColumn, Column, NumericColumn
from .preprocessing import Preprocessor, Target

MAX_COLUMNS = 100_000

KINDS: dict[str, tuple[type[Column], dict[str, Any]]] = {
    "number": (NumericColumn, {"name": str, "mean": float, "scale": float, "missing": bool, "date": bool}),
    "category": (CategoricalColumn, {"name": str, "values": list, "missing": bool, "infrequent": int}),
}
"""The class of each kind of column, and the types of its fields."""

TARGET = {
    "name": str, "classes": (list, type(None)), "integers": bool, "mean": float, "scale": float, "date": bool,
}  # fmt: skip


def describe(preprocessor: Preprocessor, results: dict[str, Any]) -> dict[str, Any]:
    """Return what a model file holds of a table, as values for JSON."""
    kinds = {column: kind for kind, (column, _) in KINDS.items()}
    columns = [{"kind": kinds[type(column)], **asdict(column)} for column in preprocessor.columns]
    return {"columns": columns, "target": asdict(preprocessor.target), "results": results}


def preprocessor_from(description: dict[str, Any]) -> tuple[Preprocessor, dict[str, Any]]:
    """Return the preprocessor and the results that `describe` described.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the description is invalid.
    """
    _check_types(description, {"columns": list, "target": dict, "results": dict}, "table")
    if not 1 <= len(description["columns"]) <= MAX_COLUMNS:
        raise ValueError(f"expected 1 to {MAX_COLUMNS:,} columns, got {len(description['columns'])}")
    columns = tuple(map(_column, description["columns"]))
    target = description["target"]
    _check_types(target, TARGET, "target")
    _check_scaling(target)
    classes = None if target["classes"] is None else _distinct_texts(target["classes"])
    if target["integers"]:
        [int(c) for c in classes or ()]
    return Preprocessor(columns, Target(**{**target, "classes": classes})), description["results"]


def _column(description: Any) -> Column:
    kind = description.get("kind") if isinstance(description, dict) else None
    if kind not in KINDS:
        raise ValueError(f"unknown kind of column {kind!r}")
    column, types = KINDS[kind]
    fields = {name: value for name, value in description.items() if name != "kind"}
    _check_types(fields, types, "column")
    if kind == "number":
        _check_scaling(fields)
    else:
        fields["values"] = _distinct_texts(fields["values"])
    return column(**fields)


def _check_types(fields: dict[str, Any], types: dict[str, Any], what: str) -> None:
    if set(fields) != set(types):
        raise ValueError(f"expected the fields {sorted(types)} of the {what}, got {sorted(fields)}")
    for name, kind in types.items():
        if type(fields[name]) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise ValueError(f"field {name} of the {what} is a {type(fields[name]).__name__}")


def _check_scaling(fields: dict[str, Any]) -> None:
    if not (math.isfinite(fields["mean"]) and math.isfinite(fields["scale"]) and fields["scale"] > 0):
        raise ValueError(f"mean {fields['mean']} and scale {fields['scale']} must be finite, and scale positive")


def _distinct_texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(v, str) for v in values) or len(set(values)) != len(values):
        raise ValueError("values of a column must be distinct strings")
    return tuple(values)
