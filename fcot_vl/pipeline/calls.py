"""Calls of stages that a worker process can take: functions of this module with picklable arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcot_vl.common.config import build
from fcot_vl.common.hashing import hash_files, hash_module
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.merge.config import MergeConfig
from fcot_vl.models.auto import load_processor
from fcot_vl.stages.label import LabelConfig, label
from fcot_vl.stages.merge import merge
from fcot_vl.stages.post_train import PostTrainConfig, load_for_training, post_train
from fcot_vl.stages.realign import RealignConfig, realign
from fcot_vl.train.feature_cache import cache_features
from fcot_vl.train.snapshots import CHECKPOINTS

LONGEST_LABEL = 700  # tokens
MOST_UNLABELLED = 0.3  # share of pages on which the teacher finds no end; they are left out


def run_label(*, teacher: str, pages: Path, output: Path, batch_size: int, seed: int) -> Path:
    """Let the teacher answer the questions about the pages."""
    return label(
        LabelConfig(
            output=output,
            data=str(pages),
            teacher=teacher,
            max_new_tokens=LONGEST_LABEL,
            max_skipped=MOST_UNLABELLED,
            batch_size=batch_size,
            seed=seed,
        )
    )


def run_cache_features(*, teacher: str, pages: Path, folder: Path) -> None:
    """Compute the ViT features of the training pages, which several training runs then share."""
    samples = SampleFolder(pages)
    model = load_for_training(teacher).eval()
    inputs = {"vision": hash_module(model.model.vision_tower), "data": hash_files(samples.shards)}
    processor = load_processor(teacher)
    cache_features(folder, model.get_visual_features, samples, processor, inputs)


def run_realign(*, section: dict[str, Any], model: str, pages: Path, output: Path, seed: int) -> Path:
    """Train the students of a recipe section against the teacher `model`."""
    config = build(RealignConfig, section, output_dir=str(output), seed=seed)
    return realign(config, teacher=model, data=pages)


def run_post_train(
    *, section: dict[str, Any], model: str | Path, pages: Path, output: Path, seed: int
) -> Path:
    """Post-train a student, or the teacher as the control, with the settings of a recipe section."""
    config = build(PostTrainConfig, section, output_dir=str(output), seed=seed)
    return post_train(config, model=model, data=pages)


def run_merge(
    *, trained: Path, kept: int, count: int, output: Path, method: str, config: dict[str, Any]
) -> Path:
    """Merge the last `count` of the `kept` checkpoints of a post-training.

    Raises:
        ValueError: If the post-training does not hold `kept` checkpoints.
    """
    found = sorted((trained / CHECKPOINTS).glob("step-*"))
    if len(found) != kept:
        raise ValueError(
            f"{trained / CHECKPOINTS}: {len(found)} checkpoints, {kept} were to be kept; post-train again"
        )
    return merge(MergeConfig(checkpoints=found[-count:], output=output, method=method, **config))
