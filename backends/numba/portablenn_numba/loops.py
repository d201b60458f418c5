"""Groups of operations as the source of loops.

The source does not contain the number of rows and columns, so that programs of any size share it. Each result is cast to its
dtype at once, because Numba promotes: int32 + int32 to int64, float32 * 0.5 to float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types

from portablenn.program.ir import Operation, Program, Variable
from portablenn.runtime.kernels.fusion import REDUCTIONS, Extent, Group, Unit, fuse
from portablenn.runtime.numpy.lowering import Code, Operand, same_memory

from .compiled import compiled
from .gather import gathered
from .scatter import added

DTYPES = {"bool": "b1", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint8": "u1", "uint16": "u2",
          "uint32": "u4", "float32": "f4", "float64": "f8"}  # fmt: skip

CHEAP = {
    "abs": "abs({0})", "add": "{0} + {1}", "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}", "bitwise_left_shift": "{0} << {1}", "bitwise_right_shift": "{0} >> {1}",
    "broadcast_to": "{0}", "ceil": "np.ceil({0})", "copysign": "np.copysign({0}, {1})", "divide": "{0} / {1}",
    "equal": "{0} == {1}", "floor": "np.floor({0})", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "isfinite": "np.isfinite({0})", "isinf": "np.isinf({0})", "isnan": "np.isnan({0})", "less": "{0} < {1}",
    "less_equal": "{0} <= {1}", "logical_and": "{0} & {1}", "logical_not": "not {0}", "logical_or": "{0} | {1}",
    "logical_xor": "{0} ^ {1}", "maximum": "{0} if ({0} > {1} or {0} != {0}) else {1}",
    "minimum": "{0} if ({0} < {1} or {0} != {0}) else {1}", "multiply": "{0} * {1}", "negative": "-{0}",
    "not_equal": "{0} != {1}", "reciprocal": "1 / {0}", "round": "np.rint({0})",
    "sign": "{0} if {0} != {0} else ({0} > 0) - ({0} < 0)",
    "sqrt": "np.sqrt({0})", "square": "{0} * {0}", "subtract": "{0} - {1}", "trunc": "np.trunc({0})",
    "where": "{1} if {0} else {2}",
}  # fmt: skip
"""Expressions that compile to a few instructions on vectors of elements."""

EXPENSIVE = {
    "acos": "np.arccos({0})", "acosh": "np.arccosh({0})", "asin": "np.arcsin({0})", "asinh": "np.arcsinh({0})",
    "atan": "np.arctan({0})", "atan2": "np.arctan2({0}, {1})", "atanh": "np.arctanh({0})", "cos": "np.cos({0})",
    "cosh": "np.cosh({0})", "exp": "np.exp({0})", "expm1": "np.expm1({0})", "hypot": "np.hypot({0}, {1})",
    "log": "np.log({0})", "log10": "np.log10({0})", "log1p": "np.log1p({0})", "log2": "np.log2({0})",
    "pow": "{0} ** {1}", "sin": "np.sin({0})", "sinh": "np.sinh({0})", "tan": "np.tan({0})", "tanh": "tanh({0})",
}  # fmt: skip
"""Expressions that call the C library for each element; NumPy computes several at a time."""

MAX_EXPENSIVE = 8192
"""Elements up to which a loop is faster with an expensive expression than without it."""

MIN_PAIRWISE = 64
"""Columns from which a row's sum is worth a function that adds in any order, several at a time."""

PLAIN = (0, 1, -1, 2, 0.5)
"""Numbers that are literals in the source: more likely parts of a formula than hyperparameters."""

REAL_ONLY = {"ceil", "divide", "floor", "negative", "pow", "reciprocal", "round", "sign", "trunc", *EXPENSIVE}

ACCUMULATE = {
    "sum": "{0} = {2}({0} + {1})",
    "max": "{0} = {1} if ({1} > {0} or {1} != {1}) else {0}",
    "min": "{0} = {1} if ({1} < {0} or {1} != {1}) else {0}",
}
START = {"sum": "0", "max": "-np.inf", "min": "np.inf"}


