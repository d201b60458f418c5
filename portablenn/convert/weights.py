"""Weights in safetensors files with the names and layouts of PyTorch or Keras.

A file is read strictly: its arrays must match those of the network one to one.
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
    """How a library names its arrays and lays them out."""

    names: dict[str, str]  # {our name: theirs}
    separator: str  # between a layer's name and an array's
    transposed: bool  # a kernel is (units, inputs)
    kinds: tuple[str, str] | None  # names of dense layers and batch norms; None where a layer's name is its number
    metadata: str  # the format in the metadata of the library's files


OURS = ("kernel", "bias", "scale", "shift", "mean", "variance")
TORCHS = ("weight", "bias", "weight", "bias", "running_mean", "running_var")
KERASS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

CONVENTIONS = {
    "torch": NamingConvention(dict(zip(OURS, TORCHS)), ".", True, None, "pt"),
    "keras": NamingConvention(dict(zip(OURS, KERASS)), "/", False, ("dense", "batch_normalization"), "keras"),
}
IGNORED = {"num_batches_tracked"}
"""Arrays of PyTorch that nothing here depends on."""

CODES = ("F64", "F32", "F16")


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
        raise ValueError(f"layout must be one of {list(CONVENTIONS)}, got {layout!r}")
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
    number, counts = 0, Counter[str]()
    names = (*network.model.parameters.shapes, *network.model.statistics.shapes)
    for name, layer in network.model.layers:
        pieces = [n.rpartition(".")[2] for n in names if n.rpartition(".")[0] == name]
        if pieces and not isinstance(layer, (Dense, BatchNorm)):
            raise ValueError(f"{name} is {type(layer).__name__}, which has no counterpart in other libraries")
        if convention.kinds is None:
            prefix = f"{number}"
            number += 2 if isinstance(layer, Dense) and layer.activation not in (None, "identity") else 1
        else:
            kind = convention.kinds[isinstance(layer, BatchNorm)]
            prefix = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += bool(pieces)
        if pieces:
            yield prefix, name, pieces


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
        arrays = {}
        for own, name, transposed in _matched(network, types):
            arrays[own] = file.get_tensor(name).T if transposed else file.get_tensor(name)
        bad = next((own for own, array in arrays.items() if not np.isfinite(array).all()), None)
        if bad is not None:
            raise FileFormatError(f"its array for {bad} holds NaN or infinity")
    network.set_parameters(arrays)


def _matched(network: Any, types: safetensors_file.Types) -> list[tuple[str, str, bool]]:
    """Return the network's name and the file's name of each array, and whether it must be transposed."""
    keras = any(re.search(r"(^|/)(kernel|gamma)$", name) for name in types)
    convention = CONVENTIONS["keras" if keras else "torch"]
    groups: dict[str, dict[str, str]] = {}
    for name in sorted(types, key=_natural):
        prefix, _, last = name.rpartition(convention.separator)
        if last not in IGNORED:
            groups.setdefault(prefix, {})[last] = name
    expected = list(_places(network, convention))
    norms = [group for group in groups.values() if "gamma" in group or "running_mean" in group]
    dense = [group for group in groups.values() if group not in norms]
    count = sum("mean" in pieces for _, _, pieces in expected)
    if (len(dense), len(norms)) != (len(expected) - count, count):
        raise FileFormatError(
            f"expected {len(expected) - count} dense layers and {count} batch norms, got {len(dense)} and {len(norms)}"
        )
    remaining = {True: iter(norms), False: iter(dense)}
    shapes = network.model.parameters.shapes | network.model.statistics.shapes
    matched = []
    for _, layer, pieces in expected:
        group = next(remaining["mean" in pieces])
        theirs = {convention.names[piece]: piece for piece in pieces}
        if set(group) != set(theirs):
            raise FileFormatError(f"expected its layer for {layer} to have {sorted(theirs)}, got {sorted(group)}")
        for last, name in group.items():
            own, transposed = f"{layer}.{theirs[last]}", convention.transposed and theirs[last] == "kernel"
            kind, shape = types[name]
            wanted = shapes[own][::-1] if transposed else shapes[own]
            if kind not in CODES or shape != wanted:
                raise FileFormatError(
                    f"expected {name} to hold numbers of shape {list(wanted)}, got {kind}{list(shape)}"
                )
            matched.append((own, name, transposed))
    return matched


def _natural(name: str) -> list[Any]:
    """Return a key that sorts "layers.10" after "layers.9", and "dense_1" after "dense"."""
    return [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", re.sub(r"(?<=[a-z])(?=[./])", "_0", name))
    ]
