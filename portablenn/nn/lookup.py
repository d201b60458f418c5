"""Lookup by name, for activations, initializers, losses and optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(kind: str, table: Mapping[str, T], name: Any, alternative: str) -> T:
    """Return the entry of ``name``.

    Parameters
    ----------
    kind, alternative
        What the table holds, and what could be given in place of a name; for the message.
    table
        Entries by name.
    name
        A name; anything else is unknown, too.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.

    Examples
    --------
    >>> lookup("number", {"one": 1, "two": 2}, "two", "an int")
    2
    """
    if isinstance(name, str) and name in table:
        return table[name]
    raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(table)}, or {alternative}")
