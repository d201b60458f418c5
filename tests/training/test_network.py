"""Network: what fit, predict and evaluate promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn import losses, random
from portablenn.callbacks import Callback
from portablenn.data.dataset import split_rows
from portablenn.runtime.arrays import to_numpy


def _blobs(rows: int = 200, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    return (rng.normal(size=(rows, 2)) + 4.0 * np.stack([np.cos(y * 2.1), np.sin(y * 2.1)], axis=1)).astype("f4"), y


def test_the_digit_reader_has_13002_parameters() -> None:
    net = pnn.mlp([784, 16, 16, 10], "relu", loss="softmax_cross_entropy", optimizer=pnn.SGD(0.1), backend="numpy")
    assert net.parameter_count == 13002
    assert {name: tuple(p.shape) for name, p in net.parameters.items()} == {
        "dense_1.kernel": (784, 16), "dense_1.bias": (16,), "dense_2.kernel": (16, 16), "dense_2.bias": (16,),
        "dense_3.kernel": (16, 10), "dense_3.bias": (10,),
    }  # fmt: skip
    assert repr(net) == "<Network 784-16-16-10, 13,002 parameters, float32, numpy>"


def test_names_count_for_each_kind() -> None:
    net = pnn.Network([pnn.Dense(2), pnn.BatchNorm(), pnn.Dropout(0.5), pnn.Dense(3), pnn.BatchNorm()], inputs=2)
    assert [name for name, _ in net.model.layers] == ["dense_1", "batch_norm_1", "dropout_1", "dense_2", "batch_norm_2"]
    assert "batch_norm_2.scale" in net.parameters
    assert set(net.statistics) == {f"batch_norm_{i}.{s}" for i in (1, 2) for s in ("mean", "variance")}


def test_all_parameters_are_views_of_one_vector() -> None:
    net = pnn.mlp([3, 4, 2], backend="numpy")
    assert net.state.theta.shape == (net.parameter_count,)
    assert all(np.shares_memory(p, net.state.theta) for p in net.parameters.values())


@pytest.mark.parametrize("order", ["shuffle", "sequential", "random"])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 200, 1000, None])
def test_any_order_and_batch_size_learns(order: str, batch_size: int | None) -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 8, 3], loss="softmax_cross_entropy", optimizer=pnn.Adam(0.02))
    history = net.fit(X, y, epochs=30 if batch_size and batch_size < 100 else 150, batch_size=batch_size, order=order)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert net.evaluate(X, y)["accuracy"] > 0.95


def _one_step_by_hand(net: pnn.Network, X: np.ndarray, y: np.ndarray, rate: float) -> dict[str, np.ndarray]:
    """A linear network's step on the mean squared error."""
    w, b = (to_numpy(net.parameters[f"dense_1.{name}"]) for name in ("kernel", "bias"))
    slope = 2 * (X @ w + b - y) / len(X)
    return {"dense_1.kernel": w - rate * X.T @ slope, "dense_1.bias": b - rate * slope.sum(0)}


def test_batches_follow_the_order_that_the_seed_gives() -> None:
    X, y = np.arange(14.0).reshape(7, 2) / 10, np.arange(7.0)[:, None]
    order = random.permutations(random.new_key(5, random.ORDER), 0, 2, 7)
    expected = pnn.mlp([2, 1], optimizer=pnn.SGD(0.1), dtype="float64", seed=5)
    for epoch in range(2):
        for rows in (order[epoch][:3], order[epoch][3:6], order[epoch][6:]):
            expected.set_parameters(_one_step_by_hand(expected, X[rows], y[rows], 0.1))
    net = pnn.mlp([2, 1], optimizer=pnn.SGD(0.1), dtype="float64", seed=5)
    net.fit(X, y, epochs=2, batch_size=3)
    for name, value in net.parameters.items():
        np.testing.assert_allclose(value, expected.parameters[name], rtol=1e-12)
    assert (net.epochs, net.steps) == (2, 6)