class Loops:
    """Computes the groups of a plan (`portablenn.runtime.numpy.plan.Fusion`)."""

    def units(self, program: Program) -> Sequence[Unit]:
        """Return the program's operations, with groups of two and more."""
        return fuse(program, fusible)

    def call(self, code: Code, group: Group, reads: list[Operand], results: list[Operand]) -> None:
        """Call the group's loop on contiguous views of its arrays."""
        writer = Writer(group, [_index_of(reads, result) for result in results])
        operands = dict(zip(group.results, results, strict=True)) | dict(zip(group.reads, reads, strict=True))
        arguments = [_contiguous(code, group, v, operands[v], writer.flat) for v in writer.given]
        arguments += [code.bind(number) for number in writer.numbers]
        code.call(compiled(writer.text, writer.signature()), *arguments)

    def operation(self, code: Code, operation: Operation, arguments: list[Any], out: Operand) -> bool:
        """Take rows of a large array by `gather`, and add them by `scatter`."""
        write = {"take": gathered, "index_add": added}.get(operation.name)
        return write is not None and write(code, operation, arguments, out)


def fusible(operation: Operation) -> bool:
    """Return whether a loop with the operation's expression is fast."""
    return expressible(operation) and (operation.name not in EXPENSIVE or operation.result.type.size <= MAX_EXPENSIVE)


def expressible(operation: Operation) -> bool:
    """Return whether there is an expression for an operation."""
    dtypes = {v.type.dtype for v in (*operation.reads, operation.result)}
    if not dtypes <= DTYPES.keys():
        return False
    if operation.name in REDUCTIONS or operation.name in ("astype", "reshape"):
        return True
    if operation.name in REAL_ONLY and any(d.kind != "real floating" for d in dtypes):
        return False
    return operation.name in CHEAP or operation.name in EXPENSIVE or operation.name == "bitwise_invert"


def _index_of(reads: list[Operand], result: Operand) -> int | None:
    """Return which of the arrays that are read has the memory of the result."""
    for i, operand in enumerate(reads):
        if operand.array is not None and result.array is not None and same_memory(operand.array, result.array):
            return i
    return None


def _contiguous(code: Code, group: Group, variable: Variable, operand: Operand, flat: bool) -> str:
    """Return the name of the array as the loop takes it: contiguous, and of `loop_shape`."""
    shape = loop_shape(group, variable, flat)
    if operand.array is None:
        ordered = f"{code.bind(np.ascontiguousarray)}({operand.name}, {variable.type.dtype!r}).reshape({shape})"
        return code.once(ordered) if operand.name.startswith("x") else ordered  # x…: an input, the same in each step
    if operand.array.flags.c_contiguous:
        return operand.text(code) if operand.array.shape == shape else code.bind(operand.array.reshape(shape))
    copy = np.empty(operand.array.shape, dtype=operand.array.dtype)
    code.call(np.copyto, code.bind(copy), operand.text(code))
    return code.bind(copy.reshape(shape))


def loop_shape(group: Group, variable: Variable, flat: bool) -> tuple[int, ...]:
    """Return the shape of an array as the loop takes it: (rows, columns), (rows,), (columns,), () or flat."""
    rows, columns = group.rows, group.columns
    full = (rows * columns,) if flat else (rows, columns)
    return {Extent.ONE: (), Extent.ROW: (rows,), Extent.COLUMN: (columns,), Extent.FULL: full}[group.extents[variable]]


