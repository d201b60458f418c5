"""The checks of a backend: functions that raise AssertionError, whose message says what is wrong and by how much."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import random
from ..nn.layers import Dense, Dropout
from ..nn.optimizers import SGD
from ..program.ir import Array, ArrayType, DType, Program
from ..program.trace import trace
from ..runtime import guard
from ..runtime.arrays import array_namespace, device_of, is_array
from ..runtime.backend import NUMPY, Backend, BackendError
from ..runtime.registry import get_backend
from ..training.network import Network
from ..transforms.compile import prepared
from .networks import CLASSES, NETWORKS, TOLERANCES, X, compiled_for, deviation
from .operations import (
    DTYPES,
    FLOATS,
    CheckSkipped,
    check_operations,
    check_random_programs,
    quiet,
    require,
    require_dtype,
    supports,
)

# Networks


def check_steps(backend: Backend, dtype: str = "float32", steps: int = 1) -> None:
    """Check that training each of `NETWORKS` for 1 or 20 steps ends where NumPy in float64 does, within `TOLERANCES`.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_steps(pnn.get_backend("numpy"), "float64", 20)
    """
    require_dtype(backend, dtype)
    tolerance = TOLERANCES[dtype, steps]
    with quiet():
        for name in NETWORKS:
            apart = deviation(name, backend, dtype, steps)
            where = f"after step {steps} parameters of the network {name!r} in {dtype}"
            require(apart <= tolerance, f"{backend}: {where} deviate by {apart:.1e}, beyond {tolerance:.0e}")


def check_seeds(backend: Backend) -> None:
    """Check that a seed gives the same bits as on NumPy: initial weights, random words, order of batches, dropout masks.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_seeds(pnn.get_backend("numpy"))
    """
    with quiet():
        for dtype in FLOATS if supports(backend, "float64") else FLOATS[:1]:
            for name, make in NETWORKS.items():
                here, there = (make(dtype=dtype, seed=11, backend=b).parameters for b in (NUMPY, backend))
                for parameter, right in here.items():
                    _same(backend, f"initial weights {name}.{parameter} of {dtype}", there[parameter], right)
        key, streams = random.new_key(7, random.MASKS, 2), np.asarray([0, 5, 2**31 - 1], dtype=np.int32)
        words = _compiled(backend, lambda key, streams: random.bits(key, streams, 101), key, streams)[0]
        _same(backend, "Threefry's words", words, random.bits(key, streams, 101))
        step = np.asarray(3, dtype=np.int32)
        mask = _compiled(backend, lambda key, step: random.keep_mask(key, step, (13, 7), 0.3), key, step)[0]
        _same(backend, "a mask", mask, random.keep_mask(key, step, (13, 7), 0.3))
        orders = random.new_key(9, random.ORDER)
        for order in (random.permutations(orders, 0, 1, 20), random.draws(orders, 0, 1, 20, 20)):
            _same(backend, "the order of the rows", _seen(backend, order), order[0].astype(np.float32))
        _same(backend, "dropout's masks in training", _masks(backend), _masks(NUMPY))


def _unchanged(backend: Backend, arrays: Iterable[Array], before: Iterable[np.ndarray], message: str) -> None:
    for number, (array, was) in enumerate(zip(arrays, before, strict=True)):
        require(np.array_equal(backend.to_numpy(array), was), f"{backend}: {message.format(number)}")


def _same(backend: Backend, what: str, actual: Array, right: np.ndarray) -> None:
    values = backend.to_numpy(actual)
    require(values.dtype == right.dtype, f"{backend}: {what}: dtype {values.dtype}, not {right.dtype}")
    require(values.shape == right.shape, f"{backend}: {what}: shape {values.shape}, not {right.shape}")
    wrong = np.argwhere(values != right)
    first = wrong[:1].tolist()
    require(not first, f"{backend}: {what} differ from NumPy's in {len(wrong)} of {right.size}, first at {first}")


def _compiled(backend: Backend, function: Callable[..., Any], *values: np.ndarray) -> tuple[Array, ...]:
    """Return what a compiled function returns for these values, moved to the backend."""
    program = _program(backend, function, *values)
    return guard.compile(backend, prepared(program, backend))(*(backend.asarray(v, v.dtype.name) for v in values))


def _program(backend: Backend, function: Callable[..., Any], *values: np.ndarray) -> Program:
    return trace(function, *(ArrayType(v.shape, DType(v.dtype.name)) for v in values), device=backend.device)


def _seen(backend: Backend, order: np.ndarray) -> Array:
    """Return the rows in the order of training: the losses of a network whose loss is the row's number."""
    rows = np.arange(order.size, dtype=np.float64)[:, None]
    one = Dense(1, use_bias=False, kernel_init="ones")
    network = Network([one], inputs=1, loss=_output, optimizer=SGD(0.0), backend=backend)
    _, run = compiled_for(network, rows, rows, order.reshape(-1, 1))
    return run(order.size)[1]


