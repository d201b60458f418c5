"""A backend: one array library on one device, and how it executes Programs.

Requires NumPy, which is built in. Any other namespace of the standard is a backend through the interpreter; a plug-in
(see backends/README.md) is a subclass that executes Programs in a faster way, never with another meaning.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from ..program.interpret import Functions, interpret
from ..program.ir import Array, Program, dtype_name
from .arrays import array_namespace, device_of, is_array, is_writeable_array, to_numpy

Compiled = Callable[..., tuple[Array, ...]]

CPU = 1
"""As DLPack numbers kinds of devices."""


class BackendError(RuntimeError):
    """A backend was asked for that cannot be had."""


class OutOfMemoryError(MemoryError):
    """A device has not the memory that a training takes; the message says what takes how much, and what helps."""


class Backend:
    """Any Array API namespace, on one device, through the interpreter.

    Parameters
    ----------
    name
        What users call it.
    xp
        The namespace; best that of array-api-compat.
    device
        As the library names it; None for its default.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.get_backend(np.zeros(3))
    <backend numpy>

    Attributes
    ----------
    install
        What to type where the library is missing, of the class; "" if the name of the distribution says it.
    library
        Whose arrays a plug-in works on, of the class, if they are not those of the library that it is named after.
    functions
        The library's own functions for operations that the Array API lacks; see `portablenn.program.interpret.EXTENSIONS`.
    """

    install = ""
    library = ""
    functions: Functions = MappingProxyType({})

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
        """What `get_backend` takes for it: "torch:cuda:0"."""
        return f"{self.name}:{self.device_name}"

    @property
    def device_name(self) -> str:
        """The device as users write it: "cpu", "cuda:0"."""
        quoted = re.search("'(.*)'", str(self.device))
        return quoted[1] if quoted else str(self.device)

    def __repr__(self) -> str:
        return f"<backend {self}>"

    def __str__(self) -> str:
        return f"{self.name} on {self.device_name}"

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, here; a copy if it has to be.

        Between two libraries on GPUs of one make it goes by DLPack, else through the host, where NumPy's memory is shared
        if this library's arrays can be written to, as its own ``asarray`` does, and copied if they never change. See `own`.

        Raises
        ------
        BackendError
            If the library changes the dtype that was asked for (JAX without 64-bit numbers).
        """
        wanted = None if dtype is None else getattr(self.xp, dtype)
        copy: bool | None = None
        if not (is_array(x) and array_namespace(x) is self.xp):
            imported = self._imported(x) if is_array(x) else None
            if imported is None:
                x = np.asarray(to_numpy(x), order="C") if is_array(x) else np.asarray(x, dtype=dtype)
                x = x if x.flags.writeable else x.copy()  # some libraries would share it, and warn
                x = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))  # and none but NumPy reads those
            else:
                x = imported
            copy = None if is_writeable_array(self._empty) else True
        if copy and isinstance(x, np.ndarray):
            array = self._copied_from_host(x, wanted)
        else:
            array = self.xp.asarray(x, dtype=wanted, device=self.device, copy=copy)
        if dtype is not None and dtype_name(array.dtype) != dtype:
            raise BackendError(
                f"{self} made {dtype_name(array.dtype)} of {dtype}. Choose dtype={str(dtype_name(array.dtype))!r}, or "
                "allow 64-bit numbers in that library"
            )
        return array

    def _copied_from_host(self, x: np.ndarray, dtype: Any) -> Array:
        """A copy of NumPy's array, for a library whose arrays never change."""
        return self.xp.asarray(x, dtype=dtype, device=self.device, copy=True)

    @cached_property
    def _empty(self) -> Array:
        return self.xp.zeros((0,), device=self.device)

    def _imported(self, x: Array) -> Array | None:
        """``x`` by DLPack, if it lies on a GPU of this one's make; None where it has to go through the host.

        On the CPU NumPy does it as well. Some libraries abort the process for strides below zero.
        """
        if any(stride < 0 for stride in getattr(x, "strides", None) or ()):
            return None
        try:
            kind = x.__dlpack_device__()[0]
            if kind == CPU or kind != self._empty.__dlpack_device__()[0]:
                return None
            return self.xp.from_dlpack(x)
        except (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return None

    def own(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, here, in memory of its own: what is written to ``x`` later is not seen.

        Examples
        --------
        >>> import numpy as np
        >>> import portablenn as pnn
        >>> x = np.zeros(2)
        >>> mine = pnn.get_backend("numpy").own(x)
        >>> x += 1.0
        >>> mine.tolist()
        [0.0, 0.0]
        """
        return self.xp.asarray(self.asarray(x, dtype), device=self.device, copy=True)

    def send(self, x: Any) -> Callable[[], Array]:
        """Begin to bring ``x`` here, and return what hands it over when it is needed.

        A plug-in may copy on a stream of its own, beside what is being computed.

        Examples
        --------
        >>> import numpy as np
        >>> import portablenn as pnn
        >>> pnn.get_backend("numpy").send(np.zeros(2))().tolist()
        [0.0, 0.0]
        """
        array = self.asarray(x)
        return lambda: array

    def indices(self, rows: np.ndarray) -> Array:
        """Row numbers, of any shape, here, in the integer dtype that the library indexes by.

        Examples
        --------
        >>> import numpy as np
        >>> import portablenn as pnn
        >>> pnn.get_backend("numpy").indices(np.asarray([2, 0], dtype=np.int32)).dtype
        dtype('int64')
        """
        return self.asarray(rows, dtype_name(self.xp.arange(1).dtype))

    def to_numpy(self, array: Array) -> np.ndarray:
        """An array of this backend on the host."""
        return to_numpy(array)

    def compile(self, program: Program) -> Compiled:
        """A callable that takes one array an input and returns one an output."""
        return partial(interpret, self.xp, program, device=self.device, functions=self.functions)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """A callable ``loop(count, *carry, *data)`` that runs a step ``count`` times; see `runtime.numpy.plan.plan_loop`.

        Where there are several ways to do so, its attribute ``how`` says which it took, and why not a faster one that failed.
        """
        return partial(self._loop, self.compile(program), program, carried)

    def _loop(self, step: Compiled, program: Program, carried: int, count: int, *arrays: Array) -> tuple[Array, ...]:
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
        """Wait until everything asked for is done."""

    def devices(self) -> list[str]:
        """The names of the devices that the library has here; the one in use, unless a plug-in knows more."""
        return [self.device_name]

    def memory(self) -> tuple[int, int] | None:
        """Free bytes of this device, and all of them; None where nobody says."""
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` says that this device's memory does not suffice."""
        return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__

    @classmethod
    def accelerator(cls) -> str | None:
        """The name of the device that "auto" should take, if the library has one that is faster than the CPU."""
        return None


class NumpyBackend(Backend):
    """NumPy on the CPU, through the plan: memory allocated once, one generated function a program."""

    def __init__(self) -> None:
        self.name = "numpy"
        self.device = "cpu"

    def __str__(self) -> str:
        return self.name

    @cached_property
    def xp(self) -> Any:
        """NumPy's namespace of array-api-compat; imported at first use, for that costs as much as NumPy itself."""
        return importlib.import_module("array_api_compat.numpy")

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """``x``, of any library, as NumPy's."""
        return np.asarray(to_numpy(x) if is_array(x) else x, dtype=dtype)

    def compile(self, program: Program) -> Compiled:
        """See `runtime.numpy.plan.plan`."""
        from .numpy.plan import plan

        return plan(program)

    def compile_loop(self, program: Program, carried: int) -> Compiled:
        """See `runtime.numpy.plan.plan_loop`."""
        from .numpy.plan import plan_loop

        return plan_loop(program, carried)


NUMPY = NumpyBackend()
