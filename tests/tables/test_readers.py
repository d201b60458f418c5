"""Readers: every format gives the same columns; what is not a table raises."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import AGE, CITY, ROWS, people, write_arrow, write_csv, write_parquet

import portablenn as pnn

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.columns import CategoricalColumn, NumericColumn  # noqa: E402
from portablenn.tables.parts import assign_parts  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import TableError, open_table  # noqa: E402

FILES: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "csv": lambda folder, table: write_csv(folder / "t.csv", table),
    "csv.gz": lambda folder, table: write_csv(folder / "t.csv.gz", table),
    "tsv": lambda folder, table: write_csv(folder / "t.tsv", table, "\t"),
    "semicolons": lambda folder, table: write_csv(folder / "t.csv", table, ";"),
    "parquet": lambda folder, table: write_parquet(folder / "t.parquet", table),
    "arrow": lambda folder, table: write_arrow(folder / "t.arrow", table, False),
    "arrow stream": lambda folder, table: write_arrow(folder / "t.arrow", table, True),
    "in memory": lambda folder, table: table,
    "pandas": lambda folder, table: pytest.importorskip("pandas").DataFrame(table),
    "polars": lambda folder, table: pytest.importorskip("polars").DataFrame(table),
}


@pytest.mark.parametrize(
    ("written", "extensions"), [("csv", ("txt", "TXT")), ("parquet", ("pq",)), ("arrow", ("ipc", "feather"))]
)
def test_a_format_has_several_extensions(written: str, extensions: tuple[str, ...], tmp_path: Path) -> None:
    cells = {"x": ["1", "2"], "y": ["a", "b"]}
    FILES[written](tmp_path, cells)
    for extension in extensions:
        path = (tmp_path / f"t.{written}").rename(tmp_path / f"t.{extension}")
        (batch,) = open_table(path).select(("x", "y"))
        assert batch.to_pydict() == cells
        path.rename(tmp_path / f"t.{written}")


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_same_preprocessor(kind: str, tmp_path: Path) -> None:
    table = people()
    fitted = fit_preprocessor(open_table(FILES[kind](tmp_path, table)), "plan")
    age, city, price = fitted.preprocessor.columns
    train = assign_parts(0, ROWS, (0.8, 0.1, 0.1), 0) == 0
    known = AGE[[i for i in range(ROWS) if train[i] and i % 17 != 3]]
    assert isinstance(age, NumericColumn)
    assert age.missing
    np.testing.assert_allclose([age.center, age.scale], [known.mean(), known.std()], rtol=1e-9)
    assert isinstance(city, CategoricalColumn)
    assert (sorted(city.values), city.missing) == (["Oslo", "Rome", "São Paulo"], True)
    assert fitted.preprocessor.input_names == (
        "age",
        "age is missing",
        *(f"city = {v}" for v in city.values),
        "city is missing",
        "price",
    )
    assert fitted.preprocessor.target.classes == ("basic", "gold")
    assert fitted.left_out == {
        "id": f"{train.sum()} distinct values in {train.sum()} rows: probably an identifier or free text"
    }
    assert isinstance(price, NumericColumn)
    (_, inputs), *_ = fitted.preprocessor.transform(open_table({name: values[:4] for name, values in table.items()}))
    np.testing.assert_allclose(inputs[0, 0], (AGE[0] - age.center) / age.scale, rtol=1e-5)
    assert inputs[3, :2].tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(inputs[:, 2:5].argmax(axis=1)[:3], [city.values.index(c) for c in CITY[:3]])


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("t.csv", b"", "is empty"),
    "an unknown extension": ("t.xlsx", b"PK", "has an unknown extension"),
    "ragged": ("t.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "two columns with one name": ("t.csv", b"a,a\n1,2\n", "two columns named 'a'"),
    "not UTF-8": ("t.csv", b"a,b\n\xff\xfe,1\n", "invalid UTF8"),
    "UTF-16": (
        "t.csv",
        "a,b\n1,2\n".encode("utf-16"),
        "cannot be read: it is in UTF-16, or not a text: save it as UTF-8",
    ),
    "UTF-16 without a mark": ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "it is in UTF-16, or not a text: save it"),
    "not Parquet": ("t.parquet", b"PAR1 nothing PAR1", "cannot be read"),
    "not Arrow": ("t.arrow", b"ARROW1\0\0nothing", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_not_a_table_raises_with_the_reason(name: str, tmp_path: Path) -> None:
    file, content, says = BAD_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TableError, match=says):
        fit_preprocessor(open_table(tmp_path / file), "b")


def test_booleans_and_dates_are_the_same_in_every_format(tmp_path: Path) -> None:
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(300)]
    table = {
        "day": days,
        "garden": [i % 3 == 0 for i in range(300)],
        "y": [float(i % 3 == 0) * 2 + i / 100 for i in range(300)],
    }
    model = pnn.TableModel.train(write_parquet(tmp_path / "t.parquet", table), "y", epochs=3)
    lines = "\n".join(f"{day},{garden},{y}" for day, garden, y in zip(*table.values(), strict=True))
    (tmp_path / "t.csv").write_text(f"day,garden,y\n{lines}\n")
    np.testing.assert_array_equal(model.predict(tmp_path / "t.csv"), model.predict(tmp_path / "t.parquet"))


def _cells(path: Path) -> list[tuple[Any, ...]]:
    table = open_table(path)
    return [row for batch in table.select(table.columns) for row in zip(*batch.to_pydict().values())]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.csv", 'a,b\n"x\ny",1\n', [("x\ny", "1")]),
        ("t.csv", "a|b\nx,y|NA\n", [("x,y", "NA")]),
        ("t.csv", "\ufeffa;b\n1,5;null\n", [("1,5", "null")]),
        ("t.tsv", "a,b\tc\n1\t2\n", [("1", "2")]),
        ("t.TXT", "a\tb\n007\t\n", [("007", "")]),
        ("t.csv", '"a"\n"1;2"\n', [("1;2",)]),
    ],
)
def test_a_csv_is_read_as_text_by_its_delimiter(name: str, text: str, expected: list[Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert _cells(tmp_path / name) == expected
    assert open_table(tmp_path / name).untyped


def test_a_line_longer_than_a_block_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.readers.CSV_BLOCK", 64)
    (tmp_path / "t.csv").write_text("a" * 64)
    with pytest.raises(TableError, match="has a line of more than 64 bytes: is it a table"):
        open_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 50)
    assert _cells(tmp_path / "t.csv") == [("1", "2")] * 50


@pytest.mark.parametrize("kind", ["parquet", "arrow", "memory"])
def test_a_batch_has_a_bounded_number_of_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.readers.BATCH_ROWS", 30)
    source = {"memory": people(), "parquet": tmp_path / "t.parquet", "arrow": tmp_path / "t.arrow"}[kind]
    if kind == "parquet":
        write_parquet(source, people())
    elif kind == "arrow":
        write_arrow(source, people(), stream=False)
    table = open_table(source)
    batches = list(table.select(("age",)))
    assert max(batch.num_rows for batch in batches) == 30
    assert [a for batch in batches for a in batch.column("age").to_pylist()] == people()["age"]
    assert not table.untyped


def test_missing_columns_are_named() -> None:
    table = open_table({"a": [1], "b": [2]})
    with pytest.raises(TableError, match="^the table lacks the column 'c': it has 'a', 'b'$"):
        table.require(("a", "c"))
    with pytest.raises(TableError, match="^the table lacks the columns 'c', 'd': it has 'a', 'b'$"):
        list(table.select(("c", "d")))


def test_a_path_that_is_not_a_file_raises(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is a folder: expected a file"):
        open_table(tmp_path)
    with pytest.raises(FileNotFoundError, match="t.csv does not exist"):
        open_table(str(tmp_path / "t.csv"))


def _frame(**index: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"x": [0.5, 1.5, 0.5, 1.5] * 20, "y": ["a", "b", "b", "a"] * 20}, **index)


INDEXES: dict[str, Callable[[], Any]] = {
    "filtered": lambda: _frame().query("x > 0").sample(frac=0.8, random_state=0),
    "sorted by the target": lambda: _frame().sort_values("y"),
    "named": lambda: _frame().rename_axis("row").iloc[::-1],
    "of text": lambda: _frame(index=[f"r{i}" for i in range(80)]),
    "of two levels": lambda: _frame(index=[[i // 8 for i in range(80)], [i % 8 for i in range(80)]]),
}


# in a CSV file an index with a name is a column, as data have
STORED = [
    (n, k)
    for n in INDEXES
    for k in ("memory", "parquet", "arrow table", "csv")
    if k != "csv" or n not in ("named", "of two levels")
]


@pytest.mark.parametrize(("name", "kind"), STORED)
def test_the_index_of_a_data_frame_is_not_an_input(name: str, kind: str, tmp_path: Path) -> None:
    frame = INDEXES[name]()
    if kind == "parquet":
        frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv")
    sources = {"memory": frame, "arrow table": pa.Table.from_pandas(frame)}
    fitted = fit_preprocessor(open_table(sources.get(kind, tmp_path / f"t.{kind}")), "y")
    assert fitted.preprocessor.input_names == ("x",)


def test_a_column_that_is_the_index_is_named_with_the_fix() -> None:
    frame = _frame().rename_axis("row")
    with pytest.raises(TableError, match="lacks the column 'row': .* is its index: apply reset_index"):
        fit_preprocessor(open_table(frame), "row")
    assert fit_preprocessor(open_table(frame), "y").left_out == {"row": "the index of the data frame"}


def test_an_index_among_the_columns_of_a_file_is_kept_and_can_be_ignored_by_name(tmp_path: Path) -> None:
    frame = INDEXES["of text"]().rename_axis("row")
    frame.to_parquet(tmp_path / "t.parquet")
    stored = open_table(tmp_path / "t.parquet")
    assert stored.columns == ("x", "y", "row")  # so that predictions can be joined by it
    for table in (stored, open_table(frame)):
        assert fit_preprocessor(table, "y", ignore=["row"]).preprocessor.input_names == ("x",)
    with pytest.raises(TableError, match="target 'row' is the index of the data frame: apply reset_index"):
        fit_preprocessor(stored, "row")


def test_a_column_named_as_the_index_is_a_column() -> None:
    frame = _frame().set_index("x", drop=False)
    assert fit_preprocessor(open_table(frame), "y").preprocessor.input_names == ("x",)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "...1"])
def test_an_unnamed_first_column_is_left_out(name: str) -> None:
    table = {name: list(range(80)), "x": [0.5, 1.5] * 40, "y": ["a", "b", "b", "a"] * 20}
    fitted = fit_preprocessor(open_table(table), "y")
    assert fitted.preprocessor.input_names == ("x",)
    assert "is the index of a data frame: name it" in fitted.left_out[name]


def test_two_columns_of_a_table_in_memory_need_two_names() -> None:
    table = pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
    with pytest.raises(TableError, match="the table has two columns named 'a': rename one"):
        open_table(table)


@pytest.mark.parametrize("at", [0, 50, 2000])
def test_quoted_newlines_may_begin_anywhere(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.readers.CSV_BLOCK", 1024)
    lines = ['"x\n\ny",1' if i >= at else f"plain{i},2" for i in range(3000)]
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(lines) + "\n")
    assert _cells(tmp_path / "t.csv")[at] == ("x\n\ny", "1")


@pytest.mark.parametrize(
    ("head", "row", "columns"),
    [
        ('"price, net, EUR";size', "3;4", ("price, net, EUR", "size")),
        ('a,"b;c;d;e"', "1,2", ("a", "b;c;d;e")),
        ('"a\nb;;;",c', "1,2", ("a\nb;;;", "c")),
        ("price, net;size, m2", "1,5;2,5", ("price, net", "size, m2")),
        ('"say ""a;b;c""",d', "1,2", ('say "a;b;c"', "d")),
    ],
)
def test_separators_in_a_quoted_name_do_not_count(
    head: str, row: str, columns: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"{head}\n{row}\n{row}\n")
    assert open_table(tmp_path / "t.csv").columns == columns


