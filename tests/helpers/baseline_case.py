"""Token groups, and choices made by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, settings
from hypothesis import strategies as st

from fcot_vl.prune.selection import TIE


def clearly(gap: float) -> bool:
    """Return whether a difference is more than rounding. An example near the limit of a tie is dropped."""
    assume(not TIE / 3 < gap < 3 * TIE)
    return gap > TIE


def first(numbers: Any, score: Any) -> int:
    """The number with the best score; of a tie, the first."""
    numbers = list(numbers)
    best = max(map(score, numbers))
    return next(i for i in numbers if not clearly(best - score(i)))


SEED, TOKENS = st.integers(0, 10_000), st.integers(4, 40)
quick = settings(max_examples=25, deadline=None)
