"""Arrays on the disk: NumPy's files, memory maps, and rows with their targets block by block.

Requires nothing but NumPy. No pickle is read, and nothing is allocated that the file does not hold.
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

from .. import random
from ..files.safetensors_file import FileFormatError
from .sources import Block

BLOCK = 1 << 20
"""Numbers of a block, about."""

MOST_BYTES, MOST_COMPRESSED = 1 << 44, 1 << 32
"""Of an array that is mapped, and of one that is read into memory."""


class Rows:
    """Rows, targets and weights that are read some at a time, for ``fit``: of a memory map, or of what slices like an array.

    Parameters
    ----------
    X
        (rows, columns): a ``numpy.memmap``, an HDF5 data set, a Zarr array, an array.
    y
        (rows,) or (rows, outputs); None for prediction.
    weights
        (rows,).
    block_rows
        Rows of a block, which lie together; None for about a million numbers. Blocks are what is shuffled, and then the rows
        of some of them.

    Examples
    --------
    >>> import portablenn as pnn
    >>> X, y = np.eye(10), np.arange(10) % 2
    >>> rows = Rows(X, y, block_rows=4)
    >>> rows.sizes
    (4, 4, 2)
    >>> net = pnn.mlp([10, 4, 2], loss="softmax_cross_entropy")
    >>> history = net.fit(rows, epochs=3, batch_size=3)
    >>> net.predict(rows).shape
    (10,)
    """

    def __init__(self, X: Any, y: Any = None, weights: Any = None, block_rows: int | None = None) -> None:
        if len(getattr(X, "shape", ())) != 2:
            raise ValueError(f"X is an array of two dimensions, (rows, columns), found {type(X).__name__}")
        rows, self.columns = (int(n) for n in X.shape)
        for name, other in (("y", y), ("weights", weights)):
            if other is not None and len(other) != rows:
                raise ValueError(f"{name} has {len(other)} rows and X has {rows}: expected as many")
        self.X, self.y, self.weights = X, y, weights
        self.block_rows = block_rows or max(1, BLOCK // max(1, self.columns))
        full, rest = divmod(rows, self.block_rows)
        self.sizes = (self.block_rows,) * full + ((rest,) if rest else ())

    def read(self, block: int) -> Block:
        """See `sources.Blocks`."""
        rows = slice(block * self.block_rows, block * self.block_rows + self.sizes[block])
        y, weights = (None if a is None else np.asarray(a[rows]) for a in (self.y, self.weights))
        return np.asarray(self.X[rows]), y, weights


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a ``.npy`` file, mapped into memory: it is read where it is looked at.

    Raises
    ------
    FileFormatError
        If it is no such file, whole; or holds Python objects, which would be code.

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
    """The arrays of an ``.npz`` file by name: mapped into memory, but for compressed ones, which are read when asked for.

    Raises
    ------
    FileFormatError
        If it is no such file, or an array of it is not as `read_npy` wants it.

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
            raise FileFormatError(f"{path} is no .npz file: {error}") from None
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
        """Mapped: what is not compressed lies in the archive as it would in a file of its own."""
        with zipfile.ZipFile(self.path) as archive, archive.open(member):
            pass  # the local header agrees with the directory
        with self.path.open("rb") as file:
            file.seek(member.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            start = member.header_offset + 30 + name + extra
            file.seek(start)
            return _mapped(self.path, file, min(start + member.file_size, os.path.getsize(self.path)), member.filename)


def _header(path: Any, file: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran's order, and dtype; the file is then at the first number."""
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"its version is {version}")
        shape, fortran, dtype = read(file, max_header_size=10_000)
    except Exception as error:  # NumPy parses a text there, which fails in many ways
        raise FileFormatError(f"{path}: {name} is no array of NumPy: {error}") from None
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise FileFormatError(f"{path}: {name} holds {dtype}: expected numbers, text or dates, no Python objects")
    if any(n < 0 for n in shape) or dtype.itemsize * math.prod(shape) > MOST_BYTES:
        raise FileFormatError(f"{path}: {name} claims to have shape {shape}: refused above {MOST_BYTES} bytes")
    return shape, fortran, dtype


def _mapped(path: Any, file: Any, end: int, name: str) -> np.ndarray:
    shape, fortran, dtype = _header(path, file, name)
    start, size = file.tell(), dtype.itemsize * math.prod(shape)
    if end - start != size:
        raise FileFormatError(f"{path}: {name} has {end - start} bytes of numbers, its header says {size}")
    order = "F" if fortran else "C"
    if size == 0:
        return np.empty(shape, dtype=dtype, order=order)  # type: ignore[call-overload]
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)  # type: ignore[call-overload]


def _read(path: Any, file: Any, size: int, name: str) -> np.ndarray:
    shape, fortran, dtype = _header(path, file, name)
    wanted = dtype.itemsize * math.prod(shape)
    if wanted > min(size, MOST_COMPRESSED):
        raise FileFormatError(
            f"{path}: {name} claims {wanted} bytes: refused above the {size} of the archive's directory, and {MOST_COMPRESSED}"
        )
    content = file.read(wanted + 1)  # grows with what is there, not with what is claimed
    if len(content) != wanted:
        raise FileFormatError(f"{path}: {name} has {len(content)} bytes of numbers, its header says {wanted}")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def split(rows: int, shares: Mapping[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Row numbers of some parts, drawn by the seed, the same on every machine.

    Parameters
    ----------
    rows
        How many there are.
    shares
        {name: share}, of which the sum is 1.
    seed
        Decides which rows.

    Returns
    -------
    dict
        {name: row numbers in order, int64}; every row is in one of them.

    Examples
    --------
    >>> parts = split(10, {"train": 0.8, "test": 0.2})
    >>> parts["train"].shape, parts["test"].shape
    ((8,), (2,))
    """
    if not math.isclose(sum(shares.values()), 1.0) or min(shares.values()) < 0:
        raise ValueError(f"shares are at least 0 and their sum is 1, found {dict(shares)}")
    permuted = random.permutations(random.new_key(seed, random.SPLIT), 1, 1, rows)[0]
    ends = np.rint(np.cumsum([0.0, *shares.values()]) * rows).astype(int)
    return {name: np.sort(permuted[a:b]) for name, a, b in zip(shares, ends, ends[1:])}