def _masks(backend: Backend) -> np.ndarray:
    """Return dropout's masks of three steps, from the update of each input's weight."""
    layers = [Dropout(0.5), Dense(1, use_bias=False, kernel_init="zeros")]
    network = Network(layers, inputs=50, loss=_output, optimizer=SGD(1.0), backend=backend, seed=4)
    kept = []
    for _ in range(3):
        before = network.backend.to_numpy(network.state.theta).copy()
        network.fit(np.ones((1, 50)), np.ones((1, 1)))
        kept.append(network.backend.to_numpy(network.state.theta) - before)
    return np.stack(kept)


def _output(predictions: Array, targets: Array) -> Array:
    return predictions


# Results


def check_results(backend: Backend) -> None:
    """Check that results are the library's arrays on this device, which later calls leave alone, and that inputs are unchanged.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_results(pnn.get_backend("numpy"))
    """

    def step(iteration: Array, a: Array, b: Array, c: Array) -> list[Array]:
        xp = array_namespace(iteration)
        return [b * 0.5, a + c, xp.sum(a * c), xp.astype(iteration, c.dtype) + c[0, :], c, xp.ones(3, dtype=xp.int32)]

    rng = np.random.default_rng(3)
    values = [np.asarray(1, dtype=np.int32), *(rng.normal(size=(4, 3)).astype(np.float32) for _ in range(3))]
    with quiet():
        program = prepared(_program(backend, step, *values), backend)
        inputs = [backend.asarray(v.copy(), v.dtype.name) for v in values]  # some libraries share the memory
        for number, array in enumerate(inputs):
            _is_here(backend, array, f"argument {number} from asarray")
        run, loop = guard.compile(backend, program), guard.compile_loop(backend, program, 2)
        calls: dict[str, Callable[[], tuple[Array, ...]]] = {
            "compile": lambda: run(*inputs),
            "compile_loop": lambda: loop(5, *inputs[1:]),
            "compile_loop of no steps": lambda: loop(0, *inputs[1:]),
        }
        for name, call in calls.items():
            results = call()
            for number, array in enumerate(results):
                _is_here(backend, array, f"result {number} of {name}")
            kept = [backend.to_numpy(array).copy() for array in results]
            call()
            _unchanged(backend, results, kept, f"the next call changes result {{}} of {name}")
            _unchanged(backend, inputs, values, f"{name} changes its argument {{}}")
        _network_stays(backend)


def _network_stays(backend: Backend) -> None:
    network = NETWORKS["relu"](backend=backend)
    x, y = backend.asarray(X, "float32"), backend.asarray(CLASSES.copy())
    theta = network.state.theta
    before = [backend.to_numpy(array).copy() for array in (theta, x, y)]
    network.fit(x, y, epochs=2)
    for name, array, was in zip(("the state that it was given", "X", "y"), (theta, x, y), before, strict=True):
        _unchanged(backend, [array], [was], f"fit changes {name}")
    results = {method: getattr(network, method)(x) for method in ("predict", "predict_proba", "forward")}
    for name, array in {**results, **network.parameters}.items():
        _is_here(backend, array, name)


