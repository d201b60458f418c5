"""Weights in safetensors files, named and laid out as PyTorch or Keras have them.

Requires safetensors (the extra "files"). A file is read strictly: every array must have its place in the network, and every
place its array, of its shape, before any is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic, safetensors_file
from ..files.safetensors_file import FileFormatError
from ..nn.layers import BatchNorm, Dense
from ..runtime.arrays import to_numpy


@dataclass(frozen=True)
class NamingConvention:
    """How a library names its arrays, and lays them out.

    Attributes
    ----------
    names
        Of each kind of array.
    separator
        Between a layer's name and an array's.
    turned
        Whether a kernel is (units, inputs).
    kinds
        The names of dense layers and batch norms, counted for each; None where a layer's name is its place.
    metadata
        What the library's own files say of themselves.
    """

    names: dict[str, str]
    separator: str
    turned: bool
    kinds: tuple[str, str] | None
    metadata: str


OURS = ("kernel", "bias", "scale", "shift", "mean", "variance")
TORCHS = ("weight", "bias", "weight", "bias", "running_mean", "running_var")
KERASS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

CONVENTIONS = {
    "torch": NamingConvention(dict(zip(OURS, TORCHS)), ".", True, None, "pt"),
    "keras": NamingConvention(dict(zip(OURS, KERASS)), "/", False, ("dense", "batch_normalization"), "keras"),
}
PASSED_OVER = {"num_batches_tracked"}
"""Of PyTorch's batch norms: it counts batches, which nothing here depends on."""

CODES = {"F64": "float64", "F32": "float32", "F16": "float16"}


def save_weights(network: Any, path: str | Path, layout: str = "torch") -> None:
    """Write parameters and statistics for another library.

    Parameters
    ----------
    network
        Of dense layers, batch norms, and what has no parameters.
    path
        The file.
    layout
        "torch": "0.weight", (units, inputs), "0.bias", … as a ``torch.nn.Sequential`` names them that has an activation's
        module after each Linear that has one. "keras": "dense/kernel", (inputs, units), "dense_1/bias",
        "batch_normalization/gamma", ….

    Raises
    ------
    ValueError
        For another layout, or layers that have no counterpart.

    Examples
    --------
    >>> import tempfile
    >>> import portablenn as pnn
    >>> path, net = Path(tempfile.mkdtemp()) / "net.safetensors", pnn.mlp([2, 3, 1])
    >>> save_weights(net, path, "keras")
    >>> other = pnn.mlp([2, 3, 1], seed=1)
    >>> load_weights(other, path)
    >>> bool((other.forward([[1.0, 2.0]]) == net.forward([[1.0, 2.0]])).all())
    True
    """
    if layout not in CONVENTIONS:
        raise ValueError(f"layout is one of {', '.join(map(repr, CONVENTIONS))}, found {layout!r}")
    theirs = CONVENTIONS[layout]
    safetensors_file.need_safetensors()
    from safetensors.numpy import save

    arrays, known = {}, network.parameters | network.statistics
    for prefix, name, pieces in _places(network, theirs):
        for piece in pieces:
            value = to_numpy(known[f"{name}.{piece}"])
            turned = value.T if theirs.turned and value.ndim == 2 else value
            arrays[f"{prefix}{theirs.separator}{theirs.names[piece]}"] = np.ascontiguousarray(turned)
    atomic.write(path, save(arrays, metadata={"format": theirs.metadata}))


def _places(network: Any, convention: NamingConvention) -> Iterator[tuple[str, str, list[str]]]:
    """For each layer with arrays: its name in a file, its own name, and the arrays' names here."""
    place, counts = 0, Counter[str]()
    for name, layer in network.model.layers:
        pieces = [n.rpartition(".")[2] for n in _names(network) if n.rpartition(".")[0] == name]
        if pieces and not isinstance(layer, (Dense, BatchNorm)):
            raise ValueError(f"{name} is {type(layer).__name__}, which has no counterpart in other libraries")
        if convention.kinds is None:
            prefix = f"{place}"
            place += 2 if isinstance(layer, Dense) and layer.activation not in (None, "identity") else 1
        else:
            kind = convention.kinds[isinstance(layer, BatchNorm)]
            prefix = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += bool(pieces)
        if pieces:
            yield prefix, name, pieces


