"""The estimate of the memory that a training step takes."""

from __future__ import annotations

import portablenn as pnn
from portablenn.program.ir import ArrayType, DType
from portablenn.training.memory_estimate import peak

ROW = ArrayType((1000,), DType("float32"))


def test_a_value_is_freed_after_its_last_use() -> None:
    def chain(x):  # type: ignore[no-untyped-def]
        xp = pnn.array_namespace(x)
        for _ in range(5):
            x = xp.exp(x)
        return x

    assert peak(pnn.trace(chain, ROW)) == 2 * 4000


def test_a_value_that_is_used_later_is_not_freed_before() -> None:
    def both(x):  # type: ignore[no-untyped-def]
        xp = pnn.array_namespace(x)
        first = xp.exp(x)
        return xp.sin(xp.cos(first)) + first

    assert peak(pnn.trace(both, ROW)) == 3 * 4000
