"""Plots of networks and their training.

Each function draws on matplotlib's axes ``ax``, or on an array of them, ``axes``, and returns them; None is for new ones.
It neither shows nor saves anything. Requires matplotlib (the extra "plot").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .runtime.arrays import to_numpy

GREEN, RED = "#1a7f37", "#b2182b"
"""Positive and right, negative and wrong."""


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "portablenn[plot]"') from error
    return plt


def _axes(ax: Any, figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    return _pyplot().figure(figsize=figsize, layout="constrained").add_subplot() if ax is None else ax


def save(ax: Any, path: str | Path) -> Path:
    """Save the figure of axes, or of an array of axes, as PNG; close it, and return the path."""
    figure = np.asarray(ax).flat[0].figure
    figure.savefig(path, dpi=120)
    _pyplot().close(figure)
    return Path(path)


def loss_curves(history: Mapping[str, Sequence[float]], ax: Any = None) -> Any:
    """Plot the losses of a history over the epochs; accuracies, if there are any, on a second axis.

    Of an ensemble the line is the median of the members that have not stopped, in a band from the lowest to the highest.
    """
    ax = _axes(ax)
    epochs = range(1, 1 + max((len(v) for v in history.values()), default=0))
    losses = {name: values for name, values in history.items() if "accuracy" not in name}
    accuracies = {name: values for name, values in history.items() if "accuracy" in name}
    for name, values in losses.items():
        _curve(ax, epochs, values, label=name.replace("val_", "validation "))
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    if accuracies:
        right = ax.twinx()
        for name, values in accuracies.items():
            _curve(right, epochs, values, "--", color="tab:green", label=name.replace("val_", "validation "))
        lowest = min(float(np.min(values, initial=1.0, where=~np.isnan(values))) for values in accuracies.values())
        right.set(ylabel="accuracy", ylim=(min(0.9, lowest), 1.005))
        _legend_above(ax, [*ax.get_lines(), *right.get_lines()])
    elif len(losses) > 1:
        _legend_above(ax, ax.get_lines())
    return ax


def _curve(ax: Any, epochs: Sequence[int], values: Sequence[Any], *style: str, **settings: Any) -> None:
    """Plot one figure of each epoch, or the median and the range of those of members."""
    figures = np.asarray(values)
    if figures.ndim == 2:
        some = ~np.isnan(figures).all(axis=1)
        epochs, figures = np.asarray(epochs)[some], figures[some]
        (line,) = ax.plot(epochs, np.nanmedian(figures, axis=1), *style, **settings)
        ax.fill_between(
            epochs, np.nanmin(figures, axis=1), np.nanmax(figures, axis=1), color=line.get_color(), alpha=0.2, lw=0
        )
    else:
        ax.plot(epochs, figures, *style, **settings)


def _legend_above(ax: Any, lines: Sequence[Any]) -> None:
    labels = [line.get_label() for line in lines]
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncol": len(lines)}
    ax.legend(lines, labels, **place, frameon=False, fontsize="small")


def first_layer_weights(network: Any, shape: tuple[int, int], axes: Any = None, X: Any = None) -> Any:
    """Plot the weights of each unit of the first dense layer as an image: positive green, negative red, zero white.

    ``shape`` is the number of rows and columns of the image. If rows ``X`` are given, (rows, inputs), units whose output is the
    same number for all of them, such as those of "relu" that have died, are titled with it.

    Raises
    ------
    ValueError
        If the image has another number of pixels than the layer has inputs.
    """
    name = next(name for name in network.parameters if name.endswith(".kernel"))
    kernel = to_numpy(network.parameters[name])
    if kernel.shape[0] != math.prod(shape):
        raise ValueError(
            f"the first layer has {kernel.shape[0]} inputs, images of shape {shape} have {math.prod(shape)} pixels"
        )
    if axes is None:
        axes = _grid(kernel.shape[1])
        axes.flat[0].figure.supxlabel("weights: positive green, negative red", fontsize=8)
    outputs = None if X is None else network.layer_outputs(X)[name.removesuffix(".kernel")]
    from matplotlib.colors import LinearSegmentedColormap  # after _grid, whose error says how to install matplotlib

    colours = LinearSegmentedColormap.from_list("red_white_green", [RED, "#ffffff", GREEN])
    bound = float(np.quantile(np.abs(kernel), 0.995)) or 1.0
    for unit, ax in enumerate(axes.flat):
        ax.axis("off")
        if unit < kernel.shape[1]:
            ax.imshow(kernel[:, unit].reshape(shape), cmap=colours, vmin=-bound, vmax=bound)
            values = to_numpy(outputs[:, unit]) if outputs is not None else np.arange(2)
            if np.all(values == values[0]):
                ax.set_title(f"always {values[0]:.3g}", fontsize=8, pad=2)
    return axes


def _grid(count: int, size: float = 1.4, extra: float = 0.0) -> Any:
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure, axes = _pyplot().subplots(
        rows, columns, figsize=(columns * size, rows * (size + extra)), layout="constrained", squeeze=False
    )
    figure.get_layout_engine().set(wspace=0.04, hspace=0.04)
    return axes


def predicted_images(images: Any, predicted: Any, actual: Any, confidence: Any = None, axes: Any = None) -> Any:
    """Plot a grid of images with their predicted labels; a wrong one is red and followed by the true label.

    Images are (n, rows, columns); predicted and actual labels, and the probabilities of the predicted ones, are (n,).
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
            ax.set_title(text if right else f"{text}, true {actual[i]}", color="black" if right else RED, fontsize=9)
    return axes


