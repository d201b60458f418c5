"""Checkpoints: a folder of recent training states, from which training resumes bit for bit.

Each is one file, ``checkpoint-<step>.safetensors``, written atomically, with a checksum of its content.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import warnings
from collections.abc import Mapping
from types import CellType, CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..runtime.arrays import is_array, to_numpy
from . import atomic, safetensors_file
from .safetensors_file import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path  # costs an import more than the file is worth

VERSION = 1
_FACTS: dict[str, Any] = {
    "about": dict, "callbacks": list, "done": int, "ended": str, "epoch": int, "epochs": int, "evaluations": int,
    "history": dict, "interrupted": bool, "labels": list, "multilabel": bool, "optimizer": dict,
    "search": (dict, type(None)), "steps": int, "versions": dict,
}  # fmt: skip
_NAME = re.compile(r"checkpoint-(\d{12,})\.safetensors")


class Snapshot(NamedTuple):
    """The state of a training: facts as JSON values, and arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, Any]


def write(folder: str | Path, step: int, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint, then remove all but it and the ``keep`` - 1 before it; those with a later step were damaged."""
    from pathlib import Path

    path = Path(folder) / f"checkpoint-{step:012d}.safetensors"
    safetensors_file.write(path, VERSION, snapshot.facts, snapshot.arrays)
    paths = list_paths(folder)
    index = paths.index(path)
    for other in (*paths[:index], *paths[index + keep :]):
        other.unlink(missing_ok=True)
    return path


def list_paths(folder: str | Path) -> list[Path]:
    """Return the paths of the checkpoints in a folder, newest first; an empty list if the folder does not exist."""
    from pathlib import Path

    if not Path(folder).is_dir():
        return []
    numbered = [(match, path) for path in Path(folder).iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, key=lambda pair: int(pair[0][1]), reverse=True)]


def newest(folder: str | Path) -> Snapshot | None:
    """Read the newest undamaged checkpoint, and warn of damaged ones; return None if the folder has no checkpoint.

    Raises
    ------
    FileFormatError
        If all are damaged.
    """
    import os

    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"{os.fspath(folder)} is not a folder: resume from the folder with the checkpoints")
    paths = list_paths(folder)
    for path in paths:
        try:
            return read(path)
        except FileFormatError as error:
            problem = error
            warnings.warn(f"{error}; using the one before it", RuntimeWarning, stacklevel=2)
    if paths:
        raise FileFormatError(f"none of the {len(paths)} checkpoints in {folder} can be read: {problem}") from None
    return None


def read(path: str | Path) -> Snapshot:
    """Read one checkpoint; see `safetensors_file.read` for the errors."""

    def check(facts: dict[str, Any], _: safetensors_file.Types) -> dict[str, Any]:
        safetensors_file.check_fields(facts, _FACTS)
        if not all(isinstance(one, list) and list(map(type, one)) == [str, dict] for one in facts["callbacks"]):
            raise FileFormatError("invalid callbacks")
        return facts

    return Snapshot(*safetensors_file.read(path, "checkpoint", VERSION, check))


def prepare(folder: str | Path) -> Path:
    """Return the folder, created if necessary; if it is not writable, raise now and not at the first checkpoint."""
    safetensors_file.need_safetensors()
    return atomic.writable_folder(folder)


def describe(thing: Any, depth: int = 0) -> Any:
    """Return an object as JSON values: the name of its type and its fields; a function by its source and what it reads."""
    if isinstance(thing, (str, int, float, bool, type(None))):
        return thing
    if depth > 8:
        return {"kind": type(thing).__name__}
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, Mapping):
        return {str(key): describe(value, depth + 1) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(value, depth + 1) for value in thing]
    if is_array(thing):
        return {"kind": "array", "shape": [int(n) for n in thing.shape]}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        compared = {f.name: describe(getattr(thing, f.name), depth + 1) for f in dataclasses.fields(thing) if f.compare}
        return {"kind": type(thing).__name__, **compared}
    if isinstance(thing, functools.partial):
        bound = {"arguments": thing.args, "keywords": thing.keywords}
        return {"kind": "partial", "function": describe(thing.func, depth + 1), **_values(bound, depth)}
    if hasattr(thing, "__code__"):
        return _describe_function(thing, depth)
    facts = {
        name: describe(value, depth + 1)
        for name, value in getattr(thing, "__dict__", {}).items()
        if not name.startswith("_")
    }
    return {"kind": getattr(thing, "__qualname__", type(thing).__name__), **({} if isinstance(thing, type) else facts)}


def _describe_function(function: Any, depth: int) -> dict[str, Any]:
    """Return a function's name, its source, and the values that it reads: defaults, closure, and globals that it names."""
    facts = {"kind": f"{function.__module__}.{function.__qualname__}", "source": _source(function)}
    code = function.__code__
    if facts["source"] is None:  # then another Python cannot tell whether it is the same function
        facts["code"] = (
            _digest(repr(_instructions(code)).encode()) + f" of Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    named = {name: function.__globals__[name] for name in _instructions(code)[1] if name in function.__globals__}
    read = {"defaults": function.__defaults__, "keyword defaults": function.__kwdefaults__, "closure": closure}
    return facts | _values({name: value for name, value in (read | {"globals": named}).items() if value}, depth)


def _instructions(code: CodeType) -> tuple[list[bytes], list[str], list[str]]:
    """Return the bytes of the code, the names and the constants of a function and of the functions inside of it."""
    inner = [_instructions(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    constants = [repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]
    return (
        [code.co_code, *(one for part, _, _ in inner for one in part)],
        [*code.co_names, *(one for _, part, _ in inner for one in part)],
        [*constants, *(one for _, _, part in inner for one in part)],
    )


def _values(read: Any, depth: int) -> Any:
    """Describe numbers, strings, arrays, functions and dataclasses in nested dicts and tuples; other objects by their type."""
    if isinstance(read, Mapping):
        return {str(name): _values(value, depth + 1) for name, value in read.items()}
    if isinstance(read, (list, tuple)):
        return [_values(value, depth + 1) for value in read]
    if is_array(read):
        return {**describe(read), "content": _digest(to_numpy(read).tobytes())}
    plain = isinstance(read, (str, int, float, bool, type(None), complex, np.generic))
    known = hasattr(read, "__code__") or isinstance(read, functools.partial)
    if plain or known or (dataclasses.is_dataclass(read) and not isinstance(read, type)):
        return repr(read) if isinstance(read, complex) else describe(read, depth + 1)
    return {"kind": getattr(read, "__name__", type(read).__name__)}


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _source(function: Any) -> str | None:
    """Return a function's source, without what differs between versions of Python; None if it is not available."""
    import ast
    import inspect
    import textwrap

    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return None
    if function.__name__ == "<lambda>":  # only the lambda, not the statement around it
        try:
            nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)]
        except SyntaxError:  # part of a statement
            return None
        text = " ".join(ast.get_source_segment(text, node) or "" for node in nodes)
    return " ".join(text.split())


def differences(saved: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for each fact that differs between a checkpoint and now, such as "rows: 3, now 4"."""
    lines = []
    for name in sorted({*saved, *expected}):
        a, b = saved.get(name), expected.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b and name == "data":
            lines.insert(0, "data: others")
        elif a != b:
            lines.append(f"{prefix}{name}: {str(a)[:60]}, now {str(b)[:60]}")
    return lines
