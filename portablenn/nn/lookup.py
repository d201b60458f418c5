"""Lookup by name, for activations, initializers, losses and optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(kind: str, table: Mapping[str, T], name: Any, alternative: str) -> T:
    """Return the entry of ``name``, or raise `ValueError` with the known names and the ``alternative`` to a name."""
    if isinstance(name, str) and name in table:
        return table[name]
    raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(table)}, or {alternative}")
