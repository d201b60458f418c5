"""Networks whose matrix products multiply rounded numbers, on each library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.files import model_file
from portablenn.program.interpret import rounded, rounded_matmul
from portablenn.transforms.precision import with_precision

RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((40, 30), (30, 20)))
X = RNG.normal(size=(300, 12)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
BITS = {"tf32": 11, "bfloat16": 8}
"""Significant bits."""


def nearest(x: Any, bits: int) -> np.ndarray:
    """Round by integers, half to even, independently of the library."""
    words, dropped = x.view(np.uint32).astype(np.uint64), 24 - bits
    half = (1 << (dropped - 1)) - 1 + ((words >> dropped) & 1)
    return ((words + half) >> dropped << dropped).astype(np.uint32).view(np.float32)


def distance(a: Any, b: Any) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("precision", BITS)
def test_numbers_are_rounded_to_the_nearest(precision: str) -> None:
    x = np.concatenate([RNG.normal(size=5000) * 10.0 ** RNG.integers(-30, 29, 5000), [0.0, 1.0, -0.1]]).astype(
        np.float32
    )
    found = rounded(np, x, precision)
    ties = np.abs(found - x) == np.abs(nearest(x, BITS[precision]) - x)
    np.testing.assert_array_equal(found[~ties], [])
    assert not np.any(found.view(np.uint32) & ((1 << (24 - BITS[precision])) - 1))


@pytest.mark.parametrize("precision", BITS)
def test_infinity_and_nan_stay(precision: str) -> None:
    x = np.asarray([np.inf, -np.inf, np.nan, 3e38, 1e-45], dtype=np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(rounded(np, x, precision)[:4], x[:4])


@pytest.mark.parametrize("precision", BITS)
def test_a_product_rounds_its_factors(library: Any, precision: str) -> None:
    product = with_precision(lambda a, b: a @ b, precision)
    found = library.numpy(product(library.array(A), library.array(B)))
    meant = nearest(A, BITS[precision]).astype(np.float64) @ nearest(B, BITS[precision])
    full, one_bit = A.astype(np.float64) @ B, 2.0 ** -BITS[precision]
    assert found.dtype == np.float32
    if library.name == "cupy":  # small products on it are not rounded to TF32, which is allowed
        assert distance(found, full) < one_bit
        return
    assert distance(found, full) > 0.1 * one_bit
    assert distance(found, meant) < (0.5 * one_bit if "cuda" in library.name else 1e-6)


@pytest.mark.parametrize("precision", BITS)
def test_gradients_round_the_factors_of_their_products(precision: str) -> None:
    def loss(a: Any, b: Any) -> Any:
        return pnn.xp.sum((a @ b) ** 2)

    by_a, by_b = pnn.grad(with_precision(loss, precision), argnums=(0, 1))(A, B)
    a, b = (nearest(x, BITS[precision]) for x in (A, B))
    g = nearest(2.0 * rounded_matmul(np, A, B, precision=precision), BITS[precision])
    assert distance(by_a, g.astype(np.float64) @ b.T) < 1e-6
    assert distance(by_b, a.T.astype(np.float64) @ g) < 1e-6


def network(backend: Any, precision: str | None, **facts: Any) -> pnn.Network:
    return pnn.mlp([12, 32, 32, 2], loss="softmax_cross_entropy", backend=backend, precision=precision, **facts)


@pytest.mark.parametrize("precision", BITS)
def test_training_is_that_of_numpy(other_library: Any, precision: str) -> None:
    """A step is compared by the gradient, for Adam turns a difference of rounding into a whole step."""
    facts: dict[str, Any] = {"optimizer": pnn.SGD(0.1)}
    nets = [network(backend, precision, **facts) for backend in ("numpy", other_library.backend)]
    full = network("numpy", None, **facts)
    first = other_library.numpy(full.state.theta)
    for net in (*nets, full):
        net.fit(X, Y, epochs=2, batch_size=50)
    mine, theirs, exact = (other_library.numpy(net.state.theta) - first for net in (*nets, full))
    rounding, on_gpu = distance(mine, exact), other_library.name == "cupy" or "cuda" in other_library.name
    assert 1e-5 < rounding < 0.1
    assert distance(theirs, mine) < (1.5 * rounding if on_gpu else 1e-3)  # which may round less


@pytest.mark.parametrize("precision", BITS)
def test_training_predicts_as_well_as_in_float32(precision: str) -> None:
    scores = []
    for one in (None, precision):
        net = network("numpy", one, optimizer=pnn.Adam(0.01))
        net.fit(X, Y, epochs=60)
        scores.append(net.evaluate(X, Y)["accuracy"])
    assert min(scores) > 0.97


def test_predictions_are_rounded_too() -> None:
    nets = [network("numpy", precision) for precision in (None, "bfloat16")]
    full, low = (net.forward(X) for net in nets)
    assert 1e-4 < distance(low, full) < 1e-2


def test_a_file_keeps_the_precision_and_old_files_have_none(tmp_path: Path) -> None:
    for precision in (None, "tf32", "bfloat16"):
        network("numpy", precision).save(tmp_path / "net.safetensors")
        text = (tmp_path / "net.safetensors").read_bytes()
        assert (b"precision" in text) == (precision is not None)
        assert pnn.load(tmp_path / "net.safetensors", backend="numpy").precision == precision


def test_a_file_with_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    facts, arrays, slots = network("numpy", "tf32").contents()
    model_file.write(path, facts | {"precision": "tf64"}, arrays, slots)
    with pytest.raises(pnn.FileFormatError, match="precision"):
        pnn.load(path)


def test_a_checkpoint_of_another_precision_is_refused(tmp_path: Path) -> None:
    network("numpy", "bfloat16").fit(X, Y, epochs=1, callbacks=[pnn.callbacks.Checkpoint(tmp_path)])
    with pytest.raises(ValueError, match="precision"):
        network("numpy", None).fit(X, Y, epochs=2, resume=tmp_path)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"precision": "float16"}, "precision must be None, 'tf32' or 'bfloat16', got 'float16'"),
        ({"precision": 16}, "got 16"),
        ({"precision": ["tf32"]}, r"got \['tf32'\]"),
        ({"precision": "tf32", "dtype": "float64"}, "is for dtype='float32', got dtype='float64'"),
    ],
)
def test_a_wrong_precision_says_what_is_right(facts: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pnn.mlp([2, 2], backend="numpy", **facts)


def test_a_product_of_other_dtypes_is_left_alone() -> None:
    product = with_precision(lambda a, b: a @ b, "bfloat16")
    np.testing.assert_array_equal(product(A.astype(np.float64), B.astype(np.float64)), A.astype(np.float64) @ B)


def test_matrices_of_other_dtypes_cannot_be_rounded() -> None:
    def wrong(a: Any) -> Any:
        return pnn.array_namespace(a).rounded_matmul(a, a, precision="tf32")

    with pytest.raises(TypeError, match="for float32 matrices"):
        pnn.compile(wrong)(np.ones((2, 2)))
    with pytest.raises(ValueError, match="columns"):
        pnn.compile(wrong)(np.ones((2, 3), dtype=np.float32))
