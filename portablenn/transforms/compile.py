"""`compile`, and how functions become compiled programs: they are traced, prepared, compiled and kept in `program_cache`.

`compile` and `grad` wrap functions of any arrays; `compile_for` and `compile_loop_for` serve callers with a backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

from ..program.interpret import interpret
from ..program.ir import Array, ArrayType, DType, Program
from ..program.namespace import TRACING
from ..program.precision import with_plain_products
from ..program.simplify import simplify
from ..program.trace import function_name, trace
from ..program.tracer import Tracer
from ..runtime import guard
from ..runtime.arrays import array_namespace, array_type, device_of, is_array
from ..runtime.backend import Backend, Compiled
from ..runtime.registry import get_backend
from .cache import program_cache
from .closure import closed_over
from .tree import Structure, is_compared_by_identity, static_key, tree_flatten, tree_unflatten

__all__ = ["compile", "compile_for", "compile_loop_for", "jit", "prepared", "trace_loop"]

OVERHEAD = 1 << 16
"""Bytes that a compiled program is assumed to need besides its constants and what its ``nbytes`` says."""


def compile(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that traces ``fun`` once and then executes its program as fast as the arrays' backend can.

    Parameters
    ----------
    fun
        A function in plain Array API code, or with NumPy's functions and methods, of arrays, or of nested dicts, lists and
        tuples of arrays. Anything else among its arguments (Python numbers, strings, None) is static: each new value is a
        new program. It is traced, so it must do the same operations whatever the values.

        What it reads besides its arguments is checked at each call, and a change traces it again. This holds for numbers,
        strings, tuples, arrays, dicts of these, and arrays in lists, in its closure, its defaults, the globals that its code
        names, the attributes of objects found there or that it is a method of, and likewise in plain functions found there.
        What changes often is better an argument, and so are large arrays, of which a checksum is computed at each call.

        Other arrays and numbers that it reads are constants, captured when it is traced: numbers in lists, what lies deeper in
        objects or in more than 100 entries, the globals of other modules, and what is written in place into arrays on a GPU.

    Returns
    -------
    callable
        Takes what ``fun`` does, and returns its arrays and Python numbers, in nested dicts, lists and tuples, in the same
        library; ``.program(*args)`` shows what would be run.

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
    return transformed(Transform(fun))


jit = compile
"""`compile` under the name that it has in JAX."""


def compile_for(backend: Backend, function: Callable[..., Any], key: Any, *arguments: Any) -> Callable[..., Any]:
    """Return ``function`` compiled for arguments like these, which are trees of arrays and None.

    Programs are cached by the function's name, ``key``, what its ``functions`` read (see `read_by`) and the types of the
    arguments, while an object equal to ``key`` exists. The attribute ``flat`` of the result takes and returns leaves, which
    costs less than trees do.
    """
    leaves, structure = tree_flatten(arguments)
    types = tuple(map(array_type, leaves))
    name = function_name(function)

    def build() -> CompiledProgram:
        flat = lambda *arrays: function(*tree_unflatten(structure, arrays))  # noqa: E731
        return _build(backend, *trace_tree(flat, types, backend.device, name))

    entry = _find_or_build(key, (name, structure, types, backend), build)

    def run(*given: Any) -> Any:
        return entry.result.unflatten(entry.run(*tree_flatten(given)[0]))

    run.flat = entry.run  # type: ignore[attr-defined]
    return run


def compile_loop_for(
    backend: Backend, step: Callable[..., Any], key: Any, carry: Any, *data: Any
) -> Callable[..., Any]:
    """Compile a loop over ``step(iteration, carry, *data)``, which returns the next carry and what to collect.

    The result, ``run(count, carry, *data)``, returns the carry after ``count`` steps, and what they collected, (count, …) each.
    Its attribute ``loop`` is what the backend compiled.
    """
    leaves, structure = tree_flatten((carry, *data))
    carried, carry_structure = len(tree_flatten(carry)[0]), tree_flatten(carry)[1]
    facts = ("loop", function_name(step), structure, tuple(map(array_type, leaves)), backend)
    entry = _find_or_build(
        key, facts, lambda: _build(backend, *trace_loop(step, carry, *data, device=backend.device), carried)
    )

    def run(count: int, *given: Any) -> tuple[Any, Any]:
        results = entry.run(count, *tree_flatten(given)[0])
        return tree_unflatten(carry_structure, results[:carried]), entry.result.unflatten(results)[1]

    run.loop = entry.run  # type: ignore[attr-defined]
    return run


def trace_loop(step: Callable[..., Any], carry: Any, *data: Any, device: Any = None) -> tuple[Program, Result]:
    """Trace a step of `compile_loop_for`: its inputs are iteration (int32), carry and data, its outputs carry and collected."""
    leaves, structure = tree_flatten((carry, *data))
    types = (ArrayType((), DType("int32")), *map(array_type, leaves))
    flat = lambda iteration, *arrays: step(iteration, *tree_unflatten(structure, arrays))  # noqa: E731
    return trace_tree(flat, types, device, f"training_{function_name(step)}")


def _find_or_build(key: Any, facts: tuple[Hashable, ...], build: Callable[[], CompiledProgram]) -> CompiledProgram:
    group, owners = None, [key]
    full: Hashable = (id(key), facts)
    with contextlib.suppress(TypeError):  # else the key cannot be hashed, or not be referenced weakly
        group, owners = program_cache.group(key), []
        full = (group, facts)
    entry = program_cache.find((full, read_by(key)[0]))
    if entry is None:
        entry = build()
        read, others = read_by(key)  # again: a function may count how often it was traced
        program_cache.add((full, read), entry, [*owners, *others], group)
    return entry


def read_by(key: Any) -> tuple[tuple[Hashable, ...], list[Any]]:
    """Return what the functions in the attribute ``functions`` of a key read besides their arguments; see `closed_over`."""
    functions = getattr(key, "functions", ())
    return closed_over(functions) if functions else ((), [])


def _build(
    backend: Backend, program: Program, result: Result, carried: int | None = None, more: int = 0
) -> CompiledProgram:
    program = prepared(program, backend)
    run = guard.compile(backend, program) if carried is None else guard.compile_loop(backend, program, carried)
    nbytes = sum(getattr(c, "nbytes", 8 * v.type.size) for v, c in program.constants.items())
    return CompiledProgram(run, result, nbytes, more)


@dataclass(frozen=True)
class Result:
    """The tree that a function returns: its structure, and those of its leaves that are not arrays, by position."""

    structure: Structure
    fixed: dict[int, Any]

    def unflatten(self, arrays: Sequence[Array]) -> Any:
        """Return the tree with these arrays."""
        leaves = list(arrays)
        for position, value in self.fixed.items():
            leaves.insert(position, value)
        return tree_unflatten(self.structure, leaves)


@dataclass(frozen=True)
class CompiledProgram:
    """An entry of the cache: what the backend compiled, the tree of its results, and bytes of constants and of its key."""

    run: Compiled
    result: Result
    constants: int
    key_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of its constants and of the memory that it computes in, as far as the backend says."""
        return OVERHEAD + self.key_nbytes + max(self.constants, int(getattr(self.run, "nbytes", 0)))


