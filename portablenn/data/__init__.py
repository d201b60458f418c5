"""Data: files of arrays, rows that do not fit into memory, and the digits of MNIST."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import split
    from .mnist import Digits, digits, read_idx
    from .npy import read_npy, read_npz
    from .sources import Rows

__all__ = ["Digits", "Rows", "digits", "read_idx", "read_npy", "read_npz", "split"]

_MODULES = {
    "Digits": ".mnist", "Rows": ".sources", "digits": ".mnist", "read_idx": ".mnist", "read_npy": ".npy", "read_npz": ".npy",
    "split": ".dataset",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import at the first use: gzip and zipfile take longer to import than all modules of this folder."""
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
