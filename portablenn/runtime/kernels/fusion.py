"""Fusion: the groups of operations of a Program that one pass over rows and columns can compute.

A group has one shape, of rows (all axes but the last) and columns (the last). Its values are single numbers, or have one
number per row, per column or per element; its operations are elementwise, or reduce each row to a number that later ones of
the group may use, as softmax does. A backend makes one loop, or one kernel, of each group.

Operations join the group that makes what they read, and groups that meet in an operation are merged, unless a path from one
to the other leads through an operation outside: then one pass cannot compute both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from ...program.ir import ArrayType, Operation, Program, Variable

ELEMENTWISE = frozenset(
    "abs acos acosh add asin asinh astype atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or "
    "bitwise_right_shift bitwise_xor broadcast_to ceil copysign cos cosh divide equal exp expm1 floor floor_divide "
    "greater greater_equal hypot isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and "
    "logical_not logical_or logical_xor maximum minimum multiply negative not_equal pow reciprocal remainder round sign "
    "signbit sin sinh sqrt square subtract tan tanh trunc where".split()
)
"""Operations of which each element of the result depends only on that element of the arguments."""

REDUCTIONS = frozenset({"max", "min", "sum"})
"""Operations that reduce a row to one number."""

MAX_OPERATIONS = 256
"""Maximum number of operations of a group: compilers take long for more."""

MAX_ROW = 8192
"""Rows longer than this are not reduced within a group: they need a pass of their own, by several workers."""


class Extent(StrEnum):
    """How far a value of a group varies."""

    ONE = "one"
    ROW = "row"
    COLUMN = "column"
    FULL = "full"


@dataclass(frozen=True, eq=False)
class Group:
    """Operations that one pass over the rows and columns of a shape computes, in order.

    The shape is () if the group has single numbers only; a reshape only adds or drops axes of length 1. ``reads`` are values
    from outside, ``results`` those that are read outside or are outputs of the program, ``extents`` those of all values.
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
        return math.prod(self.shape[:-1])

    @cached_property
    def levels(self) -> dict[Variable, int]:
        """For each value made here, how many sweeps over the columns of a row must precede its computation."""
        levels: dict[Variable, int] = {}
        for operation in self.operations:
            level = max((levels.get(v, 0) for v in operation.reads), default=0)
            levels[operation.result] = level + (operation.name in REDUCTIONS)
        return levels

    def elementwise_reads(self, result: Variable) -> tuple[Variable, ...]:
        """Return the values of which each element is read before that element of ``result`` is written."""
        if max(self.levels.values()) > 0 or self.extents[result] != Extent.FULL:
            return ()
        return tuple(v for v in self.reads if self.extents[v] == Extent.FULL)

    def __str__(self) -> str:
        names = [operation.name for operation in self.operations]
        return f"group{list(self.shape)}({', '.join(names)})"


Unit = Operation | Group

Fusible = Callable[[Operation], bool]
"""Whether a backend can execute an elementwise operation, or a row reduction, in a group."""


def fuse(program: Program, fusible: Fusible = lambda operation: True, smallest: int = 2) -> tuple[Unit, ...]:
    """Return the operations of ``program`` in an order of execution, with groups of those that one pass can compute.

    A simplified program has larger groups. Groups of fewer than ``smallest`` operations are returned as single ones.

    Examples
    --------
    >>> import portablenn as pnn
    >>> program = pnn.trace(lambda x: (x * x + 1.0) @ x, pnn.ArrayType((3, 3), "float32"))
    >>> for unit in fuse(program):
    ...     print(unit if isinstance(unit, Group) else unit.name)
    group[3, 3](multiply, add)
    matmul
    """
    fuser = _Fuser(program, fusible)
    for operation in program.operations:
        fuser.add(operation)
    uses = Counter(v for operation in program.operations for v in operation.reads) + Counter(program.outputs)
    return tuple(_units(fuser.in_order(), uses, smallest))


@dataclass(eq=False)
class _Cluster:
    """A group that is still growing; without a shape, a single operation."""

    number: int
    shape: tuple[int, ...] | None
    operations: list[Operation]
    extents: dict[Variable, Extent]


