"""Named arrays and a JSON description in one safetensors file, validated before anything is allocated. It names no code."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..runtime.arrays import to_numpy
from . import atomic

KEY = "portablenn"
MAX_DESCRIPTION = 1 << 26
MAX_ARRAYS = 100_000

Types = dict[str, tuple[str, tuple[int, ...]]]
"""The dtype code, such as "F32", and the shape of each array by name."""


class FileFormatError(ValueError):
    """A file is not of the expected format, is damaged, or is of an unknown version."""


def need_safetensors() -> None:
    """Raise an ImportError that says what to install, if safetensors is missing."""
    if importlib.util.find_spec("safetensors") is None:
        raise ImportError('model files need safetensors: pip install "portablenn[files]"')


def write(
    path: str | os.PathLike[str], version: int, description: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write arrays of any library and a JSON description atomically."""
    need_safetensors()
    import json

    from safetensors.numpy import save

    tensors = {name: np.asarray(to_numpy(array), order="C") for name, array in arrays.items()}
    description = {**description, "version": version}
    text = json.dumps({**description, "checksum": checksum(description, tensors)})
    atomic.write(path, save(tensors, metadata={KEY: text}))


def checksum(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the BLAKE2b of the description and of each array's name, dtype, shape and bytes; 32 hexadecimal digits."""
    import hashlib  # as costly to import as the whole file
    import json

    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@contextmanager
def file_errors(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Raise every reason why a file cannot be read as one kind of error, which names the file."""
    if os.path.isdir(path):
        raise FileFormatError(f"{os.fspath(path)} is a directory: expected a file ({what})")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"the {what} {os.fspath(path)} does not exist")
    try:
        yield
    except RecursionError:
        raise FileFormatError(f"{os.fspath(path)} is not a valid {what}: it is nested too deeply") from None
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)} is not a valid {what}: {error}") from None


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Types]]:
    """Open a safetensors file, and return it with the types of its arrays, of which none is read."""
    need_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            names = list(file.keys())
            if len(names) > MAX_ARRAYS:
                raise FileFormatError(f"it holds {len(names)} arrays, more than {MAX_ARRAYS}")
            pieces = {name: file.get_slice(name) for name in names}
            yield file, {name: (str(p.get_dtype()), tuple(p.get_shape())) for name, p in pieces.items()}
    except SafetensorError as error:
        raise FileFormatError(str(error)) from None


def read(
    path: str | os.PathLike[str], what: str, version: int, check: Callable[[dict[str, Any], Types], Any]
) -> tuple[Any, dict[str, np.ndarray]]:
    """Return what ``check`` returns for the description and the arrays' types, before any array is read; and the arrays.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    FileFormatError
        If it is of another format or version, or damaged, or ``check`` raises it.
    """
    with file_errors(path, what):
        with opened(path) as (file, types):
            description = _description(file.metadata())
            given = description.pop("checksum", None)
            _check_version(description.get("version"), version)
            checked = check({name: fact for name, fact in description.items() if name != "version"}, types)
            arrays = {name: file.get_tensor(name) for name in types}
        if given != checksum(description, arrays):
            raise FileFormatError("the checksum does not match the content: the file is damaged")
    return checked, arrays


def _description(metadata: dict[str, str] | None) -> dict[str, Any]:
    import json

    text = (metadata or {}).get(KEY)
    if text is None:
        raise FileFormatError(f'its metadata has no "{KEY}"')
    if len(text) > MAX_DESCRIPTION:
        raise FileFormatError(f"its description is longer than {MAX_DESCRIPTION} characters")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError("its description is not JSON") from None
    if not isinstance(description, dict):
        raise FileFormatError("its description is not a JSON object")
    return description


def _check_version(version: Any, known: int) -> None:
    if type(version) is not int or version != known:
        older = isinstance(version, int) and version < known
        fix = "an older portablenn wrote it" if older else "a newer one may read it"
        raise FileFormatError(f"expected version {known}, got {version!r}: {fix}")


def check_fields(description: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raise FileFormatError unless a description has exactly these keys, with values of these types; no integer is negative."""
    if set(description) != set(types):
        raise FileFormatError(f"expected the keys {sorted(types)}, got {sorted(description)}")
    for name, kind in types.items():
        value = description[name]
        known = type(value) in (kind if isinstance(kind, tuple) else (kind,))
        if not known or (kind is int and not 0 <= value < 2**64):
            raise FileFormatError(f"invalid {name}, got {value!r:.50}")
