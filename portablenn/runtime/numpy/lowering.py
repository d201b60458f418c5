"""Lowering: how NumPy computes each operation into memory allocated beforehand, one line of Python per call.

`CALLS` holds the operations that write to an ``out``. Views are made beforehand; other operations are run by the interpreter,
which allocates their results.

Facts behind the choices: ``a.dot(b, out)`` costs a third of ``np.matmul`` for small matrices; sums of rows and of columns are
fastest as products with ones, by a factor of 5, and maxima of short rows in the transpose, by 2 to 10; ``np.take`` buffers its
``out`` unless its mode is not "raise", copies a whole array that is not C-contiguous, and converts indices that are not
``intp`` (in a loop its mode is "wrap", so that nothing is buffered; the standard does not say what an index out of range
means); ``np.maximum`` and ``np.minimum`` take ``out`` as a keyword; ``np.add.at`` is fast in one dimension only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...program.ir import ArrayType, Operation
from ..kernels.buffers import VIEWS
from . import threads
from .index_add import add_at

_RENAMED = {
    "abs": "absolute", "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
    "atan2": "arctan2", "atanh": "arctanh", "bitwise_invert": "invert", "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift", "conj": "conjugate", "pow": "power", "round": "rint",
}  # fmt: skip
_UFUNCS = (
    "abs acos acosh asin asinh atan atanh conj cos cosh exp expm1 log log10 log1p log2 reciprocal sin sinh sqrt tan "
    "tanh ceil floor negative round sign square trunc logical_not bitwise_invert isfinite isinf isnan signbit atan2 "
    "copysign divide hypot logaddexp nextafter add floor_divide maximum minimum multiply pow remainder subtract "
    "logical_and logical_or logical_xor bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor "
    "equal greater greater_equal less less_equal not_equal"
).split()
UFUNCS: dict[str, np.ufunc] = {name: getattr(np, _RENAMED.get(name, name)) for name in _UFUNCS}
"""The elementwise operations: their result may overwrite an argument of the same shape and dtype."""

FEW = 4096
"""Elements up to which a product with ones is the faster sum."""

LONG = 1024
"""Columns of a row up to which it is summed by a product with ones."""

SHORT, FEW_ROWS = 32, 16
"""Columns up to which, and rows from which, the maximum of each row is faster found in the transpose."""

_OUT_BY_KEYWORD = frozenset({"maximum", "minimum"})
_REDUCTIONS = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "all": np.logical_and, "any": np.logical_or,
}  # fmt: skip
_ACCUMULATIONS = {"cumulative_sum": np.add, "cumulative_prod": np.multiply}


class Code:
    """The source of a function, and the objects bound to its names."""

    def __init__(self, take_mode: str = "wrap") -> None:
        self.take_mode = take_mode
        self.lines: list[str] = []
        self.prologue: list[str] = []
        self.bound: dict[str, Any] = {}
        # The last line of large products, the size of each, and their operands
        self.products: tuple[str, int, list[tuple[Operand, ...]]] = "", 0, []
        self._names: dict[int, str] = {}

    def bind(self, value: Any) -> str:
        """Return a name for ``value`` in the source."""
        if id(value) not in self._names:
            name = f"k{len(self.bound)}"
            self._names[id(value)] = name
            self.bound[name] = value  # also keeps it alive, so that its id stays its own
        return self._names[id(value)]

    def call(self, function: Any, *arguments: str) -> None:
        self.lines.append(f"{self.bind(function)}({', '.join(arguments)})")

    def once(self, text: str) -> str:
        """Return a name for the value of ``text``, an expression of inputs that is evaluated first."""
        for line in self.prologue:
            name, _, known = line.partition(" = ")
            if known == text:
                return name
        self.prologue.append(f"p{len(self.prologue)} = {text}")
        return f"p{len(self.prologue) - 1}"

    def function(self, name: str, parameters: str, lines: list[str]) -> Any:
        """Compile ``lines`` as the body of a function whose free names are the bound objects."""
        head, body = f"def factory({', '.join(self.bound)}):", "\n        ".join(lines)
        text = f"{head}\n    def {name}({parameters}):\n        {body}\n    return {name}\n"
        scope: dict[str, Any] = {}
        exec(compile(text, f"<{name}>", "exec"), scope)
        function = scope["factory"](**self.bound)
        function.source = text
        return function


@dataclass(eq=False, slots=True)
class Operand:
    """A value in generated code: an array known beforehand, or a local name."""

    type: ArrayType
    array: np.ndarray | None = None
    name: str = ""

    def text(self, code: Code) -> str:
        return self.name if self.array is None else code.bind(self.array)


Lowering = Callable[[Code, Operation, list[Any], Operand], None]
CALLS: dict[str, Lowering] = {}


def _lowering(*names: str) -> Callable[[Lowering], Lowering]:
    def register(function: Lowering) -> Lowering:
        CALLS.update(dict.fromkeys(names, function))
        return function

    return register


def can_write(operation: Operation) -> bool:
    """Return whether NumPy can compute this operation into existing memory."""
    if operation.name in ("ceil", "floor", "round", "trunc"):
        return operation.result.type.dtype.kind == "real floating"
    if operation.name == "sort":
        return not operation.parameters["descending"]
    return operation.name in CALLS


def _zero_d(value: Any, dtype: str, cache: dict[Any, np.ndarray] = {}) -> np.ndarray:  # noqa: B006
    """Return a Python scalar as an array, which NumPy converts in half the time."""
    key = (type(value), repr(value), dtype)
    if key not in cache:
        cache[key] = np.asarray(value, dtype=dtype)
        cache[key].flags.writeable = False
    return cache[key]


def _texts(code: Code, arguments: list[Any]) -> list[str]:
    dtypes = [a.type.dtype for a in arguments if isinstance(a, Operand) and a.type.dtype != "bool"]
    common = np.result_type(*dtypes).name if dtypes else "bool"
    return [a.text(code) if isinstance(a, Operand) else code.bind(_zero_d(a, common)) for a in arguments]


@_lowering(*UFUNCS)
def _ufunc(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    target = out.text(code)
    target = f"out={target}" if operation.name in _OUT_BY_KEYWORD else target
    code.call(UFUNCS[operation.name], *_texts(code, arguments), target)


@_lowering("where")
def _where(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    condition, a, b = arguments
    texts = _texts(code, [a, b])
    code.call(np.copyto, out.text(code), texts[1])
    code.call(np.copyto, out.text(code), texts[0], '"same_kind"', condition.text(code))


@_lowering("astype")
def _astype(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    code.call(np.copyto, out.text(code), arguments[0].text(code), '"unsafe"')


@_lowering(*VIEWS)
def _copied_view(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    """Copy: of these only a reshape can need memory, of an array that is not contiguous."""
    assert out.array is not None
    code.call(np.copyto, code.bind(out.array.reshape(arguments[0].type.shape)), arguments[0].text(code))


@_lowering("matmul")
def _matmul(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    a, b = arguments
    assert out.array is not None
    same = a.type.dtype == b.type.dtype
    if same and out.array.flags.c_contiguous and threads.can_split(a.type.shape, b.type.shape):
        _large_product(code, operation.multiplications, a, b, out)
    elif not (same and len(a.type.shape) == len(b.type.shape) == 2 and out.array.flags.c_contiguous):
        code.call(np.matmul, a.text(code), b.text(code), out.text(code))
    else:
        _dot(code, operation, arguments, out)


def _large_product(code: Code, size: int, a: Operand, b: Operand, out: Operand) -> None:
    """Write a product on several threads; one of the same size that follows another and is independent of it joins its line."""
    line, before, products = code.products
    if not (code.lines and code.lines[-1] == line and before == size):
        products = []
    if any(_overlap(out, *product) or _overlap(product[-1], a, b) for product in products):
        products = []
    if products:
        code.lines.pop()
    products = [*products, (a, b, out)]
    code.call(threads.matmul, *(operand.text(code) for product in products for operand in product))
    code.products = code.lines[-1], size, products


def _overlap(written: Operand, *operands: Operand) -> bool:
    """Return whether memory of the plan is among ``operands`` too; inputs have memory of their own."""
    assert written.array is not None
    return any(o.array is not None and np.may_share_memory(written.array, o.array) for o in operands)


@_lowering("vecdot")
def _dot(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    a, b = arguments
    method = code.bind(a.array.dot) if a.array is not None else f"{a.name}.dot"
    code.lines.append(f"{method}({b.text(code)}, {out.text(code)})")


@_lowering(*_REDUCTIONS)
def _reduction(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    (x,) = arguments
    axis, keepdims = operation.parameters["axis"], operation.parameters["keepdims"]
    assert out.array is not None
    flat = out.array.reshape([n for a, n in enumerate(x.type.shape) if a not in axis]) if keepdims else out.array
    if x.array is not None and x.array.flags.c_contiguous and flat.flags.c_contiguous and x.type.size:
        lines = _sum_by_ones if operation.name == "sum" else _extreme_of_rows
        if lines(code, operation, x.array, axis, flat):
            return
    along = str(axis[0] if len(axis) == 1 else axis)
    dtype = "None" if x.type.dtype.is_floating else code.bind(flat.dtype)
    code.call(_REDUCTIONS[operation.name].reduce, x.text(code), along, dtype, code.bind(flat))


def _sum_by_ones(code: Code, operation: Operation, x: np.ndarray, axis: tuple[int, ...], out: np.ndarray) -> bool:
    """Write a sum along one axis as a product with ones, if that is faster; return whether it is."""
    if x.dtype.kind != "f" or len(axis) != 1:
        return False
    (along,), count = axis, x.shape[axis[0]]
    ones = np.ones(count, dtype=x.dtype)
    if x.ndim == 1:
        if count > FEW:
            return False
        code.call(ones.dot, code.bind(x), code.bind(out))
    elif along == x.ndim - 1:
        if count > LONG:  # NumPy adds long rows pairwise, which is more accurate
            return False
        code.call(x.reshape(-1, count).dot, code.bind(ones), code.bind(out.reshape(-1)))
    elif along == 0:
        code.call(ones.dot, code.bind(x.reshape(count, -1)), code.bind(out.reshape(-1)))
    else:
        stack = x.reshape(-1, count, math.prod(x.shape[along + 1 :]))
        code.call(np.matmul, code.bind(ones), code.bind(stack), code.bind(out.reshape(len(stack), -1)))
    return True


def _extreme_of_rows(code: Code, operation: Operation, x: np.ndarray, axis: tuple[int, ...], out: np.ndarray) -> bool:
    """Write a maximum or minimum of short rows as one of the columns of their transpose; return whether that is faster."""
    columns = x.shape[-1] if x.ndim else 0
    if (
        operation.name not in ("max", "min")
        or axis != (x.ndim - 1,)
        or not 1 < columns <= SHORT
        or x.size < FEW_ROWS * columns
    ):
        return False
    turned = np.empty((columns, x.size // columns), dtype=x.dtype)
    code.call(np.copyto, code.bind(turned), code.bind(x.reshape(-1, columns).T))
    code.call(_REDUCTIONS[operation.name].reduce, code.bind(turned), "0", "None", code.bind(out.reshape(-1)))
    return True


@_lowering(*_ACCUMULATIONS)
def _accumulation(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    axis, dtype = str(operation.parameters["axis"]), code.bind(np.dtype(out.type.dtype))
    code.call(_ACCUMULATIONS[operation.name].accumulate, arguments[0].text(code), axis, dtype, out.text(code))


@_lowering("argmax", "argmin")
def _arg_extreme(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    (x,) = arguments
    axis = operation.parameters["axis"]
    assert out.array is not None
    shape = [n for a, n in enumerate(x.type.shape) if axis is not None and a != axis]
    code.call(getattr(np, operation.name), x.text(code), str(axis), code.bind(out.array.reshape(shape)))


@_lowering("sort")
def _sort(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    assert out.array is not None
    code.call(np.copyto, out.text(code), arguments[0].text(code))
    code.call(out.array.sort, str(operation.parameters["axis"]))


@_lowering("take")
def _take(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    x, indices = arguments
    places = indices.text(code)
    if indices.type.dtype != np.dtype(np.intp).name:
        converted = np.empty(indices.type.shape, dtype=np.intp)
        code.call(np.copyto, code.bind(converted), places, '"same_kind"')
        places = code.bind(converted)
    function, source = (gather, [x.name]) if x.array is None else (_gatherer(x.array), [])
    code.call(function, *source, places, str(operation.parameters["axis"]), out.text(code), repr(code.take_mode))


def gather(x: np.ndarray, indices: np.ndarray, axis: int, out: np.ndarray, mode: str) -> None:
    """Write ``x`` taken along an axis to ``out``."""
    _gatherer(x)(indices, axis, out, mode)


def _gatherer(x: np.ndarray) -> Callable[..., Any]:
    """Return ``x.take``, or indexing for an array that ``take`` would copy whole at each call."""
    if x.flags.c_contiguous:
        return x.take

    def by_indexing(indices: np.ndarray, axis: int, out: np.ndarray, mode: str) -> None:
        if mode == "wrap":
            indices = indices % x.shape[axis]
        np.copyto(out, np.moveaxis(np.moveaxis(x, axis, 0)[indices], 0, axis))

    return by_indexing


@_lowering("index_add")
def _index_add(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    x, indices, updates = (a.text(code) for a in arguments)
    code.call(np.copyto, out.text(code), x)
    code.call(add_at, out.text(code), indices, updates, str(operation.parameters["axis"]), repr(code.take_mode))


@_lowering("concat")
def _concat(code: Code, operation: Operation, arguments: list[Any], out: Operand) -> None:
    """Copy the pieces that were not computed in place."""
    assert out.array is not None
    axis, start = operation.parameters["axis"], 0
    for piece in arguments:
        end = start + piece.type.shape[axis]
        target = out.array[(*(slice(None),) * axis, slice(start, end))]
        if piece.array is None or not same_memory(piece.array, target):
            code.call(np.copyto, code.bind(target), piece.text(code))
        start = end


def same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays are the same view of the same memory."""
    return address(a) == address(b) and a.strides == b.strides and a.shape == b.shape


def address(array: np.ndarray) -> int:
    """Return the address of an array's first byte."""
    return int(array.__array_interface__["data"][0])
