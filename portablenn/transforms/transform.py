"""Functions of functions: `grad`, `value_and_grad`, `compile`.

Requires functions in plain Array API code. Each is recorded at its first call for the shapes and dtypes that it meets,
turned into another Program, and executed by the backend that its arrays belong to. Compiled programs are kept in
`program_cache`.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..program.autodiff import NotDifferentiableError, value_and_gradients
from ..program.interpret import interpret
from ..program.ir import Array, Program
from ..program.simplify import simplify
from ..program.trace import trace
from ..program.tracer import Tracer
from ..runtime.arrays import array_namespace, array_type, device_of, is_array
from ..runtime.backend import Backend
from ..runtime.registry import get_backend
from .tree import LEAF, Structure, flatten, unflatten

__all__ = ["ProgramCache", "compile", "grad", "program_cache", "value_and_grad"]


@dataclass(frozen=True)
class CacheInfo:
    """How a cache fared: calls that found their program, calls that did not, programs held, and the bound on those."""

    hits: int
    misses: int
    size: int
    maxsize: int


class ProgramCache:
    """The programs compiled last; the one that was not used for longest goes first.

    Attributes
    ----------
    maxsize : int
        How many are kept.
    """

    def __init__(self, maxsize: int = 512) -> None:
        self.maxsize = maxsize
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.RLock()
        self._hits = self._misses = 0

    def get(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """The entry of ``key``, built if it is not there; an error while building leaves the cache as it was."""
        with self._lock:
            if key in self._entries:
                self._hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
        entry = build()
        with self._lock:
            self._misses += 1
            self._entries[key] = entry
            while len(self._entries) > max(self.maxsize, 0):
                self._entries.popitem(last=False)
        return entry

    def info(self) -> CacheInfo:
        """Hits, misses, size and bound."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._entries), self.maxsize)

    def clear(self) -> None:
        """Forget every program, and the counts."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = 0


program_cache = ProgramCache()
"""What `grad`, `value_and_grad`, `compile` and networks have compiled: ``program_cache.info()``, ``.clear()``."""


def compile(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun``, recorded once and then executed as fast as the arrays' backend can.

    Parameters
    ----------
    fun
        A function in plain Array API code of arrays, or of nested dicts, lists and tuples of arrays. Anything else among
        its arguments (Python numbers, strings, None) is static: each new value is a new program. It is recorded, so it
        must do the same operations whatever the values; arrays that it uses without taking them as arguments are
        constants, copied as they are then.

    Returns
    -------
    callable
        Takes and returns what ``fun`` does, in the same library; ``.program(*args)`` shows what would be run.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> def norm(x):
    ...     xp = pnn.array_namespace(x)
    ...     return xp.sqrt(xp.sum(x * x))
    >>> float(pnn.compile(norm)(np.asarray([3.0, 4.0])))
    5.0
    """
    return _transformed(fun, _Transform)


