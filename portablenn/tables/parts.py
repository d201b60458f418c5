"""The parts of a table's rows: for training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import random
from .readers import Table

PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
"""Shares of the rows that each part gets, if there are many."""

VALIDATION_ROWS = 100
"""Number of validation rows that small tables have, too, if they are not more than a fifth of the rows."""


def shares_of(test_share: float, rows: int) -> tuple[float, float, float]:
    """Return the shares of training, validation and test rows in a table.

    Examples
    --------
    >>> [round(share, 3) for share in shares_of(0.1, 5000)], [round(share, 3) for share in shares_of(0.1, 200)]
    ([0.8, 0.1, 0.1], [0.7, 0.2, 0.1])
    """
    validation = min(0.2, max(SHARES[1], VALIDATION_ROWS / max(1, rows)))
    return (1.0 - validation - test_share, validation, test_share)


def assign_parts(start: int, count: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the part of each row, 0 for training, 1 for validation, 2 for test: it depends on row number and seed alone."""
    key = random.new_key(seed, random.SPLIT, 1)
    row_numbers = np.arange(start, start + count)
    counter = tuple((row_numbers >> shift & 0xFFFFFFFF).astype(np.uint32).view(np.int32) for shift in (32, 0))
    words = random.threefry2x32(key, counter)[0].view(np.uint32)  # type: ignore[arg-type]
    return np.searchsorted(np.cumsum(shares)[:-1] * 2.0**32, words, side="right")


def read_parts(
    table: Table, columns: Sequence[str], shares: Sequence[float], seed: int
) -> Iterator[tuple[Any, int, np.ndarray]]:
    """Yield record batches, the number of their first row, and the part of each of their rows; see `assign_parts`."""
    start = 0
    for batch in table.select(tuple(columns)):
        yield batch, start, assign_parts(start, batch.num_rows, shares, seed)
        start += batch.num_rows
