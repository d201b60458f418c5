"""Guard the fast paths of backends: compare their first execution with the interpreter, and fall back to it where they fail.

Backends with ``guarded = False`` pay nothing here: NumPy's plan, and Numba's loops in it, are tested operation by operation
against the interpreter; JAX compiles the interpreter itself. GPU kernels, graphs and compilers of third parties depend on
drivers that were not tested, so they are compared where they run.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..program.ir import Array, Program, dtype_name
from .backend import Backend, Compiled, Interpreted, UnsupportedError

LIMITS = {"float16": 1e-1, "float32": 1e-2, "float64": 1e-6, "complex64": 1e-2, "complex128": 1e-6}
"""Largest deviation that is accepted, relative to the change of a carried array or to the norm of another result.

Integers and booleans have to be equal. A dtype that is missing here, such as bfloat16, has the limit of float16.
"""

LIMIT_OF_ROUNDED = 0.3
"""The same for programs with products of rounded numbers: hardware may round less, and in other ways."""

ROUNDINGS = 4
"""Multiple of the interpreter's own deviation, when the last digit of its inputs changes, that is accepted in addition."""

STEPS = 2
"""How many steps of a loop are compared: the second one shows whether the first left its results where it should."""

CHUNK = 1 << 20
"""Elements that are compared at once."""


class FastPathWarning(RuntimeWarning):
    """A fast path failed, or differs from the interpreter, which runs instead."""


def compile(backend: Backend, program: Program) -> Compiled:
    """Return a callable that takes one array per input and returns one per output; its ``how`` says in which way it runs.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> program = pnn.trace(lambda x: x + x, pnn.ArrayType((2,), "float64"))
    >>> run = compile(pnn.get_backend("numpy"), program)
    >>> run(np.asarray([1.0, 2.0]))[0].tolist(), run.how
    ([2.0, 4.0], 'plan')
    """
    return _guarded(backend, program, None) if backend.guarded else backend.compile(program)


def compile_loop(backend: Backend, program: Program, carried: int) -> Compiled:
    """Return a callable ``loop(count, *carry, *data)`` that runs a step ``count`` times: see `Backend.compile_loop`."""
    return _guarded(backend, program, carried) if backend.guarded else backend.compile_loop(program, carried)


def _guarded(backend: Backend, program: Program, carried: int | None) -> Compiled:
    guarded = Guarded(backend, program, carried)
    return guarded.fallback or guarded


