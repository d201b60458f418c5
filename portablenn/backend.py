"""A backend: one array library on one device, and how it executes Programs. Finding one, choosing one.

Requires NumPy, which is built in. Any other namespace of the standard is a backend through the interpreter.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import numpy as np

from .arrays import array_namespace, device_of, is_array, to_numpy
from .program.interpret import interpret
from .program.ir import Array, Program, dtype_name
from .program.trace import current_trace

Compiled = Callable[..., tuple[Array, ...]]


class BackendError(RuntimeError):
    """A backend was asked for that cannot be had."""


class Backend:
    """Any Array API namespace, on one device, through the interpreter.

    Parameters
    ----------
    name
        What users call it.
    xp
        The namespace; best that of array-api-compat.
    device
        As the library names it; None for its default.
    """

    def __init__(self, name: str, xp: Any, device: Any = None) -> None:
        self.name = name
        self.xp = xp
        self.device = device_of(xp.zeros((), device=device))  # "cpu" becomes the library's own object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backend) and (self.xp, self.device) == (other.xp, other.device)

    def __hash__(self) -> int:
        return hash((id(self.xp), str(self.device)))

    def __reduce__(self) -> tuple[Any, ...]:
        return get_backend, (f"{self.name}:{self.device_name}",)

    @property
    def device_name(self) -> str:
        """The device as users write it: "cpu", "cuda:0"."""
        quoted = re.search("'(.*)'", str(self.device))
        return quoted[1] if quoted else str(self.device)

    def __repr__(self) -> str:
        return f"<backend {self}>"

    def __str__(self) -> str:
        return f"{self.name} on {self.device_name}"

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, here; a copy if it has to be.

        Raises
        ------
        BackendError
            If the library changes the dtype that was asked for (JAX without 64-bit numbers).
        """
        wanted = None if dtype is None else getattr(self.xp, dtype)
        if not (is_array(x) and array_namespace(x) is self.xp):
            x = np.asarray(to_numpy(x), order="C") if is_array(x) else np.asarray(x, dtype=dtype)
            x = x if x.flags.writeable else x.copy()  # some libraries would share it, and warn
        array = self.xp.asarray(x, dtype=wanted, device=self.device)
        if dtype is not None and dtype_name(array.dtype) != dtype:
            raise BackendError(
                f"{self} made {dtype_name(array.dtype)} of {dtype}. Choose dtype={str(dtype_name(array.dtype))!r}, or "
                "allow 64-bit numbers in that library"
            )
        return array

    def to_numpy(self, array: Array) -> np.ndarray:
        """An array of this backend on the host."""
        return to_numpy(array)

    def compile(self, program: Program) -> Compiled:
        """A callable that takes one array an input and returns one an output."""
        return partial(interpret, self.xp, program, device=self.device)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """A callable ``loop(count, *carry, *data)`` that runs a step ``count`` times; see `program.plan.plan_loop`."""
        return partial(self._loop, self.compile(program), program, carried)

    def _loop(self, step: Compiled, program: Program, carried: int, count: int, *arrays: Array) -> tuple[Array, ...]:
        xp = self.xp
        carry, data = arrays[:carried], arrays[carried:]
        iteration = xp.zeros((), dtype=xp.int32, device=self.device)
        collected: list[tuple[Array, ...]] = []
        for _ in range(count):
            results = step(iteration, *carry, *data)
            carry = results[:carried]
            collected.append(results[carried:])
            iteration = iteration + 1
        if collected:
            return (*carry, *(xp.stack(rows) for rows in zip(*collected, strict=True)))
        types = [v.type for v in program.outputs[carried:]]
        empty = (xp.zeros((0, *t.shape), dtype=getattr(xp, t.dtype), device=self.device) for t in types)
        return (*carry, *empty)

    def synchronize(self) -> None:
        """Wait until everything asked for is done."""


class NumpyBackend(Backend):
    """NumPy on the CPU, through the plan: memory allocated once, one generated function a program."""

    def __init__(self) -> None:
        self.name = "numpy"
        self.device = "cpu"

    def __str__(self) -> str:
        return self.name

    @cached_property
    def xp(self) -> Any:
        """NumPy's namespace of array-api-compat; imported at first use, for that costs as much as NumPy itself."""
        return importlib.import_module("array_api_compat.numpy")

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, as NumPy's."""
        return np.asarray(to_numpy(x) if is_array(x) else x, dtype=dtype)

    def compile(self, program: Program) -> Compiled:
        """See `program.plan.plan`."""
        from .program.plan import plan

        return plan(program)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """See `program.plan.plan_loop`."""
        from .program.plan import plan_loop

        return plan_loop(program, carried)


NUMPY = NumpyBackend()
_current: ContextVar[Backend | None] = ContextVar("portablenn_backend", default=None)


def get_backend(backend: Any = "auto") -> Backend:
    """The backend that ``backend`` stands for.

    Parameters
    ----------
    backend
        "auto" (the one in use: see `use_backend`; else that of the environment variable ``PORTABLENN_BACKEND``; else
        NumPy), the name of an installed library ("numpy", "torch", "torch:cuda"), its module, one of its arrays (then on
        the array's device), or a `Backend`.

    Raises
    ------
    BackendError
        If there is no such library, or it does not follow the standard; the message says what to do.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.get_backend("numpy").asarray([1, 2, 3]).shape
    (3,)
    """
    if isinstance(backend, Backend):
        return backend
    if isinstance(backend, str):
        if backend != "auto":
            return _by_name(backend)
        chosen = os.environ.get("PORTABLENN_BACKEND", "numpy")
        return _current.get() or _by_name("numpy" if chosen in ("", "auto") else chosen)
    if isinstance(backend, ModuleType):
        return _of_namespace(backend.__name__, _completed(backend), None)
    if is_array(backend):
        xp = array_namespace(backend)
        return _of_namespace(xp.__name__, xp, device_of(backend))
    raise BackendError(
        f"a backend is a name, a module, an array or a Backend, found {type(backend).__name__}: {backend!r}"
    )


def _by_name(name: str) -> Backend:
    library, _, device = name.partition(":")
    if not library.isidentifier():
        raise BackendError(f"a backend is named like 'numpy' or 'numpy:cpu', found {name!r}")
    if library == "numpy":
        if device not in ("", "cpu"):
            raise BackendError(f"numpy has no device {device!r}, only 'cpu'")
        return NUMPY
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} cannot be imported ({error}). Install that library, or choose 'numpy'"
        ) from error
    xp = _completed(module)
    try:
        return _of_namespace(library, xp, _device(module, device))
    except (BackendError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise BackendError(f"backend {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def _completed(module: ModuleType) -> Any:
    """The module's namespace of the standard: array-api-compat's wrapper, the module itself, or its ``numpy``."""
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
    """A device by the name a user gives it: an object of the library's own where it has such, else the name."""
    if not name:
        return None
    kind, _, index = name.partition(":")
    if hasattr(module, "__array_api_version__") and hasattr(module, "Device"):
        return module.Device(name)
    return module.devices(kind)[int(index or 0)] if hasattr(module, "devices") else name


def _of_namespace(name: str, xp: Any, device: Any) -> Backend:
    return NUMPY if xp is NUMPY.xp else Backend(name.removeprefix("array_api_compat.").partition(".")[0], xp, device)


@contextmanager
def use_backend(backend: Any) -> Iterator[Backend]:
    """Let "auto" mean ``backend`` inside the block; in this thread, or this asyncio task, alone.

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

    While a function is being recorded it is the recording one, so that code written with it records as well.

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
