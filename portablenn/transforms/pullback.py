"""Going back through a record: on arrays, or on the tracers of an outer trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..program.autodiff import backward
from ..program.interpret import Interpreter
from ..program.ir import Array, Variable
from ..program.recording import Number, RecordedTracer, Recording
from ..program.simplify import drop_dead
from ..program.trace import tracing
from ..program.tracer import Tracer
from ..program.value_trace import value_tracing
from ..runtime.arrays import array_namespace, is_writeable_array
from ..runtime.backend import Backend
from .cache import program_cache
from .compile import OVERHEAD

Seeds = Sequence[tuple[RecordedTracer, Any]]
"""Results that depend on the inputs, with their cotangents; None stands for ones."""


def pull_back(record: Recording, backend: Backend, seeds: Seeds, by: Sequence[RecordedTracer], name: str) -> list[Any]:
    """Return the cotangents of ``by``, given those of results."""
    outer = [g.trace for _, g in seeds if isinstance(g, Tracer)] + ([record.outer] if record.outer else [])
    if outer:
        return _on_trace(max(outer, key=lambda t: t.level), record, seeds, by)
    results, inputs = tuple([(x.number, g is None) for x, g in seeds]), tuple([x.number for x in by])
    key = ("backward", tuple(record.record), results, inputs, backend)
    entry: Pullback | Seen | None = program_cache.find(key)
    if entry is None:
        program_cache.add(key, Seen(key))
        with value_tracing(backend.xp, backend.device, backend.functions) as current:
            gradients = [g.value for g in _on_trace(current, record, seeds, by, backend)]
    else:
        if isinstance(entry, Seen):
            entry = Pullback(backend, record, seeds, by, name)
            program_cache.add(key, entry)
        gradients = entry(record, seeds)
    return _separate(gradients, [*record.values, *(g for _, g in seeds)])


def _on_trace(
    trace: Any, record: Recording, seeds: Seeds, by: Sequence[RecordedTracer], backend: Backend | None = None
) -> list[Any]:
    """Go back on the tracers of a trace; numbers are arrays of the backend, if one is given."""
    values = {
        v: x if isinstance(v, Number) and backend is None else trace.lift(_as_array(x, v, backend))
        for v, x in zip(record.variables, record.values, strict=True)
    }
    cotangents = [(x.variable, None if g is None else trace.lift(g)) for x, g in seeds]
    return backward(trace.namespace, record.recorded(), cotangents, values, [x.variable for x in by])


def _as_array(value: Any, variable: Variable, backend: Backend | None) -> Array:
    """Return a number of the record as an array; other values as they are."""
    if backend is None or not isinstance(variable, Number):
        return value
    return backend.xp.asarray(value, dtype=getattr(backend.xp, variable.type.dtype), device=backend.device)


class Seen:
    """Entry of the cache for operations that were done once."""

    def __init__(self, key: Any) -> None:
        self.nbytes = 256 * len(key[1])


class Pullback:
    """A program that goes back through a record, for the next time that a function does the same operations.

    It calls the library's functions as going back on arrays does, so that the results are the same to the bit.
    """

    def __init__(
        self, backend: Backend, record: Recording, seeds: Seeds, by: Sequence[RecordedTracer], name: str
    ) -> None:
        with tracing() as back:
            residuals = _Residuals(back)
            given = [None if g is None else back.input(x.variable.type) for x, g in seeds]
            cotangents = [(x.variable, g) for (x, _), g in zip(seeds, given, strict=True)]
            gradients = backward(back.namespace, record.recorded(), cotangents, residuals, [x.variable for x in by])
            program = drop_dead(back.program([], [g.variable for g in gradients], f"gradient_of_{name}"))
        needed = {*program.outputs, *(v for o in program.operations for v in o.reads)}
        read = [i for i, v in enumerate(record.variables) if v in residuals and residuals[v].variable in needed]
        inputs = [residuals[record.variables[i]] for i in read] + [g for g in given if g is not None]
        program = dataclasses.replace(program, inputs=tuple([x.variable for x in inputs]))
        self.backend, self.residuals = backend, [(i, record.variables[i]) for i in read]
        self.run = Interpreter(backend.xp, program, backend.device, backend.functions)
        self.nbytes = OVERHEAD + 1024 * len(program.operations)

    def __call__(self, record: Recording, seeds: Seeds) -> list[Array]:
        residuals = [_as_array(record.values[i], v, self.backend) for i, v in self.residuals]
        return list(self.run(*residuals, *(g for _, g in seeds if g is not None)))


class _Residuals(dict[Variable, Tracer]):
    """What the way back reads of the way forward: each variable becomes an input when it is first asked for."""

    def __init__(self, trace: Any) -> None:
        super().__init__()
        self.trace = trace

    def __missing__(self, variable: Variable) -> Tracer:
        self[variable] = self.trace.input(variable.type)
        return self[variable]


def _separate(gradients: Sequence[Array], read: Sequence[Array]) -> list[Array]:
    """Return gradients that share memory neither with each other nor with what was read, so that they can be written into."""
    known = {id(_owner(x)) for x in read}
    results = []
    for g in gradients:
        if isinstance(g, np.generic):
            g = np.asarray(g)
        elif not isinstance(g, np.ndarray):  # whether it is a view is not known
            g = array_namespace(g).asarray(g, copy=True) if is_writeable_array(g) else g
        elif id(_owner(g)) in known or not g.flags.writeable:
            g = g.copy()
        known.add(id(_owner(g)))
        results.append(g)
    return results


def _owner(x: Array) -> Array:
    """Return the array of NumPy that owns the memory of ``x``; other libraries' arrays as they are."""
    while isinstance(x, np.ndarray) and isinstance(x.base, np.ndarray):
        x = x.base
    return x
