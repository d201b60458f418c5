"""Preprocessing: from the rows of a table to a network's inputs and targets, as fitted to the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .columns import Column, ColumnStatistics, NumericColumn
from .parts import PARTS, Assignment, Split, read_parts
from .readers import Table, TableError
from .target import Target, fit_target
from .types import KINDS, infer_types

UNNAMED = re.compile(r"|Unnamed: \d+|\.\.\.1")
"""Names of the column that data frames write in front of the others: of pandas, of pandas read again, of R."""


IS_INDEX, IGNORED = "the index of the data frame", "ignored on request"
UNNAMED_INDEX = "a first column without a name is the index of a data frame: name it to use it"
"""Why columns are left out, whatever their cells are."""


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
    assignment
        The part of each row.
    """

    preprocessor: Preprocessor
    left_out: dict[str, str]
    rows: dict[str, int]
    without_target: int
    unreadable: dict[str, str]
    incomplete: tuple[str, ...]
    assignment: Assignment


def fit_preprocessor(
    table: Table,
    target: str,
    task: str | None = None,
    ignore: Sequence[str] = (),
    split: Split = Split(),  # noqa: B008  # it is frozen
    column_types: Mapping[str, str] | None = None,
    decimal: str | None = None,
    missing_marks: Sequence[str] = (),
    smooth: bool = False,
) -> FitResult:
    """Fit a preprocessor to the training rows of a table, after a pass through all rows that decides the types of the columns.

    Raises `TableError` if there is nothing to learn. For ``smooth`` see `NumericColumn`, for the other parameters
    `TableModel.train`.
    """
    given = dict(column_types or {})
    check_given(given, decimal)
    ignore = (*ignore, *(name for name, kind in given.items() if kind == "ignore"))
    by = tuple(name for name in (split.group, split.time) if name is not None)
    table.require((*(c for c in (*ignore, *given) if c not in table.index), *by, target))
    if target in by:
        raise TableError(f"rows cannot be split by the target {target!r}: choose another column")
    if target in table.index:
        raise TableError(f"target {target!r} is the index of the data frame: apply reset_index() to use it")
    if target in ignore:
        raise TableError(f"target {target!r} is among the ignored columns: remove it from ignore")
    apart = columns_apart(table, ignore, (target, *given))
    used = tuple(c for c in table.columns if c not in (*apart, split.group))
    also = tuple(c for c in (split.time,) if c is not None and c not in used)
    types, total = infer_types(table, (*used, *also), given, decimal, missing_marks)
    assignment = split.assign(table, total, types, target)
    if types[target].kind == "":
        raise TableError(f"target {target!r} cannot be predicted: {types[target].reason}")
    statistics = {
        c: ColumnStatistics(c, types[c], is_target=c == target, smooth=smooth and c != target)
        for c in used
        if types[c].kind
    }
    rows, without_target = dict.fromkeys(PARTS, 0), 0
    for batch, first_row, part in read_parts(table, tuple(statistics), assignment):
        cells = {name: s.read(batch.column(name), first_row) for name, s in statistics.items()}
        without_target += int(np.sum(~cells[target][1]))
        part = np.where(cells[target][1], part, -1)
        for index, name in enumerate(PARTS):
            rows[name] += int(np.sum(part == index))
        for name, s in statistics.items():
            s.add(*cells[name], training=part == 0)
    if total and without_target == total:
        raise TableError(f"all cells of target {target!r} are missing: there is nothing to learn from")
    if rows["train"] < 2:
        raise TableError(f"{table.name} has {total} rows, {rows['train']} of them for training: expected at least 2")
    task_of_type = {"number": "regression", "date": "regression", "category": "classification"}
    fitted_target = fit_target(statistics[target], task or task_of_type.get(given.get(target, "")))
    inputs = (name for name in used if name != target)
    fitted = {name: statistics[name].column() if name in statistics else types[name].reason for name in inputs}
    columns = tuple(column for column in fitted.values() if not isinstance(column, str))
    left_out = apart | dict.fromkeys(
        (split.group,) if split.group else (), "rows are split by it, and other groups are new"
    )
    left_out |= {name: reason for name, reason in fitted.items() if isinstance(reason, str)}
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TableError(f"{table.name} has no column to predict {target!r} from ({why})")
    unreadable = {name: _unreadable(s) for name, s in statistics.items() if s.unreadable}
    incomplete = tuple(c.name for c in columns if statistics[c.name].present < total)
    return FitResult(
        Preprocessor(columns, fitted_target), left_out, rows, without_target, unreadable, incomplete, assignment
    )


def columns_apart(table: Table, ignored: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return {column: why it is left out}, whatever its cells are; a first column that is ``known`` is no unnamed index."""
    unnamed = [c for c in table.columns[:1] if UNNAMED.fullmatch(c) and c not in (*ignored, *known)]
    reasons = ((table.index, IS_INDEX), (ignored, IGNORED), (unnamed, UNNAMED_INDEX))
    return {name: reason for names, reason in reasons for name in names}


def check_given(column_types: Mapping[str, str], decimal: str | None) -> None:
    """Raise `ValueError` for unknown types of columns or another decimal mark."""
    for name, kind in column_types.items():
        if kind not in KINDS:
            raise ValueError(f"expected number, date, category or ignore for the type of column {name!r}, got {kind!r}")
    if decimal not in (None, ".", ","):
        raise ValueError(f'expected decimal "." or ",", got {decimal!r}')


def _unreadable(statistics: ColumnStatistics) -> str:
    more = statistics.unreadable - len(statistics.quoted)
    return ", ".join(statistics.quoted) + (f" and {more:,} more" if more else "")
