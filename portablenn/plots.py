"""Pictures of networks and their training.

Requires matplotlib (the extra "plot"). Every function draws on the axes that it is given, or makes its own, and returns
them; nothing is shown or saved unless the caller does so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import to_numpy


def _new_axes(ax: Any, figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "portablenn[plot]"') from error
    import matplotlib.pyplot as plt

    figure: Figure = plt.figure(figsize=figsize, layout="constrained")
    return figure.add_subplot()


def save(ax: Any, path: str | Path) -> Path:
    """Write the figure that ``ax`` belongs to, as PNG, and close it; returns the path."""
    import matplotlib.pyplot as plt

    axes = np.asarray(ax).flat[0] if isinstance(ax, np.ndarray) else ax
    axes.figure.savefig(path, dpi=120)
    plt.close(axes.figure)
    return Path(path)


def loss_curves(history: Mapping[str, Sequence[float]], ax: Any = None) -> Any:
    """The losses of each epoch; accuracies, if there are any, on an axis of their own at the right."""
    ax = _new_axes(ax)
    epochs = range(1, 1 + max((len(v) for v in history.values()), default=0))
    losses = {name: values for name, values in history.items() if "accuracy" not in name}
    accuracies = {name: values for name, values in history.items() if "accuracy" in name}
    for name, values in losses.items():
        ax.plot(epochs, values, label=name.replace("val_", "validation "))
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    lines = ax.get_lines()
    if accuracies:
        right = ax.twinx()
        for name, values in accuracies.items():
            right.plot(epochs, values, "--", color="tab:green", label=name.replace("val_", "validation "))
        right.set(ylabel="accuracy", ylim=(min(0.9, *map(min, accuracies.values())), 1.005))
        lines = [*lines, *right.get_lines()]
    ax.legend(lines, [line.get_label() for line in lines], loc="center right" if accuracies else "best")
    return ax


def first_layer_weights(network: Any, shape: tuple[int, int], axes: Any = None) -> Any:
    """The weights of each unit of the first dense layer as an image: positive green, negative red, zero white.

    Parameters
    ----------
    network
        Its first layer's inputs are pixels.
    shape
        Rows and columns of an image.
    axes
        An array of axes, one a unit; None for new ones.

    Returns
    -------
    ndarray of axes
    """
    kernel = to_numpy(next(v for name, v in network.parameters.items() if name.endswith(".kernel")))
    if kernel.shape[0] != math.prod(shape):
        raise ValueError(f"the first layer has {kernel.shape[0]} inputs, an image of {shape} has {math.prod(shape)}")
    if axes is None:
        axes = _grid(kernel.shape[1])
    bound = float(np.quantile(np.abs(kernel), 0.995)) or 1.0
    for unit, ax in enumerate(axes.flat):
        ax.axis("off")
        if unit < kernel.shape[1]:
            ax.imshow(kernel[:, unit].reshape(shape), cmap=_red_white_green(), vmin=-bound, vmax=bound)
    return axes


def _red_white_green() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("red_white_green", ["#b2182b", "#ffffff", "#1a7f37"])


def _grid(count: int, size: float = 1.4, extra: float = 0.0) -> Any:
    import matplotlib.pyplot as plt

    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * (size + extra)), layout="constrained", squeeze=False
    )
    figure.get_layout_engine().set(wspace=0.04, hspace=0.04)
    return axes


def predicted_images(images: Any, predicted: Any, actual: Any, confidence: Any = None, axes: Any = None) -> Any:
    """A grid of images with what a network sees in them; where it is wrong, in red, with what was right.

    Parameters
    ----------
    images
        (n, rows, columns).
    predicted, actual
        Labels, (n,).
    confidence
        The probability of the prediction, (n,), or None.
    axes
        An array of axes; None for new ones.
    """
    images, predicted, actual = (to_numpy(a) for a in (images, predicted, actual))
    if axes is None:
        axes = _grid(len(images), 1.3, 0.25)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            ax.imshow(images[i], cmap="gray_r")
            right = predicted[i] == actual[i]
            text = f"{predicted[i]}" if confidence is None else f"{predicted[i]} ({to_numpy(confidence)[i]:.0%})"
            ax.set_title(
                text if right else f"{text}, is {actual[i]}", color="black" if right else "#b2182b", fontsize=9
            )
    return axes


def decision_boundary(network: Any, X: Any, y: Any, ax: Any = None) -> Any:
    """What a network with two inputs predicts over the plane, and the rows that it learnt from."""
    X, y = to_numpy(X), np.asarray(to_numpy(y)).reshape(-1)
    ax = _new_axes(ax, (5.0, 4.4))
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.25 * (high - low) + 1e-9
    across, up = (np.linspace(a, b, 200) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    seen = to_numpy(network.predict(points)).reshape(200, 200)
    ax.contourf(across, up, seen, levels=20, cmap="RdBu_r", alpha=0.5)
    ax.scatter(X[:, 0], X[:, 1], c=y, cmap="RdBu_r", edgecolors="black")
    ax.set(xlabel="first input", ylabel="second input")
    return ax


def confusion_matrix(actual: Any, predicted: Any, ax: Any = None) -> Any:
    """How often each class was taken for each other. Requires scikit-learn."""
    from sklearn.metrics import ConfusionMatrixDisplay

    ax = _new_axes(ax, (5.6, 5.0))
    ConfusionMatrixDisplay.from_predictions(to_numpy(actual), to_numpy(predicted), ax=ax, colorbar=False, cmap="Greens")
    return ax
