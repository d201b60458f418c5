"""The gradient of a Program, as a Program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import portablenn as pnn
from portablenn.program.interpret import interpret
from portablenn.program.namespace import TRACING


def value_and_gradients(program: pnn.Program, argnums: Sequence[int]) -> pnn.Program:
    """Return the program of output 0 of ``program``, and of its gradients by the inputs ``argnums``."""

    def value(*arrays: Any) -> Any:
        return interpret(pnn.array_namespace(*arrays), program, *arrays, functions=TRACING)[0]

    def both(*arrays: Any) -> Any:
        result, gradients = pnn.value_and_grad(value, argnums=tuple(argnums))(*arrays)
        return (result, *gradients)

    return pnn.trace(both, *(v.type for v in program.inputs))
