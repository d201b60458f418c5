"""Einstein summation, by matrix products."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

from .linalg import diagonal
from .tracer import NotTraceableError, users_line


def einsum(xp: Any, subscripts: Any, *operands: Any, optimize: Any = False) -> Any:
    """Contract operands two by two, from the left, each pair by one matrix product."""
    if not isinstance(subscripts, str):
        raise NotTraceableError(
            f"einsum takes a string of letters first, got a {type(subscripts).__name__}, at {users_line()}"
        )
    arrays = [xp.asarray(a) for a in operands]
    ranks = [a.ndim for a in arrays]
    given, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = given.split(",")
    if len(inputs) != len(arrays):
        raise ValueError(f"einsum {subscripts!r} is for {len(inputs)} arrays, got {len(arrays)}, at {users_line()}")
    if "..." in given:
        inputs, others = _without_dots(inputs, ranks)
        output = output.replace("...", others) if arrow else others + _letters_that_occur_once(given.replace("...", ""))
    elif not arrow:
        output = _letters_that_occur_once(given)
    if [len(letters) for letters in inputs] != ranks:
        raise ValueError(f"einsum {subscripts!r} does not fit arrays of {ranks} dimensions, at {users_line()}")
    parts = [_simple_part(xp, a, letters) for a, letters in zip(arrays, inputs, strict=True)]
    array, letters = _summed(xp, *parts[0], output + "".join(inputs[1:]))
    for n, (other, others) in enumerate(parts[1:], 2):
        kept = output + "".join(inputs[n:])
        other, others = _summed(xp, other, others, kept + letters)
        array, letters = _summed(xp, *_contracted(xp, array, letters, other, others, kept), kept)
    return xp.permute_dims(array, tuple(letters.index(c) for c in output))


def _letters_that_occur_once(given: str) -> str:
    return "".join(sorted(c for c in set(given) - {","} if given.count(c) == 1))


def _without_dots(inputs: Sequence[str], ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return subscripts with letters in place of dots, and those letters; they are the last axes that have no letter yet."""
    counts = [
        rank - len(letters.replace("...", "")) for letters, rank in zip(inputs, ranks, strict=True) if "..." in letters
    ]
    free = [c for c in string.ascii_letters if not any(c in letters for letters in inputs)]
    others = "".join(free[: max(counts)])
    missing = iter(counts)
    return [
        letters.replace("...", others[len(others) - next(missing) :]) if "..." in letters else letters
        for letters in inputs
    ], others


def _simple_part(xp: Any, a: Any, letters: str) -> tuple[Any, str]:
    """Return an operand with its diagonal for a letter that occurs twice."""
    for c in letters:
        while letters.count(c) > 1:
            first, second = letters.index(c), letters.rindex(c)
            a = diagonal(xp, a, 0, first, second)
            letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + c
    return a, letters


def _summed(xp: Any, a: Any, letters: str, kept: str) -> tuple[Any, str]:
    """Sum over the letters that nothing else has."""
    axes = tuple(i for i, c in enumerate(letters) if c not in kept)
    return (xp.sum(a, axis=axes) if axes else a), "".join(c for c in letters if c in kept)


def _contracted(xp: Any, a: Any, of_a: str, b: Any, of_b: str, kept: str) -> tuple[Any, str]:
    """Multiply two operands, and sum over the letters that both have and nothing else."""
    batch = "".join(c for c in of_a if c in of_b and c in kept)
    inner = "".join(c for c in of_a if c in of_b and c not in kept)
    rows, columns = ("".join(c for c in own if c not in other) for own, other in ((of_a, of_b), (of_b, of_a)))
    sizes = dict(zip(of_a + of_b, (*a.shape, *b.shape), strict=True))
    left, right = (
        xp.reshape(
            xp.permute_dims(x, tuple(map(letters.index, "".join(groups)))),
            tuple(math.prod(sizes[c] for c in group) for group in groups),
        )
        for x, letters, groups in ((a, of_a, (batch, rows, inner)), (b, of_b, (batch, inner, columns)))
    )
    letters = batch + rows + columns
    return xp.reshape(xp.matmul(left, right), tuple(sizes[c] for c in letters)), letters
