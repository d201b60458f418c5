"""Tracing by values: tracers that hold arrays, so that `if`, `float(x)` and masks do what they do in Python.

Operations are executed as they come, on a library's arrays or on the tracers of an outer trace. `recording` notes besides what
was done, `batching` does each operation for many arrays at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import array_api_compat
import numpy as np

from .interpret import Functions, call
from .ir import Array, ArrayType, Variable, dtype_name
from .namespace import TRACING, TracingNamespace
from .trace import Trace, activated, active_traces
from .tracer import Tracer
from .type_rules import INDEX, is_array


@contextmanager
def value_tracing(xp: Any, device: Any = None, functions: Functions | None = None) -> Iterator[ValueTrace]:
    """Make a trace by values the innermost one of this thread (or task) while the block runs."""
    with activated(ValueTrace(len(active_traces()), xp, device, functions)) as current:
        yield current


class ValueTrace(Trace):
    """A trace that executes operations on values: arrays of the library ``xp``, or tracers of an outer trace.

    ``functions`` are the library's own for operations that the Array API lacks.
    """

    def __init__(self, level: int, xp: Any, device: Any = None, functions: Functions | None = None) -> None:
        super().__init__(level, device)
        self.xp, self.functions = xp, functions
        self.namespace: ValueNamespace = ValueNamespace(self)
        self._kinds: set[type] = set()

    def lift(self, value: Any) -> ValueTracer:
        if isinstance(value, ValueTracer) and value.trace is self:
            return value
        return super().lift(value)  # type: ignore[return-value]

    def constant(self, value: Array) -> ValueTracer:
        self.check_library(value)
        return self.tracer(value)

    def check_library(self, value: Array) -> None:
        """Raise TypeError for an array of another library than those that the function was called with."""
        if type(value) in self._kinds or isinstance(value, Tracer) or isinstance(self.xp, TracingNamespace):
            return
        if array_api_compat.array_namespace(value) is not self.xp:
            library, other = (
                str(n).partition(".")[0] for n in (type(value).__module__, self.xp.__name__.rpartition("compat.")[2])
            )
            raise TypeError(f"an array of {library} among arrays of {other}: convert one of them first")
        self._kinds.add(type(value))

    def tracer(self, value: Array) -> Any:
        """Return a tracer with this value."""
        shape = value.shape
        return self.new_tracer(Variable(ArrayType(tuple([int(n) for n in shape]), dtype_name(value.dtype))), value)

    def new_tracer(self, variable: Variable, value: Any) -> Any:
        return ValueTracer(self, variable, value)

    def emit(self, name: str, arguments: Sequence[Any], parameters: dict[str, Any], type: ArrayType) -> ValueTracer:
        """Execute one operation."""
        values = [a.value if isinstance(a, ValueTracer) else a for a in arguments]
        value = self.execute(name, values, parameters)
        dtype = dtype_name(value.dtype)
        if dtype != type.dtype:  # a library without 64-bit numbers
            type = ArrayType(type.shape, dtype)
        return self.new_tracer(Variable(type), value)

    def execute(self, name: str, values: list[Any], parameters: dict[str, Any]) -> Array:
        xp = self.namespace_of(values)
        if isinstance(xp, TracingNamespace):
            return call(xp, name, values, parameters, None, TRACING)
        return call(xp, name, values, parameters, self.device, self.functions)

    def namespace_of(self, values: Sequence[Any]) -> Any:
        """Return the namespace that computes with these values: that of the innermost of the outer traces among them."""
        outer = None
        for v in values:
            if isinstance(v, Tracer) and (outer is None or v.trace.level > outer.level):
                outer = v.trace
        return self.xp if outer is None else outer.namespace

    def read(self, x: ValueTracer, asked: str) -> Any:
        """Return the value that a function asks for, or raise TracerValueError."""
        return x.value

    def is_opaque(self, x: ValueTracer) -> bool:
        """Return whether the value of a tracer is more than a constant."""
        return False

    def by_value(self, name: str, *args: Any) -> Any:
        """Call a function of the standard without a derivative on values; arrays among its results are constants."""
        values = [a.trace.read(a, f"{name}()") if isinstance(a, ValueTracer) else a for a in args]
        return self.wrapped(getattr(self.namespace_of(values), name)(*values))

    def wrapped(self, result: Any) -> Any:
        """Return a result of a library's function with its arrays lifted, also in tuples and lists."""
        if isinstance(result, (tuple, list)):
            parts = [self.wrapped(part) for part in result]
            return result._make(parts) if hasattr(result, "_make") else type(result)(parts)
        return self.lift(result) if is_array(result) else result


