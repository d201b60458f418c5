"""Tables: a network for a CSV, Parquet or Arrow file, or a data frame, that knows what becomes of its columns."""

from .model import TableModel
from .preprocessing import Preparation, Target
from .readers import Table, TableError, open_table

__all__ = ["Preparation", "Table", "TableError", "TableModel", "Target", "open_table"]
