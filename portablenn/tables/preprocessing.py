"""Preprocessing: from the rows of a table to a network's inputs and targets, as fitted to the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import random
from .cells import PLAIN_NUMBERS, CellFormat, as_codes, as_numbers, as_text
from .columns import Column, ColumnStatistics, NumericColumn
from .readers import Table, TableError
from .types import KINDS, infer_types

PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
"""Shares of the rows that each part gets, if there are many."""

VALIDATION_ROWS = 100
"""Number of validation rows that small tables have, too, if they are not more than a fifth of the rows."""

FEW_CLASSES = 20
"""Maximum number of distinct integers in a target that is taken for classes, unless the task is given."""

MAX_CLASSES = 1000

UNNAMED = re.compile(r"|Unnamed: \d+|\.\.\.1")
"""Names of the column that data frames write in front of the others: of pandas, of pandas read again, of R."""


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


@dataclass(frozen=True)
class Preprocessor:
    """The transformation from a table's columns to a network's inputs.

    Attributes
    ----------
    columns
        Columns that are used, in the order of the inputs.
    target
        The column that is predicted.
    """

    columns: tuple[Column, ...]
    target: Target

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs, in their order."""
        return tuple(name for column in self.columns for name in column.input_names)

    def encode(self, batch: Any, unusual: Counter[tuple[str, str]] | None = None) -> np.ndarray:
        """Return one number for each cell of a record batch, (rows, columns), float32, as stored on disk in training."""
        return np.stack([column.encode(batch.column(column.name), unusual) for column in self.columns], axis=1)

    def expand(self, encoded: np.ndarray) -> np.ndarray:
        """Return the network's inputs, (rows, inputs), float32, from encoded cells, (rows, columns)."""
        return np.stack([part for i, c in enumerate(self.columns) for part in c.expand(encoded[:, i])], axis=1)

    def transform(
        self, table: Table, unusual: Counter[tuple[str, str]] | None = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield the record batches of a table, with all their columns, and the network's inputs for each.

        ``unusual``, if given, counts the cells that are unlike those of the training rows, by column and kind: see `UNUSUAL`.

        Raises
        ------
        TableError
            If a column is missing; after the last rows, if most cells of a column cannot be read as numbers or dates.
        """
        table.require(tuple(column.name for column in self.columns))
        counts = Counter[tuple[str, str]]() if unusual is None else unusual
        quoted: dict[str, str] = {}
        for batch in table.select(table.columns):
            counts["", "rows"] += batch.num_rows
            encoded = self.encode(batch, counts)
            for column in self.columns:
                if (
                    isinstance(column, NumericColumn)
                    and counts[column.name, "unreadable"]
                    and column.name not in quoted
                ):
                    quoted[column.name] = column.first_unreadable(batch.column(column.name))
            yield batch, self.expand(encoded)
        for name, cell in quoted.items():
            present = counts["", "rows"] - counts[name, "missing"] - counts[name, "empty"]
            if 2 * counts[name, "unreadable"] > present:
                raise TableError(
                    f"column {name!r} holds {cell}, unlike in training: correct such cells or leave them empty"
                )


EMPTY_ROWS = 5
"""Number of rows from which it is unusual that all cells of a column are missing."""

UNUSUAL = {
    "unseen": "{count:,} cells of {name!r} hold values that did not occur in training; they count as unknown",
    "missing": "{count:,} cells of {name!r} are missing, and none was in training; an average or no category stands for them",
    "unreadable": "{count:,} cells of {name!r} cannot be read as in training; they count as missing",
    "empty": "all {count:,} cells of {name!r} are missing",
    "far": "{count:,} cells of {name!r} are further outside of the range in training than that is wide",
}


def warnings_of(unusual: Counter[tuple[str, str]], ended: bool = True) -> list[str]:
    """Return a sentence for each column and kind of unusual cells that `Preprocessor.transform` counted.

    Only when all rows were counted, ``ended``, can a column be empty.
    """
    rows = unusual["", "rows"]
    found = []
    for (name, kind), count in unusual.items():
        if count and kind in UNUSUAL and (kind != "empty" or (ended and count == rows >= EMPTY_ROWS)):
            found.append(UNUSUAL[kind].format(name=name, count=count))
    return found


@dataclass(frozen=True)
class FitResult:
    """A fitted preprocessor, and what became of the table.

    Attributes
    ----------
    preprocessor
        The preprocessor.
    left_out
        {column: why it is left out}.
    rows
        {part: number of rows}.
    without_target
        Number of rows without a target.
    unreadable
        {column: which cells are not numbers or dates as the others are}; they count as missing.
    incomplete
        Names of the columns that have missing cells in any row.
    shares
        Shares of the rows that each part gets.
    """

    preprocessor: Preprocessor
    left_out: dict[str, str]
    rows: dict[str, int]
    without_target: int
    unreadable: dict[str, str]
    incomplete: tuple[str, ...]
    shares: tuple[float, ...]


def shares_of(test_share: float, rows: int) -> tuple[float, float, float]:
    """Return the shares of training, validation and test rows in a table.

    Examples
    --------
    >>> [round(share, 3) for share in shares_of(0.1, 5000)], [round(share, 3) for share in shares_of(0.1, 200)]
    ([0.8, 0.1, 0.1], [0.7, 0.2, 0.1])
    """
    validation = min(0.2, max(SHARES[1], VALIDATION_ROWS / max(1, rows)))
    return (1.0 - validation - test_share, validation, test_share)


def assign_parts(start: int, count: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the part of each row, 0 for training, 1 for validation, 2 for test: it depends on row number and seed alone."""
    key = random.new_key(seed, random.SPLIT, 1)
    row_numbers = np.arange(start, start + count)
    counter = tuple((row_numbers >> shift & 0xFFFFFFFF).astype(np.uint32).view(np.int32) for shift in (32, 0))
    words = random.threefry2x32(key, counter)[0].view(np.uint32)  # type: ignore[arg-type]
    return np.searchsorted(np.cumsum(shares)[:-1] * 2.0**32, words, side="right")


def read_parts(
    table: Table, columns: Sequence[str], shares: Sequence[float], seed: int
) -> Iterator[tuple[Any, int, np.ndarray]]:
    """Yield record batches, the number of their first row, and the part of each of their rows; see `assign_parts`."""
    start = 0
    for batch in table.select(tuple(columns)):
        yield batch, start, assign_parts(start, batch.num_rows, shares, seed)
        start += batch.num_rows


def fit_preprocessor(
    table: Table,
    target: str,
    task: str | None = None,
    ignore: Sequence[str] = (),
    shares: Sequence[float] | Callable[[int], Sequence[float]] = SHARES,
    seed: int = 0,
    column_types: Mapping[str, str] | None = None,
    decimal: str | None = None,
    missing_marks: Sequence[str] = (),
    smooth: bool = False,
) -> FitResult:
    """Fit a preprocessor to the training rows of a table, after a pass through all rows that decides the types of the columns.

    Raises `TableError` if there is nothing to learn. ``shares`` may be a function of the number of rows. For ``smooth`` see
    `NumericColumn`, for the other parameters `TableModel.train`.
    """
    given = dict(column_types or {})
    _check_given(given, decimal)
    ignore = (*ignore, *(name for name, kind in given.items() if kind == "ignore"))
    table.require((*(c for c in (*ignore, *given) if c not in table.index), target))
    if target in table.index:
        raise TableError(f"target {target!r} is the index of the data frame: apply reset_index() to use it")
    if target in ignore:
        raise TableError(f"target {target!r} is among the ignored columns: remove it from ignore")
    unnamed = [c for c in table.columns[:1] if UNNAMED.fullmatch(c) and c not in (target, *given, *ignore)]
    used = tuple(c for c in table.columns if c not in (*ignore, *unnamed, *table.index))
    types, total = infer_types(table, used, given, decimal, missing_marks)
    shares = shares(total) if callable(shares) else shares
    if types[target].kind == "":
        raise TableError(f"target {target!r} cannot be predicted: {types[target].reason}")
    statistics = {
        c: ColumnStatistics(c, types[c], is_target=c == target, smooth=smooth and c != target)
        for c in used
        if types[c].kind
    }
    rows = dict.fromkeys(PARTS, 0)
    for batch, first_row, part in read_parts(table, tuple(statistics), shares, seed):
        cells = {name: s.read(batch.column(name), first_row) for name, s in statistics.items()}
        part = np.where(cells[target][1], part, -1)
        for index, name in enumerate(PARTS):
            rows[name] += int(np.sum(part == index))
        for name, s in statistics.items():
            s.add(*cells[name], training=part == 0)
    if total and not sum(rows.values()):
        raise TableError(f"all cells of target {target!r} are missing: there is nothing to learn from")
    if rows["train"] < 2:
        raise TableError(f"{table.name} has {total} rows, {rows['train']} of them for training: expected at least 2")
    task_of_type = {"number": "regression", "date": "regression", "category": "classification"}
    fitted_target = _fit_target(statistics[target], task or task_of_type.get(given.get(target, "")))
    inputs = (name for name in used if name != target)
    fitted = {name: statistics[name].column() if name in statistics else types[name].reason for name in inputs}
    columns = tuple(column for column in fitted.values() if not isinstance(column, str))
    left_out = dict.fromkeys(table.index, "the index of the data frame") | dict.fromkeys(ignore, "ignored on request")
    left_out |= dict.fromkeys(unnamed, "a first column without a name is the index of a data frame: name it to use it")
    left_out |= {name: reason for name, reason in fitted.items() if isinstance(reason, str)}
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TableError(f"{table.name} has no column to predict {target!r} from ({why})")
    unreadable = {name: _unreadable(s) for name, s in statistics.items() if s.unreadable}
    incomplete = tuple(c.name for c in columns if statistics[c.name].present < total)
    without_target = total - sum(rows.values())
    return FitResult(
        Preprocessor(columns, fitted_target), left_out, rows, without_target, unreadable, incomplete, tuple(shares)
    )


def _check_given(column_types: Mapping[str, str], decimal: str | None) -> None:
    for name, kind in column_types.items():
        if kind not in (*KINDS, "ignore"):
            raise ValueError(f"expected number, date, category or ignore for the type of column {name!r}, got {kind!r}")
    if decimal not in (None, ".", ","):
        raise ValueError(f'expected decimal "." or ",", got {decimal!r}')


def _unreadable(statistics: ColumnStatistics) -> str:
    more = statistics.unreadable - len(statistics.quoted)
    return ", ".join(statistics.quoted) + (f" and {more:,} more" if more else "")


def _fit_target(target: ColumnStatistics, task: str | None) -> Target:
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