class _Fuser:
    """Clusters of the operations so far; the clusters that each one depends on, directly or not, are the bits of a number."""

    def __init__(self, program: Program, fusible: Fusible) -> None:
        self.fusible = fusible
        self.joins = _joins(program, fusible)
        self.clusters: dict[int, _Cluster] = {}
        self.made_by: dict[Variable, _Cluster] = {}
        self.depends_on: list[int] = []

    def add(self, operation: Operation) -> None:
        """Add the next operation to a cluster that makes what it reads, or a new one; then merge the clusters it reads."""
        makers = self._makers(operation)
        joined = self._makers(self.joins[operation.result]) if operation.result in self.joins else []
        fits = _numbers_fit(operation) and self.fusible(operation)
        chosen = self._choose(operation, makers, joined) if fits else None
        cluster, extents = chosen or self._start(operation, fits)
        cluster.operations.append(operation)
        cluster.extents.update(extents)
        self.made_by[operation.result] = cluster
        others = [maker for maker in makers if maker is not cluster]
        for other in others:
            self._depend(cluster, other)
        for other in others:
            waits = any(self._depends(maker, other) for maker in joined)
            if not waits and _mergeable(cluster, other) and not self._is_between(other, cluster):
                self._merge(cluster, other)

    def _makers(self, operation: Operation) -> list[_Cluster]:
        """Return the clusters of the arguments."""
        return list(dict.fromkeys(self.made_by[v] for v in operation.reads if v in self.made_by))

    def _choose(
        self, operation: Operation, makers: list[_Cluster], joined: list[_Cluster]
    ) -> tuple[_Cluster, dict[Variable, Extent]] | None:
        """Return the cluster that ``operation`` belongs to, of most axes and then the latest, and the extents of its values.

        It cannot be one that another maker, or what the result is joined with later, depends on.
        """
        for cluster in sorted(makers, key=lambda c: (len(c.shape or ()), c.number), reverse=True):
            if cluster.shape is None or len(cluster.operations) >= MAX_OPERATIONS:
                continue
            if any(self._depends(other, cluster) for other in (*makers, *joined)):
                continue
            extents = _admitted(operation, cluster.shape, cluster.extents)
            if extents is not None and _compatible(cluster.extents, extents):
                return cluster, extents
        return None

    def _start(self, operation: Operation, fits: bool) -> tuple[_Cluster, dict[Variable, Extent]]:
        shape, extents = _started(operation) if fits else (None, {})
        cluster = _Cluster(len(self.depends_on), shape, [], {})
        self.clusters[cluster.number] = cluster
        self.depends_on.append(0)
        return cluster, extents

    def _depends(self, cluster: _Cluster, other: _Cluster) -> bool:
        return bool(self.depends_on[cluster.number] >> other.number & 1)

    def _depend(self, cluster: _Cluster, other: _Cluster) -> None:
        """Let ``cluster``, and what depends on it, depend on ``other``."""
        added = self.depends_on[other.number] | 1 << other.number
        if not added & ~self.depends_on[cluster.number]:
            return
        self.depends_on[cluster.number] |= added
        if len(cluster.operations) > 1:  # a new one has no dependents
            for number in self.clusters:
                if self.depends_on[number] >> cluster.number & 1:
                    self.depends_on[number] |= added

    def _is_between(self, other: _Cluster, cluster: _Cluster) -> bool:
        """Return whether a third cluster depends on ``other`` while ``cluster`` depends on it."""
        between = self.depends_on[cluster.number] & ~self.depends_on[other.number] & ~(1 << other.number)
        while between:
            number = between.bit_length() - 1
            if self.depends_on[number] >> other.number & 1:
                return True
            between ^= 1 << number
        return False

    def _merge(self, cluster: _Cluster, other: _Cluster) -> None:
        """Make ``other`` a part of ``cluster``, which depends on it."""
        cluster.operations[:0] = other.operations
        cluster.extents.update(other.extents)
        self.made_by.update((operation.result, cluster) for operation in other.operations)
        del self.clusters[other.number]
        old, new = 1 << other.number, 1 << cluster.number
        merged = (self.depends_on[cluster.number] | self.depends_on[other.number]) & ~old
        self.depends_on[cluster.number] = merged
        for number in self.clusters:
            if self.depends_on[number] & (old | new):
                self.depends_on[number] = (self.depends_on[number] & ~old) | new | merged

    def in_order(self) -> Iterator[_Cluster]:
        """Yield each cluster after those it depends on; else in the order of the program."""
        done = 0
        waiting = sorted(self.clusters.values(), key=lambda cluster: cluster.number)
        while waiting:
            ready = next(cluster for cluster in waiting if not self.depends_on[cluster.number] & ~done)
            waiting.remove(ready)
            done |= 1 << ready.number
            yield ready


