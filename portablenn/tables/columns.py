"""Columns: the encoding of a table's column as inputs of a network, and the statistics of its cells that decide it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cells import PLAIN_NUMBERS, CellFormat, as_bools, as_codes, as_numbers, as_text, shortened
from .types import ColumnType

MAX_CATEGORIES = 100
"""Maximum number of values of a categorical column that have an input each: the most frequent ones."""

MAX_DISTINCT = 1000
"""Number of distinct values above which a column of text is taken for an identifier or free text, and left out."""

MAX_DEVIATION = 1e6
"""Standard deviations from the mean at which a number is clipped: beyond, it is a mistake, and float32 would overflow."""

MAX_SAMPLE = 1 << 15
"""Maximum number of values, spread evenly over the rows, that quartiles are computed from."""

SAME_VALUE = "all cells have the same value"
FREE_TEXT = "probably an identifier or free text"
QUOTED = 3
"""Maximum number of unreadable cells that are quoted."""


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers, scaled to z = (x - center) / scale, and if ``smooth`` to z / √(1 + (z / 3)²), which is within ±3.

    A missing cell becomes 0; if there were any in training, a second input is 1 there. Dates are days since 1970.
    ``low`` and ``high`` are the smallest and the largest number in training.

    Examples
    --------
    >>> NumericColumn("age", center=40.0, scale=10.0, missing=True).input_names
    ('age', 'age is missing')
    """

    name: str
    center: float  # mean, or median if smooth
    scale: float  # standard deviation, or interquartile range if smooth
    missing: bool  # cells were missing in training
    low: float = -math.inf
    high: float = math.inf
    cells: CellFormat = PLAIN_NUMBERS
    smooth: bool = False

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs that the column becomes."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    def encode(self, column: Any, unusual: Counter[tuple[str, str]] | None = None) -> np.ndarray:
        """Return one number for each cell, (rows,), float32; NaN where the cell is missing.

        ``unusual``, if given, counts by column and kind the cells that are unlike those of the training rows: "unreadable",
        "missing" if none was (else "empty"), and "far", further outside of the range in training than that is wide.
        """
        values, unreadable = as_numbers(column, self.name, self.cells)
        if unusual is not None:
            width = self.high - self.low
            unusual[self.name, "unreadable"] += int(unreadable.sum())
            unusual[self.name, "missing" if not self.missing else "empty"] += int(
                (np.isnan(values) & ~unreadable).sum()
            )
            unusual[self.name, "far"] += int(((values < self.low - width) | (values > self.high + width)).sum())
        with np.errstate(over="ignore"):
            scaled = (np.where(np.isfinite(values), values, np.nan) - self.center) / self.scale
        scaled = np.clip(scaled, -MAX_DEVIATION, MAX_DEVIATION)
        return (scaled / np.sqrt(1.0 + (scaled / 3.0) ** 2) if self.smooth else scaled).astype(np.float32)

    def first_unreadable(self, column: Any) -> str:
        """Return the first cell that cannot be read, as messages quote it."""
        unreadable = as_numbers(column, self.name, self.cells)[1]
        return shortened(column[int(unreadable.argmax())].as_py())

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
    marks: tuple[str, ...] = ()  # texts that mark a missing cell, in addition to the usual ones

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the network's inputs that the column becomes."""
        return (*(f"{self.name} = {v}" for v in self.values), *((f"{self.name} is missing",) if self.missing else ()))

    def encode(self, column: Any, unusual: Counter[tuple[str, str]] | None = None) -> np.ndarray:
        """Return the index of each cell's value, (rows,), float32: -1 for other values, -2 where the cell is missing.

        ``unusual``, if given, counts by column and kind the cells that are unlike those of the training rows: "unseen" values,
        if all values in training have an input, and "missing" if none was (else "empty").
        """
        codes = as_codes(column, self.name, self.values, self.marks)
        if unusual is not None:
            unusual[self.name, "unseen"] += int((codes == -1).sum()) if not self.infrequent else 0
            unusual[self.name, "missing" if not self.missing else "empty"] += int((codes == -2).sum())
        return codes.astype(np.float32)

    def expand(self, encoded: np.ndarray) -> list[np.ndarray]:
        """Return the network's inputs, (rows,) each, from encoded cells, (rows,)."""
        codes = [*range(len(self.values)), *([-2] if self.missing else [])]
        return [(encoded == code).astype(np.float32) for code in codes]


Column = NumericColumn | CategoricalColumn


