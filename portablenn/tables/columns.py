"""Columns: the encoding of a table's column as inputs of a network, and the statistics of its cells that decide it."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cells import NUMBER, as_codes, as_numbers, as_text, column_kind, first_unparsable, holds_dates
from .readers import TableError

MAX_CATEGORIES = 100
"""Maximum number of values of a categorical column that have an input each: the most frequent ones."""

MAX_DISTINCT = 1000
"""Number of distinct values above which a column of text is taken for an identifier or free text, and left out."""

MAX_DEVIATION = 1e6
"""Standard deviations from the mean at which a number is clipped: beyond, it is a mistake, and float32 would overflow."""

FREE_TEXT = "probably an identifier or free text"
THOUSANDS = r"^[-+]?\d{1,3}([,' .]\d{3})+([.,]\d+)?$"


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers, scaled to (x - mean) / scale.

    A missing cell becomes 0; if there were any in training, a second input is 1 there. Dates are days since 1970.

    Examples
    --------
    >>> NumericColumn("age", mean=40.0, scale=10.0, missing=True).input_names
    ('age', 'age is missing')
    """

    name: str
    mean: float
    scale: float  # standard deviation
    missing: bool  # cells were missing in training
    date: bool = False

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs that the column becomes."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    def encode(self, column: Any) -> np.ndarray:
        """Return one number for each cell, (rows,), float32; NaN where the cell is missing."""
        values = as_numbers(column, self.name, self.date)
        with np.errstate(over="ignore"):
            scaled = (np.where(np.isfinite(values), values, np.nan) - self.mean) / self.scale
        return np.clip(scaled, -MAX_DEVIATION, MAX_DEVIATION).astype(np.float32)

    def expand(self, encoded: np.ndarray) -> list[np.ndarray]:
        """Return the network's inputs, (rows,) each, from encoded cells, (rows,)."""
        missing = np.isnan(encoded)
        filled = np.where(missing, np.float32(0.0), encoded)
        return [filled, missing.astype(np.float32)] if self.missing else [filled]


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of text, one-hot encoded: an input for each value; all are 0 for any other value.

    Examples
    --------
    >>> CategoricalColumn("sex", ("f", "m"), missing=False).input_names
    ('sex = f', 'sex = m')
    """

    name: str
    values: tuple[str, ...]  # the most frequent first
    missing: bool  # cells were missing in training; an input is then 1 where they are
    infrequent: int = 0  # number of values in training that have no input

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs that the column becomes."""
        return (*(f"{self.name} = {v}" for v in self.values), *((f"{self.name} is missing",) if self.missing else ()))

    def encode(self, column: Any) -> np.ndarray:
        """Return the index of each cell's value, (rows,), float32: -1 for other values, -2 where the cell is missing."""
        return as_codes(column, self.name, self.values).astype(np.float32)

    def expand(self, encoded: np.ndarray) -> list[np.ndarray]:
        """Return the network's inputs, (rows,) each, from encoded cells, (rows,)."""
        codes = [*range(len(self.values)), *([-2] if self.missing else [])]
        return [(encoded == code).astype(np.float32) for code in codes]


Column = NumericColumn | CategoricalColumn


