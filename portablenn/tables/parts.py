"""The parts of a table's rows: for training, validation and test; split at random, by groups, by time, or into folds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import random
from .cells import as_bools, as_numbers, as_text
from .readers import Table, TableError
from .types import ColumnType

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST, NONE = 0, 1, 2, -1
"""The parts as numbers; rows of no part are not used."""

SHARES = (0.8, 0.1, 0.1)
"""Shares of the rows that each part gets, if there are many."""

VALIDATION_ROWS = 100
"""Number of validation rows that small tables have, too, if they are not more than a fifth of the rows."""

MAX_STRATA = 100
"""Maximum number of distinct cells of a target whose shares are the same in all folds."""


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
    words = _words(np.arange(start, start + count), seed)[0]
    return np.searchsorted(np.cumsum(shares)[:-1] * 2.0**32, words, side="right")


def _words(numbers: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two random numbers, uint32, (rows,), for each number of 64 bits."""
    key = random.new_key(seed, random.SPLIT, 1)
    counter = tuple((numbers >> shift & 0xFFFFFFFF).astype(np.uint32).view(np.int32) for shift in (32, 0))
    first, second = random.threefry2x32(key, counter)  # type: ignore[arg-type]
    return first.view(np.uint32), second.view(np.uint32)


@dataclass(frozen=True)
class Assignment:
    """The part of each row of a table: 0 for training, 1 for validation, 2 for test, -1 for none.

    Attributes
    ----------
    shares
        Shares of the three parts.
    seed
        The seed.
    parts
        The part of each row, (rows,), int8; None if it depends on row number and seed alone, see `assign_parts`.
    """

    shares: tuple[float, ...] = SHARES
    seed: int = 0
    parts: np.ndarray | None = None

    def of(self, start: int, count: int) -> np.ndarray:
        """Return the parts of some rows, (count,)."""
        if self.parts is None:
            return assign_parts(start, count, self.shares, self.seed)
        return self.parts[start : start + count]


@dataclass(frozen=True)
class Split:
    """How the rows of a table are split.

    Attributes
    ----------
    shares
        Shares of training, validation and test rows, or a function of the number of rows that returns them.
    seed
        The seed.
    group
        A column: rows with equal cells there are in the same part.
    time
        A column: the latest rows are for the test, the latest of the others for validation; equal times are in the same part.
    fold
        (k, folds): the rows for the test are the k-th of so many parts of about equal size, k from 0. With ``time`` it is the
        (k + 1)-th, and the rows after it are not used.

    Raises
    ------
    ValueError
        If both ``group`` and ``time`` are given, or ``fold`` is not valid.
    """

    shares: Sequence[float] | Callable[[int], Sequence[float]] = SHARES
    seed: int = 0
    group: str | None = None
    time: str | None = None
    fold: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.group is not None and self.time is not None:
            raise ValueError("arguments group and time are mutually exclusive: rows are split by one of them")
        if self.fold is not None:
            k, folds = self.fold
            if not (isinstance(k, int) and isinstance(folds, int) and folds >= 2 and 0 <= k < folds):
                raise ValueError(
                    f"expected fold (k, folds), integers with 0 <= k < folds and at least 2 folds, got {self.fold!r}"
                )

    def assign(self, table: Table, rows: int, types: Mapping[str, ColumnType], target: str) -> Assignment:
        """Return the part of each row, after a pass through the column that decides it, if one does.

        Raises
        ------
        TableError
            If there are fewer groups, times or rows than parts, or the column of times has missing cells or is text.
        """
        shares = tuple(self.shares(rows) if callable(self.shares) else self.shares)
        if self.group is None and self.time is None and self.fold is None:
            return Assignment(shares, self.seed)
        present = _present(table, target, types[target])
        count = int(present.sum())
        if not count:
            return Assignment(shares, self.seed)  # there is nothing to split, which is an error of its own
        if self.fold is not None and self.fold[1] > count:
            raise TableError(
                f"{table.name} has {count} rows with {target!r}: expected at most as many folds, got {self.fold[1]}"
            )
        if self.group is not None:
            parts = self._by_group(table, present, shares)
        elif self.time is not None:
            parts = self._by_time(table, present, shares, types[self.time])
        else:
            parts = self._by_fold(table, present, shares, target)
        for part, share in enumerate(shares):
            if share and not (present & (parts == part)).any():
                by = f"column {self.group or self.time!r}" if self.group or self.time else "the folds"
                why = "it has too few distinct cells, or most rows have the same one"
                raise TableError(f"{by} would leave no rows for {PARTS[part]}, of {count:,} with {target!r}: {why}")
        return Assignment(shares, self.seed, np.where(present, parts, NONE).astype(np.int8))

    def _by_fold(self, table: Table, present: np.ndarray, shares: Sequence[float], target: str) -> np.ndarray:
        """Split into folds of equal size that have the same share of each value of the target, if it has few."""
        assert self.fold is not None
        k, folds = self.fold
        first, second = _words(np.arange(len(present)), self.seed)
        names, codes = _codes(table, target)
        strata = codes if len(names) <= MAX_STRATA else np.zeros_like(codes)
        order = np.lexsort((first, strata, ~present))
        fold_of = np.empty(len(present), dtype=np.int64)
        fold_of[order] = np.arange(len(present)) % folds
        validation = second < shares[VALIDATION] / (1.0 - shares[TEST]) * 2.0**32
        return np.where(fold_of == k, TEST, np.where(validation, VALIDATION, TRAIN))

    def _by_group(self, table: Table, present: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        assert self.group is not None
        names, codes = _codes(table, self.group)
        sizes = np.bincount(codes[present], minlength=len(names))
        digests = [hashlib.blake2b(repr(name).encode(), digest_size=8).digest() for name in names]
        words = _words(np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64), self.seed)[0]
        left = [group for group in np.argsort(words, kind="stable").tolist() if sizes[group]]
        needed = max(sum(share > 0 for share in shares), self.fold[1] if self.fold else 0)
        if len(left) < needed:
            raise TableError(
                f"column {self.group!r} has {len(left)} groups: expected at least {needed}, so that each part has one"
            )
        part_of, count = np.full(len(names), TRAIN, dtype=np.int8), int(present.sum())
        if self.fold is None:
            part_of[_fill(left, sizes, shares[TEST] * count)] = TEST
        else:
            k, folds = self.fold
            filled = np.zeros(folds, dtype=np.int64)
            for group in sorted(left, key=lambda g: -sizes[g]):  # the largest first, as scikit-learn's GroupKFold
                smallest = int(filled.argmin())
                filled[smallest] += sizes[group]
                part_of[group] = TEST if smallest == k else TRAIN
        left = [group for group in left if part_of[group] == TRAIN]
        if len(left) > 1:  # else there would be none to train on
            part_of[_fill(left, sizes, shares[VALIDATION] * count)] = VALIDATION
        return part_of[codes]

    def _by_time(self, table: Table, present: np.ndarray, shares: Sequence[float], kind: ColumnType) -> np.ndarray:
        assert self.time is not None
        if kind.kind not in ("number", "date"):
            raise TableError(f"column {self.time!r} holds neither numbers nor dates, which time requires")
        columns = [
            as_numbers(batch.column(self.time), self.time, kind.cells)[0] for batch in table.select((self.time,))
        ]
        times = np.concatenate(columns) if columns else np.zeros(0)
        if missing := int(np.sum(~np.isfinite(times[present]))):
            raise TableError(
                f"{missing:,} cells of {self.time!r} are missing or cannot be read, and rows are split by time: fill them, or "
                "leave out these rows"
            )
        begin, end = 1.0 - shares[TEST], 1.0
        if self.fold is not None:
            k, folds = self.fold
            begin, end = (k + 1) / (folds + 1), (k + 2) / (folds + 1)
        ordered = np.sort(times[present])
        validation = begin * (1.0 - shares[VALIDATION] / (1.0 - shares[TEST]))
        parts = np.full(len(times), NONE, dtype=np.int8)
        for part, share in ((TEST, end), (VALIDATION, begin), (TRAIN, validation)):
            bound = ordered[min(len(ordered) - 1, round(share * len(ordered)))]
            parts[times <= bound if share == 1.0 else times < bound] = part
        return parts