def decision_boundary(network: Any, X: Any, y: Any, ax: Any = None) -> Any:
    """Plot the predictions of a network or an estimator with two inputs over the plane.

    Rows X, (rows, 2), are drawn as points in the colours of their targets y, (rows,).
    """
    X, y = to_numpy(X), np.asarray(to_numpy(y)).reshape(-1)
    ax = _axes(ax, (5.0, 4.4))
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.25 * (high - low) + 1e-9
    across, up = (np.linspace(a, b, 200) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    predicted = to_numpy(network.predict(points)).reshape(200, 200)
    ax.contourf(across, up, predicted, levels=20, cmap="RdBu_r", alpha=0.5)
    ax.scatter(X[:, 0], X[:, 1], c=y, cmap="RdBu_r", edgecolors="black")
    ax.set(xlabel="first input", ylabel="second input")
    return ax


def learning(network: Any, X: Any, y: Any, epochs: int = 50, frames: int = 50, **fit: Any) -> Any:
    """Train a network with two inputs and return a `FuncAnimation` of its decision boundary, for ``.save("learning.gif")``.

    Parameters
    ----------
    network, X, y
        See `decision_boundary`; the network is trained.
    epochs
        Number of epochs.
    frames
        Number of frames, evenly spaced over the epochs.
    **fit
        Further arguments of `Network.fit`.
    """
    ax = _axes(None, (5.0, 4.4))
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
    """Plot the outputs of each layer for one row, (inputs,), as bars, a layer below the other."""
    outputs = network.layer_outputs(np.asarray(to_numpy(row)).reshape(1, -1))
    if axes is None:
        size = (6.4, 1.5 * len(outputs) + 0.3)
        _, axes = _pyplot().subplots(len(outputs), 1, figsize=size, layout="constrained", squeeze=False)
    for ax, (name, values) in zip(np.asarray(axes).flat, outputs.items()):
        heights = to_numpy(values)[0]
        ax.bar(range(len(heights)), heights, color=[GREEN if v > 0 else RED for v in heights])
        ax.axhline(0.0, color="gray", linewidth=0.8)
        ax.set_title(f"{name}: {len(heights)} outputs", fontsize=9, loc="left")
        ax.set_xticks(range(len(heights)) if len(heights) <= 20 else [])
    return axes


def diagram(network: Any, maximum: int = 16, ax: Any = None) -> Any:
    """Plot the network as circles and lines: each weight is a line, green if positive, red if negative, wide if large.

    At most ``maximum`` units of a layer are drawn.

    Raises
    ------
    ValueError
        If the network has no dense layer.
    """
    kernels = {name[:-7]: to_numpy(v) for name, v in network.parameters.items() if name.endswith(".kernel")}
    if not kernels:
        raise ValueError("a diagram requires a dense layer, this network has none")
    ax = _axes(ax, (2.2 * len(kernels) + 2.0, 4.4))
    widths = [next(iter(kernels.values())).shape[0], *(kernel.shape[1] for kernel in kernels.values())]
    shown = [np.unique(np.linspace(0, width - 1, min(width, maximum)).astype(int)) for width in widths]
    heights = [np.linspace(1.0, 0.0, len(units)) if len(units) > 1 else np.asarray([0.5]) for units in shown]
    for level, kernel in enumerate(kernels.values()):
        weights = kernel[np.ix_(shown[level], shown[level + 1])] / (float(np.abs(kernel).max()) or 1.0)
        _draw_weights(ax, level, weights, heights[level], heights[level + 1])
    for level, name in enumerate(["input", *kernels]):
        units, width = len(shown[level]), widths[level]
        ax.scatter([level] * units, heights[level], s=90, color="white", edgecolors="gray", zorder=2)
        label = f"{name}\n{width}" + (f"\n({width - units} not shown)" if units < width else "")
        ax.text(level, -0.12, label, ha="center", va="top", fontsize=8)
    ax.set(xlim=(-0.5, len(kernels) + 0.5), ylim=(-0.32, 1.08))
    ax.axis("off")
    return ax


def _draw_weights(ax: Any, level: int, weights: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    size = np.abs(weights).ravel()
    lines = [[(level, a), (level + 1, b)] for a in left for b in right]
    alpha = np.minimum(1.0, 0.1 + size)
    colours = [(*to_rgb(GREEN if w > 0 else RED), a) for w, a in zip(weights.ravel(), alpha)]
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=2.5 * size, zorder=1))


