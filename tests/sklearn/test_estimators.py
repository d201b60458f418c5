"""The estimators in use: scikit-learn's checks, inputs of any kind and library, pipelines, pickles and files."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

import portablenn as pnn
import portablenn.sklearn
from portablenn.sklearn import MLPClassifier, MLPRegressor, Perceptron, from_sklearn, to_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
VALUES = scale(load_diabetes().data), scale(load_diabetes().target)
ONLINE = {"check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"}
"""A row of weight 0 takes a place in the order of steps, so the other rows are in other steps than without it."""


def _net(**parameters: Any) -> MLPClassifier:
    return MLPClassifier((8,), random_state=0, max_iter=20, **parameters)


# scikit-learn's own checks


CHECKED = {
    "adam": (MLPClassifier(max_iter=30), frozenset()),
    # weights count within a batch, as in scikit-learn's own: in batches of one they would change nothing
    "small batches": (MLPClassifier(max_iter=30, batch_size=7), ONLINE | {"check_class_weight_classifiers"}),
    "lbfgs": (MLPClassifier(solver="lbfgs", max_iter=100), frozenset()),
    "values by adam": (MLPRegressor(max_iter=30), frozenset()),
    "values by lbfgs": (MLPRegressor(solver="lbfgs", max_iter=100), frozenset()),
    "perceptron": (Perceptron(), ONLINE),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHECKED)
def test_scikit_learns_checks_hold(name: str) -> None:
    estimator, expected = CHECKED[name]
    with pnn.use_backend("numpy"):
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    failed = {name: e for name, e in failed.items() if type(e).__name__ != "CUDARuntimeError"}  # CuPy without a GPU
    assert failed.keys() == expected, failed
    ran = [str(r["check_name"]) for r in results if r["status"] == "passed"]
    libraries = 2 if importlib.util.find_spec("torch") else 1
    assert sum(name == "check_array_api_input" for name in ran) >= 2 * libraries
    assert "check_array_api_same_namespace" in ran


# Where X is


@pytest.fixture
def pair(other_library: Any) -> Any:
    """X and y of a library that is not NumPy."""
    return other_library, other_library.array(X), other_library.array(Y)


@pytest.mark.parametrize("dispatch", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_everything_follows_x(pair: Any, solver: str, dispatch: bool) -> None:
    library, x, y = pair
    with sklearn.config_context(array_api_dispatch=dispatch):
        there = _net(solver=solver, early_stopping=solver == "adam").fit(x, y)
        here = _net(solver=solver, early_stopping=solver == "adam", backend="numpy").fit(X, Y)
        for array in (*there.coefs_, *there.intercepts_, there.predict(x), there.predict_proba(x)):
            assert pnn.array_namespace(array) is pnn.array_namespace(x)
            assert str(getattr(array, "device", "")) == str(getattr(x, "device", ""))
        np.testing.assert_allclose(library.numpy(there.predict_proba(x)), here.predict_proba(X), rtol=1e-6, atol=1e-9)
        assert there.score(x, y) == pytest.approx(here.score(X, Y))
        if dispatch:
            assert pnn.array_namespace(there.classes_) is pnn.array_namespace(x)
            with pytest.raises(ValueError, match="must use the same namespace"):
                there.predict(X)
        else:
            np.testing.assert_array_equal(there.predict(X), here.predict(X))
    if library.name != "jax":
        assert library.name.partition(":")[0] in there.backend_


def test_values_and_weights_follow_x(pair: Any) -> None:
    library, _, _ = pair
    x, y = library.array(VALUES[0]), library.array(VALUES[1])
    weights = np.linspace(0.5, 2.0, len(VALUES[1]))
    there = MLPRegressor(hidden_layer_sizes=(8,), random_state=0, max_iter=5).fit(x, y, sample_weight=weights)
    here = MLPRegressor(hidden_layer_sizes=(8,), random_state=0, max_iter=5, backend="numpy").fit(*VALUES, weights)
    np.testing.assert_allclose(library.numpy(there.predict(x)), here.predict(VALUES[0]), rtol=1e-6, atol=1e-9)


def test_perceptrons_follow_x(pair: Any) -> None:
    library, x, y = pair
    there, here = Perceptron(max_iter=3).fit(x, y), Perceptron(max_iter=3, backend="numpy").fit(X, Y)
    np.testing.assert_allclose(library.numpy(there.coef_), here.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(library.numpy(there.predict(x)), here.predict(X))
    assert pnn.array_namespace(there.coef_) is pnn.array_namespace(x)


def test_an_estimator_is_moved_by_scikit_learns_hook(pair: Any) -> None:
    from sklearn.utils._array_api import move_estimator_to  # the user guide imports it from here

    library, x, y = pair
    with sklearn.config_context(array_api_dispatch=True):
        there = _net().fit(x, y)
        here = move_estimator_to(there, np, "cpu")
        assert isinstance(here.predict(X), np.ndarray)
        np.testing.assert_allclose(here.predict_proba(X), library.numpy(there.predict_proba(x)), rtol=1e-6)
        assert pnn.array_namespace(there.coefs_[0]) is pnn.array_namespace(x)  # the first stays


def test_text_labels_of_rows_of_other_libraries_are_numpy_arrays(pair: Any) -> None:
    _, x, _ = pair
    names = np.asarray(["setosa", "versicolor", "virginica"])[Y]
    assert set(_net().fit(x, names).predict(x)) <= set(names)


# Any kind of input


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_tables_keep_the_names_of_their_columns(kind: str) -> None:
    library = pytest.importorskip(kind)
    if kind == "pyarrow" and not (importlib.util.find_spec("pandas") or importlib.util.find_spec("polars")):
        with pytest.raises(ImportError, match="pip install pandas"):
            _net().fit(library.table({"a": X[:, 0]}), Y)
        return
    columns = {name: X[:, i] for i, name in enumerate("abcd")}
    table = library.table(columns) if kind == "pyarrow" else library.DataFrame(columns)
    net = _net().fit(table, Y)
    assert net.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(net.predict(table), _net().fit(X, Y).predict(X))
    wrong = {name: columns[name] for name in "abdc"}
    other = library.table(wrong) if kind == "pyarrow" else library.DataFrame(wrong)
    with pytest.raises(ValueError, match="feature names"):
        net.predict(other)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64", "bool", ">f8"])
@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2]])
def test_any_dtype_and_strides_train(dtype: str, make: Any) -> None:
    x = make(np.round(X * 3 + 8).astype(dtype))
    net = _net().fit(x, Y)
    assert net.predict_proba(x).dtype == (np.float32 if dtype == "float32" else np.float64)
    np.testing.assert_array_equal(
        net.predict(x), _net(dtype=net.coefs_[0].dtype.name).fit(x.astype(float), Y).predict(x)
    )


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_rows_train_as_dense_ones(form: Any, solver: str) -> None:
    x = np.where(np.abs(X) > 0.5, X, 0.0)
    sparse, dense = _net(solver=solver).fit(form(x), Y), _net(solver=solver).fit(x, Y)
    np.testing.assert_allclose(sparse.loss_curve_, dense.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(sparse.predict_proba(form(x)), dense.predict_proba(x), rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_sparse_matrix_is_never_dense_as_a_whole() -> None:
    """3.2 GB if it were."""
    script = """
