"""The README's Python runs as it stands, and what README and docs/ name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROMISES = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
OF_PAGES = [
    block
    for page in ("ensembles.md", "tables.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
]


@pytest.mark.parametrize("block", [*BLOCKS, *OF_PAGES])
@pytest.mark.filterwarnings("ignore::UserWarning")  # that a training has not converged
def test_a_block_of_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "Table" in block:
        pytest.importorskip("pyarrow")
    exec(compile(block, "a block of README.md or of a page", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_readme_has_its_blocks_and_its_two_commands_in_120_lines() -> None:
    assert len(BLOCKS) == 3
    assert 'pip install ".[full]" && portablenn demo digits\n' in README
    assert 'pip install -e ".[test]" && pytest\n' in README
    assert len(README.splitlines()) <= 120


def test_every_promise_names_tests_that_are_there() -> None:
    lines = [
        line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| promise"))
    ]
    assert len(lines) > 25
    for line in lines:
        named = re.findall(r"tests/[\w/]*test_\w+\.py", line)
        assert named, line
        for name in named:
            assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_of_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["architecture.md", "backends.md", "promises.md"])
def test_every_module_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert named
    for name in named:
        folders = [ROOT, ROOT / "portablenn", *(path for path in (ROOT / "portablenn").iterdir() if path.is_dir())]
        assert any((folder / name).is_file() for folder in folders), name
