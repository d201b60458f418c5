"""Descriptions: a preprocessor as the plain values that a model file holds, and back, strictly validated."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, get_type_hints

from .cells import DATE_FORMATS, CellFormat
from .columns import CategoricalColumn, Column, NumericColumn
from .preprocessing import Preprocessor
from .target import LABELS, Target

MAX_COLUMNS = 100_000
COLUMN_KINDS: dict[Any, type[Column]] = {"number": NumericColumn, "category": CategoricalColumn}
JSON_TYPES = {tuple[str, ...]: (list,), tuple[str, ...] | None: (list, type(None)), CellFormat: (dict,)}
"""Types of the values that JSON gives for fields of types that it does not have."""


def describe(preprocessor: Preprocessor, results: dict[str, Any]) -> dict[str, Any]:
    """Return a preprocessor and the results of a training as values for JSON."""
    kinds = {column: kind for kind, column in COLUMN_KINDS.items()}
    columns = [{"kind": kinds[type(column)], **asdict(column)} for column in preprocessor.columns]
    return {"columns": columns, "target": asdict(preprocessor.target), "results": results}


def preprocessor_from(description: dict[str, Any]) -> tuple[Preprocessor, dict[str, Any]]:
    """Return the preprocessor and the results that `describe` described; raise TypeError or ValueError if it is invalid."""
    _check_types(description, {"columns": list, "target": dict, "results": dict}, "table")
    if not 1 <= len(description["columns"]) <= MAX_COLUMNS:
        raise ValueError(f"expected 1 to {MAX_COLUMNS:,} columns, got {len(description['columns'])}")
    columns = tuple(map(_column, description["columns"]))
    target = _decode(Target, description["target"], "target")
    if target.labels_are not in LABELS:
        raise ValueError(f"unknown type of labels {target.labels_are!r}")
    if target.classes is not None:
        _ = target.labels
    return Preprocessor(columns, target), description["results"]


def _column(description: Any) -> Column:
    kind = description.get("kind") if isinstance(description, dict) else None
    if kind not in COLUMN_KINDS:
        raise ValueError(f"unknown kind of column {kind!r}")
    return _decode(COLUMN_KINDS[kind], {name: value for name, value in description.items() if name != "kind"}, "column")


def _decode(kind: Any, fields: dict[str, Any], what: str) -> Any:
    """Return an instance of a dataclass after validating its fields."""
    _check_types(fields, get_type_hints(kind), what)
    numbers = [value for value in fields.values() if isinstance(value, float)]
    if not all(map(math.isfinite, numbers)) or fields.get("scale", 1.0) <= 0:
        raise ValueError(f"the numbers of the {what} must be finite, and its scale positive, got {numbers}")
    return kind(**{name: _value(value) for name, value in fields.items()})


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        cells = _decode(CellFormat, value, "format of the cells")
        if cells.decimal not in (".", ",") or cells.date not in ("", *DATE_FORMATS):
            raise ValueError(f"unknown format of cells {cells}")
        return cells
    return _distinct_texts(value) if isinstance(value, list) else value


def _check_types(fields: dict[str, Any], types: dict[str, Any], what: str) -> None:
    if set(fields) != set(types):
        raise ValueError(f"expected the fields {sorted(types)} of the {what}, got {sorted(fields)}")
    for name, kind in types.items():
        if type(fields[name]) not in JSON_TYPES.get(kind, (kind,)):
            raise ValueError(f"field {name} of the {what} is a {type(fields[name]).__name__}")


def _distinct_texts(values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(v, str) for v in values) or len(set(values)) != len(values):
        raise ValueError("values of a column must be distinct strings")
    return tuple(values)
