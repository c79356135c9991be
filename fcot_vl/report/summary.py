"""Content of report.json: all numbers and texts of a report, from which `markdown.py` renders report.md.

Scores and retention are shares (0 to 1, and 1 for the retention of the teacher), seconds are per page, and a number
that was not measured is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fcot_vl.report.budgets import comparisons
from fcot_vl.report.examples import Example
from fcot_vl.report.results import SUMMED
from fcot_vl.report.retention import density_retention, retention, retention_interval, retention_seed_range
from fcot_vl.report.run_data import ModelResults, RunData


def summarize(
    run: RunData, figures: Mapping[str, str], examples: Sequence[Example], example_figures: Sequence[str]
) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        figures: File names of the figures by what they show.
        example_figures: File names of the examples' figures, one per example.
    """
    return {
        "provenance": run.provenance(),
        "definitions": {
            "retention": "mean over tasks of score / teacher's score (the paper's Avgs)",
            "ci": "95% bootstrap over pages, paired with the teacher for retention",
            "retention_control": "the same against the control, the teacher post-trained on the students' data",
            "text_dense": _densest(run),  # printed characters per visual token of the teacher
        },
        "models": [_row(run, model) for model in run.models],
        "bench": run.bench,
        "task_units": {task: "points" if task in SUMMED else "share" for task in run.tasks},
        "density_pages": {band: run.teacher.results[0]["density"][band]["n"] for band in run.densities},
        "equal_tokens": comparisons(run),
        "figures": dict(figures),
        "examples": [
            {
                "id": example.id,
                "task": example.task,
                "figure": figure,
                "question": example.question,
                "reference": example.reference,
                "answers": [
                    {"label": a.model.variant.label, "prediction": a.prediction, "score": a.score}
                    for a in example.answers
                ],
            }
            for example, figure in zip(examples, example_figures, strict=True)
        ],
    }


def _row(run: RunData, model: ModelResults) -> dict[str, Any]:
    """Return the numbers of one model."""
    control = run.control if model.variant.stage == "post-train" else None
    dense = _densest(run)
    dense_retention, dense_bounds = density_retention(model, run.teacher, dense) if dense else (None, None)
    timed = run.timing(model.variant)
    seconds, base = model.mean("seconds_per_sample"), run.teacher.mean("seconds_per_sample")
    return {
        "label": model.variant.label,
        **asdict(model.variant),
        "seeds": model.seeds,
        "n": model.results[0]["n"],
        "mean_over_tasks": model.mean("mean_over_tasks"),
        "mean_over_tasks_seed_range": model.seed_spread(),
        "retention": retention(model, run.teacher, run.tasks),
        "retention_ci": retention_interval(model, run.teacher, run.tasks),
        "retention_seed_range": retention_seed_range(model, run.teacher, run.tasks),
        "retention_control": retention(model, control, run.tasks) if control else None,
        "retention_control_ci": retention_interval(model, control, run.tasks) if control else None,
        "retention_text_dense": dense_retention,
        "retention_text_dense_ci": dense_bounds,
        "tasks": {task: _task_cell(run, model, task) for task in run.tasks},
        "density": {band: _density_cell(run, model, band) for band in run.densities},
        "visual_tokens_nominal": model.mean("visual_tokens_nominal"),
        "visual_tokens_layer_mean": model.mean("visual_tokens_layer_mean"),
        "seconds_per_sample": seconds,
        "speedup": base / seconds if base and seconds else None,
        "bench_seconds": timed["seconds"]["end_to_end"]["median"] if timed else None,
        "bench_faster": timed["faster"]["end_to_end"]["median"] if timed else None,
    }


def _densest(run: RunData) -> str | None:
    """Return the densest band of text density, or None if the pages are not divided into bands."""
    return run.densities[-1] if len(run.densities) > 1 else None


def _task_cell(run: RunData, model: ModelResults, task: str) -> dict[str, Any]:
    return {
        "score": model.score("tasks", task),
        "ci": model.score_interval("tasks", task),
        "retention": retention(model, run.teacher, [task]),
        "retention_ci": retention_interval(model, run.teacher, [task]),
    }


def _density_cell(run: RunData, model: ModelResults, band: str) -> dict[str, Any]:
    value, bounds = density_retention(model, run.teacher, band)
    return {"score": model.score("density", band), "retention": value, "retention_ci": bounds}