import numpy as np, scipy.sparse as sp
from portablenn.sklearn import MLPClassifier
rng = np.random.default_rng(0)
X = sp.random_array((40_000, 10_000), density=1e-4, rng=rng, format="csr", dtype=np.float64)
net = MLPClassifier((4,), max_iter=1, early_stopping=True, backend="numpy").fit(X, rng.integers(0, 2, 40_000))
net.predict(X)
with open("/proc/self/status") as file:  # getrusage would include what the process was that started this one
    print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1e6)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.0


def test_a_read_only_memory_map_trains(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(_net().fit(mapped, Y).predict(mapped), _net().fit(X, Y).predict(X))


@pytest.mark.parametrize(
    "targets",
    [
        Y > 0,
        Y.astype(float),
        Y.astype("uint8"),
        np.asarray(list("abc"))[Y],
        np.asarray(list("abc"), dtype=object)[Y],
        (Y - 1).tolist(),
    ],
)
def test_predictions_are_labels_of_the_same_kind(targets: Any) -> None:
    net = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, targets)
    assert net.classes_.tolist() == sorted({*np.asarray(targets).tolist()})
    assert net.predict(X).dtype == net.classes_.dtype
    assert np.mean(net.predict(X) == np.asarray(targets)) > 0.95


# What scikit-learn's own estimators do not have


def test_class_weights_act_as_the_weights_of_rows() -> None:
    table = {0: 3.0, 1: 1.0, 2: 0.5}
    by_class = _net(class_weight=table).fit(X, Y)
    by_row = _net().fit(X, Y, sample_weight=np.asarray([table[int(k)] for k in Y]))
    assert by_class.loss_curve_ == by_row.loss_curve_
    assert _net(class_weight="balanced").fit(X[:120], Y[:120]).loss_curve_ != _net().fit(X[:120], Y[:120]).loss_curve_