class Writer:
    """Writes the loops of one group.

    ``overwritten`` holds for each result the index of the argument that it overwrites, or None. Such a result has the
    argument's name: two names for the same memory would prevent vectorization.
    """

    def __init__(self, group: Group, overwritten: list[int | None]) -> None:
        self.group = group
        last = max(group.levels.values())
        swept = [v for v, level in group.levels.items() if level == last and group.extents[v] == Extent.FULL]
        self.sweeps = last + (last == 0 or bool(swept))
        self.flat = self.sweeps == 1 and {*group.extents.values()} <= {Extent.ONE, Extent.FULL}
        self.lines: list[str] = []
        self.names = {o.result: f"v{i}" for i, o in enumerate(group.operations)}
        self.sources = {v: f"x{i}" for i, v in enumerate(group.reads)}
        targets = list(zip(group.results, overwritten, strict=True))
        self.fresh = {v: f"y{i}" for i, (v, index) in enumerate(targets) if index is None}
        self.sinks = self.fresh | {v: f"x{index}" for v, index in targets if index is not None}
        self.given = [*group.reads, *self.fresh]
        self.scratch: dict[Variable, str] = {}
        self.numbers: list[np.generic] = []  # arguments after the arrays, so that another rate needs no other source
        self.text = self._text()

    def signature(self) -> Any:
        """Return Numba's types of the arguments."""
        dimensions = [len(loop_shape(self.group, v, self.flat)) for v in self.given]
        dtypes = [numba.from_dtype(np.dtype(v.type.dtype)) for v in self.given]
        arrays = (types.Array(dtype, count, "C") for dtype, count in zip(dtypes, dimensions, strict=True))
        return (*arrays, *(numba.from_dtype(number.dtype) for number in self.numbers))

    def _text(self) -> str:
        """Return the source of the function ``loops``."""
        group = self.group
        by_extent = {e: [v for v in group.extents if group.extents[v] == e] for e in Extent}
        self._find_scratch()
        self._load(1, by_extent[Extent.ONE], "[()]")
        self._compute(1, [o for o in group.operations if group.extents[o.result] == Extent.ONE])
        self._store(1, by_extent[Extent.ONE], "[()]")
        varies = len(by_extent[Extent.ONE]) < len(group.extents)
        if varies and self.flat:
            self._sweep(1, 0)
        elif varies:
            rows, columns = self._length(0, Extent.ROW), self._length(1, Extent.COLUMN)
            self.lines += [f"    rows, columns = {rows}, {columns}"]
            self.lines += [f"    {b} = np.empty(columns, {DTYPES[v.type.dtype]})" for v, b in self.scratch.items()]
            self.lines += ["    for r in range(rows):"]
            self._load(2, by_extent[Extent.ROW], "[r]")
            for level in range(self.sweeps):
                self._compute(2, self._rows_at(level))
                self._sweep(2, level)
            self._compute(2, self._rows_at(self.sweeps))
            self._store(2, by_extent[Extent.ROW], "[r]")
        parameters = ", ".join(
            [*self.sources.values(), *self.fresh.values(), *(f"n{i}" for i in range(len(self.numbers)))]
        )
        return "\n".join([f"def loops({parameters}):", *self.lines, ""])

    def _length(self, axis: int, other: Extent) -> str:
        """Return the number of rows (axis 0) or columns as an expression: a length of a full array, or of one of ``other``."""
        group = self.group
        for extent, at in ((Extent.FULL, axis), (other, 0)):
            for v in (*group.reads, *group.results):
                if group.extents[v] == extent:
                    return f"{self.sources.get(v) or self.sinks[v]}.shape[{at}]"
        return str((group.rows, group.columns)[axis])

    def _rows_at(self, level: int) -> list[Operation]:
        extents, levels = self.group.extents, self.group.levels
        rows = [o for o in self.group.operations if extents[o.result] == Extent.ROW and o.name not in REDUCTIONS]
        return [o for o in rows if levels[o.result] == level]

    def _swept_at(self, level: int) -> list[Operation]:
        """Return what the sweep of a level computes: full values, and the reductions whose results the next level may use."""
        extents, levels = self.group.extents, self.group.levels
        swept = [o for o in self.group.operations if extents[o.result] == Extent.FULL or o.name in REDUCTIONS]
        return [o for o in swept if levels[o.result] == level + (o.name in REDUCTIONS)]

    def _find_scratch(self) -> None:
        """Give a row of memory to full values that a later sweep reads again, or that `row_sum` adds."""
        for level in range(self.sweeps):
            for operation in self._swept_at(level):
                for v in operation.reads:
                    earlier = v in self.names and self.group.extents[v] == Extent.FULL and self.group.levels[v] < level
                    if earlier or self._sums_by_call(operation):
                        self.scratch.setdefault(v, f"row{len(self.scratch)}")

    def _sums_by_call(self, operation: Operation) -> bool:
        return operation.name == "sum" and self.group.columns >= MIN_PAIRWISE

    def _sweep(self, indent: int, level: int) -> None:
        """Write one loop over the columns, or over all elements."""
        group, operations = self.group, self._swept_at(level)
        if not operations:
            return
        reductions = [o for o in operations if o.name in REDUCTIONS and not self._sums_by_call(o)]
        for o in reductions:
            self._line(indent, f"{self.names[o.result]} = {DTYPES[o.result.type.dtype]}({START[o.name]})")
        needed = list(dict.fromkeys(v for o in operations for v in o.reads))
        index, count = ("[j]", self._length(0, Extent.FULL)) if self.flat else ("[r, j]", "columns")
        self._line(indent, f"for j in range({count}):")
        self._load(indent + 1, [v for v in needed if group.extents[v] == Extent.COLUMN], "[j]")
        self._load(indent + 1, [v for v in needed if group.extents[v] == Extent.FULL], index)
        for v in needed:
            if v in self.scratch and v in self.names and group.levels[v] < level:
                self._line(indent + 1, f"{self.names[v]} = {self.scratch[v]}[j]")
        elementwise = [o for o in operations if o.name not in REDUCTIONS]
        self._compute(indent + 1, elementwise)
        made = [o.result for o in elementwise]
        for v in (*(v for v in needed if level == 0 and v in self.sources), *made):
            if v in self.scratch:
                self._line(indent + 1, f"{self.scratch[v]}[j] = {self._name(v)}")
        for o in reductions:
            total, dtype = self.names[o.result], DTYPES[o.result.type.dtype]
            self._line(indent + 1, ACCUMULATE[o.name].format(total, self._name(o.reads[0]), dtype))
        self._store(indent + 1, made, index)
        for o in operations:
            if self._sums_by_call(o):
                self._line(indent, f"{self.names[o.result]} = row_sum({self.scratch[o.reads[0]]})")

    def _load(self, indent: int, variables: Iterable[Variable], index: str) -> None:
        for v in variables:
            if v in self.sources:
                self._line(indent, f"{self._name(v)} = {self.sources[v]}{index}")

    def _store(self, indent: int, variables: Iterable[Variable], index: str) -> None:
        for v in variables:
            if v in self.sinks:
                self._line(indent, f"{self.sinks[v]}{index} = {self.names[v]}")

    def _compute(self, indent: int, operations: Iterable[Operation]) -> None:
        for o in operations:
            self._line(indent, f"{self.names[o.result]} = {self._expression(o)}")

    def _line(self, indent: int, text: str) -> None:
        self.lines.append("    " * indent + text)

    def _name(self, variable: Variable) -> str:
        return self.names.get(variable) or f"a{self.sources[variable][1:]}"

    def _number(self, value: float | bool, dtype: str) -> str:
        """Return a number as a literal if it is `PLAIN`, or an integer; else as the name of an argument."""
        if dtype not in ("f4", "f8") or value in PLAIN or not math.isfinite(value):
            return _literal(value, dtype)
        number = np.dtype(dtype).type(value)
        known = next((i for i, n in enumerate(self.numbers) if n == number and n.dtype == number.dtype), None)
        if known is None:
            self.numbers.append(number)
        return f"n{len(self.numbers) - 1 if known is None else known}"

    def _expression(self, operation: Operation) -> str:
        dtype, x = DTYPES[operation.result.type.dtype], self._name(operation.reads[0])
        if operation.name == "reshape":
            return x
        if operation.name == "astype":
            return f"{x} != 0" if dtype == "b1" else f"{dtype}({x})"
        if operation.name == "bitwise_invert":
            return f"not {x}" if dtype == "b1" else f"{dtype}(~{x})"
        numeric = [v.type.dtype for v in operation.reads if v.type.dtype != "bool"]
        common = DTYPES[np.result_type(*numeric).name] if numeric else "b1"
        inputs = operation.arguments[:1] if operation.name == "broadcast_to" else operation.arguments
        arguments = [self._name(a) if isinstance(a, Variable) else self._number(a, common) for a in inputs]
        expression = (CHEAP.get(operation.name) or EXPENSIVE[operation.name]).format(*arguments)
        return expression if dtype == "b1" else f"{dtype}({expression})"


def _literal(value: float | bool, dtype: str) -> str:
    if dtype in ("f4", "f8"):
        value = float(value)
        if not math.isfinite(value):
            return f"{dtype}({'np.nan' if math.isnan(value) else 'np.inf' if value > 0 else '-np.inf'})"
    return f"{dtype}({value!r})"
