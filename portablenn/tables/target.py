"""The target of a table: classes or values, their encoding, and the labels, numbers or dates that are predicted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .cells import PLAIN_NUMBERS, CellFormat, as_codes, as_numbers, as_text
from .columns import ColumnStatistics, NumericColumn
from .readers import TableError

FEW_CLASSES = 20
"""Maximum number of distinct integers in a target that is taken for classes, unless the task is given."""

MAX_CLASSES = 1000

LABELS = ("text", "integer", "number", "boolean")
"""The types of class labels."""


@dataclass(frozen=True)
class Target:
    """The column that is predicted.

    Attributes
    ----------
    classes
        Class labels as text, in their order; None for a regression.
    labels_are
        The type of the class labels that are predicted: "text", "integer", "number" or "boolean".
    mean, scale
        Mean and standard deviation of the training rows, for a regression.
    cells
        How numbers or dates are written; dates are days since 1970.
    trimmed
        Whether labels are without surrounding spaces, as those of a CSV file.
    whole
        Whether all values are integers: for dates, that they have no time of day.
    """

    name: str
    classes: tuple[str, ...] | None
    labels_are: str = "text"
    mean: float = 0.0
    scale: float = 1.0
    cells: CellFormat = PLAIN_NUMBERS
    trimmed: bool = False
    whole: bool = False

    def encode(self, column: Any) -> np.ndarray:
        """Return the network's targets, (rows,).

        Class indices, int32: -1 for unknown classes, -2 where the cell is missing; or scaled values, float32, NaN where it is
        missing.
        """
        if self.classes is None:
            values, _ = as_numbers(column, self.name, self.cells)
            return ((np.where(np.isfinite(values), values, np.nan) - self.mean) / self.scale).astype(np.float32)
        codes = as_codes(column, self.name, self.classes, self.cells.marks, exact=True, trim=self.trimmed)
        if self.labels_are != "text" and (codes == -1).any():  # 1.0 for 1, TRUE for True
            codes = np.where(codes == -1, self._codes_by_value(column), codes)
        return codes.astype(np.int32)

    def _codes_by_value(self, column: Any) -> np.ndarray:
        """Return the index of the class that equals each cell, (rows,): -1 for other cells."""
        import pyarrow.compute as pc

        assert self.classes is not None
        if self.labels_are == "boolean":
            return as_codes(pc.utf8_lower(as_text(column)), self.name, [c.lower() for c in self.classes])
        values = PLAIN_NUMBERS.parse(as_text(column))[0]
        labels = self.labels.astype(np.float64)
        order = np.argsort(labels)
        at = order[np.searchsorted(labels[order], np.nan_to_num(values)).clip(max=len(labels) - 1)]
        return np.where((labels[at] == values) & (np.abs(values) < 2.0**53), at, -1)  # larger ones are not exact

    def unscale(self, predicted: np.ndarray) -> np.ndarray:
        """Return the values, (rows,), float64, of scaled ones of a regression; dates as days since 1970."""
        return np.asarray(predicted, dtype=np.float64) * self.scale + self.mean

    def decode(self, predicted: np.ndarray) -> np.ndarray:
        """Return labels for class indices, or values in the target's units, or dates, for scaled ones, (rows,)."""
        if self.classes is not None:
            return self.labels[np.asarray(predicted).astype(np.int64)]
        values = self.unscale(predicted)
        if not self.cells.date:
            return values
        dates = np.rint(values * 86400).astype("int64").astype("M8[s]")
        return np.rint(values).astype("int64").astype("M8[D]") if self.whole else dates

    @property
    def class_count(self) -> int | None:
        """Number of classes; None for a regression."""
        return None if self.classes is None else len(self.classes)

    @property
    def labels(self) -> np.ndarray:
        """Class labels, (classes,): text, int64 or uint64, float64 or bool."""
        assert self.classes is not None
        if self.labels_are == "boolean":
            return np.asarray([c.lower() == "true" for c in self.classes])
        if self.labels_are == "integer":
            values = [int(c) for c in self.classes]
            return np.asarray(values, dtype=np.int64 if max(values) < 2**63 else np.uint64)
        return np.asarray([float(c) for c in self.classes] if self.labels_are == "number" else list(self.classes))


