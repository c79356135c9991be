"""Stage `synthesize` for MiniDoc: samples written as Parquet shards, seeded per sample, resumable per shard.

Sample k is the same for every shard size. Complete shards are kept, so an interrupted run can be resumed.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fcot_vl.common.progress import progress_bar
from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import write_shard
from fcot_vl.synthesize.minidoc import SPLITS, TASKS, Split, make_sample

logger = logging.getLogger(__name__)

OCR_TASKS = (
    "transcribe",
    "table_markdown",
)  # those of re-alignment (paper, section 3.1): reading, nothing else


def synthesize(
    folder: Path,
    split: Split,
    records: int,
    seed: int = 0,
    tasks: list[str] | None = None,
    shard_size: int = 500,
) -> Path:
    """Write `records` MiniDoc samples of `split` to ``folder/*.parquet`` and return the folder.

    Args:
        folder: Output folder, with its `stage.json`.
        split: ``train`` (every question of a page), ``validation`` or ``test`` (one question per page).
        records: Number of pages. The tasks alternate.
        seed: Seed of the content. The content words of the split never depend on it.
        tasks: Tasks to use. Default: all eight.
        shard_size: Number of samples per Parquet file.

    Raises:
        ValueError: If the split or a task is unknown, or no sample is requested.
        StageError: If the folder belongs to another stage or to other settings.
    """
    chosen = list(TASKS) if tasks is None else tasks
    if split not in SPLITS:
        raise ValueError(f"unknown MiniDoc split {split!r}; choose from {', '.join(SPLITS)}")
    if not chosen or any(task not in TASKS for task in chosen):
        raise ValueError(f"unknown MiniDoc task among {chosen}: choose from {', '.join(TASKS)}")
    if records < 1 or shard_size < 1:
        raise ValueError(f"--records and the shard size must be at least 1, got {records} and {shard_size}")
    settings = {"split": split, "records": records, "tasks": chosen, "shard_size": shard_size}
    stage = open_stage(folder, "synthesize", settings, {}, seed)
    if stage.done:
        logger.info(f"synthesize: {folder} is finished, {records} {split} samples")
        return folder
    logger.info(f"synthesize: {records} MiniDoc pages, split {split}, seed {seed} -> {folder}")
    with progress_bar() as progress:
        bar = progress.add_task("pages", total=records)
        for shard, first in enumerate(range(0, records, shard_size)):
            path = folder / f"{split}-{shard:05d}.parquet"
            last = min(first + shard_size, records)
            if not path.exists():
                write_shard(
                    path,
                    (
                        make_sample(split, i // len(chosen), seed, chosen[i % len(chosen)])
                        for i in range(first, last)
                    ),
                )
            progress.update(bar, completed=last)
    stage.finish({"records": records, "shards": (records + shard_size - 1) // shard_size})
    return folder
