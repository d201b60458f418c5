"""Preprocessing: from the rows of a table to a network's inputs and targets, as fitted to the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import random
from .cells import NUMBER, as_codes, as_numbers, first_unparsable, is_present, text_array
from .columns import CategoricalColumn, Column, ColumnStatistics, NumericColumn
from .readers import Table, TableError

PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
"""Shares of the rows that each part gets."""

FEW_CLASSES = 20
"""Maximum number of distinct integers in a target that is taken for classes, unless the task is given."""

MAX_CLASSES = 1000

WRITTEN_NUMBER = re.compile(
    r"^\s*[-(+−]?\s*([$€£¥₹]|[A-Z]{2,3}[ $])?\s*[-+−]?\d[\d.,'’ \u00a0\u202f]*(\s?\D{0,6})\)?\s*$"
)
"""A number as people write it, with separators, and perhaps a currency, per cent or a unit."""

UNNAMED = re.compile(r"|Unnamed: \d+|\.\.\.1")
"""Names of the column that data frames write in front of the others: of pandas, of pandas read again, of R."""


@dataclass(frozen=True)
class Target:
    """The column that is predicted.

    Attributes
    ----------
    classes
        Class labels as text, in their order; None for a regression.
    integers
        Whether the class labels are integers.
    mean, scale
        Mean and standard deviation of the training rows, for a regression.
    date
        Whether the values are dates, as days since 1970.
    """

    name: str
    classes: tuple[str, ...] | None
    integers: bool = False
    mean: float = 0.0
    scale: float = 1.0
    date: bool = False

    def encode(self, column: Any) -> np.ndarray:
        """Return the network's targets, (rows,).

        Class indices, int32, negative where the cell is missing or of an unknown class; or scaled values, float32, NaN where
        it is missing.
        """
        if self.classes is None:
            values = as_numbers(column, self.name, self.date)
            return ((np.where(np.isfinite(values), values, np.nan) - self.mean) / self.scale).astype(np.float32)
        return as_codes(column, self.name, self.classes, exact=True).astype(np.int32)

    def decode(self, predicted: np.ndarray) -> np.ndarray:
        """Return labels for class indices, or values in the target's units for scaled ones, (rows,)."""
        if self.classes is None:
            return np.asarray(predicted, dtype=np.float64) * self.scale + self.mean
        return self.labels[np.asarray(predicted).astype(np.int64)]

    @property
    def labels(self) -> np.ndarray:
        """Class labels, (classes,): int64 or text."""
        assert self.classes is not None
        return np.asarray([int(c) for c in self.classes] if self.integers else list(self.classes))


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

    def encode(self, batch: Any) -> np.ndarray:
        """Return one number for each cell of a record batch, (rows, columns), float32, as stored on disk in training."""
        return np.stack([column.encode(batch.column(column.name)) for column in self.columns], axis=1)

    def expand(self, encoded: np.ndarray) -> np.ndarray:
        """Return the network's inputs, (rows, inputs), float32, from encoded cells, (rows, columns)."""
        return np.stack([part for i, c in enumerate(self.columns) for part in c.expand(encoded[:, i])], axis=1)

    def transform(self, table: Table, unseen: Counter[str] | None = None) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield the record batches of a table, with all their columns, and the network's inputs for each.

        ``unseen``, if given, counts for each column the cells whose text did not occur in the training rows.

        Raises
        ------
        TableError
            If a column is missing, or holds text where numbers are expected.
        """
        table.require(tuple(column.name for column in self.columns))
        for batch in table.select(table.columns):
            encoded = self.encode(batch)
            if unseen is not None:
                for i, column in enumerate(self.columns):
                    if isinstance(column, CategoricalColumn) and not column.infrequent:
                        unseen[column.name] += int(np.sum(encoded[:, i] == -1))
            yield batch, self.expand(encoded)


@dataclass(frozen=True)
class FitResult:
    """A fitted preprocessor, {column: why it is left out}, {part: number of rows}, and the number of rows without a target."""

    preprocessor: Preprocessor
    left_out: dict[str, str]
    rows: dict[str, int]
    without_target: int


def assign_parts(start: int, count: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the part of each row, 0 for training, 1 for validation, 2 for test: it depends on row number and seed alone."""
    key = random.new_key(seed, random.SPLIT, 1)
    row_numbers = np.arange(start, start + count)
    counter = tuple((row_numbers >> shift & 0xFFFFFFFF).astype(np.uint32).view(np.int32) for shift in (32, 0))
    words = random.threefry2x32(key, counter)[0].view(np.uint32)  # type: ignore[arg-type]
    return np.searchsorted(np.cumsum(shares)[:-1] * 2.0**32, words, side="right")


