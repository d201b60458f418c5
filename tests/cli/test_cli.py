"""The command line: demos, mistakes, the version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import portablenn as pnn

DEMOS = {
    "perceptron": ("9.67299303 -0.2078435  -4.62963669", ["perceptron.png"]),
    "three-layers": ("Error before step  50000: 0.0035101226", ["three_layers.png"]),
    "first-network": ("Prediction for [2.0, 1.5]: 0.8710191", ["first_network.png"]),
    "threshold-neuron": ("AND [0. 0. 0. 1.]", ["threshold_neuron.png"]),
    "xor": ("3-bit parity, one hidden layer  [0 1 1 0 1 0 0 1], 100% accuracy", ["xor.png"]),
}


def _command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "portablenn", *arguments]
    clean = {k: v for k, v in os.environ.items() if k != "PORTABLENN_DATA"}
    figures = {"MPLBACKEND": "Agg", "PORTABLENN_BACKEND": "numpy"}  # where results are compared to every digit
    return subprocess.run(command, capture_output=True, text=True, env={**clean, **figures, **environment})


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_prints_its_results_and_saves_its_picture(name: str, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("matplotlib")
    run = _command("demo", name, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    says, pictures = DEMOS[name]
    assert says in run.stdout
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_demo_digits_reads_digits(activation: str, tmp_path: Path) -> None:
    for package in ("typer", "matplotlib", "sklearn", "rich"):
        pytest.importorskip(package)
    run = _command("demo", "digits", "--epochs", "25", "--activation", activation, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert "no folder of MNIST files was given" in run.stdout
    assert "backend: numpy, device: cpu" in run.stdout
    assert "val_accuracy" in run.stdout
    assert "confusion matrix" in run.stdout
    assert float(run.stdout.partition("test accuracy ")[2][:6]) > 0.9
    for picture in ("digits_weights.png", "digits_predicted.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "nothing"], "nothing"),
        (["demo", "digits", "--data", "/no/such/folder"], "portablenn: "),
        (["demo", "digits", "--activation", "swish"], "swish"),
        (["demo", "digits", "--backend", "no_such"], "cannot be imported"),
        (["demo", "xor", "--epochs", "3"], "--epochs applies only to the demo digits"),
    ],
)
def test_an_invalid_command_line_is_one_message_and_a_status(arguments: list[str], says: str, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    run = _command(*arguments, "--out", str(tmp_path))
    assert run.returncode != 0
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_the_version_is_printed() -> None:
    pytest.importorskip("typer")
    assert _command("--version").stdout.strip() == f"portablenn {pnn.__version__}"
