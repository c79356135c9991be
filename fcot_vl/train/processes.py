"""What one process of several does for all: the stage record, messages, the finished folder.

With one process everything here is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import deepspeed

from fcot_vl.stage import Stage, StageError, open_stage, read_stage


def is_first(config: TrainingArguments) -> bool:
    """Whether this is the process that writes, over all nodes."""
    return bool(config.process_index == 0)


def say(config: TrainingArguments, text: str) -> None:
    """Print a line, once for all processes."""
    if is_first(config):
        print(text, flush=True)


def open_shared_stage(
    config: TrainingArguments,
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int | None = None,
    folder: Path | None = None,
) -> Stage:
    """`open_stage` for all processes: the first one opens it, the others then read what it wrote.

    Args:
        seed: the run's own by default.
        folder: the run's own output folder by default.

    Raises:
        StageError: see `open_stage`; on the other processes, if the first could not open it.
    """
    folder = folder or Path(config.output_dir)
    with config.main_process_first(local=False, desc=f"open {folder}"):
        if is_first(config):
            return open_stage(folder, name, settings, inputs, config.seed if seed is None else seed)
        record = read_stage(folder)
        if record["settings"] != settings or record["inputs"] != inputs:
            raise StageError(f"{folder}: was begun with other settings; see the first process's message")
        return Stage(folder, name, record["status"] == "done", record)


def first_then_others(config: TrainingArguments, what: str, work: Callable[[], Any]) -> Any:
    """Give what `work` gives, done on the first process before the others, which find its files."""
    with config.main_process_first(local=False, desc=what):
        return work()


@contextmanager
def weights_read_whole() -> Iterator[None]:
    """Models loaded herein have all their weights in every process, also under DeepSpeed ZeRO-3.

    transformers would give them to ZeRO-3 in shards while reading, which can be neither checked nor hashed, and which
    one process cannot do alone when it saves. The engine makes the shards when training begins.
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


__all__ = ["first_then_others", "is_first", "open_shared_stage", "say", "weights_read_whole"]
