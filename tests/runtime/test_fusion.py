"""Groups of operations: executed as their rows, columns and sweeps say, they give what the program means."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import of, traced

import portablenn as pnn
from portablenn.program.interpret import execute, interpret
from portablenn.program.ir import Operation, Program, Variable
from portablenn.program.simplify import simplify
from portablenn.runtime.kernels.fusion import MAX_OPERATIONS, MAX_ROW, REDUCTIONS, Extent, Group, fuse

xp = pnn.get_backend("numpy").xp
FLOAT = pnn.ArrayType


def swept(group: Group, values: dict[Variable, np.ndarray]) -> dict[Variable, np.ndarray]:
    """A group as a backend computes it: number by number, never looking at another row or column than it may."""
    shapes = {
        Extent.ONE: (),
        Extent.ROW: (group.rows,),
        Extent.COLUMN: (group.columns,),
        Extent.FULL: (group.rows, group.columns),
    }
    memory: dict[Variable, np.ndarray] = {}
    for v, extent in group.extents.items():
        new = np.full(shapes[extent], 99, dtype=v.type.dtype)
        memory[v] = values[v].reshape(shapes[extent]).copy() if v in group.reads else new

    def place(v: Variable, r: int, j: int) -> Any:
        return {Extent.ONE: (), Extent.ROW: (r,), Extent.COLUMN: (j,), Extent.FULL: (r, j)}[group.extents[v]]

    def compute(operation: Operation, r: int, j: int) -> None:
        result = memory[operation.result]
        arguments = [memory[a][place(a, r, j)] if isinstance(a, Variable) else a for a in operation.arguments]
        if operation.name in REDUCTIONS:
            so_far, new = result[r], arguments[0]
            combine = {"sum": np.add, "max": np.maximum, "min": np.minimum}[operation.name]
            result[r] = new if j == 0 else combine(so_far, new)
        elif operation.name in ("reshape", "broadcast_to"):
            result[place(operation.result, r, j)] = arguments[0]
        else:
            arguments = [np.asarray(a) if isinstance(a, np.generic) else a for a in arguments]
            result[place(operation.result, r, j)] = execute(xp, operation, arguments)

    def of(extent: Extent, level: int) -> list[Operation]:
        return [o for o in group.operations if group.extents[o.result] == extent and group.levels[o.result] == level]

    for operation in of(Extent.ONE, 0):
        compute(operation, 0, 0)
    for r in range(group.rows):
        for level in range(max(group.levels.values()) + 1):
            for operation in of(Extent.ROW, level):
                if operation.name not in REDUCTIONS:
                    compute(operation, r, 0)
            sweep = of(Extent.FULL, level) + [o for o in of(Extent.ROW, level + 1) if o.name in REDUCTIONS]
            for j in range(group.columns):
                for operation in sweep:
                    compute(operation, r, j)
    return {v: memory[v].reshape(v.type.shape) for v in group.results}


def run(program: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The program by way of its groups."""
    values = {**program.constants, **dict(zip(program.inputs, arrays, strict=True))}
    for unit in fuse(program):
        if isinstance(unit, Group):
            values.update(swept(unit, values))
        else:
            values[unit.result] = execute(
                xp, unit, [values[a] if isinstance(a, Variable) else a for a in unit.arguments]
            )
    return [np.asarray(values[v]) for v in program.outputs]


def agree(function: Any, *arrays: np.ndarray) -> tuple[Any, ...]:
    """Check the groups of ``function`` against its meaning; the units."""
    program = traced(function, *arrays)
    for ours, meant in zip(run(program, list(arrays)), interpret(xp, program, *arrays), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=1e-12, atol=1e-12)
    return fuse(program)


def groups(units: tuple[Any, ...]) -> list[list[str]]:
    return [[o.name for o in unit.operations] for unit in units if isinstance(unit, Group)]


RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(4, 3))


def softmax_cross_entropy(x: Any, y: Any) -> Any:
    shifted = x - of(x).max(x, axis=1, keepdims=True)
    return of(x).log(of(x).sum(of(x).exp(shifted), axis=1)) - of(x).sum(shifted * y, axis=1)


def test_softmax_cross_entropy_is_one_group() -> None:
    units = agree(softmax_cross_entropy, WIDE, np.eye(4, 3))
    assert len(units) == 1
    assert groups(units)[0].count("sum") == 2


def test_a_normalised_row_needs_two_sweeps() -> None:
    (group,) = agree(lambda x: x * 2.0 / of(x).sum(x * 2.0, axis=1, keepdims=True), np.abs(WIDE))
    assert isinstance(group, Group)
    assert set(group.levels.values()) == {0, 1}


def test_an_optimizers_update_is_one_group_with_its_scalars() -> None:
    def adam(theta: Any, m: Any, v: Any, g: Any, step: Any) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.01 * of(step).sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
        return theta - rate * m / (of(v).sqrt(v) + 1e-8), m, v

    vectors = [RNG.normal(size=9), np.zeros(9), np.ones(9), RNG.normal(size=9)]
    assert len(agree(adam, *vectors, np.asarray(3.0))) == 1


def test_groups_with_a_path_through_another_operation_are_not_merged() -> None:
    def around(x: Any) -> Any:
        y = of(x).tanh(x + 1.0)
        return y * 2.0 + (y @ y) * 3.0

    x = RNG.normal(size=(3, 3))
    assert groups(agree(around, x)) == [["add", "tanh", "multiply"], ["multiply", "add"]]


