"""The overview of a table's columns agrees with what a training makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables import TableError, summarize_columns  # noqa: E402
from portablenn.tables.parts import Split  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import open_table  # noqa: E402

CSV = (
    "\n".join(
        [
            "code;price;city;date;note;same;y",
            *(
                f"{i % 7:03};{i * 11.5:.2f} €;{'Oslo' if i % 3 else 'Rome'};{i % 28 + 1:02}.02.2024;note {i};x;{i}"
                for i in range(60)
            ),
            "001;much;;29.02.2024;;x;7",
        ]
    )
    .replace(".50 €", ",50 €")
    .replace(".00 €", ",00 €")
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(CSV, encoding="utf-8")
    return tmp_path / "t.csv"


def test_each_column_is_summarized(table: Path) -> None:
    code, price, city, date, note, same, _ = summarize_columns(table)
    assert (code.type, code.values) == ("category", "'001', '000', '002' and 4 more")
    assert "leading zeros" in code.note
    assert (price.type, price.values, price.written, price.missing) == ("number", "0 to 678.5", "decimal comma, €", 1)
    assert price.note == "cannot be read: 'much' in row 61"
    assert (city.type, city.values, city.missing) == ("category", "'Oslo', 'Rome'", 1)
    assert (date.type, date.values, date.written) == ("date", "2024-02-01 to 2024-02-29", "%d.%m.%Y")
    assert (note.type, note.missing) == ("", 1)
    assert "identifier or free text" in note.note
    assert (same.type, same.note) == ("", "all cells have the same value")


def test_what_is_given_overrules(table: Path) -> None:
    types = {"code": "number", "city": "ignore"}
    code, _, city, *_ = summarize_columns(table, column_types=types, missing_marks=["much"])
    assert (code.type, code.values, city.type, city.note) == ("number", "0 to 6", "", "ignored on request")
    with pytest.raises(TableError, match="lacks the column 'town'"):
        summarize_columns(table, column_types={"town": "category"})
    with pytest.raises(ValueError, match="for the type of column 'city'"):
        summarize_columns(table, column_types={"city": "word"})


def test_a_training_uses_the_columns_that_have_a_type(table: Path) -> None:
    fitted = fit_preprocessor(open_table(table), "y", split=Split(shares=(1.0, 0.0, 0.0)))
    summaries = [one for one in summarize_columns(table) if one.name != "y"]
    assert [c.name for c in fitted.preprocessor.columns] == [one.name for one in summaries if one.type]
    assert {one.name: one.note for one in summaries if not one.type} == fitted.left_out


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_hardly_any_rows_has_a_summary(rows: int) -> None:
    table: Any = pa.table({"x": pa.array([1.5] * rows, pa.float64()), "word": pa.array(["a"] * rows, pa.string())})
    assert [one.name for one in summarize_columns(table)] == ["x", "word"]


def test_the_command_line_shows_it(table: Path) -> None:
    pytest.importorskip("typer")
    command = [sys.executable, "-m", "portablenn", "inspect", str(table), "--column-type", "city=ignore"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "decimal comma, €" in done.stdout
    assert "'city': ignored on request" in done.stdout
