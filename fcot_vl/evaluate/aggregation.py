"""Scores of predictions: for samples by task and text density, for a benchmark with the aggregation of lmms-eval.

The functions take rows of `predictions.jsonl` and return the scores for `result.json`. Every score has a 95% bootstrap
interval: questions (for MME: images with both of their questions) are redrawn within the part they belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fcot_vl.evaluate.bootstrap import bootstrap_interval, bootstrap_interval_over_tasks
from fcot_vl.evaluate.tasks.minidoc import density_band, density_bands
from fcot_vl.evaluate.tasks.public import Benchmark

Row = Mapping[str, Any]

OCRBENCH_QUESTIONS = 1000
PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Compute the scores of rows over all tasks, per task and per density, each with a 95% interval.

    The scores per density cover only rows that have a density.

    Args:
        rows: Rows of `predictions.jsonl`.
    """
    by_task: dict[str, list[float]] = defaultdict(list)
    bands = density_bands(row["density"] for row in rows if row["density"] is not None)
    by_density: dict[str, list[float]] = {band: [] for band in bands}
    for row in rows:
        by_task[row["task"]].append(row["score"])
        if row["density"] is not None:
            by_density[density_band(row["density"], bands)].append(row["score"])
    tasks = {task: _scored(by_task[task]) for task in sorted(by_task)}
    return {
        "n": len(rows),
        "mean_over_tasks": sum(task["score"] for task in tasks.values()) / len(tasks),
        "mean_over_tasks_ci": list(bootstrap_interval_over_tasks(by_task)),
        "tasks": tasks,
        "density": {band: _scored(scores) for band, scores in by_density.items()},
    }


def _scored(scores: Sequence[float], times: float = 1.0) -> dict[str, Any]:
    """Return the mean of scores and its interval, multiplied by `times`."""
    if not scores:
        return {"n": 0, "score": None, "ci": None}
    interval = [times * end for end in bootstrap_interval(scores)]
    return {"n": len(scores), "score": times * sum(scores) / len(scores), "ci": interval}


# ---------------------------------------------------------------------------------------------- other benchmarks


def summarize_benchmark(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Any]:
    """Compute the scores of a benchmark's rows, with the names and scales of lmms-eval.

    `metric` and `score` are the headline score (for MME the sum of perception and cognition), `scores` are the scores
    that lmms-eval reports, and `groups` are those of the parts of the benchmark. Without accepted answers (a hidden
    split), `score` is None and `scores` and `groups` are empty.
    """
    rows = [row for row in rows if row["score"] is not None]
    found: dict[str, Any] = {"metric": benchmark.reported, "score": None, "score_ci": None}
    if not rows:
        return {**found, "scores": {}, "groups": {}}
    if benchmark.name == "mme":
        return found | _mme(rows)
    scores = [row["score"] for row in rows]
    headline = {benchmark.reported: _scored(scores)}
    groups = {group: _scored(part) for group, part in _parts(rows).items()} if benchmark.group else {}
    if benchmark.name == "chartqa":
        headline |= {f"relaxed_{group}_split": part for group, part in groups.items()}
    if benchmark.name == "ocrbench":  # the number of right answers, independent of the number of questions
        headline = {
            "ocrbench_accuracy": _scored(scores, len(scores) / OCRBENCH_QUESTIONS),
            "right_answers": _scored(scores, len(scores)),
        }
        groups = {group: _scored(part, len(part)) for group, part in _parts(rows).items()}
    first = headline[benchmark.reported]
    return found | {"score": first["score"], "score_ci": first["ci"], "scores": headline, "groups": groups}


def _parts(rows: Sequence[Row]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        parts[row["task"]].append(row["score"])
    return dict(sorted(parts.items()))


def _mme(rows: Sequence[Row]) -> dict[str, Any]:
    """Compute the sums of MME over categories.

    The score of a category is its accuracy plus the share of images with both questions right, x 100.
    """
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        pairs[row["task"], row["id"].partition(":")[2]].append(row["score"])
    whole: dict[str, list[list[float]]] = defaultdict(list)
    for (category, _), pair in sorted(pairs.items()):
        if len(pair) == 2:
            whole[category].append(pair)
    points = {
        category: [100.0 * (sum(pair) / 2 + (sum(pair) == 2)) for pair in found]
        for category, found in whole.items()
    }
    perception = {category: values for category, values in points.items() if category in PERCEPTION}
    cognition = {category: values for category, values in points.items() if category not in PERCEPTION}
    total = _summed(points)
    groups = {
        category: {
            **_scored(values),
            "accuracy": 50.0 * sum(map(sum, whole[category])) / len(values),
            "accuracy_plus": 100.0 * sum(sum(pair) == 2 for pair in whole[category]) / len(values),
        }
        for category, values in points.items()
    }
    return {
        "score": total["score"],
        "score_ci": total["ci"],
        "unpaired": sum(len(pair) for pair in pairs.values() if len(pair) != 2),
        "scores": {"mme_perception_score": _summed(perception), "mme_cognition_score": _summed(cognition)},
        "groups": groups,
    }


def _summed(points: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the sum of the means of categories; `n` counts their images."""
    if not points:
        return {"n": 0, "score": None, "ci": None}
    interval = [len(points) * end for end in bootstrap_interval_over_tasks(points)]
    score = sum(sum(values) / len(values) for values in points.values())
    return {"n": sum(map(len, points.values())), "score": score, "ci": interval}
