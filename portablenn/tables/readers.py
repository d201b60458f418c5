"""Readers of tables: CSV, Parquet and Arrow files, batch by batch, and data frames in memory."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH_ROWS = 1 << 16
"""Maximum number of rows in memory at a time."""

CSV_BLOCK = 1 << 22
"""Bytes of a CSV file that are parsed at a time; no line may be longer."""


class TableError(ValueError):
    """A table cannot be read, or does not fit the model."""


@dataclass(frozen=True)
class Table:
    """A source of rows with named columns, which can be read repeatedly.

    Attributes
    ----------
    name
        Name for messages.
    columns
        Names of the columns, in their order.
    batches
        Function that returns an iterator over the rows, as record batches of pyarrow.
    untyped
        Whether all cells are text, as in a CSV file, so that numbers have to be recognized.
    index
        Names of the index of a data frame, which is never an input; files have them among the columns, frames in memory do not.

    Raises
    ------
    TableError
        If two columns have the same name.
    """

    name: str
    columns: tuple[str, ...]
    batches: Callable[[], Iterator[Any]]
    untyped: bool = False
    index: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        duplicates = sorted(name for name, count in Counter(self.columns).items() if count > 1)
        if duplicates:
            raise TableError(f"{self.name} has two columns named {duplicates[0]!r}: rename one")

    def require(self, columns: tuple[str, ...]) -> None:
        """Raise a `TableError` that names the columns that the table lacks, if there are any."""
        missing = [c for c in columns if c not in self.columns]
        if missing:
            of_index = [c for c in missing if c in self.index]
            fix = f"; {of_index[0]!r} is its index: apply reset_index() to use it" if of_index else ""
            raise TableError(
                f"{self.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}: it has "
                f"{', '.join(map(repr, self.columns))}{fix}"
            )

    def select(self, columns: tuple[str, ...]) -> Iterator[Any]:
        """Yield record batches of some columns; raise `TableError` as `require` does."""
        self.require(columns)
        with _table_errors(self.name):
            for batch in self.batches():
                yield _without_string_views(batch.select(list(columns)))


def _without_string_views(batch: Any) -> Any:
    """Cast string views, as polars has them, also in categories, to strings: pyarrow lacks functions for views."""
    import pyarrow
    from pyarrow import types

    def cast(column: Any) -> Any:
        if types.is_dictionary(column.type) and types.is_string_view(column.type.value_type):
            return pyarrow.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pyarrow.string()))
        return column.cast(pyarrow.string()) if types.is_string_view(column.type) else column

    columns = [cast(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns)):
        return batch
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


@contextmanager
def _table_errors(name: str) -> Iterator[None]:
    """Raise pyarrow's errors as `TableError` with the table's name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the operating system's; pyarrow's own, for damaged files, have no number
        reason = str(error).splitlines()[0][:300]
        if "straddling object" in reason:
            reason = f"a line, or a quoted cell whose quotes do not end, has more than {CSV_BLOCK:,} bytes"
        fix = ": save it as UTF-8" if "UTF8" in reason or isinstance(error, UnicodeDecodeError) else ""
        raise TableError(f"{name} cannot be read: {reason}{fix}") from None


def open_table(source: Any) -> Table:
    """Return a table from a file, whose format its extension decides, or from data in memory.

    Parameters
    ----------
    source
        A path to a .csv, .tsv or .txt file (also compressed, .csv.gz), .parquet or .pq, .arrow, .feather or .ipc; a data
        frame of pandas, polars or pyarrow; a dict {name: column}; or a `Table`, which is returned.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TableError
        If it is not a table, or two columns have the same name.

    Examples
    --------
    >>> open_table({"age": [1, 2]}).columns
    ('age',)
    """
    if isinstance(source, Table):
        return source
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError('tables need pyarrow: pip install "portablenn[tables]"') from error
    if not isinstance(source, (str, os.PathLike)):
        return _in_memory(source)
    path = Path(source)
    if path.is_dir():
        raise TableError(f"{path} is a folder: expected a file")
    if not path.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    if not has_reader(path):
        raise TableError(f"{path} has an unknown extension: expected .{', .'.join(READERS)}")
    with _table_errors(str(path)):
        return READERS[_extension(path)](path)


def has_reader(path: Path) -> bool:
    """Return whether the extension of a file is that of a table."""
    return _extension(path) in READERS


