"""The `merge` stage: checkpoints of one architecture -> one model folder, with given or computed weights.

This module combines two packages that do not depend on each other: `merge` does the arithmetic, and `evaluate` computes
the scores.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from rich.table import Table

from fcot_vl.common.console import show
from fcot_vl.common.errors import CheckpointError
from fcot_vl.common.files import write_json
from fcot_vl.common.hashing import hash_without_reading
from fcot_vl.common.progress import progress_bar
from fcot_vl.common.provenance import hardware, now
from fcot_vl.common.stage import open_stage
from fcot_vl.merge import plots as figure
from fcot_vl.merge import shapley
from fcot_vl.merge.checkpoint import Checkpoint
from fcot_vl.merge.coalitions import LOG, Coalitions, CoalitionScore, command_score
from fcot_vl.merge.compatibility import same_architecture
from fcot_vl.merge.config import DENSITIES, DTYPES, SCALES, MergeConfig
from fcot_vl.merge.methods import Rule
from fcot_vl.merge.streaming import content_hash, merge_folder

logger = logging.getLogger(__name__)

FILE = "merge.json"
NOTHING_ADDED = "no Shapley value is above zero, so nothing was merged: the result is the last checkpoint"


def merge(config: MergeConfig) -> Path:
    """Merge checkpoints of one architecture into a complete model folder.

    Writes to `config.output`: safetensors in the same files as the base (or the first checkpoint), its other files,
    `merge.json`, `stage.json`, and for shapley `coalitions.jsonl` and `merge.png`. A finished merge is recognized. An
    interrupted merge reuses the coalitions it has scored, and writes the weights again.

    Returns:
        The output folder.

    Raises:
        StageError: If the folder holds a stage with other settings or inputs.
        CheckpointError: If checkpoints cannot be read, written or merged with each other, or a score is invalid.
    """
    checkpoints = [Checkpoint(folder) for folder in config.checkpoints]
    base = None if config.base is None else Checkpoint(config.base)
    reference = base or checkpoints[0]
    notes = same_architecture(reference, checkpoints if base else checkpoints[1:])
    run = _Run(config, base, checkpoints)
    stage = open_stage(config.output, "merge", run.settings(), run.inputs(), config.seed)
    if stage.done:
        logger.info(f"merge: {config.output} is finished, {stage.figures['method']}")
        return config.output
    for note in notes:
        logger.info(f"merge: {note}")
    size = f"{len(checkpoints)} checkpoints of {reference.bytes / 1e9:,.3f} GB"
    logger.info(f"merge: {size} by {config.method} -> {config.output}")
    found = run.find_weights() if config.method == "shapley" else {}
    content = run.write(found)
    if found:
        figure.draw(content, config.output / "merge.png")
    write_json(config.output / FILE, content)
    _show(content)
    stage.finish({"method": config.method, "weights": [row["weight"] for row in content["checkpoints"]]})
    return config.output


class _Run:
    """One merge.

    For shapley, players are numbered by their content, so that the order of the checkpoints has no effect.
    """

    def __init__(self, config: MergeConfig, base: Checkpoint | None, checkpoints: list[Checkpoint]) -> None:
        self.config, self.base, self.checkpoints = config, base, checkpoints
        self.dtype = None if config.dtype is None else DTYPES[config.dtype]
        self.order = list(range(len(checkpoints)))
        self.scored_by = {} if config.method != "shapley" else self._scorer_identity()
        if config.method == "shapley":
            assert base is not None
            with progress_bar() as progress:
                bar = progress.add_task("hashing, MB", total=sum(c.bytes for c in (base, *checkpoints)) / 1e6)
                self.base_hash, *self.hashes = (
                    content_hash(c, lambda n: progress.update(bar, advance=n / 1e6))
                    for c in (base, *checkpoints)
                )
            self.order.sort(key=lambda i: self.hashes[i])

    def _scorer_identity(self) -> dict[str, str]:
        """Return the source of the coalitions' scores for `merge.json`: the data hash or the command."""
        if self.config.data is None:
            return {"score_command": str(self.config.score_command)}
        from fcot_vl.data.dataset import SampleFolder
        from fcot_vl.stages.evaluate import data_hash

        return {"data": data_hash(SampleFolder(self.config.data))}

    def settings(self) -> dict[str, Any]:
        c = self.config
        return {
            "method": c.method,
            "weights": None if c.weights is None else list(c.weights),
            "scale": c.scale if c.scale is not None else SCALES.get(c.method),
            "density": c.density if c.density is not None else DENSITIES.get(c.method),
            "permutations": c.permutations,
            "dtype": c.dtype,
        }

    def inputs(self) -> dict[str, str]:
        """Return the inputs by content hash for shapley, else by path, size and modification time."""
        if self.config.method == "shapley":
            players = ", ".join(self.hashes[i] for i in self.order)
            return {"base": self.base_hash, "checkpoints": players, **self.scored_by}
        found = {} if self.base is None else {"base": _place(self.base)}
        return found | {f"checkpoint {i}": _place(c) for i, c in enumerate(self.checkpoints, 1)}

    def find_weights(self) -> dict[str, Any]:
        """Compute Shapley values, standard errors and weights, in the order of the checkpoints, and all scores."""
        config, n = self.config, len(self.checkpoints)
        if config.permutations is None:
            total = 2**n
        else:
            total = len(shapley.coalitions_of(shapley.drawn_orders(n, config.permutations, config.seed)))
        with progress_bar() as progress:
            bar = progress.add_task("coalitions", total=total)
            score = Coalitions(
                config.output,
                self.base_hash,
                [self.hashes[i] for i in self.order],
                {**self.scored_by, "dtype": config.dtype},
                self._make,
                self._score,
                lambda _: progress.update(bar, advance=1),
            )
            errors: list[float] | None = None
            if config.permutations is None:
                values = shapley.exact(n, score)
            else:
                values, errors = shapley.sampled(n, score, config.permutations, config.seed)
        weights = shapley.weights(values)
        given = [self.order.index(i) for i in range(n)]  # player of each checkpoint
        nothing_added = weights is None
        if weights is None:
            logger.info(f"merge: {NOTHING_ADDED}")
            weights = [float(player == given[-1]) for player in range(n)]
        rows = [
            {"members": sorted(self.order[p] + 1 for p in coalition), **scored._asdict()}
            for coalition, scored in score.known.items()
        ]
        return {
            "weights": [weights[p] for p in given],
            "note": NOTHING_ADDED if nothing_added else None,
            "values": [values[p] for p in given],
            "errors": [None if errors is None else errors[p] for p in given],
            "coalitions": sorted(rows, key=lambda row: (len(row["members"]), row["members"])),
        }

    def _make(self, coalition: frozenset[int], folder: Path) -> None:
        """Write the model of a coalition: the base plus the mean of the members' task vectors."""
        members = [self.checkpoints[self.order[p]] for p in sorted(coalition)]
        rule = Rule("shapley", (1 / len(members),) * len(members) if members else ())
        merge_folder(self.base, members, folder, rule, self.dtype)

    def _score(self, model: Path, scratch: Path) -> CoalitionScore:
        if self.config.score_command is not None:
            return command_score(self.config.score_command, model, self.config.output / LOG)
        from fcot_vl.stages.evaluate import evaluate

        result = evaluate(
            model, Path(str(self.config.data)), scratch, stage="post-train", batch_size=self.config.batch_size
        )
        tasks = {task: row["score"] for task, row in result["tasks"].items()}
        return CoalitionScore(result["mean_over_tasks"], tasks)

    def write(self, found: dict[str, Any]) -> dict[str, Any]:
        """Write the merged model and return the content of `merge.json`."""
        config, n = self.config, len(self.checkpoints)
        settings = self.settings()
        weights = found.get("weights") or config.weights or [1 / n if config.method == "average" else 1.0] * n
        rule = Rule(
            config.method,
            tuple(weights[i] for i in self.order),
            1.0 if settings["scale"] is None else settings["scale"],
            1.0 if settings["density"] is None else settings["density"],
            config.seed,
        )
        reference = self.base or self.checkpoints[0]
        with progress_bar() as progress:
            bar = progress.add_task("merging, MB", total=reference.bytes / 1e6)
            ordered = [self.checkpoints[i] for i in self.order]
            hashes = merge_folder(
                self.base,
                ordered,
                config.output,
                rule,
                self.dtype,
                lambda b: progress.update(bar, advance=b / 1e6),
            )
        base_hash = hashes.pop(0) if self.base else None
        rows = [
            {
                "folder": str(checkpoint.folder),
                "content": hashes[self.order.index(i)],
                "weight": weights[i],
                "shapley": found["values"][i] if found else None,
                "standard_error": found["errors"][i] if found else None,
            }
            for i, checkpoint in enumerate(self.checkpoints)
        ]
        return {
            **settings,
            "seed": config.seed,
            "base": None if self.base is None else {"folder": str(self.base.folder), "content": base_hash},
            "checkpoints": rows,
            "scored_by": self.scored_by or None,
            "weights_chosen_on": self._chosen_on(),
            "coalitions": found.get("coalitions", []),
            "note": found.get("note"),
            "hardware": hardware(),
            "date": now(),
        }

    def _chosen_on(self) -> list[str]:
        """Return the hashes of all data that weights were chosen on.

        They include those of checkpoints that were merged themselves.
        """
        hashes = {self.scored_by["data"]} if "data" in self.scored_by else set()
        for checkpoint in (*self.checkpoints, *([self.base] if self.base else [])):
            path = checkpoint.folder / FILE
            if path.is_file():
                try:
                    hashes |= set(json.loads(path.read_text(encoding="utf-8"))["weights_chosen_on"])
                except (OSError, ValueError, KeyError, TypeError):
                    raise CheckpointError(
                        f"{path}: cannot be read, so it is not known which data its weights were chosen on; restore or "
                        "delete it"
                    ) from None
        return sorted(hashes)


