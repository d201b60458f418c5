"""Preparation: from a table's rows to a network's inputs, by what was learnt of the training part; kept in the model file.

Requires pyarrow. Nothing is held but some rows at a time; what a training goes through again and again is written to a
temporary file once, a number a cell.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import random
from ..data.sources import Block
from .columns import Category, Column, Number, Seen, coded, numbers, texts
from .readers import Table, TableError

BLOCK = 1 << 18
"""Numbers of a block, about."""

CLASSES = 20
"""A column of at most so many whole numbers is taken for classes, if nobody says otherwise."""

MOST_CLASSES = 1000

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Target:
    """The column that is predicted.

    Attributes
    ----------
    name
        Its name.
    classes
        Of a classification, in their order, as text; None of a regression.
    whole
        Whether the classes are whole numbers.
    mean, scale
        Of a regression.
    date
        Whether the values are dates, as days since 1970.
    """

    name: str
    classes: tuple[str, ...] | None
    whole: bool
    mean: float
    scale: float
    date: bool = False

    def encoded(self, column: Any) -> np.ndarray:
        """What the network is to say: numbers of classes, int32, or scaled values, float32; below 0, or NaN, where missing."""
        if self.classes is None:
            values = numbers(column, self.name, self.date)
            return ((np.where(np.isfinite(values), values, np.nan) - self.mean) / self.scale).astype(np.float32)
        return coded(texts(column, exactly=True), self.classes).astype(np.int32)

    def decoded(self, found: np.ndarray) -> np.ndarray:
        """What people want: labels, or values."""
        if self.classes is None:
            return np.asarray(found, dtype=np.float64) * self.scale + self.mean
        return self.labels[np.asarray(found).astype(np.int64)]

    @property
    def labels(self) -> np.ndarray:
        """The classes, as numbers if they are."""
        assert self.classes is not None
        return np.asarray([int(c) for c in self.classes] if self.whole else list(self.classes))


@dataclass(frozen=True)
class Preparation:
    """What becomes of each column.

    Attributes
    ----------
    columns
        Those that are used, in the order of the inputs.
    target
        What is predicted.
    """

    columns: tuple[Column, ...]
    target: Target

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the network's inputs."""
        return tuple(name for column in self.columns for name in column.inputs)

    def compact(self, batch: Any) -> np.ndarray:
        """A number a cell, (rows, columns), float32, of a record batch that has the columns."""
        found = [column.compact(batch.column(column.name)) for column in self.columns]
        return np.stack(found, axis=1)

    def expanded(self, compact: np.ndarray) -> np.ndarray:
        """The network's inputs, (rows, inputs), float32."""
        return np.stack([part for i, c in enumerate(self.columns) for part in c.expanded(compact[:, i])], axis=1)

    def rows(self, table: Table, unseen: Counter[str] | None = None) -> Iterator[tuple[Any, np.ndarray]]:
        """The record batches of a table, whole, and what the network takes of each.

        Parameters
        ----------
        table
            The table.
        unseen
            Is told how many cells of each column hold a text that was not among the rows to learn from.

        Raises
        ------
        TableError
            If a column is missing, or holds what it did not hold.
        """
        table.check(tuple(column.name for column in self.columns))
        for batch in table.chosen(table.columns):
            compact = self.compact(batch)
            if unseen is not None:
                for i, column in enumerate(self.columns):
                    if isinstance(column, Category) and not column.rarer:
                        unseen[column.name] += int(np.sum(compact[:, i] == -1))
            yield batch, self.expanded(compact)


@dataclass(frozen=True)
class Learnt:
    """A preparation, and what is to be told of how it came about.

    Attributes
    ----------
    preparation
        It.
    left_out
        {column: why it is not used}.
    rows
        {part: how many rows}.
    without_target
        Rows that were passed over, for nobody knows what they should be.
    """

    preparation: Preparation
    left_out: dict[str, str]
    rows: dict[str, int]
    without_target: int