def _extension(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _in_memory(source: Any) -> Table:
    import pyarrow

    apart: tuple[str, ...] = ()
    try:
        if hasattr(source, "iloc"):  # a data frame of pandas, whose index is not converted
            table = _from_columns(source, lambda: pyarrow.Table.from_pandas(source, preserve_index=False))
            apart = tuple(str(name) for name in source.index.names if name is not None)
        elif isinstance(source, Mapping):
            table = _from_columns(source, lambda: pyarrow.table(source))
        else:
            table = source if isinstance(source, pyarrow.Table) else pyarrow.table(source)
    except (TypeError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise TableError(
            f"{type(source).__name__} is not a table ({error}): expected a path, a data frame, or {{name: column}}"
        ) from None
    names = tuple(table.column_names)
    index = (*_index_of(table.schema), *(name for name in apart if name not in names))
    return Table("the table", names, lambda: iter(table.to_batches(max_chunksize=BATCH_ROWS)), index=index)


def _from_columns(source: Any, convert: Callable[[], Any]) -> Any:
    """Return a table of pyarrow; columns of objects of several types, such as numbers and texts, as text."""
    import pyarrow

    try:
        return convert()
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        if len({str(name) for name in source}) < len(list(source)):
            raise  # two columns have the same name
        arrays = {}
        for name in source:
            try:
                arrays[str(name)] = _as_array(source[name])
            except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as own:
                raise TableError(f"column {str(name)!r} cannot be read: {str(own).splitlines()[0]}") from error
        return pyarrow.table(arrays)


def _as_array(cells: Any) -> Any:
    import pyarrow

    try:
        return pyarrow.array(_native(cells), from_pandas=True)
    except (pyarrow.ArrowException, TypeError, ValueError):
        if any(isinstance(cell, (list, dict, set, bytes)) for cell in cells):
            raise
        present = [None if is_missing(cell) else cell for cell in cells]
    try:
        return pyarrow.array(present)
    except (pyarrow.ArrowException, TypeError, ValueError):
        return pyarrow.array([None if cell is None else str(cell) for cell in present])


def is_missing(cell: Any) -> bool:
    """Return whether an object in an array or a data frame stands for a missing cell: None, NaN, NA or NaT of any library."""
    return not isinstance(cell, str) and str(cell) in ("None", "nan", "NaN", "<NA>", "NaT")


def _native(cells: Any) -> Any:
    """Return an array of NumPy in an order of bytes, and with a unit of time, that pyarrow knows."""
    dtype = getattr(cells, "dtype", None)
    if not isinstance(dtype, np.dtype):
        return cells
    if dtype.kind in "mM" and np.datetime_data(dtype) not in {(unit, 1) for unit in ("s", "ms", "us", "ns")}:
        return cells.astype(f"{dtype.kind}8[s]")
    return cells if dtype.isnative else cells.astype(dtype.newbyteorder("="))


def _index_of(schema: Any) -> tuple[str, ...]:
    """Return the names of the columns that were the index of a data frame of pandas."""
    written = (schema.pandas_metadata or {}).get("index_columns", [])
    return tuple(name for name in schema.names if name in written or re.fullmatch(r"__index_level_\d+__", name))


def _csv(path: Path) -> Table:
    import pyarrow
    from pyarrow import csv

    with pyarrow.input_stream(str(path), compression="detect") as file:
        head = file.read(CSV_BLOCK)
    if not head.strip():
        raise TableError(f"{path} is empty")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:1000]:
        raise TableError(f"{path} cannot be read: it is in UTF-16, or not a text: save it as UTF-8")
    text = head.decode("utf-8-sig", errors="replace")
    if len(head) >= CSV_BLOCK and "\n" not in text:
        raise TableError(f"{path} has a line of more than {CSV_BLOCK:,} bytes: is it a table?")
    is_tsv = path.name.lower().removesuffix(".gz").endswith(".tsv")
    delimiter = "\t" if is_tsv else _delimiter(text)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)  # a quoted newline may come late in the file
    options = csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False)

    def reader(file: Any, **types: Any) -> Any:
        return csv.open_csv(file, options, parse, csv.ConvertOptions(**types, strings_can_be_null=False))

    with pyarrow.input_stream(str(path), compression="detect") as file, reader(file) as first:
        names = tuple(first.schema.names)

    def batches() -> Iterator[Any]:
        types = dict.fromkeys(names, pyarrow.string())
        with pyarrow.input_stream(str(path), compression="detect") as file, reader(file, column_types=types) as rows:
            yield from rows

    return Table(path.name, names, batches, untyped=True)


def _delimiter(text: str) -> str:
    """Return the delimiter that all of the first lines hold equally often, else the most frequent one of the first line."""
    unquoted = re.sub(r'"(?:[^"]|"")*"', "", text[: 1 << 18])
    first, *others = [line for line in unquoted.splitlines() if line.strip()][:50] or [""]
    for mark in "\t;|,":
        if mark in first and all(
            line.count(mark) == first.count(mark) for line in others[:-1]
        ):  # the last may be cut off
            return mark
    return max(",;\t|", key=first.count)


def _parquet(path: Path) -> Table:
    from pyarrow import parquet

    schema = parquet.read_schema(path)

    def batches() -> Iterator[Any]:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)

    return Table(path.name, tuple(schema.names), batches, index=_index_of(schema))


def _arrow(path: Path) -> Table:
    """Read the file format of Arrow by memory map, its streaming format from the beginning."""
    import pyarrow

    try:
        file = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
    except pyarrow.ArrowInvalid:
        return _arrow_stream(path)

    def batches() -> Iterator[Any]:
        for i in range(file.num_record_batches):
            batch = file.get_batch(i)
            yield from (batch.slice(start, BATCH_ROWS) for start in range(0, batch.num_rows, BATCH_ROWS))

    return Table(path.name, tuple(file.schema.names), batches, index=_index_of(file.schema))


def _arrow_stream(path: Path) -> Table:
    import pyarrow

    with pyarrow.OSFile(str(path)) as file:
        schema = pyarrow.ipc.open_stream(file).schema

    def batches() -> Iterator[Any]:
        with pyarrow.OSFile(str(path)) as file:
            yield from pyarrow.ipc.open_stream(file)

    return Table(path.name, tuple(schema.names), batches, index=_index_of(schema))


READERS: dict[str, Callable[[Path], Table]] = {
    "csv": _csv, "tsv": _csv, "txt": _csv, "parquet": _parquet, "pq": _parquet,
    "arrow": _arrow, "feather": _arrow, "ipc": _arrow,
}  # fmt: skip
"""The reader of each extension."""
