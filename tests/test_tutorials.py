"""Tutorials: their published figures, to every digit shown, on NumPy in float64."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

pytestmark = pytest.mark.usefixtures("on_numpy")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def _shown(values: Any, digits: int) -> list[str]:
    return [f"{v:.{digits}f}" for v in np.ravel(values)]


def test_the_perceptron_learns_the_published_weights() -> None:
    example = _example("perceptron")
    net = example["perceptron"]()
    assert _shown(net.parameters["dense_1.kernel"], 8) == ["-0.16595599", "0.44064899", "-0.99977125"]
    net.fit(example["INPUTS"], example["TARGETS"], epochs=10_000, batch_size=None)
    assert _shown(net.parameters["dense_1.kernel"], 8) == ["9.67299303", "-0.20784350", "-4.62963669"]
    assert _shown(net.predict([[1, 0, 0]]), 8) == ["0.99993704"]


def test_three_layers_make_the_published_errors_and_outputs() -> None:
    example = _example("three_layers")
    net, X, y = example["three_layers"](), example["INPUTS"], example["TARGETS"]
    errors = [np.mean(np.abs(y - net.predict(X)))]
    for _ in range(5):
        net.fit(X, y, epochs=10_000, batch_size=None)
        errors.append(np.mean(np.abs(y - net.predict(X))))
    assert _shown(errors, 10) == [
        "0.4964100319", "0.0085845257", "0.0057894599", "0.0046291768", "0.0039587653", "0.0035101226",
    ]  # fmt: skip
    net.fit(X, y, epochs=9_999, batch_size=None)  # the tutorial shows the outputs that step 60,000 starts from
    assert _shown(net.forward(X), 8) == ["0.00260572", "0.99672209", "0.99701711", "0.00386759"]


def test_a_first_network_has_the_published_predictions_and_slopes() -> None:
    xp = pnn.xp
    a, b, c = (xp.asarray(v) for v in ([1.72, 1.23], [1.26, 0.0], [2.17, 0.32]))
    assert str(float(xp.vecdot(a, b))).startswith("2.1672")
    assert str(float(xp.vecdot(a, c))).startswith("4.1259")  # the tutorial prints 4.1259999999999994
    net = _example("first_network")["one_neuron"]()
    predictions = net.predict([[1.66, 1.56], [2, 1.5]])
    assert _shown(predictions, 7) == ["0.7985731", "0.8710191"]
    error, slope = pnn.value_and_grad(lambda p: (p - 0.0) ** 2)(xp.asarray(predictions[1]))
    assert _shown([error, slope], 7) == ["0.7586744", "1.7420383"]


def test_stochastic_gradient_descent_lowers_the_error_over_all_rows() -> None:
    history = _example("first_network")["by_training"]()
    assert len(history["val_loss"]) == 100  # every 100 of 10,000 steps
    assert history["val_loss"][0] > 2.5
    assert np.mean(history["val_loss"][-20:]) < 2.2


def test_linear_regression_finds_the_least_squares_solution() -> None:
    net = _example("first_network")["house_prices"]()
    area = np.array([52, 60, 75, 80, 93, 100, 115, 120, 138, 150])
    age = np.array([30, 12, 25, 5, 40, 8, 15, 2, 20, 10])
    price = 40 + 3.1 * area - 1.7 * age + np.array([4, -6, 2, 5, -3, -1, 6, -4, 0, -3])
    columns = np.stack([area, age], axis=1)
    standard = (columns - columns.mean(0)) / columns.std(0)
    solution = np.linalg.lstsq(np.column_stack([standard, np.ones(10)]), price, rcond=None)[0]
    np.testing.assert_allclose(net.parameters["dense_1.kernel"].ravel(), solution[:2], rtol=1e-9)
    np.testing.assert_allclose(net.parameters["dense_1.bias"], solution[2:], rtol=1e-9)


def test_l2_regularisation_lowers_the_validation_error() -> None:
    errors = _example("first_network")["overfitting"]()
    assert errors["with L2"] < 0.9 * errors["without L2"]


def test_sentences_are_classified() -> None:
    pytest.importorskip("sklearn")
    positive = _example("first_network")["sentences"]()
    assert [probability > 0.5 for probability in positive.values()] == [True, False, True]


def test_threshold_neurons_are_logic_gates() -> None:
    example = _example("threshold_neuron")
    neuron, pairs = example["threshold_neuron"], example["PAIRS"]
    assert neuron([1, 1], -1.5).predict(pairs).tolist() == [0, 0, 0, 1]
    assert neuron([1, 1], -0.5).predict(pairs).tolist() == [0, 1, 1, 1]
    assert neuron([-1], 0.5).predict([[0], [1]]).tolist() == [1, 0]


@pytest.mark.parametrize(
    "targets", [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1], [-1, -1, 1, -1]]
)
def test_rosenblatts_rule_learns_separable_classes(targets: list[int]) -> None:
    example = _example("threshold_neuron")
    net = example["rosenblatt"]()
    history = net.fit(example["PAIRS"], targets, epochs=50, batch_size=1)
    assert net.predict(example["PAIRS"]).tolist() == targets
    assert history["loss"][-1] == 0.0


def test_rosenblatts_rule_cannot_learn_xor() -> None:
    example = _example("threshold_neuron")
    net = example["rosenblatt"]()
    net.fit(example["PAIRS"], [0, 1, 1, 0], epochs=200, batch_size=1)
    assert net.evaluate(example["PAIRS"], [0, 1, 1, 0])["accuracy"] < 1.0


@pytest.mark.parametrize(("sizes", "learns"), [([2, 1], False), ([2, 4, 1], True), ([3, 1], False), ([3, 8, 1], True)])
def test_parity_requires_a_hidden_layer(sizes: list[int], learns: bool) -> None:
    example = _example("xor")
    words, odd = example["parity"](sizes[0])
    assert (example["trained"](sizes).evaluate(words, odd)["accuracy"] == 1.0) is learns