def test_groups_that_depend_on_each_other_are_not_merged() -> None:
    def crossed(x: Any, z: Any) -> Any:
        a, b = x * 2.0, z * 3.0
        c = b + of(x).sum(a, axis=0) * 1.0  # a column sum: outside
        d = a + of(x).sum(z + 1.0, axis=0)
        return c * d, c + a

    agree(crossed, RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3)))


def test_a_square_shape_does_not_confuse_rows_with_columns() -> None:
    def f(x: Any) -> Any:
        sums = of(x).sum(x * 1.5, axis=1)  # (3,): a number a row
        return x * sums + x * of(x).reshape(sums, (3, 1))  # the first is a number a column

    agree(f, RNG.normal(size=(3, 3)))


def test_a_single_rows_value_does_not_go_into_single_numbers() -> None:
    agree(lambda x, b: of(x).sum(x * 2.0) * b, np.ones(3), np.full((1, 1), 3.0))


def test_groups_have_a_maximum_number_of_operations() -> None:
    def long(x: Any) -> Any:
        for i in range(3 * MAX_OPERATIONS):
            x = x * 1.01 + float(i % 7)
        return x

    units = agree(long, np.ones(3))
    assert max(len(names) for names in groups(units)) == MAX_OPERATIONS
    assert len(units) <= 8


def test_numbers_beyond_a_dtype_are_left_to_the_library() -> None:
    for f in (lambda x: (x + 1) < 2**40, lambda x: (x + 1) >> 40, lambda x: (x + 1) >> -1):
        program = simplify(pnn.trace(f, FLOAT((3,), "int32")))
        assert groups(fuse(program)) == []
    for f in (lambda x: (x + 1) < 2**30, lambda x: (x + 1) >> 31):
        assert len(groups(fuse(simplify(pnn.trace(f, FLOAT((3,), "int32")))))) == 1


def test_a_long_row_is_not_reduced_in_a_group() -> None:
    x = np.ones((1, MAX_ROW + 1))
    program = simplify(pnn.trace(lambda x: of(x).sum(x * 2.0, axis=1) * 3.0, FLOAT(x.shape, "float64")))
    assert not any("sum" in names for names in groups(fuse(program)))


def test_what_a_backend_cannot_fuse_stays_outside() -> None:
    program = simplify(pnn.trace(lambda x: of(x).exp(x + 1.0) * 2.0 - x, FLOAT((5,), "float64")))
    units = fuse(program, fusible=lambda operation: operation.name != "exp")
    assert [u.name for u in units if isinstance(u, Operation)] == ["add", "exp"]
    assert groups(units) == [["multiply", "subtract"]]


@given(programs.shapes, programs.steps, st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_random_programs_mean_the_same_in_groups(shapes: Any, instructions: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape) for shape in shapes]
    agree(lambda *arrays: programs.run(of(*arrays), arrays, instructions), *inputs)


@given(programs.shapes, programs.steps)
@settings(max_examples=100, deadline=None)
def test_every_operation_is_in_one_unit_after_what_it_reads(shapes: Any, instructions: Any) -> None:
    types = [FLOAT(shape, "float64") for shape in shapes]
    program = simplify(pnn.trace(lambda *a: programs.run(of(*a), a, instructions), *types))
    units = fuse(program)
    operations = [list(unit.operations) if isinstance(unit, Group) else [unit] for unit in units]
    assert sorted(map(id, itertools.chain(*operations))) == sorted(map(id, program.operations))
    known = {*program.inputs, *program.constants}
    for operation in itertools.chain(*operations):
        assert set(operation.reads) <= known
        known.add(operation.result)


@given(programs.shapes, programs.continuous_steps, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_compiled_loops_mean_the_same(shapes: Any, instructions: Any, seed: int) -> None:
    pytest.importorskip("portablenn_numba")
    backend = pnn.get_backend("numba")
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape) for shape in shapes]
    program = simplify(
        pnn.trace(lambda *a: programs.run(of(*a), a, instructions), *(FLOAT(a.shape, "float64") for a in inputs))
    )
    before = [x.copy() for x in inputs]
    for ours, meant in zip(backend.compile(program)(*inputs), interpret(xp, program, *inputs), strict=True):
        np.testing.assert_allclose(ours, meant, rtol=1e-9, atol=1e-12)
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_what_a_gradient_is_multiplied_with_waits_for_it() -> None:
    """ReLU's mask is computed where the gradient is, of what ReLU left anyway; the step as an activation is no mask."""

    def gradient(x: Any, w: Any, v: Any) -> list[Any]:
        def loss(x: Any, w: Any, v: Any) -> Any:
            return of(x).sum(of(x).square(of(x).maximum(x @ w, 0.0) @ v))

        return list(pnn.grad(loss, argnums=(0, 1, 2))(x, w, v))

    groups = [u for u in fuse(traced(gradient, *(np.ones((3, 3)),) * 3)) if isinstance(u, Group)]
    assert [[o.name for o in g.operations] for g in groups] == [["greater", "astype", "multiply"]]

    step = traced(lambda x, w: of(x).astype(x + 1.0 > 0.0, of(x).float64) @ w, *(np.ones((3, 3)),) * 2)
    assert [u.name for u in fuse(step) if isinstance(u, Operation)] == ["matmul"]


def test_a_group_of_many_operations_takes_linear_time() -> None:
    """Twice the operations, about twice the time: a chain in which each value waits for the product at its end."""

    def seconds(count: int) -> float:
        def chain(x: Any) -> Any:
            y = x
            for i in range(count):
                y = of(x).tanh(y * 1.01 + float(i % 7))
            return y @ x

        program = traced(chain, np.ones((3, 3)))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            fuse(program)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(1200) < 4 * seconds(400) + 0.05