def read_parts(
    table: Table, columns: Sequence[str], target: str, shares: Sequence[float], seed: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield record batches and the part of each of their rows, -1 where the target is missing; see `assign_parts`."""
    start = 0
    for batch in table.select(tuple(columns)):
        part = assign_parts(start, batch.num_rows, shares, seed)
        start += batch.num_rows
        yield batch, np.where(is_present(batch.column(target)), part, -1)


def fit_preprocessor(
    table: Table,
    target: str,
    task: str | None = None,
    ignore: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> FitResult:
    """Fit a preprocessor to the training rows of a table, in one pass; raise `TableError` if there is nothing to learn."""
    import pyarrow

    table.require((*(c for c in ignore if c not in table.index), target))
    if target in table.index:
        raise TableError(f"target {target!r} is the index of the data frame: apply reset_index() to use it")
    if target in ignore:
        raise TableError(f"target {target!r} is among the ignored columns: remove it from ignore")
    unnamed = [c for c in table.columns[:1] if UNNAMED.fullmatch(c) and c not in (target, *ignore)]
    used = tuple(c for c in table.columns if c not in (*ignore, *unnamed, *table.index))
    train = {c: ColumnStatistics(c, table.untyped, is_target=c == target) for c in used}
    # a class may occur outside the training rows only
    target_of_all = ColumnStatistics(target, table.untyped, is_target=True)
    rows, total = dict.fromkeys(PARTS, 0), 0
    for batch, part in read_parts(table, used, target, shares, seed):
        total += batch.num_rows
        target_of_all.add(batch.column(target))
        for index, name in enumerate(PARTS):
            rows[name] += int(np.sum(part == index))
        train_rows = batch.filter(pyarrow.array(part == 0))
        for name, statistics in train.items():
            statistics.add(train_rows.column(name))
    if total and not sum(rows.values()):
        raise TableError(f"all cells of target {target!r} are missing: there is nothing to learn from")
    if rows["train"] < 2:
        raise TableError(f"{table.name} has {total} rows, {rows['train']} of them for training: expected at least 2")
    fitted_target = _fit_target(target_of_all, train.pop(target), task)
    fitted = {name: statistics.column() for name, statistics in train.items()}
    columns = tuple(column for column in fitted.values() if not isinstance(column, str))
    left_out = dict.fromkeys(table.index, "the index of the data frame") | dict.fromkeys(ignore, "ignored on request")
    left_out |= dict.fromkeys(unnamed, "a first column without a name is the index of a data frame: name it to use it")
    left_out |= {name: reason for name, reason in fitted.items() if isinstance(reason, str)}
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TableError(f"{table.name} has no column to predict {target!r} from ({why})")
    return FitResult(Preprocessor(columns, fitted_target), left_out, rows, total - sum(rows.values()))


def _fit_target(of_all: ColumnStatistics, train: ColumnStatistics, task: str | None) -> Target:
    name = of_all.name
    if of_all.unusable:
        raise TableError(f"target {name!r} cannot be predicted: {of_all.unusable}")
    if task is None:
        distinct = FEW_CLASSES + 1 if of_all.values is None else len(of_all.values)
        few_integers = of_all.integral and distinct <= FEW_CLASSES and 2 * distinct <= of_all.rows
        task = "regression" if of_all.is_number and not few_integers else "classification"
        if task == "classification" and not of_all.is_number:
            _check_text_target(of_all)
    if task == "classification":
        return _class_target(name, of_all.values)
    if not of_all.is_number:
        why = of_all.why_not_numeric() or "it holds text"
        raise TableError(f"target {name!r} is not numeric, which regression requires: {why}")
    column = train.column()
    if not isinstance(column, NumericColumn):
        raise TableError(f"target {name!r} cannot be predicted: {column}")
    return Target(name, None, mean=column.mean, scale=column.scale, date=column.date)


def _check_text_target(target: ColumnStatistics) -> None:
    """Raise a `TableError` if a target of text, whose task is inferred, holds numbers, or too many values for its rows."""
    counts, present = target.values or Counter(), target.rows - target.missing
    others = [text for text in counts if not WRITTEN_NUMBER.match(text)]
    if len(counts) > FEW_CLASSES and 2 * len(others) < len(counts):
        example = others[0] if others else first_unparsable(text_array(list(counts)), NUMBER)
        raise TableError(
            f"target {target.name!r} holds numbers as text, such as {example!r}: write all of them like 1234.5 or leave them "
            "empty, or use task='classification'"
        )
    if len(counts) > max(FEW_CLASSES, present // 2):
        raise TableError(
            f"target {target.name!r} has {len(counts)} distinct texts in {present} rows, which are not classes: choose another "
            "target, or use task='classification'"
        )


def _class_target(name: str, values: Counter[str] | None) -> Target:
    if values is None or len(values) > MAX_CLASSES:
        raise TableError(f"target {name!r} has more than {MAX_CLASSES:,} classes: for numbers, use task='regression'")
    if len(values) < 2:
        raise TableError(
            f"target {name!r} is {next(iter(values), 'missing')!r} in every row: expected at least 2 classes"
        )
    integers = all(_is_integer(value) for value in values)
    return Target(name, tuple(sorted(values, key=int if integers else natural_key)), integers)


def natural_key(text: str) -> list[Any]:
    """Return a sort key that puts "class 10" after "class 9"."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text)]


def _is_integer(text: str) -> bool:
    """Return whether a text is an integer that int64 holds, written as Python writes it."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text
