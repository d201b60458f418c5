"""What the estimators have in common: placement, representation, copies, and the state after an error."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.pipeline import make_pipeline

from portablenn.sklearn import MLPClassifier, MLPRegressor, Perceptron

strict = pytest.importorskip("array_api_strict")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.asarray([0, 1] * 6)


def _net(x: Any = X, y: Any = Y, **parameters: Any) -> MLPClassifier:
    return MLPClassifier((2,), max_iter=2, random_state=0, **parameters).fit(x, y)


@pytest.mark.parametrize("attribute", ["network_", "coefs_", "intercepts_"])
def test_an_attribute_before_fit_raises_an_attribute_error(attribute: str) -> None:
    with pytest.raises(AttributeError, match=f"'MLPClassifier' object has no attribute '{attribute}': fit it first"):
        getattr(MLPClassifier(), attribute)


def test_constructor_arguments_are_kept_unchanged() -> None:
    sizes = [2, 3]
    net = MLPClassifier(sizes, alpha=3)
    assert net.hidden_layer_sizes is sizes
    assert vars(net).keys() == net.get_params().keys()


def test_an_error_restores_lists_attributes_and_the_network() -> None:
    net = _net()
    curve, network = net.loss_curve_, net._network
    before, inside = dict(vars(net)), dict(vars(network))

    def fail() -> None:
        with net._unchanged_on_error():
            net.loss_curve_.append(1.0)
            net.added_ = 1
            del net.n_iter_
            network.steps += 1
            network.added = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert vars(net) == before | {"loss_curve_": curve[:-1]}
    assert vars(net._network) == inside
    with net._unchanged_on_error():
        net.added_ = 1
    assert net.added_ == 1


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
def test_placement_is_that_of_x(device: str) -> None:
    x = strict.asarray(X, device=strict.Device(device))
    net = _net(x)
    assert net.backend_ == f"array_api_strict on {device}"
    assert net._like.shape == (0, 3)
    for other in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.coefs_[0].device == x.device
        assert other.predict(x).device == x.device
    assert _net()._like is None
    assert isinstance(_net().coefs_[0], np.ndarray)


def test_results_of_a_network_elsewhere_follow_x() -> None:
    net = _net(backend="array_api_strict")
    assert net.backend_ == "array_api_strict on CPU_DEVICE"
    assert isinstance(net.coefs_[0], np.ndarray)


@pytest.mark.parametrize(
    ("fitted", "given"), [("numpy", "array_api_strict:CPU_DEVICE"), ("array_api_strict:CPU_DEVICE", "numpy")]
)
def test_rows_of_another_library_raise_under_dispatch_only(fitted: str, given: str) -> None:
    rows = {"numpy": X, "array_api_strict:CPU_DEVICE": strict.asarray(X)}
    net = _net(rows[fitted])
    np.testing.assert_array_equal(np.asarray(net.predict(rows[given])), np.asarray(net.predict(rows[fitted])))
    with sklearn.config_context(array_api_dispatch=True):
        net.predict(rows[fitted])
        with pytest.raises(ValueError, match=rf"MLPClassifier.predict\(\) must use the same namespace .* expected {fitted}, got {given}$"):  # fmt: skip
            net.predict(rows[given])


def test_representations_are_broken_into_lines_as_scikit_learns() -> None:
    parameters = {"hidden_layer_sizes": (100, 200, 300), "learning_rate_init": 0.0125, "n_iter_no_change": 7}
    expected = repr(sklearn.neural_network.MLPClassifier(**parameters))
    net = MLPClassifier(**parameters)
    assert "\n" in expected
    assert repr(net) == expected
    assert net.__repr__(N_CHAR_MAX=40) == sklearn.neural_network.MLPClassifier(**parameters).__repr__(N_CHAR_MAX=40)
    assert "MLPClassifier(hidden_layer_sizes=(100, 200, 300)" in repr(make_pipeline(net))
    assert repr(Perceptron(max_iter=2).fit(X, Y)) == "Perceptron(max_iter=2)  # trained on numpy"


def test_a_converted_copy_is_elsewhere_and_shares_nothing() -> None:
    with sklearn.config_context(array_api_dispatch=True):
        net = _net(strict.asarray(X), strict.asarray(Y), early_stopping=False)
        there = net.__sklearn_array_api_convert__(np.asarray)
        assert isinstance(there.coefs_[0], np.ndarray)
        assert isinstance(there.classes_, np.ndarray)
        assert there._like is None
        assert there.backend_ == "numpy"
        assert there.loss_curve_ == net.loss_curve_
        assert there.loss_curve_ is not net.loss_curve_
        assert there._network is not net._network
        assert net.backend_ == "array_api_strict on CPU_DEVICE"


@pytest.mark.parametrize("where", ["X", "y", "weights", "none"])
def test_scores_of_arrays_of_any_library_are_the_same(where: str) -> None:
    weights = np.linspace(0.5, 2.0, len(Y))
    facts = {"X": X, "y": Y, "weights": weights}
    facts |= {where: strict.asarray(facts[where])} if where != "none" else {}
    net = _net()
    expected = np.average(net.predict(X) == Y, weights=weights)
    assert net.score(*facts.values()) == pytest.approx(expected)
    assert net.score(X, Y) == pytest.approx(np.mean(net.predict(X) == Y))
    regressor = MLPRegressor(max_iter=2, random_state=0).fit(X, X[:, 0])
    facts["y"] = strict.asarray(X[:, 0])
    residual = np.average((regressor.predict(X) - X[:, 0]) ** 2, weights=weights)
    spread = np.average((X[:, 0] - np.average(X[:, 0], weights=weights)) ** 2, weights=weights)
    assert regressor.score(*facts.values()) == pytest.approx(1 - residual / spread)
