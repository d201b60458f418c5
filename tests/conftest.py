"""The libraries that every portable test runs on, and how arrays of them are made and read."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
    parser.addoption("--record", metavar="FILE", help="write the names of the tests that pass to this file")
    parser.addoption("--skip-recorded", metavar="FILE", help="deselect the tests whose names are in this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what ``--skip-libraries`` names (cases whose parameters name only such libraries) and ``--skip-recorded`` holds.

    Tests that ask what is installed are not deselected by the latter.
    """
    skipped = set(filter(None, config.getoption("--skip-libraries").split(",")))
    known = {name.partition(":")[0] for name in LIBRARIES} | {"cupy", "numba"}
    file = config.getoption("--skip-recorded")
    recorded = set(Path(file).read_text(encoding="utf-8").splitlines()) if file else set()

    def named(item: pytest.Item) -> set[str]:
        parameters = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        return {value.partition(":")[0] for value in parameters if isinstance(value, str)} & known

    def is_chosen(item: pytest.Item) -> bool:
        again = item.nodeid not in recorded or item.get_closest_marker("asks_what_is_installed") is not None
        return again and (not skipped or not named(item) or bool(named(item) - skipped))

    chosen = [item for item in items if is_chosen(item)]
    config.hook.pytest_deselected(items=[item for item in items if not is_chosen(item)])
    items[:] = chosen


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the file of ``--record``."""
    if file := config.getoption("--record"):
        passed = [report.nodeid for report in terminalreporter.stats.get("passed", ())]
        Path(file).write_text("\n".join(passed), encoding="utf-8")


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