def _joins(program: Program, fusible: Fusible) -> dict[Variable, Operation]:
    """Return the operation that joins a value with others, for each value that has no other use but unary operations.

    The value can be computed there: the mask of ReLU is then never written to memory.
    """
    readers: dict[Variable, list[Operation]] = {}
    for operation in program.operations:
        for v in operation.reads:
            readers.setdefault(v, []).append(operation)
    joins: dict[Variable, Operation] = {}
    outputs = set(program.outputs)
    for operation in reversed(program.operations):
        value = operation.result
        if not _is_unary(operation) or value in outputs or len(readers.get(value, ())) != 1:
            continue
        (reader,) = readers[value]
        if not fusible(reader):
            continue
        if not _is_unary(reader):
            joins[value] = reader
        elif reader.result in joins:
            joins[value] = joins[reader.result]
    return joins


def _mergeable(cluster: _Cluster, other: _Cluster) -> bool:
    """Return whether one pass can compute both; single numbers go with any shape."""
    if cluster.shape is None or other.shape not in (cluster.shape, ()):
        return False
    if len(cluster.operations) + len(other.operations) > MAX_OPERATIONS:
        return False
    extents = other.extents if other.shape == cluster.shape else dict.fromkeys(other.extents, Extent.ONE)
    return _compatible(cluster.extents, other.extents) and _compatible(cluster.extents, extents)


def _is_unary(operation: Operation) -> bool:
    """Return whether it is elementwise, of one array besides single numbers."""
    return operation.name in ELEMENTWISE and len({v for v in operation.reads if v.type.size > 1}) == 1


def _numbers_fit(operation: Operation) -> bool:
    """Return whether Python integers are in the range of the arrays' dtype, and shifts in its width; else libraries differ."""
    dtypes = [v.type.dtype for v in operation.reads if v.type.dtype != "bool"]
    if operation.name not in ELEMENTWISE or not dtypes or not dtypes[0].is_integer:
        return True
    bits = int(dtypes[0].lstrip("uint"))
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtypes[0].kind == "signed" else (0, 2**bits - 1)
    numbers = [a for a in operation.arguments if isinstance(a, int) and not isinstance(a, bool)]
    if operation.name.endswith("_shift"):
        return all(0 <= n < bits for n in numbers)
    return all(least <= n <= most for n in numbers)


def _compatible(known: dict[Variable, Extent], added: dict[Variable, Extent]) -> bool:
    """Return whether values in both have the same extents."""
    fewer, more = sorted((known, added), key=len)
    return all(more.get(variable, extent) == extent for variable, extent in fewer.items())


def _started(operation: Operation) -> tuple[tuple[int, ...] | None, dict[Variable, Extent]]:
    """Return the shape of a group that begins with ``operation``, and its extents; None if none can."""
    shape = operation.result.type.shape
    if operation.name in REDUCTIONS:
        shape = operation.reads[0].type.shape
    elif operation.result.type.size == 1:
        shape = ()
    extents = None if operation.name == "reshape" or 0 in shape else _admitted(operation, shape, {})
    return (None, {}) if extents is None else (shape, extents)