def parts_of_rows(start: int, count: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """Which part each row belongs to, 0 to train, 1 validation, 2 test: by its number and the seed alone.

    Examples
    --------
    >>> np.bincount(parts_of_rows(0, 1000, (0.8, 0.1, 0.1), 0)).tolist()
    [799, 97, 104]
    """
    key = random.new_key(seed, random.SPLIT, 1)
    numbers_ = np.arange(start, start + count)
    counter = tuple((numbers_ >> shift & 0xFFFFFFFF).astype(np.uint32).view(np.int32) for shift in (32, 0))
    words = random.threefry2x32(key, counter)[0].view(np.uint32)  # type: ignore[arg-type]
    return np.searchsorted(np.cumsum(shares)[:-1] * 2.0**32, words, side="right")


def learn(
    table: Table,
    target: str,
    task: str | None = None,
    ignore: Sequence[str] = (),
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Learnt:
    """Go through a table once, and learn what to do with its columns from the rows that are for training.

    Parameters
    ----------
    table
        The table.
    target
        The column to be predicted.
    task
        "classification" or "regression"; None for what the column looks like: text and few whole numbers are classes.
    ignore
        Columns that are not to be used.
    shares, seed
        Of the rows to train on, to stop by, and to test with; which is which.

    Raises
    ------
    TableError
        If nothing can be learnt of it.
    """
    wanted = tuple(c for c in table.columns if c not in ignore)
    unknown = [c for c in ignore if c not in table.columns]
    if unknown or target not in wanted:
        table.check((*unknown, target) if target not in table.columns else tuple(unknown))
        raise TableError(f"the target {target!r} is among the columns to be ignored")
    seen = {c: Seen(c, table.untyped, counted=c == target) for c in wanted}
    everywhere = Seen(target, table.untyped, counted=True)
    rows, start = dict.fromkeys(PARTS, 0), 0
    import pyarrow

    for batch in table.chosen(wanted):
        part = parts_of_rows(start, batch.num_rows, shares, seed)
        start += batch.num_rows
        known = texts_there(batch.column(target))
        everywhere.add(batch.column(target))
        for number, name in enumerate(PARTS):
            rows[name] += int(np.sum((part == number) & known))
        train = batch.filter(pyarrow.array((part == 0) & known))
        for name, column in seen.items():
            column.add(train.column(name))
    if start and not sum(rows.values()):
        raise TableError(f"every cell of the target {target!r} is missing: there is nothing to learn from")
    if rows["train"] < 2:
        raise TableError(f"{table.name} has {start} rows, {rows['train']} of them to train on: expected more")
    goal = _target(everywhere, seen.pop(target), task)
    columns, left_out = [], dict.fromkeys(ignore, "it is to be ignored")
    for name, one in seen.items():
        found = one.learnt()
        if isinstance(found, str):
            left_out[name] = found
        else:
            columns.append(found)
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TableError(f"{table.name} has no column to predict {target!r} from ({why})")
    return Learnt(Preparation(tuple(columns), goal), left_out, rows, start - sum(rows.values()))


def texts_there(column: Any) -> np.ndarray:
    """Where there is something, (rows,), bool."""
    return ~texts(column).is_null().to_numpy(zero_copy_only=False)


def _target(everywhere: Seen, train: Seen, task: str | None) -> Target:
    name, values = everywhere.name, everywhere.values
    if everywhere.unusable:
        raise TableError(f"the target {name!r} cannot be predicted: {everywhere.unusable}")
    if task is None:
        few = values is not None and len(values) <= CLASSES
        few = few and 2 * len(values or ()) <= everywhere.rows
        classes = not everywhere.is_number or (everywhere.whole and few)
        task = "classification" if classes else "regression"
    if task == "regression":
        if not everywhere.is_number:
            why = everywhere.nearly_numbers() or "it holds text"
            raise TableError(f"the target {name!r} is of no numbers, which a regression needs: {why}")
        learnt = train.learnt()
        if not isinstance(learnt, Number):
            raise TableError(f"the target {name!r} cannot be predicted: {learnt}")
        return Target(name, None, False, learnt.mean, learnt.scale, learnt.date)
    if values is None or len(values) > MOST_CLASSES:
        raise TableError(
            f"the target {name!r} has more than {MOST_CLASSES} classes: is it one of numbers, for a regression?"
        )
    if len(values) < 2:
        raise TableError(
            f"the target {name!r} is {next(iter(values), 'missing')} everywhere: there is nothing to predict"
        )
    whole = all(_is_whole(value) for value in values)
    ordered = sorted(values, key=int) if whole else sorted(values, key=natural)
    return Target(name, tuple(ordered), whole, 0.0, 1.0)


def natural(text: str) -> list[Any]:
    """A key by which "class 10" comes after "class 9".

    Examples
    --------
    >>> sorted(["b10", "b9", "a"], key=natural)
    ['a', 'b9', 'b10']
    """
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text)]


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text


