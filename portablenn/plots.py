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

from .runtime.arrays import to_numpy


def _new_axes_needed() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "portablenn[plot]"') from error


def _new_axes(ax: Any, figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    if ax is not None:
        return ax
    _new_axes_needed()
    import matplotlib.pyplot as plt

    return plt.figure(figsize=figsize, layout="constrained").add_subplot()


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
    labels = [line.get_label() for line in lines]
    ax.legend(
        lines, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(lines), frameon=False, fontsize="small"
    )
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


def learning(network: Any, X: Any, y: Any, epochs: int = 50, frames: int = 50, **fit: Any) -> Any:
    """Train a network with two inputs and draw its boundary as it learns: an animation, ``.save("learning.gif")`` writes it.

    Parameters
    ----------
    network, X, y
        As `decision_boundary` has them; the network is trained.
    epochs
        In all.
    frames
        Pictures, evenly over the epochs.
    **fit
        What ``fit`` takes beside.

    Returns
    -------
    matplotlib.animation.FuncAnimation
    """
    ax = _new_axes(None, (5.0, 4.4))
    from matplotlib.animation import FuncAnimation

    states = [(0, network.snapshot())]
    for done in range(0, epochs, every := max(1, epochs // frames)):
        network.fit(X, y, epochs=min(every, epochs - done), **fit)
        states.append((min(done + every, epochs), network.snapshot()))
    last = network.snapshot()

    def draw(frame: int) -> list[Any]:
        epoch, state = states[frame]
        network.restore(state)
        ax.clear()
        decision_boundary(network, X, y, ax)
        ax.set_title(f"epoch {epoch}", fontsize=10)
        network.restore(last)
        return list(ax.get_children())

    return FuncAnimation(ax.figure, draw, frames=len(states), interval=100)


def activations(network: Any, row: Any, axes: Any = None) -> Any:
    """What each layer makes of one row: its outputs as bars, layer under layer.

    Parameters
    ----------
    network
        Whose layers are looked at.
    row
        (inputs,).
    axes
        An array of axes, one a layer that has units; None for new ones.

    Returns
    -------
    ndarray of axes
    """
    outputs = network.layer_outputs(np.asarray(to_numpy(row)).reshape(1, -1))
    if axes is None:
        import matplotlib.pyplot as plt

        _new_axes_needed()
        size = (6.4, 1.5 * len(outputs) + 0.3)
        _, axes = plt.subplots(len(outputs), 1, figsize=size, layout="constrained", squeeze=False)
    for ax, (name, values) in zip(np.asarray(axes).flat, outputs.items()):
        seen = to_numpy(values)[0]
        ax.bar(range(len(seen)), seen, color=["#1a7f37" if v > 0 else "#b2182b" for v in seen])
        ax.axhline(0.0, color="gray", linewidth=0.8)
        ax.set_title(f"{name}: {len(seen)} outputs", fontsize=9, loc="left")
        ax.set_xticks(range(len(seen)) if len(seen) <= 20 else [])
    return axes


def diagram(network: Any, most: int = 16, ax: Any = None) -> Any:
    """The network as circles and lines: each weight a line, green if positive, red if negative, wide if large.

    Parameters
    ----------
    network
        Of dense layers, at least one.
    most
        Of wider layers only so many units are drawn.
    ax
        None for new axes.
    """
    kernels = [to_numpy(v) for name, v in network.parameters.items() if name.endswith(".kernel")]
    if not kernels:
        raise ValueError("a diagram is of dense layers and this network has none")
    ax = _new_axes(ax, (2.2 * len(kernels) + 2.0, 4.4))
    from matplotlib.collections import LineCollection

    widths = [kernels[0].shape[0], *(k.shape[1] for k in kernels)]
    names = ["input", *(name.removesuffix(".kernel") for name in network.parameters if name.endswith(".kernel"))]
    shown = [_shown(width, most) for width in widths]
    places = [np.linspace(1.0, 0.0, len(units)) if len(units) > 1 else np.asarray([0.5]) for units in shown]
    for level, kernel in enumerate(kernels):
        bound = float(np.abs(kernel).max()) or 1.0
        lines, colours, sizes = [], [], []
        for i, a in enumerate(shown[level]):
            for j, b in enumerate(shown[level + 1]):
                weight = float(kernel[a, b]) / bound
                lines.append([(level, places[level][i]), (level + 1, places[level + 1][j])])
                colours.append(
                    (*((0.10, 0.50, 0.22) if weight > 0 else (0.70, 0.09, 0.17)), min(1.0, 0.1 + abs(weight)))
                )
                sizes.append(2.5 * abs(weight))
        ax.add_collection(LineCollection(lines, colors=colours, linewidths=sizes, zorder=1))
    for level, (units, up) in enumerate(zip(shown, places)):
        ax.scatter([level] * len(units), up, s=90, color="white", edgecolors="gray", zorder=2)
        more = widths[level] - len(units)
        ax.text(
            level,
            -0.12,
            f"{names[level]}\n{widths[level]}" + (f"\n({more} not shown)" if more else ""),
            ha="center",
            va="top",
            fontsize=8,
        )
    ax.set(xlim=(-0.5, len(kernels) + 0.5), ylim=(-0.32, 1.08))
    ax.axis("off")
    return ax


def _shown(width: int, most: int) -> np.ndarray:
    return np.arange(width) if width <= most else np.unique(np.linspace(0, width - 1, most).astype(int))


def learning_rates(found: Any, ax: Any = None) -> Any:
    """The loss over the learning rate, as `portablenn.find_learning_rate` found it, and what it suggests."""
    ax = _new_axes(ax)
    ax.plot(found.rates, found.losses, color="tab:gray", alpha=0.5, linewidth=1, label="loss of a batch")
    ax.plot(found.rates, found.smoothed, color="tab:blue", label="smoothed")
    ax.axvline(found.suggestion, color="#1a7f37", linestyle="--", label=f"suggested: {found.suggestion:.2g}")
    usual = found.smoothed[np.isfinite(found.smoothed)]
    low, high = float(usual.min()), float(usual[: max(1, len(usual) // 2)].max())
    ax.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="loss",
        ylim=(low - 0.1 * (high - low) - 1e-9, high + 0.5 * (high - low) + 1e-9),
    )
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def importances(found: Mapping[str, float], most: int = 20, ax: Any = None) -> Any:
    """Bars of what each input is worth, the largest at the top: {name: by how much a score falls without it}."""
    names = sorted(found, key=lambda name: -found[name])[:most]
    ax = _new_axes(ax, (6.4, 0.3 * len(names) + 1.0))
    ax.barh(range(len(names)), [found[name] for name in names], color="#1a7f37")
    ax.set_yticks(range(len(names)), [name if len(name) <= 30 else f"{name[:14]}…{name[-15:]}" for name in names])
    ax.invert_yaxis()
    ax.axvline(0.0, color="gray", linewidth=0.8)
    ax.set(xlabel="fall of the score when its cells change places")
    ax.grid(alpha=0.3, axis="x")
    return ax


def permutation_importance(
    network: Any, X: Any, y: Any, names: Sequence[str] | None = None, repeats: int = 5, seed: int = 0, ax: Any = None
) -> Any:
    """By how much the accuracy (of values R²) falls when the cells of a column change places. Requires scikit-learn.

    Parameters
    ----------
    network
        A network, or an estimator of scikit-learn's kind.
    X, y
        Rows that it was not trained on, and their targets.
    names
        Of the columns; None for their numbers.
    repeats, seed
        How often each is mixed, and how.
    ax
        None for new axes.
    """
    from sklearn.inspection import permutation_importance as measured
    from sklearn.metrics import accuracy_score, r2_score

    X, y = to_numpy(X), to_numpy(y)
    classes = getattr(getattr(network, "loss", None), "targets", "") == "classes" or hasattr(network, "classes_")

    def score(estimator: Any, X: Any, y: Any) -> float:
        found = to_numpy(estimator.predict(X))
        return float((accuracy_score if classes else r2_score)(y, found))

    if not hasattr(network, "fit"):
        raise TypeError(f"{type(network).__name__} is no network and no estimator")
    mean = measured(network, X, y, scoring=score, n_repeats=repeats, random_state=seed).importances_mean
    names = list(names) if names is not None else [f"column {i}" for i in range(X.shape[1])]
    return importances(dict(zip(names, map(float, mean), strict=True)), ax=ax)


def predicted_values(pairs: Any, ax: Any = None) -> Any:
    """The truth over predictions, and the line where they are equal; (rows, 2), truth first. Requires scikit-learn."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    from sklearn.metrics import PredictionErrorDisplay

    truth, found = np.asarray(pairs, dtype=float).T
    ax = _new_axes(ax, (5.0, 4.6))
    display = PredictionErrorDisplay(y_true=truth, y_pred=found)
    points, line = {"alpha": 0.4, "s": 14, "color": "#1a7f37"}, {"color": "gray"}
    display.plot(ax=ax, kind="actual_vs_predicted", scatter_kwargs=points, line_kwargs=line)
    ax.set(xlabel="prediction", ylabel="truth")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(StrMethodFormatter("{x:,.7g}"))
    return ax


def confusion_matrix(actual: Any, predicted: Any, ax: Any = None) -> Any:
    """How often each class was taken for each other. Requires scikit-learn."""
    from sklearn.metrics import ConfusionMatrixDisplay

    ax = _new_axes(ax, (5.6, 5.0))
    ConfusionMatrixDisplay.from_predictions(to_numpy(actual), to_numpy(predicted), ax=ax, colorbar=False, cmap="Greens")
    return ax
