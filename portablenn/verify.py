"""The proof on a user's own machine: how far each backend is from NumPy in float64, whether seeds agree, how fast it is.

Requires the conformance kit, of which it runs what tells most in least time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import NUMPY, Backend
from .choosing import backends, get_backend, plugins
from .network import mlp
from .optimizers import Adam
from .testing.operations import FLOATS, LeftOut, quiet, supports
from .testing.promises import check_no_transfers, check_places, check_seeds
from .testing.zoo import TOLERANCES, compiled_for, deviation

NETWORKS = ("relu", "deep")
"""Of the zoo: Adam and softmax cross-entropy; batch norm, dropout and a schedule."""

SIZES = {"small": ([20, 64, 64, 2], 200), "large": ([784, 512, 512, 10], 128)}
"""Layers and batch of the networks whose steps are timed."""

SECONDS = 0.7
"""How long each is timed."""

STEPS = 32
"""Steps a call of the compiled loop."""


@dataclass(frozen=True)
class Verified:
    """What was found of one backend on one device.

    Attributes
    ----------
    backend, device
        Its name, and the device's.
    executes
        How it runs a step: what its compiled loop says of itself, else the plug-in's name.
    deviation_one, deviation_twenty
        By dtype: the largest deviation from NumPy in float64 after one step and after twenty, relative to the largest
        parameter; a dtype that is not there is missing.
    seeds
        Whether weights, batches and masks agree with NumPy's to the bit.
    small, large
        Steps a second of 20-64-64-2 with 200 rows and of 784-512-512-10 with 128, in float32, with Adam.
    kept
        Whether every promise is.
    reason
        Which are not.
    """

    backend: str
    device: str
    executes: str
    deviation_one: dict[str, float]
    deviation_twenty: dict[str, float]
    seeds: bool
    small: float
    large: float
    kept: bool
    reason: str


def verify(names: Sequence[str] | None = None) -> list[Verified]:
    """Hold backends against NumPy in float64.

    Parameters
    ----------
    names
        As `get_backend` takes them; None for all that are usable here, each on all of its devices.

    Returns
    -------
    list of Verified
        One a backend and device.

    Raises
    ------
    BackendError
        If a name stands for nothing that can be used here.

    Examples
    --------
    >>> (found,) = verify(["numpy"])
    >>> found.kept, found.seeds, found.deviation_one["float64"] <= 1e-12
    (True, True, True)
    """
    chosen = names or [f"{info.name}:{device}" for info in backends() if info.usable for device in info.devices]
    return [_verified(backend) for backend in list(map(get_backend, chosen))]


def _verified(backend: Backend) -> Verified:
    broken: list[str] = []

    def kept(check: Callable[[], Any]) -> bool:
        before = len(broken)
        try:
            check()
        except LeftOut:
            pass
        except AssertionError as error:
            broken.append(str(error))
        except Exception as error:  # whatever a plug-in does
            broken.append(f"{backend}: {type(error).__name__}: {error}")
        return len(broken) == before

    def measured(dtype: str, steps: int) -> float:
        found = float("nan")

        def measure() -> None:
            nonlocal found
            found = max(deviation(name, backend, dtype, steps) for name in NETWORKS)
            if not found <= TOLERANCES[dtype, steps]:
                raise AssertionError(f"{backend}: {steps} steps in {dtype} deviate by {found:.1e}")

        kept(measure)
        return found

    with quiet():
        dtypes = [dtype for dtype in FLOATS if supports(backend, dtype)]
        one, twenty = ({dtype: measured(dtype, steps) for dtype in dtypes} for steps in (1, 20))
        seeds = kept(lambda: check_seeds(backend))
        kept(lambda: check_places(backend))
        kept(lambda: check_no_transfers(backend))
        speeds, how = {}, ""
        for name in SIZES:

            def time_it(name: str = name) -> None:
                nonlocal how
                how, speeds[name] = steps_per_second(backend, *SIZES[name])

            kept(time_it)
    small, large = (speeds.get(name, float("nan")) for name in SIZES)
    reason = "; ".join(dict.fromkeys(broken))
    return Verified(
        backend.name,
        backend.device_name,
        how or _executes(backend),
        one,
        twenty,
        seeds,
        small,
        large,
        not broken,
        reason,
    )


def _executes(backend: Backend) -> str:
    entry = plugins().get(backend.name)
    return entry.value.partition(":")[0] if entry else "plan" if backend is NUMPY else "interpreter"


def steps_per_second(backend: Backend, sizes: Sequence[int], batch: int) -> tuple[str, float]:
    """What a network's compiled loop says of itself, and how many of its steps it does a second.

    Waited for by reading a loss, which no library can do before it is there.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4 * batch, sizes[0])), rng.integers(0, sizes[-1], 4 * batch)
    network = mlp(list(sizes), loss="softmax_cross_entropy", optimizer=Adam(1e-3), backend=backend)
    order = rng.integers(0, len(x), (STEPS, batch))
    loop, run = compiled_for(network, x, y, order)
    backend.to_numpy(run(STEPS)[1])
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < SECONDS:
        backend.to_numpy(run(STEPS)[1])
        done += STEPS
    return getattr(loop, "how", ""), done / passed