@pytest.mark.parametrize("optimizer", [pnn.Adam(0.02), pnn.SGD(0.1, momentum=0.9)])
@pytest.mark.parametrize("batch_size", [16, 50, None])
def test_a_second_fit_continues_from_the_current_state(optimizer: Any, batch_size: int | None) -> None:
    X, y = _blobs()
    layers = [pnn.Dense(8, "relu"), pnn.Dropout(0.2), pnn.BatchNorm(), pnn.Dense(3)]
    once = pnn.Network(layers, inputs=2, loss="softmax_cross_entropy", optimizer=optimizer)
    twice = pnn.Network(layers, inputs=2, loss="softmax_cross_entropy", optimizer=optimizer)
    together = once.fit(X, y, epochs=7, batch_size=batch_size)["loss"]
    apart = (
        twice.fit(X, y, epochs=3, batch_size=batch_size)["loss"]
        + twice.fit(X, y, epochs=4, batch_size=batch_size)["loss"]
    )
    assert together == apart
    for name, value in once.parameters.items():
        np.testing.assert_array_equal(value, twice.parameters[name])
    for name, value in once.statistics.items():
        np.testing.assert_array_equal(value, twice.statistics[name])


def test_looking_after_each_epoch_changes_nothing() -> None:
    X, y = _blobs()
    quiet, watched = (pnn.mlp([2, 8, 3], loss="softmax_cross_entropy") for _ in range(2))
    quiet.fit(X, y, epochs=5)
    watched.fit(X, y, epochs=5, validation_data=(X, y), callbacks=[Callback()])
    np.testing.assert_array_equal(quiet.state.theta, watched.state.theta)


def test_history_holds_an_entry_an_epoch() -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 8, 3], loss="softmax_cross_entropy", optimizer=pnn.Adam(0.02))
    history = net.fit(X, y, epochs=4, validation_split=0.25)
    assert {name: len(values) for name, values in history.items()} == {"loss": 4, "val_loss": 4, "val_accuracy": 4}
    assert history is net.history
    assert all(isinstance(v, float) for values in history.values() for v in values)


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows() -> None:
    X, y = _blobs(10)
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.0))
    expected = net.evaluate(X, y)["loss"]
    assert net.fit(X, y, batch_size=4)["loss"][0] == pytest.approx(expected, rel=1e-6)
    summed = pnn.mlp([2, 3], loss=losses.SoftmaxCrossEntropy("sum"), optimizer=pnn.SGD(0.0))
    assert summed.fit(X, y, batch_size=4)["loss"][0] == pytest.approx(10 * expected, rel=1e-6)


def test_validation_rows_are_not_trained_on() -> None:
    X, y = _blobs(40)
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    rows, apart = split_rows(net.seed, 40, 0.25)
    assert (len(rows), len(apart)) == (30, 10)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows, apart])), np.arange(40))
    spoilt = X.copy()
    spoilt[apart] *= 100.0
    other = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    net.fit(X, y, epochs=3, batch_size=8, validation_split=0.25)
    other.fit(spoilt, y, epochs=3, batch_size=8, validation_split=0.25)
    np.testing.assert_array_equal(net.state.theta, other.state.theta)


def test_a_weight_of_two_is_a_row_twice() -> None:
    X, y = _blobs(12)
    weights = np.ones(12)
    weights[3:6] = 2.0
    weighted, doubled = (pnn.mlp([2, 4, 3], "tanh", loss="softmax_cross_entropy", dtype="float64") for _ in range(2))
    weighted.fit(X, y, epochs=20, batch_size=None, sample_weight=weights)
    doubled.fit(np.concatenate([X, X[3:6]]), np.concatenate([y, y[3:6]]), epochs=20, batch_size=None)
    np.testing.assert_allclose(weighted.state.theta, doubled.state.theta, rtol=1e-9)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_weights_and_class_weights_go_into_every_loss(loss: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2))
    classes = losses.LOSSES[loss].targets == "classes"
    y = rng.integers(0, 2, 20) if classes else rng.uniform(0, 2, (20, 2))
    sizes = [2, 2]
    weights = np.where(np.arange(20) < 10, 1.0, 0.0)
    weighted, cut = (pnn.mlp(sizes, loss=loss, optimizer=pnn.SGD(0.05), dtype="float64", seed=1) for _ in range(2))
    weighted.fit(X, y, epochs=5, batch_size=None, sample_weight=weights)
    cut.fit(X[:10], y[:10], epochs=5, batch_size=None)
    np.testing.assert_allclose(weighted.state.theta, cut.state.theta, rtol=1e-10)
    if classes:
        by_class, by_row = (pnn.mlp(sizes, loss=loss, optimizer=pnn.SGD(0.05), dtype="float64") for _ in range(2))
        by_class.fit(X, y, epochs=5, class_weight={1: 3.0})
        by_row.fit(X, y, epochs=5, sample_weight=np.where(y == 1, 3.0, 1.0))
        np.testing.assert_array_equal(by_class.state.theta, by_row.state.theta)


