"""The model: which loss trains and which is reported, and what is counted as right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn import losses
from portablenn.nn.model import Batches

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.random.default_rng(1).normal(size=(40, 2))


def _network(loss: str, report: losses.Loss | None = None, optimizer: str = "adam") -> pnn.Network:
    net = pnn.mlp([3, 5, 2], loss=loss, optimizer=optimizer, dtype="float64")
    net.model = replace(net.model, report_loss=report)
    return net


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_loss_trains_and_the_report_loss_is_reported(optimizer: str) -> None:
    plain, other = (
        _network("half_squared_error", None, optimizer),
        _network("half_squared_error", losses.SquaredError(), optimizer),
    )
    first, second = (net.fit(X, Y, epochs=1, batch_size=None, validation_data=(X, Y)) for net in (plain, other))
    if optimizer == "adam":  # the line search of L-BFGS compares values, which are reported ones
        np.testing.assert_array_equal(plain.state.theta, other.state.theta)
        assert second["loss"][0] == pytest.approx(2 * first["loss"][0], rel=1e-12)
    p = other.forward(X)
    expected = np.square(p - Y).sum(axis=1).mean()
    assert other.evaluate(X, Y)["loss"] == pytest.approx(expected, rel=1e-12)
    assert second["val_loss"][0] == pytest.approx(expected, rel=1e-12)
    if optimizer == "lbfgs":
        assert second["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_a_report_loss_of_another_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="expected report_loss with reduction 'mean', as loss has, got 'sum'"):
        _network("squared_error", losses.SquaredError("sum"))


def test_a_network_after_reset_optimizer_trains_as_a_new_one_with_its_weights() -> None:
    used, new = (
        pnn.mlp([3, 5, 2], dtype="float64", optimizer=pnn.Adam(pnn.schedules.StepDecay(0.1, 0.5, 2))) for _ in "ab"
    )
    used.fit(X, Y, epochs=3, order="sequential")
    new.set_parameters(used.parameters)
    used.reset_optimizer()
    assert (used.steps, used.count_params()) == (0, used.parameter_count)
    for net in (used, new):
        net.fit(X, Y, epochs=2, order="sequential")
    np.testing.assert_array_equal(used.state.theta, new.state.theta)


def test_the_accuracy_of_weighted_rows_is_the_share_of_their_weight() -> None:
    net = pnn.mlp([1, 1], loss="sigmoid_cross_entropy", kernel_init="ones")  # predicts 1 for x > 0
    x, y, weights = np.asarray([[1.0], [2.0], [-1.0]]), np.asarray([1, 0, 0]), np.asarray([1.0, 5.0, 2.0])
    assert net.evaluate(x, y)["accuracy"] == pytest.approx(2 / 3)
    assert net.evaluate(x, y, weights)["accuracy"] == pytest.approx(3 / 8)
    assert net.evaluate(x, y, weights)["loss"] == pytest.approx(
        np.average(np.log1p(np.exp(x[:, 0])) - y * x[:, 0], weights=weights), rel=1e-6
    )


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "expected"),
    [
        ("sigmoid_cross_entropy", [[-1.0], [2.0], [0.0]], [0, 1, 1], [1.0, 1.0, 0.0]),
        ("hinge", [[-1.0], [2.0], [0.0]], [[0.0], [1.0], [0.0]], [1.0, 1.0, 1.0]),
        ("softmax_cross_entropy", [[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]], [1, 1, 1], [1.0, 0.0, 1.0]),
        ("softmax_cross_entropy", [[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]], [[0.0, 1.0]] * 3, [1.0, 0.0, 1.0]),
        ("sigmoid_cross_entropy", [[1.0, -1.0], [1.0, 0.0]], [[1, 0], [0, 0]], [1.0, 0.5]),
    ],
)
def test_rows_are_counted_as_right(loss: str, outputs: list[Any], targets: list[Any], expected: list[float]) -> None:
    model = pnn.mlp([1, len(outputs[0])], loss=loss).model
    assert model.correct(np, np.asarray(outputs), np.asarray(targets)).tolist() == expected


@pytest.mark.usefixtures("on_numpy")
def test_predictions_follow_from_the_outputs() -> None:
    def predicted(kind: str, loss: str, x: list[list[float]]) -> np.ndarray:
        net = pnn.mlp([len(x[0])] * 2, loss=loss, kernel_init=np.eye(len(x[0])), dtype="float64")
        return getattr(net.model, kind)(net.state.theta, net.state.statistics, np.asarray(x))

    one, two = [[-1.0], [0.0], [2.0]], [[-1.0, 2.0], [3.0, 0.0]]
    right = 1 / (1 + np.exp([1.0, 0.0, -2.0]))
    assert predicted("labels", "sigmoid_cross_entropy", one).tolist() == [0, 0, 1]
    assert predicted("signed_labels", "perceptron", one).tolist() == [-1, -1, 1]
    assert predicted("labels", "softmax_cross_entropy", two).tolist() == [1, 0]
    assert predicted("label_sets", "sigmoid_cross_entropy", two).tolist() == [[0, 1], [1, 0]]
    assert predicted("values", "squared_error", one).tolist() == [-1.0, 0.0, 2.0]
    assert predicted("values", "squared_error", two).tolist() == two
    np.testing.assert_allclose(
        predicted("probabilities", "sigmoid_cross_entropy", one), np.stack([1 - right, right], axis=1), rtol=1e-12
    )
    assert predicted("probabilities", "softmax_cross_entropy", two).shape == (2, 2)


def test_a_batch_is_the_rows_of_its_step() -> None:
    def batch(iteration: int, **changes: Any) -> Batches:
        x, y, weights, order = np.arange(8.0).reshape(4, 2), np.arange(4), np.arange(4.0), np.asarray([[0, 3], [2, 1]])
        batches = Batches(x, y, weights, order, None, np.asarray(5))._replace(**changes)
        return pnn.mlp([2, 1]).model.batch(np, np.asarray(iteration), batches)

    second = batch(1)
    assert second.x.tolist() == [[4.0, 5.0], [2.0, 3.0]]
    assert (second.y.tolist(), second.weights.tolist(), second.order) == ([2, 1], [2.0, 1.0], None)
    assert batch(0, weights=None).y.tolist() == [0, 3]
    assert batch(1, order=None).y.tolist() == [0, 1, 2, 3]


def test_outputs_of_layers_are_compiled_once(on_numpy: None) -> None:
    x = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
    net = pnn.Network([pnn.Dense(4, "relu"), pnn.Dropout(0.5), pnn.Dense(2)], 3, dtype="float64")
    outputs = net.layer_outputs(x)
    before = pnn.program_cache.info().misses
    assert list(net.layer_outputs(x)) == list(outputs) == ["dense_1", "dropout_1", "dense_2"]
    assert pnn.program_cache.info().misses == before
    np.testing.assert_array_equal(outputs["dropout_1"], outputs["dense_1"])
    np.testing.assert_allclose(outputs["dense_2"], net.forward(x), rtol=1e-12)


def test_prediction_uses_the_running_statistics() -> None:
    net = pnn.Network([pnn.BatchNorm(0.5, epsilon=0.0)], inputs=1, optimizer=pnn.SGD(0.0), dtype="float64")
    assert net.forward([[3.0], [5.0]]).tolist() == [[3.0], [5.0]]
    net.fit([[3.0], [5.0]], [0.0, 0.0], epochs=1, batch_size=None)  # mean ½ · 0 + ½ · 4, variance ½ · 1 + ½ · 1
    assert net.forward([[3.0], [5.0]]).tolist() == [[1.0], [3.0]]
