"""Linear algebra of tracers, as the extension ``linalg`` of the standard has it, and its derivatives.

Decompositions that return several matrices are one operation each (`PACKED`), whose result holds them one below the other.

Derivatives: Giles (2008), "An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation"; Murray (2016), "Differentiation of the Cholesky decomposition"; Walter & Lehmann (2012), "Algorithmic
differentiation of linear algebra functions with application in optimum experimental design", for QR; Townsend (2016),
"Differentiating the singular value decomposition"; Golub & Pereyra (1973) for the pseudo-inverse.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

from .ir import ArrayType, DType
from .type_rules import normalized_axes, promoted, real_dtype

EighResult = namedtuple("EighResult", ["eigenvalues", "eigenvectors"])
QRResult = namedtuple("QRResult", ["Q", "R"])
SlogdetResult = namedtuple("SlogdetResult", ["sign", "logabsdet"])
SVDResult = namedtuple("SVDResult", ["U", "S", "Vh"])


class LinalgNamespace:
    """Functions that return tracers, with the arguments of the standard's."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        for name in ("matmul", "matrix_transpose", "tensordot", "vecdot"):
            setattr(self, name, getattr(xp, name))

    def _matrices(self, name: str, x: Any, square: bool = True) -> Any:
        x = self._xp._lift(x)
        if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
            what = "square matrices" if square else "matrices"
            raise ValueError(f"linalg.{name} is for {what}, got shape {x.shape}")
        if not x.dtype.is_floating:
            raise TypeError(f"linalg.{name} is for floating dtypes, got {x.dtype}: convert with xp.astype")
        return x

    def _same_shape(self, name: str, x: Any, **parameters: Any) -> Any:
        x = self._matrices(name, x)
        return self._xp._emit(f"linalg.{name}", (x,), x.variable.type, **parameters)

    def _hermitian(self, name: str, x: Any) -> Any:
        """Return the Hermitian part: libraries read one half of the matrix each, and not the same one."""
        x = self._matrices(name, x)
        return (x + self._xp.conj(self._xp.matrix_transpose(x))) * 0.5

    def packed(self, name: str, x: Any) -> Any:
        """Return one of the operations `PACKED`."""
        m, n = x.shape[-2:]
        matrix = {"eigh": (n + 1, n), "qr": (m + n, n), "svd": (m + 1 + n, min(m, n))}.get(name, ())
        dtype = DType(real_dtype(x)) if name == "slogdet_size" else x.dtype
        return self._xp._emit(name, (x,), ArrayType((*x.shape[:-2], *matrix), dtype))

    def inv(self, x: Any, /) -> Any:
        return self._same_shape("inv", x)

    def cholesky(self, x: Any, /, *, upper: bool = False) -> Any:
        lower = self._xp._emit("linalg.cholesky", (x := self._hermitian("cholesky", x),), x.variable.type)
        return self._xp.conj(self._xp.matrix_transpose(lower)) if upper else lower

    def det(self, x: Any, /) -> Any:
        x = self._matrices("det", x)
        return self._xp._emit("linalg.det", (x,), ArrayType(x.shape[:-2], x.dtype))

    def slogdet(self, x: Any, /) -> Any:
        x = self._matrices("slogdet", x)
        return SlogdetResult(self.packed("slogdet_sign", x), self.packed("slogdet_size", x))

    def solve(self, x1: Any, x2: Any, /) -> Any:
        xp = self._xp
        x1, x2 = self._matrices("solve", x1), xp._lift(x2)
        if x2.ndim == 1:
            return xp.squeeze(self.solve(x1, xp.expand_dims(x2, axis=-1)), axis=-1)
        if x1.shape[-1] != x2.shape[-2]:
            raise ValueError(f"linalg.solve: {x1.shape[-1]} equations and {x2.shape[-2]} right-hand sides")
        dtype = promoted("linalg.solve", (x1, x2))
        stack = xp.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        x1 = xp.broadcast_to(xp.astype(x1, dtype), (*stack, *x1.shape[-2:]))
        x2 = xp.broadcast_to(xp.astype(x2, dtype), (*stack, *x2.shape[-2:]))
        return xp._emit("linalg.solve", (x1, x2), x2.variable.type)

    def eigh(self, x: Any, /) -> Any:
        both = self.packed("eigh", self._hermitian("eigh", x))
        return EighResult(self._xp.real(both[..., 0, :]), both[..., 1:, :])

    def eigvalsh(self, x: Any, /) -> Any:
        return self.eigh(x).eigenvalues

    def qr(self, x: Any, /, *, mode: str = "reduced") -> Any:
        x = self._matrices("qr", x, square=False)
        rows, columns = x.shape[-2:]
        if mode != "reduced":
            raise ValueError(f"linalg.qr: only the reduced decomposition can be traced, got mode={mode!r}")
        if rows < columns:
            raise ValueError(
                f"linalg.qr: only matrices with at least as many rows as columns can be traced, got {x.shape}"
            )
        both = self.packed("qr", x)
        return QRResult(both[..., :rows, :], both[..., rows:, :])

    def svd(self, x: Any, /, *, full_matrices: bool = True) -> Any:
        x = self._matrices("svd", x, square=False)
        rows, columns = x.shape[-2:]
        if full_matrices and rows != columns:
            raise ValueError("linalg.svd: only the reduced decomposition can be traced, give full_matrices=False")
        all_three = self.packed("svd", x)
        vectors = self._xp.matrix_transpose(all_three[..., rows + 1 :, :])
        return SVDResult(all_three[..., :rows, :], self._xp.real(all_three[..., rows, :]), vectors)

    def svdvals(self, x: Any, /) -> Any:
        return self.svd(x, full_matrices=False).S

    def pinv(self, x: Any, /, *, rtol: Any = None) -> Any:
        x = self._matrices("pinv", x, square=False)
        shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
        parameters = {} if rtol is None else {"rtol": float(rtol)}
        return self._xp._emit("linalg.pinv", (x,), ArrayType(shape, x.dtype), **parameters)

    def matrix_rank(self, x: Any, /, *, rtol: Any = None) -> Any:
        x = self._matrices("matrix_rank", x, square=False)
        values = self.svdvals(self._xp.stop_gradient(x))
        rtol = max(x.shape[-2:]) * float(self._xp.finfo(x.dtype).eps) if rtol is None else rtol
        return self._xp.count_nonzero(values > self._xp.max(values, axis=-1, keepdims=True) * rtol, axis=-1)

    def matrix_power(self, x: Any, n: int, /) -> Any:
        x = self._matrices("matrix_power", x)
        if n < 0:
            return self.matrix_power(self.inv(x), -n)
        result = None
        while n:
            if n & 1:
                result = x if result is None else self._xp.matmul(result, x)
            n >>= 1
            x = self._xp.matmul(x, x) if n else x
        return self._xp.broadcast_to(self._xp.eye(x.shape[-1], dtype=x.dtype), x.shape) if result is None else result

    def matrix_norm(self, x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
        xp, x = self._xp, self._matrices("matrix_norm", x, square=False)
        if ord == "fro":
            return self.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
        if ord in (2, -2, "nuc"):
            reduce = {2: xp.max, -2: xp.min, "nuc": xp.sum}[ord]
            norm = reduce(self.svdvals(x), axis=-1)
        elif ord in (1, -1, math.inf, -math.inf):
            along = -2 if abs(ord) == 1 else -1
            sums = xp.sum(xp.abs(x), axis=along)
            norm = xp.max(sums, axis=-1) if ord > 0 else xp.min(sums, axis=-1)
        else:
            raise ValueError(f"linalg.matrix_norm: ord is 'fro', 'nuc', 1, 2, inf or their negatives, got {ord!r}")
        return xp.expand_dims(norm, axis=(-2, -1)) if keepdims else norm

    def vector_norm(self, x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
        xp, x = self._xp, self._xp._lift(x)
        axes = normalized_axes(axis, x.ndim)
        how = {"axis": axes, "keepdims": keepdims}
        size = xp.abs(x) if ord != 2 or x.dtype.kind == "complex floating" else x
        if ord == 2:
            return xp.sqrt(xp.sum(size * size, **how))
        if ord in (math.inf, -math.inf):
            return (xp.max if ord > 0 else xp.min)(size, **how)
        if ord == 0:
            return xp.astype(xp.count_nonzero(x, **how), real_dtype(x))
        return xp.sum(size, **how) if ord == 1 else xp.pow(xp.sum(xp.pow(size, ord), **how), 1.0 / ord)

    def outer(self, x1: Any, x2: Any, /) -> Any:
        return self._xp.multiply(self._xp.reshape(x1, (-1, 1)), self._xp.reshape(x2, (1, -1)))

    def diagonal(self, x: Any, /, *, offset: int = 0) -> Any:
        return diagonal(self._xp, x, offset, -2, -1)

    def trace(self, x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
        return self._xp.sum(self.diagonal(x, offset=offset), axis=-1, dtype=dtype)

    def cross(self, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
        xp = self._xp
        x1, x2 = (xp.moveaxis(x, axis, -1) for x in xp.broadcast_arrays(xp._lift(x1), xp._lift(x2)))
        if x1.shape[-1] != 3:
            raise ValueError(f"linalg.cross is for vectors of length 3, got {x1.shape[-1]}")
        first, second = ((1, 2, 0), (2, 0, 1))
        parts = [x1[..., i] * x2[..., j] - x1[..., j] * x2[..., i] for i, j in zip(first, second, strict=True)]
        return xp.moveaxis(xp.stack(parts, axis=-1), -1, axis)


def diagonal(xp: Any, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Return the diagonals of the matrices along two axes, as the last axis."""
    a = xp.moveaxis(xp.asarray(a), (axis1, axis2), (-2, -1))
    rows, columns = a.shape[-2:]
    first = max(0, -offset) * columns + max(0, offset)
    count = max(0, min(rows + min(0, offset), columns - max(0, offset)))
    flat = xp.reshape(a, (*a.shape[:-2], rows * columns))
    return flat[..., first : first + count * (columns + 1) : columns + 1] if count else flat[..., :0]


def _below(xp: Any, x: Any, *parts: Any) -> Any:
    return xp.concat([xp.astype(part, x.dtype) for part in parts], axis=-2)


def _eigh(xp: Any, x: Any) -> Any:
    values, vectors = xp.linalg.eigh(x)
    return _below(xp, x, values[..., None, :], vectors)


def _svd(xp: Any, x: Any) -> Any:
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    return _below(xp, x, u, s[..., None, :], xp.matrix_transpose(vh))


PACKED = {
    "eigh": _eigh,
    "qr": lambda xp, x: _below(xp, x, *xp.linalg.qr(x)),
    "svd": _svd,
    "slogdet_sign": lambda xp, x: xp.linalg.slogdet(x)[0],
    "slogdet_size": lambda xp, x: xp.linalg.slogdet(x)[1],
}
"""Operations that are decompositions: their matrices one below the other, or one of their results."""


# Derivatives


def _t(xp: Any, x: Any) -> Any:
    return xp.matrix_transpose(x)


def _column(xp: Any, x: Any) -> Any:
    """Return numbers as matrices of one element each."""
    return xp.expand_dims(x, axis=(-2, -1))


def _inv(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    return (-xp.matmul(xp.matmul(_t(xp, y), g), _t(xp, y)),)


def _solve(xp: Any, g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    by_b = xp.linalg.solve(_t(xp, a), g)
    return -xp.matmul(by_b, _t(xp, y)), by_b


def _det(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    return (_column(xp, g * y) * _t(xp, xp.linalg.inv(x)),)


def _slogdet_size(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    return (_column(xp, g) * _t(xp, xp.linalg.inv(x)),)


def _cholesky(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    """x̄ = L⁻ᵀ Φ(Lᵀ L̄) L⁻¹, Φ: the lower triangle with half of the diagonal; the Hermitian part of that."""
    inner = xp.tril(xp.matmul(_t(xp, y), g))
    half = xp.linalg.solve(_t(xp, y), inner - 0.5 * xp.tril(xp.triu(inner)))
    result = _t(xp, xp.linalg.solve(xp.conj(_t(xp, y)), _t(xp, half)))
    return (0.5 * (result + xp.conj(_t(xp, result))),)


def _inverse_differences(xp: Any, x: Any) -> Any:
    """Return 1 / (x_j - x_i), and 0 on the diagonal."""
    unit = xp.eye(x.shape[-1], dtype=x.dtype)
    return (1.0 - unit) / (xp.expand_dims(x, axis=-2) - xp.expand_dims(x, axis=-1) + unit)


def _eigh_rule(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    values, vectors = xp.real(y[..., 0, :]), y[..., 1:, :]
    turned, unit = xp.conj(vectors), xp.eye(x.shape[-1], dtype=x.dtype)
    inner = xp.matmul(_t(xp, vectors), g[..., 1:, :]) * xp.astype(_inverse_differences(xp, values), x.dtype)
    inner = inner + unit * g[..., 0:1, :]
    result = xp.matmul(xp.matmul(turned, inner), _t(xp, vectors))
    return (0.5 * (result + xp.conj(_t(xp, result))),)


def _qr_rule(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    rows = x.shape[-2]
    q, r, by_q, by_r = y[..., :rows, :], y[..., rows:, :], g[..., :rows, :], xp.triu(g[..., rows:, :])
    m = xp.matmul(r, _t(xp, by_r)) - xp.matmul(_t(xp, by_q), q)
    symmetric = xp.tril(m) + _t(xp, xp.tril(m, k=-1))
    return (_t(xp, xp.linalg.solve(r, _t(xp, by_q + xp.matmul(q, symmetric)))),)


def _svd_rule(xp: Any, g: Any, y: Any, x: Any) -> tuple[Any]:
    rows = x.shape[-2]
    u, s, v = y[..., :rows, :], y[..., rows : rows + 1, :], y[..., rows + 1 :, :]
    by_u, by_s, by_v = g[..., :rows, :], g[..., rows : rows + 1, :], g[..., rows + 1 :, :]
    f = _inverse_differences(xp, s[..., 0, :] ** 2)
    uu, vv = xp.matmul(_t(xp, u), by_u), xp.matmul(_t(xp, v), by_v)
    inner = f * (uu - _t(xp, uu)) * s + _t(xp, s) * (f * (vv - _t(xp, vv))) + xp.eye(s.shape[-1], dtype=x.dtype) * by_s
    result = xp.matmul(xp.matmul(u, inner), _t(xp, v))
    if rows > s.shape[-1]:
        result = result + xp.matmul((by_u - xp.matmul(u, uu)) / s, _t(xp, v))
    if x.shape[-1] > s.shape[-1]:
        result = result + xp.matmul(u, _t(xp, (by_v - xp.matmul(v, vv)) / s))
    return (result,)


def _pinv(xp: Any, g: Any, y: Any, x: Any, **_: Any) -> tuple[Any]:
    """dx⁺ = -x⁺ dx x⁺ + x⁺ x⁺ᵀ dxᵀ (1 - x x⁺) + (1 - x⁺ x) dxᵀ x⁺ᵀ x⁺, for real matrices of constant rank."""
    turned = _t(xp, y)
    direct = -xp.matmul(xp.matmul(turned, g), turned)
    right = xp.matmul(xp.matmul(_t(xp, g), y), turned)
    left = xp.matmul(xp.matmul(turned, y), _t(xp, g))
    right, left = right - xp.matmul(x, xp.matmul(y, right)), left - xp.matmul(xp.matmul(left, y), x)
    return (direct + right + left,)


RULES: dict[str, Callable[..., Sequence[Any]]] = {
    "linalg.inv": _inv, "linalg.solve": _solve, "linalg.det": _det, "linalg.cholesky": _cholesky, "linalg.pinv": _pinv,
    "slogdet_size": _slogdet_size, "eigh": _eigh_rule, "qr": _qr_rule, "svd": _svd_rule,
}  # fmt: skip

OF_REAL_MATRICES = frozenset({"linalg.pinv", "qr", "svd"})
"""Operations whose rule does not hold for complex numbers."""
