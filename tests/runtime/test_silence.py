"""Calls without floating-point warnings: whatever they raise, and wherever they are made."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from portablenn.runtime.numpy.silence import silently


def test_nested_calls_and_calls_after_an_error_are_silent_too() -> None:
    def nested() -> float:
        with pytest.raises(ZeroDivisionError):
            silently(lambda: 1 / 0)
        return float(silently(np.divide, np.asarray([1.0]), 0.0)[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert silently(nested) == np.inf


def test_warnings_outside_stay() -> None:
    silently(lambda: None)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        np.asarray([1.0]) / 0.0
