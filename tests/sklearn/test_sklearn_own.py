"""scikit-learn's own tests of its perceptrons, run from the installed package on portablenn's classes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", minversion="1.9")

HERE = Path(__file__).resolve().parents[1] / "helpers"


@pytest.mark.parametrize(
    ("module", "least"),
    [("sklearn.neural_network.tests.test_mlp", 53), ("sklearn.linear_model.tests.test_perceptron", 6)],
)
def test_scikit_learns_own_tests_pass_with_portablenns_classes(module: str, least: int, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "sklearn_replaced", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
        "-c", os.devnull, "--pyargs", module,
    ]  # fmt: skip
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
