"""The libraries that every portable test runs on, and how arrays of them are made and read."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.runtime.arrays import to_numpy
from portablenn.testing.collect import required


@dataclass(frozen=True)
class Library:
    """One library on one device; ``name`` as `pnn.get_backend` takes it."""

    name: str

    @property
    def backend(self) -> pnn.Backend:
        return pnn.get_backend(self.name)

    @property
    def xp(self) -> Any:
        return self.backend.xp

    def array(self, values: Any, dtype: str | None = None) -> Any:
        return self.backend.asarray(np.asarray(values, dtype=dtype))

    @staticmethod
    def numpy(array: Any) -> np.ndarray:
        return to_numpy(array)


collect_ignore = ["helpers"]
GPU = ("cupy", "torch:cuda", "jax:cuda") if os.environ.get("PORTABLENN_GPU") else ()
LIBRARIES = ("numpy", "array_api_strict", "array_api_strict:device1", "torch", "jax", *GPU)


def pytest_configure(config: pytest.Config) -> None:
    """Array libraries in their strictest manner: 64-bit JAX, so that float64 is float64; SciPy with other libraries' arrays."""
    os.environ.setdefault("SCIPY_ARRAY_API", "1")  # without which scikit-learn does not check any
    if importlib.util.find_spec("jax"):
        os.environ.setdefault("JAX_ENABLE_X64", "1")
        if not GPU:
            os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skip-libraries", default="", metavar="NAMES", help="deselect the cases of these libraries, comma-separated"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the cases whose parameters name libraries, and only libraries of ``--skip-libraries``."""
    skipped = set(filter(None, config.getoption("--skip-libraries").split(",")))
    known = {name.partition(":")[0] for name in LIBRARIES} | {"cupy", "numba"}

    def named(item: pytest.Item) -> set[str]:
        parameters = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        return {value.partition(":")[0] for value in parameters if isinstance(value, str)} & known

    chosen = (
        {item: not named(item) or bool(named(item) - skipped) for item in items}
        if skipped
        else dict.fromkeys(items, True)
    )
    config.hook.pytest_deselected(items=[item for item in items if not chosen[item]])
    items[:] = [item for item in items if chosen[item]]


def _library(name: str) -> Library:
    package = name.partition(":")[0]
    if importlib.util.find_spec(package) is None:
        if required(package):
            pytest.fail(f"{package} is required by PORTABLENN_REQUIRE and not installed")
        pytest.skip(f"{package} is not installed")
    return Library(name)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    """Each library in turn; those that are not installed are skipped, unless PORTABLENN_REQUIRE names them."""
    return _library(request.param)


@pytest.fixture(params=LIBRARIES[1:])
def other_library(request: pytest.FixtureRequest) -> Library:
    """Each library but NumPy, the oracle."""
    return _library(request.param)


@pytest.fixture
def on_numpy() -> Iterator[None]:
    """For tests of what NumPy computes, whatever ``PORTABLENN_BACKEND`` says."""
    with pnn.use_backend("numpy"):
        yield


@pytest.fixture(autouse=True)
def _fresh_cache() -> None:
    pnn.program_cache.clear()