@pytest.mark.parametrize(
    "parameters",
    [
        {"dropout": 0.2}, {"batch_norm": True}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"activation": ["gelu"]},
        {"precision": "bfloat16", "dtype": "float32"},
        {"activation": lambda x: x * x}, {"loss": "hinge"}, {"loss": pnn.losses.SoftmaxCrossEntropy()}, {"dtype": "float32"},
    ],
)  # fmt: skip
def test_each_parameter_that_scikit_learn_does_not_have_changes_the_training(parameters: dict[str, Any]) -> None:
    X_, Y_ = (X[:100], Y[:100]) if parameters.get("loss") == "hinge" else (X, Y)
    usual, other = _net().fit(X_, Y_), _net(**parameters).fit(X_, Y_)
    if not isinstance(parameters.get("loss"), pnn.losses.Loss):
        assert other.loss_curve_ != usual.loss_curve_
    assert len(other.predict(X_)) == len(X_)
    clone(other)


def test_callbacks_are_called_and_may_stop() -> None:
    seen: list[int] = []

    class Seen(pnn.callbacks.Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
            seen.append(epoch)
            return epoch == 3

    assert _net(callbacks=[Seen()]).fit(X, Y).n_iter_ == 3
    assert seen == [1, 2, 3]


# Among scikit-learn's own tools


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "array_api_strict"])
def test_pickles_and_copies_predict_the_same(backend: str) -> None:
    pytest.importorskip(backend)
    library = pnn.get_backend(backend)
    x, y = library.asarray(X), library.asarray(Y)
    net = _net().fit(x, y)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_allclose(library.to_numpy(other.predict_proba(x)), library.to_numpy(net.predict_proba(x)))
        assert pnn.array_namespace(other.coefs_[0]) is pnn.array_namespace(x)
        assert repr(other) == repr(net)
    assert not hasattr(clone(net), "backend_")


def test_a_pickle_of_an_unusable_device_runs_on_a_usable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    net = _net().fit(torch.asarray(X), torch.asarray(Y))
    expected = net.predict_proba(torch.asarray(X)).numpy()
    kept = pickle.dumps(net)
    monkeypatch.setenv("PORTABLENN_BACKEND", "numpy")
    real = pnn.get_backend

    def without_torch(name: Any) -> Any:
        if isinstance(name, str) and name.startswith("torch"):
            raise pnn.BackendError("no such device here")
        return real(name)

    monkeypatch.setattr("portablenn.training.network.get_backend", without_torch)
    with pytest.warns(RuntimeWarning, match="is not available"):
        other = pickle.loads(kept)
    np.testing.assert_allclose(other.predict_proba(X), expected, rtol=1e-6)


def test_pipelines_searches_and_calibration_work() -> None:
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((6,), solver="lbfgs", random_state=0))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": np.logspace(-3, 0, 2)}, cv=3).fit(load_iris().data, Y)
    assert search.best_score_ > 0.9
    assert cross_val_score(pipeline, load_iris().data, Y, cv=3).mean() > 0.9
    calibrated = CalibratedClassifierCV(_net(), cv=3).fit(X, Y)
    assert calibrated.predict_proba(X).shape == (150, 3)
    importance = permutation_importance(search.best_estimator_, load_iris().data, Y, n_repeats=2, random_state=0)
    assert importance.importances_mean.argmax() in (2, 3)


def test_weights_are_routed() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        net = _net(solver="lbfgs").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        results = cross_validate(net, X, Y, params={"sample_weight": np.ones(150)}, cv=3)
    assert (results["test_score"] > 0.5).all()


def test_representations_show_the_backend() -> None:
    net = _net(backend="numpy")
    assert "trained on" not in repr(net)
    net.fit(X, Y)
    assert repr(net).endswith("# trained on numpy")
    assert "backend_" in net._repr_html_()
    assert "numpy" in net._repr_html_()