@dataclass
class ColumnStatistics:
    """Statistics of a column of known type, accumulated batch by batch: mean, deviation and range of numbers, counts of texts.

    They are those of the training rows, but for ``present``, ``integral``, ``unreadable`` and the texts of a target, which are
    those of all rows. The texts of a target are counted even if they are numbers, and as they are written.
    """

    name: str
    type: ColumnType
    is_target: bool = False
    smooth: bool = False  # whether numbers are scaled by their quartiles
    rows: int = 0
    count: int = 0  # of finite numbers, or of texts
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations
    low: float = math.inf
    high: float = -math.inf
    values: Counter[str] | None = field(default_factory=Counter)  # None if there were too many
    present: int = 0
    integral: bool = True
    unreadable: int = 0  # cells of numbers or dates that are none
    quoted: list[str] = field(default_factory=list)
    sample: np.ndarray = field(default_factory=lambda: np.zeros(0))  # every stride-th number
    stride: int = 1

    def read(self, column: Any, first_row: int = 0) -> tuple[Any, np.ndarray]:
        """Return the numbers or texts of a batch that begins at a row, and where they are present, (rows,), bool."""
        cells, present = None, np.ones(len(column), bool)
        if self.type.kind in ("number", "date"):
            cells, unreadable = as_numbers(column, self.name, self.type.cells)
            present = np.isfinite(cells)
            self.integral = self.integral and bool(np.all(cells[present] == np.rint(cells[present])))
            self.unreadable += int(unreadable.sum())
            for row in np.flatnonzero(unreadable)[: QUOTED - len(self.quoted)].tolist():
                self.quoted.append(f"{shortened(column[row].as_py())} in row {first_row + row + 1:,}")
        if self.type.kind == "category" or (self.is_target and self.values is not None):
            text = as_text(
                column, self.type.marks, exact=self.is_target, trim=not self.is_target or not self.type.source
            )
            present &= as_bools(text.is_valid())
            if self.is_target:
                self._count_texts(text.filter(present))
            cells = text if cells is None else cells
        self.present += int(present.sum())
        return cells, present

    def add(self, cells: Any, present: np.ndarray, training: np.ndarray) -> None:
        """Add what `read` returned, of the training rows, (rows,), bool."""
        kept = present & training
        self.rows += int(training.sum())
        if self.type.kind in ("number", "date"):
            self._add_numbers(cells[kept])
        else:
            self.count += int(kept.sum())
            if not self.is_target:
                self._count_texts(cells.filter(kept))

    def _add_numbers(self, values: np.ndarray) -> None:
        """Update mean and squares (Chan, Golub & LeVeque 1983)."""
        if not len(values):
            return
        if self.smooth:
            self.sample = np.concatenate([self.sample, values[-self.count % self.stride :: self.stride]])
            while len(self.sample) > MAX_SAMPLE:
                self.sample, self.stride = self.sample[::2], 2 * self.stride
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, n = float(values.mean()), len(values)
            difference, total = mean - self.mean, self.count + n
            self.squares += float(((values - mean) ** 2).sum()) + difference * difference * self.count * n / total
            self.mean += difference * n / total
            self.count = total

    def _count_texts(self, text: Any) -> None:
        import pyarrow.compute as pc

        if self.values is not None:
            for entry in pc.value_counts(text):
                self.values[entry["values"].as_py()] += entry["counts"].as_py()
            if len(self.values) > 10 * MAX_DISTINCT:
                self.values = None

    def column(self) -> Column | str:
        """Return the column, or why it is left out."""
        if not self.type.kind:
            return self.type.reason
        if not self.count:
            return "all cells are missing"
        return self._categorical() if self.type.kind == "category" else self._numeric()

    def _numeric(self) -> NumericColumn | str:
        missing, center, scale = self.rows > self.count, self.mean, math.sqrt(self.squares / self.count)
        if not (math.isfinite(scale) and math.isfinite(center)):
            return "its numbers are too large"
        constant = scale <= 1e-15 * abs(center)  # what rounding leaves
        if self.smooth and not constant:
            low, center, high = np.quantile(self.sample, [0.25, 0.5, 0.75]).tolist()
            scale = high - low or (self.high - self.low) / 2
        if constant and not missing:
            return SAME_VALUE
        return NumericColumn(
            self.name,
            center,
            1.0 if constant else scale,
            missing,
            self.low,
            self.high,
            self.type.cells,
            self.smooth,
        )

    def _categorical(self) -> CategoricalColumn | str:
        counts, missing = self.values, self.rows > self.count
        if counts is None or len(counts) > MAX_DISTINCT:
            return self.type.reason or f"more than {MAX_DISTINCT:,} distinct values: {FREE_TEXT}"
        if len(counts) > max(20, self.count // 2):
            return self.type.reason or f"{len(counts)} distinct values in {self.count} rows: {FREE_TEXT}"
        if len(counts) == 1 and not missing:
            return SAME_VALUE
        kept = sorted(counts, key=lambda value: (-counts[value], value))[:MAX_CATEGORIES]
        return CategoricalColumn(self.name, tuple(kept), missing, len(counts) - len(kept), self.type.own_marks)
