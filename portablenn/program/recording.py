"""Recording: run a function on values, and note the operations that depend on its inputs, for `autodiff` to go back through."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dis import opname
from types import FrameType
from typing import Any

import numpy as np

from .interpret import Functions
from .ir import Array, ArrayType, DType, Operation, Variable, hashable
from .trace import Trace, activated, active_traces
from .tracer import Tracer, TracerValueError, users_line
from .value_trace import ValueTrace, ValueTracer

COPIED_BYTES = 1 << 16
"""NumPy arrays up to this size are copied, so that writing into them later changes nothing; larger ones are sampled."""

SAMPLES = 64


class Number(Variable):
    """A Python number among the arguments of an operation: a variable, so that another number is not another program.

    Its sign is part of the record, as derivatives may depend on it.
    """

    __slots__ = ("sign",)

    def __init__(self, dtype: DType, number: float) -> None:
        super().__init__(ArrayType((), dtype))
        self.sign = (number > 0) - (number < 0)


TAKES_NUMBERS = frozenset("add atan2 copysign divide hypot maximum minimum multiply remainder subtract where".split())
"""Operations whose derivative rules treat a Python number as they treat an array."""


@contextmanager
def recording(xp: Any, device: Any = None, functions: Functions | None = None) -> Iterator[Recording]:
    """Make a recording the innermost trace of this thread (or task) while the block runs."""
    with activated(Recording(len(active_traces()), xp, device, functions)) as current:
        yield current


class Recording(ValueTrace):
    """The operations that depend on the inputs, and the values of all that they read and return.

    ``variables`` and ``values`` are in the order in which they were met; the value of a `Number` is a Python number.
    ``record`` is equal for functions that did the same operations on arrays of the same types, whatever the values.
    """

    def __init__(self, level: int, xp: Any, device: Any = None, functions: Functions | None = None) -> None:
        super().__init__(level, xp, device, functions)
        self.variables: list[Variable] = []
        self.values: list[Any] = []
        self.record: list[Any] = []
        self.outer: Trace | None = None
        self.read_at = ""
        self._recorded: list[tuple[Any, ...]] = []
        self._done: dict[Any, int] = {}
        self._sampled: dict[int, tuple[np.ndarray, bytes]] = {}

    def differentiated(self, value: Array) -> RecordedTracer:
        """Return a tracer of an input to differentiate by."""
        x = self.constant(value)
        x.varies = True
        self._enter(x)
        return x

    def recorded(self) -> list[Operation]:
        """Return the operations that depend on the inputs."""
        return [Operation(*facts) for facts in self._recorded]

    def constant(self, value: Array) -> RecordedTracer:
        if isinstance(value, Tracer) and (self.outer is None or value.trace.level > self.outer.level):
            self.outer = value.trace
        self.check_library(value)
        return self.tracer(self._unchanging(value) if isinstance(value, np.ndarray) else value)

    def new_tracer(self, variable: Variable, value: Any) -> RecordedTracer:
        return RecordedTracer(self, variable, value)

    def _unchanging(self, value: np.ndarray) -> np.ndarray:
        """Return a copy of a small array, which the caller may write into; watch a large one."""
        if not value.flags.writeable:
            return value
        if value.nbytes <= COPIED_BYTES:
            return np.array(value, copy=True, order="K")
        if id(value) not in self._sampled:
            self._sampled[id(value)] = value, _sample(value)
        return value

    def check_unchanged(self) -> None:
        """Raise ValueError if an array was written into in the meantime, as far as samples of it say."""
        for array, sample in self._sampled.values():
            if _sample(array) != sample:
                raise ValueError(
                    f"an array of shape {array.shape} was written into while a function that reads it was differentiated, so "
                    "its gradient would be wrong: write into a copy"
                )

    def emit(self, name: str, arguments: Sequence[Any], parameters: dict[str, Any], type: ArrayType) -> RecordedTracer:
        """Execute one operation, and record it if it depends on the inputs."""
        for a in arguments:
            if isinstance(a, RecordedTracer) and a.varies:
                break
        else:
            return super().emit(name, arguments, parameters, type)  # type: ignore[return-value]
        if name == "stop_gradient" or not type.dtype.is_floating:
            return super().emit(name, arguments, parameters, type)  # type: ignore[return-value]
        key: list[Any] = [name]
        for a in arguments:
            if isinstance(a, RecordedTracer):
                key.append(self._enter(a) if a.number is None else a.number)
            else:
                key.append((hashable(a), type.dtype))
        if parameters:
            key += map(hashable, parameters.values())
        done = self._done.get(found := tuple(key))
        if done is not None:
            result = RecordedTracer(self, self.variables[done], self.values[done])
            result.number, result.varies = done, True
            return result
        read: list[Any] = []
        for i, a in enumerate(arguments):
            if isinstance(a, RecordedTracer):
                read.append(a.variable)
            elif isinstance(a, (float, int)) and not isinstance(a, bool) and name in TAKES_NUMBERS:
                number = Number(type.dtype, a)
                key[i + 1] = number.sign, self._add(number, a)
                read.append(number)
            else:
                read.append(a)
        result = super().emit(name, arguments, parameters, type)  # type: ignore[assignment]
        result.varies, result.number = True, self._add(result.variable, result.value)
        self._recorded.append((name, tuple(read), parameters, result.variable))
        self.record.append(tuple(key))
        self._done[found] = result.number
        return result

    def _enter(self, x: RecordedTracer) -> int:
        """Return the number of a new input or constant in the record."""
        self.record.append((x.shape, x.dtype))
        x.number = self._add(x.variable, x.value)
        return x.number

    def _add(self, variable: Variable, value: Any) -> int:
        self.variables.append(variable)
        self.values.append(value)
        return len(self.values) - 1

    def read(self, x: Any, asked: str) -> Any:
        """Return a value; raise an error where the gradient would be lost silently."""
        if not x.varies:
            return x.value
        if asked in ("float()", "complex()"):
            caller = sys._getframe(3)  # of __float__, which called _read, which called this
            asked = _conversion(caller) or asked
        if asked in ("float()", "complex()", ".item()", ".tolist()"):
            self.read_at = self.read_at or f"{asked}, at {users_line()}"
        if asked in KEEP_GRADIENTS:
            return x.value
        raise TracerValueError(
            f"{asked} takes the value of an array that is differentiated, and its gradient would be lost, at {users_line()}\n"
            "Use xp's or NumPy's functions in place of it, or take x = pnn.stop_gradient(x) before it, if a constant is meant."
        )

    def is_opaque(self, x: Any) -> bool:
        return bool(x.varies)


KEEP_GRADIENTS = frozenset(
    {"use as an index", "a format", *"bool() int() float() complex() .item() .tolist() nonzero() isin()".split()}
)
"""What may be done with the value of an array that is differentiated."""


def _conversion(frame: FrameType) -> str | None:
    """Return what a line does with the number that it asks for; None if it calls float or the like, or cannot be seen.

    Functions written in C, such as those of math, take a number for a constant, and so does ``b[0] = x`` for an array b.
    """
    code = frame.f_code
    if opname[code.co_code[frame.f_lasti]] == "STORE_SUBSCR":
        return "writing into an array"
    line, last, start, end = list(code.co_positions())[frame.f_lasti // 2]
    source = linecache.getline(code.co_filename, line) if line is not None and line == last else ""
    scope = {**frame.f_globals, **frame.f_locals}
    if not source:
        modules = {getattr(scope.get(name), "__name__", None) for name in code.co_names}
        return "a function of the module math" if modules & {"math", "cmath"} else None
    first, *names = source.encode()[start:end].decode(errors="replace").partition("(")[0].strip().split(".")
    function = scope.get(first)
    for name in names:
        function = getattr(function, name, None)
    module = getattr(function, "__module__", None) or type(function).__module__
    return None if module == "builtins" else f"{module}.{getattr(function, '__name__', first)}()"


class RecordedTracer(ValueTracer):
    """A tracer that knows whether it depends on the inputs, and its number in the record, if it has one."""

    __slots__ = ("number", "varies")

    def __init__(self, trace: Recording, variable: Variable, value: Any) -> None:
        super().__init__(trace, variable, value)
        self.number: int | None = None
        self.varies = False


def _sample(array: np.ndarray) -> bytes:
    """Return some elements of an array: writing into all of it changes them."""
    positions = np.linspace(0, array.size - 1, SAMPLES).astype(np.intp)
    return array.flat[positions].tobytes()
