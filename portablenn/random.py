"""Random numbers that are the same everywhere: a counter-based generator in 32-bit integer operations.

The generator is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy
as 1, 2, 3"): a function of a key and a counter, without a state. A key is made of the seed, the purpose and the layer;
the counter is the step (or epoch) and the number of the element. Nothing here depends on NumPy's own generators.

What runs on the network's device (`bits`, `keep_mask`) is int32 arithmetic that wraps around, and so bit-identical in every
library. What runs once, on the host (`uniform`, `normal`, `permutations`), is NumPy in float64, of operations that IEEE
754 rounds correctly, so that it is bit-identical with every version of NumPy on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .program.ir import Array
from .runtime.arrays import array_namespace, device_of

WEIGHTS, ORDER, MASKS, SPLIT, BOOTSTRAP = 1, 2, 3, 4, 5
"""The purposes of keys; streams of different purposes are independent."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY, _WORD = 0x1BD11BDA, 0xFFFFFFFF
_AT_ONCE = 1 << 15
"""Counters whose words are computed at a time, so that intermediate arrays stay in the cache."""


def threefry2x32(key: Array, counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the blocks of Threefry-2x32: two int32 arrays of the counters' shape, together 64 random bits for each counter.

    Parameters
    ----------
    key
        int32, shape (2,); or (…, 2), whose other axes broadcast with those of the counters.
    counter
        Two int32 arrays, of one dimension or more, that broadcast together.

    Examples
    --------
    >>> zero = np.zeros(1, dtype=np.int32)
    >>> [hex(int(word[0]) & 0xFFFFFFFF) for word in threefry2x32(np.zeros(2, dtype=np.int32), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    xp = array_namespace(key)
    first, second = key[..., 0:1], key[..., 1:2]
    schedule = (first, second, xp.bitwise_xor(xp.bitwise_xor(first, second), _PARITY))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for block in range(5):
        for bits in _ROTATIONS[block % 2]:
            x = x + y
            y = xp.bitwise_xor(_rotated(xp, y, bits), x)
        x = x + schedule[(block + 1) % 3]
        y = y + (schedule[(block + 2) % 3] + (block + 1))
    return x, y


def _rotated(xp: Any, word: Array, bits: int) -> Array:
    """Rotate to the left; int32 shifts right keep the sign, so the bits that come in are masked."""
    low = xp.bitwise_and(xp.bitwise_right_shift(word, 32 - bits), (1 << bits) - 1)
    return xp.bitwise_or(xp.bitwise_left_shift(word, bits), low)


def bits(key: Array, stream: Array, count: int) -> Array:
    """Return ``count`` words of 32 random bits for each stream, int32, shape (s, count).

    Parameters
    ----------
    key
        int32, shape (2,).
    stream
        int32, shape (s,): numbers of streams, such as steps or epochs.
    count
        Words per stream.

    Examples
    --------
    >>> bits(new_key(0, ORDER), np.zeros(1, dtype=np.int32), 3).shape
    (1, 3)
    """
    xp = array_namespace(key, stream)
    half = (count + 1) // 2
    block = xp.reshape(xp.arange(half, dtype=xp.int32, device=device_of(key)), (1, half))
    words = threefry2x32(key, (xp.reshape(stream, (-1, 1)), block))
    return xp.concat(words, axis=1)[:, :count]


def keep_mask(key: Array, stream: Array, shape: tuple[int, ...], rate: float) -> Array:
    """Return a bool mask of the elements that are kept when each is dropped with probability ``rate``.

    It is a comparison of integers, so the same in every library.

    Parameters
    ----------
    key
        int32, shape (2,).
    stream
        int32, shape (): the step.
    shape
        Of the mask.
    rate
        From 0 to 1, to the nearest 2⁻³².

    Examples
    --------
    >>> mask = keep_mask(new_key(0, MASKS), np.asarray(7, dtype=np.int32), (4, 3), 0.5)
    >>> mask.shape, str(mask.dtype)
    ((4, 3), 'bool')
    """
    xp = array_namespace(key, stream)
    words = bits(key, xp.reshape(stream, (1,)), math.prod(shape))
    dropped = round(rate * 2**32)
    if dropped >= 2**32:
        return xp.zeros(shape, dtype=xp.bool, device=device_of(key))
    return xp.reshape(words >= dropped - 2**31, shape)


@dataclass(frozen=True)
class Stream:
    """Random numbers of a layer during training: its key, and the step as the number of the stream."""

    key: Array
    step: Array

    def keep_mask(self, shape: tuple[int, ...], rate: float) -> Array:
        """Return a bool mask of ``shape`` that is False with probability ``rate``; see `keep_mask`."""
        return keep_mask(self.key, self.step, shape, rate)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return numbers in [0, 1) of ``shape``, multiples of 2⁻²⁴, the same in every library."""
        xp = array_namespace(self.key, self.step)
        words = bits(self.key, xp.reshape(self.step, (1,)), math.prod(shape))
        whole = xp.bitwise_and(xp.bitwise_right_shift(words, 8), (1 << 24) - 1)
        return xp.reshape(xp.astype(whole, dtype) * 2.0**-24, shape)


# On the host


def new_key(seed: int, purpose: int, index: int = 0) -> np.ndarray:
    """Return the key, int32, shape (2,), of a purpose (and, for example, a layer) for a seed from 0 to 2⁶⁴ - 1.

    Examples
    --------
    >>> new_key(0, WEIGHTS).shape
    (2,)
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an integer from 0 to 2**64 - 1, got {seed!r}")
    return _key(int(seed), purpose, index).copy()


@lru_cache(maxsize=1 << 14)
def _key(seed: int, purpose: int, index: int) -> np.ndarray:
    words = np.asarray([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32).view(np.int32)
    return fold_in(words, purpose, index)


def fold_in(key: np.ndarray, number: int, index: int = 0) -> np.ndarray:
    """Return a new key made of ``key`` and one or two integers; int32, shape (2,).

    Examples
    --------
    >>> fold_in(new_key(0, WEIGHTS), 1).shape
    (2,)
    """
    first, second = (int(word) & _WORD for word in key)
    return np.asarray(_block(first, second, number & _WORD, index & _WORD), dtype=np.uint32).view(np.int32)


def _block(first: int, second: int, x: int, y: int) -> tuple[int, int]:
    """Return what `threefry2x32` does for one key and counter, as integers from 0 to 2³² - 1, in a tenth of the time."""
    schedule = first, second, first ^ second ^ _PARITY
    x, y = (x + first) & _WORD, (y + second) & _WORD
    for block in range(5):
        for bits in _ROTATIONS[block % 2]:
            x = (x + y) & _WORD
            y = ((y << bits | y >> (32 - bits)) & _WORD) ^ x
        x = (x + schedule[(block + 1) % 3]) & _WORD
        y = (y + schedule[(block + 2) % 3] + block + 1) & _WORD
    return x, y


def uniform(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return float64 numbers in (0, 1), odd multiples of 2⁻⁵⁴: never 0, never 1.

    Examples
    --------
    >>> uniform(new_key(0, WEIGHTS), (2, 3)).shape
    (2, 3)
    """
    count = math.prod(shape)
    high, low = threefry2x32(key, (np.zeros(1, dtype=np.int32), np.arange(count, dtype=np.int32)))
    whole = (high.view(np.uint32) >> 5).astype(np.float64) * 2.0**26 + (low.view(np.uint32) >> 6).astype(np.float64)
    return ((whole + 0.5) * 2.0**-53).reshape(shape)


def normal(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return float64 numbers of the standard normal distribution: `normal_quantile` of `uniform`.

    Examples
    --------
    >>> normal(new_key(0, WEIGHTS), (2, 3)).shape
    (2, 3)
    """
    return normal_quantile(uniform(key, shape))


_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
_NEAR = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """Return the value below which a standard normal variable is with probability ``p``, in (0, 1).

    Wichura (1988), algorithm AS 241 (PPND16), relative error 1e-16: quotients of polynomials and, in the tails, of the
    square root of a logarithm, which is computed here, because libraries' logarithms differ in the last bit.

    Examples
    --------
    >>> normal_quantile(np.asarray([0.5, 0.975])).round(6).tolist()
    [0.0, 1.959964]
    """
    p = np.asarray(p, dtype=np.float64)
    q = p - 0.5
    central = q * _ratio(_CENTRE, 0.180625 - q * q)
    r = np.sqrt(-_log(np.where(q < 0.0, p, 1.0 - p)))
    tail = np.where(r <= 5.0, _ratio(_NEAR, r - 1.6), _ratio(_FAR, r - 5.0))
    return np.where(np.abs(q) <= 0.425, central, np.where(q < 0.0, -tail, tail))


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    return _polynomial(polynomials[0], x) / _polynomial(polynomials[1], x)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    value = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


def _log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm by its series 2 Σ s²ᵏ⁺¹ / (2k + 1), s = (m - 1) / (m + 1), of the mantissa m."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(small, 2.0 * mantissa, mantissa), np.where(small, exponent - 1, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(tuple(2.0 / (2 * k + 1) for k in range(11, -1, -1)), s * s)
    return exponent * 0.6931471805599453 + s * series


def permutations(key: np.ndarray, first: int, epochs: int, rows: int) -> np.ndarray:
    """Return the order of the rows in each epoch, int64, shape (epochs, rows); for keys (members, 2) of each member.

    It is the row numbers sorted by random words, ties by row number. Each epoch has its own stream, so that none depends on
    those before it.

    Examples
    --------
    >>> sorted(permutations(new_key(0, ORDER), 3, 1, 5)[0].tolist())
    [0, 1, 2, 3, 4]
    """
    members, half = key.shape[:-1], (rows + 1) // 2
    packed = np.empty((*members, epochs, rows), dtype=np.int64)
    key = key[:, None, :] if members else key
    streams = np.arange(first, first + epochs, dtype=np.int32)[:, None]
    some = max(1, _AT_ONCE // max(1, epochs * math.prod(members)))
    for start in range(0, half, some):  # the words of `bits`, without holding them all
        words = threefry2x32(key, (streams, np.arange(start, min(start + some, half), dtype=np.int32)[None, :]))
        for head, word in zip((start, start + half), words, strict=True):
            place = packed[..., head : head + word.shape[-1]]
            np.multiply(word[..., : place.shape[-1]], 1 << 32, out=place, dtype=np.int64)
            place |= np.arange(head, head + place.shape[-1], dtype=np.int64)
    packed.sort(axis=-1)
    packed &= 0xFFFFFFFF
    return packed


def draws(key: np.ndarray, first: int, epochs: int, count: int, rows: int) -> np.ndarray:
    """Return ``count`` row numbers for each epoch, drawn with replacement; int64, shape (epochs, count).

    Examples
    --------
    >>> int(draws(new_key(0, ORDER), 0, 1, 100, 7).max()) < 7
    True
    """
    words = bits(key, np.arange(first, first + epochs, dtype=np.int32), count)
    return ((words.view(np.uint32).astype(np.uint64) * np.uint64(rows)) >> np.uint64(32)).astype(np.int64)
