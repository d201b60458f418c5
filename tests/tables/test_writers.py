"""Writers: every format gives back what was written; a file is complete, or it does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")

from portablenn.tables import TableError, open_table, write_table  # noqa: E402

BATCHES = [
    pa.record_batch({"name": ["Ada", "Bo, Jr."], "age": [36.5, 4.0]}),
    pa.record_batch({"name": ['say "no"', "São"], "age": [1.25, 0.5]}),
]


@pytest.mark.parametrize("extension", ["csv", "parquet", "arrow", "feather", "CSV"])
def test_a_table_that_was_written_is_read_back(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{extension}"
    assert write_table(path, BATCHES) == 4
    table = open_table(path)
    assert table.columns == ("name", "age")
    cells = [
        (name, float(age)) for batch in table.select(table.columns) for name, age in zip(*batch.to_pydict().values())
    ]
    assert cells == [("Ada", 36.5), ("Bo, Jr.", 4.0), ('say "no"', 1.25), ("São", 0.5)]


def test_csv_is_quoted_only_where_a_batch_requires_it(tmp_path: Path) -> None:
    write_table(
        tmp_path / "t.csv", [pa.record_batch({"a,b": ["x"], "c": [1]}), pa.record_batch({"a,b": ["y\nz"], "c": [2]})]
    )
    assert (tmp_path / "t.csv").read_text() == '"a,b",c\nx,1\n"y\nz",2\n'


def test_large_strings_are_quoted_too(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [pa.record_batch({"a": pa.array(["x,y"], pa.large_string())})])
    assert (tmp_path / "t.csv").read_text() == 'a\n"x,y"\n'


def test_an_unknown_extension_raises(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"expected a file that ends in .csv, .parquet, .arrow, .feather, got 't.xlsx'"
    ):
        write_table(tmp_path / "t.xlsx", BATCHES)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_file_is_removed(tmp_path: Path) -> None:
    def batches() -> object:
        yield BATCHES[0]
        raise TableError("the rest cannot be read")

    with pytest.raises(TableError, match="the rest cannot be read"):
        write_table(tmp_path / "t.parquet", batches())
    assert list(tmp_path.iterdir()) == []
