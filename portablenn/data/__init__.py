"""Data: files of arrays and tables, rows that do not fit into memory, and MNIST's digits."""

from .mnist import Digits, digits, read_idx
from .npy import Rows, read_npy, read_npz, split

__all__ = ["Digits", "Rows", "digits", "read_idx", "read_npy", "read_npz", "split"]
