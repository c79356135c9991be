"""Losses and scores of every task during post-training, whose "see-saw" motivates merging (paper, Fig. 5).

This module reads a run of `train` and scores the checkpoints that it kept with `evaluate`.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from fcot_vl.common.console import show
from fcot_vl.common.files import read_rows, write_json
from fcot_vl.common.hashing import former_model_hash, hash_model_folder
from fcot_vl.common.plotting import FAINT, clean, finish
from fcot_vl.common.provenance import provenance
from fcot_vl.common.stage import open_stage, read_stage
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.stages.evaluate import data_hash, evaluate
from fcot_vl.train.snapshots import CHECKPOINTS
from fcot_vl.train.trainer import LOSS_LOG

logger = logging.getLogger(__name__)

SMOOTH = 0.04  # share of a run over which losses are averaged
COLORS = (
    "#0b66a8",
    "#e05d0b",
    "#0f9d75",
    "#d1242f",
    "#7a4fbf",
    "#9a8478",
    "#b2377f",
    "#57606a",
    "#c79a00",
    "#111111",
)


def curves(run: Path, data: Path, output: Path, batch_size: int = 64) -> Path:
    """Score every checkpoint that a post-training run kept, and draw losses and scores by task.

    Args:
        run: Folder of a finished `post-train` run with `keep_checkpoints`.
        data: Samples to score on. If the checkpoints will be merged, use other samples than the reported ones.
        output: Folder to write. It gets an evaluation of each checkpoint, `curves.json` and `curves.png`.
        batch_size: Maximum number of questions decoded together.

    Returns:
        The output folder.

    Raises:
        ValueError: If the run kept no checkpoint, or is not finished.
        StageError: If `output` holds another stage or other settings.
    """
    record = read_stage(run)
    if record["stage"] != "post-train" or record["status"] != "done":
        raise ValueError(f"{run}: not a finished post-train run; finish it with the same command")
    steps = sorted((run / CHECKPOINTS).glob("step-*"))
    if not steps:
        raise ValueError(f"{run}: no checkpoint was kept; train with --keep-checkpoints 10")
    samples = SampleFolder(data)
    data_digest = data_hash(samples)

    def inputs(hashed: Callable[[Path], str]) -> dict[str, str]:
        return {"data": data_digest, **{path.name: hashed(path) for path in steps}}

    former = partial(inputs, former_model_hash)
    stage = open_stage(output, "curves", {}, inputs(hash_model_folder), record["seed"], former)
    if not stage.done:
        logger.info(f"curves: {len(steps)} checkpoints of {run} on {len(samples)} questions -> {output}")
        results = [
            evaluate(
                path, data, output / path.name, stage="post-train", seed=record["seed"], batch_size=batch_size
            )
            for path in steps
        ]
        numbers = [int(path.name.removeprefix("step-")) for path in steps]
        content = {
            "steps": numbers,
            "mean_over_tasks": [result["mean_over_tasks"] for result in results],
            "scores": {t: [r["tasks"][t]["score"] for r in results] for t in results[0]["tasks"]},
            "losses": group_losses(run / LOSS_LOG),
            "run": str(run),
            "data_hash": data_digest,
            "questions": len(samples),
            "compress_ratio": results[0]["compress_ratio"],
            **provenance(),
        }
        write_json(output / "curves.json", content)
        draw(content, output / "curves.png")
        stage.finish(
            {"checkpoints": len(steps), "best_step": numbers[int(np.argmax(content["mean_over_tasks"]))]}
        )
    content = json.loads((output / "curves.json").read_text(encoding="utf-8"))
    show(_table(content))
    logger.info(f"curves: {output / 'curves.png'}")
    return output


def group_losses(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return the losses of each group during a run: `step`, `ce` (nats per answer token), `tokens`."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"step": [], "ce": [], "tokens": []})
    for row in read_rows(path):
        for name, group in row.get("groups", {}).items():
            found[name]["step"].append(row["step"])
            found[name]["ce"].append(group["ce"])
            found[name]["tokens"].append(group["tokens"])
    return dict(sorted(found.items()))


def see_saw(scores: list[float]) -> float:
    """Return the largest drop of a task's score from a checkpoint to a later one."""
    highest = np.maximum.accumulate(scores)
    return float(np.max(highest - np.asarray(scores)))


def smoothed(losses: dict[str, list[float]], width: float) -> tuple[list[float], list[float]]:
    """Average a group's losses, weighted by tokens, over intervals of `width` steps; return their steps and losses."""
    steps, values, weights = (np.asarray(losses[key], dtype=float) for key in ("step", "ce", "tokens"))
    stretch = np.floor((steps - 1) / width).astype(int)
    kept = np.unique(stretch)
    means = [np.average(values[stretch == at], weights=weights[stretch == at]) for at in kept]
    return [float(steps[stretch == at].mean()) for at in kept], [float(mean) for mean in means]


def draw(content: dict[str, Any], path: Path) -> None:
    """Draw two panels: losses on the training pages and scores of the checkpoints."""
    figure = Figure(figsize=(12.4, 5.4))
    left, right = figure.subplots(1, 2)
    names = sorted(content["losses"].keys() | content["scores"].keys())
    color = {name: COLORS[at % len(COLORS)] for at, name in enumerate(names)}
    last = max(max(losses["step"]) for losses in content["losses"].values())
    for name, losses in content["losses"].items():
        left.plot(*smoothed(losses, max(1.0, last * SMOOTH)), color=color[name], linewidth=1.4, label=name)
    left.set_yscale("log")
    _label(left, "loss, nats per answer token", "Training loss by task")
    for name, scores in content["scores"].items():
        right.plot(content["steps"], scores, color=color[name], marker="o", markersize=3.5, label=name)
    right.plot(
        content["steps"], content["mean_over_tasks"], color="#111111", linewidth=2.4, label="mean over tasks"
    )
    right.set_ylim(0, 1.02)
    _label(right, "score", "Score by task, checkpoint by checkpoint")
    handles = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True))
    handles |= {n: h for h, n in zip(*left.get_legend_handles_labels(), strict=True) if n not in handles}
    right.legend(
        handles.values(),
        handles.keys(),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
    )
    text = (
        f"Post-training of a student at compress ratio {content['compress_ratio']}; {content['questions']} questions, "
        f"data {content['data_hash'][:12]}; commit {(content['commit'] or 'unknown')[:8]}; {content['hardware']}; "
        f"{content['date'][:10]}."
    )
    finish(figure, path, text, "Tasks along post-training")


def _label(axes: Axes, y: str, title: str) -> None:
    clean(axes, "y")
    axes.set_xlabel("optimizer step", fontsize=9, color=FAINT)
    axes.set_ylabel(y, fontsize=9, color=FAINT)
    axes.set_title(title, fontsize=10, loc="left")


def _table(content: dict[str, Any]) -> Table:
    steps = content["steps"]
    table = Table(title="Score by task, checkpoint by checkpoint", title_justify="left")
    table.add_column("task")
    for name in ("first", "best", "at step", "last", "falls by"):
        table.add_column(name, justify="right")
    for name, scores in [*content["scores"].items(), ("mean over tasks", content["mean_over_tasks"])]:
        best = int(np.argmax(scores))
        shown = [f"{100 * score:.1f}" for score in (scores[0], scores[best], scores[-1], see_saw(scores))]
        table.add_row(name, *shown[:2], str(steps[best]), *shown[2:])
    return table
