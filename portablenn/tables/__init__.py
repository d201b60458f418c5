"""Tables: models of CSV, Parquet and Arrow files and of data frames, which include the preprocessing of the columns."""

from .model import TableModel
from .preprocessing import Preprocessor
from .readers import Table, TableError, open_table
from .target import Target
from .writers import write_table

__all__ = ["Preprocessor", "Table", "TableError", "TableModel", "Target", "open_table", "write_table"]