@pytest.mark.parametrize(
    ("kind", "data", "parameters"),
    [
        ("MLPClassifier", (X, Y), {}),
        ("MLPClassifier", (X[:100], np.asarray(["a", "b"])[Y[:100]]), {"activation": "logistic"}),
        ("MLPClassifier", (X, np.stack([Y > 0, Y > 1], axis=1).astype(int)), {"hidden_layer_sizes": (5, 4)}),
        ("MLPRegressor", VALUES, {}),
        ("MLPRegressor", (VALUES[0], np.stack([VALUES[1]] * 2, axis=1)), {"activation": "tanh"}),
        ("MLPRegressor", (VALUES[0], np.exp(VALUES[1])), {"loss": "poisson"}),
    ],
)
def test_weights_go_to_scikit_learn_and_back(kind: str, data: Any, parameters: dict[str, Any]) -> None:
    theirs = getattr(neural_network, kind)(random_state=0, max_iter=5, **parameters).fit(*data)
    ours = from_sklearn(theirs, backend="numpy")
    back = ours.to_sklearn()
    assert type(to_sklearn(ours)) is type(back)
    for method in ("predict", "predict_proba")[: 1 + (kind == "MLPClassifier")]:
        expected = getattr(theirs, method)(data[0])
        for other in (ours, back):
            given = getattr(other, method)(data[0])
            if given.dtype.kind == "f":
                np.testing.assert_allclose(given, expected, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(given, expected)
    assert back.loss_curve_ == theirs.loss_curve_
    back.partial_fit(*data)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: _net().predict(X), "is not fitted yet"),
        (
            lambda: _net().fit(X, Y).predict(X[:, :2]),
            "X has 2 features, but MLPClassifier is expecting 4 features as input",
        ),
        (lambda: _net().fit(np.where(X > 2, np.nan, X), Y), "Input X contains NaN"),
        (lambda: _net().fit(X, Y[:10]), "inconsistent numbers of samples"),
        (lambda: _net().fit(X[0], Y[:1]), "Expected 2D array, got 1D array instead"),
        (lambda: _net().fit(X, None), "requires y to be passed, but the target y is None"),
        (lambda: _net().fit(X, VALUES[1][:150]), "Unknown label type: continuous"),
        (lambda: _net(activation="reluu").fit(X, Y), "The 'activation' parameter of MLPClassifier must be"),
        (lambda: _net(solver="rmsprop").fit(X, Y), "The 'solver' parameter of MLPClassifier must be a str among"),
        (lambda: _net(dropout=1.5).fit(X, Y), "The 'dropout' parameter of MLPClassifier must be a float in the range"),
        (
            lambda: _net(activation=["relu", "tanh"]).fit(X, Y),
            "expected an activation for each of 1 hidden layers, got 2",
        ),
        (lambda: _net(solver="lbfgs").partial_fit(X, Y), "has no attribute 'partial_fit'"),
        (lambda: _net().partial_fit(X, Y), "classes must be passed on the first call to partial_fit"),
        (lambda: Perceptron().fit(X, np.zeros(150)), "The number of classes has to be greater than one"),
        (lambda: _net(backend="nowhere").fit(X, Y), "nowhere"),
    ],
)
def test_wrong_input_raises_with_scikit_learns_messages(broken: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError, pnn.BackendError)) as caught:
        broken()
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [MLPClassifier, Perceptron])
def test_a_fit_that_fails_leaves_the_estimator_unchanged(kind: Any) -> None:
    estimator = kind(max_iter=5).fit(X, Y)
    before, expected = dict(vars(estimator)), estimator.predict(X)
    for broken in (lambda: estimator.fit(X[:, :3], Y[:5]), lambda: estimator.partial_fit(X, Y, classes=[7, 8])):
        with pytest.raises(ValueError, match=r"inconsistent|is not the same"):
            broken()
        assert vars(estimator) == before
    np.testing.assert_array_equal(estimator.predict(X), expected)
    fresh = kind()
    with pytest.raises(ValueError, match="NaN"):
        fresh.partial_fit(X * np.nan, Y, classes=[0, 1, 2])
    assert vars(fresh) == vars(kind())


class _Boo(pnn.callbacks.Callback):
    def on_epoch_end(self, network: Any, epoch: int, logs: Any) -> bool:
        if epoch == 3:
            raise RuntimeError("boo")
        return False


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_training_that_fails_midway_leaves_the_estimator_unchanged(solver: str) -> None:
    estimator = _net(solver=solver, warm_start=True).fit(X, Y)
    weights, figures = (
        [np.array(w) for w in estimator.coefs_],
        (list(estimator.loss_curve_), estimator.n_iter_, estimator.t_),
    )
    with pytest.raises(RuntimeError, match="boo"):
        estimator.set_params(callbacks=[_Boo()], alpha=3.0, tol=1e-12).fit(X, Y)
    assert (list(estimator.loss_curve_), estimator.n_iter_, estimator.t_) == figures
    for before, after in zip(weights, estimator.coefs_, strict=True):
        np.testing.assert_array_equal(before, after)
    estimator.set_params(callbacks=[]).fit(X, Y)


