"""Random programs for property tests: what hypothesis draws for the programs of `portablenn.testing.programs`."""

from __future__ import annotations

from hypothesis import strategies as st

from portablenn.testing.programs import CONTINUOUS, OPERATIONS, SHAPES, run

__all__ = ["continuous_steps", "run", "shapes", "steps"]


def _steps(count: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    return st.lists(
        st.tuples(st.integers(0, count - 1), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=14
    )


steps = _steps(len(OPERATIONS))
continuous_steps = _steps(
    len(CONTINUOUS)
)  # for arithmetic that differs in the last place, where a jump may go either way
shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)
