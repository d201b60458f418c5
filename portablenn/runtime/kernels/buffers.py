"""The location of each value of a program, before memory is allocated.

A `Buffer` is an array described by a storage, an offset, a shape and strides; views (slices, transposes, broadcasts) are
other buffers in the same storage. `Allocator` gives every value a buffer and every storage its part of one arena.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...program.ir import ArrayType, DType, Operation, Variable
from .fusion import Group, Unit

ITEMSIZE = {"bool": 1, "int8": 1, "uint8": 1, "bfloat16": 2, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4,
            "int64": 8, "uint64": 8, "float64": 8}  # fmt: skip
"""Bytes of an element, for the dtypes that kernels compute with."""

VIEWS = frozenset({"broadcast_to", "flip", "getitem", "permute_dims", "reshape"})
"""Operations whose result is a view of their argument."""


@dataclass(eq=False)
class Storage:
    """A piece of memory.

    ``kind`` is "arena" for what a step computes; else who provides the memory: "input", "constant", "carry", "collected" or
    "counter". ``index`` says which of them; for the arena it is the offset in bytes once it is known.
    """

    nbytes: int
    kind: str = "arena"
    index: int = 0


@dataclass(frozen=True)
class Buffer:
    """An array in a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType

    @property
    def contiguous(self) -> bool:
        """Whether the elements are contiguous in C order."""
        return 0 in self.shape or all(
            n == 1 or s == t for n, s, t in zip(self.shape, self.strides, c_strides(self.shape), strict=True)
        )

    @property
    def reach(self) -> tuple[int, int]:
        """The offsets of the first and the last element in memory."""
        steps = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        return self.offset + sum(min(0, s) for s in steps), self.offset + sum(max(0, s) for s in steps)

    @property
    def has_leading_dimension(self) -> bool:
        """Whether BLAS can read this matrix, or each of a stack: rows or columns are contiguous, and do not overlap."""
        (rows, columns), (down, across) = self.shape[-2:], self.strides[-2:]
        return ((across == 1 or columns == 1) and (down >= columns or rows == 1)) or (
            (down == 1 or rows == 1) and (across >= rows or columns == 1)
        )

    def view(self, operation: Operation) -> Buffer | None:
        """Return the result of a view operation; None if that needs a copy."""
        shape, offset, strides = operation.result.type.shape, self.offset, self.strides
        if operation.name == "reshape":
            if self.contiguous:
                return replace(self, shape=shape, strides=c_strides(shape))
            divided = _divided(self.shape, self.strides, shape)
            return None if divided is None else replace(self, shape=shape, strides=divided)
        if operation.name == "permute_dims":
            strides = tuple(strides[a] for a in operation.arguments[1])
        elif operation.name == "broadcast_to":
            repeated = (0 if n == 1 else s for n, s in zip(self.shape, strides, strict=True))
            strides = (*(0,) * (len(shape) - len(strides)), *repeated)
        elif operation.name == "getitem":
            key = operation.arguments[1]
            offset += sum(k.start * s for k, s in zip(key, strides, strict=True))
            strides = tuple(k.step * s for k, s in zip(key, strides, strict=True))
        else:
            axes = operation.parameters["axis"]  # of "flip"
            offset += sum((shape[a] - 1) * strides[a] for a in axes)
            strides = tuple(-s if a in axes else s for a, s in enumerate(strides))
        return replace(self, shape=shape, offset=offset, strides=strides)

    def array(self, memory: np.ndarray) -> np.ndarray:
        """Return the array in ``memory``, the bytes of the storage."""
        if 0 in self.shape:
            return np.empty(self.shape, dtype=self.dtype)
        dtype = np.dtype(self.dtype)
        strides = tuple(s * dtype.itemsize for s in self.strides)
        return np.ndarray(self.shape, dtype, memory.data, self.offset * dtype.itemsize, strides)


def dense(storage: Storage, type: ArrayType, offset: int = 0) -> Buffer:
    """Return a contiguous array of ``type`` that begins at an element of ``storage``."""
    return Buffer(storage, offset, type.shape, c_strides(type.shape), type.dtype)


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous array."""
    strides, stride = [], 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return tuple(reversed(strides))


def _divided(shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the strides of an array whose axes are divided into several; None if that is not all that ``new`` asks for.

    Axes of one element do not matter.

    Examples
    --------
    >>> _divided((4, 6), (100, 1), (4, 2, 1, 3))
    (100, 3, 1, 1)
    """
    axes = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    left = 1  # of the current axis
    for length in new:
        if length == 1:
            found.append(1)
            continue
        if left == 1:
            if not axes:
                return None
            left, stride = axes.pop(0)
        if left % length:
            return None
        left //= length
        found.append(left * stride)
    return tuple(found) if left == 1 and not axes else None


def nbytes_of(type: ArrayType) -> int:
    """Return the size of an array in bytes."""
    return type.size * (ITEMSIZE.get(type.dtype) or np.dtype(type.dtype).itemsize)


