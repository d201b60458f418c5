"""Plots: they show the network's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

matplotlib = pytest.importorskip("matplotlib")
from portablenn import plots  # noqa: E402

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).uniform(-1, 1, size=(80, 2)).astype("f4")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


@pytest.fixture(autouse=True)
def _closed() -> Any:
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


def _network(**facts: Any) -> pnn.Network:
    return pnn.mlp([2, 5, 3, 2], loss="softmax_cross_entropy", backend="numpy", **facts)


def test_activations_are_those_of_each_layer(library: Any) -> None:
    net = pnn.Network(
        [pnn.Dense(4, "tanh"), pnn.BatchNorm(), pnn.Dropout(0.5), pnn.Dense(2)], 2, backend=library.backend
    )
    outputs = net.layer_outputs(X[:3])
    assert {name: value.shape for name, value in outputs.items()} == {
        "dense_1": (3, 4),
        "batch_norm_1": (3, 4),
        "dropout_1": (3, 4),
        "dense_2": (3, 2),
    }
    np.testing.assert_allclose(outputs["dense_2"], net.forward(X[:3]), rtol=1e-6)
    np.testing.assert_array_equal(outputs["dropout_1"], outputs["batch_norm_1"])
    axes = plots.activations(net, X[0])
    heights = [bar.get_height() for bar in axes[0, 0].patches]
    np.testing.assert_allclose(heights, net.layer_outputs(X[:1])["dense_1"][0], rtol=1e-6)


def test_a_diagram_has_a_line_for_each_weight() -> None:
    net = _network()
    ax = plots.diagram(net)
    lines = [c for c in ax.collections if type(c).__name__ == "LineCollection"]
    assert [len(c.get_segments()) for c in lines] == [2 * 5, 5 * 3, 3 * 2]
    kernel = np.asarray(net.parameters["dense_1.kernel"]).reshape(-1)
    np.testing.assert_allclose(lines[0].get_linewidths(), 2.5 * np.abs(kernel) / np.abs(kernel).max(), rtol=1e-5)
    green = lines[0].get_colors()[:, 1] > lines[0].get_colors()[:, 0]
    np.testing.assert_array_equal(green, kernel > 0)
    wide = plots.diagram(pnn.mlp([100, 2]), maximum=10)
    assert len(wide.collections[0].get_segments()) == 10 * 2
    assert "90 not shown" in wide.texts[0].get_text()
    with pytest.raises(ValueError, match="this network has none"):
        plots.diagram(pnn.Network([pnn.Activation("relu")], 2))


def test_an_animation_shows_the_network_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    net = _network(optimizer=pnn.Adam(0.05))
    moving = plots.learning(net, X, Y, epochs=6, frames=3)
    after = net.state.theta.copy()
    moving.save(tmp_path / "learning.gif", writer="pillow")
    np.testing.assert_array_equal(net.state.theta, after)
    from PIL import Image

    with Image.open(tmp_path / "learning.gif") as image:
        assert image.n_frames == 4  # before, and after epochs 2, 4 and 6


def test_importances_find_the_column_that_counts() -> None:
    pytest.importorskip("sklearn")
    given = np.random.default_rng(0).normal(size=(200, 3))
    net = pnn.mlp([3, 8, 1], optimizer=pnn.Adam(0.05), backend="numpy")
    net.fit(given, 3 * given[:, 1], epochs=60)
    ax = plots.permutation_importance(net, given, 3 * given[:, 1], ["a", "b", "c"])
    assert next(t.get_text() for t in ax.get_yticklabels()) == "b"
    widths = [bar.get_width() for bar in ax.patches]
    assert widths[0] > 1.0
    assert max(map(abs, widths[1:])) < 0.05


def test_true_values_are_plotted_over_predicted_ones() -> None:
    pytest.importorskip("sklearn")
    ax = plots.predicted_values([[1.0, 10.0], [2.0, 30.0]])
    points = ax.collections[0].get_offsets()
    np.testing.assert_array_equal(points, [[10.0, 1.0], [30.0, 2.0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_a_search_is_drawn_over_each_parameter() -> None:
    alphas = [1e-4, 1e-2, 1.0, 1e-3]
    results = {
        "mean_fit_time": np.ones(4),
        "param_net__alpha": np.ma.masked_array(alphas, mask=False),
        "param_net__hidden_layer_sizes": np.ma.masked_array(
            np.asarray(["a", "b", "a", "c"], dtype=object), [0, 0, 0, 1]
        ),
        "mean_test_score": np.asarray([0.5, np.nan, 0.7, 0.9]),
    }
    left, right = plots.search(results)
    assert left.get_xscale() == "log"
    assert (left.get_xlabel(), right.get_xlabel()) == ("alpha", "hidden_layer_sizes")
    points, best = left.collections
    np.testing.assert_array_equal(points.get_offsets()[:, 0], alphas)
    assert best.get_offsets().tolist() == [[1e-3, 0.9]]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["a", "b", "not set"]


def test_a_legend_leaves_the_title_alone() -> None:
    assert plots.loss_curves({"loss": [2.0, 1.0]}).get_legend() is None
    labels = plots.loss_curves({"loss": [2.0, 1.0], "val_loss": [3.0, 2.0], "val_accuracy": [0.5, 1.0]}).get_legend()
    assert [text.get_text() for text in labels.get_texts()] == ["loss", "validation loss", "validation accuracy"]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pytest.importorskip("sklearn")
    from portablenn import plots

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    net = pnn.mlp([2, 4, 2], loss="softmax_cross_entropy")
    history = net.fit(X, y, epochs=3, validation_split=0.2)
    pictures: dict[str, Any] = {
        "loss": history.plot(),
        "weights": plots.first_layer_weights(net, (1, 2)),
        "boundary": plots.decision_boundary(net, X, y),
        "confusion": plots.confusion_matrix(y, net.predict(X)),
        "images": plots.predicted_images(rng.random((5, 8, 8)), np.arange(5), np.zeros(5, int)),
    }
    for name, axes in pictures.items():
        assert plots.save(axes, tmp_path / f"{name}.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="the first layer has 2 inputs"):
        plots.first_layer_weights(net, (2, 2))


def test_units_that_have_died_are_titled() -> None:
    net = pnn.mlp([4, 3, 2], activation="relu", backend="numpy")
    kernel = np.ones((4, 3))
    net.set_parameters({"dense_1.kernel": kernel, "dense_1.bias": [0.0, -100.0, 0.0]})
    axes = plots.first_layer_weights(net, (2, 2), X=np.random.default_rng(0).uniform(size=(20, 4)))
    assert [ax.get_title() for ax in axes.flat[:3]] == ["", "always 0", ""]
    assert [ax.get_title() for ax in plots.first_layer_weights(net, (2, 2)).flat[:3]] == [""] * 3