@pytest.mark.parametrize(
    "changed",
    [{"hidden_layer_sizes": (3,)}, {"activation": "tanh"}, {"activation": ["tanh"]}, {"loss": "hinge"}, {"dropout": 0.5}, {"dtype": "float32"}],
    ids=str,
)  # fmt: skip
def test_a_warm_start_continues_the_same_network_or_raises(changed: dict[str, Any]) -> None:
    net = _net(warm_start=True).fit(X, Y)
    expected = net.predict_proba(X)
    net.set_params(**changed)
    with pytest.raises(ValueError, match=f"{next(iter(changed))} changed since the network was built"):
        net.fit(X, Y)
    if "loss" not in changed:
        np.testing.assert_array_equal(net.predict_proba(X), expected)
    np.testing.assert_allclose(net.to_sklearn().predict_proba(X), expected)
    net.set_params(warm_start=False).fit(X, Y)


def test_one_solver_continues_where_another_stopped() -> None:
    net = _net(solver="lbfgs", warm_start=True).fit(X, Y)
    before = net.loss_
    assert net.set_params(solver="adam").fit(X, Y).loss_ < before + 0.05


def test_a_converted_estimator_shares_nothing_with_its_source() -> None:
    theirs = neural_network.MLPClassifier(random_state=0, max_iter=3, early_stopping=True, warm_start=True).fit(X, Y)
    before = len(theirs.loss_curve_)
    ours = from_sklearn(theirs, backend="numpy", max_iter=5).fit(X, Y)
    ours.to_sklearn().fit(X, Y)
    assert (len(theirs.loss_curve_), len(ours.loss_curve_)) == (before, before + 5)
    with pytest.raises(TypeError, match="expected a fitted MLPClassifier or MLPRegressor of portablenn"):
        to_sklearn(Perceptron().fit(X, Y))


@pytest.mark.parametrize(
    ("estimator", "targets", "message"),
    [
        (MLPClassifier(loss="squared_error"), Y, "is for values"),
        (MLPRegressor(loss="hinge"), VALUES[1][:150], "is for classes"),
        (MLPClassifier(hidden_layer_sizes=(1.5,)), Y, "cannot be interpreted as an integer"),
    ],
)
def test_parameters_that_contradict_the_targets_raise(estimator: Any, targets: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(X, targets)


def test_the_hinge_loss_has_no_probabilities() -> None:
    assert not hasattr(_net(loss="hinge"), "predict_proba")
    assert hasattr(_net(), "predict_proba")


def test_labels_that_a_library_cannot_hold_are_numpy_arrays() -> None:
    script = """
import numpy as np, jax.numpy as jnp
from sklearn.datasets import load_iris
from portablenn.sklearn import MLPClassifier
X, y = load_iris(return_X_y=True)
labels = np.array([2**40, 2**40 + 1, 5])[y]
net = MLPClassifier((5,), solver="lbfgs", max_iter=50, random_state=0).fit(jnp.asarray(X), labels)
print(net.score(jnp.asarray(X), labels))
"""
    pytest.importorskip("jax")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.9


def test_the_network_of_an_estimator_is_saved_and_loaded(tmp_path: Any) -> None:
    net = _net(solver="sgd", learning_rate="invscaling").fit(X, Y)
    net.network_.save(tmp_path / "net.safetensors")
    loaded = pnn.load(tmp_path / "net.safetensors", backend="numpy")
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
def test_a_dtype_may_be_a_name_a_type_or_a_numpy_dtype(dtype: Any) -> None:
    assert _net(dtype=dtype).fit(X, Y).coefs_[0].dtype == np.float32


@pytest.mark.parametrize("data", [load_breast_cancer, load_wine, load_digits, load_diabetes])
def test_cross_validation_scores_are_not_below_scikit_learns(data: Any) -> None:
    x, y = data(return_X_y=True)
    kind, y = ("MLPRegressor", scale(y)) if data is load_diabetes else ("MLPClassifier", y)
    mine, theirs = (
        cross_val_score(
            make_pipeline(StandardScaler(), module(hidden_layer_sizes=(20,), max_iter=60, random_state=0)), x, y, cv=5
        )
        for module in (getattr(portablenn.sklearn, kind), getattr(neural_network, kind))
    )
    assert mine.mean() >= theirs.mean() - theirs.std(ddof=1) / np.sqrt(5)


def test_convergence_warnings_are_scikit_learns() -> None:
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        MLPClassifier(max_iter=2).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge after 2 iteration"):
        MLPClassifier(max_iter=2, solver="lbfgs").fit(X, Y)
