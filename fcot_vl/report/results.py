"""Data of the report: reads the result files of a run folder and computes the numbers of each model.

`report.py` and `report_figures.py` use this module. It measures nothing; a cell that was not measured is None.

The retention of a task is the model's score divided by the teacher's score. The retention of a model is its mean over
tasks, as in the "Avgs" column of the paper (Table 1: the ten ratios of InternVL2-2B at 50% average 104.20). Its
interval is a paired bootstrap: pages are redrawn within each task, with the scores of the model and the teacher
together. The scores of the model are averaged over its seeds first, so the interval does not include the spread between
seeds. The spread is reported separately.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fcot_vl.common.errors import one_line
from fcot_vl.common.stage import read_rows
from fcot_vl.evaluate.bootstrap import Interval, bootstrap_ratio_interval
from fcot_vl.evaluate.tasks.minidoc import density_band

SUMMED = ("mme",)  # benchmarks whose score is a sum of points and not a share
# Default settings of a student. Labels omit them if all students of a run have them.
USUAL = {"compressor": "conv", "visual_positions": "kept"}
PEER_NAMES = {  # in the order of the tables
    "fastv": "FastV",
    "pyramiddrop": "PyramidDrop",
    "sparsevlm": "SparseVLM",
    "visionzip": "VisionZip",
    "vispruner": "VisPruner",
    "prumerge": "LLaVA-PruMerge+",
    "divprune": "DivPrune",
    "tome": "ToMe",
    "random": "random drop",
    "uniform": "uniform drop",
    "smaller_page": "smaller page",
    "fewer_tiles": "fewer tiles",
}


class ReportError(ValueError):
    """Error for a run folder without a valid report; the message says what is missing or contradictory."""


def _with_options(name: str, *options: str | None) -> str:
    """Return a student's name, with its settings that differ from the defaults in brackets."""
    given = ", ".join(option for option in options if option)
    return f"{name} ({given})" if given else name


@dataclass(frozen=True, order=True)
class Variant:
    """Evaluated model without its seed: one row of the table."""

    stage: str  # teacher, realign, post-train or control
    compress_ratio: int
    method: str  # none, or a training-free baseline
    keep: float | None
    layer: int | None
    visual_positions: str | None = None  # None where the label omits it, see USUAL
    compressor: str | None = None  # likewise
    merged: str | None = None  # merge method, if several checkpoints were merged

    @property
    def label(self) -> str:
        base = {
            "teacher": "teacher",
            "control": "control: teacher post-trained",
            "realign": f"student {self.compress_ratio}x, re-aligned only",
            "post-train": f"student {self.compress_ratio}x",
        }[self.stage]
        base = _with_options(base, self.compressor, self.visual_positions)
        if self.merged:
            base += f", merged: {self.merged}"
        if self.method == "none":
            return base
        peer = PEER_NAMES.get(self.method, self.method)
        if self.keep is not None:
            peer += f" {100 * self.keep:.3g}%"
        if self.layer:
            peer += f", K={self.layer}"
        return peer if base == "teacher" else f"{base} + {peer}"

    @property
    def short_label(self) -> str:
        """Label without its token share, for panels whose title gives the share."""
        return self.label if self.keep is None else self.label.replace(f" {100 * self.keep:.3g}%", "")

    @property
    def nominal_keep(self) -> float:
        """Nominal share of the teacher's visual tokens that is kept: 0.5 at ratio 2, and also for keep 0.5."""
        return (self.keep if self.keep is not None else 1.0) / self.compress_ratio

    def sort_key(self) -> tuple[Any, ...]:
        group = {"teacher": 0, "control": 1, "post-train": 2, "realign": 3}[self.stage]
        peers = ("none", *PEER_NAMES)
        peer = peers.index(self.method) if self.method in peers else len(peers)
        return (
            peer,
            group,
            -self.nominal_keep,
            self.layer or 0,
            self.visual_positions or "",
            self.compressor or "",
            self.merged or "",
        )


