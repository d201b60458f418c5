"""What tests of several files ask for."""

from __future__ import annotations

from typing import Any

import pytest

from portablenn.sklearn import together


@pytest.fixture
def program_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the number of networks is added of each program in which estimators are trained together."""
    sizes: list[int] = []
    members = together.TrainedMembers

    def counted(block: Any, *arguments: Any) -> Any:
        sizes.append(len(block.numbers))
        return members(block, *arguments)

    monkeypatch.setattr(together, "TrainedMembers", counted)
    return sizes
