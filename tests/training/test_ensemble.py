"""Each member of an ensemble is the network that it would be alone; what members predict together; early stopping; errors."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import raises

import portablenn as pnn
from portablenn import random
from portablenn.callbacks import EarlyStopping
from portablenn.data.chunks import Batching, Orders
from portablenn.files import model_file, safetensors_file
from portablenn.nn.stack import numbers_of, structure
from portablenn.training import members as members_module
from portablenn.training.orders import MembersDeviceOrders, orders_of_members
from portablenn.training.prediction import ROWS

RNG = np.random.default_rng(16)
X = RNG.normal(size=(90, 5))
CLASSES = RNG.integers(0, 3, 90)
VALUES = np.stack([X[:, 0] ** 2, X[:, 1] - X[:, 2]], axis=1)
APART = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)


def classifier(backend: Any = "numpy", **facts: Any) -> pnn.Network:
    facts = {"optimizer": pnn.Adam(0.01), "dtype": "float64", "loss": "softmax_cross_entropy"} | facts
    return pnn.mlp([5, 12, 3], "tanh", backend=backend, **facts)


def alone(network: pnn.Network, **fit: Any) -> pnn.Network:
    """The same network, new, trained alone."""
    one = pnn.Network(
        network.layers, network.inputs, network.loss, network.optimizer, network.backend, network.dtype, network.seed
    )
    one.fit(**fit)
    return one


def check_members(ens: pnn.Ensemble, tolerance: float = 1e-12, **fit: Any) -> None:
    for network in ens.networks:
        one, numpy = alone(network, **fit), network.backend.to_numpy
        assert (network.steps, network.epochs) == (one.steps, one.epochs)
        for found, meant in zip(
            (network.state.theta, *network.state.slots, network.state.statistics),
            (one.state.theta, *one.state.slots, one.state.statistics), strict=True,
        ):  # fmt: skip
            np.testing.assert_allclose(numpy(found), numpy(meant), rtol=1e-9, atol=tolerance)
        assert network.history.keys() == one.history.keys()
        for name, values in one.history.items():
            np.testing.assert_allclose(network.history[name], values, rtol=1e-9)


def check_predictions(ens: pnn.Ensemble, x: Any, y: Any) -> None:
    """What the ensemble says of each member is what the network says."""
    numpy = ens.member(0).backend.to_numpy
    each = [numpy(network.predict(x)) for network in ens.networks]
    np.testing.assert_allclose(numpy(ens.predict_members(x)), each, rtol=1e-9, atol=1e-12)
    for name, found in ens.scores(x, y).items():
        np.testing.assert_allclose(found, [network.evaluate(x, y)[name] for network in ens.networks], rtol=1e-9)
    assert numpy(ens.predict(x)).shape == each[0].shape


def test_members_are_the_networks_that_they_would_be_alone(library: Any) -> None:
    rates = [{"seed": seed, "optimizer.learning_rate": rate} for seed in (0, 7) for rate in (0.001, 0.03, 0.1)]
    ens = pnn.Ensemble(classifier(library.name), members=rates)
    x, y = library.array(X), library.array(CLASSES)
    fit = {"X": x, "y": y, "epochs": 3, "batch_size": 32, "validation_data": (APART[0], APART[1])}
    history = ens.fit(**fit)
    assert np.asarray(history["val_accuracy"]).shape == (3, 6)
    check_members(ens, **fit)
    assert type(ens.predict(x)) is type(x)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("network", "members", "fit"),
    [
        (classifier(optimizer=pnn.SGD(0.1, momentum=0.9)), [{"optimizer.momentum": m} for m in (0.0, 0.5, 0.9)], {}),
        (classifier(optimizer=pnn.AdamW(0.01)),
         [{"optimizer.weight_decay": w, "optimizer.l1": w / 2, "seed": 3} for w in (0.0, 0.01, 0.1)], {}),
        (classifier(optimizer=pnn.RMSprop(0.01, clip_norm=1.0, l2=0.1, penalty_per_row=True)),
         [{"optimizer.clip_norm": c, "optimizer.decay": d, "optimizer.epsilon": 1e-6 / d} for c in (0.1, 1.0) for d in (0.5, 0.9)], {}),
        (classifier(optimizer=pnn.Adagrad(0.1, clip_value=0.01)), [{"optimizer.clip_value": c} for c in (0.001, 1.0)], {}),
        (classifier(optimizer=pnn.Adam(pnn.schedules.CosineDecay(0.1, 20))),
         [{"optimizer.learning_rate.start": r, "optimizer.learning_rate.end": r / 9} for r in (0.01, 0.1)], {}),
        (classifier(optimizer=pnn.SGD(pnn.schedules.WarmUp(5, then=pnn.schedules.ExponentialDecay(0.1, 0.5, 7)))),
         [{"optimizer.learning_rate.then.factor": f} for f in (0.3, 0.9)], {}),
        (classifier(), [{"optimizer": pnn.SGD(0.1)}, {"optimizer": pnn.Adam(0.1)}, {"optimizer": pnn.SGD(0.2)}], {}),
        (classifier(), [{"dense_1.units": n, "dense_1.activation": a} for n in (4, 9) for a in ("relu", "tanh")], {}),
        (pnn.Network([pnn.Dense(8, "relu"), pnn.BatchNorm(), pnn.Dropout(0.3), pnn.Dense(3)], 5, "softmax_cross_entropy",
                     backend="numpy", dtype="float64"),
         [{"seed": s, "dropout_1.rate": r, "batch_norm_1.momentum": m} for s, r, m in ((1, 0.3, 0.9), (2, 0.3, 0.5), (1, 0.6, 0.9))],
         {}),
        (pnn.Network([pnn.Dense(8, "relu"), pnn.BatchNorm(), pnn.Dense(3)], 5, "softmax_cross_entropy", backend="numpy",
                     dtype="float64", optimizer=pnn.SGD(0.1)), [{"batch_norm_1.epsilon": e} for e in (1e-5, 0.1, 3.0)],
         {"validation_data": APART}),
        (classifier(), 5, {"batch_size": 90}),
        (classifier(), 5, {"batch_size": None, "class_weight": "balanced"}),
        (classifier(), 5, {"order": "sequential", "batch_size": 45}),
        (classifier(), 5, {"order": "random", "steps_per_epoch": 4, "sample_weight": np.arange(90.0)}),
        (pnn.mlp([5, 6, 2], loss="squared_error", backend="numpy", dtype="float64"), 3, {"y": VALUES}),
        (pnn.mlp([5, 6, 2], loss=pnn.losses.get("huber"), backend="numpy", dtype="float64"),
         [{"loss.delta": d} for d in (0.1, 1.0, 3.0)], {"y": VALUES}),
        (pnn.mlp([5, 6, 1], loss="sigmoid_cross_entropy", backend="numpy", dtype="float64"), 3, {"y": CLASSES > 0}),
        (pnn.mlp([5, 6, 1], loss="hinge", backend="numpy", dtype="float64"), 3, {"y": np.where(CLASSES > 0, 1, -1)}),
    ],
)  # fmt: skip
def test_whatever_members_differ_in(network: pnn.Network, members: Any, fit: dict[str, Any], backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("portablenn_numba")
        network = alone(network, X=X, y=fit.get("y", CLASSES), epochs=0).to("numba")
    ens = pnn.Ensemble(network, members)
    given = {"X": X, "y": CLASSES, "epochs": 3, "batch_size": 32} | fit
    ens.fit(**given)
    check_members(ens, **given)
    check_predictions(ens, given["X"], given["y"])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_numbers_of_any_optimizer(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([pnn.SGD, pnn.Adagrad, pnn.RMSprop, pnn.Adam, pnn.AdamW]))
    names = [
        n.partition(".")[2] for n in numbers_of(classifier(optimizer=kind(clip_norm=1.0)).model) if n.startswith("opt")
    ]
    number = st.sampled_from([0.0, 0.001, 0.01, 0.2, 0.9])
    members = []
    for seed in range(data.draw(st.integers(2, 5))):
        chosen = data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        values = {name: data.draw(number) for name in chosen}
        members.append(
            {"seed": seed}
            | {f"optimizer.{n}": v or (0.5 if n in ("clip_norm", "epsilon") else v) for n, v in values.items()}
        )
    ens = pnn.Ensemble(classifier(optimizer=kind(clip_norm=1.0)), members)
    fit = {"X": X, "y": CLASSES, "epochs": 2, "batch_size": 40}
    ens.fit(**fit)
    check_members(ens, 1e-9, **fit)


def test_a_second_fit_continues_and_members_can_be_trained_alone_between(on_numpy: None) -> None:
    ens, fit = pnn.Ensemble(classifier(), 4), {"X": X, "y": CLASSES, "batch_size": 32}
    ens.fit(**fit)
    ens.member(2).fit(**fit)
    assert [n.epochs for n in ens.networks] == [1, 1, 2, 1]
    ens.fit(**fit, epochs=2)
    for network, epochs in zip(ens.networks, (3, 3, 4, 3), strict=True):
        np.testing.assert_allclose(network.state.theta, alone(network, **fit, epochs=epochs).state.theta, atol=1e-12)


def test_a_list_of_networks_is_an_ensemble(on_numpy: None) -> None:
    networks = [classifier(seed=3), pnn.mlp([5, 4, 3], loss="softmax_cross_entropy", dtype="float64", backend="numpy")]
    ens = pnn.Ensemble(networks)
    ens.fit(X, CLASSES)
    check_members(ens, X=X, y=CLASSES)
    assert ens.networks == tuple(networks)
    assert "2 structures" in repr(ens)


def test_a_shared_order_is_the_same_for_all_structures_and_blocks(
    on_numpy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pnn.get_backend("numpy")), "members_elements", 1)  # blocks of four
    ens = pnn.Ensemble(classifier(), [{"seed": 5}, *({"seed": k, "dense_1.units": 4} for k in range(6))])
    fit = {"X": X, "y": CLASSES, "epochs": 2, "batch_size": 40}
    ens.fit(**fit, share_order=True)
    orders = Orders(Batching(90, 40, "shuffle", 90), random.new_key(5, random.ORDER))
    for network in ens.networks:
        one = alone(network, **fit, order=lambda epoch: orders(epoch, 1)[0])
        np.testing.assert_allclose(network.state.theta, one.state.theta, rtol=0, atol=1e-12)


def test_a_shared_order_is_that_of_the_first_member(library: Any) -> None:
    ens = pnn.Ensemble(classifier(library.name), members=[{"seed": 5}, {"seed": 6}])
    ens.fit(X, CLASSES, epochs=2, batch_size=40, share_order=True)
    batching = Batching(90, 40, "shuffle", 90)
    orders = Orders(batching, random.new_key(5, random.ORDER))
    numpy = ens.member(1).backend.to_numpy
    one = alone(ens.member(1), X=X, y=CLASSES, epochs=2, batch_size=40, order=lambda epoch: orders(epoch, 1)[0])
    np.testing.assert_allclose(numpy(ens.member(1).state.theta), numpy(one.state.theta), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [20_000, 1 << 14])
def test_orders_of_members_made_on_a_device_are_those_made_alone(other_library: Any, count: int) -> None:
    backend, seeds = other_library.backend, [0, 1, 2**40]
    own = np.random.default_rng(1).integers(0, 30_000, (3, count))
    for subset in (None, np.sort(np.random.default_rng(0).permutation(30_000)[:count]), own):
        batching = Batching(count, 100, "shuffle", count, subset)
        model = classifier(other_library.name).model
        made = MembersDeviceOrders(batching, np.stack([random.new_key(s, random.ORDER) for s in seeds]), model, backend)
        plain = orders_of_members(model, backend, batching, seeds)
        for orders in (made, plain):
            found = other_library.numpy(orders(3, 2))
            for k, (rows, seed) in enumerate(zip(found, seeds, strict=True)):
                alone = Batching(count, 100, "shuffle", count, own[k] if subset is own else subset)
                np.testing.assert_array_equal(rows, Orders(alone, random.new_key(seed, random.ORDER))(3, 2))


FOLDS = [np.delete(np.arange(90), np.arange(k * 20, k * 20 + 18 + k)) for k in range(4)]  # of different lengths


@pytest.mark.parametrize("batch_size", [32, None, 100])
def test_members_on_rows_of_their_own(other_library: Any, batch_size: int | None) -> None:
    layers = [pnn.Dense(8, "relu"), pnn.Dropout(0.3), pnn.Dense(3)]
    net = pnn.Network(layers, 5, "softmax_cross_entropy", backend=other_library.name, dtype="float64")
    ens = pnn.Ensemble(net, 4)
    ens.fit(X, CLASSES, epochs=2, batch_size=batch_size, folds=FOLDS)
    for network, rows in zip(ens.networks, FOLDS, strict=True):
        one, numpy = (
            alone(network, X=X[rows], y=CLASSES[rows], epochs=2, batch_size=batch_size),
            network.backend.to_numpy,
        )
        np.testing.assert_allclose(numpy(network.state.theta), numpy(one.state.theta), rtol=0, atol=1e-12)


def test_bootstrapped_rows_are_drawn_by_the_seed_of_each_member(on_numpy: None) -> None:
    fits = []
    for chosen in ([{"seed": 3}, {"seed": 8}], [{"seed": 8}, {"seed": 9}]):
        fits.append(pnn.Ensemble(classifier(), chosen))
        fits[-1].fit(X, CLASSES, validation_data=APART, bootstrap=True, patience=1)
    np.testing.assert_allclose(fits[0].member(1).state.theta, fits[1].member(0).state.theta, rtol=0, atol=1e-12)
    ens = pnn.Ensemble(classifier(seed=8), 1)
    ens.fit(X, CLASSES, bootstrap=True)
    drawn = np.sort(random.draws(random.new_key(8, random.BOOTSTRAP), 0, 1, 90, 90)[0])
    assert 40 < len(set(drawn.tolist())) < 70
    one = alone(ens.member(0), X=X[drawn], y=CLASSES[drawn])
    np.testing.assert_allclose(ens.member(0).state.theta, one.state.theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("folds", "says"),
    [([[0]], "for each of 2 members in folds, got 1"), ([[0], [90]], r"from 0 to 89 in folds\[1\]"), ([[0], []], "row numbers"),
     ([[0], [0.5]], "row numbers"), ([[0], [[1]]], "row numbers"), ([[0], [[1], [2, 3], [4]]], "nested lists"),
     ([np.arange(90) < 3] * 2, r"booleans: pass np.flatnonzero\(folds\[0\]\)"), ([[[0, 1], [2]]] * 2, "got pairs")],
)  # fmt: skip
def test_wrong_folds_are_an_error(folds: Any, says: str, on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(), 2)
    with raises(ValueError, says):
        ens.fit(X, CLASSES, folds=folds)
    with raises(ValueError, "share_order is for members"):
        ens.fit(X, CLASSES, bootstrap=True, share_order=True)
    with raises(ValueError, "validation_data instead of validation_split"):
        ens.fit(X, CLASSES, folds=[[0], [1]], validation_split=0.1)
    with raises(ValueError, "validation_data instead of validation_split"):
        ens.fit(X, CLASSES, folds=[[0], [1]], validation_split=0.1, batch_size=None)
    with raises(ValueError, r"train for train, test in splits"):
        ens.fit(X, CLASSES, folds=[(np.arange(3), np.arange(4)), (np.arange(4), np.arange(3))])


@pytest.mark.parametrize("elements", [1, 1 << 20])
def test_blocks_of_members_and_threads_change_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(pnn.get_backend("numpy")), "members_elements", elements)
    ens = pnn.Ensemble(classifier(), [{"seed": s, "optimizer.learning_rate": 0.01 * (s < 6) + 0.01} for s in range(11)])
    fit = {"X": X, "y": CLASSES, "epochs": 3, "batch_size": 32}
    names, train = set(), members_module.TrainedMembers.train

    def noted(self: Any, epochs: int) -> Any:
        names.add(threading.current_thread().name)
        return train(self, epochs)

    monkeypatch.setattr(members_module.TrainedMembers, "train", noted)
    threads = pnn.get_threads()
    pnn.set_threads(2)
    try:
        ens.fit(**fit)
    finally:
        pnn.set_threads(threads)
    check_members(ens, **fit)
    assert any(name.startswith("ThreadPoolExecutor") for name in names) == (elements == 1)


def test_the_members_that_go_on_keep_their_rows_and_masks(on_numpy: None) -> None:
    layers = [pnn.Dense(8, "relu"), pnn.Dropout(0.3), pnn.BatchNorm(), pnn.Dense(3)]
    net = pnn.Network(layers, 5, "softmax_cross_entropy", pnn.SGD(0.1), "numpy", "float64")
    rates = [{"seed": k, "optimizer.learning_rate": rate} for k, rate in enumerate((10.0, 0.1, 5.0, 0.2, 20.0, 0.05))]
    rows = [np.random.default_rng(k).choice(90, 60, replace=False) for k in range(6)]
    ens = pnn.Ensemble(net, rates)
    ens.fit(X, CLASSES, epochs=12, validation_data=APART, folds=rows, patience=1)
    lengths = [network.epochs for network in ens.networks]
    assert min(lengths) < 6 < max(lengths)  # so that there are fewer members in between
    for network, own in zip(ens.networks, rows, strict=True):
        stop = [EarlyStopping(patience=1)]
        one = alone(network, X=X[own], y=CLASSES[own], epochs=12, validation_data=APART, callbacks=stop)
        np.testing.assert_allclose(network.state.theta, one.state.theta, rtol=0, atol=1e-9)
        assert network.epochs == one.epochs
        if one.epochs < 12:
            assert network.history.ended == "val_loss did not improve for 1 epochs"


def test_losses_that_are_summed_and_rows_split_by_the_first_seed(on_numpy: None) -> None:
    summed = pnn.losses.HalfSquaredError(reduction="sum")
    ens = pnn.Ensemble(pnn.mlp([5, 4, 2], loss=summed, optimizer=pnn.SGD(1e-3), dtype="float64", seed=5), 3)
    fit = {"X": X, "y": VALUES, "epochs": 2}
    ens.fit(**fit, validation_split=0.3)
    one = alone(ens[0], **fit, validation_split=0.3)
    np.testing.assert_allclose(ens[0].history["val_loss"], one.history["val_loss"], rtol=1e-12)
    np.testing.assert_allclose(ens[0].history["loss"], one.history["loss"], rtol=1e-12)
    assert ens.history.how == one.history.how != ""


def test_precision_is_that_of_the_network(on_numpy: None) -> None:
    ens = pnn.Ensemble(pnn.mlp([5, 4, 1], precision="bfloat16"), 2)
    assert [network.precision for network in ens.networks] == ["bfloat16"] * 2
    assert not any(network.pinned for network in ens.networks)


# Together


def test_predictions_are_means_over_members(library: Any) -> None:
    ens, x = pnn.Ensemble(classifier(library.name), 5), library.array(X)
    probabilities = np.stack([library.numpy(n.predict_proba(x)) for n in ens.networks])
    np.testing.assert_allclose(library.numpy(ens.predict_proba(x)), probabilities.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(library.numpy(ens.predict(x)), probabilities.mean(axis=0).argmax(axis=1))
    np.testing.assert_allclose(library.numpy(ens.predict_std(x)), probabilities.std(axis=0), atol=1e-12)
    np.testing.assert_array_equal(
        library.numpy(ens.predict_members(x)), [library.numpy(n.predict(x)) for n in ens.networks]
    )


def test_predicted_values_have_means_spreads_and_quantiles(on_numpy: None) -> None:
    ens = pnn.Ensemble(pnn.mlp([5, 6, 1], dtype="float64"), [{"dense_1.units": n, "seed": n} for n in (3, 4, 5, 4)])
    each = np.stack([n.predict(X) for n in ens.networks])
    np.testing.assert_allclose(ens.predict(X), each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ens.predict_std(X), each.std(axis=0), rtol=1e-10)
    np.testing.assert_allclose(
        ens.predict_quantiles(X, [0.0, 0.3, 1.0]), np.quantile(each, [0.0, 0.3, 1.0], axis=0), rtol=1e-12
    )
    assert ens.predict_members(X[:1]).shape == (4, 1)


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [("sigmoid_cross_entropy", 1, CLASSES > 0), ("sigmoid_cross_entropy", 3, RNG.integers(0, 2, (90, 3))),
     ("hinge", 1, np.where(CLASSES > 0, 1, -1)), ("perceptron", 1, CLASSES > 0),
     ("sigmoid_cross_entropy", 1, np.where(CLASSES > 0, 1, -1)), ("softmax_cross_entropy", 3, np.eye(3)[CLASSES])],
)  # fmt: skip
def test_labels_have_the_shape_that_a_network_gives(loss: str, outputs: int, y: Any, on_numpy: None) -> None:
    ens = pnn.Ensemble(pnn.mlp([5, 6, outputs], loss=loss), 3)
    ens.fit(X, y, epochs=5)
    found, one = ens.predict(X), ens.member(0).predict(X)
    assert (found.shape, found.dtype) == (one.shape, one.dtype)
    assert set(np.unique(found)) <= set(np.unique(y if outputs == 1 else [0, 1, 2]))
    if ens.member(0).loss.link is None:
        means = np.mean([n.forward(X) for n in ens.networks], axis=0).reshape(-1)
        np.testing.assert_array_equal(found, np.unique(y)[(means > 0).astype(int)])
        assert ens.predict_std(X).shape == (90, 1)
        with raises(TypeError, "select compares probabilities"):
            ens.select(1, X, y)
        return
    probabilities = np.mean([n.predict_proba(X) for n in ens.networks], axis=0)
    multilabel = outputs == 3 and loss == "sigmoid_cross_entropy"
    meant = (
        probabilities > 0.5 if multilabel else np.unique(y if outputs == 1 else CLASSES)[probabilities.argmax(axis=1)]
    )
    np.testing.assert_array_equal(found, meant)
    assert len(ens.select(2, X, y)) == 2


@pytest.mark.parametrize("elements", [1, 1 << 24])
def test_more_rows_than_are_predicted_at_once(elements: int, on_numpy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "ELEMENTS", elements)
    ens, x = pnn.Ensemble(classifier(), 2), RNG.normal(size=(ROWS + 3, 5))
    np.testing.assert_allclose(
        ens.predict_proba(x), np.mean([n.predict_proba(x) for n in ens.networks], axis=0), rtol=1e-12
    )
    scores = ens.scores(x, np.zeros(ROWS + 3, dtype=int))
    for k, network in enumerate(ens.networks):
        for name, value in network.evaluate(x, np.zeros(ROWS + 3, dtype=int)).items():
            assert scores[name][k] == pytest.approx(value, rel=1e-12)


def test_scores_count_weights(on_numpy: None) -> None:
    ens, weights = pnn.Ensemble(classifier(), 3), RNG.random(90)
    found = ens.scores(X, CLASSES, weights)
    for k, network in enumerate(ens.networks):
        assert found["loss"][k] == pytest.approx(network.evaluate(X, CLASSES, weights)["loss"], rel=1e-12)
        assert found["accuracy"][k] == pytest.approx(network.evaluate(X, CLASSES, weights)["accuracy"], rel=1e-12)


def test_selection_is_greedy_with_replacement(on_numpy: None) -> None:
    networks = []
    for slope in (2.0, 0.0, 1.2, 0.5):
        networks.append(pnn.mlp([1, 1], dtype="float64"))
        networks[-1].set_parameters({"dense_1.kernel": [[slope]], "dense_1.bias": [0.0]})
    x = np.asarray([[1.0], [-1.0], [2.0]])
    chosen = pnn.Ensemble(networks).select(4, x, x)
    # means nearest to 1: 1.2; (1.2 + 0.5) / 2 = 0.85; (1.7 + 1.2) / 3 = 0.97; (2.9 + 1.2) / 4 = 1.025
    assert [round(float(n.parameters["dense_1.kernel"][0, 0]), 1) for n in chosen.networks] == [1.2, 0.5, 1.2, 1.2]
    np.testing.assert_allclose(chosen.predict(x), 1.025 * x[:, 0], rtol=1e-12)
    with raises(ValueError, "several times"):
        chosen.fit(x, x)
    networks[1].state.theta[:] = np.nan
    assert not any(network is networks[1] for network in pnn.Ensemble(networks).select(4, x, x).networks)
    with raises(ValueError, "no member has finite predictions"):
        pnn.Ensemble([networks[1]]).select(1, x, x)


# Early stopping


@pytest.mark.parametrize("library_name", ["numpy", "array_api_strict"])
def test_members_stop_as_early_stopping_stops_a_network(library_name: str) -> None:
    rates = [
        {"seed": k, "optimizer.learning_rate": rate} for k, rate in enumerate((1e-4, 1e-3, 0.03, 0.1, 0.3, 1.0, 2.0))
    ]
    ens = pnn.Ensemble(classifier(library_name), rates)
    fit = {"X": X, "y": CLASSES, "epochs": 12, "batch_size": 45, "validation_data": APART}
    history = ens.fit(**fit, patience=2)
    lengths = set()
    for k, network in enumerate(ens.networks):
        one, numpy = alone(network, **fit, callbacks=[EarlyStopping(patience=2)]), network.backend.to_numpy
        np.testing.assert_allclose(network.history["val_loss"], one.history["val_loss"], rtol=1e-9)
        np.testing.assert_allclose(numpy(network.state.theta), numpy(one.state.theta), rtol=0, atol=1e-9)
        np.testing.assert_allclose(numpy(network.state.slots[0]), numpy(one.state.slots[0]), rtol=0, atol=1e-9)
        assert (network.steps, network.epochs) == (one.steps, one.epochs)
        lengths.add(network.epochs)
        assert np.isnan(np.asarray(history["loss"])[network.epochs :, k]).all()
    assert len(lengths) > 2


def test_callbacks_see_the_figures_of_all_members_and_can_end_training(on_numpy: None) -> None:
    seen: list[Any] = []

    class Watch:
        def on_epoch_end(self, ensemble: Any, epoch: int, logs: Any) -> bool:
            seen.append((len(ensemble), epoch, {name: values.shape for name, values in logs.items()}))
            return epoch == 2

    history = pnn.Ensemble(classifier(), 3).fit(X, CLASSES, epochs=9, validation_split=0.2, callbacks=[Watch()])
    shapes = {"loss": (3,), "val_loss": (3,), "val_accuracy": (3,)}
    assert seen == [(3, 1, shapes), (3, 2, shapes)]
    assert history.ended == "a callback ended it"
    assert len(history["loss"]) == 2


@pytest.mark.parametrize(("answer", "ended"), [(np.False_, ""), (None, ""), ("low enough", "low enough")])
def test_a_callback_may_answer_with_the_reason_or_a_boolean_of_numpy(answer: Any, ended: str, on_numpy: None) -> None:
    class Answer:
        def on_epoch_end(self, *_: Any) -> Any:
            return answer

    history = pnn.Ensemble(classifier(), 2).fit(X, CLASSES, epochs=3, callbacks=[Answer()])
    assert (history.ended, len(history["loss"])) == (ended, 1 if ended else 3)


def test_a_callback_that_changes_a_member_is_an_error(on_numpy: None) -> None:
    class Change:
        def on_epoch_end(self, ensemble: Any, *_: Any) -> None:
            ensemble[1].optimizer = pnn.SGD(0.1)

    ens = pnn.Ensemble(classifier(), 3)
    with raises(ValueError, "a callback changed member 1"):
        ens.fit(X, CLASSES, callbacks=[Change()])
    assert [network.epochs for network in ens.networks] == [0, 0, 0]
    ens.networks[1].fit(X, CLASSES)  # its state suits its optimizer


def test_training_that_has_ended_for_all_says_why(on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(optimizer=pnn.SGD(0.0)), 2)
    history = ens.fit(X, CLASSES, epochs=50, validation_split=0.2, patience=2)
    assert (history.ended, len(history["loss"])) == ("val_loss did not improve for 2 epochs", 3)


def test_an_infinite_first_loss_is_the_best_so_far(on_numpy: None) -> None:
    net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.3))
    net.set_parameters({"dense_1.kernel": [[3e20]]})
    ones = np.ones((1, 1))
    history = pnn.Ensemble([net]).fit(ones, ones, epochs=3, validation_data=(ones, ones), patience=1)
    assert np.isinf(history["val_loss"][0]).all()
    assert len(history["val_loss"]) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_ends_training_after_the_current_epochs(on_numpy: None) -> None:
    class Press:
        def on_epoch_end(self, _: Any, epoch: int, __: Any) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    ens = pnn.Ensemble(classifier(), 2)
    with pytest.warns(RuntimeWarning, match="training was ended by Ctrl-C in epoch 2"):
        ens.fit(X, CLASSES, epochs=9, callbacks=[Press()])
    assert [network.epochs for network in ens.networks] == [2, 2]


def test_an_interrupt_while_members_take_over_their_states_leaves_all_as_they_were(
    on_numpy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ens = pnn.Ensemble(classifier(), 3)
    before = [dict(network.__dict__) for network in ens.networks]

    class Interrupted(dict[str, Any]):
        def update(self, *_: Any) -> None:
            if self["epochs"] == 0 and _[0]["epochs"] == 1:
                raise KeyboardInterrupt
            super().update(*_)

    ens.networks[2].__dict__ = Interrupted(ens.networks[2].__dict__)
    with pytest.raises(KeyboardInterrupt):
        ens.fit(X, CLASSES)
    assert [network.__dict__ for network in ens.networks] == before


def test_the_history_is_drawn(on_numpy: None) -> None:
    pytest.importorskip("matplotlib")
    history = pnn.Ensemble(classifier(), 3).fit(X, CLASSES, epochs=3, validation_split=0.2)
    axes = history.plot()
    assert len(axes.collections) == 2  # the ranges of loss and validation loss
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), np.median(np.asarray(history["loss"]), axis=1))


def test_an_error_leaves_the_members_as_they_were(on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(), 3)

    class Broken:
        def on_epoch_end(self, *_: Any) -> None:
            raise KeyError("mine")

    before = [n.state.theta.copy() for n in ens.networks]
    with pytest.raises(KeyError, match="mine"):
        ens.fit(X, CLASSES, callbacks=[Broken()])
    for network, theta in zip(ens.networks, before, strict=True):
        np.testing.assert_array_equal(network.state.theta, theta)
        assert (network.epochs, network.history) == (0, {})


def test_an_ensemble_can_be_pickled(on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(), 3)
    ens.fit(X, CLASSES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ens)).predict_proba(X), ens.predict_proba(X))


def test_an_ensemble_is_saved_in_one_file_and_continues_from_it(tmp_path: Path, on_numpy: None) -> None:
    path, fit = tmp_path / "ensemble.safetensors", {"X": X, "y": CLASSES, "batch_size": 32}
    ens = pnn.Ensemble(
        classifier(), [{"seed": 1, "optimizer.l2": 0.1}, {"dense_1.units": 4}, {"optimizer": pnn.SGD(0.1)}]
    )
    ens.fit(**fit)
    ens.save(path)
    loaded = pnn.Ensemble.load(path, backend="numpy")
    for one in (ens, loaded):
        one.fit(**fit)
    for network, other in zip(ens.networks, loaded.networks, strict=True):
        np.testing.assert_allclose(network.state.theta, other.state.theta, rtol=0, atol=1e-12)
        assert (network.optimizer, network.seed, network.epochs) == (other.optimizer, other.seed, other.epochs)
    with raises(pnn.FileFormatError, r"load it with portablenn\.Ensemble\.load"):
        pnn.load(path)
    ens.member(0).save(path)
    with raises(pnn.FileFormatError, "expected the keys"):
        pnn.Ensemble.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d, a: d.update(members=d["members"][:1]), lambda d, a: d.update(members=[]), lambda d, a: d.update(members=[3, 4]),
        lambda d, a: d["members"][1].update(inputs=9), lambda d, a: a.pop("1.dense_2.bias"),
        lambda d, a: a.update({"x": np.zeros(1)}), lambda d, a: a.update({"1.dense_2.bias": np.zeros(1)}),
        lambda d, a: d["members"][1].update(table={}) or d["members"][1].pop("table"), lambda d, a: d.update(more=1),
    ],
)  # fmt: skip
def test_a_wrong_file_of_an_ensemble_is_an_error(change: Any, tmp_path: Path) -> None:
    path, found = tmp_path / "ensemble.safetensors", []
    pnn.Ensemble(classifier(), 2).save(path)
    _, arrays = safetensors_file.read(path, "file", model_file.VERSION, lambda d, _: found.append(d))
    change(found[0], arrays)
    safetensors_file.write(path, model_file.VERSION, found[0], arrays)
    with raises(pnn.FileFormatError, "is not a valid file of an ensemble"):
        pnn.Ensemble.load(path)


# Errors


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (0, "members"), ([], "at least one member"), (None, "members is missing"), ([3], "expected a dict of settings"),
        ([{"optimiser": 1}], "begin with one of seed, optimizer, loss, dense_1, dense_2"),
        ([{"optimizer.rate": 1}], "expected one of learning_rate,"), ([{"optimizer.learning_rate.start": 1}], "has no settings"),
        ([{"optimizer.learning_rate": -1}], "learning_rate must be a number of at least 0"), ([{"seed": -1}], "seed"),
        ([{}, {"dense_2.units": 4}], "same outputs: member 0 has 3, member 1 4"),
        ([{}, {"loss": "squared_error"}], "same kind of targets"),
    ],
)  # fmt: skip
def test_wrong_members_are_an_error(members: Any, says: str) -> None:
    with raises((ValueError, TypeError), says):
        pnn.Ensemble(classifier(), members)


def test_wrong_data_are_an_error(on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(), 2)
    with raises(TypeError, "trained on arrays"):
        ens.fit(pnn.data.Rows(X, CLASSES), None)
    with raises(ValueError, "patience"):
        ens.fit(X, CLASSES, patience=0)
    with raises(ValueError, "pass validation_data"):
        ens.fit(X, CLASSES, patience=3)
    with raises(TypeError, "for early stopping pass patience"):
        ens.fit(X, CLASSES, callbacks=[EarlyStopping()])
    with raises(TypeError, "callbacks must be a list"):
        ens.fit(X, CLASSES, callbacks=None)
    with raises(TypeError, "on_epoch_end"):
        ens.fit(X, CLASSES, callbacks=[3])
    with raises(ValueError, "L-BFGS"):
        pnn.Ensemble(classifier(optimizer=pnn.LBFGS()), 2).fit(X, CLASSES)
    with raises(TypeError, "predict_quantiles is for values"):
        ens.predict_quantiles(X, [0.5])
    with raises(TypeError, "requires a loss with probabilities"):
        pnn.Ensemble(pnn.mlp([5, 1]), 2).predict_proba(X)
    with raises(ValueError, "NaN"):
        ens.predict(np.full((2, 5), np.nan))


def test_settings_are_taken_in_any_order_and_from_anything_iterable() -> None:
    named = {"optimizer.learning_rate": 0.5, "optimizer": "sgd"}
    assert pnn.Ensemble(classifier(), (named for _ in range(2)))[1].optimizer == pnn.SGD(0.5)
    assert [n.seed for n in pnn.Ensemble(classifier(seed=np.int8(126)), 4).networks] == [126, 127, 128, 129]
    for wrong in ({"seed": 3}, "seed"):
        with raises(TypeError, "list with a dict for each member"):
            pnn.Ensemble(classifier(), wrong)
    with raises(TypeError, "expected a Network, or a list of networks, got 3"):
        pnn.Ensemble(3)  # type: ignore[arg-type]


def test_members_are_on_one_backend() -> None:
    strict = classifier("array_api_strict")
    with raises(ValueError, "on one backend, got array_api_strict"):
        pnn.Ensemble([classifier(), strict])
    with raises(ValueError, "same kind of predictions"):
        pnn.Ensemble([pnn.mlp([5, 3], loss="sigmoid_cross_entropy"), multilabel()])
    ens = pnn.Ensemble([classifier(), classifier(seed=1)])
    ens.member(1).to("array_api_strict")
    for use in (lambda: ens.predict(X), lambda: ens.fit(X, CLASSES)):
        with raises(pnn.BackendError, "member 0 is fixed to numpy, and member 1 to array_api_strict"):
            use()
    assert ens.member(1).backend.name == "array_api_strict"


def test_members_that_are_not_fixed_follow_the_fixed_one_and_never_the_other_way_round() -> None:
    nets = [pnn.mlp([5, 3], loss="softmax_cross_entropy", backend=b) for b in ("auto", "array_api_strict")]
    ens = pnn.Ensemble(nets)
    ens.fit(X, CLASSES)
    assert [network.backend.name for network in ens.networks] == ["array_api_strict"] * 2


@pytest.mark.parametrize("outputs", [1, 3])
def test_probabilities_that_are_rounded_do_not_change_the_class(outputs: int, on_numpy: None) -> None:
    net = pnn.mlp([1, outputs], loss="sigmoid_cross_entropy")
    net.set_parameters({"dense_1.kernel": [[1e-8]] if outputs == 1 else [[20.0, 30.0, 25.0]]})
    assert pnn.Ensemble([net]).predict([[1.0]]).tolist() == net.predict([[1.0]]).tolist() == [1]


@dataclass(frozen=True)
class Center:
    """A layer in which rows depend on each other."""

    def init(self, key: Any, inputs: int) -> dict[str, Any]:
        return {}

    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        return x - xp.mean(x, axis=0)


def test_rows_that_depend_on_each_other_are_predicted_as_a_network_predicts_them(
    on_numpy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "ELEMENTS", 1)
    ens = pnn.Ensemble(pnn.Network([Center(), pnn.Dense(3)], 5, "softmax_cross_entropy", dtype="float64"), 2)
    check_predictions(ens, X, CLASSES)
    root = lambda p, t: (p - t).__pow__(2).mean() ** 0.5  # noqa: E731
    ens = pnn.Ensemble(pnn.mlp([5, 2], loss=root, dtype="float64"), 2)
    check_predictions(ens, X, VALUES)


def test_a_member_that_predicts_another_kind_since_it_was_trained_alone_is_an_error(on_numpy: None) -> None:
    ens = pnn.Ensemble(pnn.mlp([5, 1], loss="sigmoid_cross_entropy"), 2)
    ens[1].fit(X, np.where(CLASSES > 0, 1, -1))
    with raises(ValueError, "member 0 predicts labels, and member 1, which was trained alone, signed_labels"):
        ens.predict(X)


def test_members_of_a_trained_or_loaded_network_would_not_have_its_weights(tmp_path: Path, on_numpy: None) -> None:
    pytest.importorskip("safetensors")
    net = classifier()
    net.save(tmp_path / "net.safetensors")
    with raises(ValueError, "build the network anew"):
        pnn.Ensemble(pnn.load(tmp_path / "net.safetensors"), 2)
    net.fit(X, CLASSES)
    with raises(ValueError, "the network is trained"):
        pnn.Ensemble(net, 2)


def test_states_of_members_share_no_memory(on_numpy: None) -> None:
    ens = pnn.Ensemble(classifier(), 3)
    ens.fit(X, CLASSES)
    theta = ens[0].state.theta
    assert theta.base is None or theta.base.size == theta.size


def multilabel() -> pnn.Network:
    net = pnn.mlp([5, 3], loss="sigmoid_cross_entropy")
    net.fit(X, RNG.integers(0, 2, (90, 3)))
    return net


def test_a_member_that_diverges_is_named(on_numpy: None) -> None:
    rates = [{"optimizer": pnn.SGD(rate)} for rate in (0.01, 1e300, 0.02)]
    ens = pnn.Ensemble(pnn.mlp([5, 4, 1]), rates)
    with pytest.warns(RuntimeWarning, match=r"of 1 of 3 members is not finite \(1\)"):
        ens.fit(X, X[:, 0], epochs=3)


def test_a_class_that_forgets_its_attributes_when_compared_is_an_error() -> None:
    class Boosted(pnn.SGD):
        def __init__(self, boost: float) -> None:
            super().__init__(0.1)
            object.__setattr__(self, "boost", boost)

    with raises(TypeError, "Boosted has attributes that are not fields, boost: decorate the class"):
        classifier(optimizer=Boosted(2.0))


def test_only_values_of_numbers_may_differ_within_a_structure() -> None:
    adam = classifier().model
    assert structure(adam) == structure(classifier(optimizer=pnn.Adam(0.5)).model)
    assert structure(adam) != structure(classifier(optimizer=pnn.Adam(0.5, l2=0.1)).model)
    assert structure(adam) != structure(classifier(optimizer=pnn.AdamW(0.5)).model)
    assert structure(adam) != structure(classifier(optimizer=pnn.Adam(pnn.schedules.CosineDecay(0.1, 9))).model)
