"""Work that rank 0 does for all training processes: the `stage.json` and the finished folder.

With a single process, these functions add nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import deepspeed

from fcot_vl.common.stage import Stage, StageError, open_stage, read_stage


def is_main_process(config: TrainingArguments) -> bool:
    """Return True on the process that writes: rank 0 over all nodes."""
    return bool(config.process_index == 0)


def open_shared_stage(
    config: TrainingArguments,
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int | None = None,
    folder: Path | None = None,
) -> Stage:
    """Open a stage on all processes: the main process opens it, then the others read its `stage.json`.

    Args:
        seed: Seed of the stage. Default: `config.seed`.
        folder: Folder of the stage. Default: `config.output_dir`.

    Raises:
        StageError: See `open_stage`. On the other processes, if the first one could not open the stage.
    """
    folder = folder or Path(config.output_dir)
    with config.main_process_first(local=False, desc=f"open {folder}"):
        if is_main_process(config):
            return open_stage(folder, name, settings, inputs, config.seed if seed is None else seed)
        record = read_stage(folder)
        if record["settings"] != settings or record["inputs"] != inputs:
            raise StageError(f"{folder}: was begun with other settings; see the message of rank 0")
        return Stage(folder, name, record["status"] == "done", record)


def main_process_first(config: TrainingArguments, what: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work`, run on the main process before the others, which then find its files."""
    with config.main_process_first(local=False, desc=what):
        return work()


@contextmanager
def full_weight_loading() -> Iterator[None]:
    """Load models with all their weights in every process inside this context, also under DeepSpeed ZeRO-3.

    Otherwise transformers would pass the weights to ZeRO-3 in shards while reading. Shards can be neither checked nor
    hashed, and a single process could not load a model when it saves. DeepSpeed creates the shards when training
    begins.
    """
    reference = deepspeed._hf_deepspeed_config_weak_ref
    config = None if reference is None else reference()
    if config is None:
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(config)


__all__ = [
    "full_weight_loading",
    "is_main_process",
    "main_process_first",
    "open_shared_stage",
]
