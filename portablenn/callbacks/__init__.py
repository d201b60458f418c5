"""Callbacks: objects that `Network.fit` calls as training proceeds, and that may end it."""

from typing import TYPE_CHECKING

from .base import Callback, Steps
from .progress import Progress, ProgressBar

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .logs import CSVLog, CSVLogger, MLflow, TensorBoard
    from .pictures import LivePlot
    from .rates import ReduceLROnPlateau, ReduceOnPlateau
    from .stopping import EarlyStopping, StopOnNaN, TerminateOnNaN, TimeLimit

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

_MODULES = {
    "CSVLog": ".logs", "CSVLogger": ".logs", "Checkpoint": ".checkpoint", "EarlyStopping": ".stopping", "LivePlot": ".pictures",
    "MLflow": ".logs", "ReduceLROnPlateau": ".rates", "ReduceOnPlateau": ".rates", "StopOnNaN": ".stopping",
    "TensorBoard": ".logs", "TerminateOnNaN": ".stopping", "TimeLimit": ".stopping",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a callback at its first use."""
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
