"""Verification on a user's machine: the deviation of each backend from NumPy in float64, equal seeds, and speed.

It runs the most telling checks of the conformance kit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..nn.optimizers import Adam
from ..runtime.backend import Backend, BackendError
from ..runtime.registry import backends, get_backend
from ..training.mlp import mlp
from .checks import check_no_transfers, check_results, check_seeds, checked
from .networks import TOLERANCES, compiled_for, deviation
from .operations import FLOATS, quiet, supports

VERIFIED_NETWORKS = ("relu", "gelu", "deep")
"""Some of `NETWORKS`: Adam and softmax cross-entropy; clipping; batch norm, dropout and a schedule."""

SIZES = {"small": ([20, 64, 64, 2], 200, 64), "large": ([784, 512, 512, 10], 128, 8)}
"""Layer sizes and batch size of the networks that are timed, and the number of steps per call."""

SECONDS = 0.7
"""Duration of each timing."""


@dataclass(frozen=True)
class Verified:
    """The result of verifying one backend on one device.

    Attributes
    ----------
    executes
        The ``how`` of its compiled loop: "plan", "CUDA graph", "interpreter: reason".
    deviation_one, deviation_twenty
        The largest deviation from NumPy in float64 after one step and after twenty, relative to the largest parameter, by
        dtype. Dtypes that the library lacks are missing; None if it could not be measured.
    seeds
        Whether weights, batches and masks are bit-identical to NumPy's.
    small, large
        Steps per second of 20-64-64-2 with 200 rows and of 784-512-512-10 with 128, in float32, with Adam.
    passed, reason
        Whether all checks passed, and why not.
    """

    backend: str
    device: str
    executes: str
    deviation_one: dict[str, float | None]
    deviation_twenty: dict[str, float | None]
    seeds: bool
    small: float | None
    large: float | None
    passed: bool
    reason: str


def verify(names: Sequence[Any] | None = None) -> list[Verified]:
    """Compare backends with NumPy in float64: all usable ones, each on all of its devices, or those named.

    Names are as `get_backend` takes them; one that is not usable raises BackendError.

    Examples
    --------
    >>> (result,) = verify(["numpy"])
    >>> result.passed, result.seeds, result.deviation_one["float64"] <= 1e-12
    (True, True, True)
    """
    if names:
        return [_verified(backend) for backend in list(map(get_backend, names))]
    every = [(info.name, device) for info in backends() if info.usable for device in info.devices]
    return [_device_verified(*one) for one in every]


def _device_verified(name: str, device: str) -> Verified:
    try:
        return _verified(get_backend(f"{name}:{device}"))
    except BackendError as error:  # although it lists this device
        return Verified(name, device, "", {}, {}, False, None, None, False, str(error))


def _verified(backend: Backend) -> Verified:
    failures: list[str] = []

    def passes(check: Callable[[], Any]) -> bool:
        result = checked("", check)
        if result.outcome == "failed":
            failures.append(result.reason if result.reason.startswith(str(backend)) else f"{backend}: {result.reason}")
        return result.outcome != "failed"

    def deviations(dtype: str, steps: int) -> float | None:
        measured: list[float] = []
        passes(lambda: measured.extend(deviation(name, backend, dtype, steps) for name in VERIFIED_NETWORKS))
        largest = float(np.max(measured)) if len(measured) == len(VERIFIED_NETWORKS) else math.nan
        if measured and not largest <= TOLERANCES[dtype, steps]:
            failures.append(f"{backend}: after step {steps} in {dtype} parameters deviate by {largest:.1e}")
        return None if math.isnan(largest) else largest

    with quiet():
        dtypes = [dtype for dtype in FLOATS if supports(backend, dtype)]
        one, twenty = ({dtype: deviations(dtype, steps) for dtype in dtypes} for steps in (1, 20))
        seeds = passes(lambda: check_seeds(backend))
        for check in (check_results, check_no_transfers):
            passes(partial(check, backend))
        speeds: dict[str, tuple[str, float]] = {}
        for name, size in SIZES.items():
            passes(partial(lambda name, size: speeds.update({name: steps_per_second(backend, *size)}), name, size))
    how = next((how for how, _ in speeds.values()), "")
    small, large = (speeds[name][1] if name in speeds else None for name in SIZES)
    reason = "; ".join(dict.fromkeys(failures))
    return Verified(backend.name, backend.device_name, how, one, twenty, seeds, small, large, not failures, reason)


def steps_per_second(backend: Backend, sizes: Sequence[int], batch: int, steps: int) -> tuple[str, float]:
    """Return the ``how`` of a network's compiled loop, and its steps per second; reading the losses waits for the device."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4 * batch, sizes[0])), rng.integers(0, sizes[-1], 4 * batch)
    network = mlp(list(sizes), loss="softmax_cross_entropy", optimizer=Adam(1e-3), backend=backend)
    loop, run = compiled_for(network, x, y, rng.integers(0, len(x), (steps, batch)))
    backend.to_numpy(run(steps)[1])  # which compiles
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < SECONDS:
        backend.to_numpy(run(steps)[1])
        done += steps
    return loop.loop.how, done / passed  # type: ignore[attr-defined]
