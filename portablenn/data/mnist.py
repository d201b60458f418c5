"""MNIST: reader of its IDX files, with the digits of scikit-learn as a substitute."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_BYTES = 1 << 32


def read_idx(path: str | Path) -> np.ndarray:
    """Read an array from an IDX file, gzip-compressed or not (the format of http://yann.lecun.com/exdb/mnist).

    Raises
    ------
    ValueError
        If it is not an IDX file, or shorter or longer than its header says.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "three"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(path).tolist()
    [7, 8, 9]
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as opened:
            return _parsed(path, opened)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _parsed(path: Path, file: Any) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise ValueError(f"{path} is not an IDX file: it starts with {head!r}")
    dtype, rank = np.dtype(_DTYPES[head[2]]), head[3]
    lengths = file.read(4 * rank)
    if len(lengths) < 4 * rank:
        raise ValueError(f"{path} ends within its header")
    shape = struct.unpack(f">{rank}I", lengths)
    size = dtype.itemsize * math.prod(shape)
    if size > _MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes by its header: more than the maximum of {_MAX_BYTES}")
    data = b"".join(_pieces(file, size + 1))
    if len(data) != size:
        raise ValueError(f"{path} holds {'more' if len(data) > size else 'fewer'} bytes than the {size} of its header")
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _pieces(file: Any, size: int) -> Iterator[bytes]:
    """Read up to ``size`` bytes: memory is allocated for what is there, not for what the header says."""
    while size > 0 and (piece := file.read(min(size, 1 << 20))):
        size -= len(piece)
        yield piece


@dataclass(frozen=True)
class Digits:
    """Images of digits.

    Attributes
    ----------
    images
        Shape (rows, 28, 28), uint8; 0 is the background.
    labels
        Shape (rows,), int64, 0 to 9.
    source
        Description of where they are from.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str


def digits(folder: str | Path | None = None) -> Digits:
    """Return the MNIST images of a folder of IDX files; without a folder, scikit-learn's 8×8 digits scaled to 28×28.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold files of images and of labels.

    Examples
    --------
    >>> digits().images.shape  # without a folder: scikit-learn's
    (1797, 28, 28)
    """
    if folder is None:
        return _bundled_digits()
    folder = Path(folder)
    images, labels = (sorted(folder.glob(f"*{kind}*ubyte*")) for kind in ("images-idx3", "labels-idx1"))
    if not images or len(images) != len(labels):
        raise FileNotFoundError(
            f"{folder} holds {len(images)} files like 'train-images-idx3-ubyte.gz' and {len(labels)} like "
            "'train-labels-idx1-ubyte.gz': expected one of each, or a pair for each part"
        )
    all_images = np.concatenate([read_idx(path) for path in images])
    all_labels = np.concatenate([read_idx(path) for path in labels]).astype(np.int64)
    if len(all_images) != len(all_labels) or all_images.shape[1:] != (28, 28):
        raise ValueError(f"{folder}: {all_images.shape} images and {all_labels.shape} labels do not belong together")
    return Digits(all_images, all_labels, f"{len(all_labels):,} MNIST images from {folder}")


def _bundled_digits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'without a folder of MNIST files the digits of scikit-learn are used: pip install "portablenn[sklearn]"'
        ) from error
    bunch: Any = load_digits()
    return Digits(
        _scaled(bunch.images * (255.0 / 16.0), 28).astype(np.uint8),
        bunch.target.astype(np.int64),
        f"{len(bunch.target):,} images of scikit-learn's 8×8 digits, scaled to 28×28 (no folder of MNIST files was given)",
    )


def _scaled(images: np.ndarray, size: int) -> np.ndarray:
    """Scale images by bilinear interpolation, a product with one matrix on each side."""
    old = images.shape[-1]
    positions = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    left = np.minimum(positions.astype(int), old - 2)
    weights = np.zeros((size, old))
    weights[np.arange(size), left] = 1 - (positions - left)
    weights[np.arange(size), left + 1] = positions - left
    return weights @ images @ weights.T
