"""``portablenn verify``: a table of results, and exit status 1 where a check fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plugins import THIRD_PARTY, installed

import portablenn as pnn
from portablenn.testing import TOLERANCES
from portablenn.testing import verify as verifying
from portablenn.testing.verify import verify

pytest.importorskip("array_api_strict")

WRONG = '''
"""A plug-in that saves time: it keeps sixteen bits of what training hands on."""

from portablenn.runtime.backend import Backend


class HastyBackend(Backend):
    guarded = False

    def compile_loop(self, program, carried):
        loop = super().compile_loop(program, carried)

        def hasty(count, *arrays):
            theta, *rest = loop(count, *arrays)
            return (theta * (1.0 + 2.0**-14), *rest)

        hasty.how = "hastily"
        return hasty
'''


def _verify(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "portablenn", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "SECONDS", 0.01)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict:device1"])
def test_a_correct_backend_passes_every_check(name: str) -> None:
    (found,) = verify([name])
    assert (found.passed, found.reason, found.seeds) == (True, "", True)
    for steps, deviations in ((1, found.deviation_one), (20, found.deviation_twenty)):
        assert list(deviations) == ["float32", "float64"]
        for dtype, deviation in deviations.items():
            assert deviation is not None
            assert deviation <= TOLERANCES[dtype, steps]
    assert found.small is not None
    assert found.large is not None
    assert min(found.small, found.large) > 0.0


@pytest.mark.asks_what_is_installed
def test_by_default_every_usable_backend_is_verified_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        pnn.BackendInfo("array_api_strict", True, "", ("device1", "device9"), "", "", None),
        pnn.BackendInfo("no_such_library", False, "not there", (), "", "", None),
    ]
    monkeypatch.setattr(verifying, "backends", lambda: infos)
    first, second = verify()
    assert (first.backend, first.device, first.passed) == ("array_api_strict", "device1", True)
    assert (second.backend, second.device, second.passed) == ("array_api_strict", "device9", False)
    assert "cannot be used" in second.reason


def test_a_library_without_float64_is_verified_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(pnn.Backend):
        def asarray(self, x: Any, dtype: str | None = None) -> Any:
            if dtype == "float64":
                raise pnn.BackendError("no float64")
            return super().asarray(x, dtype)

    strict = pnn.get_backend("array_api_strict")
    (found,) = verify([Narrow(strict.name, strict.xp)])
    assert (found.passed, found.reason) == (True, "")
    assert list(found.deviation_one) == ["float32"]


def test_a_third_partys_plug_in_is_verified(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    environment = installed(tmp_path, THIRD_PARTY, "third_party:CountingBackend")
    run = _verify("array_api_strict", "array_api_strict:device1", "--json", **environment)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert [(one["device"], one["executes"], one["passed"], one["seeds"]) for one in found] == [
        ("CPU_DEVICE", "interpreter", True, True),
        ("device1", "interpreter", True, True),
    ]


def test_a_third_party_tests_its_plug_in_with_one_line(tmp_path: Path) -> None:
    environment = installed(tmp_path, THIRD_PARTY, "third_party:CountingBackend")
    names = '"array_api_strict:device1", "no_such_library"'
    test = f"from portablenn.testing import conformance_tests\ntest_it = conformance_tests({names})\n"
    (tmp_path / "test_third_party.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stdout
    assert "No module named 'no_such_library'" in run.stdout
    environment["PORTABLENN_REQUIRE"] = "cupy,no_such_library"
    run = subprocess.run([*command, "-k", "errors"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 1, run.stdout
    assert "1 failed, 1 passed" in run.stdout
    assert "PORTABLENN_REQUIRE names it" in run.stdout


def test_a_failed_check_is_named_and_the_exit_status_is_1(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    environment = installed(tmp_path, WRONG, "third_party:HastyBackend")
    run = _verify("array_api_strict", **(environment | {"COLUMNS": "200"}))
    assert run.returncode == 1, run.stderr
    assert "hastily" in run.stdout
    assert "failed: array_api_strict on CPU_DEVICE: after step 1 in float32 parameters deviate by" in run.stdout
    assert "Traceback" not in run.stderr


def test_an_unknown_backend_name_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    run = _verify("numpy", "no_such_library")
    assert run.returncode == 1
    assert "backend 'no_such_library' cannot be imported" in run.stderr


@pytest.mark.asks_what_is_installed
def test_the_table_is_shown() -> None:
    pytest.importorskip("typer")
    run = _verify("numpy", COLUMNS="100")
    assert run.returncode == 0, run.stderr
    assert "numpy:cpu" in run.stdout
    assert "passed" in run.stdout
    assert "tolerance" in run.stdout
