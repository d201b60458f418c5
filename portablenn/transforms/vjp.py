"""`vjp`, and how functions are differentiated: they run on values, and what they did is recorded for going back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..program.autodiff import NotDifferentiableError
from ..program.ir import Array
from ..program.recording import RecordedTracer, recording
from ..program.trace import function_name
from ..program.value_trace import ValueTracer
from ..runtime.arrays import array_type, is_array
from .compile import NUMBERS, check_function, surroundings
from .pullback import pull_back
from .tree import LEAF, tree_flatten, tree_unflatten

__all__ = ["Recorded", "vjp"]


def vjp(fun: Callable[..., Any], *args: Any, has_aux: bool = False) -> Any:
    """Return the value of a function, and a function that pulls a cotangent back to its arguments.

    Parameters
    ----------
    fun
        A function of arrays, or nested dicts, lists and tuples of arrays, in plain Array API code or with NumPy's functions.
        It runs on values, once.
    args
        Its arguments; real floating arrays or Python floats, and trees of these.
    has_aux
        Whether ``fun`` returns (result, rest); the rest is then returned unchanged.

    Returns
    -------
    value
        What ``fun`` returns.
    pullback
        Takes a cotangent, of the structure, shapes and dtypes of ``value``; returns the tuple of the arguments' cotangents.
    rest
        Only with ``has_aux``.

    Raises
    ------
    NotDifferentiableError
        If an argument or the result holds anything but real floating arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> value, pullback = pnn.vjp(np.sin, np.asarray([0.0, np.pi]))
    >>> pullback(np.asarray([1.0, 2.0]))
    (array([ 1., -2.]),)
    """
    recorded = Recorded(fun, args, {}, range(len(args)), has_aux)
    structure = recorded.structure

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        leaves, given = tree_flatten(cotangent)
        if given != structure:
            raise TypeError(
                f"a cotangent has the structure of what {recorded.name} returned: expected {structure}, got {given}"
            )
        return recorded.pull([recorded.cotangent(i, leaf) for i, leaf in enumerate(leaves)])

    return (recorded.value, pullback, recorded.rest) if has_aux else (recorded.value, pullback)


class Recorded:
    """A function that was run on values: what it returned, and the operations that depend on its arguments.

    ``value`` is the tree that it returned, of the structure ``structure``, ``rest`` what came with it if ``has_aux``.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        argnums: Sequence[int],
        has_aux: bool = False,
    ) -> None:
        check_function(fun)
        self.name = function_name(fun)
        args = list(args)
        for n in argnums:
            if not -len(args) <= n < len(args):
                raise TypeError(f"argnums={n} requires more positional arguments, got {len(args)}")
        chosen = [n % len(args) for n in argnums]
        flat = [tree_flatten(a) for a in (*args, dict(kwargs))]
        arrays = [leaf for leaves, _ in flat for leaf in leaves if is_array(leaf)]
        self.backend, xp, device = surroundings(arrays)
        self.structures = [flat[n][1] for n in chosen]
        with self.backend.context(), recording(xp, device, self.backend.functions) as self.trace:
            for n in dict.fromkeys(chosen):
                leaves = [self._differentiated(leaf, n, xp, device) for leaf in flat[n][0]]
                flat[n] = leaves, flat[n][1]
            self.by = [leaf for n in chosen for leaf in flat[n][0]]
            trees = [
                tree_unflatten(structure, [self.trace.lift(a) if is_array(a) else a for a in leaves])
                for leaves, structure in flat
            ]
            result = fun(*trees[:-1], **trees[-1])
            self.rest: Any = None
            if has_aux:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise NotDifferentiableError(f"{self.name} must return (scalar, rest) with has_aux=True")
                result, rest = result
                leaves, structure = tree_flatten(rest)
                self.rest = tree_unflatten(structure, [self._given_back(leaf) for leaf in leaves])
            leaves, self.structure = tree_flatten(result)
            self.results = [self._result(leaf) for leaf in leaves]
        self.value = tree_unflatten(self.structure, [self._given_back(r) for r in self.results])

    def _differentiated(self, leaf: Any, argnum: int, xp: Any, device: Any) -> RecordedTracer:
        if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
            leaf = xp.asarray(leaf, dtype=xp.float64 if isinstance(leaf, float) else xp.complex128, device=device)
        if not is_array(leaf):
            kind = type(leaf).__name__
            fix = f"write {leaf}.0" if type(leaf) is int else "leave it out of argnums"
            raise NotDifferentiableError(
                f"argument {argnum} holds {leaf!r}, {'an' if kind[0] in 'aeiou' else 'a'} {kind}: gradients are by arrays and "
                f"Python floats; {fix}"
            )
        type_ = array_type(leaf)
        if not type_.dtype.is_floating:
            raise NotDifferentiableError(
                f"argument {argnum} of {self.name} is {type_}: gradients are by arrays of a floating dtype. "
                "Convert it with xp.astype before the call, or leave it out of argnums."
            )
        return self.trace.differentiated(leaf)

    def _result(self, leaf: Any) -> RecordedTracer:
        if not (is_array(leaf) or isinstance(leaf, NUMBERS)):
            raise NotDifferentiableError(
                f"expected an array or a Python scalar from {self.name}, got {type(leaf).__name__}: {leaf!r}"
            )
        result: RecordedTracer = self.trace.lift(leaf)  # type: ignore[assignment]
        if self.trace.read_at and not result.varies:
            raise NotDifferentiableError(
                f"what {self.name} returned does not depend on its arguments, and it took the value of an array by "
                f"{self.trace.read_at}\nCompute with the array itself."
            )
        return result

    def check_scalar(self) -> None:
        """Raise NotDifferentiableError unless the function returned one real scalar."""
        if self.structure != LEAF:
            raise NotDifferentiableError(
                f"{self.name} must return one scalar array; for (scalar, rest) use value_and_grad(..., has_aux=True)"
            )
        type_ = self.results[0].variable.type
        if type_.shape != () or type_.dtype.kind != "real floating":
            raise NotDifferentiableError(
                f"only a real scalar has a gradient: {self.name} returned {type_}. Reduce it with xp.sum or xp.mean, "
                "convert it with xp.astype."
            )

    def _given_back(self, leaf: Any) -> Any:
        value = leaf.value if isinstance(leaf, ValueTracer) and leaf.trace is self.trace else leaf
        return np.asarray(value) if isinstance(value, np.generic) else value

    def cotangent(self, position: int, given: Any) -> Array:
        """Return the cotangent of a result as an array of its type."""
        type_ = self.results[position].variable.type
        if not is_array(given):
            xp = self.trace.xp
            given = xp.asarray(given, dtype=getattr(xp, type_.dtype))
        if array_type(given) != type_:
            raise TypeError(f"a cotangent has the type of its result: expected {type_}, got {array_type(given)}")
        return given

    def pull(self, cotangents: Sequence[Array | None]) -> tuple[Any, ...]:
        """Return the arguments' cotangents, a tree each, given those of the results; None stands for ones."""
        self.trace.check_unchanged()
        seeds = [(r, g) for r, g in zip(self.results, cotangents, strict=True) if r.varies]
        with self.backend.context():
            leaves = iter(pull_back(self.trace, self.backend, seeds, self.by, self.name))
        return tuple([tree_unflatten(structure, leaves) for structure in self.structures])
