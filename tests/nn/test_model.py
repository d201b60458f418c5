"""The model: which loss trains and which is reported, and what is counted as right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import portablenn as pnn
from portablenn import losses

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
