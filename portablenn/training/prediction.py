"""Prediction: a compiled method of a network's model for rows of any number, and for a fixed number of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data import validation
from ..data.chunks import slices
from ..data.sources import slice_rows
from ..nn import layers as own_layers
from ..nn.model import Model, State
from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of, is_array
from ..runtime.backend import Backend, NumpyBackend
from ..runtime.numpy.silence import silently
from ..transforms.compile import compile_for, read_by
from ..transforms.tree import tree_flatten

if TYPE_CHECKING:
    from .network import Network

ROWS = 8192
"""Number of rows that are predicted at once."""

PROGRAMS = 64
"""Number of programs that a network keeps at hand."""


def padded(rows: int) -> int:
    """Return the number of rows to which ``rows`` are padded: at most a quarter more, so that few programs serve all.

    Examples
    --------
    >>> [padded(n) for n in (1, 8, 9, 100, 5000, 8192)]
    [1, 8, 10, 112, 5120, 8192]
    """
    unit = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // unit) * unit


class Programs:
    """Compiled methods of a network's model, looked up by shape: the program cache takes longer than a small program."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._known: dict[Any, tuple[Model, Any, Callable[..., Any]]] = {}

    def find(self, network: Network, method: str, x: Array) -> Any:
        """Return ``run(theta, statistics, x)``: what ``method`` returns for such rows, and the sum of their squares."""
        if network.backend is not self._backend:  # another library's dtypes cannot be compared with this one's
            self._backend, self._known = network.backend, {}
        key = method, x.shape, x.dtype
        known, model = self._known.get(key), network.model
        if known is not None and known[0] is model and known[1][0] == read_by(model)[0]:
            return known[2]
        run = _compiled(network, method, network.state.theta, x)
        if len(self._known) >= PROGRAMS:
            self._known.clear()
        self._known[key] = model, read_by(model), run
        return run


def _compiled(network: Network, method: str, parameters: Any, x: Array) -> Any:
    """Compile what `Programs.find` returns, for parameters as `Model.forward` takes them; it takes leaves of trees."""
    model = network.model

    def checked(theta: Any, statistics: Array, x: Array) -> tuple[Array, Array]:
        xp = array_namespace(x)
        x = xp.astype(x, getattr(xp, model.dtype))
        return getattr(model, method)(theta, statistics, x), xp.sum(x * x)

    checked.__name__ = checked.__qualname__ = f"predict_{method}"  # another program than that of the method itself
    run: Any = compile_for(network.backend, checked, model, parameters, network.state.statistics, x)
    return run.flat


def predict(network: Network, method: str, X: Any) -> Array:
    """Return what a method of the network's model, such as ``labels``, returns for all rows of X, on the backend."""
    backend, x = network.backend, validation.check_columns(X, network.inputs)
    x = backend.asarray(x) if is_array(x) else x  # a source is read part by part
    results, squares = [], []
    for rows in slices(x.shape[0], ROWS):
        part = x if x.shape[0] <= ROWS and is_array(x) else backend.asarray(slice_rows(x, rows))
        result, square = _predict_part(network, method, part)
        results.append(result)
        squares.append(square)
    if not all(map(math.isfinite, squares)):
        validation.check_inputs(X, network.inputs, network.dtype)  # a square may overflow where no number does
    return results[0] if len(results) == 1 else backend.xp.concat(results, axis=0)


def _predict_part(network: Network, method: str, x: Array) -> tuple[Array, Array]:
    rows, theta, statistics = x.shape[0], network.state.theta, network.state.statistics
    x = with_padding(network.model, x)
    run = network.programs.find(network, method, x)
    if isinstance(network.backend, NumpyBackend):
        result, square = silently(run, theta, statistics, x)
    else:
        with np.errstate(all="ignore"):
            result, square = run(theta, statistics, x)
    return (result if x.shape[0] == rows else result[:rows, ...]), square


def with_padding(model: Model, x: Array) -> Array:
    """Append rows of zeros up to one of a few numbers, unless rows may depend on each other."""
    rows, size = x.shape[0], padded(x.shape[0])
    if size == rows or not computes_rows_apart(model):
        return x
    xp = array_namespace(x)
    return xp.concat([x, xp.zeros((size - rows, x.shape[1]), dtype=x.dtype, device=device_of(x))], axis=0)


def computes_rows_apart(model: Model) -> bool:
    """Return whether no row depends on others: true of our own layers, not known of a user's."""
    return all(
        type(layer).__module__ == own_layers.__name__ and not callable(getattr(layer, "activation", None))
        for _, layer in model.layers
    )


class _Bound(NamedTuple):
    """A compiled method of a network with its current parameters, and what it is the right one for."""

    run: Callable[..., Any]
    arrays: list[Array]  # all that it takes besides X: views of the network's vectors
    state: State
    model: Model
    read: Any  # by the functions of users, and the objects whose ids are in it
    backend: Backend
    labels: tuple[int, int]
    multilabel: bool
    dtype: Any


class Predictor:
    """`Network.predict` for a fixed number of rows; see `Network.predictor`."""

    def __init__(self, network: Network, rows: int) -> None:
        self._network, self._shape = network, (rows, network.inputs)
        self._bound: _Bound | None = None

    def __call__(self, X: Any) -> Array:
        """Return the predictions for X, (rows, inputs)."""
        network = self._network
        if type(X) is not np.ndarray:
            self._check_shape(np.shape(X))
            return network.predict(X)
        if X.shape != self._shape:
            self._check_shape(X.shape)
        bound = self._bound  # read once: other threads may replace it
        if not (
            bound is not None
            and bound.dtype is X.dtype
            and bound.state is network.state
            and bound.model is network.model
            and bound.read[0] == read_by(network.model)[0]
            and bound.labels is network.labels
            and bound.multilabel is network.multilabel
            and bound.backend is network.backend
        ):
            if not isinstance(network.backend, NumpyBackend) or X.dtype.kind not in "fiub":
                self._bound = None
                return network.predict(X)
            bound = self._bound = self._bind(X)
        result, square = silently(bound.run, *bound.arrays, X)
        return result if math.isfinite(square) else network.predict(X)

    def __reduce__(self) -> Any:
        return Predictor, (self._network, self._shape[0])  # without what is compiled

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            raise ValueError(f"expected X of shape {self._shape}, got {shape}: predict takes any number of rows")

    def _bind(self, X: np.ndarray) -> _Bound:
        """Split the vector of parameters beforehand, which takes a good part of the time of a small prediction."""
        network = self._network
        run = _compiled(network, network.prediction, network.parameters, X)
        read = read_by(network.model)
        facts = network.state, network.model, read, network.backend, network.labels, network.multilabel, X.dtype
        arrays = tree_flatten((network.parameters, network.state.statistics))[0]
        return _Bound(run, arrays, *facts)
