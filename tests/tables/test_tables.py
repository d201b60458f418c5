"""Tables: what becomes of columns, models of tables, and the commands train, predict and inspect."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.columns import Category, Number  # noqa: E402
from portablenn.tables.preprocessing import learn, parts_of_rows  # noqa: E402
from portablenn.tables.readers import TableError, open_table  # noqa: E402

CHANCE = np.random.default_rng(0)
ROWS = 600
AGE = CHANCE.integers(18, 80, ROWS).astype(float)
CITY = CHANCE.choice(["Oslo", "Rome", "São Paulo"], ROWS)
PLAN = np.where((AGE > 50) ^ (CITY == "Oslo"), "gold", "basic")
PRICE = 1000.0 + 20.0 * AGE + np.where(CITY == "Rome", 300.0, 0.0)


def _table(missing: bool = True) -> dict[str, Any]:
    age = [None if missing and i % 17 == 3 else a for i, a in enumerate(AGE.tolist())]
    city = [None if missing and i % 23 == 5 else c for i, c in enumerate(CITY.tolist())]
    return {
        "id": [f"c{i}" for i in range(ROWS)],
        "age": age,
        "city": city,
        "plan": PLAN.tolist(),
        "price": PRICE.tolist(),
    }


def _write(path: Path, table: dict[str, Any], delimiter: str = ",") -> Path:
    """CSV as people have it: quotes around some cells, NA and nothing for missing ones."""
    lines = [delimiter.join(table)]
    for i, row in enumerate(zip(*table.values(), strict=True)):
        cells = [("NA" if i % 2 else "") if c is None else f'"{c}"' if isinstance(c, str) else repr(c) for c in row]
        lines.append(delimiter.join(cells))
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _parquet(path: Path, table: dict[str, Any]) -> Path:
    from pyarrow import parquet

    parquet.write_table(pa.table(table), path, row_group_size=100)
    return path


def _arrow(path: Path, table: dict[str, Any], stream: bool) -> Path:
    made = pa.table(table)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), made.schema) as file:
        file.write_table(made, max_chunksize=70)
    return path


FILES: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "csv": lambda folder, table: _write(folder / "t.csv", table),
    "csv.gz": lambda folder, table: _write(folder / "t.csv.gz", table),
    "tsv": lambda folder, table: _write(folder / "t.tsv", table, "\t"),
    "semicolons": lambda folder, table: _write(folder / "t.csv", table, ";"),
    "parquet": lambda folder, table: _parquet(folder / "t.parquet", table),
    "arrow": lambda folder, table: _arrow(folder / "t.arrow", table, False),
    "arrow stream": lambda folder, table: _arrow(folder / "t.arrow", table, True),
    "in memory": lambda folder, table: table,
    "pandas": lambda folder, table: pytest.importorskip("pandas").DataFrame(table),
    "polars": lambda folder, table: pytest.importorskip("polars").DataFrame(table),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_table_prepares_the_same_numbers(kind: str, tmp_path: Path) -> None:
    table = _table()
    learnt = learn(open_table(FILES[kind](tmp_path, table)), "plan")
    age, city, price = learnt.preparation.columns
    train = parts_of_rows(0, ROWS, (0.8, 0.1, 0.1), 0) == 0
    known = AGE[[i for i in range(ROWS) if train[i] and i % 17 != 3]]
    assert isinstance(age, Number)
    assert age.missing
    np.testing.assert_allclose([age.mean, age.scale], [known.mean(), known.std()], rtol=1e-9)
    assert isinstance(city, Category)
    assert (sorted(city.values), city.missing) == (["Oslo", "Rome", "São Paulo"], True)
    assert learnt.preparation.inputs == (
        "age",
        "age is missing",
        *(f"city = {v}" for v in city.values),
        "city is missing",
        "price",
    )
    assert learnt.preparation.target.classes == ("basic", "gold")
    assert learnt.left_out == {"id": f"it has {train.sum()} values in {train.sum()} rows: a name, or free text"}
    assert isinstance(price, Number)
    (_, inputs), *_ = learnt.preparation.rows(open_table({name: values[:4] for name, values in table.items()}))
    np.testing.assert_allclose(inputs[0, 0], (AGE[0] - age.mean) / age.scale, rtol=1e-5)
    assert inputs[3, :2].tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(inputs[:, 2:5].argmax(axis=1)[:3], [city.values.index(c) for c in CITY[:3]])


COLUMNS: dict[str, tuple[list[Any], Any]] = {
    "whole numbers": ([1, 2, 3, 4] * 20, Number),
    "dates": ([datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(80)], Number),
    "yes and no": ([True, False] * 40, Category),
    "numbers as text in a typed table": (["1", "2"] * 40, Category),
    "numbers and infinity": ([1.0, 2.0, float("inf"), 3.0] * 20, Number),
    "nothing": ([None] * 80, "all its cells are missing"),
    "one value": (["x"] * 80, "all its cells are the same"),
    "one number": ([7.0] * 80, "all its cells are the same"),
    "lists": ([[1]] * 80, "it holds list"),
    "bytes": ([b"a"] * 80, "it holds binary"),
    "names": ([f"n{i}" for i in range(80)], "a name, or free text"),
    "too large numbers": ([1e300, -1e300] * 40, "its numbers are too large"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_becomes_what_it_looks_like(name: str) -> None:
    cells, expected = COLUMNS[name]
    learnt = learn(open_table({"x": cells, "z": list(range(80)), "y": ["a", "b"] * 40}), "y")
    if isinstance(expected, str):
        assert expected in learnt.left_out["x"]
    else:
        assert isinstance(learnt.preparation.columns[0], expected)


def test_a_text_after_many_numbers_is_named(tmp_path: Path) -> None:
    values = [i % 7 for i in range(200_000)] + ["unknown"]
    lines = "\n".join(f"{v},{i % 2},{i % 13}" for i, v in enumerate(values))
    (tmp_path / "t.csv").write_text(f"x,y,z\n{lines}\n")
    learnt = learn(open_table(tmp_path / "t.csv"), "y", shares=(1.0, 0.0, 0.0))
    assert (
        learnt.left_out["x"]
        == "200,000 of its 200,001 cells are numbers, and 'unknown' is none: mend it, or leave it empty"
    )


WRITTEN: dict[str, tuple[list[str], Any]] = {
    "decimal commas": (["18,4", "3,25", "7"] * 30, (18.4, 3.25, 7.0)),
    "decimal commas below one": (["0,123", "0,5", "1"] * 30, (0.123, 0.5, 1.0)),
    "thousands": ([f"{i},{100 + i}.50" for i in range(10, 100)], "its numbers are written like '10,110.50'"),
    "dates": (["2024-02-29", "", "2023-12-31"] * 30, (19782.0, None, 19722.0)),
    "dates and times": (["1970-01-02 12:00:00", "1970-01-03"] * 45, (1.5, 2.0)),
    "numbers and one text": (["1", "2", "x"] + ["3"] * 87, "89 of its 90 cells are numbers, and 'x' is none"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_of_a_csv_are_understood_or_named(name: str, tmp_path: Path) -> None:
    cells, expected = WRITTEN[name]
    lines = "\n".join(f'"{cell}";{"ab"[i % 2]};{i}' for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"x;y;z\n{lines}\n")
    learnt = learn(open_table(tmp_path / "t.csv"), "y", shares=(1.0, 0.0, 0.0))
    if isinstance(expected, str):
        assert learnt.left_out["x"].startswith(expected)
        return
    known = [e for e in expected if e is not None]
    column = learnt.preparation.columns[0]
    assert isinstance(column, Number)
    assert column.mean == pytest.approx(np.mean(known))
    assert column.date == name.startswith("dates")


def test_booleans_and_dates_are_the_same_in_every_format(tmp_path: Path) -> None:
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(300)]
    table = {
        "day": days,
        "garden": [i % 3 == 0 for i in range(300)],
        "y": [float(i % 3 == 0) * 2 + i / 100 for i in range(300)],
    }
    model = pnn.TableModel.train(_parquet(tmp_path / "t.parquet", table), "y", epochs=3)
    lines = "\n".join(f"{day},{garden},{y}" for day, garden, y in zip(*table.values(), strict=True))
    (tmp_path / "t.csv").write_text(f"day,garden,y\n{lines}\n")
    np.testing.assert_array_equal(model.predict(tmp_path / "t.csv"), model.predict(tmp_path / "t.parquet"))


def test_what_was_never_seen_is_counted() -> None:
    from collections import Counter

    model, unseen = pnn.TableModel.train(_table(), "plan", epochs=1, ignore=["price"]), Counter[str]()
    list(model.batches({"age": [1.0, 2.0, 3.0], "city": ["Atlantis", "Oslo", None]}, unseen=unseen))
    assert unseen == {"city": 1}


def test_classes_come_in_the_order_of_their_numbers() -> None:
    table = {"x": list(range(120)), "y": [f"class {i % 12}" for i in range(120)]}
    assert learn(open_table(table), "y").preparation.target.classes == tuple(f"class {i}" for i in range(12))


TARGETS: dict[str, tuple[list[Any], str]] = {
    "text": (["a", "b"] * 40, "classification"),
    "few whole numbers": ([0, 1, 2, 3] * 20, "classification"),
    "many whole numbers": (list(range(80)), "regression"),
    "yes and no": ([True, False] * 40, "classification"),
    "fractions": ([0.5, 1.5] * 40, "regression"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_task_is_what_the_target_looks_like(name: str) -> None:
    cells, task = TARGETS[name]
    target = learn(open_table({"x": list(range(80)), "y": cells}), "y").preparation.target
    assert ("regression" if target.classes is None else "classification") == task


def test_labels_come_back_as_they_were() -> None:
    for cells in (["b", "a"] * 40, [10, 2] * 40, [True, False] * 40):
        model = pnn.TableModel.train({"x": [0.0, 1.0] * 40, "y": cells}, "y", epochs=60, patience=60)
        found = model.predict({"x": [0.0, 1.0]}).tolist()
        assert found == [str(c).lower() if isinstance(c, bool) else c for c in cells[:2]]


@pytest.mark.parametrize("target", ["plan", "price"])
def test_a_model_of_a_table_learns_and_comes_back_from_its_file(target: str, tmp_path: Path) -> None:
    model = pnn.TableModel.train(
        _table(), target, epochs=200, patience=30, hidden=(32,), ignore=["price"] if target == "plan" else []
    )
    metrics, baseline = model.figures["metrics"], model.figures["baseline"]
    if target == "plan":
        assert metrics["accuracy"] > 0.85 > baseline["accuracy"] + 0.2
        assert np.sum(model.figures["confusion"]) == model.figures["rows"]["test"]
    else:
        assert metrics["r2"] > 0.85
        assert baseline["r2"] <= 0.0
    assert set(model.figures["importances"]) == {c.name for c in model.preparation.columns}
    assert next(iter(model.figures["importances"])) in ("age", "city", "price")
    path = tmp_path / "m.safetensors"
    model.save(path)
    back = pnn.TableModel.load(path, backend="numpy")
    assert back.preparation == model.preparation
    assert back.figures["metrics"] == metrics
    np.testing.assert_array_equal(back.predict(_table()), model.predict(_table()))
    assert back.evaluate(_table()) == pytest.approx(model.evaluate(_table()))
    with pytest.raises(pnn.FileFormatError, match=r"load it with portablenn.TableModel.load"):
        pnn.load(path)
    pnn.mlp([2, 2]).save(path)
    with pytest.raises(pnn.FileFormatError, match=r"load it with portablenn.load"):
        pnn.TableModel.load(path)


def test_a_regression_predicts_in_the_units_of_its_target() -> None:
    table = _table(missing=False)
    model = pnn.TableModel.train(table, "price", epochs=100, ignore=["id", "plan"])
    errors = np.abs(model.predict(table) - PRICE)
    assert np.mean(errors) < 0.05 * np.std(PRICE)
    assert model.evaluate(table)["mean_absolute_error"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_new_rows_may_have_what_was_never_seen() -> None:
    model = pnn.TableModel.train(_table(), "plan", epochs=5, ignore=["price"])
    rows = {"more": [1, 2, 3], "city": ["Atlantis", None, "Oslo"], "age": [None, float("nan"), 1e30]}
    assert set(model.predict(rows).tolist()) <= {"basic", "gold"}
    assert model.predict_proba(rows).shape == (3, 2)
    assert model.predict({"city": [], "age": []}).shape == (0,)
    with pytest.raises(TableError, match="lacks the column 'age'"):
        model.predict({"city": ["Oslo"]})
    with pytest.raises(TableError, match="the column 'age' holds 'old', which is no number"):
        model.predict({"city": ["Oslo"], "age": ["old"]})


def test_a_table_in_blocks_trains_as_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {"epochs": 8, "hidden": (16,)}
    whole = pnn.TableModel.train(_table(), "price", **facts)
    monkeypatch.setattr("portablenn.tables.model.IN_MEMORY", 0)
    monkeypatch.setattr("portablenn.tables.preprocessing.BLOCK", 300)
    blocks = pnn.TableModel.train(_table(), "price", **facts)
    assert blocks.figures["metrics"]["r2"] == pytest.approx(whole.figures["metrics"]["r2"], abs=0.2)
    assert blocks.figures["rows"] == whole.figures["rows"]


def test_missing_cells_are_refused_on_request() -> None:
    with pytest.raises(TableError, match="missing cells in 'age', 'city'"):
        pnn.TableModel.train(_table(), "price", missing="refuse")
    pnn.TableModel.train(_table(missing=False), "price", missing="refuse", epochs=1)


def test_rows_without_a_target_are_passed_over_and_told() -> None:
    table = _table()
    with pytest.raises(TableError, match="every cell of the target 'plan' is missing"):
        pnn.TableModel.train({**table, "plan": ["", "NA"] * (ROWS // 2)}, "plan")
    table["plan"] = [None if i < 50 else p for i, p in enumerate(table["plan"])]
    model = pnn.TableModel.train(table, "plan", epochs=1)
    assert model.figures["rows_without_target"] == 50
    assert sum(model.figures["rows"].values()) == ROWS - 50


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no such column": (_table(), {"target": "plann"}, "lacks the column 'plann': it has 'id', 'age'"),
    "no such column to ignore": (_table(), {"target": "plan", "ignore": ["agee"]}, "lacks the column 'agee'"),
    "the target ignored": (_table(), {"target": "plan", "ignore": ["plan"]}, "is among the columns to be ignored"),
    "one class": ({"x": [1, 2] * 9, "y": ["a"] * 18}, {"target": "y"}, "is a everywhere: there is nothing to predict"),
    "a regression of text": (
        _table(),
        {"target": "plan", "task": "regression"},
        "is of no numbers, which a regression needs: it holds text",
    ),
    "an unknown task": (_table(), {"target": "plan", "task": "ranking"}, '"classification", "regression" or None'),
    "one row": ({"x": [1], "y": [2]}, {"target": "y"}, "has 1 rows"),
    "names for a target": (_table(), {"target": "id"}, "has only|cannot be predicted|a name|nothing|classes"),
    "nothing to predict from": ({"x": ["a"] * 40, "y": [1, 2] * 20}, {"target": "y"}, "no column to predict 'y' from"),
    "no table": (3, {"target": "y"}, "int is no table"),
    "columns of other lengths": ({"x": [1], "y": [1, 2]}, {"target": "y"}, "is no table"),
}


@pytest.mark.parametrize("name", WRONG)
def test_tables_that_cannot_be_learnt_say_why(name: str) -> None:
    table, facts, says = WRONG[name]
    if name == "names for a target":
        pnn.TableModel.train(table, **facts, epochs=1)  # 600 classes: what was asked for
        return
    with pytest.raises((TableError, ValueError), match=says):
        pnn.TableModel.train(table, **facts)


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("t.csv", b"", "is empty"),
    "another end": ("t.xlsx", b"PK", "is no table by its name"),
    "ragged": ("t.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "two columns of one name": ("t.csv", b"a,a\n1,2\n", "two columns of the name 'a'"),
    "no text": ("t.csv", b"a,b\n\xff\xfe,1\n", "invalid UTF8"),
    "no Parquet": ("t.parquet", b"PAR1 nothing PAR1", "cannot be read"),
    "no Arrow": ("t.arrow", b"ARROW1\0\0nothing", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_tables_say_so(name: str, tmp_path: Path) -> None:
    file, content, says = BAD_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TableError, match=says):
        learn(open_table(tmp_path / file), "b")


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no columns": (lambda t: t["columns"].clear(), "it has 0 columns"),
    "a column more": (lambda t: t["columns"].append(t["columns"][0]), "inputs and outputs"),
    "an unknown kind": (lambda t: t["columns"][0].update(kind="eval"), "unknown column 'eval'"),
    "a fact more": (lambda t: t["columns"][0].update(code="x"), "the column has"),
    "a scale of 0": (lambda t: t["columns"][0].update(scale=0.0), "mean and scale are"),
    "NaN": (lambda t: t["columns"][0].update(mean=float("nan")), "mean and scale are"),
    "values that are no texts": (lambda t: t["columns"][1].update(values=[1, 2, 3]), "no different texts"),
    "classes that are no numbers": (lambda t: t["target"].update(whole=True), "its table is wrong"),
    "a class less": (lambda t: t["target"]["classes"].pop(), "inputs and outputs"),
    "a list for a table": (lambda t: t.update(columns={}), "columns of the table is a dict"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_file_whose_table_is_wrong_is_refused(name: str, tmp_path: Path) -> None:
    from portablenn.files import model_file

    model, path = pnn.TableModel.train(_table(), "plan", epochs=1), tmp_path / "m.safetensors"
    facts, arrays, slots = model.network.contents()
    table = json.loads(json.dumps(model._facts()))
    change, says = HOSTILE[name]
    change(table)
    model_file.write(path, {**facts, "table": table}, arrays, slots)
    with pytest.raises(pnn.FileFormatError, match=says):
        pnn.TableModel.load(path)


# The command line


def _run(*arguments: Any, folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("typer")
    command = [sys.executable, "-m", "portablenn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == status, done.stderr + done.stdout
    return done


def test_train_predict_and_inspect_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _write(tmp_path / "people.csv", _table())
    told = json.loads(
        _run(
            "train", "people.csv", "--target", "plan", "--ignore", "price", "--epochs", 60, "--json", folder=tmp_path
        ).stdout
    )
    assert (told["task"], told["classes"], told["model"], told["report"]) == (
        "classification",
        ["basic", "gold"],
        "model.safetensors",
        "model.html",
    )
    assert told["metrics"]["accuracy"] > told["baseline"]["accuracy"]
    assert told["command"] == "portablenn train people.csv --target plan --ignore price --epochs 60 --json"
    new = {"age": [60.0, None], "city": ["Rome", "Oslo"], "note": ["a,b", 'say "no"']}
    _write(tmp_path / "new.csv", {**new, "note": ["a,b", "c"]})
    out = _run("predict", "model.safetensors", "new.csv", folder=tmp_path).stdout.splitlines()
    assert out[0] == "age,city,note,prediction"
    assert out[1].startswith('"60.0","Rome","a,b","')
    for end in ("csv", "parquet", "arrow"):
        _parquet(tmp_path / "new.parquet", new)
        told = json.loads(
            _run(
                "predict",
                "model.safetensors",
                "new.parquet",
                "--out",
                f"o.{end}",
                "--probabilities",
                "--json",
                folder=tmp_path,
            ).stdout
        )
        assert told == {"out": f"o.{end}", "rows": 2, "target": "plan", "unseen": {}}
        found = open_table(tmp_path / f"o.{end}")
        assert found.columns == ("age", "city", "note", "prediction", "probability of basic", "probability of gold")
        (batch,) = found.chosen(found.columns)
        assert batch.column("note").to_pylist() == new["note"]
        if end != "csv":
            np.testing.assert_allclose(np.asarray(batch.column(4)) + np.asarray(batch.column(5)), 1.0, rtol=1e-5)
    shown = _run("inspect", "model.safetensors", folder=tmp_path).stdout
    assert "classification of 'plan', 2 classes" in shown
    assert "dense_3" in shown
    assert json.loads(_run("inspect", "model.safetensors", "--json", folder=tmp_path).stdout)["parameters"] > 0
    pnn.mlp([2, 3, 1]).save(tmp_path / "plain.safetensors")
    assert "dense_2" in _run("inspect", "plain.safetensors", folder=tmp_path).stdout


def test_a_training_that_was_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    import signal
    import time

    from portablenn.files import checkpoint

    _write(tmp_path / "t.csv", _table())
    command = ["train", "t.csv", "--target", "price", "--no-report", "--patience", "300", "--epochs"]
    _run(*command, 300, "--out", "whole.safetensors", folder=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "portablenn", *command, "300", "--out", "parts.safetensors", "--checkpoints", "c"],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not checkpoint.found(tmp_path / "c"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _run(*command, 300, "--out", "parts.safetensors", "--checkpoints", "c", folder=tmp_path)
    whole, parts = (pnn.TableModel.load(tmp_path / f"{name}.safetensors", "numpy") for name in ("whole", "parts"))
    np.testing.assert_array_equal(parts.network.state.theta, whole.network.state.theta)
    assert parts.figures["history"] == whole.figures["history"]


def test_a_pipe_may_be_closed_before_the_end(tmp_path: Path) -> None:
    pnn.TableModel.train(_table(), "price", epochs=1).save(tmp_path / "m.safetensors")
    many = {name: (values * 100)[:50_000] for name, values in _table().items()}
    _write(tmp_path / "t.csv", many)
    command = f"{sys.executable} -m portablenn predict m.safetensors t.csv | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.splitlines() == ["id,age,city,plan,price,prediction", "0"]
    assert done.stderr == ""


def test_a_table_without_rows_gets_its_header(tmp_path: Path) -> None:
    pnn.TableModel.train(_table(), "price", epochs=1).save(tmp_path / "m.safetensors")
    (tmp_path / "t.csv").write_text("id,age,city,plan\n")
    assert _run("predict", "m.safetensors", "t.csv", folder=tmp_path).stdout == "id,age,city,plan,prediction\n"


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no such table": (["train", "nowhere.csv", "--target", "y"], 1, "portablenn: there is no file nowhere.csv"),
    "no such column": (["train", "t.csv", "--target", "y"], 1, "portablenn: t.csv lacks the column 'y'"),
    "no folder to write to": (
        ["train", "t.csv", "--target", "plan", "--out", "no/m.safetensors"],
        1,
        "there is no folder",
    ),
    "odd layers": (["train", "t.csv", "--target", "plan", "--hidden", "a,b"], 2, "whole numbers such as 64,32"),
    "no model": (["predict", "t.csv", "t.csv"], 1, "t.csv is no model file of portablenn"),
    "no target": (["train", "t.csv"], 2, "--target"),
    "the table in its own place": (
        ["train", "t.csv", "--target", "plan", "--out", "t.csv"],
        1,
        "t.csv would take the place of what is read",
    ),
    "a folder to write": (["train", "t.csv", "--target", "plan", "--out", "."], 1, "is a folder: name a file to write"),
    "a folder to read": (["train", ".", "--target", "plan"], 1, ". is a folder: expected a file"),
    "an end that is not known": (
        ["predict", "m.safetensors", "t.csv", "--out", "o.xlsx"],
        2,
        "ends in .csv, .parquet or .arrow",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    _write(tmp_path / "t.csv", _table())
    pnn.TableModel.train(_table(), "plan", epochs=1).save(tmp_path / "m.safetensors")
    arguments, status, says = MISTAKES[name]
    done = _run(*arguments, folder=tmp_path, status=status)
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if status == 1:
        assert len(done.stderr.splitlines()) == 1
