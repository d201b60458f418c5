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

from portablenn.tables.columns import CategoricalColumn, NumericColumn  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import open_table  # noqa: E402

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
