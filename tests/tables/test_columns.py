"""Columns: their kind is inferred from their cells, or they are left out with a reason."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.cells import CellFormat, as_numbers, as_text  # noqa: E402
from portablenn.tables.columns import CategoricalColumn, ColumnStatistics, NumericColumn  # noqa: E402
from portablenn.tables.parts import Split  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import Table, TableError, open_table  # noqa: E402
from portablenn.tables.types import infer_types  # noqa: E402

COLUMNS: dict[str, tuple[list[Any], Any]] = {
    "whole numbers": ([1, 2, 3, 4] * 20, NumericColumn),
    "dates": ([datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(80)], NumericColumn),
    "yes and no": ([True, False] * 40, CategoricalColumn),
    "numbers as text in a typed table": (["1", "2"] * 40, NumericColumn),
    "numbers and infinity": ([1.0, 2.0, float("inf"), 3.0] * 20, NumericColumn),
    "nothing": ([None] * 80, "all cells are missing"),
    "one value": (["x"] * 80, "all cells have the same value"),
    "one number": ([7.0] * 80, "all cells have the same value"),
    "lists": ([[1]] * 80, "columns of type list"),
    "bytes": ([b"a"] * 80, "columns of type binary"),
    "names": ([f"n{i}" for i in range(80)], "probably an identifier or free text"),
    "too large numbers": ([1e300, -1e300] * 40, "its numbers are too large"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_kind_of_a_column_is_inferred_from_its_cells(name: str) -> None:
    cells, expected = COLUMNS[name]
    fitted = fit_preprocessor(open_table({"x": cells, "z": list(range(80)), "y": ["a", "b"] * 40}), "y")
    if isinstance(expected, str):
        assert expected in fitted.left_out["x"]
    else:
        assert isinstance(fitted.preprocessor.columns[0], expected)


def test_a_text_after_many_numbers_is_quoted_and_missing(tmp_path: Path) -> None:
    values = [i % 7 for i in range(200_000)] + ["much"]
    lines = "\n".join(f"{v},{i % 2},{i % 13}" for i, v in enumerate(values))
    (tmp_path / "t.csv").write_text(f"x,y,z\n{lines}\n")
    fitted = fit_preprocessor(open_table(tmp_path / "t.csv"), "y", split=Split(shares=(1.0, 0.0, 0.0)))
    assert fitted.unreadable == {"x": "'much' in row 200,001"}
    assert fitted.preprocessor.input_names == ("x", "x is missing", "z")


WRITTEN: dict[str, tuple[list[str], Any]] = {
    "decimal commas": (["18,4", "3,25", "7"] * 30, (18.4, 3.25, 7.0)),
    "decimal commas below one": (["0,123", "0,5", "1"] * 30, (0.123, 0.5, 1.0)),
    "thousands": (
        [f"{i},{100 + i}.50" for i in range(10, 100)],
        tuple(1000 * i + 100 + i + 0.5 for i in range(10, 100)),
    ),
    "thousands and decimal commas": (["1.234,5", "12", "5.126"] * 30, (1234.5, 12.0, 5126.0)),
    "spaces": (["1 234", "12\u00a0345.5", "-1\u202f234"] * 30, (1234.0, 12345.5, -1234.0)),
    "apostrophes": (["1'234", "12’345.5", "1"] * 30, (1234.0, 12345.5, 1.0)),
    "currencies": (["$5,126", "-$3.50", "($2)"] * 30, (5126.0, -3.5, -2.0)),
    "a currency behind": (["1.234,50 €", "7,5€", "3 €"] * 30, (1234.5, 7.5, 3.0)),
    "per cent": (["45%", "12.5 %", "0%"] * 30, (45.0, 12.5, 0.0)),
    "an accountant's negative numbers": (["$(3.50)", "$4", "$ 5"] * 30, (-3.5, 4.0, 5.0)),
    "thousands of one unit": (["5 k", "5.5 k"] * 45, (5.0, 5.5)),
    "thousands and ones": (["5 k", "5"] * 45, CategoricalColumn),
    "millions and ones": (["5.1", "5.2 million", "7", "8", "9"] * 18, CategoricalColumn),
    "currencies of two sizes": (["$5", "$5M"] * 45, CategoricalColumn),
    "dates of two orders": (["31/12/2024", "12/31/2024"] * 45, CategoricalColumn),
    "kilograms": (["51 kg", "52.5kg", "53"] * 30, (51.0, 52.5, 53.0)),
    "minus signs": (["−3", "-3.5", "+4"] * 30, (-3.0, -3.5, 4.0)),
    "exponents": (["1e3", "2.5E-1", "1E+2"] * 30, (1000.0, 0.25, 100.0)),
    "errors of spreadsheets": (["#N/A", "1", "#DIV/0!", "2"] * 25, (None, 1.0, None, 2.0)),
    "other marks": (["NA", "n.a.", "-", "unknown", "None", "1", "2"] * 25, (None, None, None, None, None, 1.0, 2.0)),
    "dates": (["2024-02-29", "", "2023-12-31"] * 30, (19782.0, None, 19722.0)),
    "dates and times": (["1970-01-02 12:00:00", "1970-01-03"] * 45, (1.5, 2.0)),
    "dates with a zone": (["1970-01-02T12:00:00Z", "1970-01-03T06:00+06:00"] * 45, (1.5, 2.0)),
    "days first": (["31/01/1970", "2/1/1970 6:00 PM"] * 45, (30.0, 1.75)),
    "months first": (["1/31/1970", "01/02/1970 18:00"] * 45, (30.0, 1.75)),
    "days with points": (["31.1.1970", "02.01.1970"] * 45, (30.0, 1.0)),
    "names of months": (["31-Jan-1970", "2-jan-1970"] * 45, (30.0, 1.0)),
    "names of months first": (["January 31, 1970", "Jan 2, 1970"] * 45, (30.0, 1.0)),
    "years of two digits": (["1/31/70", "12/31/69"] * 45, (30.0, -1.0)),
    "codes": (["01234", "12345", "00077"] * 30, CategoricalColumn),
    "several units": (["5 kg", "6 lb", "7 kg"] * 30, CategoricalColumn),
    "parts of a whole and per cent": (["45%", "0.5", "12%"] * 30, CategoricalColumn),
    "both kinds of decimals": (["1.5", "2,5", "3"] * 30, CategoricalColumn),
    "numbers and one text": (["1", "2", "x"] + ["3"] * 87, (1.0, 2.0, None, *[3.0] * 87)),
    "numbers and some texts": (["1", "x"] + ["3"] * 8, CategoricalColumn),
    "many numbers and some texts": (
        [f"{i}" for i in range(80)] + [f"x{i}" for i in range(10)],
        "80 of 90 cells are numbers, 'x0' is not: correct it or leave it empty",
    ),
    "many numbers of two units": (
        [f"{i} {'kg' if i % 2 else 'lb'}" for i in range(90)],
        "its numbers have several units, such as 'kg' and 'lb': convert them to one",
    ),
    "many numbers with both kinds of decimals": (
        [f"{i}{'.' if i % 2 else ','}5" for i in range(90)],
        "some of its numbers have decimal points and others decimal commas, such as '1.5' and '0,5': write all alike",
    ),
}


@pytest.mark.parametrize("rows", [0, 7])  # of a batch, 0 for all
@pytest.mark.parametrize("name", WRITTEN)
def test_what_the_cells_of_a_csv_mean_or_why_they_are_left_out(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, expected = WRITTEN[name]
    cells = (cells * 90)[:90] if len(cells) < 90 else cells
    lines = "\n".join(f'"{cell}";{"ab"[i % 2]};{i}' for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"x;y;z\n{lines}\n")
    if rows:
        monkeypatch.setattr("portablenn.tables.readers.CSV_BLOCK", 12 * rows)
    fitted = fit_preprocessor(open_table(tmp_path / "t.csv"), "y", split=Split(shares=(1.0, 0.0, 0.0)))
    if isinstance(expected, str):
        assert fitted.left_out["x"] == expected
        return
    column = fitted.preprocessor.columns[0]
    assert column.name == "x"
    if not isinstance(expected, tuple):
        assert isinstance(column, expected)
        return
    assert isinstance(column, NumericColumn)
    values = [value for value in (expected * 90)[: len(cells)] if value is not None]
    np.testing.assert_allclose([column.center, column.scale], [np.mean(values), np.std(values)], rtol=1e-12)
    assert (column.low, column.high, column.missing) == (min(values), max(values), None in expected)
    found, unreadable = as_numbers(pa.array(cells[: len(expected)]), "x", column.cells)
    np.testing.assert_allclose(found, [np.nan if v is None else v for v in expected], rtol=1e-12)
    assert unreadable.sum() == ("some unreadable" in name or name == "numbers and one text")


def test_what_could_mean_two_things_is_warned_of() -> None:
    y = ["a", "b"] * 40
    with pytest.warns(RuntimeWarning, match=r"'5,126' in column 'x' is taken for 5126, .* use decimal=\",\" if"):
        column = fit_preprocessor(open_table({"x": ["5,126", "7"] * 40, "y": y}), "y").preprocessor.columns[0]
    assert column.encode(pa.array(["5,126"])) * column.scale + column.center == pytest.approx(5126.0)
    table = open_table({"x": ["5,126", "7"] * 40, "y": y})
    column = fit_preprocessor(table, "y", decimal=",").preprocessor.columns[0]
    assert column.encode(pa.array(["5,126"])) * column.scale + column.center == pytest.approx(5.126)
    with pytest.warns(RuntimeWarning, match="'5.126' in column 'x' is taken for 5.126, with a decimal point"):
        fit_preprocessor(open_table({"x": ["5.126", "7"] * 40, "y": y}), "y")
    fit_preprocessor(open_table({"x": ["5.126", "7"] * 40, "z": ["0.5", "1"] * 40, "y": y}), "y")  # which says it
    with pytest.warns(
        RuntimeWarning, match="'03/04/1970' in column 'x' are taken for %m/%d/%Y; they could be %d/%m/%Y"
    ):
        column = fit_preprocessor(
            open_table({"x": ["03/04/1970", "05/06/1970"] * 40, "y": y}), "y"
        ).preprocessor.columns[0]
    assert column.encode(pa.array(["03/04/1970"])) * column.scale + column.center == pytest.approx(31 + 28 + 3)


def test_a_zero_behind_a_point_says_that_it_separates_decimals() -> None:
    table = open_table({"x": ["5.126", "7.0"] * 40, "y": ["a", "b"] * 40})
    column = fit_preprocessor(table, "y").preprocessor.columns[0]  # without a warning
    assert column.encode(pa.array(["5.126"])) * column.scale + column.center == pytest.approx(5.126)


@pytest.mark.parametrize("decimals", ["1,5", "0,25", "1.234,5"])
def test_other_columns_say_what_separates_decimals(decimals: str) -> None:
    table = {"x": ["5.126", "7.300"] * 40, "z": [decimals, "2"] * 40, "y": ["a", "b"] * 40}
    with pytest.warns(RuntimeWarning, match="'5.126' in column 'x' is taken for 5126"):
        column = fit_preprocessor(open_table(table), "y").preprocessor.columns[0]
    assert column.encode(pa.array(["5.126"])) * column.scale + column.center == pytest.approx(5126.0)


def test_other_columns_say_the_order_of_days_and_months() -> None:
    table = {"x": ["03/04/1970", "05/06/1970"] * 40, "z": ["31/12/1970", "1/2/1970"] * 40, "y": ["a", "b"] * 40}
    column = fit_preprocessor(open_table(table), "y").preprocessor.columns[0]
    assert column.encode(pa.array(["03/04/1970"])) * column.scale + column.center == pytest.approx(31 + 28 + 31 + 2)


GIVEN: dict[str, tuple[dict[str, str], Any]] = {
    "a number as categories": ({"x": "category"}, CategoricalColumn),
    "a code as numbers": ({"code": "number"}, NumericColumn),
    "ignored": ({"x": "ignore"}, "ignored on request"),
    "numbers among texts": ({"mixed": "number"}, NumericColumn),
    "no number": ({"text": "number"}, "column 'text' holds no numbers: it cannot be of this type"),
    "no date": ({"x": "date"}, "column 'x' holds no dates: it cannot be of this type"),
    "a word": ({"x": "float"}, "expected number, date, category or ignore for the type of column 'x', got 'float'"),
    "no column": ({"z": "number"}, "lacks the column 'z'"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_type_of_a_column_can_be_given(name: str) -> None:
    given, expected = GIVEN[name]
    ((column, kind),) = given.items()
    table = {"x": [1, 2] * 40, "code": ["01", "12"] * 40, "mixed": ["1", "2", "x", "y"] * 20, "text": ["p", "q"] * 40}
    table["y"] = ["a", "b"] * 40
    if isinstance(expected, str) and kind != "ignore":
        with pytest.raises(ValueError, match=expected):
            fit_preprocessor(open_table(table), "y", column_types=given)
        return
    fitted = fit_preprocessor(open_table(table), "y", column_types=given)
    if isinstance(expected, str):
        assert fitted.left_out[column] == expected
    else:
        assert isinstance({c.name: c for c in fitted.preprocessor.columns}[column], expected)


def test_marks_of_missing_cells_can_be_given() -> None:
    table = {"x": ["1", "-999", "2", "3"] * 20, "n": [1, 2, -999, 4] * 20, "c": ["p", "q", "n/k", "p"] * 20}
    table |= {"y": ["a", "b", "n/k", "a"] * 20}
    fitted = fit_preprocessor(open_table(table), "y", missing_marks=["-999", "n/k"])
    x, n, c = fitted.preprocessor.columns
    assert isinstance(x, NumericColumn)
    assert isinstance(n, NumericColumn)
    assert (x.low, x.missing, n.low, n.missing) == (1.0, True, 1.0, False)  # where n is missing, so is the target
    assert isinstance(c, CategoricalColumn)
    assert (sorted(c.values), fitted.preprocessor.target.classes, fitted.without_target) == (["p", "q"], ("a", "b"), 20)
    np.testing.assert_array_equal(c.encode(pa.array(["n/k", "z", None])), [-2, -1, -2])
    assert np.isnan(x.encode(pa.array(["-999"]))).all()
    assert np.isnan(n.encode(pa.array([-999]))).all()


def _statistics(batches: list[Any], untyped: bool = True) -> ColumnStatistics:
    cells = [c if hasattr(c, "type") else pa.array(c) for c in batches]
    table = Table("t", ("x",), lambda: (pa.record_batch({"x": c}) for c in cells), untyped)
    statistics = ColumnStatistics("x", infer_types(table, ("x",))[0]["x"])
    for column in cells:
        statistics.add(*statistics.read(column), training=np.ones(len(column), bool))
    return statistics


def test_statistics_of_batches_are_those_of_all_cells() -> None:
    values = np.random.default_rng(0).normal(7.0, 3.0, 1000)
    column = _statistics(np.split(values, [1, 10, 400]), untyped=False).column()
    assert isinstance(column, NumericColumn)
    np.testing.assert_allclose([column.center, column.scale], [values.mean(), values.std()], rtol=1e-12)
    assert (column.missing, column.low, column.high) == (False, values.min(), values.max())


def test_a_batch_of_blank_cells_leaves_dates_dates() -> None:
    column = _statistics([["2024-02-29", "2024-03-01"], ["", "NA"], ["2024-03-02"]]).column()
    scale = pytest.approx(np.sqrt(2 / 3))
    assert column == NumericColumn("x", 19783.0, scale, True, 19782.0, 19784.0, CellFormat(date="%Y-%m-%d"))


@pytest.mark.parametrize("batches", [[["2024-02-29"], ["3"]], [["3"], ["2024-02-29"]]])
def test_dates_and_numbers_in_one_column_are_text(batches: list[list[str]]) -> None:
    assert isinstance(_statistics(batches).column(), CategoricalColumn)


def test_timestamps_are_days() -> None:
    times = pa.array([datetime.datetime(1970, 1, 2, 12), datetime.datetime(1970, 1, 3)])
    column = _statistics([times], untyped=False).column()
    assert column == NumericColumn("x", 1.75, 0.25, False, 1.5, 2.0, CellFormat(date="%Y-%m-%d"))


def test_a_column_has_the_type_of_its_training() -> None:
    number = NumericColumn("x", 0.0, 1.0, False)
    date = NumericColumn("x", 0.0, 1.0, False, cells=CellFormat(date="%Y-%m-%d"))
    with pytest.raises(TableError, match=r"column 'x' is of type date32\[day\], not of numbers, as in training"):
        number.encode(pa.array([datetime.date(2020, 1, 1)]))
    with pytest.raises(TableError, match="column 'x' is of type int64, not of dates, as in training"):
        date.encode(pa.array([1]))


@pytest.mark.parametrize(
    ("count", "rows", "expected"),
    [(100, 1000, (100, 0)), (101, 1000, (100, 1)), (20, 20, (20, 0)), (1000, 3000, (100, 900))],
)
def test_the_most_frequent_values_have_an_input_each(count: int, rows: int, expected: tuple[int, int]) -> None:
    cells = [f"v{i % count:04}" for i in range(rows)] + ["v0000"]
    column = _statistics([cells]).column()
    assert isinstance(column, CategoricalColumn)
    assert (len(column.values), column.infrequent) == expected
    assert column.values[:2] == ("v0000", "v0001")


@pytest.mark.parametrize(
    ("count", "rows", "why"),
    [
        (21, 41, "21 distinct values in 41 rows: probably an identifier or free text"),
        (1001, 3000, "more than 1,000 distinct values: probably an identifier or free text"),
        (10_001, 30_000, "more than 1,000 distinct values: probably an identifier or free text"),
    ],
)
def test_identifiers_are_left_out(count: int, rows: int, why: str) -> None:
    statistics = _statistics([[f"v{i % count}" for i in range(rows)]])
    assert statistics.column() == why
    assert (statistics.values is None) == (count > 10_000)  # they are not kept, to bound the memory


def test_a_constant_with_missing_cells_marks_them() -> None:
    assert _statistics([["7", "7", ""]]).column() == NumericColumn("x", 7.0, 1.0, True, 7.0, 7.0)
    assert _statistics([["a", "a", ""]]).column() == CategoricalColumn("x", ("a",), missing=True)


def test_numbers_are_scaled_clipped_and_their_gaps_marked() -> None:
    column = NumericColumn("x", 10.0, 2.0, missing=True)
    encoded = column.encode(pa.array(["14", "", "1e300", "-inf", " 9 "]))
    np.testing.assert_array_equal(encoded, np.float32([2.0, np.nan, 1e6, np.nan, -0.5]))
    np.testing.assert_array_equal(column.expand(encoded), np.float32([[2.0, 0.0, 1e6, 0.0, -0.5], [0, 1, 0, 1, 0]]))
    np.testing.assert_array_equal(
        NumericColumn("x", 10.0, 2.0, missing=False).expand(encoded), np.float32([[2.0, 0.0, 1e6, 0.0, -0.5]])
    )


def test_a_type_without_text_raises() -> None:
    with pytest.raises(TableError, match=r"column 'x' is of type list<\w+: int64>, which is not supported"):
        CategoricalColumn("x", ("a",), missing=False).encode(pa.array([[1]]))


def test_text_is_one_hot() -> None:
    column = CategoricalColumn("x", ("a", "true"), missing=True)
    encoded = column.encode(pa.array([" a", "True", "n/a", "b", None]))
    np.testing.assert_array_equal(encoded, [0, 1, -2, -1, -2])
    np.testing.assert_array_equal(column.expand(encoded), [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1]])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([3.0, 4.0, float("nan")]), ["3", "4", None]),
        (pa.array([3.5, 4.0]), ["3.5", "4"]),
        (pa.array([float("inf"), 1.0]), ["inf", "1"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([" TRUE ", "n/a", "?", "x y"]), ["true", None, None, "x y"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ],
)
def test_cells_have_one_text_whatever_their_type(cells: Any, expected: list[Any]) -> None:
    assert as_text(cells).to_pylist() == expected


def test_these_texts_mark_a_missing_cell() -> None:
    texts = ["", "N/A", "n/a", "NaN", "nan", "null", "NULL", "?", "-", "n.a.", "#N/A", "#REF!", "<NA>", " ? ", None]
    assert as_text(pa.array(texts)).null_count == len(texts)
    assert as_text(pa.array(["NA", "None", "none", "0", "N", "unknown"])).null_count == 0


def test_labels_are_exact() -> None:
    assert as_text(pa.array([" a ", "True", " NaN "]), exact=True, trim=False).to_pylist() == [" a ", "True", None]


@pytest.mark.parametrize(
    ("cells", "date", "unreadable"),
    [
        (["1", "two", "", "three"], "", [1, 3]),
        (["soon", "2024-01-01", "2024-02-30", "n.a."], "%Y-%m-%d", [0, 2]),
        (["1/2/2024 24:30", "1/2/2024 10:00:99", "1/2/2024 23:59:59"], "%d/%m/%Y", [0, 1]),
    ],
)
def test_cells_that_cannot_be_read_are_told_from_missing_ones(
    cells: list[str], date: str, unreadable: list[int]
) -> None:
    values, found = as_numbers(pa.array(cells), "x", CellFormat(date=date))
    assert np.flatnonzero(found).tolist() == unreadable
    assert np.isnan(values[found]).all()


def test_cells_of_another_type_raise() -> None:
    with pytest.raises(TableError, match=r"column 'x' is of type list<\w+: int64>, not of numbers"):
        as_numbers(pa.array([[1]]), "x", CellFormat())


def test_the_size_of_a_batch_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: dict[str, list[str]] = {
        "late text": [*map(str, range(400)), "bad"],
        "late dates": ["2024-01-05"] + [""] * 19 + [f"{i % 28 + 1:02}.05.2024" for i in range(381)],
        "an early slip": ["05/13/2024"] + [f"{i % 28 + 1:02}/{i % 12 + 1:02}/2024" for i in range(400)],
        "many units": [f"{i}.2345" for i in range(380)] + [f"5 {a}{b}x" for a in "abc" for b in "abcdefg"],
    }
    for cells in columns.values():
        table = {"x": cells, "y": ["a", "b"] * 200 + ["a"]}
        fitted = []
        for rows in (1 << 16, 100, 20, 1):
            monkeypatch.setattr("portablenn.tables.readers.BATCH_ROWS", rows)
            fitted.append(fit_preprocessor(open_table(table), "y", split=Split(shares=(1.0, 0.0, 0.0))))
        for other in fitted[1:]:
            assert other.left_out == fitted[0].left_out
            assert other.unreadable == fitted[0].unreadable
            for one, two in zip(fitted[0].preprocessor.columns, other.preprocessor.columns):
                assert type(one) is type(two)
                assert getattr(one, "cells", None) == getattr(two, "cells", None)
    assert len(columns) == 4


def test_large_numbers_and_times_of_any_unit_have_a_text_and_a_value() -> None:
    assert as_text(pa.array([1e15, 1.5, 2e22, 3.0])).to_pylist() == ["1000000000000000", "1.5", "2e+22", "3"]
    assert as_text(pa.array(np.float16([1.5, 2.0]))).to_pylist() == ["1.5", "2"]
    times = pa.array((np.arange(3) * 10**14 + 7).astype("M8[ns]"))
    np.testing.assert_allclose(
        as_numbers(times, "x", CellFormat(date="%Y-%m-%d"))[0], np.arange(3) * 1e14 / 86400e9, atol=1e-9
    )


def test_typed_dates_do_not_take_the_format_of_another_column() -> None:
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(80)]
    table = {"when": days, "t": [f"{i % 28 + 1:02}.05.2024" for i in range(80)], "y": ["a", "b"] * 40}
    when = fit_preprocessor(open_table(table), "y").preprocessor.columns[0]
    assert isinstance(when, NumericColumn)
    assert when.cells.date == "%Y-%m-%d"


def test_long_cells_are_quoted_in_part() -> None:
    table = {"x": [*map(str, range(99)), "5" * 100_000 + "x"], "y": ["a", "b"] * 50}
    quoted = fit_preprocessor(open_table(table), "y").unreadable["x"]
    assert quoted == f"'{'5' * 39}…' in row 100"


def test_why_codes_are_left_out_is_said() -> None:
    table = {"x": ["00", *map(str, range(1, 100))], "z": [1, 2] * 50, "y": ["a", "b"] * 50}
    fitted = fit_preprocessor(open_table(table), "y", split=Split(shares=(1.0, 0.0, 0.0)))
    assert fitted.left_out["x"] == "codes with leading zeros, such as 00: say that the column is of numbers if it is"
