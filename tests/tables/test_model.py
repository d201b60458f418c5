"""Models of tables: training, prediction, files, and errors that name their cause."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import PRICE, ROWS, people

import portablenn as pnn
from portablenn import losses, schedules

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables import Preprocessor, Target  # noqa: E402
from portablenn.tables.columns import NumericColumn  # noqa: E402
from portablenn.tables.description import describe  # noqa: E402
from portablenn.tables.parts import Split, shares_of  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.presets import PRESETS  # noqa: E402
from portablenn.tables.readers import TableError, open_table  # noqa: E402


def test_values_that_did_not_occur_in_training_are_counted() -> None:
    model, unusual = pnn.TableModel.train(people(), "plan", epochs=1, ignore=["price"]), Counter[tuple[str, str]]()
    rows = {"age": [20.0, 30.0, 40.0], "city": ["Atlantis", "Oslo", None]}
    list(model.predict_batches(rows, unusual=unusual))
    assert +unusual == {("city", "unseen"): 1, ("city", "empty"): 1, ("", "rows"): 3}
    with pytest.raises(TableError, match="1 cells of 'city' hold values that did not occur in training"):
        list(model.predict_batches(rows, strict=True))
    list(model.predict_batches({"age": [20.0], "city": ["Oslo"]}, strict=True))
    gaps = {"age": [20.0] * 12, "city": [None] * 6 + ["Oslo"] * 6}  # which training had
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portablenn.tables.readers.BATCH_ROWS", 6)
        assert len(list(model.predict_batches(gaps, strict=True))) == 2
        with pytest.raises(TableError, match="all 12 cells of 'city' are missing"):
            list(model.predict_batches({**gaps, "city": [None] * 12}, strict=True))


UNUSUAL: dict[str, tuple[dict[str, Any], str]] = {
    "an unseen value": ({"c": ["z", "a", "a"]}, "1 cells of 'c' hold values that did not occur"),
    "gaps where there were none": ({"x": [1.0, None, None]}, "2 cells of 'x' are missing, and none was in training"),
    "an empty column": ({"x": [None] * 3}, "3 cells of 'x' are missing"),
    "an empty column of another type": ({"d": [float("nan")] * 3}, "3 cells of 'd' are missing"),
    "an empty column that had gaps": (
        {"g": [None] * 5, "x": [5.0] * 5, "c": ["a"] * 5, "d": ["2024-01-01"] * 5},
        "all 5 cells",
    ),
    "an empty column of text": ({"c": ["", "", ""]}, "3 cells of 'c' are missing"),
    "far above": ({"x": [5.0, 121.0, 5.0]}, "1 cells of 'x' are further outside of the range"),
    "far below": ({"x": [5.0, -61.0, -1e30]}, "2 cells of 'x' are further outside of the range"),
    "a date far ahead": ({"d": ["2024-01-01", "2025-01-01", "2024-01-02"]}, "1 cells of 'd' are further outside"),
    "text": ({"x": ["1", "2", "x"]}, "1 cells of 'x' cannot be read as in training"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_cells_unlike_those_of_the_training_are_warned_of(name: str) -> None:
    known = {"x": [float(i % 61) for i in range(122)], "c": ["a", "b"] * 61, "d": ["2024-01-01", "2024-01-31"] * 61}
    known["g"] = [1.0, 2.0, None, None, 3.0, 4.0] * 20 + [1.0, None]
    model = pnn.TableModel.train({**known, "y": [i / 7 for i in range(122)]}, "y", epochs=1)
    usual = {"x": [0.0, 120.0, -60.0], "c": ["a", "b", "a"], "d": ["2024-01-01", "2024-02-29", "2023-12-03"]}
    usual["g"] = [None] * 3
    model.predict(usual)  # without a warning
    changed, expected = UNUSUAL[name]
    with pytest.warns(RuntimeWarning, match=expected):
        assert np.isfinite(model.predict({**usual, **changed})).all()


def test_predicted_labels_have_the_type_of_the_target() -> None:
    for cells in (["b", "a"], [10, 2], [True, False], ["1", "0"], [0.5, 1.5], ["True", "False"]):
        table = {"x": [0.0, 1.0] * 40, "y": cells * 40}
        model = pnn.TableModel.train(table, "y", epochs=60, patience=60, task="classification")
        found = model.predict({"x": [0.0, 1.0]}).tolist()
        assert found == cells[:2]
        assert type(found[0]) is type(cells[0])


@pytest.mark.parametrize("target", ["plan", "price"])
def test_a_model_learns_and_is_the_same_after_save_and_load(target: str, tmp_path: Path) -> None:
    model = pnn.TableModel.train(
        people(), target, epochs=200, patience=30, hidden=(32,), ignore=["price"] if target == "plan" else []
    )
    metrics, baseline = model.results["metrics"], model.results["baseline"]
    if target == "plan":
        assert metrics["accuracy"] > 0.85 > baseline["accuracy"] + 0.2
        assert np.sum(model.results["confusion"]) == model.results["rows"]["test"]
    else:
        assert metrics["r2"] > 0.85
        assert baseline["r2"] <= 0.0
    assert set(model.results["importances"]) == {c.name for c in model.preprocessor.columns}
    assert next(iter(model.results["importances"])) in ("age", "city", "price")
    path = tmp_path / "m.safetensors"
    model.save(path)
    back = pnn.TableModel.load(path, backend="numpy")
    assert back.preprocessor == model.preprocessor
    assert back.results["metrics"] == metrics
    np.testing.assert_array_equal(back.predict(people()), model.predict(people()))
    assert back.evaluate(people()) == pytest.approx(model.evaluate(people()))
    with pytest.raises(pnn.FileFormatError, match=r"load it with portablenn.TableModel.load"):
        pnn.load(path)
    pnn.mlp([2, 2]).save(path)
    with pytest.raises(pnn.FileFormatError, match=r"load it with portablenn.load"):
        pnn.TableModel.load(path)


def test_a_regression_predicts_in_the_units_of_its_target() -> None:
    table = people(missing=False)
    model = pnn.TableModel.train(table, "price", epochs=100, ignore=["id", "plan"])
    errors = np.abs(model.predict(table) - PRICE)
    assert np.mean(errors) < 0.05 * np.std(PRICE)
    assert model.evaluate(table)["mean_absolute_error"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_new_rows_may_hold_unknown_values() -> None:
    model = pnn.TableModel.train(people(), "plan", epochs=5, ignore=["price"])
    rows = {"more": [1, 2, 3], "city": ["Atlantis", None, "Oslo"], "age": [None, float("nan"), 1e30]}
    with pytest.warns(RuntimeWarning) as warned:
        assert set(model.predict(rows).tolist()) <= {"basic", "gold"}
    assert len(warned) == 2
    with pytest.warns(RuntimeWarning, match="'age' are further outside|did not occur in training"):
        assert model.predict_proba(rows).shape == (3, 2)
    assert model.predict({"city": [], "age": []}).shape == (0,)
    with pytest.raises(TableError, match="lacks the column 'age'"):
        model.predict({"city": ["Oslo"]})
    with pytest.raises(TableError, match="column 'age' holds 'old', unlike in training: correct such cells"):
        model.predict({"city": ["Oslo"], "age": ["old"]})


def test_a_table_in_blocks_trains_as_well_as_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {"epochs": 8, "hidden": (16,)}
    whole = pnn.TableModel.train(people(), "price", **facts)
    monkeypatch.setattr("portablenn.tables.model.IN_MEMORY", 0)
    monkeypatch.setattr("portablenn.tables.spill.BLOCK_SIZE", 300)
    blocks = pnn.TableModel.train(people(), "price", **facts)
    assert blocks.results["metrics"]["r2"] == pytest.approx(whole.results["metrics"]["r2"], abs=0.2)
    assert blocks.results["rows"] == whole.results["rows"]


def test_missing_cells_raise_on_request() -> None:
    with pytest.raises(TableError, match="missing cells in 'age', 'city'"):
        pnn.TableModel.train(people(), "price", missing="refuse")
    table = {"x": [None, *range(79)], "y": [i / 3 for i in range(80)]}
    for seed in range(3):  # whichever part of the rows has it
        with pytest.raises(TableError, match="missing cells in 'x'"):
            pnn.TableModel.train(table, "y", missing="refuse", seed=seed)
    pnn.TableModel.train(people(missing=False), "price", missing="refuse", epochs=1)


def test_rows_without_a_target_are_skipped_and_counted() -> None:
    table = people()
    with pytest.raises(TableError, match="all cells of target 'plan' are missing"):
        pnn.TableModel.train({**table, "plan": ["", None] * (ROWS // 2)}, "plan")
    table["plan"] = [None if i < 50 else p for i, p in enumerate(table["plan"])]
    model = pnn.TableModel.train(table, "plan", epochs=1)
    assert model.results["rows_without_target"] == 50
    assert sum(model.results["rows"].values()) == ROWS - 50


def test_without_test_rows_the_validation_rows_are_measured() -> None:
    def results(rows: int, seed: int) -> dict[str, Any]:
        table = {"x": [float(i) for i in range(rows)], "y": ["a", "b"] * (rows // 2)}
        return pnn.TableModel.train(table, "y", epochs=1, seed=seed).results

    ten, four = results(10, seed=1), results(4, seed=2)
    assert (ten["rows"], ten["measured_on"]) == ({"train": 7, "validation": 3, "test": 0}, "validation")
    assert np.sum(ten["confusion"]) == 3
    assert four["rows"] == {"train": 4, "validation": 0, "test": 0}
    assert four["metrics"] == four["baseline"] == {}


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no such column": (people(), {"target": "plann"}, "lacks the column 'plann': it has 'id', 'age'"),
    "no such column to ignore": (people(), {"target": "plan", "ignore": ["agee"]}, "lacks the column 'agee'"),
    "the target ignored": (
        people(),
        {"target": "plan", "ignore": ["plan"]},
        "target 'plan' is among the ignored columns",
    ),
    "one class": (
        {"x": [1, 2] * 9, "y": ["a"] * 18},
        {"target": "y"},
        "is 'a' in every row: expected at least 2 classes",
    ),
    "a regression of text": (
        people(),
        {"target": "plan", "task": "regression"},
        "is not numeric, which regression requires: it holds text",
    ),
    "an unknown task": (people(), {"target": "plan", "task": "ranking"}, '"classification", "regression" or None'),
    "one row": ({"x": [1], "y": [2]}, {"target": "y"}, "has 1 rows"),
    "names for a target": (
        people(),
        {"target": "id"},
        "'id' has 600 distinct texts in 600 rows, which are not classes",
    ),
    "nothing to predict from": ({"x": ["a"] * 40, "y": [1, 2] * 20}, {"target": "y"}, "no column to predict 'y' from"),
    "not a table": (3, {"target": "y"}, "int is not a table"),
    "columns of other lengths": ({"x": [1], "y": [1, 2]}, {"target": "y"}, "is not a table"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_nothing_can_be_learned_from_raises_with_the_reason(name: str) -> None:
    table, facts, says = WRONG[name]
    with pytest.raises((TableError, ValueError), match=says):
        pnn.TableModel.train(table, **facts)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no columns": (lambda t: t["columns"].clear(), "expected 1 to 100,000 columns, got 0"),
    "an extra column": (lambda t: t["columns"].append(t["columns"][0]), "inputs and outputs"),
    "an unknown kind": (lambda t: t["columns"][0].update(kind="eval"), "unknown kind of column 'eval'"),
    "an extra field": (lambda t: t["columns"][0].update(code="x"), "of the column, got"),
    "a scale of 0": (lambda t: t["columns"][0].update(scale=0.0), "scale positive"),
    "an infinite scale": (lambda t: t["columns"][0].update(scale=float("inf")), "scale positive"),
    "NaN": (lambda t: t["columns"][0].update(center=float("nan")), "scale positive"),
    "values that are not text": (lambda t: t["columns"][1].update(values=[1, 2, 3]), "must be distinct strings"),
    "classes that are not numbers": (lambda t: t["target"].update(labels_are="integer"), "invalid table"),
    "labels of no type": (lambda t: t["target"].update(labels_are="color"), "invalid table"),
    "a format of no cells": (lambda t: t["columns"][0]["cells"].update(decimal=";"), "invalid table"),
    "a format of no date": (lambda t: t["columns"][0]["cells"].update(date="%q"), "invalid table"),
    "a range without an end": (lambda t: t["columns"][0].update(high=float("inf")), "invalid table"),
    "a missing class": (lambda t: t["target"]["classes"].pop(), "inputs and outputs"),
    "a list for a table": (lambda t: t.update(columns={}), "field columns of the table is a dict"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_file_with_an_invalid_table_raises(name: str, tmp_path: Path) -> None:
    from portablenn.files import model_file

    model, path = pnn.TableModel.train(people(), "plan", epochs=1), tmp_path / "m.safetensors"
    facts, arrays, slots = model.network.contents()
    table = json.loads(json.dumps(describe(model.preprocessor, model.results)))
    change, says = HOSTILE[name]
    change(table)
    model_file.write(path, {**facts, "table": table}, arrays, slots)
    with pytest.raises(pnn.FileFormatError, match=says):
        pnn.TableModel.load(path)


def _untrained(target: Target) -> pnn.TableModel:
    columns = (NumericColumn("x", 0.0, 1.0, missing=False),)
    network = pnn.mlp(
        [1, len(target.classes or "1")], loss="softmax_cross_entropy" if target.classes else "squared_error"
    )
    return pnn.TableModel(Preprocessor(columns, target), network, {"rows": {"train": 3}})


def test_a_table_without_rows_has_no_predictions() -> None:
    labels, values = _untrained(Target("y", ("no", "yes"))), _untrained(Target("y", None, mean=7.0))
    assert labels.predict({"x": []}).shape == (0,)
    assert labels.predict_proba({"x": []}).shape == (0, 2)
    assert values.predict({"x": []}).dtype == np.float64
    (batch,) = labels.predict_batches({"x": []}, probabilities=True)
    assert batch.schema.names == ["x", "prediction", "probability of no", "probability of yes"]
    assert batch.num_rows == 0


def test_predictions_are_appended_to_all_columns() -> None:
    model = _untrained(Target("y", ("no", "yes")))
    rows = {"note": ["a", "b"], "x": [-1.0, 1.0]}
    (batch,) = model.predict_batches(rows, probabilities=True)
    assert batch.column("note").to_pylist() == ["a", "b"]
    assert batch.column("prediction").to_pylist() == model.predict(rows).tolist()
    np.testing.assert_array_equal(np.stack([batch.column(3), batch.column(4)], axis=1), model.predict_proba(rows))
    (batch,) = model.predict_batches(rows)
    assert batch.schema.names == ["note", "x", "prediction"]


def test_appended_columns_must_have_new_names() -> None:
    model = _untrained(Target("y", ("no", "yes")))
    with pytest.raises(TableError, match="the table already has a column 'prediction': rename it"):
        next(model.predict_batches({"x": [1.0], "prediction": [1]}))
    with pytest.raises(TableError, match="already has a column 'probability of yes'"):
        next(model.predict_batches({"x": [1.0], "probability of yes": [1]}, probabilities=True))
    assert next(model.predict_batches({"x": [1.0], "probability of yes": [1]})).num_columns == 3
    with pytest.raises(TableError, match="a regression predicts no probabilities"):
        next(_untrained(Target("y", None)).predict_batches({"x": [1.0]}, probabilities=True))


@pytest.mark.parametrize("target", [Target("y", ("0", "1"), "integer"), Target("y", None)])
def test_evaluate_skips_rows_without_a_target(target: Target) -> None:
    model, x = _untrained(target), [-1.0, 0.5, 2.0, 3.0]
    known = model.evaluate({"x": x[:2], "y": [0, 1]})
    assert model.evaluate({"x": x, "y": [0, 1, None, None]}) == known
    with pytest.raises(TableError, match="no row whose target 'y' is known"):
        model.evaluate({"x": x, "y": [None] * 4})
    with pytest.raises(TableError, match="lacks the column 'y'"):
        model.evaluate({"x": x})
    with pytest.warns(RuntimeWarning, match="2 cells of 'x' are missing"):
        model.evaluate({"x": [None, None, *x[2:]], "y": [0, 1, 0, 1]})


@pytest.mark.parametrize(
    ("classes", "cells"),
    [
        (("0", "1"), [0, 1, 7, 8, 9, 9]),
        (("a", "b"), ["a", "b", "c", "A", " a", "d"]),
        (("1", "2"), ["1", "2", "3", "1.0", "x", "02"]),
    ],
)
def test_rows_of_unknown_classes_count_as_wrong(classes: tuple[str, ...], cells: list[Any]) -> None:
    model, x = (
        _untrained(Target("y", classes, "integer" if isinstance(cells[0], int) else "text")),
        [float(i) for i in range(6)],
    )
    known = model.evaluate({"x": x[:2], "y": cells[:2]})
    with pytest.warns(
        RuntimeWarning, match="4 of 6 rows are of classes that the model does not know: they count as wrong"
    ):
        metrics = model.evaluate({"x": x, "y": cells})
    assert metrics["accuracy"] == pytest.approx(known["accuracy"] / 3)
    assert metrics["log_loss"] > 20.0
    with pytest.warns(RuntimeWarning, match="1 of 2 rows"):  # one of two classes, and an unknown one
        assert "roc_auc" not in model.evaluate({"x": x[1:3], "y": cells[1:3]})


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 16), (1600, 16), (3199, 16), (3200, 32), (102_399, 512), (102_400, 1024), (10**9, 1024)]
)
def test_the_batch_size_follows_the_number_of_rows(rows: int, size: int) -> None:
    assert PRESETS["fast"].rows_per_batch(rows) == size
    assert PRESETS["default"].rows_per_batch(rows) == 256


@pytest.fixture
def network_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the network: no linear model takes its place."""
    monkeypatch.setattr("portablenn.tables.model.MIN_ROWS_TO_CHOOSE", 10**9)