class Spilled:
    """Rows of float32 in a file that has no name, so that it is gone when it is closed; not mapped, so that it takes no memory.

    Examples
    --------
    >>> rows = Spilled(2)
    >>> rows.append(np.eye(2, dtype=np.float32))
    >>> rows[1:].tolist(), len(rows)
    ([[0.0, 1.0]], 2)
    >>> rows.close()
    """

    def __init__(self, columns: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="portablenn-")  # noqa: SIM115  # close() does
        self._columns, self._rows = columns, 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: np.ndarray) -> None:
        """Write some more."""
        self._file.seek(4 * self._columns * self._rows)
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self._rows += len(rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some of them."""
        start, stop, _ = rows.indices(self._rows)
        self._file.seek(4 * self._columns * start)
        content = self._file.read(4 * self._columns * (stop - start))
        return np.frombuffer(content, dtype=np.float32).reshape(-1, self._columns)

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


@dataclass(frozen=True)
class Prepared:
    """The rows of one part of a table, as `sources.Blocks`: a number a cell in a file, expanded when read.

    Attributes
    ----------
    preparation
        Which expands them.
    cells, targets
        (rows, columns) and (rows,).
    """

    preparation: Preparation
    cells: Spilled
    targets: np.ndarray

    @property
    def columns(self) -> int:
        """See `sources.Blocks`."""
        return len(self.preparation.inputs)

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `sources.Blocks`."""
        full, rest = divmod(len(self.targets), self._rows)
        return (self._rows,) * full + ((rest,) if rest else ())

    @property
    def _rows(self) -> int:
        return max(1, BLOCK // self.columns)

    def read(self, block: int) -> Block:
        """See `sources.Blocks`."""
        return *self.arrays(slice(block * self._rows, (block + 1) * self._rows)), None

    def arrays(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Inputs, (rows, inputs), and targets, (rows,)."""
        return self.preparation.expanded(self.cells[rows]), self.targets[rows]


@contextmanager
def prepared(table: Table, learnt: Learnt, shares: Sequence[float], seed: int) -> Iterator[dict[str, Prepared]]:
    """The parts of a table: gone through once more, and written, a number a cell, to temporary files."""
    preparation = learnt.preparation
    target = preparation.target
    cells = {name: Spilled(len(preparation.columns)) for name in PARTS}
    targets: dict[str, list[np.ndarray]] = {name: [target.encoded(_nothing())] for name in PARTS}
    start = 0
    try:
        for batch in table.chosen((*(c.name for c in preparation.columns), target.name)):
            part = parts_of_rows(start, batch.num_rows, shares, seed)
            start += batch.num_rows
            known, compact = texts_there(batch.column(target.name)), preparation.compact(batch)
            encoded = target.encoded(batch.column(target.name))
            for number, name in enumerate(PARTS):
                chosen = (part == number) & known
                cells[name].append(compact[chosen])
                targets[name].append(encoded[chosen])
        yield {name: Prepared(preparation, cells[name], np.concatenate(targets[name])) for name in PARTS}
    finally:
        for file in cells.values():
            file.close()


def _nothing() -> Any:
    import pyarrow

    return pyarrow.array([], type=pyarrow.string())
