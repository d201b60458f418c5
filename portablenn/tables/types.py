"""Types of columns: numbers, dates or categories, and how they are written, decided from the cells of all rows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .cells import (
    DATE_FORMATS,
    MISSING,
    NUMBER,
    NUMBER_MARKS,
    PLAIN_NUMBERS,
    WORDS,
    CellFormat,
    as_bools,
    as_text,
    column_kind,
    multiplies,
    split_units,
    text_array,
)
from .readers import Table, TableError

UNREADABLE = 0.05
"""Largest share of the cells of a column of numbers or dates that may be none: they count as missing."""

KINDS = ("number", "date", "category", "ignore")
"""The types that a column can be said to have."""

MAX_UNITS = 20
LONGEST_EXAMPLE = 40
LIKELY_DATE = r"^(\d{1,4}([-/.])\d{1,2}[-/.]\d{2,4}|[A-Za-z]{3,9}\.? \d|\d{1,2}[- ][A-Za-z]{3})"


@dataclass(frozen=True)
class ColumnType:
    """The type of a column.

    Attributes
    ----------
    kind
        "number", "date" or "category"; "" if it cannot be used.
    cells
        How numbers or dates are written.
    marks
        Texts that mark a missing cell.
    reason
        Why the column cannot be used, or why one that looks like numbers is of categories; "" otherwise.
    source
        The type of the cells in the table: "number", "date", "boolean" or "text"; "" in a CSV file, which has no types.
    """

    kind: str
    cells: CellFormat = PLAIN_NUMBERS
    marks: tuple[str, ...] = MISSING
    reason: str = ""
    source: str = ""

    @property
    def own_marks(self) -> tuple[str, ...]:
        """Texts that mark a missing cell of categories, in addition to the usual ones."""
        return tuple(mark for mark in self.marks if mark not in MISSING)


@dataclass
class Evidence:
    """What the cells of a column say about its type, counted batch by batch."""

    name: str
    marks: tuple[str, ...] = ()  # texts that mark a missing cell, in addition to the usual ones
    kind: str = ""  # of typed cells: "number", "date", "boolean" or "text"
    unusable: str = ""
    present: int = 0  # texts that mark no missing cell
    words: set[str] = field(default_factory=set)  # those of WORDS that occur
    numbers: Counter[tuple[str, str]] = field(default_factory=Counter)  # by unit and by how they are written
    dates: Counter[str] = field(default_factory=Counter)  # by format
    examples: dict[str, str] = field(default_factory=dict)  # the first text of each kind

    def add(self, column: Any) -> None:
        """Add a batch of cells."""
        kind = column_kind(column)
        if not kind:
            self.unusable = f"columns of type {column.type} are not supported"
        self.kind = kind if str(column.type) != "null" or not self.kind else self.kind
        if kind == "text":
            self._add_texts(column)

    def _add_texts(self, column: Any) -> None:
        import pyarrow.compute as pc

        counted = pc.value_counts(as_text(column, (), exact=True))
        texts, counts = counted.field("values"), counted.field("counts").to_numpy()
        self.words.update(texts.filter(pc.is_in(texts, value_set=text_array(WORDS))).to_pylist())
        kept = ~as_bools(pc.is_in(texts, value_set=text_array((*NUMBER_MARKS, *self.marks)))) & as_bools(
            texts.is_valid()
        )
        texts, counts = texts.filter(kept), counts[kept]
        self.present += int(counts.sum())
        if len(texts):
            written = self._add_numbers(texts, counts)
            others = texts.filter(written == "")
            self._quote("text", others)
            self._add_dates(others, counts[written == ""])

    def _add_numbers(self, texts: Any, counts: np.ndarray) -> np.ndarray:
        """Add the numbers among distinct texts, and return how they are written, (texts,)."""
        import pyarrow
        import pyarrow.compute as pc

        try:  # the usual case, and ten times as fast
            pc.cast(texts, pyarrow.float64())
            numbers, units, unit_of = texts, [""], np.zeros(len(texts), dtype=np.int64)
        except pyarrow.ArrowInvalid:
            numbers, found = split_units(texts)
            encoded = found.dictionary_encode()
            units, unit_of = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        written = _written(numbers)
        for how in np.unique(written[written != ""]):
            self._quote(how, texts.filter(written == how))
            totals = np.bincount(unit_of[written == how], counts[written == how], len(units))
            for unit, total in zip(units, totals.tolist()):
                if total and (not unit or (unit, how) in self.numbers or len(self.numbers) < MAX_UNITS):
                    self.numbers[unit, str(how)] += int(total)
        return written

    def _add_dates(self, texts: Any, counts: np.ndarray) -> None:
        """Add the dates among distinct texts; other formats than those before are tried if these do not explain all texts."""
        import pyarrow.compute as pc

        likely = as_bools(pc.match_substring_regex(texts, LIKELY_DATE))
        if not likely.any():
            return
        texts, counts, before = texts.filter(likely), counts[likely], set(self.dates)
        explained = np.zeros(len(texts), bool)
        for date in sorted(DATE_FORMATS, key=lambda date: date not in before):
            if date not in before and explained.all():
                break
            values, _ = CellFormat(date=date).parse(texts)
            explained |= np.isfinite(values) & (date in before)
            if found := int(counts[np.isfinite(values)].sum()):
                self.dates[date] += found
                self._quote(date, texts.filter(np.isfinite(values)))

    def _quote(self, what: str, texts: Any) -> None:
        if what not in self.examples and len(texts):
            self.examples[what] = texts[0].as_py()[:LONGEST_EXAMPLE]

    def count(self, *hows: str) -> int:
        """Return the number of cells with numbers that are written in one of these ways."""
        return sum(count for (_, how), count in self.numbers.items() if how in hows)

    @property
    def decimal(self) -> str:
        """What separates the decimals, "." or ","; "" if the cells do not say."""
        point, comma = self.count("point"), self.count("comma")
        return "" if not point + comma else "," if comma > point else "."


def _written(numbers: Any) -> np.ndarray:
    """Return how numbers are written, (rows,): "point", "comma", "either ,", "either .", "integer", "code"; "" for no number.

    1.5 has a point, 1,234 may have either.
    """
    import pyarrow.compute as pc

    has_point, has_comma = (as_bools(pc.match_substring(numbers, mark)) for mark in ".,")
    point, comma = (as_bools(pc.match_substring_regex(numbers, NUMBER[mark])) for mark in ".,")
    code = as_bools(pc.match_substring_regex(numbers, r"^0\d+$"))
    conditions = [
        point & comma & code,
        point & comma & has_comma,
        point & comma & has_point,
        point & comma,
        point,
        comma,
    ]
    return np.select(conditions, ["code", "either ,", "either .", "integer", "point", "comma"], default="")


def infer_types(
    table: Table,
    columns: Iterable[str],
    given: Mapping[str, str] | None = None,
    decimal: str | None = None,
    marks: Iterable[str] = (),
) -> tuple[dict[str, ColumnType], int]:
    """Return the type of each column, and the number of rows, in one pass through all rows.

    What is uncertain, such as 5,126 or 03/04/2024, is warned of, with what was assumed.

    Parameters
    ----------
    table, columns
        The table, and the names of its columns that are used.
    given
        {name: "number", "date" or "category"}, which overrules what the cells look like.
    decimal
        "." or ",", for all columns; None to infer it.
    marks
        More texts that mark a missing cell, in all columns.

    Raises
    ------
    TableError
        If the table cannot be read, or a column that is said to be of numbers or dates holds none.
    """
    given, columns = given or {}, tuple(columns)
    marks = tuple(dict.fromkeys(marks))
    evidence = {name: Evidence(name, marks) for name in columns}
    rows = 0
    for batch in table.select(columns):
        rows += batch.num_rows
        for name in columns:
            evidence[name].add(batch.column(name))
    found = {e.decimal for e in evidence.values()} - {""}
    of_table = decimal or ("," if found == {","} else ".")
    formats = {_date(e)[0].date for e in evidence.values() if e.dates and not _other_dates(e, _date(e)[0].date)}
    types = {name: _type(e, given.get(name, ""), decimal, of_table, formats) for name, e in evidence.items()}
    if not decimal and "." not in found:
        for name, kind in types.items():
            _warn_of_points(evidence[name], kind)
    # a table whose numbers have the mark NA means the same by it elsewhere; in a typed table a missing text is null
    of_numbers = {word for name, e in evidence.items() if types[name].kind in ("number", "date") for word in e.words}
    of_text = (*MISSING, *marks, *(sorted(of_numbers) if table.untyped else ()))
    final = {
        name: replace(
            kind,
            cells=replace(kind.cells, marks=marks),
            marks=of_text,
            source="" if table.untyped else evidence[name].kind,
        )
        for name, kind in types.items()
    }
    return final, rows


def _type(e: Evidence, given: str, decimal: str | None, of_table: str, formats: set[str]) -> ColumnType:
    if e.unusable:
        return ColumnType("", reason=e.unusable)
    number, date = _number(e, decimal or e.decimal or of_table), _date(e, formats)
    shares = {"number": _share(number[1], e), "date": _share(date[1], e)}
    if e.kind in ("number", "date"):  # typed cells
        number, date = (PLAIN_NUMBERS, 0), (CellFormat(date=DATE_FORMATS[0]), 0)
        shares = {"number": 0.0, "date": 0.0, e.kind: 1.0}
    if given in shares and not shares[given]:
        raise TableError(f"column {e.name!r} holds no {given}s: it cannot be of this type")
    if given == "category" or e.kind == "boolean" or not any(shares.values()):
        return ColumnType("category")
    if given == "date" or (not given and shares["date"] >= 1 - UNREADABLE and shares["date"] >= shares["number"]):
        if date[0].date not in formats:
            _warn_of_order(e, date[0].date)
        return ColumnType("date", date[0])
    are_codes = e.count("code") and not e.count("point", "comma", "either ,", "either .")
    if given == "number" or (shares["number"] >= 1 - UNREADABLE and not are_codes):
        _warn_of_grouping(e, number[0], decimal)
        return ColumnType("number", number[0])
    return ColumnType("category", reason=_why_not_numeric(e, number[1], bool(are_codes)))


def _share(count: int, e: Evidence) -> float:
    return count / e.present if e.present else 0.0


def _number(e: Evidence, decimal: str) -> tuple[CellFormat, int]:
    """Return the most frequent format of the column's numbers, and how many cells have it."""
    other = "comma" if decimal == "." else "point"
    units: Counter[str] = Counter()
    for (unit, how), count in e.numbers.items():
        units[unit] += count * (how != other)
    unit = max((u for u in units if u), key=lambda u: units[u], default="")
    if multiplies(unit) and units[""] > units[unit]:
        unit = ""
    return CellFormat(decimal, unit), units[unit] + (units[""] if unit and not multiplies(unit) else 0)


