"""Training rows on disk: the encoded parts of a table in temporary files, which a training loop reads block by block.

Requires pyarrow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.sources import Block
from .cells import is_present, text_array
from .preprocessing import PARTS, Preprocessor, assign_parts
from .readers import Table

BLOCK_SIZE = 1 << 18
"""Approximate number of inputs in a block."""


class SpilledRows:
    """Rows of float32 numbers in an unnamed temporary file, which is gone when it is closed.

    It is read, not mapped, so that pages of it do not count as the process's memory.

    Examples
    --------
    >>> rows = SpilledRows(2)
    >>> rows.append(np.eye(2, dtype=np.float32))
    >>> rows[1:].tolist(), len(rows)
    ([[0.0, 1.0]], 2)
    >>> rows.close()
    """

    def __init__(self, columns: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="portablenn-")  # noqa: SIM115  # close() closes it
        self._columns, self._rows = columns, 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: np.ndarray) -> None:
        """Append rows, (rows, columns)."""
        self._file.seek(4 * self._columns * self._rows)
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self._rows += len(rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows, (rows, columns), float32."""
        start, stop, _ = rows.indices(self._rows)
        self._file.seek(4 * self._columns * start)
        content = self._file.read(4 * self._columns * (stop - start))
        return np.frombuffer(content, dtype=np.float32).reshape(-1, self._columns)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


@dataclass(frozen=True)
class EncodedPart:
    """The rows of one part of a table, as `sources.Blocks`: stored as one number a cell, expanded when read.

    Attributes
    ----------
    preprocessor
        Expands the cells.
    cells
        Encoded cells, (rows, columns).
    targets
        Encoded targets, (rows,).
    """

    preprocessor: Preprocessor
    cells: SpilledRows
    targets: np.ndarray

    @property
    def columns(self) -> int:
        """See `sources.Blocks`."""
        return len(self.preprocessor.input_names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `sources.Blocks`."""
        full, rest = divmod(len(self.targets), self._block_rows)
        return (self._block_rows,) * full + ((rest,) if rest else ())

    @property
    def _block_rows(self) -> int:
        return max(1, BLOCK_SIZE // self.columns)

    def read(self, block: int) -> Block:
        """See `sources.Blocks`."""
        return *self.arrays(slice(block * self._block_rows, (block + 1) * self._block_rows)), None

    def arrays(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs, (rows, inputs), and targets, (rows,)."""
        return self.preprocessor.expand(self.cells[rows]), self.targets[rows]


@contextmanager
def encode_parts(
    table: Table, preprocessor: Preprocessor, shares: Sequence[float], seed: int
) -> Iterator[dict[str, EncodedPart]]:
    """Encode the parts of a table in one more pass; their files are deleted at the end of the context."""
    target = preprocessor.target
    start, names = 0, (*(column.name for column in preprocessor.columns), target.name)
    with ExitStack() as files:
        cells = {part: SpilledRows(len(preprocessor.columns)) for part in PARTS}
        for rows in cells.values():
            files.callback(rows.close)
        targets: dict[str, list[Any]] = {part: [target.encode(text_array([]))] for part in PARTS}
        for batch in table.select(names):
            part_of_row = assign_parts(start, batch.num_rows, shares, seed)
            start += batch.num_rows
            present, encoded = is_present(batch.column(target.name)), preprocessor.encode(batch)
            encoded_targets = target.encode(batch.column(target.name))
            for index, part in enumerate(PARTS):
                chosen = (part_of_row == index) & present
                cells[part].append(encoded[chosen])
                targets[part].append(encoded_targets[chosen])
        yield {part: EncodedPart(preprocessor, cells[part], np.concatenate(targets[part])) for part in PARTS}