def test_balanced_class_weights_are_rows_over_classes_times_rows_of_the_class() -> None:
    X, y = np.random.default_rng(0).normal(size=(12, 2)), np.asarray([0] * 9 + [1] * 3)
    balanced, given = (pnn.mlp([2, 1], loss="sigmoid_cross_entropy") for _ in range(2))
    balanced.fit(X, y, epochs=3, class_weight="balanced")
    given.fit(X, y, epochs=3, class_weight={0: 12 / 18, 1: 12 / 6})
    np.testing.assert_array_equal(balanced.state.theta, given.state.theta)


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), (False, True)])
@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "hinge", "perceptron"])
def test_two_classes_need_one_output_and_come_back_as_they_were(labels: Any, loss: str) -> None:
    X, y = _blobs(100, 2)
    given = np.asarray(labels)[y]
    net = pnn.mlp([2, 4, 1], "tanh", loss=loss, optimizer=pnn.Adam(0.05))
    net.fit(X, given, epochs=40)
    assert net.evaluate(X, given)["accuracy"] > 0.97
    assert set(np.unique(net.predict(X))) == {int(label) for label in labels}
    assert (net.predict(X) == given).mean() > 0.97
    if loss == "sigmoid_cross_entropy":
        probability = net.predict_proba(X)
        assert probability.shape == (100, 2)
        np.testing.assert_allclose(probability.sum(1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "hinge"])
def test_many_classes_may_be_given_as_numbers_or_rows(loss: str) -> None:
    X, y = _blobs()
    numbers, rows = (pnn.mlp([2, 8, 3], loss=loss, optimizer=pnn.Adam(0.02)) for _ in range(2))
    numbers.fit(X, y, epochs=10)
    rows.fit(X, np.eye(3)[y], epochs=10)
    np.testing.assert_allclose(numbers.state.theta, rows.state.theta, rtol=1e-6)
    assert numbers.predict(X).shape == (200,)


def test_regression_predicts_values() -> None:
    X = np.linspace(-1, 1, 50)[:, None]
    net = pnn.mlp([1, 16, 2], "tanh", optimizer=pnn.Adam(0.01), dtype="float64")
    net.fit(X, np.concatenate([X**2, -X], axis=1), epochs=600)
    assert net.predict(X).shape == (50, 2)
    assert net.evaluate(X, np.concatenate([X**2, -X], axis=1))["loss"] < 1e-3
    single = pnn.mlp([1, 4, 1])
    assert single.predict(X).shape == (50,)
    assert single.forward(X).shape == (50, 1)


def test_a_poisson_network_predicts_rates() -> None:
    X = np.asarray([[0.0], [1.0]] * 50)
    y = np.asarray([2.0, 5.0] * 50)
    net = pnn.mlp([1, 1], loss="poisson", optimizer=pnn.Adam(0.05))
    net.fit(X, y, epochs=400)
    np.testing.assert_allclose(net.predict([[0.0], [1.0]]), [2.0, 5.0], rtol=0.02)
    np.testing.assert_allclose(net.forward([[0.0]]), [[np.log(2.0)]], rtol=0.05)


def test_lbfgs_finds_the_minimum_of_a_linear_network() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 1))
    net = pnn.mlp([4, 1], optimizer=pnn.LBFGS(tolerance=1e-10), dtype="float64")
    history = net.fit(X, y, epochs=100)
    solution = np.linalg.lstsq(np.column_stack([X, np.ones(30)]), y, rcond=None)[0]
    # a loss that is exact to 1e-16 tells lengths apart to its root, 1e-8
    np.testing.assert_allclose(net.parameters["dense_1.kernel"], solution[:4], rtol=1e-7)
    assert len(history["loss"]) < 30
    # at the minimum the last bit of the loss may go either way
    assert all(b <= a * (1 + 1e-14) for a, b in zip(history["loss"], history["loss"][1:], strict=False))


