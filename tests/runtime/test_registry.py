"""Plug-ins: found where they are installed, used, and harmless where they are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugins import THIRD_PARTY, installed

import portablenn as pnn
from portablenn.runtime import registry as choosing

pytest.importorskip("array_api_strict")


def _run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_an_installed_plug_in_is_found_used_and_listed(tmp_path: Path) -> None:
    environment = installed(tmp_path, THIRD_PARTY, "third_party:CountingBackend")
    code = (
        "import numpy as np, portablenn as pnn\n"
        "net = pnn.mlp([2, 3, 2], loss='softmax_cross_entropy', backend='array_api_strict:device1')\n"
        "net.fit(np.eye(2), [0, 1], epochs=2); net.predict(np.eye(2))\n"
        "import third_party; print(type(net.backend).__name__, third_party.compiled)\n"
        "print([i.devices for i in pnn.backends() if i.name == 'array_api_strict'])\n"
    )
    run = _run(code, environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "CountingBackend ['training_step', 'predict_labels']",
        "[('CPU_DEVICE', 'device1', 'device2')]",
    ]


@pytest.mark.parametrize(
    ("module", "entry", "reason"),
    [
        ("raise ImportError('no CUDA driver')", "third_party:Anything", "ImportError: no CUDA driver"),
        ("x = 1", "third_party:Missing", "AttributeError"),
        ("class NoBackend: pass", "third_party:NoBackend", "to be a subclass of portablenn.Backend"),
        ("import sys; sys.exit", "no_such_module:Backend", "ModuleNotFoundError"),
    ],
)
def test_a_broken_plug_in_is_a_line_with_its_reason(module: str, entry: str, reason: str, tmp_path: Path) -> None:
    environment = installed(tmp_path, module, entry)
    code = (
        "import warnings, numpy as np, array_api_strict as strict, portablenn as pnn\n"
        "info = [i for i in pnn.backends() if i.name == 'array_api_strict'][0]; print(info.usable, '|', info.reason)\n"
        "try:\n    pnn.get_backend('array_api_strict')\n"
        "except pnn.BackendError as error:\n    print('by name |', error)\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    print(pnn.grad(lambda x: x * x)(strict.asarray(3.0)), '|', told[0].message)\n"
    )
    run = _run(code, environment)
    assert run.returncode == 0, run.stderr
    listed, named, used = run.stdout.splitlines()
    assert listed.startswith("False |")
    assert named.startswith("by name |")
    assert used.startswith("Array(6., dtype=array_api_strict.float64) |")
    assert "the interpreter runs instead" in used
    for line in (listed, named, used):
        assert reason in line


@pytest.mark.asks_what_is_installed
def test_an_error_lists_the_backends_and_how_to_install_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "plugins", lambda: {"no_library": None, "other": None})
    monkeypatch.setattr(choosing, "_install", lambda library: f"pip install the-plug-in-of-{library}")
    with pytest.raises(
        pnn.BackendError,
        match=r"Install that library \(pip install the-plug-in-of-no_library\), or choose one of 'numpy', 'other'$",
    ):
        choosing._by_name("no_library")
    with pytest.raises(
        pnn.BackendError, match="Install that library, or choose one of 'numpy', 'no_library', 'other'$"
    ):
        choosing._by_name("nor_this")


@pytest.mark.asks_what_is_installed
def test_looking_for_plug_ins_imports_none(tmp_path: Path) -> None:
    environment = installed(tmp_path, "raise SystemExit('imported')", "third_party:Backend")
    code = "import sys, portablenn.runtime.registry as c; print(list(c.plugins())); print('third_party' in sys.modules)"
    names, imported = _run(code, environment).stdout.splitlines()
    assert "array_api_strict" in names
    assert imported == "False"


@pytest.mark.asks_what_is_installed
def test_backends_lists_numpy_first() -> None:
    first, *rest = pnn.backends()
    assert (first.name, first.usable, first.executes, first.devices) == ("numpy", True, "plan", ("cpu",))
    assert [info.name for info in rest] == sorted(info.name for info in rest)


def test_a_function_that_is_no_extension_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"functions of Misspelt has 'index_ad', which is none of .*index_add"):

        class Misspelt(pnn.Backend):
            functions = {"index_ad": lambda xp, x: x}  # noqa: RUF012


def test_two_backends_for_the_same_arrays_share_no_programs() -> None:
    plain, other = (
        pnn.get_backend("array_api_strict"),
        _Accelerated("array_api_strict", pnn.get_backend("array_api_strict").xp),
    )
    assert plain == pnn.get_backend("array_api_strict")
    assert plain != other
    for backend in (plain, other):
        pnn.mlp([2, 1], backend=backend).fit(np.ones((3, 2)), np.ones(3))
    assert pnn.program_cache.info().hits == 0


class _Accelerated(pnn.Backend):
    device_asked: Any = None

    @classmethod
    def accelerator(cls) -> str | None:
        return cls.device_asked


@pytest.mark.parametrize(
    ("present", "device", "expected"),
    [(True, "device1", "array_api_strict on device1"), (True, None, "numpy"), (False, "device1", "numpy")],
)
def test_auto_takes_an_accelerator_where_there_is_one(
    present: bool, device: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTABLENN_BACKEND", raising=False)
    monkeypatch.setattr(choosing, "_accelerator_present", lambda: present)
    monkeypatch.setattr(choosing, "plugins", lambda: {"array_api_strict": None})
    monkeypatch.setattr(choosing, "plugin", lambda library: _Accelerated)
    monkeypatch.setattr(_Accelerated, "device_asked", device)
    assert str(pnn.get_backend("auto")) == expected
    assert pnn.explain_auto().startswith(f"auto is {expected}: ")


@pytest.mark.asks_what_is_installed
def test_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(_Accelerated):
        @classmethod
        def accelerator(cls) -> str | None:
            raise RuntimeError("the driver is too old\nand more")

    monkeypatch.delenv("PORTABLENN_BACKEND", raising=False)
    monkeypatch.setattr(choosing, "_accelerator_present", lambda: False)
    assert pnn.explain_auto() == "auto is numpy: this machine has no GPU"
    monkeypatch.setattr(choosing, "_accelerator_present", lambda: True)
    kinds = {"array_api_strict": _Accelerated, "other": Broken}
    monkeypatch.setattr(choosing, "plugins", dict)
    assert pnn.explain_auto() == "auto is numpy: no usable accelerator (no plug-in is installed)"
    monkeypatch.setattr(choosing, "plugins", lambda: dict.fromkeys(kinds))
    monkeypatch.setattr(choosing, "plugin", kinds.__getitem__)
    assert pnn.explain_auto() == (
        "auto is numpy: no usable accelerator (array_api_strict: only the CPU; other: the driver is too old)"
    )
    assert pnn.get_backend("auto") is pnn.get_backend("numpy")
    monkeypatch.setattr(_Accelerated, "device_asked", "device1")
    assert pnn.explain_auto() == "auto is array_api_strict on device1: the first usable accelerator"
    monkeypatch.setenv("PORTABLENN_BACKEND", "numpy")
    assert pnn.explain_auto() == "auto is numpy: set by the environment variable PORTABLENN_BACKEND"


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("import no_such_library", "pip install third-party"),
        (
            "from portablenn.runtime.backend import Backend\nclass Anything(Backend):\n    install = 'see our page'\n"
            "    def __init__(self, *facts):\n        raise RuntimeError('no driver')",
            "see our page",
        ),
    ],
)
def test_an_unusable_backend_says_how_to_install_it(module: str, install: str, tmp_path: Path) -> None:
    environment = installed(tmp_path, module, "third_party:Anything")
    code = "import portablenn as pnn\nprint([i.install for i in pnn.backends() if i.name == 'array_api_strict'])"
    assert _run(code, environment).stdout == f"[{install!r}]\n"


@pytest.mark.asks_what_is_installed
def test_the_command_line_shows_the_table() -> None:
    pytest.importorskip("typer")
    command = [sys.executable, "-m", "portablenn", "backends"]
    table = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=True
    ).stdout
    assert "numpy" in table
    assert "auto is" in table
    listed = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert listed[0]["name"] == "numpy"


@pytest.mark.asks_what_is_installed
def test_one_model_gives_the_same_accuracy_everywhere() -> None:
    script = Path(__file__).resolve().parents[2] / "examples" / "one_model_every_backend.py"
    lines = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ran = [line for line in lines if "accuracy" in line]
    accuracies = [float(line.partition("accuracy ")[2][:6]) for line in ran]
    deviations = [float(line.partition("deviation ")[2].split()[0]) for line in ran]
    assert len(ran) >= 2
    assert max(accuracies) - min(accuracies) <= 0.005
    assert max(deviations) < 1e-2  # 200 steps in float32: the final metric is what is compared


def test_jax_compiles_with_the_options_that_its_compiler_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in = pytest.importorskip("portablenn_jax")
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    states = []
    for options in (plug_in.STEADY, {"xla_of_a_later_version": True}):
        monkeypatch.setattr(plug_in, "STEADY", options)
        plug_in.compiler_options.cache_clear()
        pnn.program_cache.clear()
        net = pnn.mlp([4, 8, 3], loss="softmax_cross_entropy", backend="jax:cpu", dtype="float64")
        net.fit(X, y, epochs=3, batch_size=16)
        assert net.fit(X, y, epochs=0) == {}
        states.append(net.backend.to_numpy(net.state.theta))
        assert plug_in.compiler_options("cpu") == (options if "later" not in str(options) else None)
    plug_in.compiler_options.cache_clear()
    assert plug_in.compiler_options("gpu") is None
    np.testing.assert_allclose(states[0], states[1], rtol=1e-12)


def test_the_plug_in_for_torch_keeps_no_gradients() -> None:
    pytest.importorskip("portablenn_torch")
    import torch

    x = torch.ones(3, requires_grad=True)
    assert not pnn.grad(lambda x: pnn.xp.sum(x * x))(x).requires_grad


@pytest.mark.parametrize("name", ["torch:bogus", "torch:cuda", "jax:bogus", "array_api_strict:device9"])
def test_a_device_that_does_not_exist_is_an_error(name: str) -> None:
    library = pytest.importorskip(name.partition(":")[0])
    if name == "torch:cuda" and library.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(pnn.BackendError, match=f"backend '{name}' cannot be used"):
        pnn.get_backend(name)


@pytest.mark.asks_what_is_installed
def test_devices_are_named_as_their_library_names_them() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    assert str(pnn.get_backend("jax:cpu")) == "jax on cpu:0"
    assert str(pnn.get_backend("array_api_strict:device1")) == "array_api_strict on device1"
    assert pnn.get_backend("torch:cpu") == pnn.get_backend("torch")
