"""Subnormal numbers count as zero in training loops, and nowhere else."""

from __future__ import annotations

import platform
import sys
import threading
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.runtime import guard
from portablenn.runtime.numpy import subnormals, threads
from portablenn.transforms.compile import prepared, trace_loop

NUMPY = pnn.get_backend("numpy")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="x86-64 on Linux only"
)


def has_subnormals() -> bool:
    return float(np.full(64, 1e-39, np.float32).max() * np.float32(1)) > 0


def halving_loop(backend: pnn.Backend) -> Any:
    program, _ = trace_loop(lambda iteration, carry: (carry * 0.5, carry.sum()), np.zeros(8, np.float32))
    return guard.compile_loop(backend, prepared(program, backend), 1)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_decays_in_a_loop_becomes_zero(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("portablenn_numba")
    steps = 130  # to 2⁻¹³⁰; the least normal number is 2⁻¹²⁶
    decayed, _ = halving_loop(pnn.get_backend(backend))(steps, np.ones(8, np.float32))
    assert not decayed.any()
    assert has_subnormals()


def test_compiled_functions_keep_them() -> None:
    half = pnn.compile(lambda x: x * 0.5)
    assert float(half(np.full(4, 2.0**-126, np.float32))[0]) == 2.0**-127


def test_a_loop_that_raises_leaves_the_thread_as_it_was() -> None:
    with pytest.raises(Exception, match="shape|broadcast"):
        halving_loop(NUMPY)(3, np.ones(9, np.float32))
    assert has_subnormals()


def test_a_thread_that_had_them_flushed_keeps_it() -> None:
    seen = []

    def run() -> None:
        subnormals.flush()
        halving_loop(NUMPY)(3, np.ones(8, np.float32))
        seen.append(has_subnormals())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
    assert has_subnormals()


@pytest.mark.parametrize("flushed", [False, True])
def test_the_parts_of_a_product_on_other_threads_treat_them_alike(flushed: bool) -> None:
    a, b = np.full((480, 300), 2.0**-120, np.float32), np.full((300, 300), 2.0**-20, np.float32)
    out = np.empty((480, 300), np.float32)
    before = subnormals.flush() if flushed else None
    threads.set_threads(2)
    try:
        with threads.single_thread:  # as in programs: threads of BLAS keep an environment of their own
            threads.matmul(a, b, out)
    finally:
        threads.set_threads(None)
        subnormals.restore(before)
    assert (out == 0).all() if flushed else (out > 0).all()


def test_moments_of_weights_without_gradients_become_zero() -> None:
    X = np.zeros((64, 4), np.float32)
    X[:, :2] = np.random.default_rng(0).normal(size=(64, 2))
    X[0, 3] = 1.0  # an input that is other than 0 once, at the beginning
    y = X[:, 0] + X[:, 1]
    net = pnn.mlp([4, 1], loss="squared_error", optimizer=pnn.Adam(1e-3), backend="numpy", dtype="float32", seed=0)
    net.fit(X[:8], y[:8], epochs=1, batch_size=8, order="sequential")
    net.fit(X[8:], y[8:], epochs=200, batch_size=8, order="sequential")
    least = np.finfo(np.float32).tiny
    slots = [np.asarray(array) for array in net.state if np.asarray(array).dtype == np.float32]
    assert not any(((abs(array) < least) & (array != 0)).any() for array in slots)
