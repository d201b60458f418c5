"""Mutated files: every reader returns something or refuses with its one error, allocates no more than a cap, runs nothing.

    python tests/helpers/fuzz.py 1000000 --seed 1

runs so many, spread over all readers, in this process, with its memory held to what it has and 512 MB, and an audit hook that
ends it where a file makes it open another, import, execute or start anything. ``tests/files/test_fuzz.py`` runs some thousands.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn
from portablenn.callbacks import Checkpoint
from portablenn.data import read_idx, read_npy, read_npz
from portablenn.files import checkpoint
from portablenn.files import safetensors_file as tensors
from portablenn.tables import open_table

MOST = 512 << 20
X = np.random.default_rng(0).normal(size=(40, 3)).astype("f4")
Y = (X[:, 0] > 0).astype(int)
NUMBERS = [0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**64, 10**400, 0.5, float("nan"), float("inf"), -1e308]
ODD = [
    "",
    "Dense",
    "relu",
    "eval",
    "__class__",
    "os.system",
    "\0",
    "x" * 10_000,
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"kind": "Dense"},
]


def _network() -> pnn.Network:
    layers = [pnn.Dense(4, "relu"), pnn.BatchNorm(), pnn.Dropout(0.1), pnn.Dense(2)]
    net = pnn.Network(
        layers, 3, "softmax_cross_entropy", pnn.Adam(pnn.schedules.CosineDecay(0.01, 50)), backend="numpy"
    )
    net.fit(X, Y, epochs=1)
    return net


def originals(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any], str]]:
    """Of each kind: a whole file, its reader, and the end of its name."""
    net = _network()
    net.save(folder / "a.safetensors")
    net.fit(X, Y, epochs=2, batch_size=8, callbacks=[Checkpoint(folder / "c", every_steps=3)])
    table = {"age": np.arange(60.0), "city": ["Oslo", "Rome", "Paris"] * 20, "rich": ["yes", "no"] * 30}
    pnn.TableModel.train(table, "rich", epochs=1).save(folder / "t.safetensors")
    pnn.save_weights(net, folder / "w.safetensors")
    np.save(folder / "x.npy", X)
    np.savez(folder / "x.npz", X=X, Y=Y)
    np.savez_compressed(folder / "z.npz", X=X, Y=Y)
    idx = struct.pack(">BBBBII", 0, 0, 8, 2, 3, 4) + bytes(12)
    (folder / "i.idx").write_bytes(idx)
    (folder / "g.idx.gz").write_bytes(gzip.compress(idx))

    def resumed(path: Path) -> Any:
        snapshot = checkpoint.read(path)
        assert isinstance(snapshot.facts, dict)
        with tempfile.TemporaryDirectory(dir=path.parent) as other:
            os.replace(path, Path(other) / "checkpoint-000000000003.safetensors")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _network().fit(X, Y, epochs=2, batch_size=8, resume=other)

    readers: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "model": ("a.safetensors", lambda path: pnn.load(path, "numpy").predict(X)),
        "model of a table": ("t.safetensors", lambda path: pnn.TableModel.load(path, "numpy").predict(table)),
        "weights": ("w.safetensors", lambda path: pnn.load_weights(_fresh(net), path)),
        "checkpoint": (f"c/{checkpoint.list_paths(folder / 'c')[0].name}", resumed),
        "npy": ("x.npy", lambda path: read_npy(path).sum()),
        "npz": ("x.npz", lambda path: [np.asarray(a) for a in read_npz(path).values()]),
        "npz, compressed": ("z.npz", lambda path: [np.asarray(a) for a in read_npz(path).values()]),
        "idx": ("i.idx", read_idx),
        "idx.gz": ("g.idx.gz", read_idx),
    }
    try:
        import onnx  # noqa: F401

        pnn.to_onnx(net, folder / "n.onnx", probabilities=True)
        readers["onnx"] = "n.onnx", lambda path: pnn.from_onnx(path, backend="numpy").forward(X)
    except ImportError:
        pass
    try:
        import pyarrow as pa
        from pyarrow import feather, parquet

        rows = pa.table(table)
        parquet.write_table(rows, folder / "t.parquet")
        feather.write_feather(rows, str(folder / "t.arrow"), compression="uncompressed")
        (folder / "t.csv").write_text('age,city\n1,Oslo\n2,"a\nb"\n,Rome\n')
        for name in ("t.parquet", "t.arrow", "t.csv"):
            readers[name] = name, _rows
    except ImportError:
        pass
    return {
        kind: ((folder / name).read_bytes(), read, name.partition(".")[2]) for kind, (name, read) in readers.items()
    }


def _rows(path: Path) -> list[int]:
    table = open_table(path)
    return [batch.num_rows for batch in table.select(table.columns)]


def _fresh(net: pnn.Network) -> pnn.Network:
    return pnn.Network(net.layers, 3, net.loss, "sgd", backend="numpy")


def mutated(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """The bytes with some changes: flips, other numbers, cuts, repetitions, pieces of another file."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        kind, size = chance.randrange(8), len(made)
        at = chance.randrange(size) if size else 0
        if kind == 0 and size:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and size:
            made[at] = chance.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            width = chance.choice((2, 4, 8))
            number = chance.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)) & (
                2 ** (8 * width) - 1
            )
            made[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            del made[at : at + chance.randrange(1, 64)]
        elif kind == 5:
            made[at:at] = made[at : at + chance.randrange(1, 64)] * chance.randrange(1, 4)
        elif kind == 6:
            start = chance.randrange(len(other))
            made[at:at] = other[start : start + chance.randrange(1, 64)]
        else:
            made[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    return bytes(made)


def described_otherwise(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another description, whose checksum is right: what flips of bytes do not reach."""
    from safetensors.numpy import load, save

    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    arrays = load(content)
    description = json.loads(header["__metadata__"][tensors.KEY])
    description.pop("checksum")
    for _ in range(chance.choice((1, 1, 2))):
        description = _other(description, chance)
    if not isinstance(description, dict):
        description = {"description": description}
    if chance.random() < 0.2:
        name = chance.choice(list(arrays))
        arrays[chance.choice((name, "dense_1.kernel", "x"))] = chance.choice(
            (arrays[name][:1], np.zeros((0,), "f4"), arrays[name].astype("f8"), np.asarray(arrays[name] * np.nan, "f4"))
        )
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        text = json.dumps({**description, "checksum": tensors.checksum(description, arrays)})
    except (ValueError, TypeError):
        return content
    return save(arrays, metadata={tensors.KEY: text})


def _other(thing: Any, chance: random.Random) -> Any:
    """The same with one thing changed somewhere."""
    if isinstance(thing, dict) and thing and chance.random() < 0.9:
        name = chance.choice(list(thing))
        made = dict(thing)
        what = chance.random()
        if what < 0.08:
            del made[name]
        elif what < 0.14:
            made[chance.choice(("code", "kind", "version", "units", "0"))] = chance.choice(ODD)
        else:
            made[name] = _other(made[name], chance)
        return made
    if isinstance(thing, list) and thing and chance.random() < 0.9:
        made_list, at = list(thing), chance.randrange(len(thing))
        what = chance.random()
        if what < 0.1:
            del made_list[at]
        elif what < 0.2:
            made_list += [made_list[at]] * chance.choice((1, 2, 50))
        else:
            made_list[at] = _other(made_list[at], chance)
        return made_list
    if isinstance(thing, bool) or not isinstance(thing, (int, float)) or chance.random() < 0.3:
        return chance.choice(ODD + NUMBERS)
    return chance.choice((thing + 1, thing - 1, -thing, thing * 2, *NUMBERS))


def _watch(folder: Path) -> list[str]:
    """Note whatever a file makes the process do besides reading it."""
    said = SAID
    allowed = (
        str(folder),
        sys.prefix,
        sys.base_prefix,
        str(Path(pnn.__file__).parent),
        str(Path(__file__).parent),
        "/proc",
        "/sys",
        "/dev/null",
    )

    def hook(event: str, facts: tuple[Any, ...]) -> None:
        if event in (
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.spawn",
            "subprocess.Popen",
            "os.fork",
            "socket.connect",
            "ctypes.dlopen",
            "pickle.find_class",
        ):
            said.append(f"{event} {facts}")
        elif event == "open" and isinstance(facts[0], str) and not facts[0].startswith(allowed):
            said.append(f"open {facts[0]}")

    sys.addaudithook(hook)
    return said


def fuzz(count: int, seed: int, kinds: list[str] | None = None) -> dict[str, dict[str, int]]:
    """Read so many mutated files; returns how many of each kind were read and refused. `BROKEN` has those that broke a promise."""
    chance = random.Random(seed)
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as name:
        folder = Path(name)
        whole = originals(folder)
        kinds = kinds or list(whole)
        for content, read, ends in (whole[kind] for kind in kinds):  # imports what it needs, before it is watched
            path = folder / f"whole.{ends}"
            path.write_bytes(content)
            read(path)
        said = _watch(folder)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + MOST, before[1]))
        results = {kind: {"read": 0, "refused": 0} for kind in kinds}
        for number in range(count):
            kind = kinds[number % len(kinds)]
            content, read, ends = whole[kind]
            deep = kind in ("model", "model of a table", "checkpoint") and chance.random() < 0.7
            if deep:
                made = described_otherwise(content, chance)
            else:
                made = mutated(content, chance, whole[chance.choice(list(whole))][0])
            path = folder / f"fuzz.{ends}"
            path.write_bytes(made)
            start = time.monotonic()
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
                results[kind]["read"] += 1
            except ValueError as error:  # FileFormatError and TableError are some, and of resuming another training
                results[kind]["refused"] += 1
                if type(error) is ValueError and kind not in ("idx", "idx.gz", "checkpoint"):
                    _broken(made, ends, kind, seed, number, error)
            except Exception as error:
                _broken(made, ends, kind, seed, number, error)
            done = said.copy()
            said.clear()
            if done:
                _broken(made, ends, kind, seed, number, AssertionError(f"it made the process do {done}"))
            if time.monotonic() - start > 20.0:
                _broken(made, ends, kind, seed, number, AssertionError("it took more than 20 s"))
        resource.setrlimit(resource.RLIMIT_AS, before)
    return results


SAID: list[str] = []

BROKEN: dict[str, str] = {}
"""One file for each way in which a promise was broken."""


def _broken(content: bytes, ends: str, kind: str, seed: int, number: int, error: BaseException) -> None:
    kept = Path(tempfile.gettempdir()) / f"portablenn-fuzz-{seed}-{number}.{ends}"
    way = f"{kind}: {type(error).__name__} {str(error)[:60]}"
    if way not in BROKEN:
        kept.write_bytes(content)
        SAID.clear()  # of having been written
        BROKEN[way] = f"seed {seed}, number {number}, kept as {kept}"


def main() -> None:
    """Run it and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append")
    given = parser.parse_args()
    start = time.monotonic()
    results = fuzz(given.count, given.seed, given.kind)
    print(
        json.dumps(
            {"files": given.count, "seconds": round(time.monotonic() - start), "broken": BROKEN, **results}, indent=2
        )
    )
    raise SystemExit(bool(BROKEN))


if __name__ == "__main__":
    main()