def _is_here(backend: Backend, array: Array, what: str) -> None:
    where = f"{backend}: {what} is"
    require(is_array(array), f"{where} {type(array).__module__}.{type(array).__name__}, not an array")
    require(array_namespace(array) is backend.xp, f"{where} an array of {type(array).__module__.partition('.')[0]}")
    require(device_of(array) == backend.device, f"{where} on {device_of(array)}, not on {backend.device}")


# Transfers

_READS = "__array__ __buffer__ __dlpack__ __float__ __bool__ __int__ __index__ __complex__ item tolist numpy get cpu"


def _times(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count} times" for name, count in Counter(names).items())


def check_no_transfers(backend: Backend) -> None:
    """Check that compiled steps and a compiled function do not read values back.

    Raises CheckSkipped if arrays are on the host anyway, or if Python cannot watch the methods of the library's arrays.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_no_transfers(pnn.get_backend("numpy"))
    Traceback (most recent call last):
    portablenn.testing.operations.CheckSkipped: the arrays of numpy are on the host
    """
    if backend.xp is NUMPY.xp:
        raise CheckSkipped(f"the arrays of {backend} are on the host")
    values = np.ones((3, 4), dtype=np.float32)
    function = _program(backend, lambda x: array_namespace(x).sum(x @ x.mT), values)
    with quiet():
        network = NETWORKS["deep"](backend=backend)
        _, run = compiled_for(network, X, CLASSES, np.arange(96).reshape(6, 16))
        once, x = guard.compile(backend, prepared(function, backend)), backend.asarray(values)
        once(x), run(6)  # compiling, and the guard's comparison, may read values
        with _watched(backend, {type(a) for a in (x, network.state.theta)}) as (reads, unwatched):
            once(x)
            require(not reads, f"{backend}: a compiled function reads values back: {_times(reads)}")
            run(6)
            require(not reads, f"{backend}: six compiled steps read values back: {_times(reads)}")
    if unwatched:
        raise CheckSkipped(
            f"Python cannot watch arrays of type {unwatched[0]}: only the backend's to_numpy was watched"
        )


