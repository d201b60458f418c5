"""Callbacks: what is told how training goes, and may end it; hand them to ``fit(callbacks=[…])``."""

from .base import Callback, Steps
from .checkpoint import Checkpoint
from .logs import CSVLog, MLflow, TensorBoard
from .pictures import LivePlot
from .progress import Progress, ProgressBar
from .rates import ReduceOnPlateau
from .stopping import EarlyStopping, StopOnNaN, TimeLimit

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LivePlot",
    "MLflow",
    "Progress",
    "ProgressBar",
    "ReduceOnPlateau",
    "Steps",
    "StopOnNaN",
    "TensorBoard",
    "TimeLimit",
]
