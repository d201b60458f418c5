"""Checkpoints: a folder of recent training states, from which training resumes bit for bit.

Each is one file, ``checkpoint-<step>.safetensors``, written atomically, with a checksum of its content.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import warnings
from collections.abc import Mapping
from types import CellType, CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..runtime.arrays import is_array, to_numpy
from ..transforms.closure import global_names, is_of_library
from . import atomic, safetensors_file
from .safetensors_file import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path  # costs an import more than the file is worth

VERSION = 1
MAX_DEPTH = 8
"""Depth below which objects are described by their type."""

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
    if depth > MAX_DEPTH:
        return {"kind": type(thing).__name__}
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, Mapping):
        return {str(key): describe(value, depth + 1) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(value, depth + 1) for value in thing]
    if is_array(thing) and not isinstance(thing, type):
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
    """Return a function's name, its source, and the values that it reads: defaults, closure, and globals that it names.

    Of a library's function this is the name, and of names that the function assigns to, such as counters, nothing.
    """
    facts: dict[str, Any] = {"kind": f"{function.__module__}.{function.__qualname__}"}
    if is_of_library(function.__code__):
        return facts
    code, read = function.__code__, _Read.of(function.__code__)
    facts["source"] = _source(function)
    if facts["source"] is None:  # then another Python cannot tell whether it is the same function
        facts["code"] = (
            f"{_digest(repr((read.code, read.constants)))} of Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells if name not in read.assigned and cell != CellType()}
    known, named = function.__globals__, {}
    for name in global_names(code):
        if name in known and name not in read.assigned:
            value = known[name]
            named[name] = type(value) if isinstance(value, (list, dict)) else value  # a list may be a log
    values = {
        "defaults": function.__defaults__,
        "keywords": function.__kwdefaults__,
        "closure": closure,
        "globals": named,
    }
    return facts | _values({name: value for name, value in values.items() if value}, depth)


@dataclasses.dataclass
class _Read:
    """What the code of a function, and of the functions inside of it, consists of."""

    code: list[bytes]
    constants: list[str]
    assigned: set[str]  # globals, and variables of enclosing functions, that it assigns to

    @classmethod
    def of(cls, code: CodeType) -> _Read:
        import dis

        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        texts = [repr(sorted(map(repr, c))) if isinstance(c, frozenset) else repr(c) for c in constants]
        stores = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_GLOBAL", "STORE_DEREF")}
        read = cls([code.co_code], texts, stores & {*code.co_names, *code.co_freevars})
        for inner in (cls.of(constant) for constant in code.co_consts if isinstance(constant, CodeType)):
            read.code += inner.code
            read.constants += inner.constants
            read.assigned |= inner.assigned
        return read


def _values(read: Any, depth: int) -> Any:
    """Describe numbers, strings, arrays, functions and dataclasses in nested dicts and tuples; other objects by their type."""
    if isinstance(read, type) or depth > MAX_DEPTH:
        return {"kind": getattr(read, "__qualname__", type(read).__name__)}
    if isinstance(read, Mapping):
        return {str(getattr(name, "__qualname__", name)): _values(value, depth + 1) for name, value in read.items()}
    if isinstance(read, (list, tuple)):
        return [_values(value, depth + 1) for value in read]
    if isinstance(read, (float, complex, np.generic, bytes)):
        return repr(read) if type(read) is not float or not math.isfinite(read) else read
    if is_array(read):
        of_numbers = "object" not in str(read.dtype)
        return {**describe(read), **({"content": _digest(to_numpy(read).tobytes())} if of_numbers else {})}
    plain = isinstance(read, (str, int, bool, type(None)))
    known = hasattr(read, "__code__") or isinstance(read, functools.partial) or dataclasses.is_dataclass(read)
    return describe(read, depth + 1) if plain or known else {"kind": getattr(read, "__name__", type(read).__name__)}


def _digest(content: str | bytes) -> str:
    import hashlib

    return hashlib.blake2b(content.encode() if isinstance(content, str) else content, digest_size=8).hexdigest()


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
            return " ".join(text.split())
        text = " ".join(ast.get_source_segment(text, node) or "" for node in nodes)
    return " ".join(text.split())


def differences(saved: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for each fact that differs between a checkpoint and now, such as "rows: 3, now 4"."""
    lines = []
    for name in sorted({*saved, *expected}):
        a, b = saved.get(name), expected.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b and name == "data" and not prefix:
            lines.insert(0, "data: others")
        elif a != b:
            lines.append(f"{prefix}{name}: {str(a)[:60]}, now {str(b)[:60]}")
    return lines