def test_lbfgs_minimises_the_penalty_too() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 1))
    net = pnn.Network(
        [pnn.Dense(1, use_bias=False)],
        inputs=4,
        loss=losses.HalfSquaredError("sum"),
        optimizer=pnn.LBFGS(l2=3.0),
        dtype="float64",
    )
    net.fit(X, y, epochs=100)
    ridge = np.linalg.solve(X.T @ X + 3.0 * np.eye(4), X.T @ y)
    np.testing.assert_allclose(net.parameters["dense_1.kernel"], ridge, rtol=1e-6)


def test_lbfgs_beats_sgd_on_rosenbrocks_valley() -> None:
    from portablenn.nn.lbfgs import minimize

    def valley(v: Any) -> Any:
        return 100.0 * (v[1] - v[0] ** 2) ** 2 + (1.0 - v[0]) ** 2

    both = pnn.value_and_grad(valley)

    def objective(v: Any) -> Any:
        value, gradient = both(v)
        return float(value), gradient

    *_, (v, loss, *_) = minimize(
        np, objective, np.asarray([-1.2, 1.0]), memory=10, tolerance=1e-9, iterations=100, evaluations=25
    )
    np.testing.assert_allclose(v, [1.0, 1.0], rtol=1e-7)
    assert loss < 1e-14


def test_penalties_are_for_kernels_alone() -> None:
    X, y = np.zeros((4, 2)), np.zeros(4)
    net = pnn.Network(
        [pnn.Dense(1, kernel_init="ones", bias_init="ones")], inputs=2, optimizer=pnn.SGD(0.1, l2=1.0), dtype="float64"
    )
    net.fit(X, y, batch_size=None)
    np.testing.assert_allclose(net.parameters["dense_1.kernel"], [[0.9], [0.9]])
    np.testing.assert_allclose(net.parameters["dense_1.bias"], [0.8])  # from the loss alone


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64", "bool"])
def test_inputs_of_any_real_dtype_are_converted_batch_by_batch(dtype: str) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, (30, 3)).astype(dtype), rng.integers(0, 2, 30)
    nets = [pnn.mlp([3, 4, 2], loss="softmax_cross_entropy") for _ in range(2)]
    nets[0].fit(X, y, epochs=3, batch_size=8)
    nets[1].fit(X.astype("float32"), y, epochs=3, batch_size=8)
    np.testing.assert_array_equal(nets[0].state.theta, nets[1].state.theta)
    np.testing.assert_array_equal(nets[0].predict(X), nets[1].predict(X.astype("float32")))


@pytest.mark.parametrize("order", ["F", "sliced"])
def test_inputs_may_lie_in_memory_as_they_like(order: str) -> None:
    X, y = _blobs()
    other = np.asfortranarray(X) if order == "F" else np.repeat(X, 2, axis=0)[::2]
    nets = [pnn.mlp([2, 4, 3], loss="softmax_cross_entropy") for _ in range(2)]
    for net, x in zip(nets, (X, other), strict=True):
        net.fit(x, y, epochs=2)
    np.testing.assert_array_equal(nets[0].state.theta, nets[1].state.theta)


def test_lists_and_tables_are_taken() -> None:
    net = pnn.mlp([2, 1])
    net.fit([[1, 2], [3, 4]], [1.0, 2.0])
    assert isinstance(net.predict([[1, 2]]), np.ndarray)


def test_predictions_of_many_rows_equal_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 8, 3], loss="softmax_cross_entropy")
    whole, figures = net.forward(X), net.evaluate(X, y, sample_weight=np.arange(200.0))
    for module in ("network", "prediction"):
        monkeypatch.setattr(f"portablenn.training.{module}.ROWS", 64)
    np.testing.assert_allclose(net.forward(X), whole, rtol=1e-6, atol=1e-6)  # sums may be in another order
    assert net.evaluate(X, y, sample_weight=np.arange(200.0)) == pytest.approx(figures, rel=1e-6)


def test_set_parameters_sets_those_named() -> None:
    net = pnn.Network([pnn.Dense(2), pnn.BatchNorm()], inputs=3)
    before = {name: np.asarray(value).copy() for name, value in net.parameters.items()}
    net.set_parameters({"dense_1.bias": [1.0, 2.0], "batch_norm_1.mean": [3.0, 4.0]})
    assert to_numpy(net.parameters["dense_1.bias"]).tolist() == [1.0, 2.0]
    assert to_numpy(net.statistics["batch_norm_1.mean"]).tolist() == [3.0, 4.0]
    np.testing.assert_array_equal(net.parameters["dense_1.kernel"], before["dense_1.kernel"])


