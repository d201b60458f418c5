"""Prediction: few programs serve any number of rows, and a predictor gives what predict does."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.training.prediction import padded


def network(loss: str = "softmax_cross_entropy", outputs: int = 3, **options: Any) -> pnn.Network:
    return pnn.mlp([4, 16, outputs], loss=loss, **{"backend": "numpy", **options})


def rows(count: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 4)).astype(dtype)


def test_few_programs_serve_any_number_of_rows() -> None:
    net, X = network(), rows(400)
    expected = net.forward(X)
    before = pnn.program_cache.info().misses
    for count in range(1, 401):
        np.testing.assert_allclose(net.forward(X[:count]), expected[:count], rtol=1e-5, atol=1e-6)
    assert pnn.program_cache.info().misses - before <= 32


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 1000, 8191, 8192])
def test_rows_are_padded_by_a_quarter_at_most(count: int) -> None:
    assert count <= padded(count) <= min(1.25 * count, 8192)


def test_rows_of_a_layer_that_mixes_them_are_not_padded() -> None:
    @dataclass(frozen=True)
    class Center:
        def init(self, key: Any, inputs: int) -> dict[str, Any]:
            return {}

        def apply(self, xp: Any, params: Any, x: Any) -> Any:
            return x - xp.mean(x, axis=0, keepdims=True)

    net, X = pnn.Network([Center()], inputs=4, backend="numpy"), rows(9)
    np.testing.assert_allclose(net.forward(X), X - X.mean(axis=0), rtol=1e-6, atol=1e-6)


def test_a_number_that_is_not_finite_is_named(library: Any) -> None:
    net, X = network(backend=library.name), rows(9000)
    X[8500, 2] = np.nan
    with pytest.raises(ValueError, match="X holds NaN or infinity, first at row 8500, column 2"):
        net.predict(library.array(X))


def test_a_number_that_overflows_in_the_networks_dtype_is_named() -> None:
    X = rows(3, "float64")
    X[1, 1] = 1e300
    with pytest.raises(ValueError, match=r"X holds 1e\+300 at row 1, column 1, which overflows in float32"):
        network().predict(X)


def test_numbers_whose_sum_overflows_are_fine() -> None:
    X = np.full((5, 4), 3e38, dtype=np.float32)
    assert network().predict(X).shape == (5,)
    predict = network().predictor(5)
    assert predict(X).shape == predict(X).shape == (5,)


CASES = {
    "classes": (network, np.asarray([0, 1, 2] * 20)),
    "two classes": (lambda: network("sigmoid_cross_entropy", 1), np.asarray([0, 1] * 30)),
    "signed labels": (lambda: network("hinge", 1), np.asarray([-1, 1] * 30)),
    "several labels": (lambda: network("sigmoid_cross_entropy"), np.asarray([[1, 1, 0], [0, 1, 0], [0, 0, 0]] * 20)),
    "one value": (lambda: network("squared_error", 1), np.linspace(0, 1, 60)),
    "several values": (lambda: network("poisson"), np.ones((60, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_predictor_returns_what_predict_does(case: str) -> None:
    make, y = CASES[case]
    net = make()
    net.fit(rows(60), y, epochs=2, batch_size=20)
    predict = net.predictor(2)
    for X in (rows(2), rows(2) + 1, rows(2, "float64"), rows(2).tolist(), np.ones((2, 4), dtype=int)):
        for _ in range(2):
            np.testing.assert_array_equal(predict(X), net.predict(X))
            assert predict(X).dtype == net.predict(X).dtype


def test_a_predictor_follows_its_network() -> None:
    net, X = network(), rows(1)
    predict = net.predictor()
    predict(X)
    net.set_parameters({**net.parameters, "dense_2.bias": np.asarray([0, 0, 100], dtype=np.float32)})
    assert predict(X).tolist() == [2]
    net.optimizer = pnn.SGD(0.1)
    net.fit(rows(30), np.ones(30, dtype=int), epochs=100)
    assert predict(X).tolist() == net.predict(X).tolist()


def test_a_predictor_follows_its_network_to_another_library(other_library: Any) -> None:
    net, X = network(), rows(1)
    predict = net.predictor()
    expected = [predict(X).tolist() for _ in range(2)]
    net.to(other_library.name)
    found = [predict(X) for _ in range(2)]
    assert [f.tolist() for f in found] == expected
    assert isinstance(found[1], np.ndarray)
    given = other_library.array(X)
    assert type(predict(given)) is type(given)


def test_a_predictor_takes_its_number_of_rows_only() -> None:
    predict = network().predictor(2)
    with pytest.raises(
        ValueError, match=r"expected X of shape \(2, 4\), got \(3, 4\): predict takes any number of rows"
    ):
        predict(rows(3))
    with pytest.raises(ValueError, match="rows"):
        network().predictor(0)


def test_a_predictor_finds_a_number_that_is_not_finite_at_each_call() -> None:
    predict, X = network().predictor(), rows(1)
    predict(X)
    X[0, 3] = np.inf
    for _ in range(2):
        with pytest.raises(ValueError, match="X holds NaN or infinity, first at row 0, column 3"):
            predict(X)


def test_results_of_a_predictor_are_arrays_of_their_own() -> None:
    net = network("squared_error", 1)
    predict = net.predictor()
    predict(rows(1))
    first = predict(rows(1))
    kept = first.copy()
    predict(rows(1) + 5)
    np.testing.assert_array_equal(first, kept)


def test_a_network_that_has_predicted_is_copied_and_pickled() -> None:
    net, X = network(), rows(5)
    expected = net.predict(X).tolist()
    assert copy.deepcopy(net).predict(X).tolist() == expected
    assert pickle.loads(pickle.dumps(net)).predict(X).tolist() == expected


def test_a_predictor_that_has_predicted_is_copied_and_pickled() -> None:
    predict, X = network().predictor(5), rows(5)
    expected = predict(X).tolist()
    assert copy.deepcopy(predict)(X).tolist() == expected
    assert pickle.loads(pickle.dumps(predict))(X).tolist() == expected


def test_a_predictor_sees_parameters_that_are_written_in_place() -> None:
    net, X = network("squared_error", 1), rows(1)
    predict = net.predictor()
    predict(X)
    net.state.theta[...] = 0.0
    assert predict(X).tolist() == [0.0]


def test_a_predictor_reads_the_parameters_as_views_of_one_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    net, X = network(), rows(1)
    predict = net.predictor()
    predict(X)
    monkeypatch.setattr(type(net.model.parameters), "split", None)  # nothing is split again
    assert predict(X).tolist() == predict(X).tolist()


def test_threads_share_a_predictor() -> None:
    net = network("squared_error", 3)
    predict = net.predictor()
    many = [rows(1) + i for i in range(200)]
    expected = [net.predict(X).tolist() for X in many]
    with ThreadPoolExecutor(4) as pool:
        assert [found.tolist() for found in pool.map(predict, many)] == expected


@pytest.mark.parametrize("predicts", [lambda net: net.predictor(), lambda net: net.predict])
def test_predicting_warns_of_no_overflow_and_leaves_numpys_settings(predicts: Any) -> None:
    net = network("poisson", 1)
    net.set_parameters({"dense_2.bias": np.asarray([1000.0])})
    predict = predicts(net)
    before = np.geterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predict(rows(1)).tolist() == [np.inf]
    assert np.geterr() == before


FACTOR: Any = 1.0


def _times_a_global(x: Any) -> Any:
    return x * FACTOR


class _Times:
    """A layer of a user, which is compared by identity."""

    def __init__(self) -> None:
        self.factor = 1.0

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        return x * self.factor


@dataclass(frozen=True)
class _TimesAGlobal:
    """A layer of a user, which is compared by its fields."""

    units: int = 1

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        return x * FACTOR


def test_what_functions_of_users_read_is_never_stale_in_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    loss_factor, times = 1.0, _Times()
    layers = [pnn.Dense(3, _times_a_global), times, _TimesAGlobal(), pnn.Dense(1, use_bias=False)]
    loss = lambda p, t: (p - t) ** 2 * loss_factor  # noqa: E731
    net = pnn.Network(layers, 4, loss, pnn.SGD(0.0), backend="numpy")
    one, targets = rows(1), np.zeros((1, 1), np.float32)
    predictor = net.predictor(1)

    def results() -> list[float]:
        losses = net.evaluate(one, targets)["loss"], net.fit(one, targets)["loss"][-1]
        return [float(net.predict(one)[0]), float(predictor(one)[0]), float(net.forward(one)[0, 0]), *losses]

    before = np.asarray(results())
    monkeypatch.setitem(globals(), "FACTOR", 2.0)  # it is read twice
    np.testing.assert_allclose(results(), before * [4, 4, 4, 16, 16], rtol=1e-6)
    times.factor = 3.0
    np.testing.assert_allclose(results(), before * [12, 12, 12, 144, 144], rtol=1e-6)
    loss_factor = 0.5
    np.testing.assert_allclose(results(), before * [12, 12, 12, 72, 72], rtol=1e-6)
    monkeypatch.undo()
    times.factor = loss_factor = 1.0
    np.testing.assert_allclose(results(), before, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [pnn.SGD(0.01), pnn.LBFGS()], ids=["steps", "L-BFGS"])
def test_what_a_loss_reads_may_change_while_a_network_is_trained(optimizer: Any) -> None:
    factor = 1.0

    class Halve(pnn.callbacks.Callback):
        def on_epoch_end(self, *_: Any) -> None:
            nonlocal factor
            factor = 0.0

    loss = lambda p, t: (p - t) ** 2 * factor  # noqa: E731
    net = pnn.Network([pnn.Dense(1)], 4, loss, optimizer, backend="numpy")
    losses = net.fit(rows(20), np.ones((20, 1)), epochs=3, batch_size=None, callbacks=[Halve()])["loss"]
    assert losses[0] > 0.0
    assert losses[-1] == 0.0


def test_equal_networks_share_their_programs_also_with_functions_of_users() -> None:
    def net() -> pnn.Network:
        return pnn.Network([_TimesAGlobal(), pnn.Dense(1, _times_a_global)], 4, backend="numpy")

    kept = net()
    kept.predict(rows(9))
    before = pnn.program_cache.info()
    net().predict(rows(9))
    assert pnn.program_cache.info().misses == before.misses


class _Slotted:
    __slots__ = ("__weakref__", "number")

    def __init__(self, number: float) -> None:
        self.number = number


SLOTTED: Any = _Slotted(1.0)


def test_an_object_with_the_id_of_a_former_one_is_another_one() -> None:
    global SLOTTED
    net = pnn.Network([pnn.Dense(1, lambda x: x * SLOTTED.number)], 4, backend="numpy")
    predictor, found = net.predictor(1), []
    for number in range(1, 9):
        SLOTTED = None  # what was there is deallocated, unless somebody keeps it
        SLOTTED = _Slotted(number)
        found.append([float(net.predict(rows(1))[0]), float(predictor(rows(1))[0])])
    np.testing.assert_allclose(np.asarray(found) / found[0][0], np.arange(1, 9)[:, None] * [1, 1], rtol=1e-6)


@dataclass
class _Mutable:
    """A layer of a user that is a dataclass, but may change."""

    factor: float = 1.0

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        return x * self.factor


@dataclass(frozen=True)
class _Chain:
    """A layer of a user whose fields are functions."""

    functions: tuple[Any, ...]

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        for function in self.functions:
            x = function(x)
        return x


def test_layers_that_change_and_functions_in_tuples_are_never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    mutable = _Mutable()
    net = pnn.Network([mutable, _Chain((_times_a_global, abs)), pnn.Dense(1)], 4, backend="numpy")
    before = net.predict(rows(1))
    mutable.factor = 2.0
    np.testing.assert_allclose(net.predict(rows(1)), 2 * before, rtol=1e-6)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    np.testing.assert_allclose(net.predict(rows(1)), 6 * before, rtol=1e-6)


def test_a_schedule_and_an_ensemble_are_never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FACTOR", 0.0)
    schedule = lambda step: 0.01 * FACTOR + 0.0 * step  # noqa: E731
    net = pnn.Network([pnn.Dense(1, _times_a_global)], 4, optimizer=pnn.SGD(schedule), backend="numpy")
    ens = pnn.Ensemble(pnn.Network([pnn.Dense(1, _times_a_global)], 4, backend="numpy"), 2)
    weights = net.parameters["dense_1.kernel"].copy()
    net.fit(rows(20), np.ones((20, 1)))
    np.testing.assert_array_equal(net.parameters["dense_1.kernel"], weights)
    assert not ens.predict(rows(9)).any()
    monkeypatch.setitem(globals(), "FACTOR", 1.0)
    net.fit(rows(20), np.ones((20, 1)))
    assert (net.parameters["dense_1.kernel"] != weights).all()
    assert ens.predict(rows(9)).all()


class _WithLambda(_Times):
    helper = lambda self, x: x  # noqa: E731


def test_a_network_can_be_pickled_after_a_prediction() -> None:
    net = pnn.Network([_WithLambda(), pnn.Dense(1)], 4, backend="numpy")
    expected = net.predict(rows(3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net)).predict(rows(3)), expected)
