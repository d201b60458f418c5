"""Callbacks: objects that `Network.fit` calls as training proceeds, and that may end it."""

from .base import Callback, Steps
from .checkpoint import Checkpoint
from .logs import CSVLog, MLflow, TensorBoard
from .pictures import LivePlot
from .progress import Progress, ProgressBar
from .rates import ReduceOnPlateau
from .stopping import EarlyStopping, StopOnNaN, TimeLimit

CSVLogger, ReduceLROnPlateau, TerminateOnNaN = CSVLog, ReduceOnPlateau, StopOnNaN
"""The names that these have in Keras and PyTorch."""

__all__ = [
    "CSVLog",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LivePlot",
    "MLflow",
    "Progress",
    "ProgressBar",
    "ReduceLROnPlateau",
    "ReduceOnPlateau",
    "Steps",
    "StopOnNaN",
    "TensorBoard",
    "TerminateOnNaN",
    "TimeLimit",
]
