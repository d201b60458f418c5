"""Tables: models of CSV, Parquet and Arrow files and of data frames, which include the preprocessing of the columns."""

from .model import TableModel
from .overview import ColumnSummary, summarize_columns
from .preprocessing import Preprocessor
from .readers import Table, TableError, open_table
from .target import Target
from .writers import write_table

__all__ = [
    "ColumnSummary",
    "Preprocessor",
    "Table",
    "TableError",
    "TableModel",
    "Target",
    "open_table",
    "summarize_columns",
    "write_table",
]
