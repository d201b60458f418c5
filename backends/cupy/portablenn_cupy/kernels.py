"""The text of CUDA kernels: one for each group of operations, for reductions, gathers and copies.

NVRTC compiles the text on a GPU. Sizes and strides are written out as numbers. A kernel names its
workers only through a few functions (`PRELUDE`), so that the same text, with other such functions (`ON_THE_HOST`), is also a
C++ program of one worker, which a test can run without a GPU.

Integers are computed without sign, for overflow of signed ones is undefined in C++ and wraps in array libraries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from portablenn.program.ir import DType, Operation, Variable
from portablenn.runtime.backend import UnsupportedError
from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer, Storage, c_strides
from portablenn.runtime.kernels.fusion import REDUCTIONS, Extent, Group
from portablenn.runtime.kernels.schedule import (
    Collect,
    Copy,
    Count,
    Extreme,
    Fused,
    Gather,
    Instruction,
    Product,
    Reduction,
)

TYPES = {"bool": "bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
         "int32": "int", "uint32": "unsigned", "float32": "float", "int64": "long long", "uint64": "unsigned long long",
         "float64": "double"}  # fmt: skip

EXPRESSIONS = {
    "acos": "acos({0})", "acosh": "acosh({0})", "add": "{0} + {1}", "asin": "asin({0})", "asinh": "asinh({0})",
    "atan": "atan({0})", "atan2": "atan2({0}, {1})", "atanh": "atanh({0})", "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "broadcast_to": "{0}", "ceil": "ceil({0})",
    "copysign": "copysign({0}, {1})", "cos": "cos({0})", "cosh": "cosh({0})", "divide": "{0} / {1}", "equal": "{0} == {1}",
    "exp": "exp({0})", "expm1": "expm1({0})", "floor": "floor({0})", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "hypot": "hypot({0}, {1})", "isfinite": "isfinite({0})", "isinf": "isinf({0})", "isnan": "isnan({0})",
    "less": "{0} < {1}", "less_equal": "{0} <= {1}", "log": "log({0})", "log10": "log10({0})", "log1p": "log1p({0})",
    "log2": "log2({0})", "logical_and": "{0} && {1}", "logical_not": "!{0}", "logical_or": "{0} || {1}",
    "logical_xor": "{0} != {1}", "maximum": "larger({0}, {1})", "minimum": "smaller({0}, {1})", "multiply": "{0} * {1}",
    "negative": "-{0}", "not_equal": "{0} != {1}", "pow": "pow({0}, {1})", "reciprocal": "1 / {0}", "round": "rint({0})",
    "sign": "sign_of({0})", "signbit": "signbit({0})", "sin": "sin({0})", "sinh": "sinh({0})", "sqrt": "sqrt({0})",
    "square": "{0} * {0}", "subtract": "{0} - {1}", "tan": "tan({0})", "tanh": "tanh({0})", "trunc": "trunc({0})",
}  # fmt: skip

REAL = frozenset(
    "acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh divide exp expm1 floor hypot isfinite isinf isnan log "
    "log10 log1p log2 pow reciprocal round signbit sin sinh sqrt tan tanh trunc".split()
)
"""Of real numbers only: of integers they mean something else, or nothing."""

FUNCTIONS = """
template <class T> WORKER T larger(T a, T b) { return (a > b || a != a) ? a : b; }
template <class T> WORKER T smaller(T a, T b) { return (a < b || a != a) ? a : b; }
template <class T> WORKER T sign_of(T a) { return a != a ? a : T(T(0) < a) - T(a < T(0)); }
struct Sum {
    template <class T> METHOD T operator()(T a, T b) const { return a + b; }
    METHOD int operator()(int a, int b) const { return (int)((unsigned)a + (unsigned)b); }
    METHOD long long operator()(long long a, long long b) const {
        return (long long)((unsigned long long)a + (unsigned long long)b);
    }
};
struct Max { template <class T> METHOD T operator()(T a, T b) const { return larger(b, a); } };
struct Min { template <class T> METHOD T operator()(T a, T b) const { return smaller(b, a); } };
"""

PRELUDE = (
    """#define METHOD __device__ __forceinline__