def _place(checkpoint: Checkpoint) -> str:
    """Return a folder with a hash over its configuration and the names, sizes and modification times of its files.

    This is enough to detect another checkpoint.
    """
    files = [checkpoint.folder / shard.file for shard in checkpoint.shards]
    digest = hash_without_reading(checkpoint.config, files, times=True)
    return f"{checkpoint.folder} ({digest[:16]})"


def _show(content: dict[str, Any]) -> None:
    """Show the table of the merge."""
    alone = {row["members"][0]: row["score"] for row in content["coalitions"] if len(row["members"]) == 1}
    table = Table(title=f"Merged by {content['method']}")
    table.add_column("checkpoint")
    if content["coalitions"]:
        for column in ("alone", "Shapley value", "± s.e."):
            table.add_column(column, justify="right")
    table.add_column("weight", justify="right")
    for number, row in enumerate(content["checkpoints"], 1):
        cells = [f"{number}  {Path(row['folder']).name}"]
        if content["coalitions"]:
            error = row["standard_error"]
            cells += [f"{alone[number]:.4f}" if number in alone else "", f"{row['shapley']:+.4f}"]
            cells.append("exact" if error is None else f"{error:.4f}")
        table.add_row(*cells, f"{row['weight']:.4f}")
    show(table)
    ends = {len(row["members"]): row["score"] for row in content["coalitions"]}
    if ends:
        everyone = ends[len(content["checkpoints"])]
        show(f"score of the base {ends[0]:.4f}, of the average of all {everyone:.4f}")