@contextlib.contextmanager
def _watched(backend: Backend, kinds: set[type]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield a list that collects calls of methods that read values, and the types that cannot be watched."""
    reads: list[str] = []
    unwatched: list[str] = []

    def noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            reads.append(name)  # only if it succeeds: JAX tries whether a power's exponent is an integer
            return value

        return call

    with contextlib.ExitStack() as undo:
        vars(backend)["to_numpy"] = noting("to_numpy", backend.to_numpy)
        undo.callback(vars(backend).pop, "to_numpy")
        for kind in kinds:
            for name in (n for n in _READS.split() if hasattr(kind, n)):
                own = vars(kind).get(name)
                try:
                    setattr(kind, name, noting(name, getattr(kind, name)))
                except (TypeError, AttributeError):
                    unwatched.append(f"{kind.__module__}.{kind.__name__}")
                    break
                undo.callback(*((setattr, kind, name, own) if own is not None else (delattr, kind, name)))
        yield reads, unwatched


# Errors


def check_errors(backend: Backend) -> None:
    """Check that wrong input raises one clear error and changes nothing.

    Examples
    --------
    >>> import portablenn as pnn
    >>> check_errors(pnn.get_backend("numpy"))
    """
    with quiet():
        network = NETWORKS["relu"](backend=backend)
        x, y = backend.asarray(X, "float32"), backend.asarray(CLASSES)
        network.fit(x, y)
        hole = X.copy()
        hole[2, 1] = np.nan
        state = [backend.to_numpy(a).copy() for a in (network.state.theta, *network.state.slots)]
        wrong: dict[str, tuple[Callable[[], Any], str]] = {
            "NaN in X": (lambda: network.fit(backend.asarray(hole, "float32"), y), "X holds NaN"),
            "X of another width": (lambda: network.fit(x[:, :2], y), "expected 6 columns in X"),
            "fewer targets": (lambda: network.fit(x, y[:-1]), "X and y must have the same number of rows"),
            "an unknown class": (lambda: network.fit(x, y + 9), "takes class numbers from 0 to 3"),
        }
        if backend.xp is not NUMPY.xp:
            wrong["arrays of two libraries"] = (lambda: network.fit(x, CLASSES), "convert one of them")
            constant = _program(backend, lambda a: a + X[0, 0:1].astype(np.float32), np.ones(3, dtype=np.float32))
            wrong["a constant of another library"] = (lambda: prepared(constant, backend), "convert it first")
        if not supports(backend, "float64"):
            wrong["a missing dtype"] = (lambda: backend.asarray(X, "float64"), "float64")
        with contextlib.suppress(BackendError):
            if type(get_backend(backend.name)) is type(backend):
                wrong["a missing device"] = (lambda: get_backend(f"{backend.name}:no_such_device"), "device")
        for what, (call, says) in wrong.items():
            _raises(backend, what, call, says)
        run = guard.compile(backend, _program(backend, lambda a: a * 2.0, np.ones(3, dtype=np.float32)))
        _raises(backend, "an argument too many", lambda: run(x[0, :3], x[0, :3]), "")
        usable = backend.to_numpy(run(x[0, :3])[0]).shape == (3,)
        require(usable, f"{backend}: a compiled function is unusable after an error")
        _unchanged(backend, (network.state.theta, *network.state.slots), state, "errors have changed the network")


def _raises(backend: Backend, what: str, call: Callable[[], Any], says: str) -> None:
    try:
        call()
    except Exception as error:
        expected = isinstance(error, (TypeError, ValueError, RuntimeError)) and says in str(error)
        require(expected, f"{backend}: {what} raises {type(error).__name__}: {error}; expected a message with {says!r}")
    else:
        raise AssertionError(f"{backend}: {what} raises no error")


# All checks

CHECKS: dict[str, Callable[[Backend], None]] = {
    **{f"operations {dtype}": partial(check_operations, dtype=dtype) for dtype in DTYPES},
    **{f"random programs {dtype}": partial(check_random_programs, dtype=dtype) for dtype in FLOATS},
    **{f"one step {dtype}": partial(check_steps, dtype=dtype, steps=1) for dtype in FLOATS},
    **{f"twenty steps {dtype}": partial(check_steps, dtype=dtype, steps=20) for dtype in FLOATS},
    "seeds": check_seeds,
    "results": check_results,
    "no transfers": check_no_transfers,
    "errors": check_errors,
}
"""All checks by name."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one of the `CHECKS`: "passed", "failed" or "skipped", and why it failed or was skipped."""

    check: str
    outcome: str
    reason: str = ""


def conform(backend: Any) -> list[CheckResult]:
    """Run every check on a backend, or on what `get_backend` takes.

    Examples
    --------
    >>> from portablenn.testing import conform
    >>> {checked.outcome for checked in conform("numpy")} == {"passed", "skipped"}
    True
    """
    chosen = get_backend(backend)
    return [checked(name, partial(check, chosen)) for name, check in CHECKS.items()]


def checked(name: str, check: Callable[[], Any]) -> CheckResult:
    """Run a check, and return its result."""
    try:
        check()
    except CheckSkipped as reason:
        return CheckResult(name, "skipped", str(reason))
    except Exception as error:  # a plug-in may raise anything
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return CheckResult(name, "failed", f"{kind}{error}")
    return CheckResult(name, "passed")
