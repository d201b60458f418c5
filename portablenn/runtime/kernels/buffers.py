"""Where a value will lie, before there is memory: a storage, an offset, a shape and strides.

Requires nothing. Views (slices, transposes, broadcasts) are other buffers in the same storage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...program.ir import ArrayType, DType, Operation

ITEMSIZE = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4,
         "int64": 8, "uint64": 8, "float64": 8}  # fmt: skip


@dataclass(eq=False)
class Storage:
    """A piece of memory.

    Attributes
    ----------
    nbytes
        How large.
    kind
        "arena" for what a step computes; else who gives the memory: "input", "constant", "carry", "collected", "counter".
    index
        Which of them; for the arena, the offset in bytes once it is known.
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
        """Whether its elements lie in order without gaps."""
        return all(n == 1 or s == t for n, s, t in zip(self.shape, self.strides, c_strides(self.shape), strict=True))

    @property
    def has_leading_dimension(self) -> bool:
        """Of a matrix: whether rows, or columns, lie in order, and apart from each other, as BLAS wants them."""
        (rows, columns), (down, across) = self.shape, self.strides
        return ((across == 1 or columns == 1) and (down >= columns or rows == 1)) or (
            (down == 1 or rows == 1) and (across >= rows or columns == 1)
        )

    def reshaped(self, shape: tuple[int, ...]) -> Buffer:
        """Of a contiguous buffer."""
        return replace(self, shape=shape, strides=c_strides(shape))

    def view(self, operation: Operation) -> Buffer | None:
        """What a view operation makes of it; None if that needs a copy."""
        if operation.name == "reshape":
            return self.reshaped(operation.arguments[1]) if self.contiguous else None
        if operation.name == "permute_dims":
            axes = operation.arguments[1]
            return replace(self, shape=tuple(self.shape[a] for a in axes), strides=tuple(self.strides[a] for a in axes))
        if operation.name == "broadcast_to":
            shape = operation.arguments[1]
            ahead = len(shape) - len(self.shape)
            aligned = zip((1,) * ahead + self.shape, (0,) * ahead + self.strides, shape, strict=True)
            return replace(self, shape=shape, strides=tuple(0 if n == 1 else s for n, s, _ in aligned))
        if operation.name == "getitem":
            key = operation.arguments[1]
            offset = self.offset + sum(k.start * s for k, s in zip(key, self.strides, strict=True))
            return replace(
                self, offset=offset, shape=operation.result.type.shape,
                strides=tuple(k.step * s for k, s in zip(key, self.strides, strict=True)),
            )  # fmt: skip
        if operation.name == "flip":
            turned = operation.parameters["axis"]
            offset = self.offset + sum((self.shape[a] - 1) * self.strides[a] for a in turned)
            return replace(
                self, offset=offset, strides=tuple(-s if a in turned else s for a, s in enumerate(self.strides))
            )
        return None


VIEWS = frozenset({"broadcast_to", "flip", "getitem", "permute_dims", "reshape"})


def whole(storage: Storage, type: ArrayType, offset: int = 0) -> Buffer:
    """An array of ``type`` in order, from an element of ``storage`` on."""
    return Buffer(storage, offset, type.shape, c_strides(type.shape), type.dtype)


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array whose last axis varies fastest."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def nbytes_of(type: ArrayType) -> int:
    """In bytes."""
    return type.size * ITEMSIZE[type.dtype]
