"""A table of people, in memory and as files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

CHANCE = np.random.default_rng(0)
ROWS = 600
AGE = CHANCE.integers(18, 80, ROWS).astype(float)
CITY = CHANCE.choice(["Oslo", "Rome", "São Paulo"], ROWS)
PLAN = np.where((AGE > 50) ^ (CITY == "Oslo"), "gold", "basic")
PRICE = 1000.0 + 20.0 * AGE + np.where(CITY == "Rome", 300.0, 0.0)


def people(missing: bool = True) -> dict[str, Any]:
    age = [None if missing and i % 17 == 3 else a for i, a in enumerate(AGE.tolist())]
    city = [None if missing and i % 23 == 5 else c for i, c in enumerate(CITY.tolist())]
    return {
        "id": [f"c{i}" for i in range(ROWS)],
        "age": age,
        "city": city,
        "plan": PLAN.tolist(),
        "price": PRICE.tolist(),
    }


def write_csv(path: Path, table: dict[str, Any], delimiter: str = ",") -> Path:
    """Write CSV with quotes around text, and NA or nothing for missing cells."""
    lines = [delimiter.join(table)]
    for i, row in enumerate(zip(*table.values(), strict=True)):
        cells = [("NA" if i % 2 else "") if c is None else f'"{c}"' if isinstance(c, str) else repr(c) for c in row]
        lines.append(delimiter.join(cells))
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path: Path, table: dict[str, Any]) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(table), path, row_group_size=100)
    return path


def write_arrow(path: Path, table: dict[str, Any], stream: bool) -> Path:
    import pyarrow

    made = pyarrow.table(table)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(str(path), made.schema) as file:
        file.write_table(made, max_chunksize=70)
    return path
