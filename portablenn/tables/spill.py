"""Training rows on disk: the encoded parts of a table in temporary files, which a training loop reads block by block."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from ..data.sources import Block, Rows
from .cells import text_array
from .parts import PARTS, Assignment, read_parts
from .preprocessing import Preprocessor
from .readers import Table

BLOCK_SIZE = 1 << 18
"""Approximate number of inputs in a block."""

SAMPLE_GROUPS = 64
"""Number of places at which rows of a sample are read, so that one of a sorted table is not only its beginning."""


class SpilledRows:
    """Rows of float32 numbers in an unnamed temporary file, which is deleted when it is closed.

    It is read, not mapped, so that its pages do not count as the process's memory.
    """

    def __init__(self, columns: int) -> None:
        self.file = tempfile.TemporaryFile(prefix="portablenn-")  # noqa: SIM115  # encode_parts closes it
        self.shape = (0, columns)

    def append(self, rows: np.ndarray) -> None:
        """Append rows, (rows, columns)."""
        stored, columns = self.shape
        self.file.seek(4 * columns * stored)
        self.file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self.shape = (stored + len(rows), columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows, (rows, columns), float32."""
        stored, columns = self.shape
        start, stop, _ = rows.indices(stored)
        self.file.seek(4 * columns * start)
        return np.frombuffer(self.file.read(4 * columns * (stop - start)), dtype=np.float32).reshape(-1, columns)


class EncodedPart(Rows):
    """The rows of one part of a table, in blocks: stored as one number a cell, expanded to the network's inputs when read."""

    def __init__(self, preprocessor: Preprocessor, cells: SpilledRows, targets: np.ndarray) -> None:
        columns = len(preprocessor.input_names)
        super().__init__(cells, targets, block_rows=max(1, BLOCK_SIZE // columns))
        self.preprocessor, self.cells, self.targets, self.columns = preprocessor, cells, targets, columns
        self.class_weights: np.ndarray | None = None

    def read(self, block: int) -> Block:
        """Return the inputs, targets and weights of a block."""
        cells, targets, _ = super().read(block)
        assert targets is not None
        return self.preprocessor.expand(cells), targets, self.weights_of(targets)

    def weights_of(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the weights of rows with these targets, (rows,), by ``class_weights``, (classes,); None without these."""
        return None if self.class_weights is None else self.class_weights[targets]

    def sample(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the encoded cells, (rows, columns), and targets of at most that many rows, in groups spread over the part."""
        count = len(self.targets)
        if count <= rows:
            return self.cells[:], self.targets
        groups = min(SAMPLE_GROUPS, rows)
        taken = [slice(start, start + rows // groups) for start in (np.arange(groups) * count // groups).tolist()]
        return np.concatenate([self.cells[s] for s in taken]), np.concatenate([self.targets[s] for s in taken])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the inputs, (rows, inputs), targets and weights, (rows,), of all rows."""
        return self.preprocessor.expand(self.cells[:]), self.targets, self.weights_of(self.targets)


@contextmanager
def encode_parts(table: Table, preprocessor: Preprocessor, assignment: Assignment) -> Iterator[dict[str, EncodedPart]]:
    """Encode the parts of a table in one more pass; their files are deleted at the end of the context."""
    target = preprocessor.target
    names = (*(column.name for column in preprocessor.columns), target.name)
    with ExitStack() as files:
        cells = {part: SpilledRows(len(preprocessor.columns)) for part in PARTS}
        for rows in cells.values():
            files.enter_context(rows.file)
        targets: dict[str, list[Any]] = {part: [target.encode(text_array([]))] for part in PARTS}
        for batch, _, part_of_row in read_parts(table, names, assignment):
            encoded, encoded_targets = preprocessor.encode(batch), target.encode(batch.column(target.name))
            present = np.isfinite(encoded_targets) if target.classes is None else encoded_targets >= 0
            for index, part in enumerate(PARTS):
                cells[part].append(encoded[present & (part_of_row == index)])
                targets[part].append(encoded_targets[present & (part_of_row == index)])
        yield {part: EncodedPart(preprocessor, cells[part], np.concatenate(targets[part])) for part in PARTS}
