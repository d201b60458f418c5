"""Parsing of cells: a pyarrow column as text or as numbers, the same from a typed file and from a CSV file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .readers import TableError

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
"""Texts that mark a missing cell."""

NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?(inf|Inf|nan|NaN)$"
DATE = r"^\d{4}-\d{2}-\d{2}"
DECIMAL_COMMA = r"^[-+]?(\d+|0,\d+|\d+,(\d{1,2}|\d{4,}))$"
"""A number whose comma cannot be a thousands separator."""


def column_kind(column: Any) -> str:
    """Return "number" (also for dates), "text" (also for booleans), or "" for a type that is not supported."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "number"
    return "text" if _is_text(kind) or types.is_string_view(kind) or types.is_boolean(kind) else ""


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def text_array(values: Sequence[str]) -> Any:
    """Return a pyarrow array of strings."""
    import pyarrow

    return pyarrow.array(list(values), type=pyarrow.string())


def as_text(column: Any, exact: bool = False) -> Any:
    """Return a column as text, null where a cell is missing.

    Surrounding spaces are removed, "True" becomes "true" and 3.0 becomes "3", so that a CSV file and a typed one agree.
    With ``exact``, which labels need, text is unchanged.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pyarrow.scalar(None, column.type), column)
        integral = pc.all(pc.equal(column, pc.trunc(column))).as_py()
        if integral and not pc.any(pc.is_inf(column)).as_py():
            column = pc.cast(column, pyarrow.int64(), safe=False)
    column = _text_or_null(column, trim=not exact)
    if exact:
        return column
    lower = pc.utf8_lower(column)
    return pc.if_else(pc.is_in(lower, value_set=text_array(("true", "false"))), lower, column)


def _text_or_null(column: Any, trim: bool = True) -> Any:
    """Return a column as strings, without surrounding spaces if ``trim``; null where a text marks a missing cell."""
    import pyarrow
    import pyarrow.compute as pc

    column = pc.cast(column, pyarrow.string())
    trimmed = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(trimmed, value_set=text_array(MISSING))
    return pc.if_else(missing, pyarrow.scalar(None, pyarrow.string()), trimmed if trim else column)


def is_present(column: Any) -> np.ndarray:
    """Return where cells are not missing, (rows,), bool."""
    column = as_text(column) if column_kind(column) else column
    return ~column.is_null().to_numpy(zero_copy_only=False)


def as_codes(column: Any, name: str, values: Sequence[str], exact: bool = False) -> np.ndarray:
    """Return the index of each text in ``values``, (rows,), int64: -1 for other texts, -2 where the cell is missing."""
    import pyarrow.compute as pc

    if not column_kind(column):
        raise TableError(f"column {name!r} is of type {column.type}, which is not supported: convert it to text")
    text = as_text(column, exact)
    index = pc.index_in(text, value_set=text_array(values))
    codes = pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(text.is_null().to_numpy(zero_copy_only=False), -2, codes)


def as_numbers(column: Any, name: str, date: bool = False) -> np.ndarray:
    """Return a column as numbers, (rows,), float64; NaN where a cell is missing.

    Decimal commas in text are accepted where they cannot be thousands separators. With ``date``, text is parsed as dates,
    which are days since 1970. Raises a `TableError` that quotes the first cell that is not a number or date.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_date(column.type) or pyarrow.types.is_timestamp(column.type):
        return _as_days(column)
    is_text = _is_text(column.type)
    try:
        if is_text:
            column = _text_or_null(column)
            column = column if date else _with_decimal_points(column)
        return _as_days(column) if is_text and date else _as_float(pc.cast(column, pyarrow.float64()))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        cell = first_unparsable(column, DATE if date else NUMBER) if is_text else str(column.type)
        raise TableError(
            f"column {name!r} holds {cell!r}, which is not a {'date' if date else 'number'}: correct it or leave it empty"
        ) from None


def _with_decimal_points(column: Any) -> Any:
    """Replace decimal commas if no cell could mean a thousands separator."""
    import pyarrow.compute as pc

    readable = pc.all(pc.match_substring_regex(column, DECIMAL_COMMA)).as_py()
    return pc.replace_substring(column, ",", ".") if readable else column


def _as_days(column: Any) -> np.ndarray:
    import pyarrow
    import pyarrow.compute as pc

    microseconds = pc.cast(pc.cast(column, pyarrow.timestamp("us")), pyarrow.int64())
    return _as_float(pc.divide(pc.cast(microseconds, pyarrow.float64()), 86400e6))


def _as_float(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(column, math.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def holds_dates(column: Any) -> bool:
    """Return whether a column is of dates: by its type, or because each text is like 2024-02-29, with or without a time."""
    import pyarrow
    import pyarrow.compute as pc

    if column_kind(column) != "text":
        return str(column.type).startswith(("date", "timestamp"))
    present = pc.drop_null(_text_or_null(column))
    if not len(present) or not pc.all(pc.match_substring_regex(present, DATE)).as_py():
        return False
    try:
        pc.cast(present, pyarrow.timestamp("us"))
    except pyarrow.ArrowInvalid:
        return False
    return True


def first_unparsable(column: Any, pattern: str) -> str:
    """Return the first text that does not match a pattern; the first of all if each one does."""
    import pyarrow.compute as pc

    present = pc.drop_null(column)
    others = pc.filter(present, pc.invert(pc.match_substring_regex(present, pattern)))
    return str(others[0]) if len(others) else str(present[0])