@pytest.mark.usefixtures("network_only")
def test_layers_are_those_that_were_asked_for() -> None:
    table = {"x": [0.0, 1.0] * 50, "y": ["a", "b", "c", "c"] * 25}
    chosen = {"hidden": (5, 3), "activation": "tanh", "dropout": 0.25, "epochs": 1, "batch_size": 8}
    model = pnn.TableModel.train(table, "y", preset="fast", **chosen)
    layers = [layer for _, layer in model.network.model.layers]
    assert layers[:4:2] == [pnn.Dense(n, "tanh") for n in (5, 3)]
    assert [layer.kernel_init for layer in layers[:4:2]] == ["glorot_uniform"] * 2
    assert layers[1:4:2] == [pnn.Dropout(0.25)] * 2
    assert layers[4:] == [pnn.Dense(3)]
    assert (model.task, model.network.optimizer, model.results["batch_size"]) == ("classification", pnn.AdamW(1e-3), 8)
    assert (model.results["measured_on"], model.results["best_epoch"]) == ("test", 1)


@pytest.mark.usefixtures("network_only")
def test_the_default_is_the_network_of_its_paper(tmp_path: Path) -> None:
    x = [float(i % 50) for i in range(1000)]
    for y, activation, rate in (
        ([i / 7 for i in x], "mish", 0.07),
        (["a" if i > 20 else "b" for i in x], "selu", 0.04),
    ):
        model = pnn.TableModel.train({"x": x, "y": y}, "y", epochs=2, seed=3)
        outputs, hidden = (1 if rate == 0.07 else 2), [pnn.NTKDense(256, activation)] * 3
        assert list(model.network.layers) == [pnn.Scale(6.0), *hidden, pnn.NTKDense(outputs)]
        steps = 2 * math.ceil(model.results["rows"]["train"] / 256)
        assert model.network.optimizer == pnn.Adam(schedules.CosLog(rate, steps), beta_2=0.95)
        assert model.network.steps <= steps
        assert model.preprocessor.columns[0].smooth
        if rate == 0.04:
            assert model.network.loss == losses.SoftmaxCrossEntropy(label_smoothing=0.1)
            probabilities = model.predict_proba({"x": x})  # what history reports is without smoothing
            model.save(tmp_path / "m.safetensors")
            back = pnn.TableModel.load(tmp_path / "m.safetensors", "numpy").network
            inputs, labels = np.zeros((2, back.inputs)), [0, 1]
            assert back.evaluate(inputs, labels) == model.network.evaluate(inputs, labels)
            assert back.model == model.network.model
            of_true = probabilities[np.arange(1000), [int(label == "b") for label in y]]
            assert -np.log(of_true).mean() == pytest.approx(min(model.results["history"]["val_loss"]), rel=0.5)