#define WORKER static METHOD
#ifndef INFINITY
#define INFINITY __longlong_as_double(0x7ff0000000000000LL)
#define NAN __longlong_as_double(0x7ff8000000000000LL)
#endif
typedef long long index_t;
WORKER index_t first_element() {
    return ((index_t)blockIdx.x * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}
WORKER index_t element_step() { return (index_t)gridDim.x * blockDim.x * blockDim.y; }
WORKER index_t first_column() { return (index_t)blockIdx.x * blockDim.x + threadIdx.x; }
WORKER index_t column_step() { return (index_t)gridDim.x * blockDim.x; }
WORKER index_t first_row() { return (index_t)blockIdx.x * blockDim.y + threadIdx.y; }
WORKER index_t row_step() { return (index_t)gridDim.x * blockDim.y; }
WORKER int lane() { return threadIdx.x; }
WORKER int lanes() { return blockDim.x; }
WORKER int band() { return threadIdx.y; }
WORKER int bands() { return blockDim.y; }
WORKER int part() { return blockIdx.y; }
WORKER bool is_first() { return blockIdx.x == 0 && threadIdx.x == 0 && threadIdx.y == 0; }
"""
    + FUNCTIONS
    + """
// Over the lanes of a row: a warp, or a block of one row.
template <class F, class T> WORKER T over_lanes(F f, T x) {
    for (int d = 16; d > 0; d >>= 1) x = f(x, __shfl_xor_sync(0xffffffffu, x, d));
    if (blockDim.x > 32) {
        __shared__ T parts[32];
        __syncthreads();
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
        __syncthreads();
        x = parts[0];
        for (int i = 1; i < (int)blockDim.x / 32; ++i) x = f(x, parts[i]);
    }
    return x;
}
// Over the bands of a block, for each of its 32 columns; the result is the first band's.
template <class F, class T> WORKER T over_bands(F f, T x) {
    __shared__ T parts[32][33];
    __syncthreads();
    parts[threadIdx.y][threadIdx.x] = x;
    __syncthreads();
    if (threadIdx.y == 0) for (int i = 1; i < (int)blockDim.y; ++i) x = f(x, parts[i][threadIdx.x]);
    return x;
}
"""
)

ON_THE_HOST = (
    """#include <cmath>
using namespace std;
#define METHOD inline
#define WORKER static METHOD
#define __global__
#define __device__
static inline void __syncthreads() {}
typedef long long index_t;
static int the_part = 0;
extern "C" void set_part(int p) { the_part = p; }
WORKER index_t first_element() { return 0; }
WORKER index_t element_step() { return 1; }
WORKER index_t first_column() { return 0; }
WORKER index_t column_step() { return 1; }
WORKER index_t first_row() { return 0; }
WORKER index_t row_step() { return 1; }
WORKER int lane() { return 0; }
WORKER int lanes() { return 1; }
WORKER int band() { return 0; }
WORKER int bands() { return 1; }
WORKER int part() { return the_part; }
WORKER bool is_first() { return true; }
template <class F, class T> WORKER T over_lanes(F, T x) { return x; }
template <class F, class T> WORKER T over_bands(F, T x) { return x; }
"""
    + FUNCTIONS
)

NAME = "kernel"
"""Of every kernel's function, until `kernels` tells those with different texts apart."""

COMBINE = {"sum": "Sum()", "max": "Max()", "min": "Min()"}

WARP, BLOCK, MAX_BLOCKS = 32, 256, 4096
PART = 1024
"""Rows, or elements, that one block reduces; more are shared among several, and a second kernel joins their results."""


@dataclass(frozen=True)
class Kernel:
    """A call of a kernel: its text, how many workers, the arrays that it takes, and numbers (int) after them."""

    name: str
    text: str
    grid: tuple[int, int]
    block: tuple[int, int]
    arguments: tuple[Buffer, ...]
    numbers: tuple[int, ...] = ()


def kernels(instructions: Sequence[Instruction]) -> list[Kernel | Product]:
    """Return a kernel for each instruction that is not a product, in order; those with the same text have the same name.

    Raises
    ------
    UnsupportedError
        If there is none for an instruction.
    """
    names: dict[str, str] = {}
    made: list[Kernel | Product] = []
    for instruction in instructions:
        if isinstance(instruction, Product):
            if max(*instruction.a.shape, *instruction.b.shape) >= 2**31:
                raise UnsupportedError(
                    f"products of {instruction.a.shape} and {instruction.b.shape}: cuBLAS takes ints"
                )
            made.append(instruction)
            continue
        kernel = _kernel(instruction)
        name = names.setdefault(kernel.text, f"kernel_{len(names)}")
        made.append(replace(kernel, name=name, text=kernel.text.replace("void kernel(", f"void {name}(", 1)))
    return made


def _kernel(instruction: Instruction) -> Kernel:
    if isinstance(instruction, Fused):
        return _GroupWriter(instruction.group, instruction.operands).kernel()
    if isinstance(instruction, Reduction):
        if ITEMSIZE[instruction.out.dtype] < 4:
            raise UnsupportedError(f"{instruction.function} of {instruction.x.dtype}")  # there is no shuffle of such
        return reduction_kernel(
            instruction.function, instruction.x, instruction.out, instruction.axes, instruction.parts
        )
    if isinstance(instruction, Extreme):
        return argument_kernel(instruction.function, instruction.x, instruction.out, instruction.axis)
    if isinstance(instruction, Gather):
        return take_kernel(instruction.x, instruction.indices, instruction.out, instruction.axis)
    if isinstance(instruction, Copy):
        return copy_kernel(instruction.source, instruction.target)
    if isinstance(instruction, Collect):
        return collect_kernel(instruction.source, instruction.target, instruction.counter)
    assert isinstance(instruction, Count)
    return count_kernel(instruction.counter)


def expressible(operation: Operation) -> bool:
    """Whether there is an expression for an elementwise operation or a row reduction."""
    dtypes = {v.type.dtype for v in (*operation.reads, operation.result)}
    if not dtypes <= TYPES.keys():
        return False
    if operation.name in REAL and any(v.type.dtype.kind != "real floating" for v in operation.reads):
        return False
    special = ("astype", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "reshape", "where", "abs")
    return operation.name in EXPRESSIONS or operation.name in REDUCTIONS or operation.name in special


class _GroupWriter:
    """All operations of a group: a worker an element, or, where rows are reduced, a warp or a block a row."""

    def __init__(self, group: Group, buffers: dict[Variable, Buffer]) -> None:
        self.group = group
        self.given = list(dict.fromkeys([*group.reads, *group.results]))
        self.buffers = buffers
        self.names = {o.result: f"v{i}" for i, o in enumerate(group.operations)}
        self.names |= {v: f"a{i}" for i, v in enumerate(self.given) if v not in self.names}
        self.pointers = {v: f"p{i}" for i, v in enumerate(self.given)}
        self.by_result = {o.result: o for o in group.operations}
        self.lines: list[str] = []

    def kernel(self) -> Kernel:
        group = self.group
        sweeps = max(group.levels.values())
        ones = [v for v in group.extents if group.extents[v] == Extent.ONE]
        self._load(ones)
        self._compute(o for o in group.operations if group.extents[o.result] == Extent.ONE)
        self._store(ones, "if (is_first()) ")
        if sweeps:
            grid, block = self._rows(sweeps)
        else:
            grid, block = self._elements()
        parameters = ", ".join(
            f"{'' if v in group.results else 'const '}{TYPES[v.type.dtype]}* {self.pointers[v]}" for v in self.given
        )
        text = f'extern "C" __global__ void kernel({parameters}) {{\n' + "\n".join(self.lines) + "\n}\n"
        return Kernel(NAME, text, grid, block, tuple(self.buffers[v] for v in self.given))

    def _elements(self) -> tuple[tuple[int, int], tuple[int, int]]:
        group = self.group
        varying = [o for o in group.operations if group.extents[o.result] != Extent.ONE]
        if not varying:
            return (1, 1), (1, 1)
        count = group.rows * group.columns
        self.lines.append(f"for (index_t i = first_element(); i < {count}; i += element_step()) {{")
        self.lines.append(f"const index_t r = i / {group.columns}, j = i % {group.columns}; (void)r; (void)j;")
        self._load(v for v in group.reads if group.extents[v] != Extent.ONE)
        self._compute(varying)
        self._store([v for v in group.results if group.extents[v] == Extent.ROW], "if (j == 0) ")
        self._store([v for v in group.results if group.extents[v] == Extent.FULL], "")
        self.lines.append("}")
        return (min(-(-count // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1)

    def _rows(self, sweeps: int) -> tuple[tuple[int, int], tuple[int, int]]:
        group = self.group
        wide = group.columns > PART
        lanes = BLOCK if wide else WARP
        rows = 1 if wide else BLOCK // WARP
        self.lines.append(f"for (index_t r = first_row(); r < {group.rows}; r += row_step()) {{")
        self._load(v for v in group.reads if group.extents[v] == Extent.ROW)
        for level in range(sweeps + 1):
            self._compute(
                o for o in group.operations
                if group.extents[o.result] == Extent.ROW and group.levels[o.result] == level and o.name not in REDUCTIONS
            )  # fmt: skip
            self._sweep(level)
        self._store([v for v in group.results if group.extents[v] == Extent.ROW], "if (lane() == 0) ")
        self.lines.append("}")
        return (min(-(-group.rows // rows), MAX_BLOCKS), 1), (lanes, rows)

    def _sweep(self, level: int) -> None:
        """One loop over a row's columns; what an earlier sweep computed is computed again, which is cheaper than memory."""
        group = self.group
        reductions = [o for o in group.operations if o.name in REDUCTIONS and group.levels[o.result] == level + 1]
        results = [v for v in group.results if group.extents[v] == Extent.FULL and group.levels[v] == level]
        if not reductions and not results:
            return
        needed = self._ancestors([*results, *(o.reads[0] for o in reductions)])
        for o in reductions:
            dtype = o.result.type.dtype
            self.lines.append(f"{TYPES[dtype]} {self.names[o.result]} = {_start(o.name, dtype)};")
        self.lines.append(f"for (index_t j = lane(); j < {group.columns}; j += lanes()) {{")
        self._load(v for v in group.reads if v in needed and group.extents[v] in (Extent.FULL, Extent.COLUMN))
        self._compute(o for o in group.operations if o.result in needed and group.extents[o.result] == Extent.FULL)
        for o in reductions:
            total = self.names[o.result]
            self.lines.append(f"{total} = {COMBINE[o.name]}({total}, {self.names[o.reads[0]]});")
        self._store(results, "")
        self.lines.append("}")
        for o in reductions:
            total = self.names[o.result]
            self.lines.append(f"{total} = over_lanes({COMBINE[o.name]}, {total});")

    def _ancestors(self, variables: Sequence[Variable]) -> set[Variable]:
        """The full and column values that these are computed from, themselves included."""
        needed: set[Variable] = set()
        waiting = list(variables)
        while waiting:
            v = waiting.pop()
            if v not in needed and self.group.extents[v] in (Extent.FULL, Extent.COLUMN):
                needed.add(v)
                waiting += self.by_result[v].reads if v in self.by_result else ()
        return needed

    def _at(self, variable: Variable) -> str:
        """The element of an argument's array that belongs to row r and column j."""
        buffer, group = self.buffers[variable], self.group
        linear = {
            Extent.ONE: "0",
            Extent.ROW: "r",
            Extent.COLUMN: "j",
            Extent.FULL: f"(r * {group.columns} + j)",
        }[group.extents[variable]]
        return f"{self.pointers[variable]}[{located(buffer, linear)}]"

    def _load(self, variables: Any) -> None:
        for v in variables:
            if v in self.group.reads:
                self.lines.append(f"const {TYPES[v.type.dtype]} {self.names[v]} = {self._at(v)};")

    def _store(self, variables: Any, condition: str) -> None:
        for v in variables:
            if v in self.group.results:
                self.lines.append(f"{condition}{self._at(v)} = {self.names[v]};")

    def _compute(self, operations: Any) -> None:
        for o in operations:
            dtype = TYPES[o.result.type.dtype]
            self.lines.append(f"const {dtype} {self.names[o.result]} = {self._expression(o)};")

    def _expression(self, operation: Operation) -> str:
        inputs = (
            operation.arguments[:1] if operation.name in ("astype", "broadcast_to", "reshape") else operation.arguments
        )
        return expression(operation, [self.names[a] if isinstance(a, Variable) else a for a in inputs])


def expression(operation: Operation, arguments: Sequence[Any]) -> str:
    """C++ for an elementwise operation of named values and numbers."""
    name, result = operation.name, operation.result.type.dtype
    if name == "reshape":
        return str(arguments[0])
    if name == "astype":
        return f"{arguments[0]} != 0" if result == "bool" else f"({TYPES[result]}){arguments[0]}"
    numeric = [v.type.dtype for v in operation.reads if v.type.dtype != "bool"]
    common = DType(np.result_type(*numeric).name) if numeric else DType("bool")
    values = [a if isinstance(a, str) else number(a, common) for a in arguments]
    kinds = [v.type.dtype for v in operation.reads]
    if name == "where":
        chosen = [f"({TYPES[result]})({v})" for v in values[1:]]
        return f"{values[0]} ? {chosen[0]} : {chosen[1]}"
    if name == "bitwise_invert":
        return f"!{values[0]}" if result == "bool" else f"({TYPES[result]})~{values[0]}"
    if name == "abs":
        return _absolute(values[0], result)
    if len(set(kinds)) > 1:
        values = [f"({TYPES[common]}){v}" for v in values]
    if common.is_integer:
        working = TYPES[_unsigned(common)] if ITEMSIZE[common] > 2 else "unsigned"  # shorter ones become signed ints
        if name == "bitwise_right_shift":
            return f"({TYPES[result]})({values[0]} >> {values[1]})"
        if name in ("add", "subtract", "multiply", "negative", "square"):
            values = [f"({working})({v})" for v in values]
        if name == "bitwise_left_shift":
            return f"({TYPES[result]})(({working})({values[0]}) << {values[1]})"
    if name not in EXPRESSIONS:
        raise UnsupportedError(f"{name} of {', '.join(kinds)}")
    return f"({TYPES[result]})({EXPRESSIONS[name].format(*values)})"


def _absolute(value: str, dtype: DType) -> str:
    if dtype.kind == "real floating":
        return f"fabs({value})"
    if dtype.kind != "signed":
        return value
    return f"({TYPES[dtype]})({value} < 0 ? 0 - ({TYPES[_unsigned(dtype)]})({value}) : {value})"


def _unsigned(dtype: DType) -> DType:
    return DType(f"u{dtype}") if dtype.kind == "signed" else dtype


def number(value: float | bool, dtype: DType) -> str:
    """A literal of a dtype, to the bit."""
    kind = TYPES[dtype]
    if dtype.kind != "real floating":
        if dtype == "int64" and value == -(2**63):
            return "(-9223372036854775807LL - 1)"
        return f"({kind}){int(value)}{'ULL' if int(value) > 2**63 - 1 else 'LL'}"
    value = float(value)
    if math.isfinite(value):
        return f"({kind}){value.hex()}"
    return f"({kind}){'NAN' if math.isnan(value) else 'INFINITY' if value > 0 else '-INFINITY'}"


def _start(name: str, dtype: DType) -> str:
    if name == "sum":
        return number(0, dtype)
    if dtype.kind == "real floating":
        return number(-math.inf if name == "max" else math.inf, dtype)
    if dtype == "bool":
        return "false" if name == "max" else "true"
    limits = np.iinfo(dtype)
    return number(int(limits.min if name == "max" else limits.max), dtype)


def located(buffer: Buffer, linear: str) -> str:
    """Where the element number ``linear``, counted in order, lies from the buffer's first element on."""
    if buffer.contiguous:
        return linear
    terms = []
    for length, stride, ahead in zip(buffer.shape, buffer.strides, c_strides(buffer.shape), strict=True):
        if length > 1 and stride != 0:
            terms.append(f"({linear} / {ahead} % {length}) * ({stride})")
    return " + ".join(terms) or "0"


def copy_kernel(source: Buffer, target: Buffer) -> Kernel:
    """Element by element, between buffers of one shape, whatever their strides."""
    count = math.prod(source.shape)
    kind, into = TYPES[source.dtype], TYPES[target.dtype]
    text = (
        f'extern "C" __global__ void kernel(const {kind}* p0, {into}* p1) {{\n'
        f"for (index_t i = first_element(); i < {count}; i += element_step())\n"
        f"p1[{located(target, 'i')}] = p0[{located(source, 'i')}];\n}}\n"
    )
    return Kernel(NAME, text, (min(-(-count // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1), (source, target))


def collect_kernel(source: Buffer, target: Buffer, counter: Buffer) -> Kernel:
    """Into the row of ``target`` that the counter names."""
    count = math.prod(source.shape)
    kind = TYPES[source.dtype]
    text = (
        f'extern "C" __global__ void kernel(const {kind}* p0, {kind}* p1, const int* p2) {{\n'
        f"for (index_t i = first_element(); i < {count}; i += element_step())\n"
        f"p1[(index_t)*p2 * {count} + i] = p0[{located(source, 'i')}];\n}}\n"
    )
    return Kernel(NAME, text, (min(-(-count // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1), (source, target, counter))


def count_kernel(counter: Buffer) -> Kernel:
    """The counter of steps goes one up."""
    text = 'extern "C" __global__ void kernel(int* p0) { if (is_first()) *p0 += 1; }\n'
    return Kernel(NAME, text, (1, 1), (1, 1), (counter,))


def take_kernel(x: Buffer, indices: Buffer, out: Buffer, axis: int) -> Kernel:
    """Slices of ``x`` along an axis. A negative index counts from the end; one beyond either end is brought to it."""
    length, taken = x.shape[axis], out.shape[axis]
    inner = math.prod(out.shape[axis + 1 :])
    count = math.prod(out.shape)
    linear = f"(i / {inner * taken} * {length} + k) * {inner} + i % {inner}"
    text = (
        f'extern "C" __global__ void kernel(const {TYPES[x.dtype]}* p0, const {TYPES[indices.dtype]}* p1, '
        f"{TYPES[out.dtype]}* p2) {{\n"
        f"for (index_t i = first_element(); i < {count}; i += element_step()) {{\n"
        f"index_t k = (index_t)p1[{located(indices, f'(i / {inner} % {taken})')}];\n"
        f"k = k < 0 ? k + {length} : k; k = k < 0 ? 0 : k >= {length} ? {length - 1} : k;\n"
        f"const index_t at = {linear};\n"
        f"p2[{located(out, 'i')}] = p0[{located(x, 'at')}];\n}}\n}}\n"
    )
    return Kernel(NAME, text, (min(-(-count // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1), (x, indices, out))


def reduction_parts(x: Buffer, axes: tuple[int, ...]) -> int:
    """Among how many blocks each result is shared."""
    reduced = math.prod(x.shape[a] for a in axes)
    return min(max(1, reduced // PART), 256) if _reduces_first(x, axes) or _reduces_last(x, axes) else 1


def _reduces_last(x: Buffer, axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(x.shape) - len(axes), len(x.shape)))


def _reduces_first(x: Buffer, axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(axes)))


def reduction_kernel(function: str, x: Buffer, out: Buffer, axes: tuple[int, ...], parts: int) -> Kernel:
    """A sum, maximum or minimum along axes. ``out`` is in order; of several parts it has one row each."""
    kind, dtype, combine = TYPES[x.dtype], TYPES[out.dtype], COMBINE[function]
    kept = math.prod(n for a, n in enumerate(x.shape) if a not in axes)
    reduced = math.prod(x.shape[a] for a in axes)
    share = -(-reduced // parts)
    head = f'extern "C" __global__ void kernel(const {kind}* p0, {dtype}* p1) {{\n'
    start = f"{dtype} total = {_start(function, out.dtype)};\n"
    end = f"begin + {share} < {reduced} ? begin + {share} : {reduced}"
    bounds = f"const index_t begin = (index_t)part() * {share}, end = {end};\n"
    target = f"p1[(index_t)part() * {kept} + "
    if _reduces_last(x, axes):  # the lanes of a block share what is reduced
        body = (
            f"for (index_t r = first_row(); r < {kept}; r += row_step()) {{\n{start}"
            "for (index_t k = begin + lane(); k < end; k += lanes())\n"
            f"total = {combine}(total, ({dtype})p0[{located(x, f'(r * {reduced} + k)')}]);\n"
            f"total = over_lanes({combine}, total);\nif (lane() == 0) {target}r] = total;\n}}\n"
        )
        long = share > 4 * WARP
        grid, block = (kept if long else -(-kept // 8), parts), (BLOCK if long else WARP, 1 if long else 8)
    elif _reduces_first(x, axes):  # a lane a column, and the bands of a block share the rows
        body = (
            f"for (index_t b = first_column(); b < {-(-kept // WARP) * WARP}; b += column_step()) {{\n{start}"
            f"const index_t j = b < {kept} ? b : {kept - 1};\n"
            "for (index_t k = begin + band(); k < end; k += bands())\n"
            f"total = {combine}(total, ({dtype})p0[{located(x, f'(k * {kept} + j)')}]);\n"
            f"total = over_bands({combine}, total);\nif (band() == 0 && b < {kept}) {target}b] = total;\n}}\n"
        )
        grid, block = (-(-kept // WARP), parts), (WARP, 16)
    else:
        at = _mixed(x, axes)
        body = (
            f"for (index_t i = first_element(); i < {kept}; i += element_step()) {{\n{start}"
            f"for (index_t k = begin; k < end; ++k)\ntotal = {combine}(total, ({dtype})p0[{at}]);\n{target}i] = total;\n}}\n"
        )
        grid, block = (min(-(-kept // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1)
    grid = (min(grid[0], 2**31 - 1), grid[1])
    return Kernel(NAME, head + bounds + body + "}\n", grid, block, (x, out))


def argument_kernel(function: str, x: Buffer, out: Buffer, axis: int | None) -> Kernel:
    """The first index of the largest or smallest element along an axis; one thread per result."""
    axes = tuple(range(len(x.shape))) if axis is None else (axis,)
    kept = math.prod(n for a, n in enumerate(x.shape) if a not in axes)
    reduced = math.prod(x.shape[a] for a in axes)
    kind, than = TYPES[x.dtype], ">" if function == "argmax" else "<"
    at = _mixed(x, axes)
    text = (
        f'extern "C" __global__ void kernel(const {kind}* p0, {TYPES[out.dtype]}* p1) {{\n'
        f"for (index_t i = first_element(); i < {kept}; i += element_step()) {{\n"
        f"index_t k = 0, best = 0; {kind} most = p0[{at}];\n"
        f"for (k = 1; k < {reduced}; ++k) {{ const {kind} x = p0[{at}];\n"
        f"if (x {than} most || (x != x && most == most)) {{ most = x; best = k; }} }}\n"
        f"p1[{located(out, 'i')}] = best;\n}}\n}}\n"
    )
    return Kernel(NAME, text, (min(-(-kept // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1), (x, out))


def _mixed(x: Buffer, axes: tuple[int, ...]) -> str:
    """The element for result number i and number k of what is reduced to it."""
    terms = []
    kept = [a for a in range(len(x.shape)) if a not in axes]
    for name, chosen in (("i", kept), ("k", list(axes))):
        shape = tuple(x.shape[a] for a in chosen)
        strides = tuple(x.strides[a] for a in chosen)
        terms.append(f"({located(Buffer(x.storage, 0, shape, strides, x.dtype), name)})")
    return " + ".join(terms)


def addresses(buffers: Sequence[Buffer], base: Callable[[Storage], int]) -> list[int]:
    """Of arrays: ``base(storage)`` is the address where a storage begins."""
    return [base(buffer.storage) + buffer.offset * ITEMSIZE[buffer.dtype] for buffer in buffers]
