"""Results of a run in memory: one `ModelResults` per evaluated model, the loss curves, and the bench files.

A number that was not measured is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fcot_vl.evaluate.bootstrap import Interval
from fcot_vl.report.variant import DEFAULT_OPTIONS, Variant, with_options


@dataclass
class ModelResults:
    """One variant with the results of all its seeds."""

    variant: Variant
    results: list[dict[str, Any]]
    predictions: list[dict[str, dict[str, Any]]]  # one per result: sample id -> row of predictions.jsonl
    folders: list[Path]

    @property
    def seeds(self) -> list[int]:
        return [int(r["seed"]) for r in self.results]

    @property
    def tasks(self) -> list[str]:
        return list(self.results[0]["tasks"])

    @property
    def densities(self) -> list[str]:
        """Bands of text density ("2-4"), lowest first."""
        return sorted(self.results[0].get("density", {}), key=lambda band: float(band.split("-")[0]))

    def of_seeds(self, seeds: set[int]) -> ModelResults:
        """Return a copy with the results of only these seeds."""
        kept = [at for at, seed in enumerate(self.seeds) if seed in seeds]
        return ModelResults(
            self.variant,
            [self.results[at] for at in kept],
            [self.predictions[at] for at in kept],
            [self.folders[at] for at in kept],
        )

    def mean(self, key: str) -> float | None:
        """Return the mean over seeds of a number of the result file, or None if it is missing for any seed."""
        values = [r.get(key) for r in self.results]
        return float(np.mean([float(v) for v in values if v is not None])) if None not in values else None

    def score(self, part: str, name: str) -> float | None:
        """Return the mean over seeds of `result[part][name]["score"]`, or None if it was not measured.

        Args:
            part: `tasks` or `density`.
        """
        cells = [r.get(part, {}).get(name) for r in self.results]
        if any(c is None or c.get("score") is None for c in cells):
            return None
        return float(np.mean([c["score"] for c in cells if c is not None]))

    def score_interval(self, part: str, name: str) -> Interval | None:
        """Return the bootstrap interval of the result file, with its ends averaged over seeds."""
        cells = [r.get(part, {}).get(name) for r in self.results]
        if any(c is None or c.get("ci") is None for c in cells):
            return None
        low, high = np.mean([c["ci"] for c in cells if c is not None], axis=0)
        return float(low), float(high)

    def seed_spread(self) -> Interval | None:
        """Return the lowest and highest mean-over-tasks score over the seeds, or None for a single seed."""
        means = [float(r["mean_over_tasks"]) for r in self.results]
        return (min(means), max(means)) if len(means) > 1 else None

    @cached_property
    def sample_scores(self) -> dict[str, tuple[str, float | None, float]]:
        """Map sample id -> (task, density, score averaged over seeds), for samples that every seed answered."""
        if not self.predictions or not all(self.predictions):
            return {}
        first, *others = self.predictions
        return {
            key: (
                row["task"],
                row["density"],
                float(np.mean([p[key]["score"] for p in self.predictions])),
            )
            for key, row in first.items()
            if all(key in p for p in others)
        }


@dataclass
class LossCurve:
    """Stage-1 losses of one student, `[steps]` values in nats per answer token."""

    compress_ratio: int
    seed: int
    step: list[int]
    losses: dict[str, list[float]]  # "kl", "ce" and whatever else was logged
    folder: Path
    compressor: str | None = None  # None where the label omits it, see DEFAULT_OPTIONS
    visual_positions: str | None = None  # likewise

    @property
    def label(self) -> str:
        return with_options(f"student {self.compress_ratio}x", self.compressor, self.visual_positions)


@dataclass
class RunData:
    """Results, loss curves and bench files found below a run folder."""

    folder: Path
    models: list[ModelResults]
    curves: list[LossCurve] = field(default_factory=list)
    bench: list[dict[str, Any]] = field(default_factory=list)
    results: dict[Path, dict[str, Any]] = field(default_factory=dict)  # result by file, one per benchmark

    @property
    def teacher(self) -> ModelResults:
        return next(m for m in self.models if m.variant.stage == "teacher" and m.variant.method == "none")

    @property
    def control(self) -> ModelResults | None:
        """The teacher post-trained on the same data as the students, if it was evaluated."""
        return next(iter(self.find("control")), None)

    @property
    def tasks(self) -> list[str]:
        return self.teacher.tasks

    @property
    def densities(self) -> list[str]:
        return self.teacher.densities

    def find(self, stage: str, method: str = "none") -> list[ModelResults]:
        return [m for m in self.models if m.variant.stage == stage and m.variant.method == method]

    def timing(self, variant: Variant) -> dict[str, Any] | None:
        """Return the row of the first bench file for this model, or None if the bench did not time it."""
        if not self.bench or variant.merged or variant.stage not in ("teacher", "post-train"):
            return None
        same = ("compress_ratio", "method", "keep", "layer")
        for row in self.bench[0]["contenders"]:
            if all(row[key] == getattr(variant, key) for key in same) and all(
                (row.get(key) or default) == (getattr(variant, key) or default)
                for key, default in DEFAULT_OPTIONS.items()
            ):
                found: dict[str, Any] = row
                return found
        return None

    def provenance(self) -> dict[str, str]:
        """Return the provenance for captions: model, data, samples, commits, hardware and dates of the results."""
        every = list(self.results.values())
        dates = sorted(str(r["date"])[:10] for r in every)
        return {
            "model": ", ".join(_distinct(Path(str(r["model"])).name for r in self.teacher.results)),
            "data": ", ".join(_distinct(str(r["data_hash"])[:12] for r in every)),
            "samples": ", ".join(_distinct(str(r["n"]) for r in every)),
            "commit": ", ".join(_distinct(_short(r["commit"]) for r in every)),
            "hardware": "; ".join(_distinct(str(r["hardware"]) for r in every)),
            "date": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
        }


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _short(commit: str | None) -> str:
    """Shorten a commit for a caption, keeping its `-dirty`."""
    if not commit:
        return "unknown"
    head, _, mark = commit.partition("-")
    return head[:10] + (f"-{mark}" if mark else "")
