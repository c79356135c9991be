"""Read the results of a run: every result, loss log and bench file below its folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import read_rows
from fcot_vl.report.run_data import LossCurve, ModelResults, RunData
from fcot_vl.report.variant import DEFAULT_OPTIONS, Variant

SUMMED = ("mme",)  # benchmarks whose score is a sum of points and not a share


class ReportError(ValueError):
    """Error for a run folder without a valid report; the message says what is missing or contradictory."""


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
    differing = _differing_options(results.values())
    for path, result in results.items():
        groups[_variant(result, path, differing)].append((result, path))
    models = [_model_results(variant, found) for variant, found in groups.items()]
    models.sort(key=lambda m: m.variant.sort_key())
    if not any(m.variant.stage == "teacher" and m.variant.method == "none" for m in models):
        raise ReportError(f"{run}: found no result of the teacher to compare with; run `fcot-vl evaluate`")
    hashes: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, result in results.items():
        hashes[result.get("benchmark", "")].setdefault(str(result["data_hash"]), path.parent)
    for places in hashes.values():
        if len(places) > 1:
            listing = "; ".join(f"{folder} on {value[:12]}" for value, folder in places.items())
            raise ReportError(f"{run}: results on different test data cannot be compared: {listing}")
    benches = [_json(path) for path in sorted(run.rglob("bench.json"))]
    return RunData(run, models, _curves(run, differing), benches, results)


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


def _variant(result: dict[str, Any], path: Path, differing: set[str]) -> Variant:
    try:
        return Variant(
            stage=result["stage"],
            compress_ratio=int(result["compress_ratio"]),
            method=result["method"],
            keep=result["keep"],
            layer=result["layer"],
            merged=result.get("merged"),
            **{key: _option(result, key, differing) for key in DEFAULT_OPTIONS},
        )
    except KeyError as error:
        raise ReportError(f"{path}: not a result file (no {error.args[0]!r})") from None


def _differing_options(results: Iterable[dict[str, Any]]) -> set[str]:
    """Return the keys of `DEFAULT_OPTIONS` in which the students of a run differ."""
    students = [result for result in results if result.get("compress_ratio", 1) > 1]
    return {
        key
        for key, default in DEFAULT_OPTIONS.items()
        if len({one.get(key) or default for one in students}) > 1
    }


def _option(result: dict[str, Any], key: str, differing: set[str]) -> str | None:
    """Return a student's setting, or None if its label omits it.

    Older results do not record the default settings.
    """
    value = result.get(key) or DEFAULT_OPTIONS[key]
    if result["compress_ratio"] == 1 or (value == DEFAULT_OPTIONS[key] and key not in differing):
        return None
    return str(value)


def _model_results(variant: Variant, found: list[tuple[dict[str, Any], Path]]) -> ModelResults:
    """Build one variant from its results.

    The results of a seed, in one file or in several (one per benchmark), are combined into one result.
    """
    by_seed: dict[int, list[tuple[dict[str, Any], Path]]] = defaultdict(list)
    for result, path in found:
        for other, place in by_seed[int(result["seed"])]:
            if result["tasks"].keys() & other["tasks"].keys():
                raise ReportError(
                    f"{place} and {path} are both results of {variant.label!r} of seed {result['seed']}"
                )
        by_seed[int(result["seed"])].append((result, path))
    seeds = [by_seed[seed] for seed in sorted(by_seed)]
    return ModelResults(
        variant,
        [_combined([result for result, _ in results]) for results in seeds],
        [_predictions(results) for results in seeds],
        [results[0][1].parent for results in seeds],
    )


def _combined(results: list[dict[str, Any]]) -> dict[str, Any]:
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


def _curves(run: Path, differing: set[str]) -> list[LossCurve]:
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
            options = {key: _option(asked, key, differing) for key in DEFAULT_OPTIONS}
            curves.append(LossCurve(ratio, seed, steps, losses, path.parent, **options))
    return curves


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise ReportError(f"{path}: not a JSON object")
    return value
