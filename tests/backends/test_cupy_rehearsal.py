"""What runs whenever there is a GPU, benchmarks/on_gpu.sh, on the stand-in for CuPy and with parts that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("portablenn_cupy")
pytest.importorskip("typer")

import host_cuda

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(
    host_cuda.COMPILER is None or os.name != "posix", reason="needs bash and a C++ compiler"
)


def rehearse(folder: Path, *parts: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(BENCHMARKS / "rehearse.sh"), str(folder), *parts]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PORTABLENN_")}
    given = inherited | {"PYTHON": sys.executable} | environment
    return subprocess.run(command, capture_output=True, text=True, env=given)


@pytest.mark.slow
def test_parts_that_crash_hang_or_leave_processes_behind_cost_only_themselves(tmp_path: Path) -> None:
    parts = ("smoke", "kernels", "verify", "versions")
    faults = "smoke=crash:60 kernels=hang:5 verify=orphan:5"
    run = rehearse(tmp_path, *parts, FAULTS=faults, ON_GPU_LIMIT="25")
    found = {one["part"]: one for one in map(json.loads, (tmp_path / "parts.jsonl").read_text().splitlines())}
    assert {name: found[name]["outcome"] for name in parts} == {
        "smoke": "crashed by signal 11",
        "kernels": "interrupted at its limit",
        "verify": "interrupted at its limit",
        "versions": "passed",
    }, run.stdout + run.stderr
    assert all(one["seconds"] < 40 for one in found.values())  # although a process that is left has the output open
    for name in ("smoke", "kernels", "verify"):
        assert "most recent call first" in (tmp_path / f"{name}.txt").read_text()  # where it was
    assert json.loads((tmp_path / "smoke.json").read_text())["product"]["passed"]  # what came before the crash
    assert run.returncode == 1
    assert run.stdout.startswith("This is a rehearsal: no GPU was involved")
    assert len(run.stdout.partition("== summary\n")[2].splitlines()) == len(parts)


def test_an_unknown_part_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    run = rehearse(tmp_path / "out", "smoke", "nonsense")
    assert run.returncode == 2
    assert "unknown part nonsense; expected some of: versions smoke" in run.stderr
    assert not (tmp_path / "out").exists()
