"""The values that a function reads besides its arguments: part of the cache key, so that a change of them traces it again."""

from __future__ import annotations

import functools
import os.path
from collections.abc import Hashable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..program.tracer import Tracer
from ..runtime.arrays import is_array, is_writeable_array, to_numpy
from ..runtime.backend import CPU
from .tree import static_key

PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))
MAX_ENTRIES = 100
"""Entries of a dict or list, and attributes of an object, up to which they are read."""

MAX_BYTES = 256
"""Bytes of an array up to which they are the key; a larger array is hashed."""


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return the folders of this package, of Python and of what is installed."""
    import sysconfig  # here, as hashlib below: importing them takes longer than importing all of this folder

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return (package, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


def closed_over(fun: Any) -> tuple[tuple[Hashable, ...], list[Any]]:
    """Return a key of what ``fun`` reads besides its arguments, and the objects that are in the key by their id only."""
    reader = _Reader()
    reader.read(fun)
    return tuple(reader.key), reader.owners


class _Reader:
    def __init__(self) -> None:
        self.key: list[Hashable] = []
        self.owners: list[Any] = []
        self.seen: set[int] = set()

    def read(self, value: Any) -> None:
        kind = type(value)
        if kind in PLAIN or isinstance(value, np.generic):
            self.key.append(static_key(value) if isinstance(value, (float, complex, np.generic)) else (kind, value))
        elif kind is FunctionType:
            self._read_function(value)
        elif (
            isinstance(value, Tracer) or kind in (ModuleType, BuiltinFunctionType, np.ufunc) or isinstance(value, type)
        ):
            self.key.append(id(value))
        elif is_array(value):
            self._read_array(value)
        elif isinstance(value, tuple):
            self.key.append((kind, len(value)))
            for item in value:
                self.read(item)
        elif kind is MethodType:
            self.read(value.__self__)
            self.read(value.__func__)
        elif id(value) not in self.seen:
            self.seen.add(id(value))
            self._read_object(value)

    def _read_function(self, fun: FunctionType) -> None:
        if id(fun) in self.seen:
            return
        self.seen.add(id(fun))
        code = fun.__code__
        self.key.append(code)
        for cell in fun.__closure__ or ():
            try:
                self.read(cell.cell_contents)
            except ValueError:  # it is empty
                self.key.append("empty")
        for value in (*(fun.__defaults__ or ()), *(fun.__kwdefaults__ or {}).values()):
            self.read(value)
        known = fun.__globals__
        for name in global_names(code):
            if name in known:
                self.read(known[name])

    def _read_array(self, array: Any) -> None:
        """Read a writeable array on the host by its contents, others by their id: a device array is not copied at each call."""
        if is_writeable_array(array) and _on_host(array):
            contents = np.ascontiguousarray(to_numpy(array)).reshape(-1).view(np.uint8)
            small = contents.nbytes <= MAX_BYTES
            import hashlib

            digest = contents.tobytes() if small else hashlib.blake2b(contents.data, digest_size=16).digest()
            self.key.append((type(array), array.dtype, tuple(array.shape), digest))
        else:
            self.key.append(id(array))
            self.owners.append(array)

    def _read_object(self, value: Any) -> None:
        self.key.append(id(value))
        self.owners.append(value)
        if isinstance(value, functools.partial):
            for item in (value.func, *value.args, *value.keywords.items()):
                self.read(item)
        elif isinstance(value, dict) and len(value) <= MAX_ENTRIES:
            self._read_entries(value)
        elif isinstance(value, list) and len(value) <= MAX_ENTRIES:
            for item in value:
                if is_array(item):
                    self.read(item)
        elif len(attributes := getattr(value, "__dict__", ())) <= MAX_ENTRIES:
            self._read_entries(attributes)
            if isinstance(call := getattr(type(value), "__call__", None), FunctionType):  # noqa: B004 - it is read, not tested
                self.read(call)

    def _read_entries(self, entries: Any) -> None:
        for name in list(entries):
            value = entries[name]
            if type(value) in PLAIN or isinstance(value, (tuple, np.generic, FunctionType)) or is_array(value):
                self.key.append(name)
                self.read(value)


def _on_host(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return True
    try:
        return bool(array.__dlpack_device__()[0] == CPU)
    except Exception:  # libraries raise what they like where an array cannot be exported
        return False


def is_of_library(code: CodeType) -> bool:
    """Return whether code is of this package, of Python, or of an installed package."""
    return code.co_filename.startswith(_libraries())


@functools.lru_cache(maxsize=4096)
def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names that may be globals in a function's code; none for code of libraries."""
    return () if is_of_library(code) else tuple(dict.fromkeys(_names(code)))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
