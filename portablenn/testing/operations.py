"""Operations of Programs, but linear algebra and Fourier transforms, on arrays of every kind, compared with NumPy."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..program.interpret import execute, interpret
from ..program.ir import Array, ArrayType, DType, Operation, Program, Variable, dtype_name
from ..program.trace import trace
from ..runtime import guard
from ..runtime.arrays import array_namespace
from ..runtime.backend import NUMPY, Backend, BackendError
from ..transforms.compile import prepared
from . import programs

ULPS = 16
"""Accepted difference in units in the last place of the largest value of a result, and at least of 1.

Exponentials and logarithms differ between libraries by one to five units, sums in another order by as many as there are terms;
a mistake, or a mode of lower precision, by thousands.
"""

EXACT = frozenset(
    "abs add arange argmax argmin argsort asarray astype broadcast_to ceil concat conj copysign eye flip floor full getitem "
    "imag max maximum min minimum multiply negative nextafter permute_dims positive real reshape round sign sort square "
    "subtract take take_along_axis tril triu trunc where".split()
)
"""Operations whose results are exact by IEEE 754 or by definition, besides all of integers and booleans."""


class CheckSkipped(Exception):  # noqa: N818 # nothing went wrong
    """A check does not apply to this backend; the message says why."""


class Arrays(NamedTuple):
    """The arguments that an operation is tried on; ``n`` is the second one of binary operations."""

    s: Array  # ()
    e: Array  # (0,)
    v: Array  # (8,)
    r: Array  # (3,)
    c: Array  # (2, 1)
    m: Array  # (2, 3)
    n: Array  # (2, 3)
    b: Array  # (2, 3), bool
    i: Array  # (4,), int32, row and column numbers from 0 to 1


Results = Sequence[Array]
Case = Callable[[Any, Arrays], Results]

TOGETHER = 10
"""How many operations are compiled as one program, which takes hardly longer than compiling one."""

FLOATS = ("float32", "float64")
DTYPES = (*FLOATS, "int32", "bool", "complex64")

# name: the smallest and the largest value of the first argument, and of the second
_UNARY = {
    "acos asin atanh": (-0.875, 0.875),
    "acosh": (1.125, 4.0),
    "log log10 log2 reciprocal sqrt": (0.125, 4.0),
    "log1p tan": (-0.875, 1.25),
    "abs asinh atan ceil cos cosh exp expm1 floor negative round sign sin sinh square tanh trunc positive": (-4.0, 4.0),
    "isfinite isinf isnan signbit": (-4.0, 4.0),
}
_BINARY = {
    "add subtract multiply maximum minimum atan2 copysign hypot logaddexp nextafter": ((-4.0, 4.0), (-4.0, 4.0)),
    "equal greater greater_equal less less_equal not_equal": ((-4.0, 4.0), (-4.0, 4.0)),
    "divide floor_divide remainder": ((-4.0, 4.0), (0.125, 4.0)),
    "pow": ((0.125, 4.0), (-2.0, 3.0)),
}
_INTEGER_UNARY = {
    "abs negative sign square ceil floor round trunc positive isfinite isinf isnan bitwise_invert": (-40, 40)
}
_INTEGER_BINARY = {
    "add subtract multiply maximum minimum bitwise_and bitwise_or bitwise_xor": ((-(2**31), 2**31 - 1),) * 2,
    "equal greater greater_equal less less_equal not_equal": ((-3, 3), (-3, 3)),
    "floor_divide remainder": ((-40, 40), (1, 7)),
    "pow": ((-5, 5), (0, 4)),
    "bitwise_left_shift bitwise_right_shift": ((-(2**31), 2**31 - 1), (0, 31)),
}
_BOOL_UNARY = {"logical_not bitwise_invert": (0, 1)}
_BOOL_BINARY = {
    "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor equal not_equal": ((0, 1), (0, 1))
}
_COMPLEX_UNARY = {"abs conj exp imag negative real square": (-2.0, 2.0)}
_COMPLEX_BINARY = {"add multiply subtract divide": ((-2.0, 2.0), (1.0, 2.0))}
_ELEMENTWISE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(FLOATS, (_UNARY, _BINARY)),
    "int32": (_INTEGER_UNARY, _INTEGER_BINARY),
    "bool": (_BOOL_UNARY, _BOOL_BINARY),
    "complex64": (_COMPLEX_UNARY, _COMPLEX_BINARY),
}


def _one(name: str) -> Case:
    """Return a case of a unary operation on arrays of every shape, and on views."""

    def case(xp: Any, a: Arrays) -> Results:
        f = getattr(xp, name)
        views = (a.s, a.e, a.v, a.c, a.m, a.m.mT, xp.flip(a.m), a.v[::2], a.m[:, 1:], xp.broadcast_to(a.r, (2, 3)))
        return [f(x) for x in views]

    return case


def _two(name: str) -> Case:
    """Return a case of a binary operation on equal shapes and on shapes that broadcast."""

    def case(xp: Any, a: Arrays) -> Results:
        f = getattr(xp, name)
        row, column, single = a.n[0, :], a.n[:, :1], a.n[1, 1]
        pairs = [(a.m, a.n), (a.m.mT, a.n.mT), (xp.flip(a.m), a.n), (a.m, row), (a.m, column), (a.c, a.n), (a.c, row)]
        pairs += [(a.s, single), (a.m, single), (a.s, a.n), (a.e, single), (a.m, xp.flip(a.n, axis=1))]
        scalar = {"bool": True, "signed": 3}.get(a.m.dtype.kind, 1.5)
        return [*(f(x, y) for x, y in pairs), f(a.m, scalar), f(scalar, a.n)]

    return case


def _axes(name: str, **more: Any) -> Case:
    """Return a case of a reduction along each axis, along all, with ``keepdims``, of views and of a larger array."""

    def case(xp: Any, a: Arrays) -> Results:
        f = getattr(xp, name)
        views = [a.m, a.m.mT, xp.flip(a.m, axis=1), xp.broadcast_to(a.c, (2, 70))]
        plain = [f(x, axis=axis, **more) for x in views for axis in (0, 1)]
        return [*plain, f(a.m, **more), f(a.m, axis=1, keepdims=True, **more), f(a.v, axis=0, **more)]

    return case


def _along(name: str, **more: Any) -> Case:
    """Return a case of an operation along an axis that keeps the shape."""
    return lambda xp, a: [getattr(xp, name)(x, axis=k, **more) for x in (a.m, a.m.mT, xp.flip(a.m)) for k in (0, 1)]


OTHERS: dict[tuple[str, ...], dict[str, Case]] = {
    DTYPES: {
        "full": lambda xp, a: [xp.full((2, 3), 1, dtype=a.m.dtype), xp.zeros(0, dtype=a.m.dtype), xp.ones_like(a.s)],
        "where": lambda xp, a: [
            xp.where(a.b, a.m, a.n), xp.where(a.b.mT, a.m.mT, a.n.mT), xp.where(a.b, a.c, a.r),
            xp.where(a.b[0, :], a.s, a.n),
        ],
        "broadcast_to": lambda xp, a: [
            xp.broadcast_to(a.c, (2, 3)), xp.broadcast_to(a.s, (2, 2)), xp.broadcast_to(a.r, (2, 3)),
        ],
        "getitem": lambda xp, a: [
            a.m[0, :], a.m[-1, 1], a.v[::2], a.v[6:1:-2], a.m[:, ::-1], a.m[2:, :], a.m.mT[1:, None, :],
        ],
        "take": lambda xp, a: [xp.take(x, a.i, axis=k) for x in (a.m, a.m.mT, xp.flip(a.n)) for k in (0, 1)],
        "stop_gradient": lambda xp, a: [xp.stop_gradient(a.m), xp.stop_gradient(a.s)],
        "reshape": lambda xp, a: [
            *(xp.reshape(x, (3, 2)) for x in (a.m, a.m.mT, xp.flip(a.m))), xp.reshape(a.s, (1, 1)), xp.reshape(a.e, (0, 3)),
        ],
        "permute_dims": lambda xp, a: [a.m.mT, xp.permute_dims(a.m[None, :, :], (2, 0, 1)), xp.permute_dims(a.v, (0,))],
        "concat": lambda xp, a: [
            xp.concat([a.m, a.n], axis=0), xp.concat([a.m.mT, a.n.mT], axis=1), xp.concat([a.v, a.e, a.r]),
            xp.stack([a.r, a.m[0, :]], axis=1), xp.roll(a.v, 3),
        ],
        "flip": lambda xp, a: [xp.flip(a.m), xp.flip(a.m, axis=0), xp.flip(a.m.mT, axis=1), xp.flip(a.e)],
    },
    DTYPES[:3]: {
        "arange": lambda xp, a: [xp.arange(5, dtype=a.m.dtype), xp.arange(7, 1, -2, dtype=a.m.dtype)],
        "asarray": lambda xp, a: [xp.asarray([[1, 2], [3, 4]], dtype=a.m.dtype), xp.asarray(3, dtype=a.m.dtype)],
        "tril": lambda xp, a: [xp.tril(a.m), xp.tril(a.m.mT, k=-1)],
        "triu": lambda xp, a: [xp.triu(a.m), xp.triu(a.m.mT, k=1)],
        "take_along_axis": lambda xp, a: [xp.take_along_axis(a.m, xp.argsort(a.n, axis=k), axis=k) for k in (0, 1)],
        "index_add": lambda xp, a: [
            xp.index_add(a.m, a.i - 2, xp.take(a.n, a.i, axis=0), axis=0),
            xp.index_add(xp.zeros_like(a.m), a.i, xp.take(a.n, a.i, axis=1), axis=1),
            xp.index_add(a.m.mT, a.i[:3], xp.flip(a.m.mT, axis=1), axis=0),
            xp.index_add(a.v, xp.astype(a.i, xp.int64), a.v[::2], axis=0), xp.index_add(a.v, a.i[:0], a.e, axis=0),
        ],
        "sum": _axes("sum"),
        "prod": lambda xp, a: [
            xp.prod(a.m), xp.prod(a.m, axis=0), xp.prod(a.m.mT, axis=1, keepdims=True), xp.prod(a.e),
        ],
        "max": _axes("max"),
        "min": _axes("min"),
        "argmax": _axes("argmax"),
        "argmin": _axes("argmin"),
        "cumulative_sum": _along("cumulative_sum"),
        "cumulative_prod": _along("cumulative_prod"),
        "sort": lambda xp, a: [*_along("sort")(xp, a), *_along("sort", descending=True)(xp, a)],
        "argsort": lambda xp, a: [*_along("argsort")(xp, a), *_along("argsort", descending=True)(xp, a)],
    },
    FLOATS: {
        "linspace": lambda xp, a: [
            xp.linspace(-1.0, 1.0, 5, dtype=a.m.dtype), xp.linspace(0.0, 1.0, 4, endpoint=False, dtype=a.m.dtype),
        ],
        "eye": lambda xp, a: [xp.eye(3, dtype=a.m.dtype), xp.eye(2, 3, k=1, dtype=a.m.dtype)],
        "matmul": lambda xp, a: [
            a.m @ a.n.mT, a.m.mT @ a.n, xp.flip(a.m) @ a.n.mT, a.r @ a.r, a.m @ a.r, a.m[None, :, :] @ a.n.mT,
            a.m[:, :0] @ a.n.mT[:0, :], xp.stack([a.m, a.m + a.r]) @ xp.stack([a.n, a.n * 2.0]).mT,
            xp.stack([a.m, a.n]).mT @ a.m[None, :, :], a.m @ xp.stack([a.n, a.m]).mT,
            xp.stack([a.m, a.n])[:, :, :0] @ a.n.mT[:0, :],
        ],
        "searchsorted": lambda xp, a: [
            xp.searchsorted(xp.sort(a.v), a.r), xp.searchsorted(xp.sort(a.v), a.v[::2], side="right"),
        ],
        "positive": lambda xp, a: [xp.positive(a.m) * a.n],
    },
    FLOATS[:1]: {
        "rounded_matmul": lambda xp, a: [  # of integers, which rounding does not change
            xp.rounded_matmul(x, y, precision=precision)
            for precision in ("tf32", "bfloat16")
            for x, y in ((xp.round(a.m), xp.round(a.n).mT), (xp.round(a.m).mT, xp.round(a.n)), (a.m[:, :0], a.n.mT[:0, :]))
        ],
    },
    DTYPES[:4]: {
        "astype": lambda xp, a: [
            xp.astype(x, t) for t in (xp.float32, xp.int32, xp.bool) for x in (a.m, a.m.mT, a.s, a.e)
        ],
        "all": _axes("all"),
        "any": _axes("any"),
    },
}  # fmt: skip
"""By the dtypes that they are tried with, the cases of operations that are not elementwise."""


def cases(dtype: str) -> Iterator[tuple[str, Case, Arrays]]:
    """Yield name, function and arrays of every operation for a dtype."""
    one, two = _ELEMENTWISE[dtype]
    for names, range_ in one.items():
        for name in names.split():
            yield name, _one(name), _arrays(dtype, range_, range_, special=name.startswith("is"))
    for names, (first, second) in two.items():
        for name in names.split():
            yield name, _two(name), _arrays(dtype, first, second)
    low, high = {"int32": (-9, 9), "bool": (0, 1)}.get(dtype, (-2.0, 2.0))
    for dtypes, others in OTHERS.items():
        for name, case in others.items() if dtype in dtypes else ():
            yield name, case, _arrays(dtype, (low, high), (low, high))


def _arrays(dtype: str, first: tuple[Any, Any], second: tuple[Any, Any], special: bool = False) -> Arrays:
    """Draw multiples of 1/8, so that ties, halves and whole quotients occur."""
    rng = np.random.default_rng(7)
    unit = 0.125 if DType(dtype).is_floating else 1

    def drawn(shape: tuple[int, ...], range_: tuple[Any, Any]) -> np.ndarray:
        low, high = round(range_[0] / unit), round(range_[1] / unit)
        values = rng.integers(low, high, size=shape, endpoint=True) * unit
        if DType(dtype).kind == "complex floating":
            values = values + 1j * rng.integers(low, high, size=shape, endpoint=True) * unit
        return np.asarray(values, dtype=dtype)

    s, e, v, r, c, m = (drawn(shape, first) for shape in ((), (0,), (8,), (3,), (2, 1), (2, 3)))
    n = drawn((2, 3), second)
    n[0, 0] = m[0, 0] if second[0] <= m[0, 0] <= second[1] and first == second else n[0, 0]
    if first == (-4.0, 4.0):
        v[...] = -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -3.0, -0.0  # which way halves are rounded
    if special and DType(dtype).is_floating:
        v[:4], m[0, 0], m[1, 2] = (np.nan, np.inf, -np.inf, -0.0), np.nan, -np.inf
    return Arrays(s, e, v, r, c, m, n, rng.random((2, 3)) < 0.5, np.asarray([1, 0, 1, 1], dtype=np.int32))


def supports(backend: Backend, dtype: str) -> bool:
    """Return whether the library has arrays of this dtype on this device."""
    try:
        with quiet():
            backend.asarray(np.zeros(1), dtype)
    except (BackendError, TypeError, ValueError, RuntimeError, AttributeError):
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings of infinities, NaN and slow code; raise those of a fast path that fails or computes something else."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", guard.FastPathWarning)
        yield


def require(condition: bool, message: str) -> None:
    """Assert, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def require_dtype(backend: Backend, dtype: str) -> None:
    if not supports(backend, dtype):
        raise CheckSkipped(f"{backend} has no {dtype} here")


