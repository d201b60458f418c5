"""The commands train, predict and inspect, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import people, write_csv, write_parquet

import portablenn as pnn

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.readers import open_table  # noqa: E402


def _run(*arguments: Any, folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("typer")
    command = [sys.executable, "-m", "portablenn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == status, done.stderr + done.stdout
    return done


def test_train_predict_and_inspect_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_csv(tmp_path / "people.csv", people())
    result = json.loads(
        _run(
            "train", "people.csv", "--target", "plan", "--ignore", "price", "--epochs", 60, "--json", folder=tmp_path
        ).stdout
    )
    assert (result["task"], result["classes"], result["model"], result["report"]) == (
        "classification",
        ["basic", "gold"],
        "model.safetensors",
        "model.html",
    )
    assert result["metrics"]["accuracy"] > result["baseline"]["accuracy"]
    assert result["command"] == "portablenn train people.csv --target plan --ignore price --epochs 60 --json"
    new = {"age": [60.0, None], "city": ["Rome", "Oslo"], "note": ["a,b", 'say "no"']}
    write_csv(tmp_path / "new.csv", {**new, "note": ["a,b", "c"]})
    out = _run("predict", "model.safetensors", "new.csv", folder=tmp_path).stdout.splitlines()
    assert out[0] == "age,city,note,prediction"
    assert out[1].startswith('"60.0","Rome","a,b","')
    for end in ("csv", "parquet", "arrow"):
        write_parquet(tmp_path / "new.parquet", new)
        result = json.loads(
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
        assert result == {"out": f"o.{end}", "rows": 2, "target": "plan", "warnings": []}
        found = open_table(tmp_path / f"o.{end}")
        assert found.columns == ("age", "city", "note", "prediction", "probability of basic", "probability of gold")
        (batch,) = found.select(found.columns)
        assert batch.column("note").to_pylist() == new["note"]
        if end != "csv":
            np.testing.assert_allclose(np.asarray(batch.column(4)) + np.asarray(batch.column(5)), 1.0, rtol=1e-5)
    shown = _run("inspect", "model.safetensors", folder=tmp_path).stdout
    assert "classification of 'plan', 2 classes" in shown
    assert "dense_3" in shown
    assert json.loads(_run("inspect", "model.safetensors", "--json", folder=tmp_path).stdout)["parameters"] > 0
    metrics = pnn.TableModel.load(tmp_path / "model.safetensors").evaluate(tmp_path / "people.csv")
    found = json.loads(_run("evaluate", "model.safetensors", "people.csv", "--json", folder=tmp_path).stdout)
    assert found == pytest.approx(metrics)
    shown = _run("evaluate", "model.safetensors", "people.csv", folder=tmp_path).stdout
    assert f"{metrics['accuracy']:.4g}" in shown
    pnn.mlp([2, 3, 1]).save(tmp_path / "plain.safetensors")
    assert "dense_2" in _run("inspect", "plain.safetensors", folder=tmp_path).stdout


def test_the_same_command_resumes_a_training_that_was_killed(tmp_path: Path) -> None:
    import signal
    import time

    from portablenn.files import checkpoint

    write_csv(tmp_path / "t.csv", people())
    command = ["train", "t.csv", "--target", "price", "--no-report", "--patience", "300", "--epochs"]
    _run(*command, 300, "--out", "whole.safetensors", folder=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "portablenn", *command, "300", "--out", "parts.safetensors", "--checkpoints", "c"],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not checkpoint.list_paths(tmp_path / "c"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _run(*command, 300, "--out", "parts.safetensors", "--checkpoints", "c", folder=tmp_path)
    whole, parts = (pnn.TableModel.load(tmp_path / f"{name}.safetensors", "numpy") for name in ("whole", "parts"))
    np.testing.assert_array_equal(parts.network.state.theta, whole.network.state.theta)
    assert parts.results["history"] == whole.results["history"]


def test_folds_are_measured_besides_and_groups_are_kept_together(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table = people()
    write_csv(tmp_path / "people.csv", {**table, "home": [f"h{i % 50}" for i in range(len(table["plan"]))]})
    fast = ("--preset", "fast", "--epochs", 40, "--quiet")
    options = ("--target", "plan", "--ignore", "price", "--folds", 3, "--group", "home")
    out = _run("train", "people.csv", *options, *fast, folder=tmp_path).stdout
    assert "mean ± std of 3 folds" in out
    assert "left out: 'home': rows are split by it" in out
    of_folds = pnn.TableModel.load(tmp_path / "model.safetensors").results["cross_validation"]["metrics"]
    assert len(of_folds["accuracy"]["folds"]) == 3
    assert f"{of_folds['accuracy']['mean']:.4g} ±" in out
    assert f"{of_folds['accuracy']['mean']:.4g} ±" in (tmp_path / "model.html").read_text(encoding="utf-8")


def test_rows_are_split_by_time_and_classes_have_weights(tmp_path: Path) -> None:
    rows = 300
    table = {
        "day": list(range(rows)),
        "x": [i % 10 for i in range(rows)],
        "y": ["rare" if i % 10 == 7 else "usual" for i in range(rows)],
    }
    write_csv(tmp_path / "t.csv", table)
    options = ("--target", "y", "--time", "day", "--class-weight", "balanced", "--preset", "fast", "--epochs", 5)
    result = json.loads(_run("train", "t.csv", *options, "--no-report", "--json", folder=tmp_path).stdout)
    assert result["rows"] == {"train": 210, "validation": 60, "test": 30}
    assert result["linear"]["balanced_accuracy"] > 0.6  # without weights it is 0.5


def test_the_reader_of_a_pipe_may_close_it_early(tmp_path: Path) -> None:
    pnn.TableModel.train(people(), "price", epochs=1).save(tmp_path / "m.safetensors")
    many = {name: (values * 100)[:50_000] for name, values in people().items()}
    write_csv(tmp_path / "t.csv", many)
    command = f"{sys.executable} -m portablenn predict m.safetensors t.csv | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.splitlines() == ["id,age,city,plan,price,prediction", "0"]
    assert done.stderr == ""


def test_a_table_without_rows_is_written_with_its_header(tmp_path: Path) -> None:
    pnn.TableModel.train(people(), "price", epochs=1).save(tmp_path / "m.safetensors")
    (tmp_path / "t.csv").write_text("id,age,city,plan\n")
    assert _run("predict", "m.safetensors", "t.csv", folder=tmp_path).stdout == "id,age,city,plan,prediction\n"


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no such table": (["train", "nowhere.csv", "--target", "y"], 1, "portablenn: the file nowhere.csv does not exist"),
    "no such column": (["train", "t.csv", "--target", "y"], 1, "portablenn: t.csv lacks the column 'y'"),
    "no folder to write to": (
        ["train", "t.csv", "--target", "plan", "--out", "no/m.safetensors"],
        1,
        "does not exist",
    ),
    "odd layers": (["train", "t.csv", "--target", "plan", "--hidden", "a,b"], 2, "positive integers such as 64,32"),
    "no model": (["predict", "t.csv", "t.csv"], 1, "portablenn: t.csv is not a valid model file"),
    "no target": (["train", "t.csv"], 2, "--target"),
    "two targets": (
        ["train", "t.csv", "--target", "plan", "--target=price"],
        2,
        "Invalid value for --target: given more than once",
    ),
    "a model that is there": (
        ["train", "t.csv", "--target", "plan", "--quiet"],
        1,
        "there is a file model.safetensors",
    ),
    "a type without a name": (
        ["train", "t.csv", "--target", "plan", "--column-type", "number"],
        2,
        "expected NAME=TYPE such as zip=category",
    ),
    "nothing to measure": (
        ["evaluate", "m.safetensors", "other.csv"],
        1,
        "portablenn: other.csv lacks the column 'plan'",
    ),
    "no such type": (
        ["train", "t.csv", "--target", "plan", "--column-type", "age=float"],
        2,
        "expected NAME=TYPE such as zip=category",
    ),
    "another table, with --strict": (
        ["predict", "m.safetensors", "other.csv", "--strict", "--out", "o.csv"],
        1,
        "other.csv is not like the table of the training: 1 cells of 'city' hold values",
    ),
    "the table in its own place": (
        ["train", "t.csv", "--target", "plan", "--out", "t.csv"],
        1,
        "t.csv would overwrite another file",
    ),
    "a folder to write": (
        ["train", "t.csv", "--target", "plan", "--out", "."],
        1,
        "is a folder: give the name of a file",
    ),
    "a folder to read": (["train", ".", "--target", "plan"], 1, ". is a folder: expected a file"),
    "an end that is not known": (
        ["predict", "m.safetensors", "t.csv", "--out", "o.xlsx"],
        2,
        "ends in .csv, .parquet, .arrow",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_error_is_one_line_on_standard_error(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", people())
    pnn.TableModel.train(people(), "plan", epochs=1).save(tmp_path / "m.safetensors")
    if name == "a model that is there":
        (tmp_path / "model.safetensors").touch()
    (tmp_path / "other.csv").write_text("age,city,price\n40,Atlantis,2000\n")
    arguments, status, says = MISTAKES[name]
    done = _run(*arguments, folder=tmp_path, status=status)
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if status == 1:
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o.csv").exists()
    assert not (tmp_path / "model.safetensors").exists() or (tmp_path / "model.safetensors").stat().st_size == 0


def test_what_is_uncertain_is_said_and_a_model_that_learned_nothing_has_a_status_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    prices = [f"${1 + i % 97},{100 + i % 800:03}.50" for i in range(300)]
    lines = [f'{i},"{price if i != 7 else "n.k."}",{i % 5:03}' for i, price in zip(random.permutation(300), prices)]
    (tmp_path / "t.csv").write_text("x,price,code\n" + "\n".join(lines))
    command = ["train", "t.csv", "--target", "price", "--preset", "fast", "--epochs", 1, "--quiet", "--no-report"]
    command += ["--learning-rate", 1e-12]
    done = _run(*command, "--column-type", "code=number", folder=tmp_path, status=3)
    told, status = done.stderr.splitlines()
    assert told.startswith("portablenn: column 'price' holds 'n.k.' in row ")
    assert status.startswith(
        "portablenn: the model is not better than the same answer for every row: root mean squared"
    )
    columns = pnn.TableModel.load(tmp_path / "model.safetensors").preprocessor.columns
    assert [type(column).__name__ for column in columns] == ["NumericColumn"] * 2
    (tmp_path / "new.csv").write_text("x,code\n1e9,007\n3,\n")
    done = _run("predict", "model.safetensors", "new.csv", "--out", "o.csv", folder=tmp_path)
    assert [line.partition(" cells of ")[2][:6] for line in done.stderr.splitlines()] == ["'x' ar", "'code'"]
    assert done.stdout == "2 rows: o.csv\n"
