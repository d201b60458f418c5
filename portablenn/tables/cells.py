"""Parsing of cells: a pyarrow column as text, as numbers or as dates, the same from a typed file and from a CSV file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .readers import TableError

MISSING = (
    "", "?", "-", "--", "—", "N/A", "n/a", "n.a.", "N.A.", "NaN", "nan", "NaT", "null", "NULL", "<NA>", "#N/A",
    "#NA", "#NULL!", "#DIV/0!", "#REF!", "#VALUE!", "#NUM!", "#NAME?",
)  # fmt: skip
"""Texts that mark a missing cell in every column: empty cells, what libraries write for them, and errors of spreadsheets."""

WORDS = ("NA", "None")
"""Texts that mark a missing cell among numbers and dates. Among other texts they may be values, such as North America."""

NUMBER_MARKS = (*MISSING, *WORDS, "na", "none", "NONE", "Null", "nil", "missing", "Missing", "unknown", "Unknown")
"""Texts that mark a missing cell in a column of numbers or dates."""

CURRENCY = (
    r"(?:US|CA|A|R)?[$€£¥₹₩₽₺₫₴₪]|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|RUB|TRY"
)
MULTIPLES = rf"(?i)^(?:{CURRENCY})?(%|‰|k|m|mn|mio\.?|mrd\.?|b|bn|t|tsd\.?|thousand|million|billion|crore|lakh)s?$"
"""Units, perhaps behind a currency, without which a number has another value: 5 and 5 k, 0.45 and 45 %."""

LONGEST_NUMBER = 64
"""Number of characters above which a text is not looked through for a number with a unit."""

SPACES = re.compile("[\u00a0\u2009\u202f]")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

# what groups digits, then what separates decimals
GROUPED = {
    ".": r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+|(?:'\d{3})+)(?:\.\d*)?",
    ",": r"[1-9]\d{0,2}(?:(?:\.\d{3})+|(?: \d{3})+|(?:'\d{3})+)(?:,\d*)?",
}
PLAIN = {
    mark: rf"(?:\d+(?:{re.escape(mark)}\d*)?|{re.escape(mark)}\d+)(?:[eE][-+]?\d+)?|inf|Inf|Infinity" for mark in ".,"
}
NUMBER = {mark: rf"^[-+]?(?:{PLAIN[mark]}|{GROUPED[mark]})$" for mark in ".,"}
"""Texts that are numbers, by the character between integer and decimal part, once units and parentheses are removed."""

DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y", "%d/%m/%y",
    "%d.%m.%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%b %d %Y",
)  # fmt: skip
"""The formats of dates that are recognized, in the letters of strftime, each with or without a time and a zone behind it.