@pytest.mark.usefixtures("network_only")
def test_the_last_layer_begins_at_zero_so_that_the_first_prediction_is_the_mean() -> None:
    table = {"x": [float(i) for i in range(200)], "y": [i / 7 for i in range(200)]}
    model = pnn.TableModel.train(table, "y", epochs=1, learning_rate=1e-12)
    np.testing.assert_allclose(model.predict(table), model.target.mean, rtol=1e-4)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"patience": 0}, "patience must be a positive integer, got 0"),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"preset": "best"}, "expected preset 'fast' or 'default', got 'best'"),
        ({"optimizer": pnn.SGD(0.1), "learning_rate": 0.1}, "learning_rate is for the optimizer of the preset"),
        ({"test_share": 0.9}, "expected test_share from 0 to 0.7, got 0.9"),
    ],
)
def test_what_is_no_preset_raises(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pnn.TableModel.train(people(), "plan", **facts)


def test_without_a_test_share_more_rows_are_trained_on() -> None:
    results = pnn.TableModel.train(people(), "plan", preset="fast", epochs=2, test_share=0).results
    assert (results["rows"]["test"], results["measured_on"]) == (0, "validation")
    assert results["rows"]["train"] == pytest.approx(5 / 6 * ROWS, abs=30)


@pytest.mark.parametrize(("rows", "validation"), [(1, 0.2), (500, 0.2), (800, 0.125), (1000, 0.1), (10**6, 0.1)])
def test_small_tables_have_a_larger_share_of_validation_rows(rows: int, validation: float) -> None:
    assert shares_of(0.1, rows) == pytest.approx((0.9 - validation, validation, 0.1))
    assert shares_of(0.0, rows) == pytest.approx((1.0 - validation, validation, 0.0))


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_extremes_are_drawn_in_and_quartiles_scale(rows: int) -> None:
    values = np.random.default_rng(0).lognormal(size=rows)
    fitted = fit_preprocessor(
        open_table({"x": values, "y": values}), "y", split=Split(shares=(1.0, 0.0, 0.0)), smooth=True
    )
    column, target = fitted.preprocessor.columns[0], fitted.preprocessor.target
    assert isinstance(column, NumericColumn)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(
        [column.center, column.scale], [median, high - low], rtol=1e-12 if rows == 1000 else 0.02
    )
    encoded = column.encode(pa.array([median, column.center + 3 * column.scale, 1e9, -1e9]))
    np.testing.assert_allclose(encoded[1:], [3 / 2**0.5, 3.0, -3.0], rtol=1e-5)
    assert (target.mean, target.scale) == (pytest.approx(values.mean()), pytest.approx(values.std()))


def test_a_column_whose_quartiles_are_equal_is_scaled_by_its_range() -> None:
    table = open_table({"x": [0.0] * 90 + [4.0] * 10, "y": ["a", "b"] * 50})
    column = fit_preprocessor(table, "y", split=Split(shares=(1.0, 0.0, 0.0)), smooth=True).preprocessor.columns[0]
    assert isinstance(column, NumericColumn)
    assert (column.center, column.scale) == (0.0, 2.0)


@pytest.mark.filterwarnings("ignore:the loss is nan")
def test_training_that_diverges_raises() -> None:
    table = {"x": [float(i) for i in range(60)], "y": [i / 7 for i in range(60)]}
    with pytest.raises(TableError, match="training diverged: the weights are not finite. Lower the learning rate"):
        pnn.TableModel.train(table, "y", preset="fast", optimizer=pnn.SGD(1e30), epochs=3)


@pytest.mark.parametrize("kind", ["values", "classes"])
def test_a_linear_model_takes_the_place_of_a_network_that_is_worse(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 400))
    table: dict[str, Any] = {"x": x, "z": z, "y": x - 2 * z if kind == "values" else np.where(x - 2 * z > 0, "a", "b")}
    model = pnn.TableModel.train(table, "y", preset="fast", epochs=1)
    assert model.results["chosen"] == "linear model"
    assert model.results["metrics"] == model.results["linear"]
    assert len(model.network.layers) == 1
    assert len(model.results["history"]["loss"]) == 1
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(pnn.TableModel.load(tmp_path / "m.safetensors").predict(table), model.predict(table))
    table["y"] = x * z if kind == "values" else np.where(x * z > 0, "a", "b")  # which it cannot learn
    model = pnn.TableModel.train(table, "y", epochs=60)
    assert model.results["chosen"] == "network"
    name = "r2" if kind == "values" else "accuracy"
    assert model.results["metrics"][name] > model.results["linear"][name] + 0.2
    table["y"] = x
    asked_for = pnn.TableModel.train(table, "y", preset="fast", epochs=1, hidden=np.asarray([8]))
    assert (asked_for.results["chosen"], len(asked_for.network.layers)) == ("network", 2)


