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

from portablenn.tables.cells import as_numbers, as_text  # noqa: E402
from portablenn.tables.columns import CategoricalColumn, ColumnStatistics, NumericColumn  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import TableError, open_table  # noqa: E402

COLUMNS: dict[str, tuple[list[Any], Any]] = {
    "whole numbers": ([1, 2, 3, 4] * 20, NumericColumn),
    "dates": ([datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(80)], NumericColumn),
    "yes and no": ([True, False] * 40, CategoricalColumn),
    "numbers as text in a typed table": (["1", "2"] * 40, CategoricalColumn),
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


def test_a_text_after_many_numbers_is_quoted(tmp_path: Path) -> None:
    values = [i % 7 for i in range(200_000)] + ["unknown"]
    lines = "\n".join(f"{v},{i % 2},{i % 13}" for i, v in enumerate(values))
    (tmp_path / "t.csv").write_text(f"x,y,z\n{lines}\n")
    fitted = fit_preprocessor(open_table(tmp_path / "t.csv"), "y", shares=(1.0, 0.0, 0.0))
    assert (
        fitted.left_out["x"] == "200,000 of 200,001 cells are numbers, 'unknown' is not: correct it or leave it empty"
    )


WRITTEN: dict[str, tuple[list[str], Any]] = {
    "decimal commas": (["18,4", "3,25", "7"] * 30, (18.4, 3.25, 7.0)),
    "decimal commas below one": (["0,123", "0,5", "1"] * 30, (0.123, 0.5, 1.0)),
    "thousands": (
        [f"{i},{100 + i}.50" for i in range(10, 100)],
        "numbers like '10,110.50': write them with a decimal point",
    ),
    "dates": (["2024-02-29", "", "2023-12-31"] * 30, (19782.0, None, 19722.0)),
    "dates and times": (["1970-01-02 12:00:00", "1970-01-03"] * 45, (1.5, 2.0)),
    "numbers and one text": (["1", "2", "x"] + ["3"] * 87, "89 of 90 cells are numbers, 'x' is not"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_of_a_csv_are_parsed_or_the_column_is_left_out_with_the_reason(name: str, tmp_path: Path) -> None:
    cells, expected = WRITTEN[name]
    lines = "\n".join(f'"{cell}";{"ab"[i % 2]};{i}' for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"x;y;z\n{lines}\n")
    fitted = fit_preprocessor(open_table(tmp_path / "t.csv"), "y", shares=(1.0, 0.0, 0.0))
    if isinstance(expected, str):
        assert fitted.left_out["x"].startswith(expected)
        return
    known = [e for e in expected if e is not None]
    column = fitted.preprocessor.columns[0]
    assert isinstance(column, NumericColumn)
    assert column.mean == pytest.approx(np.mean(known))
    assert column.date == name.startswith("dates")


def _statistics(batches: list[Any], name: str = "x", **facts: Any) -> ColumnStatistics:
    statistics = ColumnStatistics(name, **{"untyped": True, **facts})
    for cells in batches:
        statistics.add(cells if hasattr(cells, "type") else pa.array(cells))
    return statistics


def test_statistics_of_batches_are_those_of_all_cells() -> None:
    values = np.random.default_rng(0).normal(7.0, 3.0, 1000)
    column = _statistics(np.split(values, [1, 10, 400]), untyped=False).column()
    assert isinstance(column, NumericColumn)
    np.testing.assert_allclose([column.mean, column.scale], [values.mean(), values.std()], rtol=1e-12)
    assert not column.missing


def test_a_batch_of_blank_cells_leaves_dates_dates() -> None:
    column = _statistics([["2024-02-29", "2024-03-01"], ["", "NA"], ["2024-03-02"]]).column()
    assert column == NumericColumn("x", 19783.0, pytest.approx(np.sqrt(2 / 3)), missing=True, date=True)


@pytest.mark.parametrize("batches", [[["2024-02-29"], ["3"]], [["3"], ["2024-02-29"]]])
def test_dates_and_numbers_in_one_column_are_text(batches: list[list[str]]) -> None:
    assert isinstance(_statistics(batches).column(), CategoricalColumn)


def test_timestamps_are_days() -> None:
    times = pa.array([datetime.datetime(1970, 1, 2, 12), datetime.datetime(1970, 1, 3)])
    assert _statistics([times], untyped=False).column() == NumericColumn("x", 1.75, 0.25, missing=False, date=True)


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
    assert _statistics([["7", "7", ""]]).column() == NumericColumn("x", 7.0, 1.0, missing=True)
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
    encoded = column.encode(pa.array([" a", "True", "NA", "b", None]))
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
    texts = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?", " NA ", None]
    assert as_text(pa.array(texts)).null_count == len(texts)
    assert as_text(pa.array(["-", "none", "0", "N"])).null_count == 0


def test_labels_are_exact() -> None:
    assert as_text(pa.array([" a ", "True", " NA "]), exact=True).to_pylist() == [" a ", "True", None]


@pytest.mark.parametrize(
    ("cells", "date", "message"),
    [
        (["1", "two", "three"], False, "column 'x' holds 'two', which is not a number"),
        (["2024-01-01", "soon"], True, "column 'x' holds 'soon', which is not a date"),
        (["2024-02-30", "2024-01-01"], True, "column 'x' holds '2024-02-30', which is not a date"),
        ([[1]], False, r"column 'x' holds 'list<\w+: int64>', which is not a number"),
    ],
)
def test_a_cell_that_cannot_be_parsed_is_quoted(cells: list[Any], date: bool, message: str) -> None:
    with pytest.raises(TableError, match=message):
        as_numbers(pa.array(cells), "x", date)
