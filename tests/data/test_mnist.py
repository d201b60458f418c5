"""MNIST's IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from portablenn.data import digits, read_idx


def _idx(array: np.ndarray, code: int) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_compressed_or_not(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images, 8)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(_idx(np.asarray([7, 2], dtype=np.uint8), 8))
    found = digits(tmp_path)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [7, 2]
    (tmp_path / "floats").write_bytes(_idx(np.asarray([1.5, -2.0], dtype=">f4"), 0x0D))
    assert read_idx(tmp_path / "floats").tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not an IDX file"),
        (b"\x00\x00\x08", "is not an IDX file"),
        (b"PK\x03\x04", "is not an IDX file"),
        (b"\x00\x00\x08\x02\x00\x00", "ends within its header"),
        (_idx(np.zeros(4, dtype=np.uint8), 8)[:-1], "holds fewer bytes"),
        (_idx(np.zeros(4, dtype=np.uint8), 8) + b"!", "holds more bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "more than the maximum of"),
    ],
)
def test_damaged_idx_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_idx(tmp_path / "file")


def test_a_folder_without_digits_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds 0 files like 'train-images-idx3-ubyte.gz'"):
        digits(tmp_path)
