"""Named arrays and a JSON description in one safetensors file, checked before anything is allocated. Nothing names code.

Requires safetensors (the extra "files").
"""

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
MOST_BYTES_DESCRIBED = 1 << 26
MOST_ARRAYS = 100_000

Types = dict[str, tuple[str, tuple[int, ...]]]
"""Of each array by name: the code of its dtype, such as "F32", and its shape."""


class FileFormatError(ValueError):
    """A file is no model or checkpoint of ours, is damaged, or is of a version that is not known."""


def need_safetensors() -> None:
    """Say what to install, if it is not there."""
    if importlib.util.find_spec("safetensors") is None:
        raise ImportError('model files need safetensors: pip install "portablenn[files]"')


def write(path: str | os.PathLike[str], description: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays of any library and what JSON can say; what was at ``path`` stays until the new file is whole."""
    need_safetensors()
    import json

    from safetensors.numpy import save

    tensors = {name: np.asarray(to_numpy(array), order="C") for name, array in arrays.items()}
    text = json.dumps({**description, "checksum": checksum(description, tensors)})
    atomic.write(path, save(tensors, metadata={KEY: text}))


def checksum(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b of the description, and of each array's name, dtype, shape and bytes; 32 hexadecimal digits."""
    import hashlib  # as costly to import as the whole file
    import json

    found = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        found.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


@contextmanager
def refused(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Every reason why a file cannot be read, as one kind of error that names the file."""
    if os.path.isdir(path):
        raise FileFormatError(f"{os.fspath(path)} is a folder: expected a {what}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no {what} {os.fspath(path)}")
    try:
        yield
    except RecursionError:
        raise FileFormatError(f"{os.fspath(path)} is no {what} of portablenn: it is nested too deeply") from None
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)} is no {what} of portablenn: {error}") from None


def read(
    path: str | os.PathLike[str], check: Callable[[dict[str, Any], Types], Any]
) -> tuple[Any, dict[str, np.ndarray]]:
    """What ``check`` returns of the description, and the arrays.

    Parameters
    ----------
    path
        The file.
    check
        Is given the description and the arrays' types before any array is read, and raises `FileFormatError`.

    Raises
    ------
    FileFormatError
        If it is no such file, whole.
    """
    need_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            description = _description(file.metadata())
            given = description.pop("checksum", None)
            names = list(file.keys())
            if len(names) > MOST_ARRAYS:
                raise FileFormatError(f"it holds {len(names)} arrays: refused above {MOST_ARRAYS}")
            pieces = {name: file.get_slice(name) for name in names}
            checked = check(description, {n: (p.get_dtype(), tuple(p.get_shape())) for n, p in pieces.items()})
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise FileFormatError(str(error)) from None
    if given != checksum(description, arrays):
        raise FileFormatError("its checksum is not that of its content: it is damaged")
    return checked, arrays


def _description(metadata: dict[str, str] | None) -> dict[str, Any]:
    import json

    text = (metadata or {}).get(KEY)
    if text is None:
        raise FileFormatError(f'its metadata have no "{KEY}"')
    if len(text) > MOST_BYTES_DESCRIBED:
        raise FileFormatError(f"its description is longer than {MOST_BYTES_DESCRIBED} characters")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError("its description is no JSON") from None
    if not isinstance(description, dict):
        raise FileFormatError("its description is no JSON object")
    return description


def known_version(description: Mapping[str, Any], known: int) -> None:
    """Refuse a file of another version."""
    version = description.get("version")
    if type(version) is not int or version != known:
        other = (
            "an older portablenn wrote it"
            if isinstance(version, int) and version < known
            else "a newer one may read it"
        )
        raise FileFormatError(f"its version is {version!r} and {known} is known here: {other}")
