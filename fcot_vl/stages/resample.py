"""Sampling for post-training: a coarse run on few samples, its losses by group, and a mixture weighted by them.

Source: paper, Sec. 3.1.2, "Data sampling pipeline". This stage combines `post_train` and `data.sampling_weights`. The
final post-training reads the mixture that it writes.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from fcot_vl.common.console import show
from fcot_vl.common.distributed import is_main_process, main_process_first, open_shared_stage
from fcot_vl.common.files import write_json
from fcot_vl.common.hashing import hash_file
from fcot_vl.common.plotting import FAINT, INK, clean, finish
from fcot_vl.common.provenance import made_here
from fcot_vl.common.stage import open_stage
from fcot_vl.data.mixture_file import Part, take_apart, write_mixture, write_subset
from fcot_vl.data.sampling_weights import CAP, FLOOR, Group, is_generation, read_groups, sampling_weights
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.models.auto import load_processor
from fcot_vl.stages.post_train import PostTrainConfig, post_train
from fcot_vl.train.config import stage_settings
from fcot_vl.train.trainer import LOSS_LOG

logger = logging.getLogger(__name__)

BYTES_A_TOKEN = 4  # estimate if no tokenizer is available


@dataclass
class ResampleConfig:
    """Settings of resampling.

    Attributes:
        output: Folder to write.
        data: Data to weight, anything that `open_data` accepts.
        losses: Output folder of a coarse post-train run on this data. Give either `losses` or `model`.
        model: Student with which the coarse run is made, on `records` samples.
        records: Number of samples of the coarse run, spread evenly over the groups.
        floor, cap: Minimum and maximum weight.
        generation: Groups whose weight is never raised, in addition to those with long answers.
        seed: Seed with which the samples are drawn.

    Raises:
        ValueError: If settings contradict each other.
    """

    output: Path
    data: Path
    losses: Path | None = None
    model: Path | None = None
    records: int = 512
    floor: float = FLOOR
    cap: float = CAP
    generation: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.losses is None) == (self.model is None):
            raise ValueError(
                "give either --losses (the folder of a coarse run) or --model (to make the coarse run)"
            )
        if self.records < 1:
            raise ValueError(f"--records must be at least 1, got {self.records}")
        sampling_weights({"": Group(1.0, 1)}, self.floor, self.cap)


def resample(config: ResampleConfig, coarse: PostTrainConfig | None = None) -> Path:
    """Write sampling weights, and a mixture that uses them, from the losses of a coarse run.

    Writes `mixture.yaml`, `weights.json`, `weights.png`, `stage.json`, and with `config.model` the coarse run in
    `coarse/`. A finished stage is recognized. An interrupted stage resumes, including its coarse run.

    Args:
        coarse: Settings of the coarse run, required with `config.model`. Its output folder is `coarse/`.

    Returns:
        The output folder.

    Raises:
        ValueError: If the log has no losses by group, or no loss for one of the data's groups.
        StageError: If the output folder holds another stage or other settings.
    """
    settings: dict[str, Any] = {
        "floor": config.floor,
        "cap": config.cap,
        "generation": sorted(config.generation),
    }
    inputs = {"data": open_data(config.data, config.seed).fingerprint()}
    if config.losses is not None:
        if not (config.losses / LOSS_LOG).is_file():
            raise ValueError(
                f"{config.losses}: no {LOSS_LOG} found; give the output folder of a post-train run"
            )
        inputs["losses"] = hash_file(config.losses / LOSS_LOG)
    else:
        assert coarse is not None, "a coarse run needs settings"
        settings |= {"records": config.records, "model": str(config.model), "coarse": stage_settings(coarse)}
    if coarse is None:
        stage = open_stage(config.output, "resample", settings, inputs, config.seed)
    else:
        stage = open_shared_stage(coarse, "resample", settings, inputs, config.seed, config.output)
    if stage.done:
        logger.info(f"resample: already done in {config.output}")
        return config.output
    parts, others = take_apart(config.data, config.seed)
    run = config.losses
    if run is None:
        assert coarse is not None and config.model is not None
        run = config.output / "coarse"
        subset = config.output / "coarse.yaml"
        if is_main_process(coarse):
            write_subset(subset, parts, config.records, others)
        coarse.output_dir = str(run)
        main_process_first(coarse, "draw samples", subset.exists)  # the other processes wait for the file
        post_train(coarse, config.model, subset)
        if not is_main_process(coarse):
            return config.output
    length = _counter(config.model or run)
    lengths = {
        part.group: statistics.fmean(map(length, answers)) for part in parts if (answers := part.answers())
    }
    groups = read_groups(run / LOSS_LOG, lengths)
    if missing := [part.group for part in parts if part.group not in groups]:
        raise ValueError(
            f"{run / LOSS_LOG}: no loss of the group {missing[0]!r}; the run has {', '.join(groups)}. "
            "Give the data it was trained on, or raise --records"
        )
    groups = {part.group: groups[part.group] for part in parts}
    weights = sampling_weights(groups, config.floor, config.cap, set(config.generation))
    _write(config, parts, others, groups, weights)
    draw(groups, weights, config.output / "weights.png")
    stage.finish(
        {
            "groups": len(groups),
            "down": sum(w < 1 for w in weights.values()),
            "up": sum(w > 1 for w in weights.values()),
        }
    )
    show(_table(groups, weights, set(config.generation)))
    logger.info(f"resample: {config.output / 'mixture.yaml'}")
    return config.output


def _counter(model: Path) -> Callable[[str], int]:
    """Return a function that counts the tokens of an answer.

    It uses the model's tokenizer, or an estimate if the model's folder has none.
    """
    try:
        tokenizer = load_processor(model).tokenizer
    except (ValueError, OSError):
        return lambda text: -(-len(text.encode()) // BYTES_A_TOKEN)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _reason(name: str, group: Group, weight: float, median: float, config: ResampleConfig) -> str:
    """Explain the weight of a group in one line."""
    ratio = group.loss / median if median > 0 else 1.0
    why = f"loss {group.loss:.4f}, {ratio:.2f} of the median"
    if weight == 1.0 and ratio > 1 and is_generation(name, group, set(config.generation)):
        return f"{why}; not up: a generation task"
    if weight != ratio and weight == config.floor:
        return f"{why}; down to the floor"
    if weight != ratio and weight == config.cap:
        return f"{why}; up to the cap"
    return f"{why}; {'up' if weight > 1 else 'down' if weight < 1 else 'as it is'}"


def _write(
    config: ResampleConfig,
    parts: list[Part],
    others: dict[str, Any],
    groups: dict[str, Group],
    weights: dict[str, float],
) -> None:
    median = statistics.median(group.loss for group in groups.values())
    comments = {name: _reason(name, group, weights[name], median, config) for name, group in groups.items()}
    final = {part.group: float(f"{part.weight * weights[part.group]:.3g}") for part in parts}
    heading = [
        f"Weights from a coarse run: loss over the median {median:.4f}, between {config.floor} and {config.cap}.",
        "A weight is the number of times that each sample is seen per epoch. You may edit the weights.",
    ]
    config.output.mkdir(parents=True, exist_ok=True)
    write_mixture(config.output / "mixture.yaml", parts, final, comments, others, heading)
    named = set(config.generation)
    content = {
        "median_loss": median,
        "groups": {
            name: {
                "loss": group.loss,
                "tokens": group.tokens,
                "answer_tokens": group.answer_tokens,
                "generation": is_generation(name, group, named),
                "weight": weights[name],
                "reason": comments[name],
            }
            for name, group in groups.items()
        },
    }
    write_json(config.output / "weights.json", content)


def _table(groups: dict[str, Group], weights: dict[str, float], named: set[str]) -> Table:
    table = Table(title="post-training sampling")
    for column in ("group", "loss", "answer tokens", "weight"):
        table.add_column(column, justify="left" if column == "group" else "right")
    for name, group in sorted(groups.items(), key=lambda pair: pair[1].loss):
        length = "" if group.answer_tokens is None else f"{group.answer_tokens:.0f}"
        long = " (generation)" if is_generation(name, group, named) else ""
        table.add_row(name, f"{group.loss:.4f}", length + long, f"{weights[name]:.2f}")
    return table


def draw(groups: dict[str, Group], weights: dict[str, float], path: Path) -> Path:
    """Draw bar charts of each group's loss, with the median, and of the resulting weight."""
    names = sorted(groups, key=lambda name: groups[name].loss)
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    for panel in (left, right):
        clean(panel, "x")
    losses = [groups[name].loss for name in names]
    colors = ["#e05d0b" if weights[n] > 1 else "#0b66a8" if weights[n] < 1 else "#9aa4ae" for n in names]
    median = statistics.median(losses)
    left.barh(names, losses, color=colors)
    left.axvline(median, color=INK, linewidth=1, linestyle="--")
    left.set_title("loss of the coarse run (dashed: median)", fontsize=9.5, color=INK, loc="left")
    left.set_xlabel("nats per answer token", fontsize=8.5, color=FAINT)
    bars = right.barh(names, [weights[name] for name in names], color=colors)
    right.axvline(1, color=INK, linewidth=1, linestyle="--")
    right.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    right.margins(x=0.12)
    right.set_title("sampling weight", fontsize=9.5, color=INK, loc="left")
    text = f"Median {median:.4f} nats per answer token. {made_here()}"
    return finish(figure, path, text, "Which tasks are seen how often")