def test_a_long_training_names_shorter_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.model.MANY_STEPS", 1)
    monkeypatch.setattr(
        "portablenn.tables.presets.PRESETS", {**PRESETS, "default": replace(PRESETS["default"], epochs=2)}
    )
    table = {"x": [float(i) for i in range(400)], "y": [i / 7 for i in range(400)]}
    with pytest.warns(RuntimeWarning, match=r'2 epochs of 2\d\d rows are \d steps: preset="fast", or fewer epochs'):
        pnn.TableModel.train(table, "y")
    pnn.TableModel.train(table, "y", epochs=2)  # as asked for, without a warning


def _few_of_one_class(rows: int = 2000) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    return {"x": x, "y": np.where(x + random.normal(size=rows) > 2.5, "rare", "usual")}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("hidden", [None, (8,)], ids=["perhaps linear", "network"])
def test_balanced_classes_have_the_same_weight(in_memory: bool, hidden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr("portablenn.tables.model.IN_MEMORY", 0)
    table, settings = _few_of_one_class(), {"preset": "fast", "epochs": 20, "batch_size": 32, "hidden": hidden}
    plain = pnn.TableModel.train(table, "y", **settings).results
    balanced = pnn.TableModel.train(table, "y", class_weight="balanced", **settings).results
    for kind in ("metrics", "linear"):
        assert plain[kind]["balanced_accuracy"] < 0.7
        assert balanced[kind]["balanced_accuracy"] > 0.8
        assert balanced[kind]["accuracy"] < plain[kind]["accuracy"]


def test_classes_have_the_weights_of_their_labels() -> None:
    table, settings = _few_of_one_class(), {"preset": "fast", "epochs": 3}
    with pytest.raises(ValueError, match=r"unknown labels \['common'\]"):
        pnn.TableModel.train(table, "y", class_weight={"common": 2.0}, **settings)
    with pytest.raises(ValueError, match="class_weight is for classifications"):
        pnn.TableModel.train({"x": table["x"], "y": table["x"] ** 2}, "y", class_weight="balanced", **settings)
    heavy = pnn.TableModel.train(table, "y", class_weight={"rare": 1000.0}, **settings)
    assert np.mean(heavy.predict(table) == "rare") > 3 * np.mean(table["y"] == "rare")
