"""Wrong inputs: a table of what is handed in and the message that it gets; the network is afterwards as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.data import validation
from portablenn.runtime.arrays import to_numpy

X = np.arange(12.0).reshape(4, 3)
Y = np.asarray([0, 1, 1, 0])
HOLE = X.copy()
HOLE[2, 1] = np.nan
ENDLESS = X.copy()
ENDLESS[0, 2] = np.inf


def _classifier() -> pnn.Network:
    return pnn.mlp([3, 4, 2], loss="softmax_cross_entropy")


def _binary() -> pnn.Network:
    return pnn.mlp([3, 4, 1], loss="sigmoid_cross_entropy")


def _regressor(outputs: int = 1, loss: str = "squared_error") -> pnn.Network:
    return pnn.mlp([3, 4, outputs], loss=loss)


class _NoResult(pnn.Dense):
    def apply(self, xp: Any, params: Any, x: Any) -> Any:
        super().apply(xp, params, x)


class _NoInit(pnn.Dense):
    def init(self, key: Any, inputs: int) -> Any:
        return None


FIT: dict[str, tuple[Callable[[], pnn.Network], dict[str, Any], str]] = {
    "one dimension": (_classifier, {"X": X[0]}, r"expected X of shape \(rows, 3\), got \(3,\).*reshape\(1, -1\)"),
    "three dimensions": (_classifier, {"X": X[None]}, r"expected X of shape \(rows, 3\), got \(1, 4, 3\)"),
    "other width": (_classifier, {"X": X[:, :2]}, r"expected 3 columns in X \(the network's inputs\), got 2"),
    "no rows": (_classifier, {"X": X[:0], "y": Y[:0]}, r"expected at least one row in X, got shape \(0, 3\)"),
    "NaN": (_classifier, {"X": HOLE}, r"X holds NaN or infinity, first at row 2, column 1.*SimpleImputer"),
    "infinity": (_classifier, {"X": ENDLESS}, r"X holds NaN or infinity, first at row 0, column 2"),
    "beyond float32": (_classifier, {"X": X * 1e300}, r"X holds .*e\+\d+ at row 0, column 1, which overflows in float32: scale the data, or use dtype=.float64"),
    "target beyond float32": (_regressor, {"y": [0.0, 1e300, 0.0, 0.0]}, r"y holds 1e\+300 at 1, which overflows in float32"),
    "callbacks that are no list": (_classifier, {"callbacks": pnn.callbacks.Callback()}, r"callbacks must be a list, got"),
    "a callback's class": (_classifier, {"callbacks": [pnn.callbacks.Callback]}, r".*is not a callback: pass an instance"),
    "a function as callback": (_classifier, {"callbacks": [print]}, r".*is not a callback: subclass portablenn.callbacks.Callback"),
    "text": (_classifier, {"X": np.asarray([["a", "b", "c"]] * 4)}, r"expected real numbers in X, got dtype <U1: encode text"),
    "complex": (_classifier, {"X": X * 1j}, r"expected real numbers in X, got dtype complex128: take the real part"),
    "objects": (_classifier, {"X": np.asarray([[None, 1, 2]] * 4)}, r"expected real numbers in X, got dtype object"),
    "ragged": (_classifier, {"X": [[1, 2, 3], [1, 2]]}, r"X cannot be converted to an array.*rows of equal length"),
    "None": (_classifier, {"X": None}, r"X is None"),
    "fewer targets": (_classifier, {"y": Y[:3]}, r"X and y must have the same number of rows, got 4 and 3"),
    "targets of three dimensions": (_classifier, {"y": np.zeros((4, 1, 1))}, r"expected y of shape \(4,\) or \(4, 2\), got \(4, 1, 1\)"),
    "class too high": (_classifier, {"y": Y + 1}, r"a network with 2 outputs takes class numbers from 0 to 1, got labels from 1 to 2 in y: numpy.unique"),
    "class below zero": (_classifier, {"y": Y - 1}, r"a network with 2 outputs takes class numbers from 0 to 1, got labels from -1 to 0 in y"),
    "classes not whole": (_classifier, {"y": Y + 0.5}, r"the loss SoftmaxCrossEntropy takes class numbers, got values in y that are not integers"),
    "classes of text": (_classifier, {"y": np.asarray(["a", "b", "b", "a"])}, r"expected real numbers in y, got dtype <U1: numpy.unique"),
    "columns out of range": (_classifier, {"y": np.eye(2)[Y] * 3}, r"the loss SoftmaxCrossEntropy takes columns of 0 and 1.*got values from 0 to 3 in 2 columns of y"),
    "too many columns": (_classifier, {"y": np.eye(3)[Y]}, r"expected 2 columns in y \(the network's outputs\), got 3"),
    "NaN target": (_regressor, {"y": [0.0, np.nan, 1.0, 2.0]}, r"y holds NaN or infinity, first at 1"),
    "three labels for one output": (_binary, {"y": [0, 1, 2, 1]}, r"with one output .* takes labels 0 and 1, or -1 and 1, got labels from 0 to 2 in y"),
    "values below zero for counts": (lambda: _regressor(loss="poisson"), {"y": [1, 2, -1, 0]}, r"the loss Poisson takes values of at least 0, got -1 in y"),
    "one target column for two outputs": (lambda: _regressor(2), {"y": [1.0, 2.0, 3.0, 4.0]}, r"expected 2 columns in y \(the network's outputs\), got 1"),
    "no epochs": (_classifier, {"epochs": -1}, r"epochs must be an integer of at least 0, got -1"),
    "half an epoch": (_classifier, {"epochs": 1.5}, r"epochs must be an integer"),
    "batch of nothing": (_classifier, {"batch_size": 0}, r"batch_size must be an integer of at least 1, got 0"),
    "unknown order": (_classifier, {"order": "sorted"}, r'order must be "shuffle", "sequential", "random" or a function, got \'sorted\''),
    "steps of shuffled rows": (_classifier, {"steps_per_epoch": 3}, r'steps_per_epoch requires order="random"'),
    "split of all": (_classifier, {"validation_split": 1.0}, r"validation_split must be at least 0 and below 1, got 1.0"),
    "split that leaves nothing": (_classifier, {"validation_split": 0.99}, r"validation_split=0.99 of 4 rows leaves none"),
    "validation twice": (_classifier, {"validation_split": 0.5, "validation_data": (X, Y)}, r"validation_data and validation_split are mutually exclusive"),
    "validation of one": (_classifier, {"validation_data": X}, r"validation_data must be \(X, y\), \(X, y, weights\), blocks"),
    "validation of other width": (_classifier, {"validation_data": (X[:, :2], Y)}, r"expected 3 columns in validation_data X \(the network's inputs\), got 2"),
    "unseen validation label": (_classifier, {"validation_data": (X, Y + 5)}, r"a network with 2 outputs takes class numbers from 0 to 1, got labels from 5 to 6 in validation_data y"),
    "weights of other length": (_classifier, {"sample_weight": [1.0, 2.0]}, r"expected sample_weight of shape \(4,\), got \(2,\)"),
    "weights below zero": (_classifier, {"sample_weight": [1, -1, 1, 1]}, r"expected weights of at least 0, not all 0, in sample_weight, got weights from -1 to 1"),
    "weights of zero": (_classifier, {"sample_weight": np.zeros(4)}, r"expected weights of at least 0, not all 0, in sample_weight, got weights from 0 to 0"),
    "NaN weight": (_classifier, {"sample_weight": [1, np.nan, 1, 1]}, r"sample_weight holds NaN"),
    "class weight in words": (_classifier, {"class_weight": {1: "heavy"}}, r"class_weight\[1\] must be finite and at least 0, got 'heavy'"),
    "weight of an unknown class": (_classifier, {"class_weight": {7: 1.0}}, r"class_weight has unknown labels \[7\]: the labels are \[0, 1\]"),
    "class weight below zero": (_classifier, {"class_weight": {1: -1.0}}, r"class_weight\[1\] must be finite and at least 0, got -1.0"),
    "class weight of another kind": (_classifier, {"class_weight": "equal"}, r'class_weight must be \{label: weight\} or "balanced", got \'equal\''),
    "class weight of values": (_regressor, {"y": X[:, 0], "class_weight": {0: 1.0}}, r"class_weight is for classification losses"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_fit_refuses_and_changes_nothing(name: str) -> None:
    make, wrong, says = FIT[name]
    net = make()
    net.fit(X, Y, epochs=1) if net.loss.targets == "classes" else net.fit(X, X[:, : net.outputs], epochs=1)
    theta, slots, steps, history = (
        to_numpy(net.state.theta).copy(),
        [to_numpy(s).copy() for s in net.state.slots],
        net.steps,
        dict(net.history),
    )
    with pytest.raises((TypeError, ValueError), match=f"(?s)^{says}"):
        net.fit(**({"X": X, "y": Y, "epochs": 1} | wrong))
    np.testing.assert_array_equal(net.state.theta, theta)
    for slot, before in zip(net.state.slots, slots, strict=True):
        np.testing.assert_array_equal(slot, before)
    assert (net.steps, dict(net.history)) == (steps, history)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "forward"])
@pytest.mark.parametrize("wrong", ["one dimension", "other width", "NaN", "text", "ragged"])
def test_prediction_refuses_the_same_inputs(method: str, wrong: str) -> None:
    _, arguments, says = FIT[wrong]
    with pytest.raises((TypeError, ValueError), match=f"(?s)^{says}"):
        getattr(_classifier(), method)(arguments["X"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pnn.Network([], inputs=2), "layers must be a list of at least one layer, got"),
        (lambda: pnn.Network(pnn.Dense(2), inputs=2), "layers must be a list"),
        (lambda: pnn.Network([pnn.Dense], inputs=2), r"a layer must have init\(key, inputs\) and apply"),
        (lambda: pnn.Network([lambda x: x], inputs=2), "a layer must have init"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=0), "inputs must be an integer of at least 1, got 0"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, loss="mean"), "unknown loss 'mean'"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, optimizer="adamm"), "unknown optimizer 'adamm'"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, dtype="float16"), "dtype must be 'float32' or 'float64', got"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, dtype="int32"), "dtype must be 'float32' or 'float64', got"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, seed=-1), "seed: expected an integer"),
        (
            lambda: pnn.Network([pnn.Dense(2, kernel_init=np.zeros((3, 2)))], inputs=2),
            r"expected initial values of shape \(2, 2\) for the kernel, got \(3, 2\)",
        ),
        (lambda: pnn.Network([pnn.Dense(2, "swish")], inputs=2), "unknown activation 'swish'"),
        (
            lambda: pnn.Network([pnn.Dense(1)], inputs=2, loss="softmax_cross_entropy"),
            "requires one output per class, got a last layer with one unit",
        ),
        (
            lambda: pnn.Network([pnn.Dense(2, lambda x: pnn.xp.sum(x))], inputs=2),
            r"apply of dense_1 to return shape \(3, outputs\) for 3 rows",
        ),
        (
            lambda: pnn.Network([pnn.Dense(2, lambda x: x > 0)], inputs=2),
            "apply of dense_1 to keep the dtype, float32, got bool",
        ),
        (lambda: pnn.mlp([3]), "sizes must be .inputs"),
        (lambda: pnn.mlp(3, 4), "sizes must be .inputs"),
        (
            lambda: pnn.mlp([3, 2], output_activation="softmax", loss="softmax_cross_entropy"),
            "the loss .* takes logits, got a last layer with activation 'softmax'",
        ),
        (
            lambda: pnn.mlp([3, 1], output_activation="sigmoid", loss="sigmoid_cross_entropy"),
            "give the last layer no activation",
        ),
        (
            lambda: pnn.mlp([3, 2], loss=lambda p, t: 0.0).fit(X, X[:, :2]),
            "expected a loss function that returns an array, got float",
        ),
        (
            lambda: pnn.Network([_NoResult(2)], inputs=2),
            "expected apply of _no_result_1 to return an array, got NoneType",
        ),
        (
            lambda: pnn.Network([_NoInit(2)], inputs=2),
            "expected init of _no_init_1 to return a dict of arrays by name, got NoneType",
        ),
        (lambda: pnn.mlp([3, 2], optimizer=pnn.Adam), "Adam is a class: expected an instance"),
        (lambda: pnn.Adam("0.1"), "learning_rate must be a number of at least 0 or a schedule, got '0.1'"),
        (lambda: pnn.schedules.CosineDecay(0.1, 0), "steps must be a positive integer, got 0"),
        (lambda: pnn.schedules.CosineDecay("a", 3), "start must be a number"),
        (lambda: pnn.callbacks.Progress(every=0), "every must be a positive number"),
        (lambda: pnn.get_backend(""), "expected a backend's name"),
        (lambda: pnn.Network([pnn.Dense(2)], inputs=2, backend="no_such_library"), "cannot be imported"),
    ],
)
def test_a_network_that_cannot_be_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError, pnn.BackendError), match=says):
        make()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dense_9.kernel": X}, "unknown parameter 'dense_9.kernel': expected one of dense_1.kernel"),
        ({"dense_1.bias": [1.0]}, r"expected dense_1.bias of shape \(4,\), got \(1,\)"),
        ({"dense_1.bias": [1.0, np.nan, 0.0, 0.0]}, "dense_1.bias holds NaN"),
        (
            {"dense_1.bias": [1.0, 2.0, 3.0, 4.0], "dense_2.bias": "zeros"},
            "expected real numbers in dense_2.bias, got dtype",
        ),
    ],
)
def test_set_parameters_sets_all_or_nothing(values: dict[str, Any], says: str) -> None:
    net = _classifier()
    before = to_numpy(net.state.theta).copy()
    with pytest.raises((TypeError, ValueError), match=says):
        net.set_parameters(values)
    np.testing.assert_array_equal(net.state.theta, before)


@pytest.mark.parametrize("shape", [(), (2, 1, 2)])
def test_a_value_that_is_not_finite_is_located_in_arrays_of_any_dimension(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scale holds NaN or infinity, first at 0:"):
        validation.check_finite(np.full(shape, np.nan), "scale", "float32")


def test_mixed_libraries_are_refused(other_library: Any) -> None:
    net = _classifier()
    before = net.backend
    with pytest.raises(TypeError, match="X and y must be arrays of one library, got numpy and .*: convert one of them"):
        net.fit(X, other_library.array(Y))
    assert net.backend == before


def test_mixed_devices_are_refused() -> None:
    on_one, on_other = (pnn.get_backend(f"array_api_strict:{device}") for device in ("device1", "device2"))
    with pytest.raises(TypeError, match=r"X and y must be on one device, got .*device1.* and .*device2"):
        _classifier().fit(on_one.asarray(X), on_other.asarray(Y))


@pytest.mark.parametrize("loss", ["squared_error", "hinge", "perceptron"])
def test_predict_proba_wants_a_loss_with_probabilities(loss: str) -> None:
    with pytest.raises(
        TypeError, match="predict_proba requires a loss with probabilities, got .*sigmoid_cross_entropy"
    ):
        pnn.mlp([3, 1], loss=loss).predict_proba(X)


def test_a_large_finite_sum_is_not_taken_for_infinity() -> None:
    pnn.mlp([3, 1], kernel_init="zeros").predict(np.full((4, 3), 3e38, dtype=np.float32))


def test_an_error_in_a_users_layer_leaves_the_network_as_it_was() -> None:
    class Broken(pnn.Dense):
        def apply(self, xp: Any, params: Any, x: Any, training: bool = False) -> Any:
            if training:
                raise RuntimeError("broken")
            return super().apply(xp, params, x)

    net = pnn.Network([Broken(2)], inputs=3)
    before, facts = to_numpy(net.state.theta).copy(), dict(net.__dict__)
    there = pnn.get_backend("array_api_strict:device1")
    for x in (X, there.asarray(X)):
        with pytest.raises(RuntimeError, match="broken"):
            net.fit(x, x[:, :2])
        assert net.__dict__ == facts
    np.testing.assert_array_equal(net.state.theta, before)
    assert net.predict(X).shape == (4, 2)


def test_balanced_weights_of_an_absent_class_are_zero_and_the_others_share_all_rows() -> None:
    found = validation.class_weight_table("balanced", np.asarray([0, 0, 0, 2]), 3, None)
    np.testing.assert_allclose(found, [4 / (2 * 3), 0.0, 4 / (2 * 1)], rtol=1e-12)
