"""Tracing: run a function, written in functions of the Array API standard (2024.12), once with tracers, and keep what it did
as a Program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from .ir import Array, ArrayType, DType, Operation, Program, Variable, dtype_name
from .namespace import TracingNamespace
from .tracer import Tracer, TracerValueError, shortened, users_line

AnyTrace = TypeVar("AnyTrace", bound="Trace")
_active: ContextVar[tuple[Trace, ...]] = ContextVar("portablenn_traces", default=())


def trace(function: Callable[..., Any], *types: ArrayType, device: Any = None, name: str | None = None) -> Program:
    """Trace ``function``, which takes one array for each type and returns an array or a tuple of arrays.

    ``device`` is that of the tracers, ``name`` that of the program, by default the function's.

    Examples
    --------
    >>> import portablenn as pnn
    >>> print(pnn.trace(lambda x, y: (x + y) * 2.0, pnn.ArrayType((3,), "float32"), pnn.ArrayType((), "float32")))
    lambda(a: float32[3], b: float32[]):
        c: float32[3] = add(a, b)
        d: float32[3] = multiply(c, 2.0)
        return d
    """
    for given in types:
        if not isinstance(given, ArrayType):
            raise TypeError(f"trace takes an ArrayType(shape, dtype) for each argument, got {given!r}")
    with tracing(device) as current:
        arguments = [current.input(ArrayType(tuple(t.shape), DType(t.dtype))) for t in types]
        results = function(*arguments)
        outputs = [current.lift(r) for r in (results if isinstance(results, (tuple, list)) else (results,))]
        inner = [a.variable for a in arguments], [o.variable for o in outputs]
        return current.program(*inner, name or function_name(function))


def function_name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__).replace("<lambda>", "lambda")


@contextmanager
def tracing(device: Any = None) -> Iterator[Trace]:
    """Make a trace the innermost one of this thread (or task) while the block runs."""
    with activated(Trace(len(_active.get()), device)) as current:
        yield current


@contextmanager
def activated(current: AnyTrace) -> Iterator[AnyTrace]:
    """Make ``current`` the innermost trace of this thread (or task) while the block runs."""
    token = _active.set((*_active.get(), current))
    try:
        yield current
    except ValueError as error:  # NumPy's, if the value of a tracer was asked for where it writes into an array
        if not isinstance(error.__cause__, TracerValueError):
            raise
        raise TracerValueError(
            f"a traced array is written into an array of NumPy ({error.__cause__}\n"
            "Collect the parts in a list, and join them with xp.stack or xp.concat)."
        ) from None
    finally:
        _active.reset(token)


def active_traces() -> tuple[Trace, ...]:
    """Return the active traces of this thread (or task), the innermost last."""
    return _active.get()


def current_trace() -> Trace | None:
    """Return the innermost active trace of this thread (or task), if there is one."""
    active = _active.get()
    return active[-1] if active else None


class Trace:
    """The operations traced so far. ``level`` is its depth: of nested traces the innermost gets the operation."""

    def __init__(self, level: int = 0, device: Any = None) -> None:
        self.level = level
        self.device = device
        self.inputs: list[Variable] = []
        self.operations: list[Operation] = []
        self.constants: dict[int, tuple[Variable, Array]] = {}
        self.namespace = TracingNamespace(self)

    def input(self, type: ArrayType) -> Tracer:
        self.inputs.append(Variable(type))
        return Tracer(self, self.inputs[-1])

    def emit(self, name: str, arguments: Sequence[Any], parameters: dict[str, Any], type: ArrayType) -> Tracer:
        """Add one operation; its arrays must belong to this trace (see `lift`)."""
        inner = tuple(a.variable if isinstance(a, Tracer) else a for a in arguments)
        operation = Operation(name, inner, parameters, Variable(type))
        self.operations.append(operation)
        return Tracer(self, operation.result)

    def lift(self, value: Any) -> Tracer:
        """Return ``value`` as a tracer of this trace: an array from outside becomes a constant."""
        if isinstance(value, Tracer) and value.trace is self:
            return value
        if isinstance(value, Tracer) and value.trace not in _active.get():
            raise TracerValueError(
                f"{value!r} was kept from an earlier trace, which has ended, and is used at {users_line()}\nReturn arrays "
                "from a traced function; do not store them."
            )
        if isinstance(value, (bool, int, float, complex, np.generic)) and not isinstance(value, Tracer):
            return self.namespace.asarray(value)
        if type(value) is np.ndarray and value.dtype.kind == "O":  # of tracers, as np.array([x, y]) makes it
            return self.namespace.asarray(value.tolist())
        if not (hasattr(value, "shape") and hasattr(value, "dtype")):
            raise TypeError(
                f"expected an array or a Python scalar while tracing, got {type(value).__name__}: {shortened(value)}"
            )
        return self.constant(value)

    def constant(self, value: Array) -> Tracer:
        """Return an array from outside as a constant of the program."""
        if id(value) not in self.constants:
            variable = Variable(ArrayType(tuple(int(n) for n in value.shape), dtype_name(value.dtype)))
            self.constants[id(value)] = (variable, value)
        return Tracer(self, self.constants[id(value)][0])

    def program(self, inputs: Sequence[Variable], outputs: Sequence[Variable], name: str) -> Program:
        constants = dict(self.constants.values())
        return Program(tuple(inputs), tuple(self.operations), tuple(outputs), constants, name)
