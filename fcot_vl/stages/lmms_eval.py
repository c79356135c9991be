"""Local data for tasks of lmms-eval: samples as a dataset in the format of DocVQA, and a task file that refers to it.

This module runs before `evaluate/lmms_eval_model.py`, in the environment of lmms-eval. The task file includes a task of
lmms-eval by its path there and changes only the location of the data. Prompts, limits and metrics therefore stay those
of lmms-eval.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.common.console import show
from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Sample
from fcot_vl.data.sources.open_data import open_data

logger = logging.getLogger(__name__)

DOCVQA_SHAPED = ("docvqa_val", "docvqa_val_lite", "infovqa_val")  # page, question, accepted answers: ANLS
DATASET = "dataset"


@dataclass(frozen=True)
class LmmsTaskConfig:
    """Settings of the stage.

    Attributes:
        data: Samples (see `open_data`) for a task in the format of DocVQA, or a folder written by
            `DatasetDict.save_to_disk` with the columns that the task reads.
        output: Folder for the task file.
        task: Task of lmms-eval.
        name: Name of the new task. Default: the name of `task` followed by `_local`.
        split: Split to use of a saved dataset with several splits.
        bare: Whether to ask the question alone, without the text that the task adds before and after it.
    """

    data: str | Path
    output: Path
    task: str = "docvqa_val"
    name: str | None = None
    split: str | None = None
    bare: bool = False


def lmms_task(config: LmmsTaskConfig) -> Path:
    """Write the task file, and the dataset if samples are given; return the path of the task file.

    Raises:
        ValueError: If lmms-eval is not installed or has no such task, the new name is taken, or samples do not fit.
        FileNotFoundError: If there is no data at the given path.
        StageError: If `output` holds another stage or other settings.
    """
    data, output = Path(config.data), Path(config.output)
    name = config.name or f"{config.task}_local"
    included, task_content = find_task(config.task, name)
    saved = (data / "dataset_dict.json").is_file()
    if not saved and config.task not in DOCVQA_SHAPED:
        raise ValueError(
            f"{data}: samples can only be used for {', '.join(DOCVQA_SHAPED)}; for {config.task} give a folder that "
            "DatasetDict.save_to_disk wrote, with the task's own columns"
        )
    if config.split and not saved:
        raise ValueError(
            f"--split {config.split!r} selects a split of a saved dataset, but {data} holds samples; leave it out"
        )
    samples = None if saved else open_data(data)
    split = _split_of(data, config.split) if saved else str(task_content["test_split"])
    content = task_file(
        included, task_content, (data if saved else output / DATASET).resolve(), name, split, config.bare
    )
    settings = {"task": config.task, "name": name, "split": split, "bare": config.bare}
    inputs = {
        "data": str(data.resolve()) if samples is None else samples.fingerprint(),
        "lmms-eval": importlib.metadata.version("lmms-eval"),
    }
    stage = open_stage(output, "lmms-eval", settings, inputs)
    path = output / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")  # its path may have changed
    if not stage.done:
        if samples is not None:
            write_docvqa(samples, output / DATASET, split)
        stage.finish({} if samples is None else {"questions": len(samples)})
    questions = "" if samples is None else f"{len(samples)} questions, "
    logger.info(f"lmms-eval: {questions}task {name} -> {output}")
    show(
        f"lmms-eval --model fcot_vl --model_args pretrained=MODEL --tasks {name} --include_path {output} "
        f"--batch_size 16 --log_samples --output_path {output}-scores",
    )
    return path


# ------------------------------------------------------------------------------------------------------ the task


def find_task(task: str, name: str) -> tuple[Path, dict[str, Any]]:
    """Return the file of a task of lmms-eval, and its content with all includes but without functions.

    Raises:
        ValueError: If lmms-eval is not installed, if the task is unknown or a group, or if lmms-eval already has a task
            called `name`, which it would run instead.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        raise ValueError(
            "lmms-eval is not installed in this environment; run `make eval-env`, then this command as "
            ".venv-eval/bin/fcot-vl"
        )
    index = _task_index()
    if index.get(task, {}).get("type") != "task":
        group = "a group; give one of its tasks" if task in index else "not a task of lmms-eval"
        raise ValueError(f"{task!r} is {group} (`lmms-eval tasks list` names them)")
    if name in index:
        raise ValueError(
            f"{name!r} is a task of lmms-eval, which would run instead of yours; choose another --name"
        )
    from lmms_eval.utils import load_yaml_config

    path = Path(index[task]["yaml_path"])
    return path, load_yaml_config(str(path), mode="simple")