def _admitted(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """Return the extents of the values of ``operation`` in a group of ``shape``; None if it does not fit."""
    if operation.name in REDUCTIONS:
        return _reduced(operation, shape)
    if operation.name == "reshape":
        return _reshaped(operation, shape, known)
    return _elementwise(operation, shape, known) if operation.name in ELEMENTWISE else None


def _reduced(operation: Operation, shape: tuple[int, ...]) -> dict[Variable, Extent] | None:
    (x,) = operation.reads
    last = operation.parameters["axis"] == (len(shape) - 1,)
    if not (last and x.type.shape == shape and 0 < shape[-1] <= MAX_ROW and x.type.dtype.kind == "real floating"):
        return None
    return {x: Extent.FULL, operation.result: Extent.ROW}


def _reshaped(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """Admit a reshape that only adds or drops the last axis of a number per row, or axes of a single number."""
    (x,) = operation.reads
    extent, result = known.get(x), operation.result.type.shape
    fits = (extent == Extent.ROW and result in _row_shapes(shape)) or (extent == Extent.ONE and set(result) <= {1})
    return {operation.result: extent} if fits and extent is not None else None


def _row_shapes(shape: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
    return (shape[:-1], (*shape[:-1], 1)) if shape else ()


def _elementwise(
    operation: Operation, shape: tuple[int, ...], known: dict[Variable, Extent]
) -> dict[Variable, Extent] | None:
    """Admit by the shape of the result: full, a number per row (if it reads such), or a single number."""
    result = operation.result.type.shape
    is_row = result in _row_shapes(shape) and any(known.get(v) == Extent.ROW for v in operation.reads)
    if is_row:
        made = Extent.ROW
    elif shape and result == shape:
        made = Extent.FULL
    elif set(result) <= {1}:
        made = Extent.ONE
    else:
        return None
    extents = {operation.result: made}
    for variable in operation.reads:
        extent = _varies(variable.type.shape, shape, made)
        one_row = set(shape[:-1]) <= {1} and made != Extent.ONE  # single numbers are computed before any row
        if known.get(variable) == Extent.ROW and extent == Extent.ONE and one_row:
            extent = Extent.ROW
        if extent is None or known.get(variable, extent) != extent:
            return None
        extents[variable] = extent
    return extents


def _varies(argument: tuple[int, ...], shape: tuple[int, ...], result: Extent) -> Extent | None:
    """Return the extent of an argument of an elementwise operation, by its shape."""
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


def with_broadcasts(program: Program) -> Program:
    """Return the program with a "broadcast_to" where an argument is repeated in another way than by rows or columns.

    The elementwise operation then fits into groups of its result's shape. The result of "broadcast_to" is a view.
    """
    operations: list[Operation] = []
    made: dict[tuple[Variable, tuple[int, ...]], Variable] = {}
    for operation in program.operations:
        shape = operation.result.type.shape
        if operation.name in ELEMENTWISE and operation.name != "broadcast_to" and operation.result.type.size > 1:
            arguments = list(operation.arguments)
            for i, v in enumerate(arguments):
                if not isinstance(v, Variable) or _varies(v.type.shape, shape, Extent.FULL) is not None:
                    continue
                if (v, shape) not in made:
                    made[v, shape] = wide = Variable(ArrayType(shape, v.type.dtype))
                    operations.append(Operation("broadcast_to", (v, shape), {}, wide))
                arguments[i] = made[v, shape]
            operation = replace(operation, arguments=tuple(arguments))
        operations.append(operation)
    return replace(program, operations=tuple(operations)) if made else program


def _units(clusters: Iterator[_Cluster], uses: Counter[Variable], smallest: int) -> Iterator[Unit]:
    for cluster in clusters:
        reshapes = sum(operation.name == "reshape" for operation in cluster.operations)
        if cluster.shape is None or len(cluster.operations) - reshapes < smallest:
            yield from cluster.operations
            continue
        inside = Counter(v for operation in cluster.operations for v in operation.reads)
        made = [operation.result for operation in cluster.operations]
        reads = tuple(v for v in inside if v not in set(made))
        results = tuple(v for v in made if uses[v] > inside[v])
        yield Group(cluster.shape, tuple(cluster.operations), cluster.extents, reads, results)
