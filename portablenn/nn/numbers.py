"""Validation of the numbers among the fields of losses, layers, optimizers and schedules."""

from __future__ import annotations

from typing import Any


def check_number(name: str, value: Any, otherwise: str = "") -> None:
    """Raise `ValueError` unless ``value`` is a number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} must be a number of at least 0{otherwise}, got {value!r}")