def check_operations(backend: Backend, dtype: str = "float32") -> None:
    """Check that every operation, compiled alone and in a loop of three steps, equals NumPy's.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_operations(pnn.get_backend("numpy"), "bool")
    """
    require_dtype(backend, dtype)
    every = list(cases(dtype))
    with quiet():
        for start in range(0, len(every), TOGETHER):
            batch = every[start : start + TOGETHER]
            try:
                _try(backend, batch)
            except AssertionError:
                raise
            except Exception:
                for one in batch:  # to name the operation
                    try:
                        _try(backend, [one])
                    except Exception as error:
                        message = f"{backend}: {one[0]} of {dtype} raises {type(error).__name__}: {error}"
                        raise AssertionError(message) from error
                raise


def _try(backend: Backend, batch: Sequence[tuple[str, Case, Arrays]]) -> None:
    """Compare some operations as a function, and as a step that carries ``m`` and ``n``, flipped each time."""
    names: list[str] = []
    carried = [x for _, _, a in batch for x in (a.m, a.n)]
    others = [x for _, _, a in batch for x in (a.s, a.e, a.v, a.r, a.c, a.b, a.i)]
    values = [np.asarray(0, dtype=np.int32), *carried, *others]

    def step(iteration: Array, *arrays: Array) -> list[Array]:
        xp = array_namespace(iteration)
        flipped: list[Array] = []
        results: list[Array] = []
        names.extend([""] * len(carried))
        for k, (name, case, _) in enumerate(batch):
            m, n = arrays[2 * k : 2 * k + 2]
            s, e, v, r, c, b, i = arrays[len(carried) + 7 * k : len(carried) + 7 * k + 7]
            flipped += [xp.flip(m), xp.flip(n, axis=1)]
            some = case(xp, Arrays(s, e, v, r, c, m, n, b, i))
            results += some
            names.extend([name] * len(some))
        return [*flipped, *results]

    types = [ArrayType(x.shape, dtype_name(x.dtype)) for x in values]
    program = trace(step, *types, device=backend.device, name="operations")
    ready = prepared(program, backend)
    inputs = [backend.asarray(x, x.dtype.name) for x in values]
    run, right = guard.compile(backend, ready), interpret(NUMPY.xp, program, *values)
    kept = [i for i in range(len(names)) if i < len(carried) or i % 3 == 0]  # a third suffices for the loop
    looping = dataclasses.replace(program, outputs=tuple(program.outputs[i] for i in kept))
    loop = guard.compile_loop(backend, prepared(looping, backend), len(carried))
    looped = Backend("numpy", NUMPY.xp).interpreter_loop(looping, len(carried))(3, *values[1:])
    for _ in range(2):  # a first call must not affect the second
        _agree(backend, program, names, run(*inputs), right)
        _agree(backend, looping, [names[i] for i in kept], loop(3, *inputs[1:]), looped, "in a loop of three steps")


