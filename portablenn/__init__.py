"""Neural networks written once against the Array API standard."""

from typing import TYPE_CHECKING

from .program.autodiff import NotDifferentiableError
from .program.ir import ArrayType, Program
from .program.trace import trace
from .program.tracer import NotTraceableError, TracerValueError
from .runtime.arrays import array_namespace, einsum, stop_gradient
from .runtime.backend import Backend, BackendError, OutOfMemoryError
from .runtime.numpy.threads import get_threads, set_threads
from .runtime.registry import BackendInfo, backends, explain_auto, get_backend, use_backend, xp
from .version import __version__

if TYPE_CHECKING:
    from . import callbacks, convert, data, plots, random, tables
    from .convert import from_onnx, from_torch, load_weights, save_weights, to_onnx
    from .files.safetensors_file import FileFormatError
    from .nn import activations, initializers, layers, losses, optimizers, schedules
    from .nn.layers import Activation, BatchNorm, Dense, Dropout, NTKDense, PeriodicEmbedding, Scale
    from .nn.losses import Loss
    from .nn.optimizers import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
    from .tables import TableError, TableModel, report
    from .training.ensemble import Ensemble
    from .training.history import History
    from .training.lr_finder import LearningRates, find_learning_rate
    from .training.mlp import mlp
    from .training.network import Network, load
    from .transforms.cache import program_cache
    from .transforms.compile import compile, jit
    from .transforms.grad import elementwise_grad, grad, value_and_grad
    from .transforms.jacobian import hessian, hvp, jacobian, jvp
    from .transforms.vjp import vjp
    from .transforms.vmap import vmap

# Imported at the first use, so that importing portablenn is fast.
_NAMES = {
    ".convert": "from_onnx from_torch load_weights save_weights to_onnx",
    ".files.safetensors_file": "FileFormatError",
    ".nn.layers": "Activation BatchNorm Dense Dropout NTKDense PeriodicEmbedding Scale",
    ".nn.losses": "Loss",
    ".nn.optimizers": "LBFGS SGD Adagrad Adam AdamW Optimizer RMSprop",
    ".tables": "TableError TableModel",
    ".training.ensemble": "Ensemble",
    ".training.history": "History",
    ".training.lr_finder": "LearningRates find_learning_rate",
    ".training.mlp": "mlp",
    ".training.network": "Network load",
    ".transforms.cache": "program_cache",
    ".transforms.compile": "compile jit",
    ".transforms.grad": "elementwise_grad grad value_and_grad",
    ".transforms.jacobian": "hessian hvp jacobian jvp",
    ".transforms.vjp": "vjp",
    ".transforms.vmap": "vmap",
}
_MODULES = {
    "": "callbacks convert data files nn plots random tables training transforms",
    ".nn": "activations initializers layers losses optimizers schedules",
    ".tables": "report",
}
_LAZY_NAMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_LAZY_MODULES = {name: f"{module}.{name}" for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a lazy name."""
    import importlib

    if name in _LAZY_MODULES:
        value: object = importlib.import_module(_LAZY_MODULES[name], __name__)
    elif name in _LAZY_NAMES:
        value = getattr(importlib.import_module(_LAZY_NAMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


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
    "Ensemble",
    "FileFormatError",
    "History",
    "LearningRates",
    "Loss",
    "NTKDense",
    "Network",
    "NotDifferentiableError",
    "NotTraceableError",
    "Optimizer",
    "OutOfMemoryError",
    "PeriodicEmbedding",
    "Program",
    "RMSprop",
    "Scale",
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
    "einsum",
    "elementwise_grad",
    "explain_auto",
    "find_learning_rate",
    "from_onnx",
    "from_torch",
    "get_backend",
    "get_threads",
    "grad",
    "hessian",
    "hvp",
    "initializers",
    "jacobian",
    "jit",
    "jvp",
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
    "vjp",
    "vmap",
    "xp",
]
