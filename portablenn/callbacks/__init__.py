"""Callbacks: objects that `Network.fit` calls as training proceeds, and that may end it."""

from typing import TYPE_CHECKING

from .base import Callback, Steps
from .progress import Progress, ProgressBar

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .logs import CSVLog, MLflow, TensorBoard
    from .logs import CSVLog as CSVLogger
    from .pictures import LivePlot
    from .rates import ReduceOnPlateau
    from .rates import ReduceOnPlateau as ReduceLROnPlateau
    from .stopping import EarlyStopping, StopOnNaN, TimeLimit
    from .stopping import StopOnNaN as TerminateOnNaN

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

_SYNONYMS = {"CSVLogger": "CSVLog", "ReduceLROnPlateau": "ReduceOnPlateau", "TerminateOnNaN": "StopOnNaN"}
"""Names that callbacks have in Keras and PyTorch."""

_MODULES = {
    "CSVLog": ".logs", "Checkpoint": ".checkpoint", "EarlyStopping": ".stopping", "LivePlot": ".pictures", "MLflow": ".logs",
    "ReduceOnPlateau": ".rates", "StopOnNaN": ".stopping", "TensorBoard": ".logs", "TimeLimit": ".stopping",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a callback at its first use."""
    import importlib

    name = _SYNONYMS.get(name, name)
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
