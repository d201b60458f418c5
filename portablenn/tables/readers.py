"""Reading tables: CSV, Parquet and Arrow files, some rows at a time, and data frames in memory.

Requires pyarrow (the extra "tables").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCH = 1 << 16
"""Rows, at most, that are in memory at a time."""

CSV_BYTES = 1 << 22
"""Bytes of a CSV file that are parsed at a time; no line may be longer."""

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
"""What stands for a missing cell among texts."""


class TableError(ValueError):
    """A table cannot be read, or is not what a model is for."""


@dataclass(frozen=True)
class Table:
    """Rows of named columns, which can be gone through again and again.

    Attributes
    ----------
    name
        For people.
    columns
        Their names, in their order.
    batches
        Returns the rows, as pyarrow's record batches.
    untyped
        Whether every cell is a text, of which nobody has said whether it is a number.
    """

    name: str
    columns: tuple[str, ...]
    batches: Callable[[], Iterator[Any]]
    untyped: bool = False

    def check(self, columns: tuple[str, ...]) -> None:
        """Refuse a table that lacks one of some columns.

        Raises
        ------
        TableError
            It names those that are missing.
        """
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise TableError(
                f"{self.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}: it has "
                f"{', '.join(map(repr, self.columns))}"
            )

    def chosen(self, columns: tuple[str, ...]) -> Iterator[Any]:
        """The rows of some columns; see `check`."""
        self.check(columns)
        with explained(self.name):
            for batch in self.batches():
                yield _plain(batch.select(list(columns)))


def _plain(batch: Any) -> Any:
    """With plain texts, in place of a kind for which pyarrow lacks functions (polars has it)."""
    import pyarrow

    if not any(pyarrow.types.is_string_view(kind) for kind in batch.schema.types):
        return batch
    columns = [c.cast(pyarrow.string()) if pyarrow.types.is_string_view(c.type) else c for c in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Pyarrow's errors, as ours, with the file's name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the operating system; pyarrow raises others for files that are damaged
        said = str(error).splitlines()[0][:300]
        hint = ": save it as UTF-8" if "UTF8" in said else ""
        raise TableError(f"{name} cannot be read: {said}{hint}") from None


def open_table(source: Any) -> Table:
    """A table of a file, by the end of its name, or of what is in memory.

    Parameters
    ----------
    source
        A path to .csv, .tsv or .txt (also .gz), .parquet or .pq, .arrow, .feather or .ipc; or a data frame of pandas, polars
        or pyarrow; or {name: column}.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TableError
        If it is no table.

    Examples
    --------
    >>> open_table({"age": [1, 2]}).columns
    ('age',)
    """
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
        raise FileNotFoundError(f"there is no file {path}")
    ends = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    kinds = {"csv": _csv, "tsv": _csv, "txt": _csv, "parquet": _parquet, "pq": _parquet}
    kinds |= dict.fromkeys(("arrow", "feather", "ipc"), _arrow)
    if ends not in kinds:
        raise TableError(f"{path} is no table by its name: expected one that ends in .{', .'.join(kinds)}")
    with explained(str(path)):
        table = kinds[ends](path)
    doubled = sorted({c for c in table.columns if table.columns.count(c) > 1})
    if doubled:
        raise TableError(f"{path} has two columns of the name {doubled[0]!r}: rename one")
    return table


def _in_memory(source: Any) -> Table:
    import pyarrow

    try:
        table = source if isinstance(source, pyarrow.Table) else pyarrow.table(source)
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise TableError(
            f"{type(source).__name__} is no table ({error}): expected a path, a data frame, or {{name: column}}"
        ) from None
    return Table("the table", tuple(table.column_names), lambda: iter(table.to_batches(max_chunksize=BATCH)))


def _csv(path: Path) -> Table:
    import pyarrow
    from pyarrow import csv as reader

    with pyarrow.input_stream(str(path), compression="detect") as file:
        head = file.read(CSV_BYTES)
    if not head.strip():
        raise TableError(f"{path} is empty")
    text = head.decode("utf-8-sig", errors="replace")
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else _delimiter(text)
    if len(head) >= CSV_BYTES and "\n" not in text:
        raise TableError(f"{path} has a line of more than {CSV_BYTES} bytes: is it a table?")
    parse = reader.ParseOptions(delimiter=delimiter, newlines_in_values='"' in text)
    options = reader.ReadOptions(block_size=CSV_BYTES, use_threads=False)

    def opened(file: Any, **types: Any) -> Any:
        return reader.open_csv(file, options, parse, reader.ConvertOptions(**types, strings_can_be_null=False))

    with pyarrow.input_stream(str(path), compression="detect") as file, opened(file) as first:
        names = tuple(first.schema.names)

    def batches() -> Iterator[Any]:
        types = dict.fromkeys(names, pyarrow.string())
        with pyarrow.input_stream(str(path), compression="detect") as file, opened(file, column_types=types) as rows:
            yield from rows

    return Table(path.name, names, batches, untyped=True)


def _delimiter(text: str) -> str:
    """What separates cells: of those that may, what comes most often in the first line."""
    first = text.splitlines()[0]
    return max(",;\t|", key=first.count)


def _parquet(path: Path) -> Table:
    from pyarrow import parquet

    names = tuple(parquet.read_schema(path).names)

    def batches() -> Iterator[Any]:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
            yield from file.iter_batches(batch_size=BATCH, use_threads=False)

    return Table(path.name, names, batches)


def _arrow(path: Path) -> Table:
    import pyarrow

    def opened() -> Any:
        file = pyarrow.memory_map(str(path))
        try:
            return pyarrow.ipc.open_file(file)
        except pyarrow.ArrowInvalid:
            return None

    random_access = opened()
    with pyarrow.OSFile(str(path)) as file:
        schema = random_access.schema if random_access else pyarrow.ipc.open_stream(file).schema

    def batches() -> Iterator[Any]:
        if random_access:
            for i in range(random_access.num_record_batches):
                whole = random_access.get_batch(i)
                yield from (whole.slice(start, BATCH) for start in range(0, whole.num_rows, BATCH))
            return
        with pyarrow.OSFile(str(path)) as file:
            yield from pyarrow.ipc.open_stream(file)

    return Table(path.name, tuple(schema.names), batches)