def grad(fun: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function.

    Parameters
    ----------
    fun
        As for `compile`; returns one real scalar array.
    argnums
        By which positional arguments; one number, or several for a tuple of gradients.

    Returns
    -------
    callable
        Takes what ``fun`` does; returns gradients in the structure of those arguments, in the same library.

    Raises
    ------
    NotDifferentiableError
        At the call: if the result is no real scalar, or an argument holds anything but real floating arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.grad(lambda x: pnn.xp.sum(x**3))(np.asarray([1.0, 2.0]))
    array([ 3., 12.])
    >>> cube = lambda x: x**3
    >>> float(pnn.grad(pnn.grad(cube))(np.asarray(2.0)))
    12.0
    """
    both = value_and_grad(fun, argnums)

    @functools.wraps(fun, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    gradient.program = both.program  # type: ignore[attr-defined]
    return gradient


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a scalar function and its gradient, from one pass.

    Parameters
    ----------
    fun, argnums
        As for `grad`.
    has_aux
        Whether ``fun`` returns (scalar, anything else); the rest is then passed on.

    Returns
    -------
    callable
        Returns (value, gradients), or ((value, rest), gradients) with ``has_aux``.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> value, gradient = pnn.value_and_grad(lambda p: p["a"] * p["b"])({"a": np.asarray(2.0), "b": np.asarray(3.0)})
    >>> float(value), float(gradient["a"]), float(gradient["b"])
    (6.0, 3.0, 2.0)
    """
    several = isinstance(argnums, (tuple, list)) and all(isinstance(n, int) for n in argnums)
    if not (isinstance(argnums, int) or several):
        raise TypeError(
            f"argnums is the number of an argument, or several, found {argnums!r}; grad(fun) is then called"
        )
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    return _transformed(fun, functools.partial(_Differentiated, argnums=numbers, single=single, has_aux=has_aux))


def _transformed(fun: Callable[..., Any], kind: Callable[..., _Transform]) -> Callable[..., Any]:
    if not callable(fun):
        raise TypeError(f"expected a function, found {type(fun).__name__}")
    transform = kind(fun)

    @functools.wraps(fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return transform(*args, **kwargs)

    call.program = transform.program  # type: ignore[attr-defined]
    return call


class _Arguments:
    """A call's arguments: arrays apart from everything else."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves, self.structure = flatten((args, kwargs))
        self.places = [i for i, leaf in enumerate(self.leaves) if is_array(leaf)]
        self.arrays = [self.leaves[i] for i in self.places]
        self.counts = [len(flatten(arg)[0]) for arg in args]

    @property
    def statics(self) -> tuple[Any, ...]:
        held = set(self.places)
        return tuple((i, type(leaf), _distinct(leaf)) for i, leaf in enumerate(self.leaves) if i not in held)

    def with_arrays(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        leaves = list(self.leaves)
        for i, array in zip(self.places, arrays, strict=True):
            leaves[i] = array
        tree: tuple[tuple[Any, ...], dict[str, Any]] = unflatten(self.structure, leaves)
        return tree

    def structure_of(self, argnum: int) -> Structure:
        """The structure of one positional argument."""
        (_, _, ((_, _, positional), _)) = self.structure
        return positional[argnum]

    def array_numbers(self, argnum: int) -> list[int]:
        """Which of the arrays belong to the positional argument ``argnum``; its other leaves are an error."""
        if not -len(self.counts) <= argnum < len(self.counts):
            raise TypeError(f"argnums={argnum}, but only {len(self.counts)} positional arguments were given")
        start = sum(self.counts[: argnum % len(self.counts)])
        numbers = []
        for i in range(start, start + self.counts[argnum]):
            if i not in self.places:
                raise NotDifferentiableError(
                    f"argument {argnum} holds {self.leaves[i]!r}, a {type(self.leaves[i]).__name__}: gradients are by "
                    "arrays. Make it one, for example with numpy.asarray"
                )
            numbers.append(self.places.index(i))
        return numbers


class _Identity:
    """Stands for an object that cannot be hashed; keeps it alive, so that its id stays its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value


def _distinct(static: Any) -> Hashable:
    """A static argument as part of a key: 0.0 and -0.0 are equal and mean different programs."""
    return repr(static) if isinstance(static, (float, complex)) else hashable(static)


def hashable(value: Any) -> Hashable:
    """``value``, or where it cannot be hashed, something that stands for this very object."""
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return value


class _Transform:
    """A function, and what is to be made of its program."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun

    @property
    def facts(self) -> Hashable:
        """What else decides the program."""
        return ()

    def change(self, program: Program, arguments: _Arguments) -> Program:
        return program

    def result(self, arrays: Sequence[Array], structure: Structure, arguments: _Arguments) -> Any:
        return unflatten(structure, list(arrays))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _Arguments(args, kwargs)
        if not arguments.arrays:
            raise TypeError(
                f"{_name(self.fun)} was called without an array: make its numbers arrays, for example with numpy.asarray(3.0)"
            )
        xp = array_namespace(*arguments.arrays)
        if any(isinstance(a, Tracer) for a in arguments.arrays):
            program, structure = self._record(arguments)
            return self.result(interpret(xp, program, *arguments.arrays), structure, arguments)
        backend = _backend_of(arguments.arrays)
        types = tuple(map(array_type, arguments.arrays))
        key = (type(self), hashable(self.fun), self.facts, arguments.structure, arguments.statics, types, backend)
        try:
            run, structure = program_cache.get(key, lambda: self._build(arguments, backend))
        except _OuterArraysError as outer:
            lifted = [outer.namespace.asarray(a) for a in arguments.arrays]
            return self.result(interpret(outer.namespace, outer.program, *lifted), outer.structure, arguments)
        return self.result(run(*arguments.arrays), structure, arguments)

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """What a call with these arguments runs."""
        return simplify(self._record(_Arguments(args, kwargs))[0])

    def _record(self, arguments: _Arguments) -> tuple[Program, Structure]:
        structures = []

        def flat(*arrays: Any) -> list[Any]:
            args, kwargs = arguments.with_arrays(arrays)
            leaves, structure = flatten(self.fun(*args, **kwargs))
            structures.append(structure)
            return leaves

        types = [array_type(a) for a in arguments.arrays]
        program = trace(flat, *types, device=device_of(arguments.arrays[0]), name=_name(self.fun))
        return self.change(program, arguments), structures[0]

    def _build(self, arguments: _Arguments, backend: Backend) -> tuple[Callable[..., tuple[Array, ...]], Structure]:
        program, structure = self._record(arguments)
        outer = [c for c in program.constants.values() if isinstance(c, Tracer)]
        if outer:
            raise _OuterArraysError(array_namespace(*outer), program, structure)
        return backend.compile(prepared(program, backend)), structure


def prepared(program: Program, backend: Backend) -> Program:
    """A program ready to be compiled: simplified, and with copies of its constants, so that they stay what they were.

    Raises
    ------
    TypeError
        If it uses arrays of another library.
    """
    program = simplify(program)
    for constant in program.constants.values():
        if array_namespace(constant) is not backend.xp:
            raise TypeError(
                f"{program.name} was called with arrays of {backend.name} and uses an array of "
                f"{type(constant).__module__.partition('.')[0]} that is not an argument: convert it first"
            )
    copies = {variable: backend.xp.asarray(array, copy=True) for variable, array in program.constants.items()}
    return dataclasses.replace(program, constants=copies)


class _OuterArraysError(Exception):
    """The function uses arrays of an outer function that is being recorded: it must be recorded there, not compiled."""

    def __init__(self, namespace: Any, program: Program, structure: Structure) -> None:
        self.namespace = namespace
        self.program = program
        self.structure = structure


class _Differentiated(_Transform):
    def __init__(self, fun: Callable[..., Any], argnums: tuple[int, ...], single: bool, has_aux: bool) -> None:
        super().__init__(fun)
        self.argnums = argnums
        self.single = single
        self.has_aux = has_aux

    @property
    def facts(self) -> Hashable:
        return (self.argnums, self.has_aux)

    def change(self, program: Program, arguments: _Arguments) -> Program:
        numbers = [n for argnum in self.argnums for n in arguments.array_numbers(argnum)]
        return value_and_gradients(program, numbers)

    def result(self, arrays: Sequence[Array], structure: Structure, arguments: _Arguments) -> Any:
        if structure != LEAF and not self.has_aux:
            raise NotDifferentiableError(
                f"{_name(self.fun)} must return one scalar array; for (scalar, rest) use value_and_grad(..., has_aux=True)"
            )
        count = len(arrays) - sum(arguments.counts[n] for n in self.argnums)
        value, rest = unflatten(structure, list(arrays[:count])), list(arrays[count:])
        gradients = []
        for argnum in self.argnums:
            size = arguments.counts[argnum]
            gradients.append(unflatten(arguments.structure_of(argnum), rest[:size]))
            rest = rest[size:]
        return value, gradients[0] if self.single else tuple(gradients)


def _backend_of(arrays: Sequence[Array]) -> Backend:
    backends = {get_backend(a) for a in arrays}
    if len(backends) > 1:
        found = " and ".join(sorted(map(str, backends)))
        raise TypeError(f"arrays on different devices in one call: {found}. Move them to one")
    return backends.pop()


def _name(fun: Callable[..., Any]) -> str:
    return getattr(fun, "__name__", type(fun).__name__).replace("<lambda>", "lambda")
