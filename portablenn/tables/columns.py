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

from .readers import MISSING, TableError

MOST_VALUES = 100
"""Values of a column of text that get an input each: the most frequent; the others are "other", and so is what is new."""

FREE_TEXT = 1000
"""A column of more values than this is a name or free text, and left out."""


FURTHEST = 1e6
"""Standard deviations from the mean beyond which a number is taken to be there: it is a mistake, and would become infinite."""


@dataclass(frozen=True)
class Number:
    """A column of numbers: each becomes (x - mean) / scale; a missing one 0, and 1 in an input of its own if there were any.

    Dates are numbers, too: days since 1970.

    Examples
    --------
    >>> Number("age", 40.0, 10.0, True).inputs
    ('age', 'age is missing')
    """

    name: str
    mean: float
    scale: float
    missing: bool
    date: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    def compact(self, column: Any) -> np.ndarray:
        """One number a cell, (rows,), float32; NaN where it is missing."""
        values = numbers(column, self.name, self.date)
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
    """A column of text: an input for each value, of which one is 1; none for other values, such as ``rarer`` ones, so many.

    Examples
    --------
    >>> Category("sex", ("f", "m"), False).inputs
    ('sex = f', 'sex = m')
    """

    name: str
    values: tuple[str, ...]
    missing: bool
    rarer: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        return (*(f"{self.name} = {v}" for v in self.values), *((f"{self.name} is missing",) if self.missing else ()))

    def compact(self, column: Any) -> np.ndarray:
        """The number of each cell's value, (rows,), float32: -1 for others, -2 where it is missing."""
        return coded(texts(column), self.values).astype(np.float32)

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


def coded(found: Any, values: Sequence[str]) -> np.ndarray:
    """The place of each text among some values, (rows,), int64: -1 for others, -2 where it is missing."""
    import pyarrow.compute as pc

    index = pc.index_in(found, value_set=_text_array(values))
    codes = pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(found.is_null().to_numpy(zero_copy_only=False), -2, codes)