@dataclass
class Judged:
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

    def of_seeds(self, seeds: set[int]) -> Judged:
        """Return a copy with the results of only these seeds."""
        kept = [at for at, seed in enumerate(self.seeds) if seed in seeds]
        return Judged(
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
    compressor: str | None = None  # None where the label omits it, see USUAL
    visual_positions: str | None = None  # likewise

    @property
    def label(self) -> str:
        return _with_options(f"student {self.compress_ratio}x", self.compressor, self.visual_positions)


@dataclass
class RunData:
    """Results, loss curves and bench files found below a run folder."""

    folder: Path
    judged: list[Judged]
    curves: list[LossCurve] = field(default_factory=list)
    bench: list[dict[str, Any]] = field(default_factory=list)
    results: dict[Path, dict[str, Any]] = field(default_factory=dict)  # result by file, one per benchmark

    @property
    def teacher(self) -> Judged:
        return next(j for j in self.judged if j.variant.stage == "teacher" and j.variant.method == "none")

    @property
    def tasks(self) -> list[str]:
        return self.teacher.tasks

    @property
    def densities(self) -> list[str]:
        return sorted(self.teacher.results[0].get("density", {}), key=_lower_edge)

    def find(self, stage: str, method: str = "none") -> list[Judged]:
        return [j for j in self.judged if j.variant.stage == stage and j.variant.method == method]

    def timing(self, variant: Variant) -> dict[str, Any] | None:
        """Return the row of the first bench file for this model, or None if the bench did not time it."""
        if not self.bench or variant.merged or variant.stage not in ("teacher", "post-train"):
            return None
        same = ("compress_ratio", "method", "keep", "layer")
        for row in self.bench[0]["contenders"]:
            if all(row[key] == getattr(variant, key) for key in same) and all(
                (row.get(key) or usual) == (getattr(variant, key) or usual) for key, usual in USUAL.items()
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


def gather(run: Path) -> RunData:
    """Read every result, loss log and bench file below `run`.

    Results of one model and seed on several benchmarks form one row with each benchmark as a task (paper, Table 1).

    Raises:
        ReportError: If there is no result of the teacher, two results claim the same model and seed, or results come
            from different test data and cannot be compared.
    """
    run = Path(run)
    if not run.is_dir():
        raise ReportError(f"{run}: no such run folder; give the folder of a run, such as runs/demo")
    groups: dict[Variant, list[tuple[dict[str, Any], Path]]] = defaultdict(list)
    results = {path: _json(path) for path in sorted(run.rglob("result.json"))}
    results = {path: _as_tasks(result) for path, result in results.items() if not _unscored(result)}
    told = _told_apart(results.values())
    for path, result in results.items():
        groups[_variant(result, path, told)].append((result, path))
    judged = [_judge(variant, found) for variant, found in groups.items()]
    judged.sort(key=lambda j: j.variant.sort_key())
    if not any(j.variant.stage == "teacher" and j.variant.method == "none" for j in judged):
        raise ReportError(
            f"{run}: no result of the teacher here, so nothing to compare with; run `fcot-vl evaluate`"
        )
    hashes: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, result in results.items():
        hashes[result.get("benchmark", "")].setdefault(str(result["data_hash"]), path.parent)
    for places in hashes.values():
        if len(places) > 1:
            listing = "; ".join(f"{folder} on {value[:12]}" for value, folder in places.items())
            raise ReportError(f"{run}: results on different test data cannot be compared: {listing}")
    benches = [_json(path) for path in sorted(run.rglob("bench.json"))]
    return RunData(run, judged, _curves(run, told), benches, results)


def _unscored(result: dict[str, Any]) -> bool:
    """Return True if the result is on a benchmark and has no score, as for a split with hidden answers."""
    return "benchmark" in result and result["score"] is None


def _as_tasks(result: dict[str, Any]) -> dict[str, Any]:
    """Convert a result on a named benchmark to one with a single task."""
    if "benchmark" not in result:
        return result
    name, score = result["benchmark"], result["score"]
    cell = {"n": result["n"], "score": score, "ci": result["score_ci"]}
    mean = None if name in SUMMED else score
    return result | {"tasks": {name: cell}, "density": {}, "mean_over_tasks": mean}


def _variant(result: dict[str, Any], path: Path, told: set[str]) -> Variant:
    try:
        return Variant(
            stage=result["stage"],
            compress_ratio=int(result["compress_ratio"]),
            method=result["method"],
            keep=result["keep"],
            layer=result["layer"],
            merged=result.get("merged"),
            **{key: _option(result, key, told) for key in USUAL},
        )
    except KeyError as error:
        raise ReportError(f"{path}: not a result file (no {error.args[0]!r})") from None


def _told_apart(results: Iterable[dict[str, Any]]) -> set[str]:
    """Return the keys of `USUAL` in which the students of a run differ."""
    students = [result for result in results if result.get("compress_ratio", 1) > 1]
    return {key for key, usual in USUAL.items() if len({one.get(key) or usual for one in students}) > 1}


def _option(result: dict[str, Any], key: str, told: set[str]) -> str | None:
    """Return a student's setting, or None if its label omits it.

    Older results do not record the default settings.
    """
    value = result.get(key) or USUAL[key]
    if result["compress_ratio"] == 1 or (value == USUAL[key] and key not in told):
        return None
    return str(value)


def _judge(variant: Variant, found: list[tuple[dict[str, Any], Path]]) -> Judged:
    """Build one variant from its results.

    The results of a seed, in one file or in several (one per benchmark), are combined into one result.
    """
    by_seed: dict[int, list[tuple[dict[str, Any], Path]]] = defaultdict(list)
    for result, path in found:
        for other, place in by_seed[int(result["seed"])]:
            if result["tasks"].keys() & other["tasks"].keys():
                raise ReportError(
                    f"{place} and {path} both claim to be {variant.label!r} of seed {result['seed']}"
                )
        by_seed[int(result["seed"])].append((result, path))
    seeds = [by_seed[seed] for seed in sorted(by_seed)]
    return Judged(
        variant,
        [_together([result for result, _ in results]) for results in seeds],
        [_predictions(results) for results in seeds],
        [results[0][1].parent for results in seeds],
    )


def _together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Combine the results of one model on several benchmarks; tokens and seconds are means over all questions."""
    if len(results) == 1:
        return results[0]
    tasks = {name: cell for result in results for name, cell in result["tasks"].items()}
    counts = [result["n"] for result in results]

    def mean(key: str) -> float | None:
        values = [result.get(key) for result in results]
        if None in values:
            return None
        return float(np.average([float(value) for value in values if value is not None], weights=counts))

    return {
        **results[0],
        **{
            key: mean(key)
            for key in ("visual_tokens_nominal", "visual_tokens_layer_mean", "seconds_per_sample")
        },
        "tasks": tasks,
        "density": next((result["density"] for result in results if result["density"]), {}),
        "mean_over_tasks": float(np.mean([c["score"] for name, c in tasks.items() if name not in SUMMED])),
        "n": sum(counts),
    }


def _predictions(results: list[tuple[dict[str, Any], Path]]) -> dict[str, dict[str, Any]]:
    """Return the rows of `predictions.jsonl` by id; ids of a benchmark's rows begin with its name.

    Benchmarks whose score is not a mean over rows are left out.
    """
    rows: dict[str, dict[str, Any]] = {}
    for result, path in results:
        name = result.get("benchmark")
        for row in read_rows(path.parent / "predictions.jsonl") if name not in SUMMED else []:
            if name is not None:
                row |= {"id": f"{name}/{row['id']}", "task": name}
            if row["score"] is not None:
                rows[row["id"]] = row
    return rows


def _curves(run: Path, told: set[str]) -> list[LossCurve]:
    """Read the stage-1 loss logs, one file for all students of a run.

    Rows are {"step", "ratio-2/kl", "ratio-2/ce", ...}.
    """
    curves = []
    for path in sorted(run.rglob("losses.jsonl")):
        stage = path.parent / "stage.json"
        record = _json(stage) if stage.exists() else {}
        seed, settings = int(record.get("seed") or 0), record.get("settings") or {}
        rows = read_rows(path)
        columns: dict[int, list[str]] = defaultdict(list)
        for key in rows[0] if rows else ():
            student, _, name = key.partition("/")
            if name and student.startswith("ratio-"):
                columns[int(student.removeprefix("ratio-"))].append(name)
        for ratio, names in sorted(columns.items()):
            losses = {name: [float(row[f"ratio-{ratio}/{name}"]) for row in rows] for name in names}
            steps = [int(row["step"]) for row in rows]
            asked = {"compress_ratio": ratio, **settings}
            options = {key: _option(asked, key, told) for key in USUAL}
            curves.append(LossCurve(ratio, seed, steps, losses, path.parent, **options))
    return curves


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise ReportError(f"{path}: holds no JSON object")
    return value


def retention(model: Judged, teacher: Judged, tasks: Iterable[str]) -> float | None:
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


def retention_interval(model: Judged, teacher: Judged, tasks: Iterable[str]) -> Interval | None:
    """Compute the paired bootstrap interval of `retention`, or None without predictions of both on the same pages."""
    pairs = _pairs(model, teacher, by_task=True)
    wanted = list(tasks)
    if not wanted or any(task not in pairs for task in wanted):
        return None
    return bootstrap_ratio_interval([[(ours, whole) for _, ours, whole in pairs[task]] for task in wanted])


def retention_difference(
    model: Judged, other: Judged, teacher: Judged, tasks: Iterable[str]
) -> tuple[float, Interval] | None:
    """Compute the difference of the retention of two models, and its paired bootstrap interval over pages.

    Two students are compared only on the seeds that both were trained with, if there are any. Returns None if for some
    task no page was answered by all three models.
    """
    common = set(model.seeds) & set(other.seeds)
    if common and min(model.variant.compress_ratio, other.variant.compress_ratio) > 1:
        model, other = model.of_seeds(common), other.of_seeds(common)
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, (task, _, whole) in teacher.sample_scores.items():
        if key in model.sample_scores and key in other.sample_scores:
            less = model.sample_scores[key][2] - other.sample_scores[key][2]
            groups[task].append((less, whole))
    wanted = list(tasks)
    if not wanted or any(task not in groups for task in wanted):
        return None
    chosen = [groups[task] for task in wanted]
    bounds = bootstrap_ratio_interval(chosen)
    if bounds is None:
        return None
    ratios = [sum(less for less, _ in rows) / sum(whole for _, whole in rows) for rows in chosen]
    return float(np.mean(ratios)), bounds


def _lower_edge(band: str) -> float:
    return float(band.split("-")[0])


def density_retention(model: Judged, teacher: Judged, band: str) -> tuple[float | None, Interval | None]:
    """Compute retention on the pages of one text-density band, all tasks pooled, and its paired bootstrap interval."""
    ours, theirs = model.score("density", band), teacher.score("density", band)
    if ours is None or not theirs:
        return None, None
    pages = _pairs(model, teacher, by_task=False).get("", [])
    bands = sorted(teacher.results[0]["density"], key=_lower_edge)
    pairs = [
        (score, whole)
        for density, score, whole in pages
        if density is not None and density_band(density, bands) == band
    ]
    return ours / theirs, bootstrap_ratio_interval([pairs]) if pairs else None


def _pairs(
    model: Judged, teacher: Judged, by_task: bool
) -> dict[str, list[tuple[float | None, float, float]]]:
    """Return (density if known, model's score, teacher's score) of every page that both answered.

    The tuples are grouped by task, or all under "" without `by_task`.
    """
    found: dict[str, list[tuple[float | None, float, float]]] = defaultdict(list)
    for key, (_, _, score) in teacher.sample_scores.items():
        if key in model.sample_scores:
            task, density, ours = model.sample_scores[key]
            found[task if by_task else ""].append((density, ours, score))
    return found