@dataclass(frozen=True)
class Scale:
    """A user's own layer."""

    start: float = 1.0

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {"factor": np.full(inputs, self.start)}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        return x * params["factor"]


def test_a_users_layer_trains_like_the_others() -> None:
    X = np.random.default_rng(0).normal(size=(50, 2))
    net = pnn.Network([Scale()], inputs=2, optimizer=pnn.Adam(0.05), dtype="float64")
    net.fit(X, X * [3.0, -2.0], epochs=200)
    np.testing.assert_allclose(net.parameters["scale_1.factor"], [3.0, -2.0], rtol=1e-3)


def test_a_users_loss_trains_like_the_others() -> None:
    X, y = _blobs()
    targets = np.eye(3)[y]
    own = pnn.mlp([2, 8, 3], loss=lambda p, t: pnn.xp.sum((p - t) ** 2, axis=1))
    named = pnn.mlp([2, 8, 3], loss="squared_error")
    own.fit(X, targets, epochs=3)
    named.fit(X, targets, epochs=3)
    np.testing.assert_allclose(own.state.theta, named.state.theta, rtol=1e-6)


def test_a_users_activation_trains_like_the_others() -> None:
    X, y = _blobs()
    own = pnn.mlp([2, 8, 3], lambda x: pnn.xp.maximum(x, 0.0), kernel_init="he_uniform", loss="softmax_cross_entropy")
    named = pnn.mlp([2, 8, 3], "relu", kernel_init="he_uniform", loss="softmax_cross_entropy")
    own.fit(X, y, epochs=3)
    named.fit(X, y, epochs=3)
    np.testing.assert_array_equal(own.state.theta, named.state.theta)


def test_dropout_is_for_training_only_and_differs_from_step_to_step() -> None:
    X, y = np.ones((4, 3)), np.zeros(4)
    net = pnn.Network([pnn.Dropout(0.5), pnn.Dense(1, kernel_init="ones")], inputs=3, optimizer=pnn.SGD(0.0))
    assert net.predict(X).tolist() == [3.0] * 4
    assert len(set(net.fit(X, y, epochs=20, batch_size=None)["loss"])) > 3


def test_callbacks_are_called_and_can_end_training() -> None:
    told: list[Any] = []

    class Listener(Callback):
        def on_train_begin(self, network: Any, epochs: int) -> None:
            told.append(("begin", epochs))

        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
            told.append((epoch, sorted(logs)))
            return epoch == 3

        def on_train_end(self, network: Any) -> None:
            told.append("end")

    X, y = _blobs()
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    history = net.fit(X, y, epochs=9, callbacks=[Listener()])
    assert told == [("begin", 9), (1, ["loss"]), (2, ["loss"]), (3, ["loss"]), "end"]
    assert len(history["loss"]) == net.epochs == 3


def test_fit_is_silent_unless_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    net.fit(X, y, epochs=2)
    assert capsys.readouterr().out == ""
    net.fit(X, y, epochs=2, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")


def test_an_interrupted_fit_leaves_the_last_whole_epoch() -> None:
    class Interrupt(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    X, y = _blobs()
    stopped, whole = (pnn.mlp([2, 3], loss="softmax_cross_entropy") for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, y, epochs=5, callbacks=[Interrupt()])
    whole.fit(X, y, epochs=2)
    np.testing.assert_array_equal(stopped.state.theta, whole.state.theta)
    assert len(stopped.history["loss"]) == 2


def test_zero_epochs_change_nothing() -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    before = to_numpy(net.state.theta).copy()
    assert net.fit(X, y, epochs=0) == {}
    np.testing.assert_array_equal(net.state.theta, before)


def test_steps_per_epoch_counts_draws() -> None:
    X, y = _blobs()
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy")
    history = net.fit(X, y, epochs=3, batch_size=5, order="random", steps_per_epoch=11)
    assert (len(history["loss"]), net.steps) == (3, 33)


def test_real_digits_are_read_as_well_as_scikit_learn_reads_them() -> None:
    """MNIST, 8,000 to train and 2,000 to test, three seeds; scikit-learn's own network reaches 0.917."""
    import os
    import runpy
    from pathlib import Path

    folder = os.environ.get("PORTABLENN_DATA")
    if not folder:
        pytest.skip("PORTABLENN_DATA names no folder of MNIST files")
    from portablenn.data import digits

    example = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "digits.py"))
    found = digits(folder)
    accuracies = []
    for seed in range(3):
        X_train, X_test, y_train, y_test = example["split"](found.images, found.labels, seed=seed)
        net = example["digit_classifier"](seed=seed, backend="numpy")
        net.fit(X_train, y_train, epochs=30, batch_size=32)
        accuracies.append(net.evaluate(X_test, y_test)["accuracy"])
    assert np.mean(accuracies) >= 0.915