def texts(column: Any, exactly: bool = False) -> Any:
    """A column as text, null where it is missing.

    Unless it is to be ``exactly`` what stands there, as labels are, spaces around it do not count, and True is true, for what
    a table says should not depend on who wrote it.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pyarrow.scalar(None, column.type), column)
        whole = pc.all(pc.equal(column, pc.trunc(column))).as_py()
        if whole and not pc.any(pc.is_inf(column)).as_py():
            column = pc.cast(column, pyarrow.int64(), safe=False)  # 3.0 of one table is 3 of another
    column = pc.cast(column, pyarrow.string())
    if exactly:
        trimmed = pc.utf8_trim_whitespace(column)
        return pc.if_else(_is_missing(trimmed), pyarrow.scalar(None, pyarrow.string()), column)
    column = _without_missing(column)
    lower = pc.utf8_lower(column)
    return pc.if_else(pc.is_in(lower, value_set=_text_array(("true", "false"))), lower, column)


def _is_missing(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.is_in(column, value_set=_text_array(MISSING))


def _without_missing(column: Any) -> Any:
    """Trimmed, and null where a text stands for a missing cell."""
    import pyarrow
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(_is_missing(column), pyarrow.scalar(None, pyarrow.string()), column)


def numbers(column: Any, name: str, date: bool = False) -> np.ndarray:
    """A column as numbers, float64; NaN where it is missing.

    Of texts, decimal commas are understood where they cannot be thousands, and dates, as days since 1970, if it is one of
    dates.

    Raises
    ------
    TableError
        If a cell is no number, or no date; it is named.
    """
    import pyarrow
    import pyarrow.compute as pc

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column = column.dictionary_decode()
    if pyarrow.types.is_date(column.type) or pyarrow.types.is_timestamp(column.type):
        return _days(column)
    of_text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
    try:
        if not of_text:
            return _as_float(pc.cast(column, pyarrow.float64()))
        column = _without_missing(pc.cast(column, pyarrow.string()))
        if date:
            return _days(column)
        if (
            pc.all(pc.match_substring_regex(column, DECIMAL_COMMA)).as_py()
            and pc.any(pc.match_substring(column, ",")).as_py()
        ):
            column = pc.replace_substring(column, ",", ".")
        return _as_float(pc.cast(column, pyarrow.float64()))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        cell = _first_odd(column, date) if of_text else str(column.type)
        raise TableError(f"the column {name!r} holds {cell!r}, which is no {'date' if date else 'number'}") from None


PLAIN = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?(inf|Inf|nan|NaN)$"
DECIMAL_COMMA = r"^[-+]?(\d+|0,\d+|\d+,(\d{1,2}|\d{4,}))$"
THOUSANDS = r"^[-+]?\d{1,3}([,' .]\d{3})+([.,]\d+)?$"


def _days(column: Any) -> np.ndarray:
    """Dates as days since 1970."""
    import pyarrow
    import pyarrow.compute as pc

    when = pc.cast(column, pyarrow.timestamp("us"))
    return _as_float(pc.divide(pc.cast(pc.cast(when, pyarrow.int64()), pyarrow.float64()), 86400e6))


def is_dates(column: Any) -> bool:
    """Whether each text is a date, such as 2024-02-29, or a date and a time."""
    import pyarrow
    import pyarrow.compute as pc

    found = pc.drop_null(_without_missing(pc.cast(column, pyarrow.string())))
    if not len(found) or not pc.all(pc.match_substring_regex(found, r"^\d{4}-\d{2}-\d{2}")).as_py():
        return False
    try:
        pc.cast(found, pyarrow.timestamp("us"))
    except pyarrow.ArrowInvalid:
        return False
    return True


def _first_odd(column: Any, date: bool = False) -> str:
    """The first cell of text that is no plain number, or no date."""
    import pyarrow.compute as pc

    found = pc.drop_null(column)
    odd = pc.filter(found, pc.invert(pc.match_substring_regex(found, r"^\d{4}-\d{2}-\d{2}" if date else PLAIN)))
    return str(odd[0]) if len(odd) else str(found[0])


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
        Whether values are counted of numbers, too, and exactly as they stand there: of a target.
    date
        Whether it is of dates; None while nothing was seen.
    plain, odd
        Of a column of text: how many cells are plain numbers, and the first that is none.
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
    date: bool | None = None
    plain: int = 0
    odd: str = ""
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
        of_text = kind_of(column) == "text"
        dates = is_dates(column) if of_text else str(column.type).startswith(("date", "timestamp"))
        try:
            if self.date is not None and self.date != dates and column.null_count < len(column):
                raise TableError(f"the column {self.name!r} holds dates and numbers")
            found = numbers(column, self.name, dates)
        except TableError:
            self.is_number = False
            return
        found = found[np.isfinite(found)]
        if not len(found):
            return
        self.date = dates
        self.whole = self.whole and not dates and bool(np.all(found == np.rint(found)))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, n = float(found.mean()), len(found)
            apart, total = mean - self.mean, self.count + n
            self.squares += float(((found - mean) ** 2).sum()) + apart * apart * self.count * n / total
            self.mean += apart * n / total
            self.count = total

    def _as_values(self, column: Any) -> None:
        import pyarrow.compute as pc

        if self.values is None:
            found = texts(column, exactly=self.counted)
            self._look_for_numbers(found)
            self.missing += found.null_count
            return
        found = texts(column, exactly=self.counted)
        self._look_for_numbers(found)
        self.missing += found.null_count
        for entry in pc.value_counts(pc.drop_null(found)):
            self.values[entry["values"].as_py()] += entry["counts"].as_py()
        if len(self.values) > FREE_TEXT and (self.is_number or len(self.values) > FREE_TEXT * 10):
            self.values = None

    def _look_for_numbers(self, found: Any) -> None:
        import pyarrow.compute as pc

        known = pc.drop_null(found)
        plain = pc.sum(pc.match_substring_regex(known, PLAIN)).as_py() or 0
        self.plain += plain
        if not self.odd and plain < len(known):
            self.odd = _first_odd(known)

    def nearly_numbers(self) -> str:
        """Why a column that people take for one of numbers is none; "" for one that nobody does."""
        import re

        filled = self.rows - self.missing
        if self.is_number or not self.odd:
            return ""
        if self.plain > 0.9 * filled:
            return f"{self.plain:,} of its {filled:,} cells are numbers, and {self.odd!r} is none: mend it, or leave it empty"
        if re.match(THOUSANDS, self.odd) or re.match(r"^[-+]?\d+,\d+$", self.odd):
            return f"its numbers are written like {self.odd!r}: write them without separators, and with a decimal point"
        return ""

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
            scale = scale if scale > 1e-12 * abs(self.mean) else 1.0
            return Number(self.name, self.mean, scale, gone > 0, bool(self.date))
        if self.rows == self.missing or (self.is_number and not self.count):
            return "all its cells are missing"
        if nearly := self.nearly_numbers():
            return nearly
        if self.values is None or len(self.values) > FREE_TEXT:
            return f"it has more than {FREE_TEXT:,} values: a name, or free text"
        filled = self.rows - self.missing
        if len(self.values) > max(20, filled // 2):
            return f"it has {len(self.values)} values in {filled} rows: a name, or free text"
        if len(self.values) == 1 and not self.missing:
            return "all its cells are the same"
        kept = tuple(value for value, _ in common(self.values, MOST_VALUES))
        return Category(self.name, kept, self.missing > 0, len(self.values) - len(kept))


def common(values: Counter[str], most: int | None = None) -> list[tuple[str, int]]:
    """The most frequent first, those of one frequency by name.

    Examples
    --------
    >>> common(Counter({"b": 1, "a": 1, "c": 2}))
    [('c', 2), ('a', 1), ('b', 1)]
    """
    return sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
