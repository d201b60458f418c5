"""Thousands of mutated files; ``tests/helpers/fuzz.py`` runs millions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow


@pytest.mark.skipif(not os.path.isfile("/proc/self/statm"), reason="measures its memory in Linux's way")
@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_files_are_read_or_rejected(seed: int) -> None:
    count = os.environ.get("PORTABLENN_FUZZ", "6000")
    command = [
        sys.executable,
        str(Path(__file__).resolve().parents[1] / "helpers" / "fuzz.py"),
        count,
        "--seed",
        str(seed),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    kinds = {kind: found for kind, found in told.items() if isinstance(found, dict) and kind != "broken"}
    assert len(kinds) >= 12
    for kind, found in kinds.items():
        assert found["refused"] > 10, kind
        assert found["read"] > 0, kind
