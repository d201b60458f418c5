"""A backend: one array library on one device, and how it executes Programs.

NumPy is built in. Any other namespace of the standard is a backend through the interpreter; a plug-in (see
docs/backends.md) is a subclass that executes Programs in a faster way, never with another meaning.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from ..program.interpret import EXTENSIONS, Functions, Interpreter
from ..program.ir import Array, Program, dtype_name
from .arrays import array_namespace, device_of, is_array, is_writeable_array, to_numpy

Compiled = Callable[..., tuple[Array, ...]]

CPU = 1
"""DLPack's number for CPU devices."""


class BackendError(RuntimeError):
    """A backend is not available, or cannot do what was requested."""


class UnsupportedError(Exception):
    """A backend has no faster way than the interpreter to execute a program; the message says why."""


class OutOfMemoryError(MemoryError):
    """A device has too little memory for training; the message says what takes how much, and what helps."""


class Interpreted:
    """A program, or a loop of steps, that the interpreter runs; ``how`` gives the reason if the backend has a faster way."""

    def __init__(self, run: Compiled, reason: str = "") -> None:
        self.run = run
        self.how = f"interpreter: {reason}" if reason else "interpreter"

    def __call__(self, *arguments: Any) -> tuple[Array, ...]:
        return self.run(*arguments)