def test_quotes_that_do_not_end_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.readers.CSV_BLOCK", 1024)
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"x,3\n' + "4,5\n" * 2000)
    with pytest.raises(TableError, match="a quoted cell whose quotes do not end, has more than 1,024 bytes"):
        _cells(tmp_path / "t.csv")


def test_objects_of_several_types_are_text() -> None:
    pandas = pytest.importorskip("pandas")
    values = [1.5, "2", None, float("nan"), "n.a.", 7]
    for source in (
        pandas.DataFrame({"x": pandas.Series(values, dtype=object), "y": [1] * 6}),
        {"x": values, "y": [1] * 6},
    ):
        (batch,) = open_table(source).select(("x", "y"))
        assert batch.column("x").to_pylist() == ["1.5", "2", None, None, "n.a.", "7"]
        assert batch.column("y").to_pylist() == [1] * 6
    with pytest.raises(TableError, match="dict is not a table"):
        open_table({"x": [2**70, 1]})


def test_categories_of_polars_are_text() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": polars.Series(["a", "b"] * 40).cast(polars.Categorical), "y": ["p", "q"] * 40})
    column = fit_preprocessor(open_table(frame), "y").preprocessor.columns[0]
    assert isinstance(column, CategoricalColumn)
    assert column.values == ("a", "b")
