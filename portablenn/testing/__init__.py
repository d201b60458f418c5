"""The conformance kit: whether a backend computes what NumPy computes, where it should, from the same seeds.

Requires what the core requires, and pytest only to make tests. The author of a plug-in writes one line, and has a test for
each promise that a backend makes::

    from portablenn.testing import conformance_tests

    test_conformance = conformance_tests("mylibrary", "mylibrary:gpu")

Without pytest, ``conform("mylibrary")`` runs the same checks.
"""

from .checks import CHECKS, Checked, check_errors, check_no_transfers, check_places, check_seeds, check_steps, conform
from .collect import conformance_tests
from .networks import TOLERANCES, ZOO
from .operations import LeftOut, check_operations, check_random_programs

__all__ = [
    "CHECKS",
    "TOLERANCES",
    "ZOO",
    "Checked",
    "LeftOut",
    "check_errors",
    "check_no_transfers",
    "check_operations",
    "check_places",
    "check_random_programs",
    "check_seeds",
    "check_steps",
    "conform",
    "conformance_tests",
]
