"""The direction of imports, and the picture of them in docs/architecture.md."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "draw_imports.py"
spec = importlib.util.spec_from_file_location("draw_imports", SCRIPT)
assert spec is not None
assert spec.loader is not None
draw_imports = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_imports)
ROOMS, ARROWS = draw_imports.read_arrows()


def test_every_import_leads_downward() -> None:
    assert draw_imports.upward(ARROWS) == {}


def test_every_room_has_its_place_in_the_order() -> None:
    assert draw_imports.RANK.keys() == ROOMS


def test_only_what_stands_on_top_imports_the_public_names() -> None:
    """A lower room that imported `portablenn` itself would import everything."""
    assert {room for room, other in ARROWS if other == draw_imports.FACADE} <= {"cli", "benchmarks"}


def test_rooms_floors_and_arrows_stay_few() -> None:
    assert len(ROOMS) <= 22
    assert len(draw_imports.find_floors(ROOMS, ARROWS)) <= 11
    assert sum(draw_imports.FACADE not in pair for pair in ARROWS) <= 80


def test_the_committed_picture_and_table_are_what_the_script_draws() -> None:
    """Run `python docs/draw_imports.py` and commit what it writes."""
    text = draw_imports.PAGE.read_text(encoding="utf-8")
    assert draw_imports.PICTURE.read_text(encoding="utf-8") == draw_imports.draw(ROOMS, ARROWS)
    assert text == draw_imports.page(text, draw_imports.tabulate(ROOMS, ARROWS))


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import portablenn.nn.layers as layers", ["portablenn.nn.layers"]),
        ("from portablenn import nn, grad", ["portablenn.nn", "portablenn.grad"]),
        ("from ..nn import layers", ["portablenn.nn"]),
        ("from .. import random", ["portablenn.random"]),
        ("from . import loop", ["portablenn.training"]),
        ("def f():\n    from ..files.atomic import write", ["portablenn.files.atomic"]),
        ("if TYPE_CHECKING:\n    from ..plots import save", ["portablenn.plots"]),
    ],
)
def test_an_import_is_seen_wherever_and_however_it_is_written(
    source: str, modules: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw_imports, "ROOT", tmp_path)
    path = tmp_path / "portablenn" / "training" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert [module for module, _ in draw_imports.imported(path)] == modules


def test_an_upward_import_is_found_and_drawn_red() -> None:
    arrows = {("training", "nn"): ["a.py:1"], ("nn", "training"): ["b.py:2"]}
    assert draw_imports.upward(arrows) == {("nn", "training"): ["b.py:2"]}
    assert draw_imports.counts({"nn", "training"}, arrows) == "2 rooms, 2 floors, 2 arrows, 1 upward, 1 in a cycle."
    assert "url(#red)" in draw_imports.draw({"nn", "training"}, arrows)
