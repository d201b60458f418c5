"""Fusion: the groups of operations of a Program that one pass over rows and columns can do.

Requires nothing. A group has one shape, of rows (all axes but the last) and columns (the last). Its values are one number,
one a row, one a column, or one an element; its operations work element by element, or reduce each row to a number that
later ones of the group may use, as softmax does. A backend makes one loop, or one kernel, of each group; what is in none
it executes as it would without.

Operations join the group that makes what they read, and groups that meet in an operation become one, unless a way from
one to the other leads through an operation outside: then one pass could not do both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from ...program.ir import Operation, Program, Variable

ELEMENTWISE = frozenset(
    "abs acos acosh add asin asinh astype atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or "
    "bitwise_right_shift bitwise_xor broadcast_to ceil copysign cos cosh divide equal exp expm1 floor floor_divide "
    "greater greater_equal hypot isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and "
    "logical_not logical_or logical_xor maximum minimum multiply negative not_equal pow reciprocal remainder round sign "
    "signbit sin sinh sqrt square subtract tan tanh trunc where".split()
)
"""Operations whose result at one place depends on their arguments at that place alone."""

REDUCTIONS = frozenset({"max", "min", "sum"})
"""Operations that make one number of a row."""

MOST = 256
"""Operations of a group: compilers take long for more."""

LONGEST_ROW = 8192
"""Rows longer than this are not reduced within a group: they want a pass of their own, by several workers."""


class Extent(StrEnum):
    """How far a value of a group varies."""

    ONE = "one"
    ROW = "row"
    COLUMN = "column"
    FULL = "full"


@dataclass(frozen=True, eq=False)
class Group:
    """Operations that one pass over the rows and columns of a shape computes.

    Attributes
    ----------
    shape
        Of the pass: rows are all axes but the last, columns the last; () if the group has single numbers only.
    operations
        In order. A reshape among them only adds or drops axes of length 1.
    extents
        How far each value that the group reads or makes varies.
    reads
        The values from outside.
    results
        The values that are read outside, or are outputs of the program.
    """

    shape: tuple[int, ...]
    operations: tuple[Operation, ...]
    extents: dict[Variable, Extent]
    reads: tuple[Variable, ...]
    results: tuple[Variable, ...]

    @property
    def columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        rows = 1
        for length in self.shape[:-1]:
            rows *= length
        return rows

    @cached_property
    def levels(self) -> dict[Variable, int]:
        """For each value made here, how many sweeps over the columns of a row must be done before it can be computed."""
        levels: dict[Variable, int] = {}
        for operation in self.operations:
            level = max((levels.get(v, 0) for v in operation.reads), default=0)
            levels[operation.result] = level + (operation.name in REDUCTIONS)
        return levels

    def elementwise_reads(self, result: Variable) -> tuple[Variable, ...]:
        """The values of which each element is read before that element of ``result`` is written."""
        if max(self.levels.values()) > 0 or self.extents[result] != Extent.FULL:
            return ()
        return tuple(v for v in self.reads if self.extents[v] == Extent.FULL)

    def __str__(self) -> str:
        names = [operation.name for operation in self.operations]
        return f"group{list(self.shape)}({', '.join(names)})"


Unit = Operation | Group


def fuse(
    program: Program, fusible: Callable[[Operation], bool] = lambda operation: True, smallest: int = 2
) -> tuple[Unit, ...]:
    """The operations of ``program`` with groups in place of those that one pass can do, in an order that works.

    Parameters
    ----------
    program
        Best simplified.
    fusible
        What of the elementwise operations and row reductions the backend can do in a group.
    smallest
        A group of fewer operations is left as they are.

    Examples
    --------
    >>> import portablenn as pnn
    >>> program = pnn.trace(lambda x: (x * x + 1.0) @ x, pnn.ArrayType((3, 3), "float32"))
    >>> for unit in fuse(program):
    ...     print(unit if isinstance(unit, Group) else unit.name)
    group[3, 3](multiply, add)
    matmul
    """
    fuser = _Fuser(fusible, program)
    for operation in program.operations:
        fuser.place(operation)
    uses = Counter(v for operation in program.operations for v in operation.reads) + Counter(program.outputs)
    return tuple(_finished(fuser.in_order(), uses, smallest))


@dataclass(eq=False)
class _Piece:
    """A group that is still growing; or, with no shape, an operation by itself."""

    number: int
    shape: tuple[int, ...] | None
    operations: list[Operation]
    extents: dict[Variable, Extent]


class _Fuser:
    def __init__(self, fusible: Callable[[Operation], bool], program: Program) -> None:
        self.fusible = fusible
        self.readers: dict[Variable, list[Operation | None]] = {v: [None] for v in program.outputs}
        for operation in program.operations:
            for v in operation.reads:
                self.readers.setdefault(v, []).append(operation)
        self.pieces: dict[int, _Piece] = {}
        self.maker: dict[Variable, _Piece] = {}
        self.behind: dict[int, int] = {}  # for each piece the set of those that it depends on, as the bits of a number

    def place(self, operation: Operation) -> None:
        """Into a group that makes what it reads, or a new one, or by itself; then the groups that met become one."""
        makers = list({self.maker[v].number: self.maker[v] for v in operation.reads if v in self.maker}.values())
        possible = _numbers_fit(operation) and self.fusible(operation)
        met = self._met_with(operation)
        for piece in sorted(makers, key=lambda p: (len(p.shape or ()), p.number), reverse=True) if possible else ():
            if (
                piece.shape is None
                or len(piece.operations) >= MOST
                or any(self._leads(piece, other) for other in (*makers, *met) if other is not piece)
            ):
                continue
            extents = _admitted(operation, piece.shape, piece.extents)
            if extents is not None and _compatible(piece.extents, extents):
                break
        else:
            piece, extents = self._new(operation, possible)
        piece.operations.append(operation)
        piece.extents.update(extents)
        self.maker[operation.result] = piece
        for other in makers:
            self._depend(piece, other)
        for other in makers:
            if (
                other is not piece
                and piece.shape is not None
                and other.shape is not None
                and not any(self._leads(other, far) for far in met)
            ):
                self._merge(piece, other)

    def _met_with(self, operation: Operation) -> list[_Piece]:
        """What makes the values that the result is for, if that is its only use: where it can wait until it meets them.

        The mask of ReLU is best computed where the gradient is, of what ReLU left: then it is never written to memory.
        """
        value, alone = operation.result, _alone(operation)
        while alone and len(self.readers.get(value, ())) == 1:
            (reader,) = self.readers[value]
            if reader is None or not self.fusible(reader):
                break
            if not _alone(reader):
                return [self.maker[v] for v in reader.reads if v in self.maker]
            value = reader.result
        return []

    def _new(self, operation: Operation, possible: bool) -> tuple[_Piece, dict[Variable, Extent]]:
        shape, extents = _started(operation) if possible else (None, {})
        piece = _Piece(len(self.behind), shape, [], {})
        self.pieces[piece.number] = piece
        self.behind[piece.number] = 0
        return piece, extents

    def _leads(self, source: _Piece, target: _Piece) -> bool:
        """Whether ``target`` depends on ``source``."""
        return bool(self.behind[target.number] >> source.number & 1)

    def _depend(self, piece: _Piece, on: _Piece) -> None:
        if piece is on:
            return
        news = self.behind[on.number] | 1 << on.number
        for number in self.pieces:
            if number == piece.number or self.behind[number] >> piece.number & 1:
                self.behind[number] |= news

    def _merge(self, piece: _Piece, other: _Piece) -> None:
        """Make ``other`` a part of ``piece``, if one pass can do both."""
        assert piece.shape is not None
        if other.shape not in (piece.shape, ()) or not _compatible(piece.extents, other.extents):
            return
        if len(piece.operations) + len(other.operations) > MOST:
            return
        if other.shape == () and piece.shape != ():
            others = dict.fromkeys(other.extents, Extent.ONE)
            if not _compatible(piece.extents, others):
                return
        for between in self.pieces.values():
            if between is not piece and between is not other:
                way = self._leads(other, between) and self._leads(between, piece)
                back = self._leads(piece, between) and self._leads(between, other)
                if way or back:
                    return
        piece.operations[:0] = other.operations
        piece.extents.update(other.extents)
        for operation in other.operations:
            self.maker[operation.result] = piece
        del self.pieces[other.number]
        gone, here = 1 << other.number, 1 << piece.number
        for number, behind in self.behind.items():
            if behind & (gone | here):
                self.behind[number] = (behind & ~gone) | here | self.behind[other.number]
        self.behind[piece.number] = (self.behind[piece.number] | self.behind[other.number]) & ~gone & ~here
        for number in self.pieces:
            if self.behind[number] & here:
                self.behind[number] |= self.behind[piece.number]

    def in_order(self) -> Iterator[_Piece]:
        """Each piece after those it depends on; else in the order of the program."""
        done = 0
        waiting = sorted(self.pieces.values(), key=lambda piece: piece.number)
        while waiting:
            ready = next(piece for piece in waiting if not self.behind[piece.number] & ~done)
            waiting.remove(ready)
            done |= 1 << ready.number
            yield ready


def _alone(operation: Operation) -> bool:
    """Whether it makes of each element of one array an element."""
    return operation.name in ELEMENTWISE and len({v for v in operation.reads if v.type.size > 1}) == 1


def _numbers_fit(operation: Operation) -> bool:
    """Whether the Python integers beside arrays are ones of the arrays' dtype, and shifts stay within its width.

    What else they mean is each library's own affair, so it is left to the library.
    """
    dtypes = [v.type.dtype for v in operation.reads if v.type.dtype != "bool"]
    if operation.name not in ELEMENTWISE or not dtypes or not dtypes[0].is_integer:
        return True
    bits = int(dtypes[0].lstrip("uint"))
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtypes[0].kind == "signed" else (0, 2**bits - 1)
    numbers = [a for a in operation.arguments if isinstance(a, int) and not isinstance(a, bool)]
    if operation.name.endswith("_shift"):
        return all(0 <= n < bits for n in numbers)
    return all(least <= n <= most for n in numbers)


def _compatible(known: dict[Variable, Extent], news: dict[Variable, Extent]) -> bool:
    return all(known.get(variable, extent) == extent for variable, extent in news.items())


def _started(operation: Operation) -> tuple[tuple[int, ...] | None, dict[Variable, Extent]]:
    """The shape of a group that begins with ``operation``, and its extents; None if none can."""
    if operation.name in REDUCTIONS:
        shape = operation.reads[0].type.shape
    elif operation.name == "reshape":
        return None, {}
    else:
        shape = operation.result.type.shape
    if operation.result.type.size == 1 and operation.name not in REDUCTIONS:
        shape = ()
    if 0 in shape:
        return None, {}
    extents = _admitted(operation, shape, {})
    return (None, {}) if extents is None else (shape, extents)


def _admitted(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """How far the values of ``operation`` vary in a group of ``shape``; None if it does not belong there."""
    if operation.name in REDUCTIONS:
        return _reduced(operation, shape)
    if operation.name == "reshape":
        return _renamed(operation, shape, known)
    return _elementwise(operation, shape, known) if operation.name in ELEMENTWISE else None


def _reduced(operation: Operation, shape: tuple[int, ...]) -> dict[Variable, Extent] | None:
    (x,) = operation.reads
    last = operation.parameters["axis"] == (len(shape) - 1,)
    if not (last and x.type.shape == shape and 0 < shape[-1] <= LONGEST_ROW and x.type.dtype.kind == "real floating"):
        return None
    return {x: Extent.FULL, operation.result: Extent.ROW}


def _renamed(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """A reshape that leaves a value what it is: a row's number with or without the last axis, a single number."""
    (x,) = operation.reads
    extent, result = known.get(x), operation.result.type.shape
    fits = (extent == Extent.ROW and result in _row_shapes(shape)) or (extent == Extent.ONE and set(result) <= {1})
    return {operation.result: extent} if fits and extent is not None else None