def _names(network: Any) -> tuple[str, ...]:
    return (*network.model.parameters.shapes, *network.model.statistics.shapes)


def load_weights(network: Any, path: str | Path) -> None:
    """Read parameters and statistics from a safetensors file of PyTorch's or Keras's names, layer by layer in their order.

    Parameters
    ----------
    network
        Has the layers that the file is of; only the weights are taken.
    path
        The file. Which library it is of is seen by the names: PyTorch's end in ".weight", Keras's in "/kernel". What stands
        before does not matter, so long as layers come in their order when numbers in names are counted as such.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is no such file, or its arrays are not those of the network; then nothing is changed.

    Examples
    --------
    >>> import tempfile
    >>> import portablenn as pnn
    >>> path, net, other = Path(tempfile.mkdtemp()) / "net.safetensors", pnn.mlp([2, 1]), pnn.mlp([2, 1], seed=1)
    >>> save_weights(net, path)
    >>> load_weights(other, path)
    >>> bool((other.forward([[1.0, 2.0]]) == net.forward([[1.0, 2.0]])).all())
    True
    """
    with safetensors_file.refused(path, "file of weights"), safetensors_file.opened(path) as (file, types):
        wanted = _matched(network, types)
        arrays = {own: file.get_tensor(name).T if turned else file.get_tensor(name) for own, name, turned in wanted}
        bad = next((own for own, array in arrays.items() if not np.isfinite(array).all()), None)
        if bad is not None:
            raise FileFormatError(f"its array for {bad} holds NaN or infinity")
    network.set_parameters(arrays)


def _matched(network: Any, found: safetensors_file.Types) -> list[tuple[str, str, bool]]:
    """Return the network's name and the file's name of each array, and whether it is to be transposed."""
    keras = any(re.search(r"(^|/)(kernel|gamma)$", name) for name in found)
    convention = CONVENTIONS["keras" if keras else "torch"]
    groups: dict[str, dict[str, str]] = {}
    for name in sorted(found, key=_natural):
        prefix, _, last = name.rpartition(convention.separator)
        if last not in PASSED_OVER:
            groups.setdefault(prefix, {})[last] = name
    expected = list(_places(network, convention))
    by_kind: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for group in groups.values():
        by_kind["gamma" in group or "running_mean" in group].append(group)
    wanted: dict[str, tuple[str, bool]] = {}
    norms = [pieces for _, _, pieces in expected if "mean" in pieces]
    if len(by_kind[True]) != len(norms) or len(by_kind[False]) != len(expected) - len(norms):
        raise FileFormatError(
            f"it has {len(by_kind[False])} dense layers and {len(by_kind[True])} batch norms, the network "
            f"{len(expected) - len(norms)} and {len(norms)}"
        )
    taken = {True: iter(by_kind[True]), False: iter(by_kind[False])}
    for _, own, pieces in expected:
        group = next(taken["mean" in pieces])
        theirs = {convention.names[piece]: piece for piece in pieces}
        if set(group) != set(theirs):
            raise FileFormatError(f"its layer for {own} has {sorted(group)}, expected {sorted(theirs)}")
        for last, name in group.items():
            wanted[name] = f"{own}.{theirs[last]}", convention.turned and theirs[last] == "kernel"
    shapes = network.model.parameters.shapes | network.model.statistics.shapes
    for name, (place, turned) in wanted.items():
        kind, shape = found[name]
        expected_shape = shapes[place][::-1] if turned else shapes[place]
        if kind not in CODES or shape != expected_shape:
            raise FileFormatError(f"{name} is {kind}{list(shape)}, expected numbers of shape {list(expected_shape)}")
    return [(place, name, turned) for name, (place, turned) in wanted.items()]


def _natural(name: str) -> list[Any]:
    """A key by which "layers.10" comes after "layers.9", and "dense_1" after "dense"."""
    return [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", re.sub(r"(?<=[a-z])(?=[./])", "_0", name))
    ]
