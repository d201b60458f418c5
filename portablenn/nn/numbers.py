"""Validation of the numbers among the fields of losses, layers, optimizers and schedules, which are frozen dataclasses."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np


def take_numbers_of_numpy(fields_of: Any) -> None:
    """Replace NumPy's numbers among the fields, as a parameter search gives them, by Python's."""
    for field in fields(fields_of):
        if isinstance(value := getattr(fields_of, field.name), np.generic):
            object.__setattr__(fields_of, field.name, value.item())


def is_used(number: Any) -> bool:
    """Return whether a term with this factor counts: not if it is 0. The value of an array is known only when a step runs.

    Examples
    --------
    >>> is_used(0.0), is_used(0.5), is_used(np.asarray(0.0))
    (False, True, True)
    """
    return not isinstance(number, (int, float)) or number != 0


def check_positive_integer(name: str, value: Any) -> None:
    """Raise `ValueError` unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise `ValueError` unless ``value`` is a number greater than 0."""
    check_number(name, value)
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def check_number(name: str, value: Any, otherwise: str = "") -> None:
    """Raise `ValueError` unless ``value`` is a number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} must be a number of at least 0{otherwise}, got {value!r}")
