"""Does CUDA do what the CuPy plug-in relies on, and does each small network train there, as a graph and as one kernel?

Writes JSON after each check, so that a crash loses nothing. ``--few`` trains two networks only, for a memory checker.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn
from portablenn.testing.networks import NETWORKS, TOLERANCES, trained

MODES = {"graph": "graph", "one kernel": ""}
"""Values of ``PORTABLENN_CUPY``; these networks are small enough for one kernel."""


def raw_module() -> str:
    """A kernel compiled by NVRTC."""
    import cupy

    text = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'
    kernel = cupy.RawModule(code=text, options=("--std=c++17", "--fmad=false")).get_function("twice")
    x = cupy.arange(32, dtype=cupy.float32)
    kernel((1,), (32,), (x,))
    np.testing.assert_array_equal(x.get(), 2 * np.arange(32))
    return "a compiled kernel ran"


def product() -> str:
    """A product by cuBLAS."""
    import cupy

    a = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)
    there = cupy.asarray(a)
    np.testing.assert_allclose((there @ there.T).get(), a @ a.T, rtol=1e-4, atol=1e-4)
    return "cuBLAS agrees with NumPy"


def capture() -> str:
    """A captured graph, launched three times."""
    import cupy

    kernel = cupy.RawKernel('extern "C" __global__ void add(float* x) { x[threadIdx.x] += 1; }', "add")
    x, stream = cupy.zeros(32, dtype=cupy.float32), cupy.cuda.Stream(non_blocking=True)
    kernel((1,), (32,), (x,))
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        kernel((1,), (32,), (x,))
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
        stream.synchronize()
    np.testing.assert_array_equal(x.get(), np.full(32, 4))
    return "a graph ran three times"


def network(name: str, dtype: str, mode: str) -> dict[str, Any]:
    """Train on CuPy and compare the parameters with those of NumPy in float64."""
    os.environ["PORTABLENN_CUPY"] = MODES[mode]
    pnn.program_cache.clear()
    found: dict[str, Any] = {}
    for steps in (1, 20):
        start = time.perf_counter()
        ours, apart = trained(name, pnn.get_backend("cupy"), dtype, steps)
        found |= {"how": ours.history.how, f"seconds {steps}": time.perf_counter() - start}
        found |= {f"deviation {steps}": apart, f"within {steps}": apart <= TOLERANCES[dtype, steps]}
    if "interpreter" in found["how"]:
        found["error"] = unguarded(name, dtype)
    return found


def unguarded(name: str, dtype: str) -> str:
    """Return the error of the fast path, which the comparison with the interpreter has hidden."""
    pnn.program_cache.clear()
    backend = pnn.get_backend("cupy")
    backend.guarded = False
    try:
        trained(name, backend, dtype, 2)
    except Exception:
        return traceback.format_exc(limit=-6)
    finally:
        del backend.guarded
    return "none without the guard"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="the JSON file")
    options.add_argument("--few", action="store_true")
    given = options.parse_args()
    checks: dict[str, Callable[[], Any]] = {} if given.few else {f.__name__: f for f in (raw_module, product, capture)}
    for name in ("relu", "deep") if given.few else NETWORKS:
        for dtype in ("float32",) if given.few else ("float32", "float64"):
            for mode in MODES:
                checks[f"{name}, {dtype}, {mode}"] = lambda one=(name, dtype, mode): network(*one)
    results: dict[str, Any] = {}
    failed = 0
    for title, check in checks.items():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                result = check()
                good = not isinstance(result, dict) or (
                    result["within 1"] and result["within 20"] and "error" not in result
                )
            except Exception:
                result, good = traceback.format_exc(limit=-8), False
        failed += not good
        results[title] = {"passed": good, "result": result, "warnings": sorted({str(w.message) for w in warned})}
        given.out.write_text(json.dumps(results, indent=1) + "\n")
        print("passed" if good else "FAILED", title, result, *results[title]["warnings"], sep="  ", flush=True)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
