"""The reference executor: each operation is one call of a namespace's own function.

Requires an Array API namespace, any. What this file computes is what a Program means; every other executor is held
against it.
"""

from __future__ import annotations

from typing import Any

from .ir import Array, DType, Operation, Program, Variable

CREATION = frozenset({"arange", "asarray", "eye", "full", "linspace"})
TAKES_A_LIST = frozenset({"concat", "stack"})


def interpret(xp: Any, program: Program, *inputs: Array, device: Any = None) -> tuple[Array, ...]:
    """Run ``program`` on arrays of the namespace ``xp``; what it creates is made on ``device``.

    Returns one array an output.
    """
    values: dict[Variable, Array] = {**program.constants, **dict(zip(program.inputs, inputs, strict=True))}
    for operation, dead in zip(program.operations, program.last_uses, strict=True):
        arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
        values[operation.result] = execute(xp, operation, arguments, device)
        for variable in dead:
            del values[variable]
    return tuple(values[variable] for variable in program.outputs)


def execute(xp: Any, operation: Operation, arguments: list[Any], device: Any = None) -> Array:
    """One operation on the values of its arguments."""
    if operation.name == "getitem":
        x, key = arguments
        return x[key]
    arguments = [getattr(xp, a) if isinstance(a, DType) else a for a in arguments]
    parameters = {k: getattr(xp, p) if isinstance(p, DType) else p for k, p in operation.parameters.items()}
    if operation.name in TAKES_A_LIST:
        arguments = [arguments]
    if operation.name in CREATION and device is not None:
        parameters["device"] = device
    return getattr(xp, operation.name)(*arguments, **parameters)