def _row_shapes(shape: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
    return (shape[:-1], (*shape[:-1], 1)) if shape else ()


def _elementwise(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """By its result's shape: full, a number a row (if it reads such), or a single number."""
    result = operation.result.type.shape
    is_row = result in _row_shapes(shape) and any(known.get(v) == Extent.ROW for v in operation.reads)
    if shape and result == shape and not is_row:
        extents = {operation.result: Extent.FULL}
    elif is_row:
        extents = {operation.result: Extent.ROW}
    elif set(result) <= {1}:
        extents = {operation.result: Extent.ONE}
    else:
        return None
    one_row = set(shape[:-1]) <= {1}
    for variable in operation.reads:
        extent = _varies(variable.type.shape, shape, extents[operation.result])
        made_before = extents[operation.result] != Extent.ONE  # single numbers are computed before any row
        if known.get(variable) == Extent.ROW and extent == Extent.ONE and one_row and made_before:
            extent = Extent.ROW
        if extent is None or known.get(variable, extent) != extent:
            return None
        extents[variable] = extent
    return extents


def _varies(argument: tuple[int, ...], shape: tuple[int, ...], result: Extent) -> Extent | None:
    """How far an argument of an elementwise operation varies, by its shape."""
    if result != Extent.FULL:
        if result == Extent.ROW and argument in _row_shapes(shape):
            return Extent.ROW
        return Extent.ONE if set(argument) <= {1} else None
    aligned = (1,) * (len(shape) - len(argument)) + argument
    if aligned == shape:
        return Extent.FULL
    if set(aligned) <= {1}:
        return Extent.ONE
    if aligned[-1] == shape[-1] and set(aligned[:-1]) <= {1}:
        return Extent.COLUMN
    return Extent.ROW if aligned == (*shape[:-1], 1) else None


def _finished(pieces: Iterator[_Piece], uses: Counter[Variable], smallest: int) -> Iterator[Unit]:
    for piece in pieces:
        renames = sum(operation.name == "reshape" for operation in piece.operations)
        if piece.shape is None or len(piece.operations) - renames < smallest:
            yield from piece.operations
            continue
        inside = Counter(v for operation in piece.operations for v in operation.reads)
        made = [operation.result for operation in piece.operations]
        reads = tuple(v for v in inside if v not in set(made))
        results = tuple(v for v in made if uses[v] > inside[v])
        yield Group(piece.shape, tuple(piece.operations), piece.extents, reads, results)