def learning_rates(search: Any, ax: Any = None) -> Any:
    """Plot the loss over the learning rate, and the suggestion; ``search`` is the result of `find_learning_rate`."""
    ax = _axes(ax)
    ax.plot(search.rates, search.losses, color="tab:gray", alpha=0.5, linewidth=1, label="loss of a batch")
    ax.plot(search.rates, search.smoothed, color="tab:blue", label="smoothed")
    ax.axvline(search.suggestion, color=GREEN, linestyle="--", label=f"suggested: {search.suggestion:.2g}")
    finite = search.smoothed[np.isfinite(search.smoothed)]
    low, high = float(finite.min()), float(finite[: max(1, len(finite) // 2)].max())
    limits = low - 0.1 * (high - low) - 1e-9, high + 0.5 * (high - low) + 1e-9
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=limits)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def search(results: Mapping[str, Any], axes: Any = None) -> Any:
    """Plot the mean score of each candidate of a search over each parameter, the best one in orange: which of them matters?

    Parameters
    ----------
    results
        ``cv_results_`` of `MLPSearchCV` or of a search of scikit-learn.
    axes
        As many axes as parameters; None for new ones.

    Returns
    -------
    array of matplotlib.axes.Axes
        One for each parameter.
    """
    names = [name for name in results if name.startswith("param_")]
    found = [values for name, values in results.items() if name.startswith("mean_test_")]
    if not names or not found or np.isnan(np.asarray(found[0], dtype=float)).all():
        raise ValueError("expected cv_results_ with parameters, and with a score that is a number")
    scores, short = np.asarray(found[0], dtype=float), [name.rpartition("__")[2] for name in names]
    if axes is None:
        figure = _pyplot().figure(figsize=(1.0 + 2.8 * len(names), 3.2), layout="constrained")
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    axes = np.atleast_1d(axes)
    if len(axes) != len(names):
        raise ValueError(f"expected axes for each of {len(names)} parameters, got {len(axes)}")
    best = int(np.nanargmax(scores))
    for ax, name in zip(axes, names, strict=True):
        given = np.ma.asarray(results[name])
        missing = np.ma.getmaskarray(given)
        values = ["not set" if masked else v for v, masked in zip(given.data, missing, strict=True)]
        if all(
            m or (isinstance(v, (int, float, np.number)) and not isinstance(v, bool)) for v, m in zip(values, missing)
        ):
            places = np.asarray(
                [np.nan if m else v for v, m in zip(values, missing)], dtype=float
            )  # those set are shown
            if np.nanmin(places) > 0 and np.nanmax(places) > 30 * np.nanmin(places):
                ax.set_xscale("log")
        else:
            kinds = sorted(set(map(str, values)))
            places = np.asarray([kinds.index(str(v)) for v in values], dtype=float)
            ax.set_xticks(range(len(kinds)), kinds, rotation=20 if max(map(len, kinds)) > 8 else 0)
            ax.margins(x=0.2)
        ax.scatter(places, scores, s=16, color="tab:blue", alpha=0.6, lw=0)
        ax.scatter(places[best], scores[best], s=40, color="tab:orange", zorder=3)
        last = name.rpartition("__")[2].removeprefix("param_")
        ax.set_xlabel(last if short.count(name.rpartition("__")[2]) == 1 else name.removeprefix("param_"))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("mean score")
    return axes


def importances(importances: Mapping[str, float], maximum: int = 20, ax: Any = None) -> Any:
    """Plot importances, {name: importance}, as at most ``maximum`` bars, the largest at the top."""
    names = sorted(importances, key=lambda name: -importances[name])[:maximum]
    ax = _axes(ax, (6.4, 0.3 * len(names) + 1.0))
    ax.barh(range(len(names)), [importances[name] for name in names], color=GREEN)
    ax.set_yticks(range(len(names)), [name if len(name) <= 30 else f"{name[:14]}…{name[-15:]}" for name in names])
    ax.invert_yaxis()
    ax.axvline(0.0, color="gray", linewidth=0.8)
    ax.set(xlabel="decrease of the score when shuffled")
    ax.grid(alpha=0.3, axis="x")
    return ax


def permutation_importance(
    network: Any, X: Any, y: Any, names: Sequence[str] | None = None, repeats: int = 5, seed: int = 0, ax: Any = None
) -> Any:
    """Plot by how much the accuracy, or R², decreases when the cells of a column are shuffled. Requires scikit-learn.

    Parameters
    ----------
    network
        A network, or a scikit-learn estimator.
    X, y
        Rows that it was not trained on, and their targets.
    names
        Names of the columns; None for their numbers.
    repeats, seed
        Number of shuffles of each column, and their seed.
    ax
        Axes to draw on; None for new ones.

    Raises
    ------
    TypeError
        If ``network`` is neither.
    """
    from sklearn.inspection import permutation_importance as compute_importance
    from sklearn.metrics import accuracy_score, r2_score

    X, y = to_numpy(X), to_numpy(y)
    classes = getattr(getattr(network, "loss", None), "targets", "") == "classes" or hasattr(network, "classes_")

    def score(estimator: Any, X: Any, y: Any) -> float:
        return float((accuracy_score if classes else r2_score)(y, to_numpy(estimator.predict(X))))

    if not hasattr(network, "fit"):
        raise TypeError(f"{type(network).__name__} is not a network or estimator: expected fit and predict")
    mean = compute_importance(network, X, y, scoring=score, n_repeats=repeats, random_state=seed).importances_mean
    names = list(names) if names is not None else [f"column {i}" for i in range(X.shape[1])]
    return importances(dict(zip(names, map(float, mean), strict=True)), ax=ax)


def predicted_values(pairs: Any, ax: Any = None) -> Any:
    """Plot true values over predicted ones, pairs of shape (rows, 2), and the line where they are equal.

    Requires scikit-learn.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    from sklearn.metrics import PredictionErrorDisplay

    true, predicted = np.asarray(pairs, dtype=float).T
    ax = _axes(ax, (5.0, 4.6))
    display = PredictionErrorDisplay(y_true=true, y_pred=predicted)
    points, line = {"alpha": 0.4, "s": 14, "color": GREEN}, {"color": "gray"}
    display.plot(ax=ax, kind="actual_vs_predicted", scatter_kwargs=points, line_kwargs=line)
    ax.set(xlabel="predicted", ylabel="true")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(StrMethodFormatter("{x:,.7g}"))
    return ax


def confusion_matrix(actual: Any, predicted: Any, ax: Any = None) -> Any:
    """Plot how many rows of each true class were predicted as each class, for labels, (rows,). Requires scikit-learn."""
    from sklearn.metrics import ConfusionMatrixDisplay

    ax = _axes(ax, (5.6, 5.0))
    ConfusionMatrixDisplay.from_predictions(to_numpy(actual), to_numpy(predicted), ax=ax, colorbar=False, cmap="Greens")
    return ax