def test_rows_of_several_labels_come_back_as_rows() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3))
    Y = (X > 0).astype(int)
    net = pnn.mlp([3, 16, 3], loss="sigmoid_cross_entropy", optimizer=pnn.Adam(0.05))
    net.fit(X, Y, epochs=40)
    assert net.predict(X).shape == (200, 3)
    assert (net.predict(X) == Y).mean() == pytest.approx(net.evaluate(X, Y)["accuracy"], abs=1e-6)
    with pytest.raises(ValueError, match="rows whose sum is not 1.*sigmoid_cross_entropy"):
        pnn.mlp([3, 3], loss="softmax_cross_entropy").fit(X, Y)


def test_a_loss_that_is_not_finite_is_warned_of_once() -> None:
    X = np.linspace(0, 1, 20)[:, None]
    net = pnn.mlp([1, 16, 1], optimizer=pnn.SGD(1e9))
    with pytest.warns(RuntimeWarning, match="the loss is .* from epoch .* lower the learning rate") as told:
        net.fit(X, X, epochs=30)
    assert len(told) == 1


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict:device1", "torch", "jax"])
def test_networks_can_be_copied_and_pickled(backend: str) -> None:
    import copy
    import pickle

    pytest.importorskip(backend.partition(":")[0])
    X, y = _blobs()
    net = pnn.mlp([2, 8, 3], loss="softmax_cross_entropy", backend=backend)
    net.fit(X, y, epochs=2)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.backend == net.backend
        np.testing.assert_array_equal(twin.predict(X), net.predict(X))
        before = net.backend.to_numpy(net.state.theta).copy()
        twin.fit(X, y, epochs=1)
        np.testing.assert_array_equal(net.backend.to_numpy(net.state.theta), before)


@dataclass(frozen=True)
class Noise:
    """A user's layer that draws random numbers."""

    spread: float

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any, random: Any = None) -> Any:
        return x if random is None else x + self.spread * (random.uniform(x.shape, x.dtype) - 0.5)


def test_a_users_layer_draws_the_same_numbers_everywhere(other_library: Any) -> None:
    def losses_of(backend: str) -> list[float]:
        net = pnn.Network([Noise(2.0), pnn.Dense(1, kernel_init="ones")], 3, optimizer=pnn.SGD(0.0), backend=backend)
        return net.fit(np.ones((4, 3)), np.zeros(4), epochs=5, batch_size=None)["loss"]

    assert len(set(losses_of("numpy"))) == 5
    assert losses_of(other_library.name) == pytest.approx(losses_of("numpy"), rel=1e-6)