def _agree(
    backend: Backend, program: Program, names: Sequence[str], actual: Results, right: Results, where: str = "compiled"
) -> None:
    complex_ = program.outputs[0].type.dtype.kind == "complex floating"  # complex products round twice
    require(len(actual) == len(right), f"{backend}: expected {len(right)} results, got {len(actual)}, {where}")
    for name, variable, a, b in zip(names, program.outputs, actual, right, strict=True):
        label = f"{backend}: {name or 'flip'} of {variable.type}, {where}"
        dtype, wanted = dtype_name(a.dtype), variable.type.dtype
        # the standard leaves the dtype of indices, and of sums of integers, to the library
        require(dtype == wanted or (wanted, dtype) == ("int64", "int32"), f"{label}: has dtype {dtype}, not {wanted}")
        require(tuple(a.shape) == np.shape(b), f"{label}: has shape {tuple(a.shape)}, not {np.shape(b)}")
        exact = not wanted.is_floating or (name in {*EXACT, ""} and not complex_)
        differs = difference(backend.to_numpy(a), np.asarray(b), 0.0 if exact else ULPS)
        require(not differs, f"{label}: {differs}")


def difference(actual: np.ndarray, right: np.ndarray, ulps: float) -> str:
    """Describe the first difference of two arrays beyond some units (see `ULPS`); "" if there is none. NaN equals NaN.

    Subnormal numbers equal the smallest normal one and zero, for many GPU libraries, CuPy too, do not compute with them.
    """
    if right.dtype.kind not in "fc":
        wrong = actual != right
    else:
        size = max(1.0, float(np.max(np.abs(right), where=np.isfinite(right), initial=1.0)))
        margin = max(ulps * float(np.finfo(right.dtype).eps) * size, float(np.finfo(right.dtype).smallest_normal))
        wrong = ~((actual == right) | (np.isnan(actual) & np.isnan(right)) | (np.abs(actual - right) <= margin))
    if not np.any(wrong):
        return ""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{actual[place]!r} at {place}, where NumPy has {right[place]!r}"


