"""Writers of tables: record batches to CSV, Parquet or Arrow files, one at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from ..files import atomic
from .readers import TableError


def write_table(path: str | Path, batches: Iterable[Any]) -> int:
    r"""Write record batches of pyarrow to a file and return the number of rows; the file appears once it is complete.

    Parameters
    ----------
    path
        The file; its extension, .csv, .parquet, .arrow or .feather, decides the format.
    batches
        Record batches with the same columns, at least one.

    Raises
    ------
    TableError
        If the file has another extension.
    FileNotFoundError
        If the folder does not exist.

    Examples
    --------
    >>> import pathlib, pyarrow, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ages.csv"
    >>> write_table(path, [pyarrow.record_batch({"name": ["Ada"], "age": [36]})])
    1
    >>> path.read_text()
    'name,age\nAda,36\n'
    """
    extension = writer_extension(path)
    with atomic.replacing(path) as file:
        return write_batches(file, batches, extension)


def writer_extension(path: str | Path) -> str:
    """Return the extension of a file to write, without its dot; raise `TableError` if there is no writer for it."""
    extension = Path(path).suffix.lower().lstrip(".")
    if extension not in WRITERS:
        raise TableError(f"expected a file that ends in .{', .'.join(WRITERS)}, got {Path(path).name!r}")
    return extension


def write_batches(file: Any, batches: Iterable[Any], extension: str = "csv") -> int:
    """Write record batches to an open binary file and return the number of rows; see `write_table`."""
    rows, remaining = 0, iter(batches)
    first = next(remaining)
    with WRITERS[extension](file, first.schema) as write:
        for batch in chain([first], remaining):
            write(batch)
            rows += batch.num_rows
    return rows


@contextmanager
def _csv(file: Any, schema: Any) -> Iterator[Callable[[Any], None]]:
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(schema.names)
    file.write(header.getvalue().encode())
    yield lambda batch: _write_csv_rows(file, batch)


def _write_csv_rows(file: Any, batch: Any) -> None:
    """Quote cells only where a batch needs it: pyarrow's "needed" quotes all text."""
    import pyarrow
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    text = [c for c in batch.columns if pyarrow.types.is_string(c.type) or pyarrow.types.is_large_string(c.type)]
    special = any(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py() for column in text)
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed" if special else "none")
    arrow_csv.write_csv(batch, file, options)


@contextmanager
def _parquet(file: Any, schema: Any) -> Iterator[Callable[[Any], None]]:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, schema) as writer:
        yield writer.write_batch


@contextmanager
def _arrow(file: Any, schema: Any) -> Iterator[Callable[[Any], None]]:
    import pyarrow

    # a file has one dictionary a column, and batches may have several
    plain = [field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type for field in schema]
    schema = pyarrow.schema(list(zip(schema.names, plain)))
    with pyarrow.ipc.new_file(file, schema) as writer:
        yield lambda batch: writer.write_batch(batch.cast(schema))


WRITERS: dict[str, Callable[[Any, Any], Any]] = {"csv": _csv, "parquet": _parquet, "arrow": _arrow, "feather": _arrow}
"""The writer of each extension."""
