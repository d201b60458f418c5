"""Validation of rows, targets, weights and classes, and labels as class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import DataConversionWarning

from portablenn.runtime.arrays import to_numpy
from portablenn.sklearn import inputs
from portablenn.sklearn.inputs import Labels, Samples

strict = pytest.importorskip("array_api_strict")


class Estimator(BaseEstimator):
    pass


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (strict.ones(3), r"Expected 2D array, got 1D array instead. Reshape your data using X.reshape\(-1, 1\)"),
        (strict.ones((1, 1, 1)), r"Expected 2D array, got 3D array instead\.$"),
        (strict.ones((0, 2)), r"Found array with 0 sample\(s\) \(shape=\(0, 2\)\) while a minimum of 1 is required by Estim"),
        (strict.ones((2, 0)), r"Found array with 0 feature\(s\) \(shape=\(2, 0\)\)"),
        (strict.ones((2, 2), dtype=strict.complex128), "Complex data not supported"),
        (strict.asarray([[1.0, float("nan")]]), "Input X contains NaN or infinity.\nEstimator does not accept"),
        (strict.asarray([[1.0, float("inf")]]), "Input X contains NaN or infinity"),
    ],
)  # fmt: skip
def test_rows_of_other_libraries_are_validated_as_scikit_learn_does(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inputs.rows(Estimator(), x, reset=True)


def test_rows_of_other_libraries_set_the_number_of_features_and_forget_their_names() -> None:
    estimator = Estimator()
    estimator.feature_names_in_ = np.asarray(["a"])
    x = strict.ones((2, 3), dtype=strict.int32)
    assert inputs.rows(estimator, x, reset=True) is x
    assert estimator.n_features_in_ == 3
    assert not hasattr(estimator, "feature_names_in_")
    assert inputs.rows(estimator, x, reset=False) is x
    with pytest.raises(ValueError, match="X has 2 features, but Estimator is expecting 3 features as input"):
        inputs.rows(estimator, strict.ones((2, 2)), reset=False)
    inputs.rows(estimator, x, reset=True)
    inputs.rows(estimator, strict.ones((2, 1)), reset=True)
    assert estimator.n_features_in_ == 1


def fitted(names: bool = False) -> Estimator:
    estimator = Estimator()
    estimator.n_features_in_ = 3
    if names:
        estimator.feature_names_in_ = np.asarray(["a", "b", "c"], dtype=object)
    return estimator


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_few_valid_rows_are_returned_without_scikit_learns_checks(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "validate_data", None)
    x = np.ones((1, 3), dtype=dtype)
    assert inputs.rows(fitted(), x, reset=False) is x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), "Expected 2D array, got 1D array instead"),
        (np.ones((0, 3)), "Found array with 0 sample"),
        (np.ones((1, 2)), "X has 2 features, but Estimator is expecting 3 features as input"),
        (np.asarray([[1.0, np.nan, 2.0]]), "Input X contains NaN"),
        (np.asarray([[1.0, -np.inf, 2.0]], dtype=np.float32), "Input X contains infinity"),
        (np.ones((1, 3), dtype=complex), "Complex data not supported"),
    ],
)
def test_a_few_rows_that_are_not_valid_raise_scikit_learns_errors(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inputs.rows(fitted(), x, reset=False)


def test_a_few_rows_whose_squares_overflow_are_valid() -> None:
    x = np.full((1, 3), 1e200)
    assert inputs.rows(fitted(), x, reset=False) is x


def test_a_row_without_names_of_columns_warns_where_there_were_names() -> None:
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        inputs.rows(fitted(names=True), np.ones((1, 3)), reset=False)


def test_sparse_rows_become_csr() -> None:
    assert inputs.rows(Estimator(), sp.csc_array(np.eye(2)), reset=True).format == "csr"


@pytest.mark.parametrize(
    ("wanted", "dtype", "expected"),
    [(None, "float32", "float32"), (None, "float16", "float64"), (None, "int32", "float64"), ("float32", "float64", "float32")],
)  # fmt: skip
def test_the_dtype_of_a_network_is_that_of_x_or_the_wanted_one(wanted: Any, dtype: str, expected: str) -> None:
    assert inputs.float_dtype(wanted, np.ones((1, 1), dtype=dtype)) == expected


@pytest.mark.parametrize("given", [[1, 2, 0], np.asarray([1.0, 2.0, 0.0]), strict.asarray([1.0, 2.0, 0.0])])
def test_weights_are_a_float_per_row(given: Any) -> None:
    checked = inputs.weights(given, np.ones((3, 1)), "float32")
    assert checked is not None
    assert (checked.dtype, checked.tolist()) == (np.float32, [1.0, 2.0, 0.0])


def test_a_number_is_the_weight_of_each_row_and_none_stays_none() -> None:
    assert inputs.weights(None, np.ones((3, 1)), "float64") is None
    assert inputs.weights(2, np.ones((3, 1)), "float64").tolist() == [2.0, 2.0, 2.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"sample_weight.shape == \(2,\), expected \(3,\)!"),
        ([[1.0], [2.0], [3.0]], "Sample weights must be 1D array or scalar, got 2D array. Expected either a scalar value or a 1D array of length 3"),
        ([0, 0, 0], "at least one non-zero number"),
        (0, "at least one non-zero number"),
        ([1, -1, 2], "Negative values in data passed to `sample_weight`"),
        ([1, np.nan, 2], "Input sample_weight contains NaN"),
    ],
)  # fmt: skip
def test_wrong_weights_raise(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inputs.weights(given, np.ones((3, 1)), "float64")


def test_targets_are_validated_on_the_host() -> None:
    x, e = np.ones((2, 1)), Estimator()
    assert inputs.values(strict.asarray([1.0, 2.0]), x, e).tolist() == [1.0, 2.0]
    assert inputs.values(np.asarray([["1"], ["2"]], dtype=object)[:, 0], x, e).dtype == np.float64
    assert inputs.values([[1.0, 2.0], [3.0, 4.0]], x, e).shape == (2, 2)
    assert inputs.labels(sp.csr_array(np.eye(2, dtype=int)), x, e).tolist() == [[1, 0], [0, 1]]
    assert inputs.labels(np.asarray(["a", "b"], dtype=object), x, e).dtype == object
    with pytest.warns(DataConversionWarning, match="A column-vector y"):
        assert inputs.labels([[1], [2]], x, e).shape == (2,)
    for read in (inputs.values, inputs.labels):
        with pytest.raises(ValueError, match="This Estimator estimator requires y to be passed"):
            read(None, x, e)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            read([1, 2, 3], x, e)
        with pytest.raises(ValueError, match="Input y contains NaN"):
            read([1.0, np.nan], x, e)
    for wrong in ([0.5, 1.5], np.asarray([1, 2], dtype=object)):
        with pytest.raises(ValueError, match="Unknown label type"):
            inputs.labels(wrong, x, e)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array, strict.asarray])
def test_some_rows_are_taken_with_their_targets_and_weights(make: Any) -> None:
    x = np.arange(8.0).reshape(4, 2)
    samples = Samples(make(x), np.arange(4), np.arange(4) / 2)
    taken = samples.take(np.asarray([3, 1]))
    rows = taken.x.toarray() if sp.issparse(taken.x) else to_numpy(taken.x)
    assert (rows.tolist(), type(taken.x)) == (x[[3, 1]].tolist(), type(samples.x))
    assert (taken.target.tolist(), taken.weights.tolist(), taken.rows) == ([3, 1], [1.5, 0.5], 2)  # type: ignore[union-attr]
    assert samples._replace(weights=None).take(np.asarray([0])).weights is None


@pytest.mark.parametrize(
    ("y", "kind", "outputs", "encoded"),
    [
        (["b", "a", "b"], "binary", 1, [1, 0, 1]),
        ([5, 5], "binary", 1, [0, 0]),
        ([30, 10, 20], "multiclass", 3, [2, 0, 1]),
        ([[0, 1, 1], [1, 0, 0]], "multilabel-indicator", 3, [[0, 1, 1], [1, 0, 0]]),
    ],
)
def test_labels_are_encoded_and_decoded(y: Any, kind: str, outputs: int, encoded: Any) -> None:
    y = np.asarray(y)
    labels = Labels.from_targets(y)
    assert (labels.kind, labels.outputs) == (kind, outputs)
    numbers = labels.encode(y)
    assert (numbers.dtype, numbers.tolist()) == (np.int64, encoded)
    decoded = labels.decode(numbers)
    assert decoded.tolist() == y.tolist()
    other = labels.decode(strict.asarray(numbers))
    assert inputs.is_foreign(other) == (y.dtype.kind != "U")
    assert inputs.to_host(other).tolist() == y.tolist()
    assert labels.contain(y)
    assert labels.contain(y + 1 if y.ndim == 2 else y[:1])


def test_known_classes_are_those_of_all_calls() -> None:
    y = np.asarray([2, 1])
    labels = Labels.from_targets(y, strict.asarray([3, 1, 2]))
    assert (labels.kind, labels.classes.tolist(), labels.encode(y).tolist()) == ("multiclass", [1, 2, 3], [1, 0])
    assert not labels.contain(np.asarray([4, 1]))
    assert Labels.from_targets(y, [1, 2]).kind == "binary"


def test_one_class_is_predicted_whatever_the_number() -> None:
    labels = Labels.from_targets(np.asarray([7, 7]))
    assert labels.decode(np.asarray([0, 1])).tolist() == [7, 7]


@pytest.mark.parametrize("dispatch", [False, True])
def test_classes_follow_x_under_dispatch_if_they_are_numbers(dispatch: bool) -> None:
    x = strict.ones((1, 1))
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert inputs.is_foreign(Labels("binary", np.asarray([0, 1])).attribute(x)) == dispatch
        assert not inputs.is_foreign(Labels("binary", np.asarray(["a", "b"])).attribute(x))
        assert not inputs.is_foreign(Labels("binary", np.asarray([0, 1])).attribute(np.ones((1, 1))))


def test_all_classes_are_given_first_and_stay_the_same() -> None:
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        inputs.check_all_classes(None, None)
    inputs.check_all_classes(None, [1, 2])
    labels = Labels("binary", np.asarray([1, 2]))
    for same in (None, [2, 1], strict.asarray([1, 2])):
        inputs.check_all_classes(labels, same)
    with pytest.raises(
        ValueError, match=r"`classes=\[1, 3\]` is not the same as on last call to partial_fit, was: array"
    ):
        inputs.check_all_classes(labels, [1, 3])


def test_arrays_of_the_host_follow_x() -> None:
    assert inputs.like(strict.ones(1), None) is None
    y = np.asarray([1, 2])
    assert inputs.like(np.ones(1), y) is y
    assert inputs.is_foreign(inputs.like(strict.ones(1), y))
    assert not inputs.is_foreign(y)
    assert not inputs.is_foreign([1])