def _date(e: Evidence, formats: Iterable[str] = ()) -> tuple[CellFormat, int]:
    """Return the most frequent format of the column's dates, and how many cells have it; of several, one of ``formats``."""
    date = max(DATE_FORMATS, key=lambda name: (e.dates[name], name in formats))
    return CellFormat(date=date), e.dates[date]


def _other_dates(e: Evidence, date: str) -> list[str]:
    """Return the formats that fit as many cells as ``date``."""
    return [name for name in DATE_FORMATS if name != date and 0 < e.dates[name] == e.dates[date]]


def _why_not_numeric(e: Evidence, readable: int, are_codes: bool) -> str:
    """Return why a column that looks like numbers is not; "" if it does not look like numbers."""
    if are_codes:
        return f"codes with leading zeros, such as {e.examples['code']}: say that the column is of numbers if it is"
    units = sorted({unit for unit, _ in e.numbers if unit})
    written, (date, dates) = sum(e.numbers.values()), _date(e)
    if 2 * dates > e.present:
        example = e.examples[date.date]
        return f"only {dates:,} of {e.present:,} cells are dates like {example!r} ({date.date}): write all alike"
    if 2 * written <= e.present:
        return ""
    if "text" in e.examples and written < e.present:
        return f"{written:,} of {e.present:,} cells are numbers, {e.examples['text']!r} is not: correct it or leave it empty"
    if units and multiplies(units[0]) and e.present > readable:
        return f"some of its numbers have {units[0]!r} and others nothing: convert them to one unit"
    if len(units) > 1:
        return f"its numbers have several units, such as {units[0]!r} and {units[1]!r}: convert them to one"
    if readable < written and e.count("comma") and e.count("point"):
        a, b = e.examples["point"], e.examples["comma"]
        return f"some of its numbers have decimal points and others decimal commas, such as {a!r} and {b!r}: write all alike"
    return f"only {readable:,} of {e.present:,} cells are written alike: write all of them like 1234.5"


def _warn_of_grouping(e: Evidence, cells: CellFormat, decimal: str | None) -> None:
    how = "either ," if cells.decimal == "." else "either ."
    if how in e.examples and not decimal and not e.count("point" if cells.decimal == "." else "comma"):
        value = cells.parse(text_array([e.examples[how]]))[0][0]
        _warn(
            f"{e.examples[how]!r} in column {e.name!r} is taken for {value:.0f}, with a separator of thousands: use "
            f'decimal="{how[-1]}" if it separates decimals'
        )


def _warn_of_points(e: Evidence, kind: ColumnType) -> None:
    """Warn of 5.126 where no number of the table can only have a decimal point."""
    if kind.kind == "number" and kind.cells.decimal == "." and "either ." in e.examples:
        text = e.examples["either ."]
        _warn(
            f'{text!r} in column {e.name!r} is taken for {text.strip()}, with a decimal point: use decimal="," if it separates '
            "thousands"
        )


def _warn_of_order(e: Evidence, date: str) -> None:
    if others := _other_dates(e, date):
        _warn(
            f"dates such as {e.examples[date]!r} in column {e.name!r} are taken for {date}; they could be {others[0]}: write "
            "them like 2024-12-31 if that is wrong"
        )


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
