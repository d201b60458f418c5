"""Rows on disk: each part holds its rows, and its blocks together are all of them."""

from __future__ import annotations

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")

from portablenn.tables import open_table  # noqa: E402
from portablenn.tables.columns import NumericColumn  # noqa: E402
from portablenn.tables.parts import PARTS, SHARES, Assignment, Split, assign_parts  # noqa: E402
from portablenn.tables.preprocessing import Preprocessor, fit_preprocessor  # noqa: E402
from portablenn.tables.spill import EncodedPart, SpilledRows, encode_parts  # noqa: E402
from portablenn.tables.target import Target  # noqa: E402

ROWS = 500
TABLE = {
    "x": np.arange(ROWS, dtype=float),
    "c": ["ab"[i % 2] for i in range(ROWS)],
    "y": [None if i % 50 == 7 else i / 2 for i in range(ROWS)],
}


@pytest.mark.parametrize("batch_rows", [1 << 16, 100])
def test_each_part_holds_its_rows_in_order(batch_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.readers.BATCH_ROWS", batch_rows)
    table, part = open_table(TABLE), assign_parts(0, ROWS, SHARES, 3)
    present = np.asarray([y is not None for y in TABLE["y"]])
    fitted = fit_preprocessor(table, "y", split=Split(seed=3))
    x, _ = fitted.preprocessor.columns
    with encode_parts(table, fitted.preprocessor, Assignment(SHARES, 3)) as parts:
        for index, name in enumerate(PARTS):
            rows = np.flatnonzero((part == index) & present)
            inputs, targets, _ = parts[name].arrays()
            assert fitted.rows[name] == len(rows)
            np.testing.assert_allclose(inputs[:, 0] * x.scale + x.center, rows, atol=1e-3)
            np.testing.assert_array_equal(inputs[:, 1], rows % 2 == 0)
            np.testing.assert_allclose(fitted.preprocessor.target.decode(targets), rows / 2, atol=1e-3)
    with pytest.raises(ValueError, match="closed"):
        parts["train"].read(0)


def test_stored_rows_are_float32_whatever_they_were() -> None:
    rows = SpilledRows(2)
    with rows.file:
        rows.append(np.asarray([[1, 2], [3, 4]]))
        rows.append(np.asarray([[5.5, 6.5]])[:, ::-1])
        assert len(rows) == 3
        np.testing.assert_array_equal(rows[:], np.float32([[1, 2], [3, 4], [6.5, 5.5]]), strict=True)
        np.testing.assert_array_equal(rows[1:3], np.float32([[3, 4], [6.5, 5.5]]), strict=True)


@pytest.mark.parametrize("size", [1, 30, 1 << 18])
def test_blocks_together_are_all_rows(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portablenn.tables.spill.BLOCK_SIZE", size)
    table = open_table(TABLE)
    with encode_parts(table, fit_preprocessor(table, "y").preprocessor, Assignment()) as parts:
        train = parts["train"]
        assert train.columns == 3
        assert sum(train.sizes) == len(train.targets)
        assert max(train.sizes) <= max(1, size // 3)
        blocks = [train.read(i) for i in range(len(train.sizes))]
        assert tuple(len(inputs) for inputs, _, _ in blocks) == train.sizes
        np.testing.assert_array_equal(np.concatenate([inputs for inputs, _, _ in blocks]), train.arrays()[0])
        np.testing.assert_array_equal(np.concatenate([targets for _, targets, _ in blocks]), train.arrays()[1])


def test_a_sample_is_spread_over_the_part() -> None:
    preprocessor = Preprocessor((NumericColumn("x", 0.0, 1.0, False),), Target("y", None))
    cells, targets = np.arange(1000, dtype=np.float32)[:, None], np.arange(1000)
    part = EncodedPart(preprocessor, cells, targets)
    for rows in (1, 7, 100, 640, 999):
        found, found_targets = part.sample(rows)
        assert len(found) <= rows
        np.testing.assert_array_equal(found[:, 0], found_targets)
        assert len(np.unique(found)) == len(found)
    assert part.sample(640)[1].max() > 980
    assert len(part.sample(1000)[1]) == 1000
