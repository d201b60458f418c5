"""Preprocessing: targets, tasks and the split of the rows."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.columns import CategoricalColumn  # noqa: E402
from portablenn.tables.parts import SHARES, Split, assign_parts  # noqa: E402
from portablenn.tables.preprocessing import Preprocessor, fit_preprocessor  # noqa: E402
from portablenn.tables.readers import TableError, open_table  # noqa: E402
from portablenn.tables.target import Target  # noqa: E402


def test_classes_are_in_natural_order() -> None:
    table = {"x": list(range(120)), "y": [f"class {i % 12}" for i in range(120)]}
    assert fit_preprocessor(open_table(table), "y").preprocessor.target.classes == tuple(
        f"class {i}" for i in range(12)
    )


def test_classes_are_exactly_what_is_written() -> None:
    table = {"x": list(range(120)), "y": [" a", "True", "b "] * 40}
    assert fit_preprocessor(open_table(table), "y").preprocessor.target.classes == (" a", "True", "b ")


TARGETS: dict[str, tuple[list[Any], str]] = {
    "text": (["a", "b"] * 40, "classification"),
    "few whole numbers": ([0, 1, 2, 3] * 20, "classification"),
    "many whole numbers": (list(range(80)), "regression"),
    "yes and no": ([True, False] * 40, "classification"),
    "fractions": ([0.5, 1.5] * 40, "regression"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_task_is_inferred_from_the_target(name: str) -> None:
    cells, task = TARGETS[name]
    target = fit_preprocessor(open_table({"x": list(range(80)), "y": cells}), "y").preprocessor.target
    assert ("regression" if target.classes is None else "classification") == task


@pytest.mark.parametrize(
    ("distinct", "rows", "task"),
    [(20, 40, "classification"), (21, 80, "regression"), (20, 39, "regression"), (2, 4, "classification")],
)
def test_few_distinct_integers_are_classes(distinct: int, rows: int, task: str) -> None:
    table = {"x": list(range(rows)), "y": [i % distinct for i in range(rows)]}
    target = fit_preprocessor(open_table(table), "y", split=Split(shares=(1.0, 0.0, 0.0))).preprocessor.target
    assert (target.classes is None) == (task == "regression")


def test_a_task_overrules_what_the_target_looks_like() -> None:
    table = open_table({"x": list(range(80)), "y": [i % 4 for i in range(80)], "z": [i / 2 % 3 for i in range(80)]})
    values = fit_preprocessor(table, "y", "regression", split=Split(shares=(1.0, 0.0, 0.0))).preprocessor.target
    assert (values.classes, values.mean, values.scale) == (None, 1.5, pytest.approx(1.25**0.5))
    labels = fit_preprocessor(table, "z", "classification").preprocessor.target
    assert (labels.classes, labels.labels_are) == (("0", "0.5", "1", "1.5", "2", "2.5"), "number")


def test_a_class_outside_the_training_rows_is_known() -> None:
    part = assign_parts(0, 100, SHARES, 0)
    cells = ["rare" if part[i] == 2 else "ab"[i % 2] for i in range(100)]
    assert fit_preprocessor(open_table({"x": list(range(100)), "y": cells}), "y").preprocessor.target.classes == (
        "a", "b", "rare",
    )  # fmt: skip


def test_a_classification_has_at_most_1000_classes() -> None:
    def fit(classes: int) -> Any:
        table = {"x": list(range(4000)), "y": [f"c{i % classes}" for i in range(4000)]}
        return fit_preprocessor(open_table(table), "y").preprocessor.target

    assert len(fit(1000).classes) == 1000
    with pytest.raises(TableError, match="target 'y' has more than 1,000 classes"):
        fit(1001)


def test_ignored_columns_are_left_out_on_request() -> None:
    table = open_table({"x": list(range(40)), "z": list(range(40)), "y": ["a", "b"] * 20})
    fitted = fit_preprocessor(table, "y", ignore=["z"])
    assert (fitted.preprocessor.input_names, fitted.left_out) == (("x",), {"z": "ignored on request"})


def test_the_part_of_a_row_depends_on_its_number_and_the_seed_alone() -> None:
    whole = assign_parts(0, 1000, SHARES, 0)
    np.testing.assert_array_equal(
        np.concatenate([assign_parts(0, 300, SHARES, 0), assign_parts(300, 700, SHARES, 0)]), whole
    )
    assert (assign_parts(0, 1000, SHARES, 1) != whole).any()
    assert not assign_parts(0, 1000, (1.0, 0.0, 0.0), 0).any()
    assert assign_parts(2**32, 5, SHARES, 0).shape == (5,)
    assert (assign_parts(2**32, 1000, SHARES, 0) != whole).any()


def test_a_target_decodes_what_it_encodes() -> None:
    values = Target("y", None, mean=1000.0, scale=10.0)
    np.testing.assert_array_equal(
        values.encode(pa.array([1010.0, None, float("inf")])), np.float32([1.0, np.nan, np.nan])
    )
    np.testing.assert_array_equal(values.decode(np.float32([1.0, -2.0])), [1010.0, 980.0])
    labels = Target("y", ("2", "10"), "integer")
    codes = labels.encode(pa.array(["10", "2", "3", None]))
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, [1, 0, -1, -2])
    np.testing.assert_array_equal(labels.decode(codes[:2]), [10, 2])
    assert Target("y", ("2", "x")).decode(np.asarray([1, 0])).tolist() == ["x", "2"]


LABELS: dict[str, tuple[list[Any], str, str]] = {
    "integers": ([-1, 2], "integer", "integer"),
    "integers beyond 2⁵³": ([2**53, 2**53 + 1], "integer", "integer"),
    "codes": (["01", "2"], "text", "text"),
    "a dash": (["1", "2-"], "text", "text"),
    "digits": (["1", "2"], "text", "integer"),
    "one number twice": (["1.0", "1"], "text", "text"),
    "fractions": (["1.5", "2.0"], "text", "number"),
    "integers of 64 bits": ([2**63 - 1, -(2**63)], "integer", "integer"),
    "more digits": (["9" * 21, "2"], "text", "number"),
    "spaces": ([" 1", "2"], "text", "integer"),
    "booleans": ([True, False], "boolean", "boolean"),
    "words": (["True", "False"], "text", "boolean"),
    "other words": (["True", "no"], "text", "text"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_of_the_type_of_the_cells(name: str, tmp_path: Path) -> None:
    cells, typed, of_csv = LABELS[name]
    table = {"x": list(range(40)), "y": cells * 20}
    target = fit_preprocessor(open_table(table), "y", "classification").preprocessor.target
    assert target.labels_are == typed
    assert set(target.labels.tolist()) == set(cells)
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(f"{i},{cells[i % 2]}" for i in range(40)))
    target = fit_preprocessor(open_table(tmp_path / "t.csv"), "y", "classification").preprocessor.target
    assert target.labels_are == of_csv
    assert len(target.labels) == 2


def test_labels_may_be_unsigned_integers() -> None:
    table = {"x": list(range(40)), "y": np.asarray([2**64 - 1, 7] * 20, dtype=np.uint64)}
    target = fit_preprocessor(open_table(table), "y", "classification").preprocessor.target
    assert target.decode(np.asarray([0, 1])).tolist() == [7, 2**64 - 1]


def test_cells_equal_to_a_label_are_of_its_class() -> None:
    numbers, words = Target("y", ("1", "2.5", "-3"), "number"), Target("y", ("True", "False"), "boolean")
    np.testing.assert_array_equal(numbers.encode(pa.array(["1.0", "2.50", "-3", "2", "x", ""])), [0, 1, 2, -1, -1, -2])
    np.testing.assert_array_equal(numbers.encode(pa.array([1.0, 2.5, -3.0, 7.0, None])), [0, 1, 2, -1, -2])
    large = Target("y", (str(2**53), "1"), "integer")
    np.testing.assert_array_equal(large.encode(pa.array([2**53, 2**53 + 1, 1])), [0, -1, 1])
    np.testing.assert_array_equal(words.encode(pa.array([True, False, None])), [0, 1, -2])
    np.testing.assert_array_equal(words.encode(pa.array(["TRUE", "false", "no"])), [0, 1, -1])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[1]] * 40, "target 'y' cannot be predicted: columns of type list"),
        ([7.5] * 40, "target 'y' cannot be predicted: all cells have the same value"),
        (["1"] * 37 + ["x"] * 3, "37 of 40 cells are numbers, 'x' is not"),
    ],
)
def test_a_regression_names_the_problem_of_its_target(cells: list[Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        fit_preprocessor(
            open_table({"x": list(range(40)), "y": cells}), "y", "regression", split=Split(shares=(1.0, 0.0, 0.0))
        )


@pytest.mark.parametrize(("rows", "enough"), [(1, False), (2, True)])
def test_training_requires_two_rows(rows: int, enough: bool) -> None:
    table = open_table({"x": list(range(rows)), "y": [i + 0.5 for i in range(rows)]})
    if enough:
        assert fit_preprocessor(table, "y", split=Split(shares=(1.0, 0.0, 0.0))).rows == {
            "train": 2,
            "validation": 0,
            "test": 0,
        }
    else:
        with pytest.raises(TableError, match="the table has 1 rows, 1 of them for training: expected at least 2"):
            fit_preprocessor(table, "y", split=Split(shares=(1.0, 0.0, 0.0)))


def test_unseen_values_are_counted_only_where_all_values_are_known() -> None:
    known, more = CategoricalColumn("c", ("a",), False), CategoricalColumn("d", ("a",), False, infrequent=3)
    preprocessor, unusual = Preprocessor((known, more), Target("y", ("a", "b"))), Counter[tuple[str, str]]()
    table = open_table({"d": ["z", "z", "a"], "c": ["z", "a", "y"], "more": [1, 2, 3]})
    ((batch, inputs),) = preprocessor.transform(table, unusual)
    assert +unusual == {("c", "unseen"): 2, ("", "rows"): 3}
    np.testing.assert_array_equal(inputs, [[0, 0], [1, 0], [0, 1]])
    assert inputs.dtype == np.float32
    assert batch.schema.names == ["d", "c", "more"]


NUMBERS: dict[str, tuple[Any, Any]] = {
    "thousands": (lambda i: f"{100 + i},{300 - i:03}", lambda i: 1000 * (100 + i) + 300 - i),
    "dollars": (lambda i: f"${i + 1},126", lambda i: 1000 * (i + 1) + 126),
    "per cent": (lambda i: f"{i / 10}%", lambda i: i / 10),
    "units": (lambda i: f"{i} kg", lambda i: i),
    "parentheses": (lambda i: f"({i}.50)", lambda i: -i - 0.5),
    "euros": (lambda i: f"€ {i}", lambda i: i),
    "decimal commas": (lambda i: f"{i}.126,5" if i else "7,25", lambda i: 1000 * i + 126.5 if i else 7.25),
    "held as text": (str, float),
    "one mark of missing": (lambda i: "n.a." if i == 7 else str(i / 2), lambda i: None if i == 7 else i / 2),
    "five per cent unreadable": (lambda i: "n.k." if i < 15 else str(i / 2), lambda i: None if i < 15 else i / 2),
}


@pytest.mark.filterwarnings("ignore:.*separator of thousands")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_as_text_are_a_regression(name: str, seed: int) -> None:
    written, value = NUMBERS[name]
    table = open_table({"x": [i / 3 for i in range(300)], "y": [written(i) for i in range(300)]})
    fitted = fit_preprocessor(table, "y", split=Split(seed=seed))
    target = fitted.preprocessor.target
    assert target.classes is None
    values = np.asarray([np.nan if value(i) is None else value(i) for i in range(300)], dtype=float)
    ((batch, _),) = fitted.preprocessor.transform(table)
    np.testing.assert_allclose(target.unscale(target.encode(batch.column("y"))), values, rtol=1e-5, atol=0.02)
    assert fitted.without_target == np.isnan(values).sum()


@pytest.mark.parametrize("seed", range(5))
def test_more_cells_that_cannot_be_read_are_an_error_that_quotes_one(seed: int) -> None:
    table = {"x": [i / 3 for i in range(300)], "y": ["n.k." if i < 16 else str(i / 2) for i in range(300)]}
    message = (
        "target 'y' holds numbers as text: 284 of 300 cells are numbers, 'n.k.' is not: correct it or leave it empty"
    )
    with pytest.raises(TableError, match=re.escape(message)):
        fit_preprocessor(open_table(table), "y", split=Split(seed=seed))


def test_the_classes_none_and_na_are_classes() -> None:
    table = {"x": list(range(90)), "y": ["NA", "None", "EU"] * 30}
    assert fit_preprocessor(open_table(table), "y").preprocessor.target.classes == ("EU", "NA", "None")


def test_a_given_type_of_the_target_is_its_task() -> None:
    table = open_table({"x": list(range(80)), "y": [0, 1] * 40, "z": list(range(80))})
    assert fit_preprocessor(table, "y", column_types={"y": "number"}).preprocessor.target.classes is None
    assert len(fit_preprocessor(table, "z", column_types={"z": "category"}).preprocessor.target.classes or ()) == 80


def test_none_is_a_class_where_numbers_have_na(tmp_path: Path) -> None:
    lines = [f"{'NA' if i == 4 else i},{'None' if i % 3 == 0 else 'Brick'}" for i in range(90)]
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(lines))
    assert fit_preprocessor(open_table(tmp_path / "t.csv"), "y").preprocessor.target.classes == ("Brick", "None")


@pytest.mark.parametrize(("marked", "classes"), [(False, ("EU", "NA")), (True, ("EU", "SA"))])
def test_na_is_missing_in_a_csv_whose_numbers_have_it(marked: bool, classes: tuple[str, ...], tmp_path: Path) -> None:
    lines = [f"{'NA' if marked and i == 4 else i},{'NA' if i % 3 == 0 else 'EU'}" for i in range(90)]
    lines += ["5,SA"] * 2 if marked else []
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(lines))
    fitted = fit_preprocessor(open_table(tmp_path / "t.csv"), "y")
    assert fitted.preprocessor.target.classes == classes
    assert fitted.without_target == (30 if marked else 0)


DATES: dict[str, tuple[list[Any], str]] = {
    "of a calendar": (["31/01/2024", "01/03/2024"], "2024-01-31 2024-03-01"),
    "of a frame": ([datetime.date(2024, 1, 31), datetime.date(2024, 3, 1)], "2024-01-31 2024-03-01"),
    "with a time": (["2024-01-31T06:00:00Z", "2024-03-01T12:30:00+02:00"], "2024-01-31T06:00:00 2024-03-01T10:30:00"),
}


@pytest.mark.parametrize("name", DATES)
def test_a_target_of_dates_predicts_dates(name: str) -> None:
    cells, expected = DATES[name]
    table = open_table({"x": list(range(90)), "y": cells * 45})
    target = fit_preprocessor(table, "y").preprocessor.target
    (batch,) = table.select(("y",))
    decoded = target.decode(target.encode(batch.column("y"))[:2].astype(np.float64))
    assert decoded.dtype.kind == "M"
    np.testing.assert_array_equal(decoded, np.asarray(expected.split(), dtype="M8"))


@pytest.mark.parametrize("cells", [["5 star", "4 star", "1 star"], ["Q1", "Q2", "Q3"], ["class 10", "class 9", "a1"]])
def test_few_texts_with_numbers_are_classes(cells: list[str]) -> None:
    table = {"x": list(range(120)), "y": cells * 40}
    assert len(fit_preprocessor(open_table(table), "y").preprocessor.target.classes or ()) == 3
