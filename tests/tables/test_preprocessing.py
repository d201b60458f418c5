"""Preprocessing: targets, tasks and the split of the rows."""

from __future__ import annotations

from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from portablenn.tables.preprocessing import fit_preprocessor  # noqa: E402
from portablenn.tables.readers import open_table  # noqa: E402


def test_classes_are_in_natural_order() -> None:
    table = {"x": list(range(120)), "y": [f"class {i % 12}" for i in range(120)]}
    assert fit_preprocessor(open_table(table), "y").preprocessor.target.classes == tuple(
        f"class {i}" for i in range(12)
    )


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