class Guarded:
    """A program, or a loop of steps with ``carried`` arrays, on a backend's fast path while it agrees with the interpreter.

    ``how`` names the way in which it runs: the fast path's own ``how``, or "interpreter: reason". ``fallback`` is the
    interpreter, if it runs instead.
    """

    def __init__(self, backend: Backend, program: Program, carried: int | None) -> None:
        self.backend, self.program, self.carried, self.how = backend, program, carried, ""
        self.fallback: Interpreted | None = None
        rounds = any(operation.name == "rounded_matmul" for operation in program.operations)
        self._least_limit = LIMIT_OF_ROUNDED if rounds else 0.0
        self._fast: Compiled | None = None
        self._compared = False
        self._lock = threading.Lock()
        try:
            self._built()
        except Exception as error:
            if not backend.is_out_of_memory(error):  # else the first call tries again
                self._give_up(error)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that the fast path keeps, as far as it is known."""
        return int(getattr(self._fast, "nbytes", 0))

    def __call__(self, *arguments: Any) -> tuple[Array, ...]:
        if len(arguments) != len(self.program.inputs):  # the number of steps takes the place of the iteration's
            raise TypeError(f"{self.program.name}: expected {len(self.program.inputs)} arguments, got {len(arguments)}")
        if not self._compared and self.fallback is None:
            with self._lock:  # threads share programs
                if not self._compared and self.fallback is None:
                    return self._first(arguments)
        results = self._attempt(arguments)
        return self._interpreter()(*arguments) if results is None else results

    def _first(self, arguments: Sequence[Any]) -> tuple[Array, ...]:
        """Run the interpreter and the fast path, and return the results of the fast path if both agree.

        The interpreter runs first, because a fast path may write to its inputs. Of a loop it runs the first `STEPS` only; the
        fast path runs all, so that it allocates what later calls need, and then the first ones.
        """
        looped = self.carried is not None
        if looped and arguments[0] == 0:
            return self._interpreter()(*arguments)
        longer = looped and arguments[0] > STEPS
        some = (STEPS, *arguments[1:]) if longer else arguments
        expected = self._expected(some)
        results = self._attempt(arguments)
        if results is not None and expected is not None:
            found = self._attempt(some) if longer else results
            difference = "" if found is None else self._difference(some, found, expected)
            if difference:
                self._fall_back(f"{self.how} differs: {difference}")
            if difference or found is None:
                results = None
        if results is not None:
            self._compared = True
            if expected is None:
                self.how += ", not compared with the interpreter for lack of memory"
            return results
        return self._interpreter()(*arguments) if expected is None or longer else expected

    def _expected(self, arguments: Sequence[Any]) -> tuple[Array, ...] | None:
        """Return the interpreter's results; None if it runs out of memory, as the fast path may need less."""
        try:
            return self._interpreter()(*arguments)
        except Exception as error:
            if not self.backend.is_out_of_memory(error):
                raise
            self._release(error)
            return None

    def _attempt(self, arguments: Sequence[Any]) -> tuple[Array, ...] | None:
        """Return the fast path's results, at the second attempt if it ran out of memory; None if the interpreter has to run."""
        for last in (False, True):
            if self.fallback is not None:
                break
            try:
                with self.backend.context():
                    return self._built()(*arguments)
            except Exception as error:
                failure = error
                lacking = self.backend.is_out_of_memory(error)
                if lacking:
                    self._fast = None
                    self._release(error)
            if last or not lacking:
                self._give_up(failure)
        return None

    def _built(self) -> Compiled:
        """Return the fast path; compile it unless it is there."""
        fast = self._fast
        if fast is None:
            with self.backend.context():
                if self.carried is None:
                    fast = self.backend.compile(self.program)
                else:
                    fast = self.backend.compile_loop(self.program, self.carried)
            self.how = getattr(fast, "how", "") or "compiled"
            if isinstance(fast, Interpreted):
                self.fallback = fast
            self._fast = fast
        return fast

    def _interpreter(self, reason: str = "") -> Interpreted:
        if self.fallback is not None:
            return self.fallback
        if self.carried is None:
            return self.backend.interpreter(self.program, reason)
        return self.backend.interpreter_loop(self.program, self.carried, reason)

    def _release(self, error: Exception) -> None:
        """Free what a call that ran out of memory held, and what the backend keeps for later."""
        import traceback

        traceback.clear_frames(error.__traceback__)
        self.backend.free()

    def _give_up(self, error: Exception) -> None:
        message = str(error).partition("\n")[0]
        if isinstance(error, UnsupportedError):
            self._fall_back(message, quietly=True)
        else:
            self._fall_back(f"{self.how or 'the fast path'} failed ({type(error).__name__}: {message})")

    def _fall_back(self, reason: str, quietly: bool = False) -> None:
        if self.fallback is not None:  # another thread was faster
            return
        self.fallback, self._fast = self._interpreter(reason), None
        self.how = self.fallback.how
        if not quietly:
            message = f"{self.backend}: {self.program.name}: {reason}; the interpreter runs instead"
            warnings.warn(message, FastPathWarning, stacklevel=5)

    def _difference(self, inputs: Sequence[Any], found: Sequence[Array], expected: Sequence[Array]) -> str:
        """Return where and by how much the fast path's results differ from the interpreter's; "" if they do not.

        The difference of a carried array is measured relative to its change in the steps, because Adam's first step turns
        rounding errors of gradients into full steps. A
        result that is only rounding error (a gradient that cancels) deviates by its own size, so it is also accepted if the
        interpreter deviates as much when the last digit of its inputs changes.
        """
        if len(found) != len(expected):
            return f"{len(found)} results, expected {len(expected)}"
        carried = self.carried or 0
        doubtful = []
        for i, (mine, right) in enumerate(zip(found, expected, strict=True)):
            name = f"carried array {i}" if i < carried else f"result {i - carried}"
            types = [(dtype_name(a.dtype), tuple(a.shape)) for a in (mine, right)]
            if types[0] != types[1]:
                return "{} is {}{}, expected {}{}".format(name, *types[0], *types[1])
            start = inputs[1 + i] if i < carried else None
            deviation, accepted = self._deviation(mine, right, start)
            if not deviation <= accepted:
                if not np.isfinite(deviation) or types[0][0] not in LIMITS:
                    return f"{name} is not equal"
                doubtful.append((i, name, deviation, accepted))
        if doubtful:
            sensitivities = self._sensitivities(inputs, expected)
            for i, name, deviation, accepted in doubtful:
                if not deviation <= accepted + ROUNDINGS * sensitivities[i]:
                    return f"{name} deviates by {deviation:.1e}, more than {accepted:.1e}"
        return ""

    def _sensitivities(self, inputs: Sequence[Any], expected: Sequence[Array]) -> list[float]:
        """Return how far the interpreter's results move when the last digit of its inputs changes."""
        moved = [0.0] * len(expected)
        expected = self._expected(inputs) or expected  # again, for the fast path may have changed the inputs
        for digits in (1, -1, 2):
            with self.backend.context():
                varied = [_varied(x, digits) for x in inputs]
            for i, (other, right) in enumerate(zip(self._expected(varied) or (), expected, strict=False)):
                moved[i] = max(moved[i], self._deviation(other, right, None)[0])
        return moved

    def _deviation(self, found: Array, expected: Array, start: Array | None) -> tuple[float, float]:
        """Return the norm of the difference of two results, and its accepted maximum."""
        mine, right = (self.backend.to_numpy(a).reshape(-1) for a in (found, expected))
        dtype = dtype_name(expected.dtype)
        if right.dtype.kind in "biu":
            return float(np.count_nonzero(mine != right)), 0.0
        limit = max(LIMITS.get(dtype, 1e-1), self._least_limit)
        wide = np.complex128 if right.dtype.kind == "c" else np.float64
        eps = float(np.finfo(right.dtype).eps) if right.dtype.kind in "fc" else 2.0**-8
        was = np.broadcast_to(0, right.shape) if start is None else self.backend.to_numpy(start).reshape(-1)
        totals = np.zeros(3)
        with np.errstate(all="ignore"):
            for a, b, c in _chunks(wide, mine, right, was):
                same = (a == b) | (np.isnan(a) & np.isnan(b))
                finite = [np.where(np.isfinite(x), x, 0.0) for x in (b - c, b)]
                parts = (np.where(same, 0.0, a - b), *finite)
                totals = np.hypot(totals, [float(np.linalg.norm(part)) for part in parts])
        deviation, change, size = map(float, totals)
        return deviation, limit * change + ROUNDINGS * eps * size


def _chunks(dtype: Any, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield some elements of each array at a time, converted to a wider dtype."""
    for start in range(0, arrays[0].size, CHUNK):
        yield [np.asarray(a[start : start + CHUNK], dtype=dtype) for a in arrays]


def _varied(x: Any, digits: int) -> Any:
    """Return a floating-point array with an error of some units in the last place added; anything else unchanged."""
    dtype = dtype_name(x.dtype) if hasattr(x, "dtype") else ""
    return x * (1.0 + digits * float(np.finfo(dtype).eps)) if dtype in LIMITS else x
