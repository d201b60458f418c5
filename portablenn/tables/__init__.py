"""Tables: a network for a CSV, Parquet or Arrow file, or a data frame, that knows what becomes of its columns."""

from .model import TableModel
from .preparation import Preparation, Target
from .reading import Table, TableError, open_table

__all__ = ["Preparation", "Table", "TableError", "TableModel", "Target", "open_table"]
