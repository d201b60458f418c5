"""Columns: what is learnt of a table's columns from the training part, and how rows become numbers by it.

Requires pyarrow. What was learnt is plain facts, which a model file holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .reading import MISSING, TableError

MOST_VALUES = 100
"""Values of a column of text that get an input each: the most frequent; the others are "other", and so is what is new."""

FREE_TEXT = 1000
"""A column of more values than this is a name or free text, and left out."""


FURTHEST = 1e6
"""Standard deviations from the mean beyond which a number is taken to be there: it is a mistake, and would become infinite."""


@dataclass(frozen=True)
class Number:
    """A column of numbers: each becomes (x - mean) / scale; a missing one 0, and 1 in an input of its own if there were any.

    Examples
    --------
    >>> Number("age", 40.0, 10.0, True).inputs
    ('age', 'age is missing')
    """

    name: str
    mean: float
    scale: float
    missing: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    def compact(self, column: Any) -> np.ndarray:
        """One number a cell, (rows,), float32; NaN where it is missing."""
        values = numbers(column, self.name)
        with np.errstate(over="ignore"):
            scaled = (np.where(np.isfinite(values), values, np.nan) - self.mean) / self.scale
        return np.clip(scaled, -FURTHEST, FURTHEST).astype(np.float32)

    def expanded(self, compact: np.ndarray) -> list[np.ndarray]:
        """What the network takes, (rows,) each."""
        gone = np.isnan(compact)
        whole = np.where(gone, np.float32(0.0), compact)
        return [whole, gone.astype(np.float32)] if self.missing else [whole]


@dataclass(frozen=True)
class Category:
    """A column of text: an input for each value, of which one is 1; none for other values.

    Examples
    --------
    >>> Category("sex", ("f", "m"), False).inputs
    ('sex = f', 'sex = m')
    """

    name: str
    values: tuple[str, ...]
    missing: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        return (*(f"{self.name} = {v}" for v in self.values), *((f"{self.name} is missing",) if self.missing else ()))

    def compact(self, column: Any) -> np.ndarray:
        """The number of each cell's value, (rows,), float32: -1 for others, -2 where it is missing."""
        import pyarrow.compute as pc

        found = texts(column)
        index = pc.index_in(found, value_set=_text_array(self.values))
        codes = pc.fill_null(index, -1).to_numpy(zero_copy_only=False)
        return np.where(found.is_null().to_numpy(zero_copy_only=False), -2, codes).astype(np.float32)

    def expanded(self, compact: np.ndarray) -> list[np.ndarray]:
        """What the network takes, (rows,) each."""
        codes = [*range(len(self.values)), *([-2] if self.missing else [])]
        return [(compact == code).astype(np.float32) for code in codes]


Column = Number | Category


