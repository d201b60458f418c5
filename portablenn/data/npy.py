"""The file formats of NumPy: ``.npy`` and ``.npz``, mapped into memory.

No pickle is read, and no more is allocated than the file holds.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..files.safetensors_file import FileFormatError

MAX_BYTES, MAX_COMPRESSED = 1 << 44, 1 << 32
"""Maximum size of an array that is mapped, and of one that is read into memory."""


def read_npy(path: str | Path) -> np.ndarray:
    """Map the array of a ``.npy`` file into memory: only what is used is read.

    Raises
    ------
    FileFormatError
        If it is not a complete ``.npy`` file, or holds Python objects, whose pickles would run code.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "three.npy"
    >>> np.save(path, np.arange(3))
    >>> read_npy(path).tolist()
    [0, 1, 2]
    """
    with Path(path).open("rb") as file:
        return _mapped(path, file, os.path.getsize(path), os.path.basename(path))


def read_npz(path: str | Path) -> Mapping[str, np.ndarray]:
    """Open an ``.npz`` file as a mapping from names to arrays.

    Arrays are mapped into memory; compressed ones are read at each access.

    Raises
    ------
    FileFormatError
        If it is not an ``.npz`` file, or an array of it is not one that `read_npy` accepts.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.npz"
    >>> np.savez(path, X=np.eye(2), y=np.arange(2))
    >>> read_npz(path)["y"].tolist()
    [0, 1]
    """
    return _Archive(Path(path))


class _Archive(Mapping[str, np.ndarray]):
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
            raise FileFormatError(f"{path} is not an .npz file: {error}") from None
        self._members = {m.filename.removesuffix(".npy"): m for m in members if m.filename.endswith(".npy")}

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        try:
            if member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size:
                return self._stored(member)
            with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
                return _read(self.path, file, member.file_size, name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error) as error:
            raise FileFormatError(f"{self.path}: the array {name} cannot be read: {error}") from None

    def _stored(self, member: zipfile.ZipInfo) -> np.ndarray:
        """Map an array that is stored uncompressed."""
        with zipfile.ZipFile(self.path) as archive, archive.open(member):
            pass  # checks that the local header agrees with the directory
        with self.path.open("rb") as file:
            file.seek(member.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            start = member.header_offset + 30 + name + extra
            file.seek(start)
            return _mapped(self.path, file, min(start + member.file_size, os.path.getsize(self.path)), member.filename)


def _header(path: Any, file: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the order is Fortran's, and dtype; the file is then at the first element."""
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"its version is {version}")
        shape, fortran, dtype = read(file, max_header_size=10_000)
    except Exception as error:  # NumPy parses a Python literal, which fails in many ways
        raise FileFormatError(f"{path}: {name} is not an array of NumPy: {error}") from None
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise FileFormatError(f"{path}: {name} has dtype {dtype}: expected numbers, text or dates, not Python objects")
    if any(n < 0 for n in shape) or dtype.itemsize * math.prod(shape) > MAX_BYTES:
        raise FileFormatError(f"{path}: {name} has shape {shape}: more than the maximum of {MAX_BYTES} bytes")
    return shape, fortran, dtype


def _mapped(path: Any, file: Any, end: int, name: str) -> np.ndarray:
    shape, fortran, dtype = _header(path, file, name)
    start, size = file.tell(), dtype.itemsize * math.prod(shape)
    if end - start != size:
        raise FileFormatError(f"{path}: expected {size} bytes of data for {name}, got {end - start}")
    order = "F" if fortran else "C"
    if size == 0:
        return np.empty(shape, dtype=dtype, order=order)  # type: ignore[call-overload]
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)  # type: ignore[call-overload]


def _read(path: Any, file: Any, size: int, name: str) -> np.ndarray:
    shape, fortran, dtype = _header(path, file, name)
    wanted = dtype.itemsize * math.prod(shape)
    if wanted > min(size, MAX_COMPRESSED):
        raise FileFormatError(
            f"{path}: {name} has {wanted} bytes by its header: more than the {size} of the archive's directory, or "
            f"the maximum of {MAX_COMPRESSED}"
        )
    content = file.read(wanted + 1)  # allocates what is there, not what the header says
    if len(content) != wanted:
        raise FileFormatError(f"{path}: expected {wanted} bytes of data for {name}, got {len(content)}")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")
