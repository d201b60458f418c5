"""Model files: what is written is read again, and an invalid file raises before anything is built from it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

pytest.importorskip("safetensors")
from safetensors.numpy import load_file, save_file

X = np.random.default_rng(0).normal(size=(40, 3)).astype("f4")
Y = (X[:, 0] > 0).astype(int)


def _network(backend: str = "numpy") -> pnn.Network:
    layers = [pnn.Dense(8, "relu"), pnn.BatchNorm(0.8), pnn.Dropout(0.1), pnn.Dense(2, use_bias=False)]
    rate = pnn.schedules.WarmUp(5, pnn.schedules.CosineDecay(0.01, 50))
    return pnn.Network(
        layers, 3, loss="softmax_cross_entropy", optimizer=pnn.Adam(rate, l2=0.01), seed=2**40, backend=backend
    )


def test_a_network_comes_back_whole_on_any_library(library: Any, tmp_path: Path) -> None:
    net = _network()
    net.fit(X, Y, epochs=3)
    net.save(tmp_path / "net.safetensors")
    back = pnn.load(tmp_path / "net.safetensors", backend=library.name)
    assert (back.layers, back.loss, back.optimizer, back.seed) == (net.layers, net.loss, net.optimizer, net.seed)
    assert (back.steps, back.epochs) == (net.steps, net.epochs)
    for ours, theirs in zip(
        (net.state.theta, *net.state.slots, net.state.statistics),
        (back.state.theta, *back.state.slots, back.state.statistics),
        strict=True,
    ):
        np.testing.assert_array_equal(library.numpy(theirs), ours)
    np.testing.assert_allclose(back.forward(X), net.forward(X), rtol=1e-5, atol=1e-6)


def test_training_continues_the_same_after_save_and_load(tmp_path: Path) -> None:
    whole, parts = _network(), _network()
    whole.fit(X, Y, epochs=5)
    parts.fit(X, Y, epochs=2)
    parts.save(tmp_path / "net.safetensors")
    parts = pnn.load(tmp_path / "net.safetensors", backend=whole.backend)
    parts.fit(X, Y, epochs=3)
    np.testing.assert_array_equal(parts.state.theta, whole.state.theta)


def test_a_file_holds_named_arrays_that_anyone_can_read(tmp_path: Path) -> None:
    net = _network()
    net.save(tmp_path / "net.safetensors")
    arrays = load_file(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(arrays["dense_1.kernel"], net.parameters["dense_1.kernel"])
    assert {"batch_norm_1.mean", "optimizer.squares"} < set(arrays)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: pnn.Network([pnn.Dense(2, lambda x: x)], 3),
            "activation of the layer Dense is a function.*by name",
        ),
        (lambda: pnn.mlp([3, 2], loss=lambda p, t: p - t), "the loss .* is user-defined"),
        (
            lambda: pnn.mlp([3, 2], optimizer=pnn.SGD(lambda step: 0.1)),
            "learning_rate of the optimizer SGD is a function",
        ),
    ],
)
def test_code_is_not_saved(make: Callable[[], pnn.Network], says: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=says):
        make().save(tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    _network().save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="the disk is full; its previous content is unchanged"):
        _network().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the description in a file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["portablenn"])
    result = change(description)
    text = result if isinstance(result, str) else json.dumps(description)
    save_file(load_file(path), path, metadata={"portablenn": text})


def _nested(depth: int) -> Any:
    rate: Any = {"kind": "CosineDecay", "start": 0.1, "steps": 5, "end": 0.0}
    for _ in range(depth):
        rate = {"kind": "WarmUp", "steps": 5, "then": rate}
    return rate


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "not JSON": (lambda d: "{", "not JSON"),
    "deep JSON": (lambda d: "[" * 100_000, "not JSON"),
    "a list": (lambda d: "[]", "not a JSON object"),
    "newer": (lambda d: d.update(version=3), "expected version 2, got 3: a newer one may read it"),
    "older": (lambda d: d.update(version=1), "expected version 2, got 1: an older"),
    "list for a kind": (lambda d: d["layers"][0].update(kind=["Dense"]), "unknown layer .*Dense"),
    "deep schedule": (
        lambda d: d["optimizer"].update(learning_rate=_nested(900)),
        "nested more than 8 levels",
    ),
    "without a checksum": (lambda d: d.pop("checksum") and None, "the checksum does not match the content"),
    "unknown layer": (lambda d: d["layers"][0].update(kind="os.system"), "unknown layer 'os.system'"),
    "unknown activation": (lambda d: d["layers"][0].update(activation="eval"), "unknown activation 'eval'"),
    "layer that is not a dict": (lambda d: d["layers"].append("Dense"), "unknown layer"),
    "embedding of columns that are not there": (
        lambda d: d["layers"].insert(
            0, {"kind": "PeriodicEmbedding", "units": 4, "frequencies": 16, "sigma": 0.1, "rate": 1.0, "columns": 9}
        ),
        "periodic_embedding_1: columns must be at most the number of inputs, 3, got 9",
    ),
    "extra field": (lambda d: d["layers"][0].update(code="import os"), "has fields"),
    "field of a wrong type": (lambda d: d["layers"][0].update(units=[8]), "units of the layer Dense is a list"),
    "huge width": (lambda d: d["layers"][0].update(units=2**60), r"of F32\[1152921504606846976\], got F32\[8\]"),
    "no layers": (lambda d: d.update(layers=[]), "of layers is 0"),
    "too many layers": (lambda d: d.update(layers=[{"kind": "Dropout", "rate": 0.1}] * 10_001), "too large"),
    "missing key": (lambda d: d.pop("seed"), "expected the keys"),
    "negative steps": (lambda d: d.update(steps=-1), "invalid steps, got -1"),
    "true inputs": (lambda d: d.update(inputs=True), "invalid inputs, got True"),
    "other dtype": (lambda d: d.update(dtype="float16"), "invalid dtype or labels, got 'float16'"),
    "wider dtype": (lambda d: d.update(dtype="float64"), r"of F64\[.*got F32"),
    "odd labels": (lambda d: d.update(labels=["a", "b"]), "invalid dtype or labels, got 'float32'"),
    "more layers than arrays": (lambda d: d["layers"].append(d["layers"][0]), r"missing arrays \['"),
    "fewer layers than arrays": (lambda d: d["layers"].pop(), r"unexpected arrays \['"),
    "nested schedule of another kind": (
        lambda d: d["optimizer"]["learning_rate"].update(kind="Adam"),
        "unknown schedule",
    ),
    "negative rate": (
        lambda d: d["optimizer"].update(learning_rate=-1.0),
        "learning_rate must be a number of at least 0",
    ),
    "unknown loss": (lambda d: d["loss"].update(kind="Custom"), "unknown loss 'Custom'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_invalid_description_raises(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    _network().save(path)
    change, says = CHANGES[name]
    _changed(path, change)
    with pytest.raises(pnn.FileFormatError, match=says):
        pnn.load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 8, b"PK\x03\x04" + b"\x00" * 100, struct.pack("<Q", 2**62) + b"{}", b"\x80\x04cos\nsystem\n."],
)
def test_a_file_of_another_kind_raises(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(pnn.FileFormatError, match="is not a valid model file"):
        pnn.load(tmp_path / "file")


def test_a_truncated_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    _network().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(pnn.FileFormatError):
        pnn.load(path)


def test_other_safetensors_files_raise(tmp_path: Path) -> None:
    save_file({"weight": np.ones(3, dtype="f4")}, tmp_path / "other.safetensors")
    with pytest.raises(pnn.FileFormatError, match='no "portablenn"'):
        pnn.load(tmp_path / "other.safetensors")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="the model file nowhere.safetensors does not exist"):
        pnn.load("nowhere.safetensors")


def test_a_file_with_one_flipped_bit_raises(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    _network().save(path)
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2, 8 + whole.index(b"seed") + 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(pnn.FileFormatError):
            pnn.load(path)


def test_a_file_may_name_every_schedule() -> None:
    from portablenn import schedules

    own = {thing for thing in vars(schedules).values() if getattr(thing, "__module__", "") == schedules.__name__}
    assert {thing for thing in own if isinstance(thing, type) and thing.__name__[0] != "_"} == set(schedules.SCHEDULES)