def kind_of(column: Any) -> str:
    """What a column holds: "number" (dates, too), "text" (yes and no, too), or "" for what is of no use."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_date(kind):
        return "number"
    if types.is_timestamp(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_boolean(kind):
        return "text"
    return "number" if types.is_null(kind) else ""


def _text_array(values: Sequence[str]) -> Any:
    import pyarrow

    return pyarrow.array(list(values), type=pyarrow.string())


def texts(column: Any) -> Any:
    """A column as text, null where it is missing."""
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pyarrow.scalar(None, column.type), column)
        whole = pc.all(pc.equal(column, pc.trunc(column))).as_py()
        if whole and not pc.any(pc.is_inf(column)).as_py():
            column = pc.cast(column, pyarrow.int64(), safe=False)  # 3.0 of one table is 3 of another
    return _without_missing(pc.cast(column, pyarrow.string()))


def _without_missing(column: Any) -> Any:
    """Trimmed, and null where a text stands for a missing cell."""
    import pyarrow
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(column, value_set=_text_array(MISSING)), pyarrow.scalar(None, pyarrow.string()), column)


def numbers(column: Any, name: str) -> np.ndarray:
    """A column as numbers, float64; NaN where it is missing. Dates are days since 1970.

    Raises
    ------
    TableError
        If a cell is no number.
    """
    import pyarrow
    import pyarrow.compute as pc

    kind = column.type
    try:
        if pyarrow.types.is_dictionary(kind):
            column = column.dictionary_decode()
        if pyarrow.types.is_date(kind) or pyarrow.types.is_timestamp(kind):
            days = pc.cast(pc.cast(column, pyarrow.timestamp("us")), pyarrow.int64())
            return _as_float(pc.divide(pc.cast(days, pyarrow.float64()), 86400e6))
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            column = _without_missing(pc.cast(column, pyarrow.string()))
        return _as_float(pc.cast(column, pyarrow.float64()))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise TableError(f"the column {name!r} holds what is no number: {error}") from None


def _as_float(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(column, math.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


@dataclass
class Seen:
    """What was seen of a column so far: as numbers while all cells are some, as values while there are few.

    Attributes
    ----------
    name
        The column's.
    untyped
        Whether it is of text that may be numbers.
    counted
        Whether values are counted of numbers, too.
    """

    name: str
    untyped: bool
    counted: bool = False
    rows: int = 0
    missing: int = 0
    is_number: bool = True
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    whole: bool = True
    values: Counter[str] | None = field(default_factory=Counter)
    unusable: str = ""

    def add(self, column: Any) -> None:
        """Some more cells."""
        kind = kind_of(column)
        if kind == "":
            self.unusable = f"it holds {column.type}"
        if self.unusable:
            return
        self.rows += len(column)
        if self.is_number and (kind == "number" or (kind == "text" and self.untyped)):
            self._as_numbers(column)
        else:
            self.is_number = False
        if not self.is_number or self.counted or self.untyped:
            self._as_values(column)

    def _as_numbers(self, column: Any) -> None:
        """Chan, Golub & LeVeque (1983) for mean and squares."""
        try:
            found = numbers(column, self.name)
        except TableError:
            self.is_number = False
            return
        found = found[np.isfinite(found)]
        if not len(found):
            return
        self.whole = self.whole and bool(np.all(found == np.rint(found)))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, n = float(found.mean()), len(found)
            apart, total = mean - self.mean, self.count + n
            self.squares += float(((found - mean) ** 2).sum()) + apart * apart * self.count * n / total
            self.mean += apart * n / total
            self.count = total

    def _as_values(self, column: Any) -> None:
        import pyarrow.compute as pc

        if self.values is None:
            self.missing += column.null_count
            return
        found = texts(column)
        self.missing += found.null_count
        for entry in pc.value_counts(pc.drop_null(found)):
            self.values[entry["values"].as_py()] += entry["counts"].as_py()
        if len(self.values) > FREE_TEXT and (self.is_number or len(self.values) > FREE_TEXT * 10):
            self.values = None

    @property
    def distinct(self) -> int | None:
        """How many values there are; None for more than were counted."""
        return None if self.values is None else len(self.values)

    def learnt(self) -> Column | str:
        """The column, or why it is left out."""
        if self.unusable:
            return self.unusable
        if self.is_number and self.count:
            gone = self.rows - self.count
            scale = math.sqrt(self.squares / self.count)
            if not (math.isfinite(scale) and math.isfinite(self.mean)):
                return "its numbers are too large"
            if scale <= 1e-12 * abs(self.mean) and not gone:
                return "all its cells are the same"
            return Number(self.name, self.mean, scale if scale > 1e-12 * abs(self.mean) else 1.0, gone > 0)
        if self.rows == self.missing or (self.is_number and not self.count):
            return "all its cells are missing"
        if self.values is None or len(self.values) > FREE_TEXT:
            return f"it has more than {FREE_TEXT:,} values: a name, or free text"
        filled = self.rows - self.missing
        if len(self.values) > max(20, filled // 2):
            return f"it has {len(self.values)} values in {filled} rows: a name, or free text"
        if len(self.values) == 1 and not self.missing:
            return "all its cells are the same"
        return Category(self.name, tuple(value for value, _ in common(self.values, MOST_VALUES)), self.missing > 0)


def common(values: Counter[str], most: int | None = None) -> list[tuple[str, int]]:
    """The most frequent first, those of one frequency by name.

    Examples
    --------
    >>> common(Counter({"b": 1, "a": 1, "c": 2}))
    [('c', 2), ('a', 1), ('b', 1)]
    """
    return sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
