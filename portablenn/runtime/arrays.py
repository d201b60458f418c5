"""Arrays of any library: their namespace, their device, and copies to the host."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import is_writeable_array

from ..program.einsum import einsum as contract
from ..program.ir import Array, ArrayType, dtype_name
from ..program.tracer import Tracer

__all__ = [
    "array_namespace",
    "array_type",
    "device_of",
    "einsum",
    "is_array",
    "is_writeable_array",
    "stop_gradient",
    "to_numpy",
]


def is_array(value: Any) -> bool:
    """Return whether ``value`` is an array of a library that follows the standard, or a tracer."""
    if type(value) is np.ndarray:  # the usual case, at a fifth of the price
        return True
    return isinstance(value, Tracer) or bool(array_api_compat.is_array_api_obj(value))


def array_namespace(*arrays: Array) -> Any:
    """Return the Array API namespace of these arrays, or tracers; Python scalars and None are ignored.

    It has all functions of the standard: array-api-compat adds those that a library lacks.

    Raises
    ------
    TypeError
        If the arrays belong to different libraries, or none of them is an array.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> xp = pnn.array_namespace(np.asarray([1.0, 2.0]))
    >>> float(xp.sum(xp.asarray([1.0, 2.0])))
    3.0
    """
    tracers = [a for a in arrays if isinstance(a, Tracer)]
    if tracers:
        return max(tracers, key=lambda a: a.trace.level).trace.namespace
    found = [a for a in arrays if is_array(a)]
    if not found:
        kinds = ", ".join(type(a).__name__ for a in arrays) or "nothing"
        raise TypeError(f"expected at least one array, got {kinds}: convert with numpy.asarray or your library's own")
    namespaces = {id(xp): xp for xp in map(array_api_compat.array_namespace, found)}
    if len(namespaces) > 1:
        libraries = sorted({type(a).__module__.partition(".")[0] for a in found})
        raise TypeError(
            f"arrays of different libraries in one call: {' and '.join(libraries)}. Convert them to one library, for example "
            "with portablenn.get_backend(name).asarray(x)"
        )
    return next(iter(namespaces.values()))


def array_type(array: Array) -> ArrayType:
    """Return shape and dtype of an array."""
    return ArrayType(tuple(int(n) for n in array.shape), dtype_name(array.dtype))


def device_of(array: Array) -> Any:
    """Return the device of ``array``, as its library represents it; None if it has none (a tracer of JAX)."""
    if isinstance(array, Tracer):
        return array.device
    try:
        return array_api_compat.device(array)
    except AttributeError:
        return None


def to_numpy(array: Array) -> np.ndarray:
    """Return ``array`` as a NumPy array on the host; without a copy where the library allows it."""
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, (Tracer, np.generic)) or not is_array(array):
        return np.asarray(array)
    reasons = []
    for bring in (_by_device, np.from_dlpack, np.asarray):
        try:
            return bring(array)
        except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:
            reasons.append(str(error))  # not the error, which would keep this frame, and all above, with their arrays
    raise TypeError(
        f"cannot bring an array of {type(array).__module__} on {device_of(array)} to the host: {reasons[0]}"
    )


def _by_device(array: Array) -> np.ndarray:
    detached = array.detach() if hasattr(array, "detach") else array
    return np.asarray(array_api_compat.to_device(detached, "cpu"))


def einsum(subscripts: str, *arrays: Array) -> Array:
    """Sum products of arrays of any library over the axes that letters name, by Einstein's convention.

    Parameters
    ----------
    subscripts
        As for `numpy.einsum`: letters for the axes of each array, separated by commas, then "->" and the axes of the result;
        "..." stands for all other axes.
    arrays
        Two by two, from the left, they are contracted by matrix products.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> pnn.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 1))).tolist()
    [[3.0], [3.0]]
    """
    return contract(array_namespace(*arrays), subscripts, *arrays)


def stop_gradient(array: Array) -> Array:
    """Return ``array`` as a constant: no gradient passes through it.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> float(pnn.grad(lambda x: x * pnn.stop_gradient(x))(np.asarray(3.0)))
    3.0
    """
    return array.trace.namespace.stop_gradient(array) if isinstance(array, Tracer) else array
