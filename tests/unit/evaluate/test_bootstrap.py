"""Bootstrap intervals against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from fcot_vl.evaluate.bootstrap import (
    bootstrap_interval,
    bootstrap_interval_over_tasks,
    bootstrap_ratio_interval,
)


def test_bootstrap_interval_is_seeded_and_brackets_the_mean() -> None:
    scores = list(np.random.default_rng(3).random(400))
    low, high = bootstrap_interval(scores)
    assert (low, high) == bootstrap_interval(scores)
    assert low < float(np.mean(scores)) < high
    expected = 2 * 1.96 * float(np.std(scores)) / np.sqrt(len(scores))
    assert high - low == pytest.approx(expected, rel=0.1)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_bootstrap_over_tasks_redraws_within_each_task() -> None:
    # Both tasks are constant, so only a draw across tasks could move the mean.
    assert bootstrap_interval_over_tasks({"a": [1.0] * 5, "b": [0.0] * 50}) == (0.5, 0.5)
    with pytest.raises(ValueError, match="'b' has none"):
        bootstrap_interval_over_tasks({"a": [1.0], "b": []})
    with pytest.raises(ValueError, match="at least one task"):
        bootstrap_interval_over_tasks({})


def test_a_ratio_is_paired_and_the_mean_over_tasks() -> None:
    rng = np.random.default_rng(5)
    scores = [float(score) for score in rng.random(50)]
    assert bootstrap_ratio_interval([[(score, score) for score in scores]]) == (1.0, 1.0)
    # Both ratios are constant: 1/2 in the first task and 1/4 in the second.
    halves, quarters = ([(score / by, score) for score in scores] for by in (2, 4))
    assert bootstrap_ratio_interval([halves, quarters]) == pytest.approx((0.375, 0.375))
    bounds = bootstrap_ratio_interval([[(score, 1.0) for score in scores]])
    assert bounds == pytest.approx(bootstrap_interval(scores))


def test_a_ratio_to_zero_has_no_interval() -> None:
    assert bootstrap_ratio_interval([[(1.0, 0.0)]]) is None
    assert bootstrap_ratio_interval([[(1.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)]]) is None
