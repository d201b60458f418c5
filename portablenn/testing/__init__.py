"""The conformance kit: checks that a backend agrees with NumPy, keeps arrays on its device, and gives the same bits for a seed.

The author of a plug-in writes one line, and has one test per check::

    from portablenn.testing import conformance_tests

    test_conformance = conformance_tests("mylibrary", "mylibrary:gpu")

Without pytest, ``conform("mylibrary")`` runs the same checks.
"""

from .checks import (
    CHECKS,
    CheckResult,
    check_errors,
    check_no_transfers,
    check_results,
    check_seeds,
    check_steps,
    conform,
)
from .collect import conformance_tests
from .networks import NETWORKS, TOLERANCES
from .operations import CheckSkipped, check_operations, check_random_programs

__all__ = [
    "CHECKS",
    "NETWORKS",
    "TOLERANCES",
    "CheckResult",
    "CheckSkipped",
    "check_errors",
    "check_no_transfers",
    "check_operations",
    "check_random_programs",
    "check_results",
    "check_seeds",
    "check_steps",
    "conform",
    "conformance_tests",
]
