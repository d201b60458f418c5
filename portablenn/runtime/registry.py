"""The registry of backends: by name, by the data, by the environment, or automatically; and the installed plug-ins.

A library is imported only when it is requested.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.trace import current_trace
from .arrays import array_namespace, device_of, is_array
from .backend import NUMPY, Backend, BackendError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_current: ContextVar[Backend | None] = ContextVar("portablenn_backend", default=None)


def get_backend(backend: Any = "auto") -> Backend:
    """Return the backend for a name, a module or an array.

    Parameters
    ----------
    backend
        "auto" (the one in use: see `use_backend`; else that of the environment variable ``PORTABLENN_BACKEND``; else an
        accelerator that an installed plug-in finds; else NumPy), the name of an installed library ("numpy", "torch",
        "torch:cuda"), its module, one of its arrays (then on the array's device), or a `Backend`.

    Raises
    ------
    BackendError
        If the library is not installed, or does not follow the standard; the message says what to do.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.get_backend("numpy").asarray([1, 2, 3]).shape
    (3,)
    """
    if isinstance(backend, Backend):
        return backend
    if isinstance(backend, str):
        return _by_name(backend) if backend != "auto" else _auto()[0]
    if isinstance(backend, ModuleType):
        return _of_namespace(_completed(backend), None)
    if is_array(backend):
        xp, current = array_namespace(backend), _current.get()
        if current is not None and current.xp is xp and current.device == device_of(backend):
            return current  # such as numba, which works on NumPy's arrays
        try:
            return _of_namespace(xp, device_of(backend))
        except BackendError as error:  # correctness never depends on a plug-in
            warnings.warn(f"{error}; the interpreter runs instead", RuntimeWarning, stacklevel=2)
            return Backend(_library(xp), xp, device_of(backend))
    raise BackendError(f"expected a name, module, array or Backend, got {type(backend).__name__}: {backend!r}")


def _by_name(name: str) -> Backend:
    library, _, device = name.partition(":")
    if not library.isidentifier():
        raise BackendError(f"expected a backend's name, like 'numpy' or 'numpy:cpu', got {name!r}")
    if library == "numpy":
        if device not in ("", "cpu"):
            raise BackendError(f"expected the device 'cpu' for numpy, got {device!r}")
        return NUMPY
    arrays = (plugin(library).library if library in plugins() else "") or library
    try:
        module = importlib.import_module(arrays)
    except ImportError as error:
        raise BackendError(f"backend {name!r} cannot be imported ({error}). {_available(library)}") from error
    xp = _completed(module)
    try:
        if arrays == library:
            return _of_namespace(xp, _device(module, device))
        return plugin(library)(library, xp, device or None)
    except (BackendError, TypeError, ValueError, LookupError, RuntimeError, AssertionError) as error:
        raise BackendError(f"backend {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def _automatic() -> tuple[Backend, str]:
    """Return the first accelerator that a plug-in finds, else NumPy; and why. Import nothing on a machine without a GPU."""
    if not _accelerator_present():
        return NUMPY, "this machine has no GPU"
    skipped: list[str] = []
    for library in plugins():
        try:
            device = plugin(library).accelerator()
            if device is not None:
                return _by_name(f"{library}:{device}"), "; ".join(["the first usable accelerator", *skipped])
            skipped.append(f"{library}: only the CPU")
        except Exception as error:  # a broken plug-in must not hide a working one
            skipped.append(f"{library}: {str(error).partition(chr(10))[0]}")
    return NUMPY, f"no usable accelerator ({'; '.join(skipped) or 'no plug-in is installed'})"


def explain_auto() -> str:
    """Return which backend "auto" is, and why, as text.

    Examples
    --------
    >>> import portablenn as pnn
    >>> with pnn.use_backend("numpy"):
    ...     print(pnn.explain_auto())
    auto is numpy: set by use_backend
    """
    return "auto is {}: {}".format(*_auto())


def _auto() -> tuple[Backend, str]:
    current, name = _current.get(), os.environ.get("PORTABLENN_BACKEND", "auto")
    if current is not None:
        return current, "set by use_backend"
    if name not in ("", "auto"):
        return _by_name(name), "set by the environment variable PORTABLENN_BACKEND"
    return _automatic()


@functools.cache
def _accelerator_present() -> bool:
    """Return whether there is a driver's device file of a GPU (NVIDIA, AMD, WSL), or Apple's hardware."""
    import glob  # here, because importing it takes longer than this function

    files = any(glob.glob(pattern) for pattern in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg"))
    return files or (sys.platform == "darwin" and platform.machine() == "arm64")


@functools.cache
def plugins() -> dict[str, EntryPoint]:
    """Return the installed entry points of the group "portablenn.backends" by name, sorted; import none of them."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in sorted(entry_points(group="portablenn.backends"), key=lambda e: e.name)}


def plugin(library: str) -> type[Backend]:
    """Return the class of a library's backend: its plug-in's, or `Backend`; raise BackendError if it cannot be loaded."""
    entry = plugins().get(library)
    if entry is None:
        return Backend
    try:
        kind = entry.load()
    except Exception as error:  # a plug-in may raise anything
        raise BackendError(f"the plug-in {entry.value} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Backend)):
        raise BackendError(f"expected the plug-in {entry.value} to be a subclass of portablenn.Backend, got {kind!r}")
    return kind


@dataclass(frozen=True)
class BackendInfo:
    """One record of `backends`: the name of a library, whether `get_backend` returns it, and the reason if it does not.

    ``devices`` are the names of its devices on this machine, ``version`` is the library's, or "" if it is not installed,
    ``executes`` is the plug-in that runs a Program, or "plan" for NumPy, ``memory`` are the free and total bytes of the default
    device, or None, and ``install`` says how to install a library that is not usable.

    Examples
    --------
    >>> import portablenn as pnn
    >>> info = pnn.backends()[0]
    >>> info.name, info.usable, info.executes
    ('numpy', True, 'plan')
    """

    name: str
    usable: bool
    reason: str
    devices: tuple[str, ...]
    version: str
    executes: str
    memory: tuple[int, int] | None
    install: str = ""


def backends() -> list[BackendInfo]:
    """Return a record for NumPy and for every installed plug-in; imports them all.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.backends()[0].name
    'numpy'
    """
    return [_info(library) for library in ("numpy", *(name for name in plugins() if name != "numpy"))]


def _info(library: str) -> BackendInfo:
    entry = plugins().get(library)
    executes = entry.value.partition(":")[0] if entry else "plan"
    try:
        backend = _by_name(library)
        devices = tuple(backend.devices())
    except BackendError as error:
        return BackendInfo(library, False, str(error), (), _version(library), executes, None, _install(library))
    return BackendInfo(library, True, "", devices, _version(library), executes, backend.memory())


def _install(library: str) -> str:
    """Return how to install a plug-in's library: its class says so, or, if that cannot be loaded, its distribution's name."""
    with contextlib.suppress(BackendError):
        return plugin(library).install
    distribution = plugins()[library].dist if library in plugins() else None
    if distribution is None:
        return ""
    name, extras = distribution.name, distribution.metadata.get_all("Provides-Extra") or []
    return " or ".join(f'pip install "{name}[{extra}]"' for extra in extras) or f"pip install {name}"


def _available(library: str) -> str:
    """Return how to install a missing backend, and which others have a plug-in."""
    how = f" ({_install(library)})" if library in plugins() else ""
    others = ", ".join(repr(name) for name in dict.fromkeys(["numpy", *plugins()]) if name != library)
    return f"Install that library{how}, or choose one of {others}"


def _version(library: str) -> str:
    return str(getattr(sys.modules.get(library), "__version__", ""))


def _completed(module: ModuleType) -> Any:
    """Return the module's Array API namespace: array-api-compat's wrapper, the module itself, or its ``numpy``."""
    if module is np:
        return NUMPY.xp
    for name in (f"array_api_compat.{module.__name__}", f"{module.__name__}.numpy"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    if not hasattr(module, "__array_api_version__"):
        raise BackendError(f"{module.__name__} does not follow the Array API standard: it has no __array_api_version__")
    return module


def _device(module: ModuleType, name: str) -> Any:
    """Return the library's device object for a name, where it has such objects, else the name."""
    if not name:
        return None
    kind, _, index = name.partition(":")
    if hasattr(module, "__array_api_version__") and hasattr(module, "Device"):
        return module.Device(name)
    return module.devices(kind)[int(index or 0)] if hasattr(module, "devices") else name


def _library(xp: Any) -> str:
    """Return the name of the library that a namespace belongs to."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def _of_namespace(xp: Any, device: Any) -> Backend:
    """Return a namespace's backend: its plug-in's if there is one, else the interpreter's."""
    if xp is NUMPY.xp:
        return NUMPY
    library = _library(xp)
    return plugin(library)(library, xp, device)


@contextmanager
def use_backend(backend: Any) -> Iterator[Backend]:
    """Let "auto" mean ``backend`` inside the block, in this thread or asyncio task only.

    Examples
    --------
    >>> import portablenn as pnn
    >>> with pnn.use_backend("numpy") as backend:
    ...     print(backend.name)
    numpy
    """
    chosen = get_backend(backend)
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)


class CurrentNamespace:
    """``portablenn.xp``: the namespace of the backend in use, looked up at each use.

    While a function is traced, it is the tracing namespace.

    Examples
    --------
    >>> from portablenn import xp
    >>> float(xp.sum(xp.asarray([1.0, 2.0])))
    3.0
    """

    def __getattr__(self, name: str) -> Any:
        trace = current_trace()
        return getattr(get_backend().xp if trace is None else trace.namespace, name)

    def __repr__(self) -> str:
        return f"<portablenn.xp: {get_backend()}>"


xp = CurrentNamespace()
