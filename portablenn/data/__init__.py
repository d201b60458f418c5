"""Data: files of arrays and tables, rows that do not fit into memory, and MNIST's digits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mnist import Digits, digits, read_idx
    from .npy import Rows, read_npy, read_npz, split

__all__ = ["Digits", "Rows", "digits", "read_idx", "read_npy", "read_npz", "split"]


def __getattr__(name: str) -> object:
    """Import the readers of files at the first use: gzip and zipfile cost an import more than all modules of this folder."""
    import importlib

    if name in __all__:
        module = ".mnist" if name in ("Digits", "digits", "read_idx") else ".npy"
        return getattr(importlib.import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
