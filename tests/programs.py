"""Random programs for property tests: what hypothesis draws for the programs of `portablenn.testing.programs`."""

from __future__ import annotations

from hypothesis import strategies as st

from portablenn.testing.programs import OPERATIONS, SHAPES, run

__all__ = ["run", "shapes", "steps"]

steps = st.lists(
    st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=14
)
shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)
