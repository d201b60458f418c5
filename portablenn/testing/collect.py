"""The checks as tests of pytest: one case per backend and check."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..runtime.backend import BackendError
from ..runtime.registry import get_backend
from .checks import CHECKS
from .operations import CheckSkipped


def conformance_tests(*backends: str) -> Callable[[str, str], None]:
    """Return a test for pytest to collect, with a case for each of these backends and each check.

    Names are as `get_backend` takes them: "mylibrary", "mylibrary:gpu". A library that is not usable is skipped with the
    reason, unless the environment variable ``PORTABLENN_REQUIRE`` names it ("cupy,torch"): then it fails. Checks that do not
    apply (float64 where there is none) are skipped, too.

    Examples
    --------
    >>> test_conformance = conformance_tests("numpy")
    """
    import pytest

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("backend", backends)
    def test_conformance(backend: str, check: str) -> None:
        try:
            chosen = get_backend(backend)
        except BackendError as error:
            if required(backend):
                pytest.fail(f"PORTABLENN_REQUIRE names it, and {error}", pytrace=False)
            pytest.skip(str(error))
        try:
            CHECKS[check](chosen)
        except CheckSkipped as reason:
            pytest.skip(str(reason))

    return test_conformance


def required(backend: str) -> bool:
    """Return whether ``PORTABLENN_REQUIRE`` names the library of a backend."""
    names = os.environ.get("PORTABLENN_REQUIRE", "").split(",")
    return backend.partition(":")[0] in (name.strip() for name in names)
