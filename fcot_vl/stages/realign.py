"""Stage 1, re-alignment: trains only the compressor `V_c` and the student adaptor `A_s` (paper, Sec. 3.2).

The teacher and all students of a run share one frozen backbone. The ViT runs once per step (or once per image, when its
features are cached). The decoder runs once for the teacher and once per student. The students share no trained
parameter and the gradients of each student are clipped separately, so training several together gives the same weights
as training each alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.common.distributed import (
    full_weight_loading,
    is_main_process,
    main_process_first,
    open_shared_stage,
)
from fcot_vl.common.hashing import hash_module
from fcot_vl.data.collator import RealignCollator
from fcot_vl.data.skip_log import SkipLog
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.models import SharedBackbone
from fcot_vl.models.auto import family_of, load_processor
from fcot_vl.models.base import reset_compressors
from fcot_vl.train.checkpointing import remove_checkpoints, save_model_folder, whole
from fcot_vl.train.completions_callback import Reader
from fcot_vl.train.config import StageTrainingConfig, stage_settings
from fcot_vl.train.dataset import PackedDataset, TrainingDataset
from fcot_vl.train.feature_cache import cache_features
from fcot_vl.train.losses import realign_loss
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.mfu import decoder_flops, head_flops, vision_flops
from fcot_vl.train.trainer import StageTrainer, train

logger = logging.getLogger(__name__)


@dataclass
class RealignConfig(StageTrainingConfig):
    """Settings of re-alignment, in addition to those of `StageTrainingConfig`.

    The `help` of a field says what it means. `fcot-vl realign --help` lists all of them.
    """

    # Source of each default, in the comment behind its field: the paper, or ours (FCoT-VL).
    ratios: list[int] = field(
        default_factory=lambda: [2, 4],
        metadata={"help": "Compress ratios of the students (2, 4, 8 or 16), trained together."},
    )
    compressor: str = field(
        default="conv",
        metadata={
            "help": "Compressor of all students: conv, pooling, qformer, conv2d, c_abstractor, ldpv2 or "
            "token_packer."
        },
    )  # the paper's
    visual_positions: str | None = field(
        default=None,
        metadata={
            "help": "Position ids of compressed tokens: kept (that of the first token replaced) or compact (one "
            "after the other). Default: depends on the family."
        },
    )  # ours
    kl_weight: float = field(
        default=1.0, metadata={"help": "Weight of KL(teacher || student) in the loss."}
    )  # ours
    ce_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cross-entropy in the loss."}
    )  # ours
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the KL term, above 0."})  # ours

    def __post_init__(self) -> None:
        asked: Any = self.ratios
        self.ratios = [int(ratio) for ratio in (asked.split(",") if isinstance(asked, str) else asked)]
        if not self.ratios or len(set(self.ratios)) < len(self.ratios) or min(self.ratios) < 2:
            raise ValueError(
                f"ratios must name each student once, from 2 on (1 is the teacher), got {self.ratios}"
            )
        if self.cache_features and self.drop_path:
            raise ValueError("cache_features needs drop_path 0: dropped paths change the features every step")
        super().__post_init__()


class RealignTrainer(StageTrainer):
    """Trainer of the student adaptors of a `SharedBackbone`."""

    model: SharedBackbone
    args: RealignConfig

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum KL + CE over the students and the answer tokens, divided by the mean number of answer tokens per step."""
        output = model(**inputs)
        answers = output.labels.numel()
        head = whole(self.model.lm_head_weight)
        losses: list[Tensor] = []
        means: dict[str, Tensor] = {}
        for ratio, hidden in output.student_hidden.items():
            result = realign_loss(
                output.teacher_hidden,
                hidden,
                head,
                output.labels,
                self.args.kl_weight,
                self.args.ce_weight,
                self.args.temperature,
                denominator=num_items_in_batch,
            )
            losses.append(result.loss)
            share = 1 if num_items_in_batch is None else num_items_in_batch / max(answers, 1)
            means |= {
                f"ratio-{ratio}/kl": result.kl * share,
                f"ratio-{ratio}/ce": result.ce * share,
                f"ratio-{ratio}/agreement": result.agreement,
            }
        lengths = [s["sequence_lengths"] for s in (inputs["teacher"], *inputs["students"].values())]
        self.meter.add(means, answers, sum(map(sum, lengths)), self.flops(inputs, lengths, answers))
        loss = torch.stack(losses).sum() * self.loss_scale()
        return (loss, output) if return_outputs else loss

    def flops(self, inputs: dict[str, Any], lengths: Sequence[Sequence[int]], answers: int) -> float | None:
        """Count the operations of one batch: ViT and teacher forward, students forward and back to their adaptors.

        The operations of the adaptors are left out; they are under 1% for a model of 2B parameters.

        Args:
            lengths: Sequence lengths of the teacher, then of each student.
        """
        config = self.model.teacher.config
        text = config.text_config
        vision = vision_flops(config, inputs)
        if vision is None:
            return None
        teacher, *students = [decoder_flops(text, each) + head_flops(text, answers) for each in lengths]
        return vision + teacher + 2 * sum(students)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip the gradients of each student separately and return the norm over all students.

        DeepSpeed clips by itself, all students together.
        """
        if self.is_deepspeed_enabled:
            return torch.as_tensor(super()._clip_grad_norm(model))
        norms = [
            self.accelerator.clip_grad_norm_(adaptor.parameters(), self.args.max_grad_norm)
            for adaptor in self.model.adaptors.values()
        ]
        return torch.stack(norms).norm()


def realign(config: RealignConfig, teacher: str | Path, data: str | Path) -> Path:
    """Train the students of `config.ratios` against a teacher and save each as a complete model folder.

    Writes to `config.output_dir`: `ratio-<r>/` per student, `losses.jsonl`, `stage.json`. A finished run is recognized.
    An interrupted run resumes from its last complete checkpoint; on CPU the final weights are identical bit for bit.

    Args:
        teacher: Model of a supported family (`docs/families.md`), in the Hugging Face layout (folder or hub id).
        data: Data that `open_data` accepts: Parquet shards, conversation files or a mixture.

    Returns:
        The output folder.

    Raises:
        StageError: If the output folder holds a run with other settings.
        ValueError: If the teacher, the data or a setting cannot be used.
    """
    folder = Path(config.output_dir)
    samples = open_data(data, config.seed)
    data_hash = samples.fingerprint()
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    with full_weight_loading():
        backbone = SharedBackbone.from_teacher(
            teacher, config.ratios, config.compressor, config.visual_positions, dtype=dtype
        )
    backbone.adaptors.float()  # trained weights are kept in float32
    teacher_hash = hash_module(backbone.teacher)
    inputs = {"teacher": teacher_hash, "data": data_hash}
    stage = open_shared_stage(config, "realign", stage_settings(config), inputs)
    if stage.done:
        logger.info(f"realign: already done in {folder}")
        return folder
    ratios = ", ".join(map(str, config.ratios))
    logger.info(f"realign: students at compress ratios {ratios} of {teacher}, into {folder}")
    _seed_compressors(backbone, config.seed)
    processor = load_processor(teacher)
    features = None
    if config.cache_features:
        features = main_process_first(
            config,
            "cache features",
            lambda: cache_features(
                Path(config.features_folder or folder / "features"),
                backbone.to(config.device).visual_features,
                samples,
                processor,
                {"vision": hash_module(backbone.teacher.vision), "data": data_hash},
            ),
        )
    if config.drop_path:
        backbone.drop_path(config.drop_path)
    skip_log = SkipLog(samples, folder, config.max_skipped)
    pages = TrainingDataset(samples, processor, config.max_length, features, config.ratios, skip_log)
    items = PackedDataset(pages, config.max_length, config.seed) if config.packing else pages
    collator = RealignCollator(processor, config.ratios, packed=True)
    trainer = RealignTrainer(backbone, config, items, collator)
    readers = {f"ratio-{ratio}": Reader(backbone.student(ratio), ratio) for ratio in config.ratios}
    trainer.read_again(readers, samples[pages.kept[0]], processor)
    what = (
        f"{len(config.ratios)} students (ratios {', '.join(map(str, config.ratios))}) on {items.describe()}"
    )
    train(trainer, "realign", what)
    if not trainer.is_sharded:
        assert hash_module(backbone.teacher) == teacher_hash, "a frozen weight changed"
    weights = trainer.gathered_weights()
    if is_main_process(config):
        _save_students(config, teacher, weights, dtype)
        stage.finish(_figures(trainer.meter, config.ratios, len(pages), len(samples) - len(pages)))
        remove_checkpoints(folder)
    return folder


def _save_students(
    config: RealignConfig, teacher: str | Path, weights: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Save each student as a folder: the teacher's weights, read again, with the trained adaptor in float32.

    The weights are read again because the backbone may be sharded over many processes; only the adaptors were gathered.
    """
    family = family_of(teacher).student
    for ratio in config.ratios:
        with full_weight_loading():
            student = family.from_teacher(
                teacher, ratio, config.compressor, config.visual_positions, dtype=dtype
            )
        prefix = f"adaptors.{ratio}."
        adaptor = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        student.visual_adaptor.float().load_state_dict(adaptor)  # stage 2 begins with unrounded weights
        processor = load_processor(teacher, config=student.config)
        save_model_folder(Path(config.output_dir) / f"ratio-{ratio}", student, processor)


def _seed_compressors(backbone: SharedBackbone, seed: int) -> None:
    """Initialize each student from the same seed, so that its start does not depend on the other students."""
    for adaptor in backbone.adaptors.values():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            reset_compressors(adaptor)


def _figures(meter: LossLog, ratios: Sequence[int], pages: int, left_out: int) -> dict[str, Any]:
    """Return the headline numbers: means over the last tenth of the steps."""
    rows = meter.rows()
    last = rows[-max(1, len(rows) // 10) :]
    figures: dict[str, Any] = {"pages": pages, "left_out": left_out, "steps": len(rows)}
    figures["training_seconds"] = rows[-1]["seconds"]
    for ratio in ratios:
        for name in ("kl", "ce", "agreement"):
            key = f"ratio-{ratio}/{name}"
            figures[key] = round(sum(row[key] for row in last) / len(last), 5)
    return figures
