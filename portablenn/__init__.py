"""Neural networks written once against the Array API standard."""

from . import activations, callbacks, initializers, losses, optimizers, schedules
from .arrays import array_namespace, stop_gradient
from .backend import Backend, BackendError, OutOfMemoryError
from .choosing import BackendInfo, backends, explain_auto, get_backend, use_backend, xp
from .convert import from_torch
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

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Parts that need a package of their own, or cost an import more than most use."""
    import importlib

    if name in ("data", "onnx", "plots", "report", "tables", "weights"):
        return importlib.import_module(f".{name}", __name__)
    if name in ("TableModel", "TableError"):
        return getattr(importlib.import_module(".tables", __name__), name)
    if name in ("LearningRates", "find_learning_rate"):
        return getattr(importlib.import_module(".rate_finder", __name__), name)
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
    "ModelFileError",
    "Network",
    "NotDifferentiableError",
    "NotTraceableError",
    "OutOfMemoryError",
    "Program",
    "RMSprop",
    "RecordedValueError",
    "activations",
    "array_namespace",
    "backends",
    "callbacks",
    "compile",
    "explain_auto",
    "from_torch",
    "get_backend",
    "grad",
    "initializers",
    "load",
    "losses",
    "mlp",
    "optimizers",
    "program_cache",
    "schedules",
    "stop_gradient",
    "trace",
    "use_backend",
    "value_and_grad",
    "xp",
]
