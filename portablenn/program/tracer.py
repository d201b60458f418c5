"""Tracers: arrays without values, which a function gets while it is traced.

Every operator and method calls the namespace of the tracer's trace (see `trace` and `namespace`).
"""

from __future__ import annotations

import linecache
import os.path
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .ir import DType, Variable

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class TracerValueError(TypeError):
    """The value of a tracer was requested."""


class NotTraceableError(TypeError):
    """A function was called that a program cannot hold, such as one whose result's shape depends on values."""


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def users_line() -> str:
    """Return ``file:line`` and the text of the innermost line on the stack outside this package."""
    frame = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "an unknown line"
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" + (f"\n    {text}" if text else "")


def _not_traceable(what: str) -> NotTraceableError:
    return NotTraceableError(
        f"{what} cannot be traced, at {users_line()}\nUse a function of the Array API standard: "
        "xp = portablenn.array_namespace(x)"
    )


class Tracer:
    """An array without a value, which a function gets while it is traced."""

    __slots__ = ("trace", "variable")
    __array_priority__ = 1000

    def __init__(self, trace: Any, variable: Variable) -> None:
        self.trace = trace
        self.variable = variable

    @property
    def shape(self) -> tuple[int, ...]:
        return self.variable.type.shape

    @property
    def dtype(self) -> DType:
        return self.variable.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.variable.type.size

    @property
    def device(self) -> Any:
        return self.trace.device

    @property
    def T(self) -> Tracer:  # noqa: N802 - the standard's name
        if self.ndim != 2:
            raise ValueError(f"x.T is for two dimensions, got {self.ndim}: use x.mT or xp.permute_dims")
        return self.mT

    @property
    def mT(self) -> Tracer:  # noqa: N802 - the standard's name
        return self.trace.namespace.matrix_transpose(self)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return self.trace.namespace

    def to_device(self, device: Any, /, stream: Any = None) -> Tracer:
        return self

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tracer]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<tracer {self.variable.type}>"

    def __copy__(self) -> Tracer:
        return self

    def __deepcopy__(self, memo: Any) -> Tracer:
        return self

    def __hash__(self) -> int:
        return hash(self.variable)

    def _no_value(self, asked: str) -> NoReturn:
        raise TracerValueError(
            f"{asked} asks for the value of {self.variable.type}, which is being traced and has none yet, at "
            f"{users_line()}\nChange that line: write a choice between values as xp.where(condition, a, b), use xp's "
            "functions in place of math's, keep numbers as arrays, or take the decision outside the function."
        )

    def __format__(self, specification: str) -> str:
        if specification:
            self._no_value("a format with digits")
        return repr(self)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            f"a traced array cannot be written into, at {users_line()}\nChange that line: make a new array with "
            "xp.where(condition, a, b) or xp.concat."
        )

    # What arrays of some libraries have besides the standard, and other libraries' own functions.

    def __getattr__(self, name: str) -> Any:
        namespace = type(self.trace.namespace)
        if name.startswith("_"):
            raise AttributeError(f"a traced array has no attribute {name!r}")
        from .numpy_functions import method_of  # which imports this module

        method = method_of(self, name)
        if method is not None:
            return method
        if not hasattr(namespace, name):
            raise AttributeError(f"a traced array has no attribute {name!r}")
        raise AttributeError(
            f"a traced array has no method {name}(), which the Array API does not have, at {users_line()}\nChange that "
            f"line to xp.{name}(x, …) with xp = portablenn.array_namespace(x)."
        )

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> NoReturn:
        raise _not_traceable(getattr(function, "__name__", str(function)))

    # NumPy's own functions, so that code written with np.exp(x) is traced as well.

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._numpy_call(ufunc, method, args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._numpy_call(function, "__call__", args, kwargs)

    def _numpy_call(self, function: Any, method: str, args: Any, kwargs: dict[str, Any]) -> Any:
        from .numpy_functions import call  # which imports this module

        return call(self.trace.namespace, function, method, args, kwargs)

    def __getitem__(self, key: Any) -> Tracer:
        return self.trace.namespace.getitem(self, key)

    def __abs__(self) -> Tracer:
        return self.trace.namespace.abs(self)

    def __neg__(self) -> Tracer:
        return self.trace.namespace.negative(self)

    def __pos__(self) -> Tracer:
        return self

    def __invert__(self) -> Tracer:
        return self.trace.namespace.bitwise_invert(self)


_ASK_FOR_A_VALUE = {
    "__bool__": "bool() (an if, while, and, or, not)", "__float__": "float()", "__int__": "int()",
    "__complex__": "complex()", "__index__": "use as an index or a length", "__array__": "np.asarray()",
    "__dlpack__": "from_dlpack()", "item": ".item()", "tolist": ".tolist()",
}  # fmt: skip
"""What a tracer cannot do: methods that return a value of the array, and their names in the error message."""


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
_COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip


def _operator(function: str, swapped: bool = False) -> Callable[[Tracer, Any], Any]:
    def method(self: Tracer, other: Any) -> Any:
        if isinstance(other, (list, tuple)):
            raise TypeError(
                f"{function} of a traced array and a {type(other).__name__}, at {users_line()}\nMake it an array: "
                "xp.asarray([…])"
            )
        if isinstance(other, str) or other is None:
            return NotImplemented
        return getattr(self.trace.namespace, function)(*((other, self) if swapped else (self, other)))

    return method


def _asking(what: str) -> Callable[..., NoReturn]:
    return lambda self, *_, **__: self._no_value(what)


for _name, _what in _ASK_FOR_A_VALUE.items():
    setattr(Tracer, _name, _asking(_what))
for _name, _function in _OPERATORS.items():
    setattr(Tracer, f"__{_name}__", _operator(_function))
    setattr(Tracer, f"__r{_name}__", _operator(_function, swapped=True))
for _name, _function in _COMPARISONS.items():
    setattr(Tracer, f"__{_name}__", _operator(_function))
