"""An overview of a table: what each of its columns would be in a training, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cells import shortened
from .columns import ColumnStatistics
from .preprocessing import check_given, columns_apart
from .readers import open_table
from .types import infer_types

SHOWN = 3
"""Maximum number of values of a category that are named."""


@dataclass(frozen=True)
class ColumnSummary:
    """What a column of a table holds.

    Attributes
    ----------
    name
        Its name.
    type
        "number", "date" or "category", and "" if it would be left out.
    values
        The range of numbers and dates, the most frequent values of a category.
    written
        How numbers or dates are written, if not as 1234.5: unit, decimal comma, or format of dates.
    missing
        Number of missing cells, those that cannot be read included.
    note
        Why it would be left out, or which cells cannot be read; "" if there is nothing to say.
    """

    name: str
    type: str
    values: str
    written: str
    missing: int
    note: str


def summarize_columns(
    table: Any,
    *,
    column_types: Mapping[str, str] | None = None,
    decimal: str | None = None,
    missing_marks: Sequence[str] = (),
) -> list[ColumnSummary]:
    """Return what each column of a table would be as an input, in two passes through the rows.

    Parameters
    ----------
    table, column_types, decimal, missing_marks
        See `TableModel.train`.

    Raises
    ------
    FileNotFoundError, TableError, ValueError
        See `TableModel.train`.

    Warns
    -----
    RuntimeWarning
        If it is uncertain what cells mean.

    Examples
    --------
    >>> table = {"price": ["3,50 €", "4 €", "?"], "city": ["Oslo", "Rome", "Oslo"], "id": [7, 7, 7]}
    >>> price, city, number = summarize_columns(table)
    >>> price.type, price.values, price.written, price.missing
    ('number', '3.5 to 4', 'decimal comma, €', 1)
    >>> city.values, number.note
    ("'Oslo', 'Rome'", 'all cells have the same value')
    """
    opened, given = open_table(table), dict(column_types or {})
    check_given(given, decimal)
    opened.require(tuple(name for name in given if name not in opened.index))
    why = columns_apart(opened, [name for name, kind in given.items() if kind == "ignore"], tuple(given))
    used = tuple(name for name in opened.columns if name not in why)
    types, rows = infer_types(opened, used, given, decimal, missing_marks)
    statistics = {name: ColumnStatistics(name, kind) for name, kind in types.items() if kind.kind}
    first_row = 0
    for batch in opened.select(tuple(statistics)):
        for name, one in statistics.items():
            one.add(*one.read(batch.column(name), first_row), training=np.ones(batch.num_rows, bool))
        first_row += batch.num_rows
    why |= {name: kind.reason for name, kind in types.items() if not kind.kind}
    return [
        _summary(statistics[name], rows) if name in statistics else ColumnSummary(name, "", "", "", 0, why[name])
        for name in opened.columns
    ]


def _summary(statistics: ColumnStatistics, rows: int) -> ColumnSummary:
    column = statistics.column()
    kind, note = ("", column) if isinstance(column, str) else (statistics.type.kind, statistics.type.reason)
    if statistics.unreadable:
        note = "; ".join(filter(None, [note, f"cannot be read: {', '.join(statistics.quoted)}"]))
    values = _frequent(statistics.values) if statistics.type.kind == "category" else _range(statistics)
    return ColumnSummary(statistics.name, kind, values, _written(statistics), rows - statistics.present, note)


def _frequent(counts: Counter[str] | None) -> str:
    if counts is None:
        return "many"
    names = [shortened(name) for name, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN]]
    return ", ".join(names) + (f" and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else "")


def _range(statistics: ColumnStatistics) -> str:
    if not statistics.count:
        return ""
    ends = [statistics.low, statistics.high]
    if statistics.type.kind == "date":
        unit = "D" if statistics.integral else "m"
        texts = [str(np.datetime64(round(days * 86400), "s").astype(f"M8[{unit}]")) for days in ends]
    else:
        texts = [f"{value:.6g}" for value in ends]
    return texts[0] if ends[0] == ends[1] else " to ".join(texts)


def _written(statistics: ColumnStatistics) -> str:
    cells = statistics.type.cells
    if statistics.type.kind == "date":
        return "" if statistics.type.source == "date" else cells.date
    if statistics.type.kind == "category":
        return ""
    return ", ".join(filter(None, ["decimal comma" if cells.decimal == "," else "", cells.unit]))
