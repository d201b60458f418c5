"""Presets: the networks for tables, and how they are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ..nn import layers
from ..nn.losses import SoftmaxCrossEntropy
from ..nn.numbers import check_positive_integer
from ..nn.optimizers import Adam, AdamW
from ..nn.schedules import CosLog
from ..training.network import Network
from .preprocessing import Preprocessor

LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Preset:
    """A network for tables and its training; what `TableModel.train` is given overrules it.

    Attributes
    ----------
    hidden
        Units of the hidden layers.
    activations
        Their activations, for classes and for values.
    learning_rates
        Learning rates, for classes and for values.
    epochs, patience
        See `TableModel.train`; patience None for all epochs, after which the weights of the best one are taken.
    batch_size
        Rows of a batch; None to choose it by the number of rows.
    ntk
        Whether the layers are `Scale` and `NTKDense`, trained with the schedule `CosLog` and smoothed labels, or `Dense`.
    smooth
        Whether numbers are scaled by their quartiles and drawn in to ±3, or by mean and standard deviation.
    dropout
        Dropout rate of the hidden layers.
    """

    hidden: tuple[int, ...]
    activations: tuple[str, str]
    learning_rates: tuple[float, float]
    epochs: int
    patience: int | None
    batch_size: int | None
    ntk: bool
    smooth: bool
    dropout: float = 0.0

    def rows_per_batch(self, rows: int) -> int:
        """Return the batch size; by the number of rows it is a power of two, about 1 % of them, from 16 to 1024."""
        return self.batch_size or min(1024, max(16, 2 ** int(math.log2(max(1, rows / 100)))))


PRESETS = {
    "fast": Preset((64, 32), ("relu", "relu"), (1e-3, 1e-3), 100, 10, None, ntk=False, smooth=False),
    "default": Preset((256, 256, 256), ("selu", "mish"), (0.04, 0.07), 256, None, 256, ntk=True, smooth=True),
}
""""default" is RealMLP-TD-S of Holzmüller, Grinsztajn & Steinwart (2024), "Better by default", but for its share of validation
rows and its metric, which is the loss."""


def choose_preset(name: str, **changes: Any) -> Preset:
    """Return the preset of this name, with other values for its fields, unless they are None; `ValueError` if it is unknown.

    ``activation`` and ``learning_rate`` are for both tasks.
    """
    if name not in PRESETS:
        raise ValueError(f"expected preset {' or '.join(map(repr, PRESETS))}, got {name!r}")
    for field in ("epochs", "patience", "batch_size"):
        if changes.get(field) is not None:
            check_positive_integer(field, changes[field])
    for one, both in (("activation", "activations"), ("learning_rate", "learning_rates")):
        value = changes.pop(one, None)
        changes[both] = None if value is None else (value, value)
    return replace(PRESETS[name], **{field: value for field, value in changes.items() if value is not None})


def make_network(
    preset: Preset, preprocessor: Preprocessor, steps: int, optimizer: Any, backend: Any, seed: int
) -> Network:
    """Return a new network for the inputs of a preprocessor, to be trained for ``steps`` steps; ``optimizer`` may be None."""
    classes = preprocessor.target.class_count
    of_values = classes is None
    activation, rate = preset.activations[of_values], preset.learning_rates[of_values]
    built: list[Any] = [layers.Scale(rate=6.0)] if preset.ntk else []
    for units in preset.hidden:
        built.append((layers.NTKDense if preset.ntk else layers.Dense)(units, activation))
        built += [layers.Dropout(preset.dropout)] if preset.dropout else []
    outputs = classes or 1
    last = layers.NTKDense(outputs, kernel_init="zeros", bias_init="zeros") if preset.ntk else layers.Dense(outputs)
    if optimizer is None:
        optimizer = Adam(CosLog(rate, steps), beta_2=0.95) if preset.ntk else AdamW(rate)
    smoothing = LABEL_SMOOTHING if preset.ntk else 0.0
    loss: Any = "squared_error" if of_values else SoftmaxCrossEntropy(label_smoothing=smoothing)
    network = Network([*built, last], len(preprocessor.input_names), loss, optimizer, backend, seed=seed)
    report_without_smoothing(network)
    return network


def report_without_smoothing(network: Network) -> None:
    """Have a network with smoothed labels report the loss of the labels themselves, by which epochs and models are compared."""
    if isinstance(network.loss, SoftmaxCrossEntropy) and network.loss.label_smoothing:
        network.model = replace(network.model, report_loss=SoftmaxCrossEntropy())
