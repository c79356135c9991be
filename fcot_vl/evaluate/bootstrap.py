"""Percentile bootstrap intervals of scores.

Samples are redrawn with replacement, within their task where there are several. An interval is made of two percentiles
of the statistic over all redraws, 2.5 and 97.5 for a confidence of 0.95. The same scores and seed give the same
interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

RESAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap_interval(
    scores: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """Compute the interval of a mean over samples.

    Raises:
        ValueError: If there are no scores.
    """
    return bootstrap_interval_over_tasks({"": scores}, seed=seed, resamples=resamples, confidence=confidence)


def bootstrap_interval_over_tasks(
    scores: Mapping[str, Sequence[float]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Compute the interval of the unweighted mean over tasks, with samples redrawn within their task.

    Raises:
        ValueError: If there is no task or a task has no score.
    """
    if not scores:
        raise ValueError("an interval needs at least one task.")
    generator = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for task in sorted(scores):
        values = np.asarray(scores[task], dtype=np.float64)
        if values.size == 0:
            raise ValueError(f"an interval needs at least one score, task {task!r} has none.")
        means += _resampled_means(values, generator, resamples)
    return _percentiles(means / len(scores), confidence)


def bootstrap_ratio_interval(
    pairs: Sequence[Sequence[tuple[float, float]]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Compute the interval of a ratio of two means, averaged over tasks; both scores of a sample are redrawn together.

    Args:
        pairs: (numerator, denominator) of every sample, one non-empty sequence per task.

    Returns:
        The interval, or None if the mean of the denominators is zero in any redraw.
    """
    generator = np.random.default_rng(seed)
    ratios = np.zeros(resamples)
    for task in pairs:
        means = _resampled_means(np.asarray(task, dtype=np.float64), generator, resamples)
        if not means[:, 1].all():
            return None
        ratios += means[:, 0] / means[:, 1]
    return _percentiles(ratios / len(pairs), confidence)


def _resampled_means(values: NDArray[Any], generator: np.random.Generator, resamples: int) -> NDArray[Any]:
    """Return the means over redrawn samples, `[resamples, ...]` for values `[samples, ...]`."""
    draws = generator.integers(0, len(values), size=(resamples, len(values)))
    means: NDArray[Any] = values[draws].mean(axis=1)
    return means


def _percentiles(statistic: NDArray[Any], confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(statistic, [tail, 100 - tail])
    return float(low), float(high)
