"""Atomic writes: a power cut, a kill or a full disk never leaves a file half written."""

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
"""Suffix of files that are being written."""

ABANDONED = 600.0
"""Seconds without a change after which such a file counts as left over."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` once it is complete (flushed, fsynced, renamed); after an error ``path`` is unchanged.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the file cannot be written; the message gives the reason.

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
        raise FileNotFoundError(f"cannot write {name}: the folder {folder} does not exist")
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
    """Write a whole file; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the disk, where the operating system can."""
    if os.name != "posix":
        return
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems do not support it
            raise
    finally:
        os.close(entry)


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder as a Path, created if necessary, after a test write; remove files left over by earlier processes."""
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
    """Add the path and the reason to errors of the operating system."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason = f"{os.fspath(path)} could not be written: {_REASONS[error.errno]}; its previous content is unchanged"
        raise type(error)(error.errno, reason) from None