Of two that fit equally well, the earlier one is taken.
"""

DATE_PARTS = {
    "%Y": r"(?P<year>\d{4})",
    "%y": r"(?P<year>\d{2})",
    "%m": r"(?P<month>\d{1,2})",
    "%d": r"(?P<day>\d{1,2})",
    "%b": r"(?P<month>[A-Za-z]{3,9})\.?",
}
TIME = (
    r"(?:(?:T|,? +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d+)?))?)? ?(?P<half>[AaPp][Mm])?"
    r" ?(?P<zone>Z|UTC|[-+]\d{2}(?::?\d{2})?)?"
)


@dataclass(frozen=True)
class CellFormat:
    """How the cells of a column write numbers or dates; typed cells need none.

    Attributes
    ----------
    decimal
        "." or ",": what stands before the decimals; the other one may group thousands.
    unit
        Currency, unit or per cent sign before or behind the numbers, which stay as written: 45 for "45%".
    date
        The format of dates, in the letters of strftime, which become days since 1970, in UTC if they have a zone; "" for
        numbers.
    marks
        Texts that mark a missing cell, in addition to the usual ones.

    Examples
    --------
    >>> values, unreadable = CellFormat(decimal=",", unit="€").parse(text_array(["€ 1.234,50", "(7)", "n.a.", "much"]))
    >>> values.tolist(), unreadable.tolist()
    ([1234.5, -7.0, nan, nan], [False, False, False, True])
    """

    decimal: str = "."
    unit: str = ""
    date: str = ""
    marks: tuple[str, ...] = ()

    def parse(self, text: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return values, (rows,), float64, NaN for missing cells, and where a text is neither a value nor marks that."""
        import pyarrow
        import pyarrow.compute as pc

        text = _with_nulls(text, (*NUMBER_MARKS, *self.marks))
        try:  # usually all cells are written plainly
            if self.date == "%Y-%m-%d":
                return _days(pc.cast(text, pyarrow.timestamp("us"))), np.zeros(len(text), bool)
            if replace(self, marks=()) == PLAIN_NUMBERS:
                return _as_floats(pc.cast(text, pyarrow.float64())), np.zeros(len(text), bool)
        except pyarrow.ArrowInvalid:
            pass
        values, readable = _parse_dates(text, self.date) if self.date else self._parse_numbers(text)
        return values, ~readable & ~_is_null(text)

    def _parse_numbers(self, text: Any) -> tuple[np.ndarray, np.ndarray]:
        import pyarrow
        import pyarrow.compute as pc

        numbers, units = split_units(text)
        matches = pc.match_substring_regex(numbers, NUMBER[self.decimal])
        fits = pc.equal(units, self.unit)
        if not multiplies(self.unit):
            fits = pc.or_(fits, pc.equal(units, ""))
        readable = pc.fill_null(pc.and_(matches, fits), False)
        numbers = pc.replace_substring_regex(numbers, "[ '+]" if self.decimal == "," else "[, '+]", "")
        if self.decimal == ",":
            numbers = pc.replace_substring(pc.replace_substring(numbers, ".", ""), ",", ".")
        numbers = pc.replace_substring_regex(numbers, r"([eE])(\d)", r"\1\2")
        kept = pc.if_else(readable, numbers, pyarrow.scalar(None, pyarrow.string()))
        return _as_floats(pc.cast(kept, pyarrow.float64())), as_bools(readable)


PLAIN_NUMBERS = CellFormat()
"""How numbers are written as in Python."""


def multiplies(unit: str) -> bool:
    """Return whether a number without this unit has another value."""
    return re.search(MULTIPLES, unit) is not None


def split_units(text: Any) -> tuple[Any, Any]:
    """Return texts without currency, unit, per cent sign and parentheses for negative numbers, and what was removed.

    What does not look like a number with a unit stays as it is, with unit "".
    """
    import pyarrow.compute as pc

    original, text = text, pc.if_else(pc.greater(pc.utf8_length(text), LONGEST_NUMBER), "", text)
    text = pc.replace_substring_regex(text, SPACES.pattern, " ")
    text = pc.replace_substring(pc.replace_substring(text, "−", "-"), "’", "'")
    text = pc.replace_substring_regex(text, rf"^({CURRENCY})? ?\(([^()]*\d[^()]*)\)$", r"-\1\2")
    number = r"(?P<number>[\d.,][\d.,' ]*?(?:[eE][-+]?\d+)?)"
    behind = rf"(?P<behind>{CURRENCY}|%|[^\d\s.,'+()-][^\d.,'()]{{0,9}})?"
    pattern = rf"^(?P<sign>[-+]?) ?(?P<before>{CURRENCY})? ?(?P<minus>[-+]?) ?{number} ?{behind}$"
    parts = pc.extract_regex(text, pattern)
    sign, before, minus, digits, behind = (
        pc.struct_field(parts, [name]) for name in ("sign", "before", "minus", "number", "behind")
    )
    numbers = pc.binary_join_element_wise(sign, minus, digits, "")
    looks = parts.is_valid()
    return pc.if_else(looks, numbers, original), pc.if_else(looks, pc.binary_join_element_wise(before, behind, ""), "")