def test_a_table_of_numbers_of_several_kinds_is_taken() -> None:
    mixed = np.asarray([[1.0, True], [2.0, False], [3, True]], dtype=object)
    net = pnn.mlp([2, 1])
    net.fit(mixed, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(net.predict(mixed), net.predict(mixed.astype(float)))


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array"])
def test_sparse_rows_are_trained_and_predicted_as_dense_ones(form: str, library: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x = np.where(np.random.default_rng(0).random((60, 5)) > 0.6, 1.5, 0.0)
    y = np.arange(60) % 3
    nets = []
    for rows in (x, getattr(sparse, form)(x)):
        net = pnn.mlp([5, 4, 3], loss="softmax_cross_entropy", dtype="float64", backend=library.name)
        history = net.fit(rows, y, epochs=3, batch_size=16, validation_split=0.25)
        history |= net.fit(rows, y, epochs=2, batch_size=None, order="sequential")
        nets.append((net, history, net.evaluate(rows, y), library.numpy(net.predict_proba(rows))))
    (_, dense, figures, probabilities), (_, history, same, others) = nets
    for name in dense:
        np.testing.assert_allclose(history[name], dense[name], rtol=1e-9)
    assert same == pytest.approx(figures, rel=1e-9)
    np.testing.assert_allclose(others, probabilities, rtol=1e-9)


def test_rows_of_a_source_come_in_parts_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for module in ("data.batching", "training.lbfgs_fit"):
        monkeypatch.setattr(f"portablenn.{module}.SOURCE_SIZE", 5 * 40)  # 40 rows of five
    x = np.random.default_rng(0).random((130, 5))
    y = np.arange(130) % 2
    for optimizer in (pnn.Adam(), pnn.LBFGS(), pnn.LBFGS(l2=0.1, penalty_per_row=True)):
        nets = [pnn.mlp([5, 1], loss="sigmoid_cross_entropy", optimizer=optimizer, dtype="float64") for _ in range(2)]
        a, b = (
            net.fit(rows, y, epochs=4, batch_size=16) for net, rows in zip(nets, (x, sparse.csr_array(x)), strict=True)
        )
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-9)


def test_sparse_rows_that_are_wrong_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    net = pnn.mlp([3, 1])
    with pytest.raises(ValueError, match=r"expected 3 columns in X \(the network's inputs\), got 2"):
        net.fit(sparse.csr_array(np.eye(2)), [0.0, 1.0])
    with pytest.raises(ValueError, match="X holds NaN or infinity"):
        net.fit(sparse.csr_array(np.diag([1.0, np.nan, 1.0])), [0.0, 1.0, 2.0])
    with pytest.raises(TypeError, match="y must be dense, got the sparse"):
        net.fit(np.eye(3), sparse.csr_array(np.eye(3)))


def test_an_order_of_ones_own_is_taken_epoch_by_epoch(library: Any) -> None:
    x, y = library.array(np.eye(6), "float64"), library.array(np.arange(6.0))
    asked: list[int] = []

    def backwards(epoch: int) -> list[int]:
        asked.append(epoch)
        return [5, 4, 3, 2, 1, 0]

    nets = [pnn.mlp([6, 1], dtype="float64", optimizer=pnn.SGD(0.1)) for _ in range(2)]
    own = nets[0].fit(x, y, epochs=3, batch_size=2, order=backwards)
    same = nets[1].fit(
        library.array(np.eye(6)[::-1].copy(), "float64"), library.array(np.arange(6.0)[::-1].copy()), 3, 2, "sequential"
    )
    np.testing.assert_allclose(own["loss"], same["loss"], rtol=1e-12)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("wrong", [[0, 1], [0, 1, 2, 9], [0, 1, 2, -1], [0.0, 1.0, 2.0, 3.0]])
def test_an_order_that_is_none_is_refused_and_changes_nothing(wrong: Any) -> None:
    net = pnn.mlp([4, 1])
    before = np.asarray(net.state.theta).copy()
    with pytest.raises(ValueError, match="order must return 4 integer row numbers"):
        net.fit(np.eye(4), np.arange(4.0), batch_size=2, order=lambda epoch: wrong)
    np.testing.assert_array_equal(net.state.theta, before)


def test_a_callback_lowers_the_rate_from_the_next_epoch_on(library: Any) -> None:
    x, y = library.array(np.eye(4), "float64"), library.array(np.arange(4.0))

    class Lower(pnn.callbacks.Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: Any) -> None:
            network.optimizer = replace(network.optimizer, learning_rate=0.1 / 2**epoch)

    nets = [pnn.mlp([4, 1], dtype="float64", optimizer=pnn.SGD(0.1, momentum=0.9)) for _ in range(2)]
    lowered = nets[0].fit(x, y, epochs=3, order="sequential", callbacks=[Lower()])["loss"]
    by_hand = []
    for epoch in range(3):
        nets[1].optimizer = pnn.SGD(0.1 / 2**epoch, momentum=0.9)  # whose velocity stays
        by_hand += nets[1].fit(x, y, order="sequential")["loss"]
    np.testing.assert_allclose(lowered, by_hand, rtol=1e-12)


def test_another_kind_of_optimizer_starts_from_zero_and_not_within_a_fit() -> None:
    net = pnn.mlp([2, 1], optimizer=pnn.Adam())
    net.fit(np.eye(2), [0.0, 1.0])
    net.optimizer = "sgd"
    assert net.state.slots == ()
    net.optimizer = pnn.Adam()
    assert all(not np.asarray(slot).any() for slot in net.state.slots)

    class Replace(pnn.callbacks.Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: Any) -> None:
            network.optimizer = "sgd"

    with pytest.raises(ValueError, match="replace it between calls of fit"):
        net.fit(np.eye(2), [0.0, 1.0], epochs=2, callbacks=[Replace()])


def test_penalties_are_part_of_the_loss_and_shared_ones_shrink_with_the_rows() -> None:
    x, y = np.ones((10, 1)), np.full(10, 2.0)
    facts: dict[str, Any] = {"dtype": "float64", "kernel_init": "ones"}
    for shared, weights, expected in (
        (False, None, 1.0 + 0.5),
        (True, None, 1.0 + 0.05),
        (True, np.full(10, 2.0), 1.0 + 0.025),
    ):
        net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0, l2=1.0, penalty_per_row=shared), **facts)
        assert net.fit(x, y, batch_size=None, sample_weight=weights)["loss"] == pytest.approx([expected])