def trace_tree(
    function: Callable[..., Any], types: Sequence[ArrayType], device: Any, name: str
) -> tuple[Program, Result]:
    """Trace a function of arrays that returns a tree; other objects among its leaves are not part of the program."""
    results: list[Result] = []

    def flat(*arrays: Array) -> list[Any]:
        leaves, structure = tree_flatten(function(*arrays))
        fixed = {i: leaf for i, leaf in enumerate(leaves) if not (is_array(leaf) or isinstance(leaf, NUMBERS))}
        results.append(Result(structure, fixed))
        return [leaf for i, leaf in enumerate(leaves) if i not in fixed]

    return trace(flat, *types, device=device, name=name), results[0]


NUMBERS = (bool, int, float, complex)


def transformed(transform: Transform) -> Callable[..., Any]:
    """Return ``transform`` as a function that looks like the original one."""

    @functools.wraps(transform.fun, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return transform(*args, **kwargs)

    call.program = transform.program  # type: ignore[attr-defined]
    return call


class Arguments:
    """The arguments of a call: arrays, and the static rest."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves, self.structure = tree_flatten((args, kwargs))
        self.positions = [i for i, leaf in enumerate(self.leaves) if is_array(leaf)]
        self.arrays = [self.leaves[i] for i in self.positions]

    @property
    def statics(self) -> tuple[Hashable, ...]:
        if len(self.arrays) == len(self.leaves):
            return ()
        return tuple((i, static_key(leaf)) for i, leaf in self._others)

    @property
    def _others(self) -> list[tuple[int, Any]]:
        arrays = set(self.positions)
        return [(i, leaf) for i, leaf in enumerate(self.leaves) if i not in arrays]

    @property
    def static_objects(self) -> list[Any]:
        """The static arguments of which the key has only the id."""
        return [leaf for _, leaf in self._others if is_compared_by_identity(leaf)]

    @property
    def static_nbytes(self) -> int:
        """Bytes of the static arguments that the key keeps alive, as far as Python knows them."""
        return sum(sys.getsizeof(leaf) for _, leaf in self._others if not is_compared_by_identity(leaf))

    def with_arrays(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        leaves = dict(enumerate(self.leaves)) | dict(zip(self.positions, arrays, strict=True))
        return tree_unflatten(self.structure, leaves.values())


class Transform:
    """Base of `compile` and the gradients: trace a function, transform the program, run it, and unpack the results."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        check_function(fun)
        self.fun = fun
        self.owners = (fun.__self__, fun.__func__) if isinstance(fun, MethodType) else (fun,)

    facts: Hashable = ()
    """What decides the program besides the function and its arguments."""

    def change(self, program: Program, result: Result, arguments: Arguments) -> Program:
        """Return the program to be run, made of the function's own."""
        if result.fixed:
            (leaf, *_) = result.fixed.values()
            raise TypeError(
                f"expected an array or a Python scalar from {function_name(self.fun)}, got {type(leaf).__name__}: {leaf!r}"
            )
        return program

    def outcome(self, arrays: Sequence[Array], result: Result, arguments: Arguments) -> Any:
        """Return what the caller gets."""
        return result.unflatten(arrays)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = Arguments(args, kwargs)
        arrays = arguments.arrays
        if not arrays:
            raise TypeError(
                f"{function_name(self.fun)} was called without an array: make its numbers arrays, for example with "
                "numpy.asarray(3.0)"
            )
        if any(isinstance(a, Tracer) for a in arrays):
            program, result = self._trace(arguments)
            xp = array_namespace(*arrays)
            return self.outcome(interpret(xp, program, *arrays, functions=TRACING), result, arguments)
        backend = backend_of(arrays)
        types = tuple([(tuple(a.shape), a.dtype) for a in arrays])
        own = tuple(map(id, self.owners))
        key = (type(self), own, self.facts, arguments.structure, arguments.statics, types, backend)
        entry = program_cache.find((key, closed_over(self.fun)[0]))
        if entry is None:
            program, result = self._trace(arguments)
            outer = [c for c in program.constants.values() if isinstance(c, Tracer)]
            if outer:  # tracers of an outer function, which traces this one, too
                xp = array_namespace(*outer)
                results = interpret(xp, program, *map(xp.asarray, arrays), functions=TRACING)
                return self.outcome(results, result, arguments)
            entry = _build(backend, program, result, more=arguments.static_nbytes)
            read, owners = closed_over(self.fun)  # again: a function may count how often it was traced
            program_cache.add((key, read), entry, [*self.owners, *owners, *arguments.static_objects])
        return self.outcome(entry.run(*arrays), entry.result, arguments)

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """Return the program that a call with these arguments runs."""
        return simplify(self._trace(Arguments(args, kwargs))[0])

    def _trace(self, arguments: Arguments) -> tuple[Program, Result]:
        def flat(*arrays: Array) -> Any:
            args, kwargs = arguments.with_arrays(arrays)
            return self.fun(*args, **kwargs)

        types = [array_type(a) for a in arguments.arrays]
        program, result = trace_tree(flat, types, device_of(arguments.arrays[0]), function_name(self.fun))
        return self.change(program, result, arguments), result


def prepared(program: Program, backend: Backend) -> Program:
    """Return a program ready to be compiled: simplified, and with copies of its constants, so that they never change.

    Products of a precision that the backend does not have become plain ones.
    """
    program = simplify(with_plain_products(program, backend.precisions))
    for constant in program.constants.values():
        if array_namespace(constant) is not backend.xp:
            raise TypeError(
                f"{program.name} was called with arrays of {backend.name} and uses an array of "
                f"{type(constant).__module__.partition('.')[0]} that is not an argument: convert it first"
            )
    copies = {variable: backend.xp.asarray(array, copy=True) for variable, array in program.constants.items()}
    return dataclasses.replace(program, constants=copies)


def check_function(fun: Any) -> None:
    """Raise TypeError if it cannot be called."""
    if not callable(fun):
        raise TypeError(f"expected a function, got {type(fun).__name__}")


def surroundings(arrays: Sequence[Array]) -> tuple[Backend, Any, Any]:
    """Return the backend, the namespace and the device in which to compute with arrays on values.

    Tracers, and no arrays at all, have NumPy's backend; tracers compute in their own namespace.
    """
    device = device_of(arrays[0]) if arrays else None
    if any(isinstance(a, Tracer) for a in arrays):
        return get_backend("numpy"), array_namespace(*arrays), device
    backend = backend_of(arrays) if arrays else get_backend("numpy")
    return backend, backend.xp, device


def backend_of(arrays: Sequence[Array]) -> Backend:
    backends = {get_backend(a) for a in arrays}
    if len(backends) > 1:
        array_namespace(*arrays)  # raises if they belong to different libraries
        names = " and ".join(sorted(map(str, backends)))
        raise TypeError(f"arrays on different devices in one call: {names}. Move them to one device")
    return backends.pop()
