"""Neural networks written once against the Array API standard."""

from typing import TYPE_CHECKING

from . import callbacks, random
from .files.safetensors_file import FileFormatError
from .nn import activations, initializers, layers, losses, optimizers, schedules
from .nn.layers import Activation, BatchNorm, Dense, Dropout
from .nn.losses import Loss
from .nn.optimizers import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .program.autodiff import NotDifferentiableError
from .program.ir import ArrayType, Program
from .program.trace import trace
from .program.tracer import NotTraceableError, TracerValueError
from .runtime.arrays import array_namespace, stop_gradient
from .runtime.backend import Backend, BackendError, OutOfMemoryError
from .runtime.numpy.threads import get_threads, set_threads
from .runtime.registry import BackendInfo, backends, explain_auto, get_backend, use_backend, xp
from .training.history import History
from .training.mlp import mlp
from .training.network import Network, load
from .transforms.cache import program_cache
from .transforms.compile import compile, jit
from .transforms.grad import grad, value_and_grad
from .version import __version__

if TYPE_CHECKING:
    from . import convert, data, plots, tables
    from .convert import from_onnx, from_torch, load_weights, save_weights, to_onnx
    from .tables import TableError, TableModel, report
    from .training.lr_finder import LearningRates, find_learning_rate

# Imported at the first use, so that importing portablenn is fast.
_LAZY_NAMES = {
    "LearningRates": ".training.lr_finder", "TableError": ".tables", "TableModel": ".tables",
    "find_learning_rate": ".training.lr_finder", "from_onnx": ".convert", "from_torch": ".convert", "load_weights": ".convert",
    "save_weights": ".convert", "to_onnx": ".convert",
}  # fmt: skip
_LAZY_MODULES = {"report": ".tables.report"} | {name: f".{name}" for name in ("convert", "data", "plots", "tables")}


def __getattr__(name: str) -> object:
    """Import a lazy name."""
    import importlib

    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name], __name__)
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names only."""
    return sorted(__all__)


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
    "FileFormatError",
    "History",
    "LearningRates",
    "Loss",
    "Network",
    "NotDifferentiableError",
    "NotTraceableError",
    "Optimizer",
    "OutOfMemoryError",
    "Program",
    "RMSprop",
    "TableError",
    "TableModel",
    "TracerValueError",
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
    "get_threads",
    "grad",
    "initializers",
    "jit",
    "layers",
    "load",
    "load_weights",
    "losses",
    "mlp",
    "optimizers",
    "plots",
    "program_cache",
    "random",
    "report",
    "save_weights",
    "schedules",
    "set_threads",
    "stop_gradient",
    "tables",
    "to_onnx",
    "trace",
    "use_backend",
    "value_and_grad",
    "xp",
]
