"""Published attacks on loaders of models, as files: each raises FileFormatError, and nothing in it runs.

safetensors: Trail of Bits' audit (2023) and the format's own list of what must be rejected. Keras: CVE-2024-3660 and
CVE-2025-9905 (code in a Lambda layer), CVE-2025-1550 and CVE-2025-9906 (modules named by a configuration). NumPy:
CVE-2019-6446 (a pickle in an array file). ONNX: CVE-2022-25882 and CVE-2024-27318 (external data outside the folder), which
``test_convert_files.py`` has with others. PyTorch: a pickle for weights.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.files import checkpoint, model_file
from portablenn.files import safetensors_file as tensors

pytest.importorskip("safetensors")
pytestmark = pytest.mark.slow


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Bomb._explode, ())

    @staticmethod
    def _explode() -> Any:
        raise SystemExit("code of a file was run")


def _file(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _last(header: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """A model's header with other facts of the array that lies last, whose name is "dense_1.kernel"."""
    return {**header, "dense_1.kernel": {**header["dense_1.kernel"], **facts}}


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


Attack = Callable[[dict[str, Any], bytes], bytes]
"""Of a model's own header and bytes, another file."""

SAFETENSORS: dict[str, Attack] = {
    "a header longer than the file": lambda h, b: _file(h, b, length=2**40),
    "a header of 100 MB and more": lambda h, b: _file(h, b, length=100_000_001),
    "a header whose length wraps": lambda h, b: _file(h, b, length=2**64 - 1),
    "no header": lambda h, b: struct.pack("<Q", 0) + b,
    "a header that is no JSON": lambda h, b: _file(b"\xff\xfe{}", b),
    "a header that is nested deeply": lambda h, b: _file(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b),
    "two arrays of one name": lambda h, b: _file(json.dumps(h).encode()[:-1] + b', "dense_1.kernel":' + json.dumps(h["dense_1.bias"]).encode() + b"}", b),
    "arrays that overlap": lambda h, b: _file(_last(h, data_offsets=[0, 8]), b[:-8] if len(b) > 12 else b),
    "a hole between arrays, for a polyglot": lambda h, b: _file(_last(h, data_offsets=[n + 64 for n in h["dense_1.kernel"]["data_offsets"]]), b + b"\0" * 64),
    "bytes after the arrays, for a polyglot": lambda h, b: _file(h, b + _zip(x=b"y")),
    "an array beyond the end": lambda h, b: _file(_last(h, data_offsets=[h["dense_1.kernel"]["data_offsets"][0], 2**40], shape=[2**37, 2]), b),
    "offsets that run back": lambda h, b: _file(_last(h, data_offsets=h["dense_1.kernel"]["data_offsets"][::-1]), b),
    "a negative offset": lambda h, b: _file(_last(h, data_offsets=[-8, 0]), b),
    "a shape whose product wraps": lambda h, b: _file(_last(h, shape=[2**32, 2**32]), b),
    "a shape that is larger than its bytes": lambda h, b: _file(_last(h, shape=[2**59, 1]), b),
    "an unknown dtype": lambda h, b: _file(_last(h, dtype="O"), b),
}  # fmt: skip
FOREIGN: dict[str, bytes] = {
    "a pickle (PyTorch before 1.6)": pickle.dumps(Bomb()),
    "a zip of pickles (PyTorch)": _zip(**{"archive/data.pkl": pickle.dumps(Bomb()), "archive/version": b"3"}),
    "a .keras of a Lambda (CVE-2024-3660)": _zip(**{"config.json": json.dumps({"class_name": "Lambda", "config": {"function": ["4wEA", None, None]}}).encode(), "metadata.json": b"{}"}),
    "a .keras that names a module (CVE-2025-1550)": _zip(**{"config.json": json.dumps({"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}).encode()}),
    "an .h5 (CVE-2025-9905)": b"\x89HDF\r\n\x1a\n" + b"\0" * 200,
    "an .npy of a pickle (CVE-2019-6446)": b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + pickle.dumps(Bomb()),
    "nothing": b"",
}  # fmt: skip

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "load": ("x.safetensors", pnn.load),
    "load of a table": ("x.safetensors", lambda path: pnn.TableModel.load(path)),
    "weights": ("x.safetensors", lambda path: pnn.load_weights(pnn.mlp([2, 1]), path)),
    "checkpoint": ("checkpoint-000000000001.safetensors", checkpoint.read),
    "npy": ("x.npy", lambda path: np.asarray(pnn.data.read_npy(path))),
    "npz": ("x.npz", lambda path: [np.asarray(a) for a in pnn.data.read_npz(path).values()] or _reject()),
    "onnx": ("x.onnx", pnn.from_onnx),
}


def _reject() -> None:
    raise pnn.FileFormatError("it holds no array")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", FOREIGN)
def test_no_reader_accepts_files_of_other_formats(attack: str, reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    if reader == "onnx":
        pytest.importorskip("onnx")
    if reader == "load of a table":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(FOREIGN[attack])
    with pytest.raises(pnn.FileFormatError):
        read(tmp_path / name)


@pytest.mark.parametrize("attack", SAFETENSORS)
def test_a_model_whose_file_is_an_attack_raises(attack: str, tmp_path: Path) -> None:
    net, path = pnn.mlp([2, 1], optimizer="sgd", backend="numpy"), tmp_path / "x.safetensors"
    for save, read in (
        (net.save, pnn.load),
        (lambda p: pnn.save_weights(net, p, "keras"), lambda p: pnn.load_weights(net, p)),
    ):
        save(path)
        read(path)
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        names = {name: name.replace("dense/", "dense_1.") for name in header}
        plain = {names[name]: facts for name, facts in header.items()}
        made = SAFETENSORS[attack](plain, content[8 + length :])
        if names["dense/kernel" if "dense/kernel" in header else "dense_1.kernel"] not in header:
            made = _renamed(made)
        path.write_bytes(made)
        with pytest.raises(pnn.FileFormatError):
            read(path)


def _renamed(content: bytes) -> bytes:
    """The names of Keras, of the same length, in place of ours."""
    return content.replace(b"dense_1.kernel", b"dense_1/kernel").replace(b"dense_1.bias", b"dense_1/bias")


LAYERS: dict[str, dict[str, Any]] = {
    "Lambda": {"kind": "Lambda", "function": "4wEAAAAAAAAA", "module": "builtins"},
    "a module": {"kind": "Dense", "units": 1, "activation": None, "use_bias": True, "module": "os"},
    "a path to a function": {"kind": "os.system", "command": "true"},
    "a dunder": {"kind": "__import__", "name": "os"},
    "an activation that is code": {"kind": "Dense", "units": 1, "activation": "lambda x: x", "use_bias": True},
    "an activation of another module": {"kind": "Dense", "units": 1, "activation": "os.system", "use_bias": True},
    "an attribute of an activation": {"kind": "Dense", "units": 1, "activation": "__class__", "use_bias": True},
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_description_names_no_code(name: str, tmp_path: Path) -> None:
    net, path = pnn.mlp([2, 1], backend="numpy"), tmp_path / "x.safetensors"
    net.save(path)
    from safetensors.numpy import load_file

    seen: list[dict[str, Any]] = []
    tensors.read(path, "model file", model_file.VERSION, lambda description, _: seen.append(description))
    description = {**seen[0], "layers": [LAYERS[name]]}
    tensors.write(path, model_file.VERSION, description, load_file(path))
    with pytest.raises(pnn.FileFormatError, match="unknown layer|has fields|unknown activation"):
        pnn.load(path)
