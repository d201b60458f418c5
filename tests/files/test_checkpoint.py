"""Checkpoints: descriptions of objects, and validation of what is read."""

from __future__ import annotations

import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.files import checkpoint
from portablenn.files.checkpoint import Snapshot, describe
from portablenn.files.safetensors_file import FileFormatError


def _module(folder: Path, text: str) -> types.ModuleType:
    path = folder / f"m{abs(hash(text))}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("somewhere", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _other_bytecode(function: Any) -> Any:
    """The same function, as another version of Python would compile it."""
    code = function.__code__
    other = types.FunctionType(code.replace(co_code=code.co_code + b"\x09\x00", co_names=(*code.co_names, "more")), {})
    other.__module__, other.__qualname__ = function.__module__, function.__qualname__
    return other


def test_a_function_is_the_same_in_another_version_of_python(tmp_path: Path) -> None:
    module = _module(tmp_path, "def loss(p, t):\n    return (p - t) ** 2\n")
    assert describe(_other_bytecode(module.loss)) == describe(module.loss)
    assert describe(module.loss) == {"kind": "somewhere.loss", "source": "def loss(p, t): return (p - t) ** 2"}


def test_a_function_with_another_source_is_another(tmp_path: Path) -> None:
    square, cube = (_module(tmp_path, f"def loss(p, t):\n    return (p - t) ** {n}\n").loss for n in (2, 3))
    assert describe(square) != describe(cube)


def test_a_lambda_is_the_same_when_the_line_around_it_changes(tmp_path: Path) -> None:
    text = "def train(loss, epochs):\n    return loss\n\nnet = train(lambda p, t: (p - t) ** {}, epochs={})\n"
    three, six, other = (_module(tmp_path, text.format(*n)).net for n in ((2, 3), (2, 6), (4, 3)))
    assert describe(three) == describe(six)
    assert describe(three) != describe(other)


def test_a_function_without_source_is_its_name_and_its_code() -> None:
    namespace: dict[str, Any] = {"__name__": "console"}
    exec("def loss(p, t):\n    return p - t", namespace)
    facts = describe(namespace["loss"])
    assert facts.keys() == {"kind", "source", "code"}
    assert (facts["kind"], facts["source"]) == ("console.loss", None)
    exec("def loss(p, t):\n    return p + t", namespace)
    assert describe(namespace["loss"])["code"] != facts["code"]


CALLS, LOG, NAN = 0, [1], float("nan")


def _reads_all_kinds_of_things(p: Any, t: Any, dtype: Any = np.float32, table: Any = ({len: 1, "b": 2.0}, b"c")) -> Any:
    global CALLS
    CALLS += 1
    LOG.append(CALLS)
    return pnn.array_namespace(p).mean(p - t) * NAN * ONE * np.ndarray.__len__(p) + _reads_all_kinds_of_things(p, t)


ONE, ENDLESS = np.complex64(1), [np.datetime64("2020-01-01")]
ENDLESS.append(ENDLESS)  # type: ignore[arg-type]


def test_what_a_function_reads_is_described_as_json_and_not_changed_by_a_call() -> None:
    endless = ENDLESS
    functions = [
        _reads_all_kinds_of_things,
        lambda p, t: p * endless[0] + pnn.mlp,
        lambda p: np.asarray([None, p], dtype=object),
    ]
    before = json.dumps(list(map(describe, functions)), allow_nan=False)
    with pytest.raises(Exception):  # noqa: B017, PT011  # it is called to change what it reads
        functions[0](np.ones(2), np.ones(2))
    assert CALLS > 0
    assert json.dumps(list(map(describe, functions)), allow_nan=False) == before


def test_a_function_of_a_library_is_its_name() -> None:
    assert describe(pnn.activations.relu) == {"kind": "portablenn.nn.activations.relu"}


FACTS: dict[str, Any] = {
    "about": {}, "callbacks": [], "done": 0, "ended": "", "epoch": 1, "epochs": 2, "evaluations": 0, "history": {},
    "interrupted": False, "labels": [0, 1], "multilabel": False, "optimizer": {}, "search": None, "steps": 3, "versions": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("interrupted", "yes"), ("multilabel", 1), ("steps", -1), ("epoch", True), ("callbacks", [["Stop"]])],
)
def test_a_checkpoint_with_an_invalid_value_raises(name: str, value: Any, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = checkpoint.write(tmp_path, 3, Snapshot(FACTS, {}), keep=1)
    assert checkpoint.read(path) == Snapshot(FACTS, {})
    path = checkpoint.write(tmp_path, 3, Snapshot(FACTS | {name: value}, {}), keep=1)
    with pytest.raises(FileFormatError, match=f"invalid {name}"):
        checkpoint.read(path)