def _parse_dates(text: Any, date: str) -> tuple[np.ndarray, np.ndarray]:
    """Return days since 1970, (rows,), and where a text is a date of the calendar in this format."""
    import pyarrow.compute as pc

    pattern = re.sub("%[a-zA-Z]", lambda match: DATE_PARTS[match[0]], re.escape(date).replace(r"\ ", " "))
    parts = pc.extract_regex(text, f"^{pattern}{TIME}$")
    found = ~_is_null(parts)

    def part(name: str) -> Any:
        return pc.fill_null(pc.struct_field(parts, [name]), "")

    def number(name: str) -> np.ndarray:
        return np.asarray(_as_floats(pc.cast(pc.if_else(pc.equal(part(name), ""), "0", part(name)), "float64")))

    year = number("year")
    if "%y" in date:
        year += np.where(year < 69, 2000, 1900)  # as POSIX has it
    if "%b" in date:
        letters = pc.utf8_slice_codeunits(pc.utf8_lower(part("month")), 0, 3)
        month = _as_floats(pc.fill_null(pc.index_in(letters, value_set=text_array(MONTHS)), -1)) + 1
    else:
        month = number("month")
    day, hour = number("day"), number("hour")
    half = pc.utf8_lower(part("half"))
    is_half, afternoon = as_bools(pc.not_equal(half, "")), as_bools(pc.equal(half, "pm"))
    found &= (month >= 1) & (month <= 12) & (day >= 1) & (hour <= np.where(is_half, 12, 23)) & (number("minute") < 60)
    found &= number("second") < 60
    hour = np.where(is_half, hour % 12 + 12 * afternoon, hour)
    months = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("int64").astype("M8[M]")
    days = months.astype("M8[D]") + (day.astype("int64") - 1)
    found &= days.astype("M8[M]") == months  # there is no 30 February
    zone = pc.replace_substring_regex(part("zone"), "^(Z|UTC|)$", "+0000")
    zone = pc.utf8_slice_codeunits(pc.binary_join_element_wise(pc.replace_substring(zone, ":", ""), "00", ""), 0, 5)
    offset = _as_floats(pc.cast(pc.utf8_slice_codeunits(zone, 1, 3), "float64")) * 60
    offset += _as_floats(pc.cast(pc.utf8_slice_codeunits(zone, 3, 5), "float64"))
    offset *= np.where(as_bools(pc.starts_with(zone, "-")), -1, 1)
    minutes = hour * 60 + number("minute") + number("second") / 60 - offset
    return np.where(found, days.astype("int64") + minutes / 1440, np.nan), found


def column_kind(column: Any) -> str:
    """Return "number", "date", "boolean", "text", or "" for a type that is not supported."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date"
    if types.is_boolean(kind):
        return "boolean"
    return "text" if _is_text(kind) or types.is_string_view(kind) else ""


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def shortened(text: Any) -> str:
    """Return a cell as a message quotes it."""
    text = str(text)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def text_array(values: Sequence[str]) -> Any:
    """Return a pyarrow array of strings."""
    import pyarrow

    return pyarrow.array(list(values), type=pyarrow.string())


def as_text(column: Any, marks: Sequence[str] = MISSING, exact: bool = False, trim: bool = True) -> Any:
    """Return a column as text, null where a cell is missing or holds one of ``marks``.

    Surrounding spaces are removed, "True" becomes "true" and 3.0 and "3.0" become "3", so that a CSV file and a typed one
    agree. With ``exact``, which labels need, text is unchanged but for the spaces, without ``trim`` wholly unchanged.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pyarrow.scalar(None, column.type), column)
        numbers = pc.cast(column, pyarrow.float64())
        integral = pc.and_(pc.equal(numbers, pc.trunc(numbers)), pc.less(pc.abs(numbers), 2.0**63))
        integers = pc.cast(pc.if_else(integral, numbers, 0.0), pyarrow.int64(), safe=False)
        column = pc.if_else(integral, pc.cast(integers, pyarrow.string()), pc.cast(column, pyarrow.string()))
    column = _with_nulls(pc.cast(column, pyarrow.string()), marks, trim)
    if exact:
        return column
    column = pc.replace_substring_regex(column, r"^(-?\d+)\.0$", r"\1")
    lower = pc.utf8_lower(column)
    return pc.if_else(pc.is_in(lower, value_set=text_array(("true", "false"))), lower, column)