class ValueTracer(Tracer):
    """An array that is traced and has a value: an array, or a tracer of an outer trace."""

    __slots__ = ("value",)

    def __init__(self, trace: ValueTrace, variable: Variable, value: Any) -> None:
        super().__init__(trace, variable)
        self.value = value

    def __repr__(self) -> str:
        return f"<tracer of {self.value!r}>"

    def __getattr__(self, name: str) -> Any:
        if name in UFUNCS:  # NumPy calls the method of each element of an array of objects
            from .numpy_functions import call_by_name  # which imports this module's parent

            return lambda *args: call_by_name(self.trace.namespace, name, (self, *args), {})
        return super().__getattr__(name)

    def _read(self, asked: str) -> Any:
        return self.trace.read(self, asked)

    def __bool__(self) -> bool:
        return bool(self._read("bool()"))

    def __int__(self) -> int:
        return int(self._read("int()"))

    def __index__(self) -> int:
        value = self._read("use as an index")
        return int(value.__index__())

    def __float__(self) -> float:
        return float(self._read("float()"))

    def __complex__(self) -> complex:
        return complex(self._read("complex()"))

    def item(self, *args: int) -> Any:
        return self._read(".item()").item(*args)

    def tolist(self) -> Any:
        return self._read(".tolist()").tolist()

    def __format__(self, specification: str) -> str:
        return format(self._read("a format"), specification)

    @property
    def __array__(self) -> Any:
        """NumPy's conversion; without one, its arrays hold tracers as objects, which `lift` joins to an array again."""
        if self.trace.is_opaque(self):
            raise AttributeError("a tracer cannot be converted")
        value = self.value
        return lambda dtype=None, copy=None: np.array(value, dtype=dtype) if copy else np.asarray(value, dtype=dtype)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._read("from_dlpack()").__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._read("from_dlpack()").__dlpack_device__()


class ValueNamespace(TracingNamespace):
    """The namespace of tracers with values: it has functions whose result's shape depends on values, too."""

    def __getattr__(self, name: str) -> Any:
        if name in BY_VALUE:
            return lambda *args: self._trace.by_value(name, *args)
        return super().__getattr__(name)

    def where(self, condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
        if x1 is None and x2 is None:
            return self.nonzero(condition)
        return super().where(condition, x1, x2)

    def mask_indices(self, mask: Any) -> list[Any]:
        return list(self.nonzero(self._lift(mask)))

    def repeat(self, x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
        if not is_array(repeats) or isinstance(repeats, np.generic):
            return super().repeat(x, repeats, axis=axis)
        if axis is None:
            x, axis = self.reshape(x, (-1,)), 0
        repeats = self._lift(repeats)
        indices = self._trace.by_value("repeat", self.arange(x.shape[axis], dtype=INDEX), repeats)
        return self.take(x, indices, axis=axis)


UFUNCS = frozenset(
    "arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil conjugate cos cosh degrees exp exp2 expm1 fabs floor "
    "hypot log log10 log1p log2 logaddexp radians rint sin sinh sqrt tan tanh trunc".split()
)

BY_VALUE = frozenset({"nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values", "isin"})
"""Functions of the standard that are executed on values only."""