# Random programs


def check_random_programs(backend: Backend, dtype: str = "float32", count: int = 40) -> None:
    """Check that programs of up to fourteen random operations, compiled and in a loop, agree with NumPy's.

    Programs near a discontinuity (``x > y`` of values that differ by rounding) are skipped: NumPy itself computes other values
    when the last digits of intermediate results change. The ``count`` programs are always the same.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_random_programs(pnn.get_backend("numpy"), "float64", count=3)
    """
    require_dtype(backend, dtype)
    done = 0
    with quiet():
        for seed in range(20 * count):
            done += _try_program(backend, dtype, seed)
            if done == count:
                return
    raise AssertionError(f"expected to compare {count} of {20 * count} programs, got {done}")


def _try_program(backend: Backend, dtype: str, seed: int) -> bool:
    shapes, instructions = programs.drawn(seed)
    rng = np.random.default_rng(seed)
    values = [np.asarray(rng.uniform(-1.0, 1.0, shape), dtype=dtype) for shape in shapes]

    def step(iteration: Array, *inputs: Array) -> list[Array]:
        xp = array_namespace(iteration)
        made = programs.run(xp, inputs, instructions)
        last = [v for v in made if v.shape == inputs[0].shape][-1]
        return [xp.tanh(last) * 0.5 + inputs[0] * 0.25, *made[-6:]]

    types = [ArrayType((), DType("int32")), *(ArrayType(shape, DType(dtype)) for shape in shapes)]
    program = trace(step, *types, device=backend.device, name=f"random_program_{seed}")
    right, tolerance = _iterated(program, values), 1e3 * float(np.finfo(dtype).eps)
    noisy = (_iterated(program, values, np.random.default_rng(noise)) for noise in range(3))
    if any(_distance(history, right) > 0.3 * tolerance for history in noisy):
        return False
    ready = prepared(program, backend)
    inputs = [backend.asarray(x, dtype) for x in values]
    iteration = backend.asarray(np.asarray(0, dtype=np.int32), "int32")
    once = [right[0][0], *(rows[0] for rows in right[1])]
    first = guard.compile(backend, ready)(iteration, *inputs)
    carry, *collected = guard.compile_loop(backend, ready, 1)(3, *inputs)
    looped = ("in a loop", [carry, *collected], [right[0][-1], *right[1]])
    for where, actual, wanted in (("compiled", first, once), looped):
        for variable, a, b in zip(program.outputs, actual, wanted, strict=True):
            label = f"{backend}: random program, seed {seed}, dtype {dtype}, {where}"
            require(dtype_name(a.dtype) == variable.type.dtype, f"{label}: a result has dtype {dtype_name(a.dtype)}")
            require(tuple(a.shape) == b.shape, f"{label}: a result has shape {tuple(a.shape)}, not {b.shape}")
            apart = _distance(([], [backend.to_numpy(a)]), ([], [b]))
            require(apart <= tolerance, f"{label}: deviates by {apart:.1e}, beyond {tolerance:.1e}\n{program}")
    return True