def _fill(groups: Sequence[int], sizes: np.ndarray, wanted: float) -> list[int]:
    """Return groups that together have about the number of rows that is wanted, the first ones that fit; at least one."""
    taken: list[int] = []
    have = 0
    for group in groups if wanted else ():
        if have + sizes[group] / 2 <= wanted:
            taken.append(group)
            have += sizes[group]
    return taken or ([min(groups, key=lambda g: sizes[g])] if wanted else [])


def _present(table: Table, target: str, kind: ColumnType) -> np.ndarray:
    """Return which rows have a target, (rows,), bool."""
    found = [np.zeros(0, dtype=bool)]
    for batch in table.select((target,)):
        column = batch.column(target)
        if kind.kind in ("number", "date"):
            found.append(np.isfinite(as_numbers(column, target, kind.cells)[0]))
        else:
            found.append(as_bools(as_text(column, kind.marks, exact=True, trim=not kind.source).is_valid()))
    return np.concatenate(found)


def _codes(table: Table, column: str) -> tuple[list[Any], np.ndarray]:
    """Return the distinct cells of a column as texts, None for missing ones, and their index for each row, (rows,)."""
    import pyarrow

    known: dict[Any, int] = {}
    codes = [np.zeros(0, dtype=np.int64)]
    for batch in table.select((column,)):
        encoded = as_text(batch.column(column)).dictionary_encode()
        names = [*encoded.dictionary.to_pylist(), None]
        indices = encoded.indices.fill_null(pyarrow.scalar(len(names) - 1, encoded.indices.type)).to_numpy()
        present = np.unique(indices).tolist()
        of_batch = np.zeros(len(names), dtype=np.int64)
        for i in present:
            of_batch[i] = known.setdefault(names[i], len(known))
        codes.append(of_batch[indices])
    return list(known), np.concatenate(codes)


def read_parts(table: Table, columns: Sequence[str], assignment: Assignment) -> Iterator[tuple[Any, int, np.ndarray]]:
    """Yield record batches, the number of their first row, and the part of each of their rows."""
    start = 0
    for batch in table.select(tuple(columns)):
        yield batch, start, assignment.of(start, batch.num_rows)
        start += batch.num_rows
