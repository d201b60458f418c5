"""Estimators of tables: what columns and labels they take, and that their networks are those of `TableModel`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from portablenn import TableModel
from portablenn.sklearn import TableClassifier, TableRegressor
from portablenn.tables import TableError

random = np.random.default_rng(0)
ROWS = 400
COLUMNS: dict[str, Any] = {
    "age": np.where(random.uniform(size=ROWS) < 0.1, np.nan, random.integers(18, 80, ROWS)),
    "city": random.choice(["Oslo", "Rome", "NA"], ROWS),
    "since": np.datetime64("2020-01-01") + random.integers(0, 1500, ROWS),
    "weight": [f"{kg:.1f} kg" for kg in random.uniform(40, 100, ROWS)],
}
CELLS: Any = np.stack([np.asarray(column, dtype=object) for column in COLUMNS.values()], axis=1)
CLASS = (np.nan_to_num(COLUMNS["age"], nan=50) > 50) ^ (COLUMNS["city"] == "Oslo")
VALUE = np.asarray([float(text.split()[0]) for text in COLUMNS["weight"]]) * np.where(COLUMNS["city"] == "Rome", 2, 1)
FAST: dict[str, Any] = {"preset": "fast", "epochs": 60, "batch_size": 32, "random_state": 3}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [TableClassifier(**FAST), TableRegressor(**FAST | {"epochs": None})])
def test_scikit_learns_checks_hold(estimator: Any) -> None:
    failed = [r for r in check_estimator(estimator, on_fail=None) if r["status"] == "failed"]
    assert [r["check_name"] for r in failed if "cudaError" not in str(r["exception"])] == []


def test_the_model_is_that_of_table_model() -> None:
    estimator = TableRegressor(**FAST).fit(CELLS, VALUE)
    table = {f"x{i}": CELLS[:, i].tolist() for i in range(4)}
    rest = {name: value for name, value in FAST.items() if name != "random_state"}
    model = TableModel.train(table | {"target": VALUE}, "target", test_share=0, seed=3, task="regression", **rest)
    np.testing.assert_array_equal(estimator.predict(CELLS), model.predict(table))
    assert estimator.model_.results["metrics"] == model.results["metrics"]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_and_arrays_of_the_same_cells_give_the_same_network(library: str) -> None:
    package = pytest.importorskip(library)
    frame = (package.table if library == "pyarrow" else package.DataFrame)(COLUMNS)
    estimator = TableClassifier(**FAST).fit(frame, CLASS)
    np.testing.assert_array_equal(estimator.predict(frame), TableClassifier(**FAST).fit(CELLS, CLASS).predict(CELLS))
    assert estimator.score(frame, CLASS) > 0.8
    assert {c.name for c in estimator.model_.preprocessor.columns} == set(COLUMNS)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:X has feature names, but TableRegressor was fitted without")
def test_columns_of_arrays_are_those_of_the_frame_by_position() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS, index=pandas.Index(np.arange(ROWS)[::-1], name="number"))
    of_frame, of_array = (TableRegressor(**FAST).fit(x, VALUE) for x in (frame, CELLS))
    np.testing.assert_array_equal(of_frame.predict(CELLS), of_frame.predict(frame))
    np.testing.assert_array_equal(of_array.predict(frame), of_array.predict(CELLS))
    with pytest.raises(ValueError, match="should match those that were passed during fit"):
        of_frame.predict(frame.rename(columns={"age": "years"}))


@pytest.mark.parametrize(
    "labels",
    [
        np.asarray(["None", "NA"]),
        np.asarray([False, True]),
        np.asarray([-7, 2**40]),
        np.asarray([1.0, 3.0]),
        np.asarray(["", " a "], dtype=object),
    ],
)
def test_labels_are_predicted_as_they_were_given(labels: np.ndarray, tmp_path: Path) -> None:
    y = labels[CLASS.astype(int)]
    estimator = TableClassifier(**FAST).fit(CELLS, y)
    predicted = estimator.predict(CELLS)
    assert predicted.dtype == labels.dtype
    assert np.mean(predicted == y) > 0.8
    of_true = estimator.predict_proba(CELLS)[np.arange(ROWS), np.searchsorted(estimator.classes_, y)]
    assert np.mean(of_true > 0.5) == np.mean(predicted == y)
    estimator.model_.save(tmp_path / "model.safetensors")
    loaded = TableModel.load(tmp_path / "model.safetensors")
    table = {f"x{i}": CELLS[:, i].tolist() for i in range(4)}
    assert loaded.predict(table).tolist() == predicted.tolist()


def test_a_column_of_the_name_of_the_target_is_an_input() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS).rename(columns={"weight": "y"})
    estimator = TableRegressor(**FAST).fit(frame, pandas.Series(VALUE, name="y"))
    assert estimator.model_.target.name == "y_"
    assert estimator.score(frame, VALUE) > 0.9


def test_types_of_columns_can_be_given() -> None:
    types = {"x0": "ignore", "x2": "ignore", "x3": "ignore"}
    estimator = TableClassifier(**FAST, column_types=types).fit(CELLS, CLASS)
    assert [type(c).__name__ for c in estimator.model_.preprocessor.columns] == ["CategoricalColumn"]


def test_classes_have_the_weights_of_their_labels() -> None:
    y = np.where(VALUE > 150, "heavy", "usual")
    shares = []
    for weight in (None, {"heavy": 1000.0}, {"heavy": 0.001}):
        estimator = TableClassifier(**FAST, class_weight=weight).fit(CELLS[:, :1], y)
        shares.append(np.mean(estimator.predict(CELLS[:, :1]) == "heavy"))
    assert shares[2] == 0.0
    assert shares[1] == 1.0
    with pytest.raises(ValueError, match="unknown labels"):
        TableClassifier(**FAST, class_weight={"light": 2.0}).fit(CELLS, y)


def test_it_is_a_part_of_scikit_learn() -> None:
    groups = np.arange(ROWS) % 4
    scores = cross_val_score(TableClassifier(**FAST), CELLS, CLASS, groups=groups, cv=GroupKFold(2))
    assert scores.min() > 0.7
    fitted = TableClassifier(**FAST).fit(CELLS, CLASS)
    for same in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), clone(fitted).fit(CELLS, CLASS)):
        np.testing.assert_array_equal(same.predict_proba(CELLS), fitted.predict_proba(CELLS))


def test_an_error_leaves_the_estimator_as_it_was() -> None:
    fitted = TableRegressor(**FAST).fit(CELLS, VALUE)
    before = fitted.predict(CELLS)
    fitted.set_params(column_types={"x9": "number"})
    with pytest.raises(TableError, match="lacks the column 'x9'"):
        fitted.fit(CELLS[:, :3], VALUE)
    np.testing.assert_array_equal(fitted.predict(CELLS), before)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (CELLS, np.zeros(ROWS), "greater than one; got 1 class"),
        (CELLS, VALUE, "Unknown label type"),
        (CELLS[:10], CLASS, "inconsistent numbers of samples"),
        (np.full((10, 2), np.inf), CLASS[:10], "infinity"),
        (CELLS, None, "requires y to be passed"),
        (np.ones((ROWS, 2)), CLASS, "no column to predict"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableClassifier(**FAST).fit(x, y)


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a minimum of 2 is required"):
        TableRegressor(**FAST).fit(CELLS[:1], VALUE[:1])


DATES = np.datetime64("2020-01-01") + np.arange(ROWS)


@pytest.mark.parametrize(
    "y",
    [
        np.where(CLASS, np.nan, 1.0),
        np.where(CLASS, np.inf, VALUE),
        np.where(CLASS, None, "a"),
        np.where(CLASS, np.datetime64("NaT"), DATES),
    ],
    ids=["NaN", "infinity", "None", "NaT"],
)
@pytest.mark.parametrize("assume_finite", [False, True])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_missing_targets_are_refused(y: Any, assume_finite: bool) -> None:
    with sklearn.config_context(assume_finite=assume_finite):
        with pytest.raises(ValueError, match="Input y contains"):
            TableClassifier(**FAST).fit(CELLS, y)
        with pytest.raises((ValueError, TypeError), match="Input y contains|y holds dates"):
            TableRegressor(**FAST).fit(CELLS, y)


def test_dates_are_not_values_but_may_be_labels() -> None:
    with pytest.raises(TypeError, match="convert them to numbers"):
        TableRegressor(**FAST).fit(CELLS, DATES)
    y = DATES[CLASS.astype(int)]
    fitted = TableClassifier(**FAST).fit(CELLS, y)
    assert fitted.predict(CELLS).dtype == y.dtype
    assert set(fitted.model_.target.labels) == {"2020-01-01", "2020-01-02"}


def test_columns_that_are_left_out_are_warned_of_unless_they_are_constant() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"": COLUMNS["age"], "id": [f"id {i}" for i in range(ROWS)], "same": 1, "city": COLUMNS["city"]}
    )
    with pytest.warns(RuntimeWarning) as caught:
        TableClassifier(**FAST).fit(frame, CLASS)
    messages = sorted(str(warning.message) for warning in caught)
    assert [message.partition(":")[0] for message in messages] == ["column '' is left out", "column 'id' is left out"]


def test_infinities_in_frames_are_warned_of() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": np.where(np.arange(ROWS) == 7, np.inf, VALUE)})
    with pytest.warns(RuntimeWarning, match="column 'x' holds 'inf' in row 8, which cannot be read"):
        TableRegressor(**FAST).fit(frame, VALUE)


@pytest.mark.parametrize(
    "column",
    [
        [None if missing else day for missing, day in zip(CLASS, DATES.astype(object))],
        DATES.astype("M8[M]"),
        DATES.astype("M8[h]"),
        VALUE.astype(">f8"),
    ],
    ids=["missing dates", "months", "hours", "big-endian"],
)
def test_arrays_of_unusual_dtypes_are_read(column: Any) -> None:
    x = np.asarray(column)[:, None]
    assert len(TableRegressor(**FAST).fit(x, VALUE).model_.preprocessor.columns) == 1


@pytest.mark.filterwarnings("ignore:.*are missing, and none was in training")
def test_nat_in_an_array_of_objects_is_a_missing_cell() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"day": pandas.Series(DATES).mask(CLASS), "city": COLUMNS["city"]})
    fitted = TableClassifier(**FAST).fit(frame.to_numpy(), CLASS)
    assert fitted.score(frame.to_numpy(), CLASS) > 0.95


def test_masked_cells_are_missing() -> None:
    x = np.ma.array(VALUE[:, None], mask=CLASS[:, None])
    assert TableClassifier(**FAST).fit(x, CLASS).score(x, CLASS) > 0.95


def test_lists_and_arrays_of_objects_have_the_same_cells() -> None:
    x = [[bool(c), float(v)] for c, v in zip(CLASS, VALUE)]
    fitted = TableClassifier(**FAST).fit(x, CLASS)
    np.testing.assert_array_equal(fitted.predict(x), fitted.predict(np.asarray(x, dtype=object)))


def test_large_integers_that_differ_are_not_one_value() -> None:
    x = (10**15 + 1000 * CLASS + np.arange(ROWS) % 7)[:, None]
    assert TableClassifier(**FAST).fit(x, CLASS).score(x, CLASS) > 0.95
