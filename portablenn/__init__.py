"""Neural networks written once against the Array API standard."""

from typing import TYPE_CHECKING

from . import activations, callbacks, initializers, losses, optimizers, schedules
from .arrays import array_namespace, stop_gradient
from .backend import Backend, BackendError, OutOfMemoryError
from .choosing import BackendInfo, backends, explain_auto, get_backend, use_backend, xp
from .history import History
from .layers import Activation, BatchNorm, Dense, Dropout
from .network import Network, load, mlp
from .optimizers import LBFGS, SGD, Adagrad, Adam, AdamW, RMSprop
from .program.derivative import NotDifferentiableError
from .program.ir import ArrayType, Program
from .program.recorded import NotTraceableError, RecordedValueError
from .program.trace import trace
from .tensors import ModelFileError
from .transforms import compile, grad, program_cache, value_and_grad
from .version import __version__

if TYPE_CHECKING:
    from . import convert, data, plots, report, tables
    from .convert import from_onnx, from_torch, load_weights, save_weights, to_onnx
    from .rate_finder import LearningRates, find_learning_rate
    from .tables import TableError, TableModel


_LATER = {
    "LearningRates": ".rate_finder", "TableError": ".tables", "TableModel": ".tables", "find_learning_rate": ".rate_finder",
    "from_onnx": ".convert", "from_torch": ".convert", "load_weights": ".convert", "save_weights": ".convert",
    "to_onnx": ".convert",
}  # fmt: skip
"""Where names are that are imported when they are first asked for: they cost an import more than most use of it."""

_MODULES = ("convert", "data", "plots", "report", "tables")


def __getattr__(name: str) -> object:
    """What is imported later."""
    import importlib

    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LBFGS",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "ArrayType",
    "Backend",
    "BackendError",
    "BackendInfo",
    "BatchNorm",
    "Dense",
    "Dropout",
    "History",
    "LearningRates",
    "ModelFileError",
    "Network",
    "NotDifferentiableError",
    "NotTraceableError",
    "OutOfMemoryError",
    "Program",
    "RMSprop",
    "RecordedValueError",
    "TableError",
    "TableModel",
    "__version__",
    "activations",
    "array_namespace",
    "backends",
    "callbacks",
    "compile",
    "convert",
    "data",
    "explain_auto",
    "find_learning_rate",
    "from_onnx",
    "from_torch",
    "get_backend",
    "grad",
    "initializers",
    "load",
    "load_weights",
    "losses",
    "mlp",
    "optimizers",
    "plots",
    "program_cache",
    "report",
    "save_weights",
    "schedules",
    "stop_gradient",
    "tables",
    "to_onnx",
    "trace",
    "use_backend",
    "value_and_grad",
    "xp",
]
