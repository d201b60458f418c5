"""Matrix products of rounded numbers: TensorFloat-32 and bfloat16, which tensor cores multiply many times faster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from .interpret import SIGNIFICANT_BITS, execute, rounded
from .ir import Operation, Program, Variable
from .namespace import TRACING
from .trace import tracing
from .tracer import Tracer

PRECISIONS = tuple(SIGNIFICANT_BITS)
"""What the factors of products can be rounded to; sums are float32."""

Convert = Callable[[Any, Tracer, str], Tracer]
Multiply = Callable[[Any, Tracer, Tracer, str], Tracer]


def round_products(program: Program, precision: str) -> Program:
    """Return a program whose float32 products are `portablenn.program.interpret.rounded_matmul`."""

    def changed(operation: Operation) -> Operation:
        types = {v.type.dtype for v in (*operation.reads, operation.result)}
        if operation.name != "matmul" or types != {"float32"}:
            return operation
        return dataclasses.replace(operation, name="rounded_matmul", parameters={"precision": precision})

    return dataclasses.replace(program, operations=tuple(map(changed, program.operations)))


def with_plain_products(program: Program, precisions: Collection[str] = ()) -> Program:
    """Return a program that rounds by arithmetic, unless all its products have one of the ``precisions``."""
    if all(o.parameters["precision"] in precisions for o in program.operations if o.name == "rounded_matmul"):
        return program
    return lower_products(program, rounded, lambda xp, a, b, precision: xp.matmul(a, b))


def lower_products(program: Program, convert: Convert, multiply: Multiply) -> Program:
    """Return a program in which other functions round factors, once each, and multiply them.

    ``convert(xp, x, precision)`` is elementwise, so a matrix and its transpose are rounded together.
    """
    if not any(o.name == "rounded_matmul" for o in program.operations):
        return program
    made_by = {o.result: o for o in program.operations}
    done: dict[tuple[Variable, str], Tracer] = {}
    with tracing() as trace:
        xp = trace.namespace
        values: dict[Variable, Tracer] = {v: trace.input(v.type) for v in program.inputs}
        inputs = [values[v].variable for v in program.inputs]
        values |= {v: trace.lift(constant) for v, constant in program.constants.items()}

        def converted(v: Variable, precision: str) -> Tracer:
            if (v, precision) not in done:
                made = made_by.get(v)
                if made is not None and made.name == "permute_dims":
                    result = xp.permute_dims(converted(made.reads[0], precision), made.arguments[1])
                else:
                    result = convert(xp, values[v], precision)
                done[v, precision] = result
            return done[v, precision]

        for operation in program.operations:
            if operation.name == "rounded_matmul":
                precision = operation.parameters["precision"]
                a, b = (converted(v, precision) for v in operation.arguments)
                values[operation.result] = multiply(xp, a, b, precision)
            else:
                arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
                values[operation.result] = execute(xp, operation, arguments, functions=TRACING)
        return trace.program(inputs, [values[v].variable for v in program.outputs], program.name)
