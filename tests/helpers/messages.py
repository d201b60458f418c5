"""Error messages without the user's line of code in them: in a test it holds the pattern itself, which would always be found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises(errors: type[Exception] | tuple[type[Exception], ...], says: str) -> Iterator[None]:
    """Expect an error whose message matches, without the lines that begin with four spaces."""
    with pytest.raises(errors) as caught:
        yield
    message = re.sub(r"\n    .*", "", str(caught.value))
    assert re.search(says, message, re.DOTALL), message