class Allocator:
    """Gives the values of a program their buffers, in the order in which its units are executed.

    A storage is dead after the last read of the values in it; `pack` lets later ones have its memory. Pieces of a
    concatenation are computed inside the whole. A result takes over the storage of an argument that is read for the
    last time, element by element; or the one it is carried to, once the old value is dead.

    ``kept`` values are read after the last unit. ``carried`` maps each result of a step that the next step reads to the input
    that it becomes, in whose buffer it should end up. ``computes_inside`` says whether a unit can compute its results inside
    the buffer of a concatenation.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        kept: Collection[Variable],
        carried: Mapping[Variable, Variable],
        computes_inside: Callable[[Unit, Operation], bool],
    ) -> None:
        self.buffers: dict[Variable, Buffer] = {}
        self._kept, self._carried = set(kept), carried
        self._uses = Counter(v for unit in units for v in unit.reads) + Counter(self._kept)
        self._pending = Counter[Storage]()  # reads to come of all values in a storage
        self._reserved: dict[Variable, Buffer] = {}
        self._life: dict[Storage, list[int]] = {}  # first and last use of each storage of the arena
        self._now = 0
        self._reserve_pieces(units, computes_inside)

    def _reserve_pieces(self, units: Sequence[Unit], computes_inside: Callable[[Unit, Operation], bool]) -> None:
        """Reserve the part of a concatenation for each value, or reshaped value, that is one of its pieces."""
        made_by = {v: unit for unit in units for v in unit.results}
        for concat in units:
            if isinstance(concat, Group) or concat.name != "concat":
                continue
            type, start = concat.result.type, 0
            if any(n != 1 for n in type.shape[: concat.parameters["axis"]]):
                continue  # pieces are not contiguous
            whole = dense(Storage(nbytes_of(type)), type)
            for piece in concat.reads:
                value, source = piece, made_by.get(piece)
                if isinstance(source, Operation) and source.name == "reshape":
                    value = source.reads[0]
                    source = made_by.get(value)
                free = value not in self._reserved and value not in self._carried and value.type.dtype == type.dtype
                if source is not None and free and computes_inside(source, concat):
                    self._reserved[value] = dense(whole.storage, value.type, start)
                    self._reserved[concat.result] = whole
                start += piece.type.size

    def alias(self, variable: Variable, buffer: Buffer) -> Buffer:
        """Let ``variable`` be in a buffer of a storage that exists."""
        self.buffers[variable] = buffer
        self._pending[buffer.storage] += self._uses[variable]
        return buffer

    def allocate(self, unit: Unit, result: Variable, elementwise: Sequence[Variable] = ()) -> Buffer:
        """Return the buffer of a result of ``unit``.

        ``elementwise`` are values of which the unit reads each element before it writes that element of the result.
        """
        buffer = self._reserved.get(result) or self._overwritten(unit, result, elementwise) or self._dead_carry(result)
        return self.alias(result, buffer or self.temporary(result.type))

    def temporary(self, type: ArrayType) -> Buffer:
        """Return a new buffer, for use now."""
        return dense(Storage(max(1, nbytes_of(type))), type)

    def _overwritten(self, unit: Unit, result: Variable, elementwise: Sequence[Variable]) -> Buffer | None:
        """Return the buffer of an argument that is read for the last time; preferably the one that ``result`` is carried to."""
        candidates = []
        for v in elementwise:
            buffer = self.buffers.get(v)
            if buffer is None or v.type != result.type or buffer.storage.kind not in ("arena", "carry"):
                continue
            reads = [w for w in unit.reads if w in self.buffers and self.buffers[w].storage is buffer.storage]
            same = all(w in elementwise and self.buffers[w] == buffer for w in reads)
            if same and self._pending[buffer.storage] == len(reads) and buffer.offset == 0 and buffer.contiguous:
                candidates.append(buffer)
        home = self.buffers[self._carried[result]] if result in self._carried else None
        return home if home in candidates else next(iter(candidates), None)

    def _dead_carry(self, result: Variable) -> Buffer | None:
        """Return the buffer that ``result`` is carried to, if its old value is not read any more."""
        home = self.buffers[self._carried[result]] if result in self._carried else None
        return home if home is not None and not self._pending[home.storage] else None

    def use(self, *buffers: Buffer) -> None:
        """Note that one call reads and writes these buffers."""
        for buffer in buffers:
            if buffer.storage.kind == "arena":
                self._life.setdefault(buffer.storage, [self._now, self._now])[1] = self._now
        self._now += 1

    def release(self, unit: Unit) -> None:
        """Note that ``unit`` has read its arguments."""
        for v in unit.reads:
            if v in self.buffers:
                self._pending[self.buffers[v].storage] -= 1

    def moves(self, carried: Iterable[tuple[Variable, Variable]]) -> list[tuple[Variable, Variable]]:
        """Return the copies, (source, target), that bring results to the inputs they are carried to.

        What is in the buffer of another carried input leaves it first, by way of a temporary buffer.
        """
        first, then = [], []
        for result, home in carried:
            buffer, target = self.buffers.get(result), self.buffers[home]
            if buffer == target or not home.type.size:
                continue
            if buffer is not None and buffer.storage.kind == "carry":
                temporary = Variable(home.type)
                self.alias(temporary, self.temporary(home.type))
                first.append((result, temporary))
                result = temporary
            then.append((result, home))
        self.use(*(self.buffers[temporary] for _, temporary in first))
        return first + then

    def pack(self, alignment: int, apart: int = 0) -> int:
        """Give each storage of the arena its offset, the first gap among those alive at the same time; return the bytes.

        If all of them take at most ``apart`` bytes, none shares memory with another.
        """
        if sum(-(-storage.nbytes // alignment) * alignment for storage in self._life) <= apart:
            self._life = {storage: [0, self._now] for storage in self._life}
        for v in self._kept:
            if v in self.buffers and self.buffers[v].storage in self._life:
                self._life[self.buffers[v].storage][1] = self._now
        packed: list[tuple[int, int, int, int]] = []  # start, end, first and last use; sorted
        for storage, (first, last) in sorted(self._life.items(), key=lambda item: -item[0].nbytes):
            size, offset = -(-storage.nbytes // alignment) * alignment, 0
            for start, end, other_first, other_last in packed:
                if start >= offset + size:
                    break
                if other_first <= last and first <= other_last and end > offset:
                    offset = end
            storage.index = offset
            insort(packed, (offset, offset + size, first, last))
        return max((end for _, end, _, _ in packed), default=0)
