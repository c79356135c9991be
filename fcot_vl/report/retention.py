"""Retention of the evaluated models, and its paired bootstrap intervals.

The retention of a task is the model's score divided by the teacher's score. The retention of a model is its mean over
tasks, as in the "Avgs" column of the paper (Table 1: the ten ratios of InternVL2-2B at 50% average 104.20). Its
interval is a paired bootstrap: pages are redrawn within each task, with the scores of the model and the teacher
together. The scores of the model are averaged over its seeds first, so the interval does not include the spread between
seeds. The spread is reported separately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from fcot_vl.evaluate.bootstrap import Interval, bootstrap_ratio_interval
from fcot_vl.evaluate.tasks.minidoc import density_band
from fcot_vl.report.run_data import ModelResults


def retention(model: ModelResults, teacher: ModelResults, tasks: Iterable[str]) -> float | None:
    """Compute the mean over `tasks` of the model's score divided by the teacher's score.

    Returns None if any of these scores was not measured or a score of the teacher is zero.
    """
    ratios = []
    for task in tasks:
        ours, theirs = model.score("tasks", task), teacher.score("tasks", task)
        if ours is None or not theirs:
            return None
        ratios.append(ours / theirs)
    return float(np.mean(ratios)) if ratios else None


def retention_interval(model: ModelResults, teacher: ModelResults, tasks: Iterable[str]) -> Interval | None:
    """Compute the paired bootstrap interval of `retention`.

    Returns None without predictions of both on the same pages, or if no redraw changes the retention, as for a model
    relative to itself.
    """
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task, _, ours, theirs in _pairs(model, teacher):
        pairs[task].append((ours, theirs))
    wanted = list(tasks)
    if not wanted or any(task not in pairs for task in wanted):
        return None
    return _interval([pairs[task] for task in wanted])


def retention_seed_range(model: ModelResults, teacher: ModelResults, tasks: Iterable[str]) -> Interval | None:
    """Return the lowest and highest retention over the seeds, or None for a single seed."""
    tasks = list(tasks)
    values = [
        retention(ModelResults(model.variant, [result], [rows], [folder]), teacher, tasks)
        for result, rows, folder in zip(model.results, model.predictions, model.folders, strict=True)
    ]
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if len(known) > 1 else None


def retention_difference(
    model: ModelResults, other: ModelResults, teacher: ModelResults, tasks: Iterable[str]
) -> tuple[float, Interval] | None:
    """Compute the difference of the retention of two models, and its paired bootstrap interval over pages.

    Two students are compared only on the seeds that both were trained with, if there are any. Returns None if for some
    task no page was answered by all three models.
    """
    common = set(model.seeds) & set(other.seeds)
    if common and min(model.variant.compress_ratio, other.variant.compress_ratio) > 1:
        model, other = model.of_seeds(common), other.of_seeds(common)
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, (task, _, whole) in teacher.sample_scores.items():
        if key in model.sample_scores and key in other.sample_scores:
            less = model.sample_scores[key][2] - other.sample_scores[key][2]
            pairs[task].append((less, whole))
    wanted = list(tasks)
    if not wanted or any(task not in pairs for task in wanted):
        return None
    chosen = [pairs[task] for task in wanted]
    bounds = bootstrap_ratio_interval(chosen)
    if bounds is None:
        return None
    ratios = [sum(less for less, _ in rows) / sum(whole for _, whole in rows) for rows in chosen]
    return float(np.mean(ratios)), bounds


def density_retention(
    model: ModelResults, teacher: ModelResults, band: str
) -> tuple[float | None, Interval | None]:
    """Compute retention on the pages of one text-density band, all tasks pooled, and its paired bootstrap interval."""
    ours, theirs = model.score("density", band), teacher.score("density", band)
    if ours is None or not theirs:
        return None, None
    pairs = [
        (score, whole)
        for _, density, score, whole in _pairs(model, teacher)
        if density is not None and density_band(density, teacher.densities) == band
    ]
    return ours / theirs, _interval([pairs]) if pairs else None


def _interval(pairs: Sequence[Sequence[tuple[float, float]]]) -> Interval | None:
    """Compute the bootstrap interval of a ratio, or None if it cannot vary."""
    bounds = bootstrap_ratio_interval(pairs)
    return None if bounds is None or bounds[0] == bounds[1] else bounds


def _pairs(model: ModelResults, teacher: ModelResults) -> list[tuple[str, float | None, float, float]]:
    """Return (task, density if known, model's score, teacher's score) of every page that both answered."""
    return [
        (*model.sample_scores[key], score)
        for key, (_, _, score) in teacher.sample_scores.items()
        if key in model.sample_scores
    ]
