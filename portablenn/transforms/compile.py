"""`compile`: record a function as a Program, prepare it, and run it as fast as its arrays' backend can.

This is the one place where functions become compiled programs. These are kept in `program_cache`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..program.autodiff import NotDifferentiableError
from ..program.interpret import interpret
from ..program.ir import Array, Program
from ..program.namespace import TRACING
from ..program.simplify import simplify
from ..program.trace import trace
from ..program.tracer import Tracer
from ..runtime import guard
from ..runtime.arrays import array_namespace, array_type, device_of, is_array
from ..runtime.backend import Backend
from ..runtime.registry import get_backend
from .cache import program_cache
from .tree import Structure, tree_flatten, tree_unflatten

__all__ = ["compile", "jit"]


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
    return transformed(fun, Transform)


jit = compile
"""`compile` under the name that it has in JAX."""


def transformed(fun: Callable[..., Any], kind: Callable[..., Transform]) -> Callable[..., Any]:
    if not callable(fun):
        raise TypeError(f"expected a function, found {type(fun).__name__}")
    transform = kind(fun)

    @functools.wraps(fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return transform(*args, **kwargs)

    call.program = transform.program  # type: ignore[attr-defined]
    return call


class Arguments:
    """A call's arguments: arrays apart from everything else."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves, self.structure = tree_flatten((args, kwargs))
        self.places = [i for i, leaf in enumerate(self.leaves) if is_array(leaf)]
        self.arrays = [self.leaves[i] for i in self.places]
        self.counts = [len(tree_flatten(arg)[0]) for arg in args]

    @property
    def statics(self) -> tuple[Any, ...]:
        held = set(self.places)
        return tuple((i, type(leaf), _distinct(leaf)) for i, leaf in enumerate(self.leaves) if i not in held)

    def with_arrays(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        leaves = list(self.leaves)
        for i, array in zip(self.places, arrays, strict=True):
            leaves[i] = array
        tree: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(self.structure, leaves)
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


class Transform:
    """A function, and what is to be made of its program."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun

    @property
    def facts(self) -> Hashable:
        """What else decides the program."""
        return ()

    def change(self, program: Program, arguments: Arguments) -> Program:
        return program

    def result(self, arrays: Sequence[Array], structure: Structure, arguments: Arguments) -> Any:
        return tree_unflatten(structure, list(arrays))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = Arguments(args, kwargs)
        if not arguments.arrays:
            raise TypeError(
                f"{function_name(self.fun)} was called without an array: make its numbers arrays, for example with "
                "numpy.asarray(3.0)"
            )
        xp = array_namespace(*arguments.arrays)
        if any(isinstance(a, Tracer) for a in arguments.arrays):
            program, structure = self._record(arguments)
            return self.result(interpret(xp, program, *arguments.arrays, functions=TRACING), structure, arguments)
        backend = _backend_of(arguments.arrays)
        types = tuple(map(array_type, arguments.arrays))
        key = (type(self), hashable(self.fun), self.facts, arguments.structure, arguments.statics, types, backend)
        try:
            run, structure = program_cache.get(key, lambda: self._build(arguments, backend))
        except _OuterArraysError as outer:
            lifted = [outer.namespace.asarray(a) for a in arguments.arrays]
            return self.result(
                interpret(outer.namespace, outer.program, *lifted, functions=TRACING), outer.structure, arguments
            )
        return self.result(run(*arguments.arrays), structure, arguments)

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """What a call with these arguments runs."""
        return simplify(self._record(Arguments(args, kwargs))[0])

    def _record(self, arguments: Arguments) -> tuple[Program, Structure]:
        structures = []

        def flat(*arrays: Any) -> list[Any]:
            args, kwargs = arguments.with_arrays(arrays)
            leaves, structure = tree_flatten(self.fun(*args, **kwargs))
            structures.append(structure)
            return leaves

        types = [array_type(a) for a in arguments.arrays]
        program = trace(flat, *types, device=device_of(arguments.arrays[0]), name=function_name(self.fun))
        return self.change(program, arguments), structures[0]

    def _build(self, arguments: Arguments, backend: Backend) -> tuple[Callable[..., tuple[Array, ...]], Structure]:
        program, structure = self._record(arguments)
        outer = [c for c in program.constants.values() if isinstance(c, Tracer)]
        if outer:
            raise _OuterArraysError(array_namespace(*outer), program, structure)
        return guard.compile(backend, prepared(program, backend)), structure


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


def _backend_of(arrays: Sequence[Array]) -> Backend:
    backends = {get_backend(a) for a in arrays}
    if len(backends) > 1:
        found = " and ".join(sorted(map(str, backends)))
        raise TypeError(f"arrays on different devices in one call: {found}. Move them to one")
    return backends.pop()


def function_name(fun: Callable[..., Any]) -> str:
    return getattr(fun, "__name__", type(fun).__name__).replace("<lambda>", "lambda")