History = tuple[list[np.ndarray], list[np.ndarray]]
"""The carried value after each step, and the collected results of all steps."""


def _iterated(program: Program, values: list[np.ndarray], rng: np.random.Generator | None = None) -> History:
    """Run three steps on NumPy; with ``rng``, results that may round differently are off by some units in the last place."""
    carry, collected, carries = values[0], [], []
    for i in range(3):
        inputs = [np.asarray(i, dtype=np.int32), carry, *values[1:]]
        known: dict[Variable, Any] = dict(zip(program.inputs, inputs, strict=True))
        for operation in program.operations:
            known[operation.result] = _rounded(operation, known, rng)
        carry, *rest = (np.asarray(known[v]) for v in program.outputs)
        carries.append(carry)
        collected.append(rest)
    return carries, [np.stack(rows) for rows in zip(*collected, strict=True)]


def _rounded(operation: Operation, known: dict[Variable, Any], rng: np.random.Generator | None) -> Any:
    result = execute(NUMPY.xp, operation, [known[a] if isinstance(a, Variable) else a for a in operation.arguments])
    rounds = operation.name not in EXACT or operation.name in ("add", "astype", "multiply", "subtract", "square")
    if rng is None or not rounds or not operation.result.type.dtype.is_floating:
        return result
    off = rng.uniform(-4.0, 4.0, np.shape(result)) * np.finfo(result.dtype).eps
    return np.asarray(result * (1.0 + off), dtype=result.dtype)


def _distance(actual: History, right: History) -> float:
    """Return the largest deviation of any result, relative to its largest value and at least to 1."""
    largest = 0.0
    for a, b in zip((*actual[0], *actual[1]), (*right[0], *right[1]), strict=True):
        if b.size:
            apart = float(np.max(np.where(a == b, 0.0, np.abs(a - b)))) / max(1.0, float(np.max(np.abs(b))))
            largest = max(largest, apart if np.isfinite(apart) else np.inf)
    return largest
