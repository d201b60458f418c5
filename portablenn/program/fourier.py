"""Fourier transforms of tracers, as the extension ``fft`` of the standard has them, and their derivatives.

Each is made of one-dimensional ones along an axis, of which four are operations: fft, ifft, rfft and irfft.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .ir import ArrayType, DType
from .type_rules import complex_dtype, normalized_axis, real_dtype

NORMS = ("backward", "ortho", "forward")


class FourierNamespace:
    """Functions that return tracers, with the arguments of the standard's."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def _transform(self, name: str, x: Any, n: int | None, axis: int, norm: str | None) -> Any:
        xp, norm = self._xp, norm or "backward"
        if norm not in NORMS:
            raise ValueError(f"fft.{name}: norm is one of {', '.join(NORMS)}, got {norm!r}")
        x = xp._lift(x)
        axis = normalized_axis(axis, x.ndim)
        if not x.dtype.is_floating:
            x = xp.astype(x, xp.float64)
        is_complex = x.dtype.kind == "complex floating"
        if name == "rfft" and is_complex:
            raise TypeError(f"fft.rfft is for real arrays, got {x.dtype}")
        if name != "rfft" and not is_complex:
            x = xp.astype(x, complex_dtype(x))
        length = 2 * (x.shape[axis] - 1) if name == "irfft" and n is None else x.shape[axis] if n is None else n
        if length < 1:
            raise ValueError(f"fft.{name}: expected at least one number along the axis, got a length of {length}")
        read = length // 2 + 1 if name == "irfft" else length
        x = _resized(xp, x, read, axis)
        shape, dtype, parameters = list(x.shape), x.dtype, {"axis": axis, "norm": norm}
        if name == "rfft":
            shape[axis], dtype = length // 2 + 1, complex_dtype(x)
        if name == "irfft":
            shape[axis], dtype = length, DType(real_dtype(x))
            parameters["n"] = length
        return xp._emit(f"fft.{name}", (x,), ArrayType(tuple(shape), dtype), **parameters)

    def fft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self._transform("fft", x, n, axis, norm)

    def ifft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self._transform("ifft", x, n, axis, norm)

    def rfft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self._transform("rfft", x, n, axis, norm)

    def irfft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self._transform("irfft", x, n, axis, norm)

    def hfft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self.irfft(self._xp.conj(x), n=n, axis=axis, norm=_opposite(norm))

    def ihfft(self, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        return self._xp.conj(self.rfft(x, n=n, axis=axis, norm=_opposite(norm)))

    def fftn(self, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
        return self._along("fft", x, s, axes, norm)

    def ifftn(self, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
        return self._along("ifft", x, s, axes, norm)

    def rfftn(self, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
        axes, lengths = _axes(x, s, axes)
        x = self.rfft(x, n=lengths[-1], axis=axes[-1], norm=norm)
        return self._along("fft", x, lengths[:-1], axes[:-1], norm)

    def irfftn(self, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
        axes, lengths = _axes(x, s, axes)
        x = self._along("ifft", x, lengths[:-1], axes[:-1], norm)
        return self.irfft(x, n=lengths[-1], axis=axes[-1], norm=norm)

    def _along(self, name: str, x: Any, s: Any, axes: Any, norm: str) -> Any:
        axes, lengths = _axes(x, s, axes)
        for axis, n in zip(reversed(axes), reversed(lengths), strict=True):
            x = self._transform(name, x, n, axis, norm)
        return x

    def fftfreq(self, n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
        return self._xp.asarray(np.fft.fftfreq(n, d).tolist(), dtype=dtype)

    def rfftfreq(self, n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
        return self._xp.asarray(np.fft.rfftfreq(n, d).tolist(), dtype=dtype)

    def fftshift(self, x: Any, /, *, axes: Any = None) -> Any:
        axes, _ = _axes(x, None, axes)
        return self._xp.roll(x, tuple(x.shape[a] // 2 for a in axes), axis=axes)

    def ifftshift(self, x: Any, /, *, axes: Any = None) -> Any:
        axes, _ = _axes(x, None, axes)
        return self._xp.roll(x, tuple(-(x.shape[a] // 2) for a in axes), axis=axes)


def _axes(x: Any, s: Any, axes: Any) -> tuple[tuple[int, ...], Sequence[int | None]]:
    """Return axes and lengths; by default the last axes, as many as there are lengths, or all."""
    if axes is None:
        axes = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    axes = tuple(normalized_axis(a, x.ndim) for a in (axes if not isinstance(axes, int) else (axes,)))
    lengths = [None] * len(axes) if s is None else list(s)
    if len(lengths) != len(axes):
        raise ValueError(f"fft: s and axes have {len(lengths)} and {len(axes)} entries")
    return axes, lengths


def _resized(xp: Any, x: Any, length: int, axis: int) -> Any:
    """Return the first ``length`` numbers along an axis, with zeros behind where there are fewer."""
    if length < x.shape[axis]:
        return x[(*(slice(None),) * axis, slice(0, length))]
    if length == x.shape[axis]:
        return x
    missing = tuple(length - n if a == axis else n for a, n in enumerate(x.shape))
    return xp.concat([x, xp.zeros(missing, dtype=x.dtype)], axis=axis)


def _opposite(norm: str | None) -> str:
    return {"backward": "forward", "forward": "backward"}.get(norm or "backward", str(norm))


# Derivatives. The matrix of a transform is symmetric, so cotangents go through the same transform


def _rfft(xp: Any, g: Any, y: Any, x: Any, *, axis: int, norm: str) -> tuple[Any]:
    return (xp.real(xp.fft.fft(g, n=x.shape[axis], axis=axis, norm=norm)),)


def _irfft(xp: Any, g: Any, y: Any, x: Any, *, axis: int, norm: str, n: int) -> tuple[Any]:
    """Numbers but the first, and the last of an even length, count twice: they stand for their conjugates, too."""
    count = x.shape[axis]
    twice = [1.0 if k == 0 or 2 * k == n else 2.0 for k in range(count)]
    weights = xp.reshape(xp.asarray(twice, dtype=g.dtype), tuple(count if a == axis else 1 for a in range(x.ndim)))
    return (weights * xp.conj(xp.fft.rfft(g, axis=axis, norm=_opposite(norm))),)


RULES: dict[str, Callable[..., Sequence[Any]]] = {
    "fft.fft": lambda xp, g, y, x, axis, norm: (xp.fft.fft(g, axis=axis, norm=norm),),
    "fft.ifft": lambda xp, g, y, x, axis, norm: (xp.fft.ifft(g, axis=axis, norm=norm),),
    "fft.rfft": _rfft,
    "fft.irfft": _irfft,
}