def test_a_batch_of_rows_that_do_not_count_changes_nothing(library: Any) -> None:
    x, y = library.array(np.eye(4), "float64"), library.array(np.arange(4.0))
    net = pnn.mlp([4, 1], dtype="float64", optimizer=pnn.SGD(0.1))
    before = library.numpy(net.parameters["dense_1.kernel"]).copy()
    history = net.fit(x, y, batch_size=2, order="sequential", sample_weight=[0.0, 0.0, 1.0, 1.0])
    after = library.numpy(net.parameters["dense_1.kernel"])
    assert np.isfinite(history["loss"]).all()
    np.testing.assert_array_equal(after[:2], before[:2])


def test_lbfgs_keeps_to_its_budget() -> None:
    x = np.random.default_rng(0).random((50, 4))
    net = pnn.mlp([4, 8, 1], optimizer=pnn.LBFGS(budget=7), dtype="float64")
    history = net.fit(x, x.sum(axis=1) ** 2, epochs=100)
    assert 7 <= history.evaluations <= 7 + 25
    assert len(history["loss"]) < 100


class Noting(pnn.Backend):
    """NumPy through the interpreter; notes when steps are run, and when their losses are read."""

    guarded = False

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__("noting", pnn.get_backend("numpy").xp)
        self.notes: list[str] = []
        self.fails_at = fails_at

    def compile_loop(self, program: Any, carried: int) -> Any:
        run = self.interpreter_loop(program, carried)

        def noted(*arguments: Any) -> Any:
            self.notes.append("run")
            if self.notes.count("run") == self.fails_at:
                raise RuntimeError("the device is lost")
            return run(*arguments)

        return noted

    def receive(self, array: Any) -> Any:
        def claim() -> np.ndarray:
            self.notes.append("read")
            return self.to_numpy(array)

        return claim


def test_losses_are_read_while_the_next_steps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((20, 2), np.float32), np.zeros(20, np.int64)
    monkeypatch.setattr("portablenn.training.loop.ROWS_PER_CALL", len(x))
    backend = Noting()
    history = pnn.mlp([2, 3], loss="softmax_cross_entropy", backend=backend).fit(x, y, epochs=3, batch_size=10)
    assert backend.notes == ["run", "run", "read", "run", "read", "read"]
    plain = pnn.mlp([2, 3], loss="softmax_cross_entropy", backend="numpy").fit(x, y, epochs=3, batch_size=10)
    np.testing.assert_allclose(history["loss"], plain["loss"], rtol=1e-6)


def test_a_callback_sees_the_loss_of_an_epoch_before_the_next_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((20, 2), np.float32), np.zeros(20, np.int64)
    backend, seen = Noting(), []
    ended = pnn.callbacks.Callback()
    ended.on_epoch_end = lambda network, epoch, logs: seen.append(logs["loss"])  # type: ignore[method-assign]
    history = pnn.mlp([2, 3], loss="softmax_cross_entropy", backend=backend).fit(x, y, epochs=2, callbacks=[ended])
    assert backend.notes == ["run", "read", "run", "read"]
    assert seen == history["loss"]


def test_after_an_error_the_history_has_every_epoch_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((20, 2), np.float32), np.zeros(20, np.int64)
    monkeypatch.setattr("portablenn.training.loop.ROWS_PER_CALL", len(x))
    net = pnn.mlp([2, 3], loss="softmax_cross_entropy", backend=Noting(fails_at=3))
    with pytest.raises(RuntimeError, match="lost"):
        net.fit(x, y, epochs=5, batch_size=10)
    assert net.epochs == len(net.history["loss"]) == 2
