"""Weights in safetensors files with the names and layouts of PyTorch or Keras.

Requires safetensors (the extra "files"). A file is read strictly: its arrays must match those of the network one to one.
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
    """How a library names its arrays and lays them out.

    Attributes
    ----------
    names
        Name of each array, by ours.
    separator
        Between a layer's name and an array's.
    transposed
        Whether a kernel is (units, inputs).
    kinds
        The names of dense layers and batch norms, counted for each; None where a layer's name is its number.
    metadata
        The format in the metadata of the library's files.
    """

    names: dict[str, str]
    separator: str
    transposed: bool
    kinds: tuple[str, str] | None
    metadata: str


OURS = ("kernel", "bias", "scale", "shift", "mean", "variance")
TORCHS = ("weight", "bias", "weight", "bias", "running_mean", "running_var")
KERASS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

CONVENTIONS = {
    "torch": NamingConvention(dict(zip(OURS, TORCHS)), ".", True, None, "pt"),
    "keras": NamingConvention(dict(zip(OURS, KERASS)), "/", False, ("dense", "batch_normalization"), "keras"),
}
IGNORED = {"num_batches_tracked"}
"""PyTorch's batch norms count batches; nothing here depends on that."""

CODES = {"F64": "float64", "F32": "float32", "F16": "float16"}


def save_weights(network: Any, path: str | Path, layout: str = "torch") -> None:
    """Write parameters and statistics for another library.

    Parameters
    ----------
    network
        Network of dense layers, batch norms, and layers without parameters.
    path
        The file.
    layout
        "torch": "0.weight", (units, inputs), "0.bias", … as in a ``torch.nn.Sequential`` with activations as modules.
        "keras": "dense/kernel", (inputs, units), "dense_1/bias", "batch_normalization/gamma", ….

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
        raise ValueError(f"layout must be one of {', '.join(map(repr, CONVENTIONS))}, got {layout!r}")
    theirs = CONVENTIONS[layout]
    safetensors_file.need_safetensors()
    from safetensors.numpy import save

    arrays, known = {}, network.parameters | network.statistics
    for prefix, name, pieces in _places(network, theirs):
        for piece in pieces:
            value = to_numpy(known[f"{name}.{piece}"])
            value = value.T if theirs.transposed and value.ndim == 2 else value
            arrays[f"{prefix}{theirs.separator}{theirs.names[piece]}"] = np.ascontiguousarray(value)
    atomic.write(path, save(arrays, metadata={"format": theirs.metadata}))


def _places(network: Any, convention: NamingConvention) -> Iterator[tuple[str, str, list[str]]]:
    """Yield for each layer with arrays its name in a file, its name here, and the names of its arrays here."""
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
    """Read parameters and statistics from a safetensors file with names of PyTorch or Keras, layer by layer.

    Parameters
    ----------
    network
        Network with the same layers as the file; only its weights change.
    path
        The file. Names tell the library: PyTorch's end in ".weight", Keras's in "/kernel". Prefixes do not matter as long as
        they sort in the order of the layers, with numbers compared as numbers.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    FileFormatError
        If it is not such a file, or its arrays do not match the network, which is then unchanged.

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
    with safetensors_file.file_errors(path, "file of weights"), safetensors_file.opened(path) as (file, types):
        wanted = _matched(network, types)
        arrays = {
            own: file.get_tensor(name).T if transposed else file.get_tensor(name) for own, name, transposed in wanted
        }
        bad = next((own for own, array in arrays.items() if not np.isfinite(array).all()), None)
        if bad is not None:
            raise FileFormatError(f"its array for {bad} holds NaN or infinity")
    network.set_parameters(arrays)


def _matched(network: Any, types: safetensors_file.Types) -> list[tuple[str, str, bool]]:
    """Return the network's name and the file's name of each array, and whether it is to be transposed."""
    keras = any(re.search(r"(^|/)(kernel|gamma)$", name) for name in types)
    convention = CONVENTIONS["keras" if keras else "torch"]
    groups: dict[str, dict[str, str]] = {}
    for name in sorted(types, key=_natural):
        prefix, _, last = name.rpartition(convention.separator)
        if last not in IGNORED:
            groups.setdefault(prefix, {})[last] = name
    expected = list(_places(network, convention))
    by_kind: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for group in groups.values():
        by_kind["gamma" in group or "running_mean" in group].append(group)
    wanted: dict[str, tuple[str, bool]] = {}
    norms = [pieces for _, _, pieces in expected if "mean" in pieces]
    if len(by_kind[True]) != len(norms) or len(by_kind[False]) != len(expected) - len(norms):
        raise FileFormatError(
            f"expected {len(expected) - len(norms)} dense layers and {len(norms)} batch norms, got "
            f"{len(by_kind[False])} and {len(by_kind[True])}"
        )
    taken = {True: iter(by_kind[True]), False: iter(by_kind[False])}
    for _, own, pieces in expected:
        group = next(taken["mean" in pieces])
        theirs = {convention.names[piece]: piece for piece in pieces}
        if set(group) != set(theirs):
            raise FileFormatError(f"expected its layer for {own} to have {sorted(theirs)}, got {sorted(group)}")
        for last, name in group.items():
            wanted[name] = f"{own}.{theirs[last]}", convention.transposed and theirs[last] == "kernel"
    shapes = network.model.parameters.shapes | network.model.statistics.shapes
    for name, (place, transposed) in wanted.items():
        kind, shape = types[name]
        expected_shape = shapes[place][::-1] if transposed else shapes[place]
        if kind not in CODES or shape != expected_shape:
            raise FileFormatError(
                f"expected {name} to hold numbers of shape {list(expected_shape)}, got {kind}{list(shape)}"
            )
    return [(place, name, transposed) for name, (place, transposed) in wanted.items()]


def _natural(name: str) -> list[Any]:
    """Return a key that sorts "layers.10" after "layers.9", and "dense_1" after "dense"."""
    return [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", re.sub(r"(?<=[a-z])(?=[./])", "_0", name))
    ]