def fit_target(target: ColumnStatistics, task: str | None) -> Target:
    """Return the target of these statistics; raise `TableError` if it cannot be predicted. ``task`` None is inferred."""
    name, kind = target.name, target.type.kind
    distinct = FEW_CLASSES + 1 if target.values is None else len(target.values)
    if task is None:
        few_integers = (
            kind == "number" and target.integral and distinct <= FEW_CLASSES and 2 * distinct <= target.present
        )
        task = "classification" if few_integers or kind == "category" else "regression"
        if kind == "category":
            _check_text_target(target)
    if task == "classification":
        return _class_target(target)
    if kind == "category":
        why = target.type.reason or "it holds text"
        raise TableError(f"target {name!r} is not numeric, which regression requires: {why}")
    column = target.column()
    if not isinstance(column, NumericColumn):
        raise TableError(f"target {name!r} cannot be predicted: {column}")
    if column.low == column.high:
        raise TableError(f"target {name!r} cannot be predicted: all cells have the same value")
    return Target(name, None, mean=column.center, scale=column.scale, cells=column.cells, whole=target.integral)


def _check_text_target(target: ColumnStatistics) -> None:
    """Raise a `TableError` if a target of text, whose task is inferred, holds numbers, or too many values for its rows."""
    distinct = FEW_CLASSES + 1 if target.values is None else len(target.values)
    if distinct > FEW_CLASSES and target.type.reason:
        raise TableError(
            f"target {target.name!r} holds numbers as text: {target.type.reason}; or use task='classification'"
        )
    if distinct > max(FEW_CLASSES, target.present // 2):
        raise TableError(
            f"target {target.name!r} has {distinct} distinct texts in {target.present} rows, which are not classes: choose "
            "another target, or use task='classification'"
        )


def _class_target(target: ColumnStatistics) -> Target:
    name, values = target.name, target.values
    if values is None or len(values) > MAX_CLASSES:
        raise TableError(f"target {name!r} has more than {MAX_CLASSES:,} classes: for numbers, use task='regression'")
    if len(values) < 2:
        raise TableError(
            f"target {name!r} is {next(iter(values), 'missing')!r} in every row: expected at least 2 classes"
        )
    labels_are = _label_type(list(values), target.type.source)
    key: Any = {"integer": int, "number": float}.get(labels_are, natural_key)
    return Target(
        name,
        tuple(sorted(values, key=key)),
        labels_are,
        cells=replace(target.type.cells, marks=target.type.own_marks),
        trimmed=not target.type.source,
    )


def _label_type(texts: Sequence[str], source: str) -> str:
    """Return the type of class labels, one of `LABELS`: that of typed cells; of a CSV file, what the texts are."""
    if source in ("text", "boolean"):
        return source
    if all(map(_is_integer, texts)):
        values = [int(text) for text in texts]
        return "integer" if max(values) < 2**63 or min(values) >= 0 else "text"
    if set(texts) in ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"}):
        return "boolean"
    written_plainly = all(re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", text) for text in texts)
    return "number" if written_plainly and len({float(text) for text in texts}) == len(texts) else "text"


def natural_key(text: str) -> list[Any]:
    """Return a sort key that puts "class 10" after "class 9"."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text)]


def _is_integer(text: str) -> bool:
    """Return whether a text is an integer of 64 bits, written as Python writes it."""
    digits = text.removeprefix("-")
    is_written = digits.isascii() and digits.isdigit() and len(digits) < 21 and str(int(text)) == text
    return is_written and -(2**63) <= int(text) < 2**64
