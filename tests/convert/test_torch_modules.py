"""Networks of other libraries' models: they compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import portablenn as pnn

torch = pytest.importorskip("torch")
nn = torch.nn


def _module(*middle: Any) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.Linear(6, 3, bias=False))


X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "middle",
    [
        [], [nn.ReLU()], [nn.Sigmoid()], [nn.Tanh()], [nn.ELU()], [nn.GELU(approximate="tanh")], [nn.LeakyReLU()], [nn.SiLU()], [nn.Softplus()],
        [nn.Identity()], [nn.Softmax(dim=1)], [nn.Softmax(dim=-1)], [nn.Dropout(0.3)], [nn.BatchNorm1d(6), nn.ReLU()],
        [nn.Sequential(nn.ReLU(), nn.Linear(6, 6)), nn.Tanh()],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_module_of_torch_predicts_the_same_here(middle: Any, backend: str) -> None:
    module = _module(*middle)
    with torch.no_grad():
        module(torch.from_numpy(X))  # which moves the running statistics
    module.eval()
    net = pnn.from_torch(module, backend=backend)
    np.testing.assert_allclose(net.forward(X), module(torch.from_numpy(X)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_converted_module_can_be_trained_and_keeps_its_dtype() -> None:
    module = _module(nn.ReLU()).double()
    net = pnn.from_torch(module, "softmax_cross_entropy", optimizer=pnn.Adam(0.01), backend="numpy")
    assert net.dtype == "float64"
    history = net.fit(X, np.arange(20) % 3, epochs=30)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    ("last", "loss"), [(nn.Softmax(dim=1), "softmax_cross_entropy"), (nn.Sigmoid(), "sigmoid_cross_entropy")]
)
def test_a_last_link_is_the_losss_own(last: Any, loss: Any) -> None:
    module = nn.Sequential(nn.Linear(4, 3), last)
    net = pnn.from_torch(module, loss, backend="numpy")
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(net.loss.link(net.forward(X)), expected, rtol=1e-5, atol=1e-6)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Conv1d(1, 1, 1)), TypeError, "Conv1d has no counterpart"),
        (nn.Sequential(nn.ReLU()), ValueError, "at least one Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.ELU(alpha=0.5)), ValueError, "expected alpha=1.0"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), ValueError, "expected approximate='tanh'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=0)), ValueError, "expected dim=1"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), ValueError, "expected affine"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softplus(threshold=0.01)), ValueError, "expected threshold=20"),
        (object(), TypeError, "object has no counterpart"),
    ],
)
def test_a_module_without_a_counterpart_raises(module: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pnn.from_torch(module)
