"""The parts of a table's rows: by groups, by time, and in folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn import TableModel  # noqa: E402
from portablenn.tables.parts import TEST, TRAIN, VALIDATION, Split  # noqa: E402
from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import Table, TableError, open_table  # noqa: E402

random = np.random.default_rng(0)
ROWS = 600
DAYS = random.integers(0, 3000, ROWS)
TABLE: dict[str, Any] = {
    "x": random.normal(size=ROWS),
    "patient": random.integers(0, 40, ROWS) * 7,
    "day": np.datetime64("2015-01-01") + DAYS,
    "y": random.choice(["a", "b", "b", "b"], ROWS),
}
SHARES = (0.7, 0.2, 0.1)


def _parts(split: Split, table: Any = TABLE, **options: Any) -> np.ndarray:
    table = open_table(table)
    return fit_preprocessor(table, "y", split=split, **options).assignment.of(0, len(TABLE["y"]))


def _in_batches(rows: int) -> Table:
    table = pa.table(TABLE)
    return Table("the table", tuple(table.column_names), lambda: iter(table.to_batches(max_chunksize=rows)))


@pytest.mark.parametrize("fold", [None, *((k, 5) for k in range(5))])
@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_in_two_parts(seed: int, fold: Any) -> None:
    parts = _parts(Split((0.6, 0.2, 0.2), seed, group="patient", fold=fold))
    for patient in np.unique(TABLE["patient"]):
        assert len(np.unique(parts[TABLE["patient"] == patient])) == 1
    for part, share in ((TRAIN, 0.6), (VALIDATION, 0.2), (TEST, 0.2)):
        assert np.mean(parts == part) == pytest.approx(share, abs=0.05)


def test_groups_are_assigned_anew_with_another_seed_and_not_by_the_order_of_rows_or_the_type_of_cells() -> None:
    parts = _parts(Split(SHARES, 0, group="patient"))
    assert (parts != _parts(Split(SHARES, 1, group="patient"))).any()
    order = random.permutation(ROWS)
    shuffled = {name: column[order] for name, column in TABLE.items()}
    np.testing.assert_array_equal(_parts(Split(SHARES, 0, group="patient"), shuffled), parts[order])
    as_text = TABLE | {"patient": TABLE["patient"].astype(str)}
    np.testing.assert_array_equal(_parts(Split(SHARES, 0, group="patient"), as_text), parts)


def test_rows_without_a_group_are_one_group() -> None:
    known = random.uniform(size=ROWS) > 0.05
    table = TABLE | {"patient": [str(p) if k else None for p, k in zip(TABLE["patient"], known)]}
    assert len(np.unique(_parts(Split(SHARES, group="patient"), table)[~known])) == 1


@pytest.mark.parametrize("time", ["day", "x"])
def test_the_latest_rows_are_for_the_test_and_those_before_for_validation(time: str) -> None:
    parts, times = _parts(Split(SHARES, time=time)), TABLE[time]
    assert times[parts == TRAIN].max() < times[parts == VALIDATION].min()
    assert times[parts == VALIDATION].max() < times[parts == TEST].min()
    for part, share in enumerate(SHARES):
        assert np.mean(parts == part) == pytest.approx(share, abs=0.01)


def test_without_a_test_share_the_latest_rows_are_for_validation() -> None:
    parts = _parts(Split((0.8, 0.2, 0.0), time="day"))
    assert DAYS[parts == TRAIN].max() < DAYS[parts == VALIDATION].min()
    assert np.mean(parts == VALIDATION) == pytest.approx(0.2, abs=0.01)
    assert not (parts == TEST).any()


def test_equal_times_are_in_the_same_part() -> None:
    table = TABLE | {"day": DAYS // 300}
    parts = _parts(Split(SHARES, time="day"), table)
    for day in np.unique(table["day"]):
        assert len(np.unique(parts[table["day"] == day])) == 1


def test_folds_by_time_are_trained_on_the_rows_before_them() -> None:
    tested = []
    for k in range(4):
        parts = _parts(Split(SHARES, time="day", fold=(k, 4)))
        assert DAYS[parts == TRAIN].max() < DAYS[parts == VALIDATION].min()
        assert DAYS[parts == VALIDATION].max() < DAYS[parts == TEST].min()
        later = parts == -1
        assert not later.any() or DAYS[parts == TEST].max() < DAYS[later].min()
        tested.append(parts == TEST)
        assert np.mean(parts == TEST) == pytest.approx(0.2, abs=0.02)
    assert np.sum(tested, axis=0).max() == 1
    assert np.mean(np.sum(tested, axis=0)) == pytest.approx(0.8, abs=0.02)


def test_each_row_is_tested_in_one_fold_and_classes_have_the_same_share_in_all() -> None:
    folds = [_parts(Split(SHARES, fold=(k, 5))) for k in range(5)]
    assert np.sum([parts == TEST for parts in folds], axis=0).tolist() == [1] * ROWS
    for parts in folds:
        assert (parts == TEST).sum() == ROWS / 5
        assert abs(np.sum(TABLE["y"][parts == TEST] == "a") - np.sum(TABLE["y"] == "a") / 5) < 1
        assert np.mean(parts == VALIDATION) == pytest.approx(0.8 * 0.2 / 0.9, abs=0.05)


@pytest.mark.parametrize("options", [{"group": "patient"}, {"time": "day"}, {"fold": (1, 3)}])
def test_the_size_of_batches_changes_no_part(options: dict[str, Any]) -> None:
    whole, parts = (_parts(Split(SHARES, **options), _in_batches(rows)) for rows in (ROWS, 37))
    np.testing.assert_array_equal(whole, parts)


def test_the_groups_are_no_input_and_the_time_is_one_unless_it_is_ignored() -> None:
    by_group = TableModel.train(TABLE, "y", preset="fast", epochs=1, group="patient")
    assert [c.name for c in by_group.preprocessor.columns] == ["x", "day"]
    assert "rows are split by it" in by_group.results["left_out"]["patient"]
    by_time = TableModel.train(TABLE, "y", preset="fast", epochs=1, time="day", ignore=["day"])
    assert [c.name for c in by_time.preprocessor.columns] == ["x", "patient"]


def test_a_random_split_of_rows_with_dates_is_reported() -> None:
    assert "split by time" in TableModel.train(TABLE, "y", preset="fast", epochs=1).results["doubtful"]["day"]
    assert "day" not in TableModel.train(TABLE, "y", preset="fast", epochs=1, time="day").results["doubtful"]


@pytest.mark.parametrize(
    ("options", "table", "error", "message"),
    [
        ({"group": "patient", "time": "day"}, TABLE, ValueError, "mutually exclusive"),
        ({"group": "nobody"}, TABLE, TableError, "lacks the column 'nobody'"),
        ({"group": "y"}, TABLE, TableError, "cannot be split by the target"),
        ({"time": "y"}, TABLE | {"y": TABLE["x"]}, TableError, "cannot be split by the target"),
        ({"group": "patient"}, TABLE | {"patient": TABLE["patient"] % 2}, TableError, "2 groups: expected at least 3"),
        ({"group": "patient", "fold": (0, 50)}, TABLE, TableError, "40 groups: expected at least 50"),
        ({"time": "word"}, TABLE | {"word": TABLE["y"]}, TableError, "neither numbers nor dates"),
        ({"time": "x"}, TABLE | {"x": [None, *TABLE["x"][1:]]}, TableError, "1 cells of 'x' are missing"),
        ({"time": "x"}, TABLE | {"x": np.arange(ROWS) % 2}, TableError, "no rows for validation"),
        ({"fold": (3, 3)}, TABLE, ValueError, "expected fold"),
        ({"fold": (0, 1000)}, TABLE, TableError, "600 rows with 'y'"),
    ],
)
def test_what_cannot_be_split_is_an_error(options: Any, table: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        TableModel.train(table, "y", preset="fast", epochs=1, **options)


def test_cross_validation_has_the_metrics_of_the_models_of_all_folds() -> None:
    settings: dict[str, Any] = {"preset": "fast", "epochs": 3, "seed": 5, "group": "patient"}
    found = TableModel.cross_validate(TABLE, "y", folds=3, **settings)
    models = [TableModel.train(TABLE, "y", fold=(k, 3), **settings) for k in range(3)]
    for kind in ("metrics", "linear", "baseline"):
        for name, summary in found[kind].items():
            values = [model.results[kind][name] for model in models]
            assert summary["folds"] == values
            assert summary["mean"] == pytest.approx(np.mean(values))
            assert summary["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert sum(model.results["rows"]["test"] for model in models) == ROWS


@pytest.mark.parametrize(("options", "error"), [({"folds": 1}, ValueError), ({"test_share": 0.2}, TypeError)])
def test_cross_validation_has_at_least_two_folds_and_no_test_share(options: Any, error: Any) -> None:
    with pytest.raises(error):
        TableModel.cross_validate(TABLE, "y", **options)


def test_a_group_of_most_rows_is_trained_on() -> None:
    table = TABLE | {"patient": np.where(np.arange(ROWS) < ROWS * 0.8, -1, np.arange(ROWS))}
    for seed in range(6):
        parts = _parts(Split(SHARES, seed, group="patient"), table)
        assert (parts[: int(ROWS * 0.8)] == TRAIN).all()
        assert np.mean(parts == TEST) == pytest.approx(0.1, abs=0.01)


def test_groups_that_leave_a_part_without_rows_are_an_error() -> None:
    table = TABLE | {"patient": np.minimum(np.arange(ROWS), 2)}
    with pytest.raises(TableError, match="column 'patient' would leave no rows for validation"):
        TableModel.train(table, "y", preset="fast", epochs=1, group="patient", fold=(1, 2))


@pytest.mark.parametrize(
    "options", [{"group": "patient"}, {"time": "day"}, {"fold": (1, 3)}, {"time": "day", "fold": (2, 3)}]
)
def test_rows_without_a_target_are_of_no_part_and_shares_are_those_of_the_others(options: dict[str, Any]) -> None:
    future = np.quantile(DAYS, 0.8) <= DAYS
    table = TABLE | {"y": [None if unknown else y for unknown, y in zip(future, TABLE["y"])]}
    parts = _parts(Split(SHARES, **options), table)
    assert (parts[future] == -1).all()
    wanted = 1 / 3 if options == {"fold": (1, 3)} else 1 / 4 if "fold" in options else 0.1
    assert np.mean(parts[~future] == TEST) == pytest.approx(wanted, abs=0.05)


def test_as_many_groups_as_rows_are_split() -> None:
    groups = np.arange(300_000)
    table = {"x": random.normal(size=len(groups)), "g": groups, "y": random.normal(size=len(groups))}
    split = Split(SHARES, group="g", fold=None)
    parts = fit_preprocessor(open_table(table), "y", split=split).assignment.of(0, len(groups))
    assert np.mean(parts == TEST) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("fold", [(0, 0), (0.5, 3), (-1, 3)])
def test_folds_are_integers(fold: Any) -> None:
    with pytest.raises(ValueError, match="expected fold"):
        TableModel.train(TABLE, "y", preset="fast", epochs=1, fold=fold)


@pytest.mark.parametrize("options", [{"group": "patient"}, {"time": "day"}, {"fold": (1, 3)}])
def test_a_target_without_any_cell_is_an_error_of_its_own(options: Any) -> None:
    with pytest.raises(TableError, match="there is nothing to learn from"):
        TableModel.train(TABLE | {"y": pa.nulls(ROWS, pa.float64())}, "y", preset="fast", epochs=1, **options)
