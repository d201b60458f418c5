"""Data: files of arrays and tables, rows that do not fit into memory, and MNIST's digits."""

from .arrays import Rows, read_npy, read_npz, split
from .digits import Digits, digits, read_idx

__all__ = ["Digits", "Rows", "digits", "read_idx", "read_npy", "read_npz", "split"]
