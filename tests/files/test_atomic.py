"""Atomic files: a folder that can be written to, leftovers of other processes, and errors of a file system."""

from __future__ import annotations

import errno
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest

from portablenn.files import atomic, safetensors_file


def test_a_folder_is_created_with_its_parents_and_may_exist_already(tmp_path: Path) -> None:
    for _ in range(2):
        assert atomic.writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_only_abandoned_unfinished_files_are_removed(tmp_path: Path) -> None:
    names = [f".old{atomic.UNFINISHED}", f".new{atomic.UNFINISHED}", "old.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    before = time.time() - 2 * atomic.ABANDONED
    os.utime(tmp_path / names[0], (before, before))
    os.utime(tmp_path / names[2], (before, before))
    atomic.writable_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_a_failed_write_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"before")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as file:
        file.write(b"after" + bytes([1 // 0]))
    assert path.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_may_lack_the_sync_of_folders_but_may_not_fail_at_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="no"):
            atomic.sync_folder(tmp_path)
    else:
        atomic.sync_folder(tmp_path)


def test_without_safetensors_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, *_: Any) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ImportError, match=r"portablenn\[files\]"):
        safetensors_file.need_safetensors()
