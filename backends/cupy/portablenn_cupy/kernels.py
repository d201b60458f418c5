"""The source of CUDA kernels: one for each group of operations, for reductions, gathers and copies.

Sizes and strides are literals. A kernel identifies its threads only through the functions of `PRELUDE`: with others the same
source is a single-threaded C++ program, which tests run without a GPU.

Integer arithmetic is unsigned: signed overflow is undefined in C++, and wraps in array libraries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from portablenn.program.ir import DType, Operation, Variable
from portablenn.runtime.backend import UnsupportedError
from portablenn.runtime.kernels import schedule
from portablenn.runtime.kernels.buffers import ITEMSIZE, Buffer, Storage, c_strides
from portablenn.runtime.kernels.fusion import REDUCTIONS, Extent

TYPES = {"bool": "bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
         "int32": "int", "uint32": "unsigned", "float32": "float", "int64": "long long", "uint64": "unsigned long long",
         "float64": "double", "bfloat16": "bfloat16"}  # fmt: skip

EXPRESSIONS = {
    "acos": "acos({0})", "acosh": "acosh({0})", "add": "{0} + {1}", "asin": "asin({0})", "asinh": "asinh({0})",
    "atan": "atan({0})", "atan2": "atan2({0}, {1})", "atanh": "atanh({0})", "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "broadcast_to": "{0}", "ceil": "ceil({0})",
    "copysign": "copysign({0}, {1})", "cos": "cos({0})", "cosh": "cosh({0})", "divide": "{0} / {1}", "equal": "{0} == {1}",
    "exp": "exp({0})", "expm1": "expm1({0})", "floor": "floor({0})", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "hypot": "hypot({0}, {1})", "isfinite": "isfinite({0})", "isinf": "isinf({0})", "isnan": "isnan({0})",
    "less": "{0} < {1}", "less_equal": "{0} <= {1}", "log": "log({0})", "logaddexp": "log_add_exp({0}, {1})",
    "log10": "log10({0})", "log1p": "log1p({0})", "log2": "log2({0})", "logical_and": "{0} && {1}", "logical_not": "!{0}",
    "logical_or": "{0} || {1}", "logical_xor": "{0} != {1}", "maximum": "larger({0}, {1})", "minimum": "smaller({0}, {1})",
    "multiply": "{0} * {1}", "negative": "-{0}", "not_equal": "{0} != {1}", "pow": "pow({0}, {1})", "reciprocal": "1 / {0}",
    "round": "rint({0})", "sign": "sign_of({0})", "signbit": "signbit({0})", "sin": "sin({0})", "sinh": "sinh({0})",
    "sqrt": "sqrt({0})", "square": "{0} * {0}", "subtract": "{0} - {1}", "tan": "tan({0})", "tanh": "tanh({0})",
    "trunc": "trunc({0})",
}  # fmt: skip

REAL = frozenset(
    "acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh divide exp expm1 floor hypot isfinite isinf isnan log "
    "log10 log1p log2 logaddexp pow reciprocal round signbit sin sinh sqrt tan tanh trunc".split()
)
"""Operations that have these expressions for real floating numbers only."""

FUNCTIONS = """
template <class T> WORKER T larger(T a, T b) { return (a > b || a != a) ? a : b; }
template <class T> WORKER T smaller(T a, T b) { return (a < b || a != a) ? a : b; }
template <class T> WORKER T log_add_exp(T a, T b) {  // equal infinities have no difference
    return a == b ? a + (T)0.693147180559945309417 : larger(a, b) + log1p(exp(-fabs(a - b)));
}
template <class T> WORKER T sign_of(T a) { return a != a ? a : T(T(0) < a) - T(a < T(0)); }
struct bfloat16 {  // the upper half of a float
    unsigned short bits;
    METHOD bfloat16() {}
    METHOD explicit bfloat16(float x) {
        union { float number; unsigned bits; } whole;
        whole.number = x;
        bits = x != x ? 0x7fc0 : (unsigned short)((whole.bits + 0x7fff + ((whole.bits >> 16) & 1)) >> 16);
    }
    METHOD operator float() const {
        union { float number; unsigned bits; } whole;
        whole.bits = (unsigned)bits << 16;
        return whole.number;
    }
};
template <class T> struct alignas(4 * sizeof(T)) Pack { T of[4]; };
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
// Over the lanes of a row: one, a warp, or a block of one row.
template <class F, class T> WORKER T over_lanes(F f, T x) {
    if (blockDim.x == 1) return x;
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

NAME = "kernel"
"""Name of every kernel's function, until `calls` names different ones differently."""

TAKES_A_SHAPE = ("astype", "broadcast_to", "reshape")
"""Operations whose second argument is a dtype or a shape."""

FIXED = (0, 1, -1, 2, 0.5)
"""Numbers that belong to formulas and are compiled in."""

COMBINE = {"sum": "Sum()", "max": "Max()", "min": "Min()"}

WARP, BLOCK, MAX_BLOCKS = 32, 256, 2048
PACK = 4
"""Elements that a thread reads and writes at once where there are many, in one transaction of memory."""
MANY = 1 << 20
"""Elements from which that is faster: fewer are better distributed over more threads."""
FEW = 1 << 15
"""Results of a reduction up to which several threads share each: a GPU has ten times as many threads."""
ROW_OF_ONE_THREAD, MANY_ROWS = 8, 1 << 13
"""Columns up to which, and rows from which, a thread computes a whole row."""
PART = 1024
"""Rows, or elements, that one block reduces; more are shared by several blocks, and a second kernel joins their results."""


@dataclass(frozen=True)
class Kernel:
    """A call of a kernel: its source, its grid and block, the arrays that it takes, and numbers after them.

    ``written`` are the indices of the arrays that it writes, ``packed`` of those that it reads in packs, which have to begin at
    multiples of one. Numbers that often change, such as learning rates and the number
    of rows of the data, are arguments, n0, n1, …, because another text would be compiled again.
    """

    name: str
    text: str
    grid: tuple[int, int]
    block: tuple[int, int]
    arguments: tuple[Buffer, ...]
    written: tuple[int, ...]
    numbers: tuple[np.generic, ...] = ()
    packed: tuple[int, ...] = ()

    @property
    def packed_inputs(self) -> list[Buffer]:
        """The inputs of the program that it reads in packs."""
        return [self.arguments[i] for i in self.packed if self.arguments[i].storage.kind == "input"]


def expressible(operation: Operation) -> bool:
    """Return whether there is an expression for an elementwise operation or a row reduction."""
    dtypes = {v.type.dtype for v in (*operation.reads, operation.result)}
    if not dtypes <= TYPES.keys() or ("bfloat16" in dtypes and operation.name != "astype"):
        return False
    if operation.name in REAL and any(v.type.dtype.kind != "real floating" for v in operation.reads):
        return False
    special = ("astype", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "reshape", "where", "abs")
    return operation.name in EXPRESSIONS or operation.name in REDUCTIONS or operation.name in special


class _GroupWriter:
    """Writes the kernel of a group: a thread per element, or, where rows are reduced, a warp or a block per row."""

    def __init__(self, call: schedule.Fused) -> None:
        self.group, self.buffers = call.group, call.operands
        group = self.group
        self.given = list(dict.fromkeys([*group.reads, *group.results]))
        self.names = {o.result: f"v{i}" for i, o in enumerate(group.operations)}
        self.names |= {v: f"a{i}" for i, v in enumerate(self.given) if v not in self.names}
        self.pointers = {v: f"p{i}" for i, v in enumerate(self.given)}
        self.by_result = {o.result: o for o in group.operations}
        self.packs: dict[Variable, str] = {}
        self.numbers: dict[tuple[Variable, int], np.generic] = {}
        self.lines: list[str] = []
        self.linear = f"(r * {group.columns} + j)"

    def kernel(self) -> Kernel:
        group = self.group
        sweeps = max(group.levels.values())
        ones = [v for v in group.extents if group.extents[v] == Extent.ONE]
        self._load(ones)
        self._compute(o for o in group.operations if group.extents[o.result] == Extent.ONE)
        self._store(ones, "if (is_first()) ")
        grid, block = self._rows(sweeps) if sweeps else self._elements()
        written = tuple(i for i, v in enumerate(self.given) if v in group.results)
        buffers, body = [self.buffers[v] for v in self.given], "\n".join(self.lines) + "\n"
        numbers = tuple(self.numbers.values())
        return kernel_of(buffers, body, grid, block, written, group.rows * group.columns, numbers)

    def _elements(self) -> tuple[tuple[int, int], tuple[int, int]]:
        group = self.group
        varying = [o for o in group.operations if group.extents[o.result] != Extent.ONE]
        if not varying:
            return (1, 1), (1, 1)
        count = group.rows * group.columns
        full = [v for v in self.given if group.extents[v] == Extent.FULL]
        packed = count >= MANY and group.columns % PACK == 0 and all(_can_be_packed(self.buffers[v]) for v in full)
        step = PACK if packed else 1
        if packed:
            self._begin_packs(count, full)
        else:
            self.lines.append(f"for (index_t i = first_element(); i < {count}; i += element_step()) {{")
        if any(group.extents[v] in (Extent.ROW, Extent.COLUMN) for v in self.given):
            self.lines.append(f"const index_t r = i / {group.columns}, j = i % {group.columns}; (void)r; (void)j;")
        self.linear = "i"
        self._load(v for v in group.reads if group.extents[v] != Extent.ONE)
        self._compute(varying)
        self._store([v for v in group.results if group.extents[v] == Extent.ROW], "if (j == 0) ")
        self._store([v for v in group.results if group.extents[v] == Extent.FULL], "")
        if packed:
            self._end_packs(full)
        self.lines.append("}")
        return (min(-(-count // (step * BLOCK)), MAX_BLOCKS), 1), (BLOCK, 1)

    def _begin_packs(self, count: int, full: Sequence[Variable]) -> None:
        """Read a pack of each full value, and begin a loop over the elements in it."""
        self.lines.append(f"for (index_t s = {PACK} * first_element(); s < {count}; s += {PACK} * element_step()) {{")
        for v in full:
            kind, pack, pointer = TYPES[v.type.dtype], f"q{self.pointers[v]}", self.pointers[v]
            if v in self.group.reads:
                self.lines.append(f"const Pack<{kind}> {pack} = *(const Pack<{kind}>*)({pointer} + s);")
            else:
                self.lines.append(f"Pack<{kind}> {pack};")
            self.packs[v] = f"{pack}.of[u]"
        self.lines.append(f"for (int u = 0; u < {PACK}; ++u) {{ const index_t i = s + u; (void)i;")

    def _end_packs(self, full: Sequence[Variable]) -> None:
        self.lines.append("}")
        for v in full:
            if v in self.group.results:
                kind, pointer = TYPES[v.type.dtype], self.pointers[v]
                self.lines.append(f"*(Pack<{kind}>*)({pointer} + s) = q{pointer};")

    def _rows(self, sweeps: int) -> tuple[tuple[int, int], tuple[int, int]]:
        group = self.group
        short = group.columns <= ROW_OF_ONE_THREAD and group.rows >= MANY_ROWS
        lanes = 1 if short else WARP if group.columns <= PART else BLOCK
        rows = BLOCK // lanes
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
        """Return the full and column values that these are computed from, themselves included."""
        needed: set[Variable] = set()
        waiting = list(variables)
        while waiting:
            v = waiting.pop()
            if v not in needed and self.group.extents[v] in (Extent.FULL, Extent.COLUMN):
                needed.add(v)
                waiting += self.by_result[v].reads if v in self.by_result else ()
        return needed

    def _at(self, variable: Variable) -> str:
        """Return the expression of the element of an array that belongs to row r and column j."""
        if variable in self.packs:
            return self.packs[variable]
        extent = self.group.extents[variable]
        linear = {Extent.ONE: "0", Extent.ROW: "r", Extent.COLUMN: "j", Extent.FULL: self.linear}[extent]
        return f"{self.pointers[variable]}[{located(self.buffers[variable], linear)}]"

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
        given = operation.arguments[:1] if operation.name in TAKES_A_SHAPE else operation.arguments
        arguments = [
            self.names[a] if isinstance(a, Variable) else self._number(operation, i, a) for i, a in enumerate(given)
        ]
        return expression(operation, arguments)

    def _number(self, operation: Operation, position: int, value: float) -> Any:
        """Return a number of an operation, by the name of an argument of the kernel if it may be another next time."""
        dtype = common_dtype(operation)
        if dtype.kind != "real floating" or value in FIXED or not math.isfinite(value):
            return value
        key = operation.result, position
        with np.errstate(over="ignore"):
            self.numbers.setdefault(key, np.asarray(value, dtype=dtype)[()])
        return f"n{list(self.numbers).index(key)}"


def _can_be_packed(buffer: Buffer) -> bool:
    """Return whether it begins at a multiple of a pack in memory of this plug-in, which is aligned."""
    return buffer.contiguous and buffer.offset % PACK == 0 and buffer.storage.kind in ("arena", "carry")


def expression(operation: Operation, arguments: Sequence[Any]) -> str:
    """Return the C++ expression of an elementwise operation, given its arguments as names and numbers."""
    name, result = operation.name, operation.result.type.dtype
    if name == "reshape":
        return str(arguments[0])
    if name == "astype":
        return f"{arguments[0]} != 0" if result == "bool" else f"({TYPES[result]}){arguments[0]}"
    common = common_dtype(operation)
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


def common_dtype(operation: Operation) -> DType:
    """Return the dtype that numbers among the arguments of an elementwise operation have."""
    numeric = [v.type.dtype for v in operation.reads if v.type.dtype not in ("bool", "bfloat16")]
    return DType(np.result_type(*numeric).name) if numeric else DType("bool")


def _absolute(value: str, dtype: DType) -> str:
    if dtype.kind == "real floating":
        return f"fabs({value})"
    if dtype.kind != "signed":
        return value
    return f"({TYPES[dtype]})({value} < 0 ? 0 - ({TYPES[_unsigned(dtype)]})({value}) : {value})"


def _unsigned(dtype: DType) -> DType:
    return DType(f"u{dtype}") if dtype.kind == "signed" else dtype


def number(value: float | bool, dtype: DType) -> str:
    """Return an exact literal of a dtype."""
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
    """Return the offset of an element from the buffer's first, given its index in C order as an expression."""
    if buffer.contiguous:
        return linear
    axes = zip(buffer.shape, buffer.strides, c_strides(buffer.shape), strict=True)
    terms = [f"({linear} / {step} % {length}) * ({stride})" for length, stride, step in axes if length > 1 and stride]
    return " + ".join(terms) or "0"


def kernel_of(
    buffers: Sequence[Buffer],
    body: str,
    grid: tuple[int, int],
    block: tuple[int, int],
    written: tuple[int, ...] | None = None,
    count: int = 0,
    numbers: tuple[np.generic, ...] = (),
) -> Kernel:
    """Return a kernel with this body, in which the buffers are p0, p1, …, and no index exceeds their sizes or ``count``.

    It writes to the buffers with the indices ``written``, or to the last one.
    """
    written = (len(buffers) - 1,) if written is None else written
    parameters = ", ".join(f"{'const ' * (i not in written)}{TYPES[b.dtype]}* p{i}" for i, b in enumerate(buffers))
    parameters += "".join(f", {TYPES[DType(n.dtype.name)]} n{i}" for i, n in enumerate(numbers))
    for b in buffers:
        first, last = b.reach
        count = max(count, math.prod(b.shape), last - first)
    index = "typedef int index_t;\n" if count < 2**30 else ""  # several times faster
    text = f'extern "C" __global__ void {NAME}({parameters}) {{\n{index}{body}}}\n'
    return Kernel(NAME, text, grid, block, tuple(buffers), written, numbers)


def per_element(buffers: Sequence[Buffer], count: int, body: str, numbers: tuple[np.generic, ...] = ()) -> Kernel:
    """Return a kernel that executes ``body`` for i from 0 to ``count``."""
    loop = f"for (index_t i = first_element(); i < {count}; i += element_step()) {{\n{body}\n}}\n"
    return kernel_of(buffers, loop, (min(-(-count // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1), numbers=numbers)


def _copy(call: schedule.Copy) -> Kernel:
    body = f"p1[{located(call.target, 'i')}] = p0[{located(call.source, 'i')}];"
    return per_element((call.source, call.target), math.prod(call.source.shape), body)


def _collect(call: schedule.Collect) -> Kernel:
    count = math.prod(call.source.shape)
    body = f"p2[(long long)*p1 * {count} + i] = p0[{located(call.source, 'i')}];"
    return per_element((call.source, call.counter, call.target), count, body)


def _count(call: schedule.Count) -> Kernel:
    return kernel_of((call.counter,), "if (is_first()) *p0 += 1;\n", (1, 1), (1, 1))


def end_of_step(collects: Sequence[schedule.Collect], count: schedule.Count) -> Kernel:
    """Return the kernel, of one block, that collects small results and then counts the step."""
    body, buffers = "const int step = *p0;\n", [count.counter]
    for call in collects:
        source, target, size = call.source, call.target, math.prod(call.source.shape)
        from_, to = f"p{len(buffers)}[{located(source, 'i')}]", f"p{len(buffers) + 1}[(long long)step * {size} + i]"
        body += f"for (index_t i = first_element(); i < {size}; i += element_step()) {to} = {from_};\n"
        buffers += [source, target]
    body += "__syncthreads();\nif (is_first()) *p0 = step + 1;\n"
    return kernel_of(buffers, body, (1, 1), (BLOCK if collects else 1, 1), tuple(range(0, len(buffers), 2)))


def _take(call: schedule.Gather) -> Kernel:
    """Take slices. A negative index counts from the end; an index out of range is clipped."""
    x, out, taken = call.x, call.out, call.out.shape[call.axis]
    inner = math.prod(out.shape[call.axis + 1 :])
    if _takes_packs(call, inner):
        return _take_packs(call, inner)
    body = (
        f"{_index(call, f'(i / {inner} % {taken})')}"
        f"const index_t at = (i / {inner * taken} * (index_t)n0 + (index_t)k) * {inner} + i % {inner};\n"
        f"p2[{located(out, 'i')}] = p0[{located(x, 'at')}];"
    )
    return per_element(call.buffers, math.prod(out.shape), body, (np.int64(x.shape[call.axis]),))


def _index(call: schedule.Gather, place: str) -> str:
    """Return the lines that find an index k from 0 to n0, the length of the axis."""
    return (
        f"long long k = (long long)p1[{located(call.indices, place)}];\n"
        "k = k < 0 ? k + n0 : k; k = k < 0 ? 0 : k >= n0 ? n0 - 1 : k;\n"
    )


def _takes_packs(call: schedule.Gather, inner: int) -> bool:
    x, out = call.x, call.out
    whole = call.axis == 0 and inner % PACK == 0 and ITEMSIZE[x.dtype] == 4 and x.contiguous and x.offset % PACK == 0
    return whole and _can_be_packed(out) and math.prod(out.shape) >= MANY


def _take_packs(call: schedule.Gather, inner: int) -> Kernel:
    """Take whole rows, a pack at a time; ``x`` is aligned, see `CupyBackend._as_input`."""
    packs = inner // PACK
    kind = TYPES[call.x.dtype]
    body = (
        f"const index_t r = i / {packs}, j = i % {packs};\n{_index(call, 'r')}"
        f"((Pack<{kind}>*)p2)[i] = ((const Pack<{kind}>*)p0)[(index_t)k * {packs} + j];"
    )
    kernel = per_element(call.buffers, math.prod(call.out.shape) // PACK, body, (np.int64(call.x.shape[0]),))
    return replace(kernel, packed=(0,))


def reduction_parts(x: Buffer, axes: tuple[int, ...]) -> int:
    """Return how many blocks share the work of each result."""
    reduced = math.prod(x.shape[a] for a in axes)
    return min(max(1, reduced // PART), 256) if _reduces_first(x, axes) or _reduces_last(x, axes) else 1


def _reduces_last(x: Buffer, axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(x.shape) - len(axes), len(x.shape)))


def _reduces_first(x: Buffer, axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(axes)))


def _reduce(call: schedule.Reduction) -> Kernel:
    """Return the kernel of a reduction; of several parts the result has one row each."""
    x, axes, dtype, combine = call.x, call.axes, TYPES[call.out.dtype], COMBINE[call.function]
    if ITEMSIZE[call.out.dtype] < 4:
        raise UnsupportedError(f"{call.function} of {x.dtype}")  # lanes cannot exchange such values
    kept = math.prod(n for a, n in enumerate(x.shape) if a not in axes)
    reduced = math.prod(x.shape[a] for a in axes)
    share = -(-reduced // call.parts)
    start = f"{dtype} total = {_start(call.function, call.out.dtype)};\n"
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
        grid, block = (kept if long else -(-kept // 8), call.parts), (BLOCK if long else WARP, 1 if long else 8)
    elif _reduces_first(x, axes):  # a lane per column; the bands of a block share the rows
        body = (
            f"for (index_t b = first_column(); b < {-(-kept // WARP) * WARP}; b += column_step()) {{\n{start}"
            f"const index_t j = b < {kept} ? b : {kept - 1};\n"
            "for (index_t k = begin + band(); k < end; k += bands())\n"
            f"total = {combine}(total, ({dtype})p0[{located(x, f'(k * {kept} + j)')}]);\n"
            f"total = over_bands({combine}, total);\nif (band() == 0 && b < {kept}) {target}b] = total;\n}}\n"
        )
        grid, block = (-(-kept // WARP), call.parts), (WARP, 16)
    elif kept <= FEW and reduced > WARP:  # the bands of a block share what is reduced to each result
        body = (
            f"for (index_t b = first_column(); b < {-(-kept // WARP) * WARP}; b += column_step()) {{\n{start}"
            f"const index_t i = b < {kept} ? b : {kept - 1};\nfor (index_t k = begin + band(); k < end; k += bands())\n"
            f"total = {combine}(total, ({dtype})p0[{_mixed(x, axes)}]);\n"
            f"total = over_bands({combine}, total);\nif (band() == 0 && b < {kept}) {target}b] = total;\n}}\n"
        )
        grid, block = (-(-kept // WARP), 1), (WARP, 16)
    else:
        body = (
            f"for (index_t i = first_element(); i < {kept}; i += element_step()) {{\n{start}"
            "for (index_t k = begin; k < end; ++k)\n"
            f"total = {combine}(total, ({dtype})p0[{_mixed(x, axes)}]);\n{target}i] = total;\n}}\n"
        )
        grid, block = (min(-(-kept // BLOCK), MAX_BLOCKS), 1), (BLOCK, 1)
    return kernel_of((x, call.out), bounds + body, (min(grid[0], 2**31 - 1), grid[1]), block)


def _extreme(call: schedule.Extreme) -> Kernel:
    """Return the kernel of the first index of the largest or smallest element; one thread per result."""
    x, out = call.x, call.out
    axes = tuple(range(len(x.shape))) if call.axis is None else (call.axis,)
    kind, than, at = TYPES[x.dtype], ">" if call.function == "argmax" else "<", _mixed(x, axes)
    body = (
        f"index_t k = 0, best = 0; {kind} most = p0[{at}];\n"
        f"for (k = 1; k < {math.prod(x.shape[a] for a in axes)}; ++k) {{ const {kind} x = p0[{at}];\n"
        f"if (x {than} most || (x != x && most == most)) {{ most = x; best = k; }} }}\np1[{located(out, 'i')}] = best;"
    )
    return per_element((x, out), math.prod(n for a, n in enumerate(x.shape) if a not in axes), body)


def _mixed(x: Buffer, axes: tuple[int, ...]) -> str:
    """Return the offset of the k-th of the elements that are reduced to result i."""
    terms = []
    kept = [a for a in range(len(x.shape)) if a not in axes]
    for name, chosen in (("i", kept), ("k", axes)):
        shape, strides = (tuple(lengths[a] for a in chosen) for lengths in (x.shape, x.strides))
        terms.append(f"({located(Buffer(x.storage, 0, shape, strides, x.dtype), name)})")
    return " + ".join(terms)


def leading_dimension(buffer: Buffer) -> tuple[bool, int]:
    """Return whether columns, not rows, are contiguous, and the leading dimension of cuBLAS, of a matrix or each of a stack."""
    (rows, columns), (down, across) = buffer.shape[-2:], buffer.strides[-2:]
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(down if rows > 1 else columns, 1)
    return True, max(across if columns > 1 else rows, 1)


def addresses(buffers: Sequence[Buffer], base: Callable[[Storage], int]) -> list[int]:
    """Return the addresses of arrays; ``base(storage)`` is the address of a storage."""
    return [base(buffer.storage) + buffer.offset * ITEMSIZE[buffer.dtype] for buffer in buffers]


KERNELS: dict[type[schedule.Instruction], Callable[[Any], Kernel]] = {
    schedule.Fused: lambda call: _GroupWriter(call).kernel(), schedule.Reduction: _reduce, schedule.Extreme: _extreme,
    schedule.Gather: _take, schedule.Copy: _copy, schedule.Collect: _collect, schedule.Count: _count,
}  # fmt: skip
"""By the type of an instruction, what returns its kernel."""