@dataclass
class ColumnStatistics:
    """Statistics of a column, accumulated batch by batch: mean and deviation of numbers, counts of values.

    ``untyped`` columns are of text that may be numbers, as in a CSV file. Of a target, the values are counted even if they
    are numbers, and exactly as they are written.
    """

    name: str
    untyped: bool
    is_target: bool = False
    rows: int = 0
    missing: int = 0
    is_number: bool = True  # all cells so far are numbers or dates
    count: int = 0  # of finite numbers
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations
    integral: bool = True
    date: bool | None = None  # None before the first number
    plain: int = 0  # texts that are numbers
    first_text: str = ""  # the first text that is not
    values: Counter[str] | None = field(default_factory=Counter)  # None if there were too many
    unusable: str = ""  # why the column cannot be used

    def add(self, column: Any) -> None:
        """Add a batch of cells."""
        kind = column_kind(column)
        if kind == "":
            self.unusable = f"columns of type {column.type} are not supported"
        if self.unusable:
            return
        self.rows += len(column)
        self.is_number = self.is_number and (kind == "number" or self.untyped) and self._add_numbers(column)
        if not self.is_number or self.is_target or self.untyped:
            self._add_values(as_text(column, exact=self.is_target))

    def _add_numbers(self, column: Any) -> bool:
        """Update mean and squares (Chan, Golub & LeVeque 1983); return False if a cell is not a number."""
        dates = holds_dates(column)
        try:
            values = as_numbers(column, self.name, dates)
        except TableError:
            return False
        values = values[np.isfinite(values)]
        if not len(values):
            return True
        if self.date not in (None, dates):
            return False
        self.date = dates
        self.integral = self.integral and not dates and bool(np.all(values == np.rint(values)))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, n = float(values.mean()), len(values)
            difference, total = mean - self.mean, self.count + n
            self.squares += float(((values - mean) ** 2).sum()) + difference * difference * self.count * n / total
            self.mean += difference * n / total
            self.count = total
        return True

    def _add_values(self, text: Any) -> None:
        import pyarrow.compute as pc

        present = pc.drop_null(text)
        self.missing += text.null_count
        plain = pc.sum(pc.match_substring_regex(present, NUMBER)).as_py() or 0
        self.plain += plain
        if not self.first_text and plain < len(present):
            self.first_text = first_unparsable(present, NUMBER)
        if self.values is None:
            return
        for entry in pc.value_counts(present):
            self.values[entry["values"].as_py()] += entry["counts"].as_py()
        if len(self.values) > (MAX_DISTINCT if self.is_number else 10 * MAX_DISTINCT):
            self.values = None

    def why_not_numeric(self) -> str:
        """Return why a column that looks like numbers is not; "" if it does not look like numbers."""
        present = self.rows - self.missing
        if self.is_number or not self.first_text:
            return ""
        if self.plain > 0.9 * present:
            return f"{self.plain:,} of {present:,} cells are numbers, {self.first_text!r} is not: correct it or leave it empty"
        if re.match(THOUSANDS, self.first_text) or re.match(r"^[-+]?\d+,\d+$", self.first_text):
            return f"numbers like {self.first_text!r}: write them with a decimal point and without thousands separators"
        return ""

    def column(self) -> Column | str:
        """Return the column, or why it is left out."""
        if self.unusable:
            return self.unusable
        if self.rows == self.missing or (self.is_number and not self.count):
            return "all cells are missing"
        return self._numeric() if self.is_number else self._categorical()

    def _numeric(self) -> NumericColumn | str:
        missing, scale = self.rows > self.count, math.sqrt(self.squares / self.count)
        if not (math.isfinite(scale) and math.isfinite(self.mean)):
            return "its numbers are too large"
        constant = scale <= 1e-12 * abs(self.mean)
        if constant and not missing:
            return "all cells have the same value"
        return NumericColumn(self.name, self.mean, 1.0 if constant else scale, missing, bool(self.date))

    def _categorical(self) -> CategoricalColumn | str:
        counts = self.values
        if why := self.why_not_numeric():
            return why
        if counts is None or len(counts) > MAX_DISTINCT:
            return f"more than {MAX_DISTINCT:,} distinct values: {FREE_TEXT}"
        present = self.rows - self.missing
        if len(counts) > max(20, present // 2):
            return f"{len(counts)} distinct values in {present} rows: {FREE_TEXT}"
        if len(counts) == 1 and not self.missing:
            return "all cells have the same value"
        kept = sorted(counts, key=lambda value: (-counts[value], value))[:MAX_CATEGORIES]
        return CategoricalColumn(self.name, tuple(kept), self.missing > 0, len(counts) - len(kept))