def _with_nulls(text: Any, marks: Sequence[str], trim: bool = True) -> Any:
    """Return texts, without surrounding spaces if ``trim``; null where a text, without them, is one of ``marks``."""
    import pyarrow
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(text)
    missing = pc.is_in(trimmed, value_set=text_array(marks))
    return pc.if_else(missing, pyarrow.scalar(None, pyarrow.string()), trimmed if trim else text)


def as_codes(
    column: Any,
    name: str,
    values: Sequence[str],
    marks: Sequence[str] = (),
    exact: bool = False,
    trim: bool = True,
) -> np.ndarray:
    """Return the index of each text in ``values``, (rows,), int64: -1 for other texts, -2 where the cell is missing.

    A text in ``values`` is a value, even if it marks a missing cell elsewhere; ``marks`` are in addition to the usual ones.
    """
    if not column_kind(column):
        raise TableError(f"column {name!r} is of type {column.type}, which is not supported: convert it to text")
    import pyarrow.compute as pc

    text = as_text(column, (), exact, trim)
    codes = _as_floats(pc.fill_null(pc.index_in(text, value_set=text_array(values)), -1)).astype(np.int64)
    marked = as_bools(pc.is_in(pc.utf8_trim_whitespace(text), value_set=text_array((*MISSING, *marks))))
    return np.where(_is_null(text) | (marked & (codes < 0)), -2, codes)


def as_numbers(column: Any, name: str, cells: CellFormat) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as numbers, (rows,), float64, NaN where there is none, and where a cell cannot be read, (rows,), bool.

    Dates are days since 1970. Raises a `TableError` for cells of another type, such as dates instead of numbers.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, wanted = column_kind(column), "date" if cells.date else "number"
    if pyarrow.types.is_null(column.type) or kind == wanted:
        if cells.date:
            values = _days(pc.cast(column, pyarrow.timestamp("us"), safe=False))
        else:
            values = _as_floats(pc.cast(column, "float64", safe=False))
            marked = PLAIN_NUMBERS.parse(text_array(cells.marks))[0]
            values[np.isin(values, marked[np.isfinite(marked)])] = np.nan
        return _without_infinities(values, np.zeros(len(values), bool))
    is_empty = not len(column) or pc.all(pc.is_null(column, nan_is_null=True)).as_py()
    if is_empty:  # pandas reads such a column as numbers, whatever it is
        return np.full(len(column), np.nan), np.zeros(len(column), bool)
    if not _is_text(column.type):
        raise TableError(f"column {name!r} is of type {column.type}, not of {wanted}s, as in training: convert it")
    return _without_infinities(*cells.parse(pc.cast(column, pyarrow.string())))


def _without_infinities(values: np.ndarray, unreadable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return NaN for infinities, which count as cells that cannot be read."""
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values), unreadable | infinite


def _days(column: Any) -> np.ndarray:
    import pyarrow
    import pyarrow.compute as pc

    microseconds = pc.cast(pc.cast(column, pyarrow.int64()), pyarrow.float64(), safe=False)  # exact up to the year 2255
    return _as_floats(pc.divide(microseconds, 86400e6))


def _as_floats(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.array(pc.fill_null(pc.cast(column, "float64"), np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def as_bools(column: Any) -> np.ndarray:
    """Return a column of booleans, (rows,); False where it is null."""
    import pyarrow.compute as pc

    return np.array(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=bool)


def _is_null(column: Any) -> np.ndarray:
    return np.array(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)
