"""Files that are whole or not there: what a power cut, a kill or a full disk cannot leave half written.

Requires nothing but the operating system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path  # costs an import more than the file is worth; tempfile likewise

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
}
UNFINISHED = ".unfinished"
"""How the names of files end that are being written."""

ABANDONED = 600.0
"""Seconds without a change after which nobody is writing such a file any more."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when all is written: flushed, fsynced, renamed.

    Whatever happens before, what was at ``path`` stays.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    OSError
        If it cannot be written; it says why.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "three"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"abc")
    >>> path.read_bytes()
    b'abc'
    """
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder} to write {name} to")
    with _explained(path):
        temporary = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(4).hex()}{UNFINISHED}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(folder)


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write all at once; see `replacing`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "three"
    >>> write(path, b"abc")
    >>> path.read_bytes()
    b'abc'
    """
    with replacing(path) as file:
        file.write(content)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make sure that names in a folder, written or removed, are on the disk; where there is a way to do so."""
    if os.name != "posix":
        return
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems know no such thing
            raise
    finally:
        os.close(entry)


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if need be, after a file was written to it and removed.

    Files that an earlier process was writing when it ended are removed, after a while: they might be another's.

    Raises
    ------
    OSError
        If nothing can be written there; it says why.
    """
    import tempfile
    from pathlib import Path

    with _explained(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for left in Path(folder).glob(f".*{UNFINISHED}"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"portablenn")
            file.flush()
    return Path(folder)


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the path and the reason where the operating system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason = f"{os.fspath(path)} could not be written: {_REASONS[error.errno]}; what was there before is untouched"
        raise type(error)(error.errno, reason) from None