@lru_cache
def _task_index() -> dict[str, Any]:
    """Return `type` and `yaml_path` of every task and group of lmms-eval.

    The index is built once; it reads about two thousand files.
    """
    from loguru import logger

    logger.disable("lmms_eval")  # it logs dozens of files that are not tasks
    try:
        from lmms_eval.tasks import TaskManager

        return dict(TaskManager().task_index)
    finally:
        logger.enable("lmms_eval")


def task_file(
    included: Path, task_content: dict[str, Any], dataset: Path, name: str, split: str, bare: bool
) -> dict[str, Any]:
    """Return the content of a task file that runs the task `included` on another dataset.

    Args:
        task_content: Content of the file `included`, including its prompts.

    Raises:
        ValueError: If `bare` is set and the task's prompt is not defined by `pre_prompt` and `post_prompt`.
    """
    content: dict[str, Any] = {
        "include": str(included),
        "task": name,
        "dataset_path": str(dataset),
        "dataset_kwargs": {"load_from_disk": True},
        "test_split": split,
    }
    if bare:
        prompts = (task_content.get("lmms_eval_specific_kwargs") or {}).get("default") or {}
        if not {"pre_prompt", "post_prompt"} <= prompts.keys():
            raise ValueError(
                f"{included.stem}: its prompt is not made of pre_prompt and post_prompt, so --bare cannot be used"
            )
        content["lmms_eval_specific_kwargs"] = {"default": {**prompts, "pre_prompt": "", "post_prompt": ""}}
    return content


def _split_of(folder: Path, split: str | None) -> str:
    have = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    if split is None and len(have) == 1:
        return str(have[0])
    if split is None or split not in have:
        raise ValueError(f"{folder}: give --split, one of {', '.join(have)}")
    return split


# ------------------------------------------------------------------------------------------------------- samples


def write_docvqa(samples: Sequence[Sample], folder: Path, split: str) -> None:
    """Write samples as a `datasets` folder with the columns of DocVQA; it appears completely or not at all.

    Columns: `questionId`, `question`, `image`, `answers`. Images are stored as PNG, so their pixels are unchanged.

    Raises:
        ValueError: If `docvqa_row` rejects a sample.
    """
    from datasets import Dataset, DatasetDict, Features, Image, List, Value
    from datasets.exceptions import DatasetGenerationError
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    text = Value("string")
    features = Features({"questionId": text, "question": text, "image": Image(), "answers": List(text)})
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)

    def rows() -> Iterator[dict[str, Any]]:
        for sample in samples:
            yield docvqa_row(sample)

    silent = are_progress_bars_disabled()
    disable_progress_bars()
    cache = str(partial / "cache")
    try:
        dataset = Dataset.from_generator(rows, features=features, cache_dir=cache, fingerprint=folder.name)
        DatasetDict({split: dataset}).save_to_disk(partial / "saved")
        shutil.rmtree(folder, ignore_errors=True)
        (partial / "saved").replace(folder)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
    finally:
        if not silent:
            enable_progress_bars()
        shutil.rmtree(partial, ignore_errors=True)


def docvqa_row(sample: Sample) -> dict[str, Any]:
    """Return the first question of a sample with its accepted answers, by default only the response.

    Raises:
        ValueError: If the sample does not have exactly one image, a question and an answer.
    """
    said = {
        role: [m["content"] for m in sample.messages if m["role"] == role] for role in ("user", "assistant")
    }
    answers = sample.answers or said["assistant"][:1]
    if len(sample.images) != 1 or not said["user"] or not answers:
        raise ValueError(
            f"sample {sample.id}: the DocVQA format needs one image, a question and an answer; this sample has "
            f"{len(sample.images)} images, {len(said['user'])} questions, {len(answers)} answers"
        )
    buffer = io.BytesIO()
    sample.images[0].convert("RGB").save(buffer, "PNG", compress_level=1)
    image = {"bytes": buffer.getvalue(), "path": None}
    return {"questionId": sample.id, "question": said["user"][0], "image": image, "answers": answers}