class Backend:
    """Any Array API namespace, on one device, through the interpreter.

    Parameters
    ----------
    name
        Name of the backend.
    xp
        The namespace, array-api-compat's where it has one.
    device
        The library's own device object, or its name; None for the default device.

    Attributes
    ----------
    guarded
        Whether the first execution of what `compile` and `compile_loop` return is compared with the interpreter: see
        `runtime.guard`. An attribute of the class, like the following.
    accelerated
        Whether the device is an accelerator, which sorts faster than the host does and copies the result.
    pads_orders
        Whether compiling takes long enough that orders of rows of all lengths are padded to one.
    members_elements
        Number of elements of a value of several networks that are trained in one program, so that they stay in a core's cache;
        None for all networks at once, as far as memory allows, where the library divides a program among processors itself.
    precisions
        In which precisions, of `portablenn.program.precision.PRECISIONS`, the device multiplies matrices itself, by the
        operation "rounded_matmul"; a backend without them never sees it.
    install
        How to install the library where it is missing; "" for ``pip install`` of the plug-in's distribution.
    library
        The library whose arrays a plug-in works on, if the plug-in has another name.
    functions
        The library's own functions for the operations in `portablenn.program.interpret.EXTENSIONS`, which the Array API lacks.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.get_backend(np.zeros(3))
    <backend numpy>
    """

    guarded = True
    accelerated = False
    pads_orders = False
    members_elements: int | None = None
    precisions: Collection[str] = ()
    install = ""
    library = ""
    functions: Functions = MappingProxyType({})

    def __init_subclass__(cls, **parameters: Any) -> None:
        super().__init_subclass__(**parameters)
        own = vars(cls).get("functions")
        unknown = sorted(set(own) - set(EXTENSIONS)) if isinstance(own, Mapping) else []
        if unknown:
            raise TypeError(f"functions of {cls.__name__} has {unknown[0]!r}, which is none of {', '.join(EXTENSIONS)}")

    def __init__(self, name: str, xp: Any, device: Any = None) -> None:
        self.name = name
        self.xp = xp
        self.device = device_of(xp.zeros((), device=device))  # "cpu" becomes the library's own object

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and (self.xp, self.device) == (other.xp, other.device)

    def __hash__(self) -> int:
        return hash((type(self), id(self.xp), str(self.device)))

    @property
    def full_name(self) -> str:
        """The name that `get_backend` takes: "torch:cuda:0"."""
        return f"{self.name}:{self.device_name}"

    @property
    def device_name(self) -> str:
        """The device's name: "cpu", "cuda:0"."""
        quoted = re.search("'(.*)'", str(self.device))
        return quoted[1] if quoted else str(self.device)

    def __repr__(self) -> str:
        return f"<backend {self}>"

    def __str__(self) -> str:
        return f"{self.name} on {self.device_name}"

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Return ``x``, an array of any library, as an array of this backend; a copy only if necessary.

        Arrays move between libraries on GPUs of the same vendor by DLPack, otherwise through the host. There NumPy's memory
        is shared if this library's arrays are writeable, as its own ``asarray`` does, and copied if they are immutable.

        Raises BackendError if the library does not keep the requested dtype (JAX without 64-bit numbers).
        """
        wanted = None if dtype is None else getattr(self.xp, dtype)
        copy: bool | None = None
        if not (is_array(x) and array_namespace(x) is self.xp):
            imported = self._imported(x) if is_array(x) else None
            if imported is None:
                x = np.asarray(to_numpy(x), order="C") if is_array(x) else np.asarray(x, dtype=dtype)
                x = x if x.flags.writeable else x.copy()  # some libraries share it with a warning
                if not x.dtype.isnative:  # only NumPy supports other byte orders
                    x = x.astype(x.dtype.newbyteorder("="))
            else:
                x = imported
            copy = None if is_writeable_array(self._probe) else True
        if copy and isinstance(x, np.ndarray):
            array = self._copied_from_host(x, wanted)
        else:
            array = self.xp.asarray(x, dtype=wanted, device=self.device, copy=copy)
        if dtype is not None and dtype_name(array.dtype) != dtype:
            raise BackendError(
                f"{self}: expected dtype {dtype}, got {dtype_name(array.dtype)}. Choose "
                f"dtype={str(dtype_name(array.dtype))!r}, or enable 64-bit numbers in that library"
            )
        return array

    def _copied_from_host(self, x: np.ndarray, dtype: Any) -> Array:
        """Copy a NumPy array for a library whose arrays are immutable."""
        return self.xp.asarray(x, dtype=dtype, device=self.device, copy=True)

    @cached_property
    def _probe(self) -> Array:
        """An array of one element: CuPy does not say where an empty one is."""
        return self.xp.zeros((1,), device=self.device)

    def _imported(self, x: Array) -> Array | None:
        """Import ``x`` by DLPack if it is on a GPU of the same vendor; return None if it has to go through the host."""
        # some libraries abort the process for negative strides; on the CPU going through NumPy costs the same
        if any(stride < 0 for stride in getattr(x, "strides", None) or ()):
            return None
        try:
            kind = x.__dlpack_device__()[0]
            if kind == CPU or kind != self._probe.__dlpack_device__()[0]:
                return None
            return self.xp.from_dlpack(x)
        except (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return None

    def own(self, x: Any, dtype: str | None = None) -> Array:
        """Return a copy of ``x``, an array of any library, on this backend; later writes to ``x`` do not change it."""
        return self.xp.asarray(self.asarray(x, dtype), device=self.device, copy=True)

    def send(self, x: Any) -> Callable[[], Array]:
        """Start to copy ``x`` to this backend, and return a function that waits for the copy and returns it.

        A plug-in may copy on a separate stream while other work is running.
        """
        array = self.asarray(x)
        return lambda: array

    def receive(self, array: Any) -> Callable[[], np.ndarray]:
        """Start to copy ``array`` to the host, and return a function that waits for the copy and returns it.

        A plug-in may copy while later work is running.
        """
        on_host = self.to_numpy(array)
        return lambda: on_host

    def indices(self, rows: np.ndarray) -> Array:
        """Return row numbers of any shape on this backend, in the integer dtype that the library indexes with."""
        return self.asarray(rows, dtype_name(self.xp.arange(1).dtype))

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return an array of this backend as a NumPy array."""
        return to_numpy(array)

    def compile(self, program: Program) -> Compiled:
        """Return a callable that takes one array per input and returns one per output; the interpreter if not overridden.

        Its attribute ``how`` names the way in which it executes the program. Raises UnsupportedError if there is no faster way
        than the interpreter, which then runs the program.
        """
        return self.interpreter(program)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """Return a callable ``loop(count, *carry, *data)`` that runs a step ``count`` times; otherwise as `compile`.

        The program takes the number of the iteration (int32, from 0), then ``carried`` arrays, then data that stay the same; it
        returns the new carried arrays, then what is collected of each step, (count, …). It is like `jax.lax.scan`.
        """
        step = self.compile(program)
        if isinstance(step, Interpreted):
            return self.interpreter_loop(program, carried)
        return partial(self._loop, step, program, carried)

    def interpreter(self, program: Program, reason: str = "") -> Interpreted:
        """Return the program through the interpreter: each operation is one call of the library's own function."""
        step = self._step(program)

        def run(*arrays: Array) -> tuple[Array, ...]:
            with self.context():
                return step(*arrays)

        return Interpreted(run, reason)

    def interpreter_loop(self, program: Program, carried: int, reason: str = "") -> Interpreted:
        """Return a loop of steps, see `compile_loop`, through the interpreter."""
        return Interpreted(partial(self._loop, self._step(program), program, carried), reason)

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context manager in which the library's functions run for this backend: device, precision, no gradients."""
        return contextlib.nullcontext()

    def _step(self, program: Program) -> Compiled:
        return Interpreter(self.xp, program, self.device, self.functions)

    def _loop(self, step: Compiled, program: Program, carried: int, count: int, *arrays: Array) -> tuple[Array, ...]:
        with self.context():
            xp = self.xp
            carry, data = arrays[:carried], arrays[carried:]
            iteration = xp.zeros((), dtype=xp.int32, device=self.device)
            collected: list[tuple[Array, ...]] = []
            for _ in range(count):
                results = step(iteration, *carry, *data)
                carry = results[:carried]
                collected.append(results[carried:])
                iteration = iteration + 1
            if collected:
                return (*carry, *(xp.stack(rows) for rows in zip(*collected, strict=True)))
            types = [v.type for v in program.outputs[carried:]]
            empty = (xp.zeros((0, *t.shape), dtype=getattr(xp, t.dtype), device=self.device) for t in types)
            return (*carry, *empty)

    def synchronize(self) -> None:
        """Wait until all work on this device is done."""

    def devices(self) -> list[str]:
        """Return the names of the library's devices on this machine; the one in use, unless a plug-in knows more."""
        return [self.device_name]

    def memory(self) -> tuple[int, int] | None:
        """Return the free and the total bytes of this device's memory; None if unknown."""
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether ``error`` says that this device ran out of memory."""
        return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__

    def free(self) -> None:
        """Return cached memory to the device."""

    @classmethod
    def accelerator(cls) -> str | None:
        """Return the device that "auto" takes, if the library has one that is faster than the CPU."""
        return None


class NumpyBackend(Backend):
    """NumPy on the CPU, through the plan: memory allocated once, one generated function per program."""

    guarded = False
    members_elements = 1 << 17

    def __init__(self) -> None:
        self.name = "numpy"
        self.device = "cpu"

    def __str__(self) -> str:
        return self.name

    @cached_property
    def xp(self) -> Any:
        """NumPy's namespace of array-api-compat; imported at first use, as that takes as long as importing NumPy."""
        return importlib.import_module("array_api_compat.numpy")

    @cached_property
    def functions(self) -> Functions:  # type: ignore[override]
        """The operations that NumPy does faster than by the interpreter: `index_add`, by `numpy.add.at`."""
        return {"index_add": importlib.import_module("portablenn.runtime.numpy.index_add").index_add}

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        return np.asarray(to_numpy(x) if is_array(x) else x, dtype=dtype)

    def compile(self, program: Program) -> Compiled:
        from .numpy.plan import plan

        return plan(program)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        from .numpy.plan import plan_loop

        return plan_loop(program, carried)


NUMPY = NumpyBackend()
