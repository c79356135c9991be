"""Stage 2, post-training: trains all weights on the answers (paper, Sec. 3.3).

The loss is the cross-entropy on answer tokens only. The same stage trains the control: a teacher at compress ratio 1 on
the same data. The control separates the effect of the data from the effect of the method.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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
from fcot_vl.data.collator import PostTrainCollator
from fcot_vl.data.skip_log import SkipLog
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.models import VISUAL_POSITIONS
from fcot_vl.models.auto import family_of, load_processor, read_config
from fcot_vl.models.drop_path import add_drop_path
from fcot_vl.train.answer_model import AnswerModel
from fcot_vl.train.checkpointing import remove_checkpoints, save_model_files, save_model_folder
from fcot_vl.train.completions_callback import Reader
from fcot_vl.train.config import StageTrainingConfig, stage_settings
from fcot_vl.train.dataset import PackedDataset, TrainingDataset
from fcot_vl.train.feature_cache import cache_features
from fcot_vl.train.lora import add_lora, merge_lora
from fcot_vl.train.mfu import decoder_flops, head_flops, vision_flops
from fcot_vl.train.param_groups import layer_scales, scale_rates
from fcot_vl.train.snapshots import KeepWeights, make_folders, remove_kept
from fcot_vl.train.trainer import StageTrainer, train

logger = logging.getLogger(__name__)


@dataclass
class PostTrainConfig(StageTrainingConfig):
    """Settings of post-training, in addition to those of `StageTrainingConfig`.

    The `help` of a field says what it means. `fcot-vl post-train --help` lists all of them.
    """

    # Source of each default, in the comment behind its field: the paper, or ours (FCoT-VL).
    max_length: int = field(
        default=5120,
        metadata={"help": "Maximum length of the model's sequence in tokens; longer pages are skipped."},
    )  # the paper's
    num_train_epochs: float = field(
        default=3.0, metadata={"help": "Number of epochs. `max_steps` overrides it."}
    )  # the paper's
    cache_features: bool = field(
        default=False,
        metadata={"help": "Compute the ViT's features of each image once (on disk). Needs `freeze_vision`."},
    )  # ours
    freeze_vision: bool = field(
        default=False, metadata={"help": "Freeze the ViT. Its features can then be cached."}
    )  # the paper trains it
    visual_positions: str | None = field(
        default=None,
        metadata={
            "help": "New position ids of compressed tokens: kept (that of the first token replaced) or compact (one "
            "after the other). Default: the student's own."
        },
    )  # ours
    vision_lr: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate of the ViT; under Muon, both of its rates are scaled by "
            "`vision_lr / learning_rate`. Default: `learning_rate`."
        },
    )  # ours
    adaptor_lr: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate of compressor and projector; under Muon, both of their rates are scaled by "
            "`adaptor_lr / learning_rate`. Default: `learning_rate`."
        },
    )  # ours
    layer_lr_decay: float = field(
        default=1.0,
        metadata={"help": "Factor of the learning rate from each layer of ViT and decoder to the one below."},
    )
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Rank of low-rank updates of the decoder, merged into it after training. Compressor and projector "
            "learn all their weights, and the ViT is frozen. 0: no low-rank updates."
        },
    )
    lora_alpha: float | None = field(
        default=None,
        metadata={"help": "Scale of the low-rank updates times `lora_rank`. Default: twice the rank."},
    )
    keep_checkpoints: int = field(
        default=0, metadata={"help": "Models saved at evenly spaced steps, for merging; the paper merges 5."}
    )

    def __post_init__(self) -> None:
        if self.lora_rank:
            self.freeze_vision = True
        if self.cache_features and not self.freeze_vision:
            raise ValueError(
                "cache_features needs freeze_vision: the features of a trained ViT change every step"
            )
        if self.visual_positions is not None and self.visual_positions not in VISUAL_POSITIONS:
            raise ValueError(
                f"visual_positions must be one of {VISUAL_POSITIONS}, got {self.visual_positions!r}"
            )
        if self.freeze_vision and self.drop_path:
            raise ValueError("drop_path needs a trained ViT: leave out freeze_vision, or set drop_path to 0")
        if self.lora_rank < 0 or self.keep_checkpoints < 0:
            raise ValueError("lora_rank and keep_checkpoints cannot be below 0")
        if not 0 < self.layer_lr_decay <= 1:
            raise ValueError(f"layer_lr_decay must be above 0 and at most 1, got {self.layer_lr_decay}")
        if self.lora_rank and (self.muon_lr is not None or self.drop_path):
            raise ValueError(
                "lora_rank cannot be combined with muon_lr (which needs whole matrices) or drop_path"
            )
        if self.freeze_vision and self.vision_lr is not None:
            raise ValueError("vision_lr needs a trained ViT: leave out freeze_vision")
        super().__post_init__()


class PostTrainer(StageTrainer):
    """Trainer of an `AnswerModel`."""

    model: AnswerModel
    args: PostTrainConfig

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum the cross-entropy over the answer tokens, divided by the mean number of answer tokens per step."""
        loss, tokens = model(**inputs, denominator=num_items_in_batch)
        self.meter.add_tokens(tokens, self.groups_of_answers(inputs))
        answers = int((inputs["labels"][:, 1:] != -100).sum())
        share = 1 if num_items_in_batch is None else num_items_in_batch / max(answers, 1)
        lengths = inputs["sequence_lengths"]
        self.meter.add({"ce": loss * share}, answers, sum(lengths), self.flops(inputs, lengths, answers))
        loss = loss * self.loss_scale()
        return (loss, {"loss": loss}) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with learning rates per part and per layer if they are set."""
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        scales = self.rate_scales()
        if not made and set(scales.values()) != {1.0}:
            if self.is_deepspeed_enabled:
                raise ValueError(
                    "DeepSpeed supports one learning rate: leave out vision_lr, adaptor_lr and layer_lr_decay"
                )
            scale_rates(optimizer, scales)
        return optimizer

    def rate_scales(self) -> dict[int, float]:
        """Return the factor of each parameter's learning rate, by the `id` of the parameter."""
        student, config = self.model.model, self.args
        named = self.trained_parameters()
        scales = layer_scales(named, config.layer_lr_decay)
        found = {id(parameter): scales[name] for name, parameter in named.items()}
        # The adaptor comes last: in some families it is part of the ViT.
        for module, rate in ((student.vision, config.vision_lr), (student.visual_adaptor, config.adaptor_lr)):
            for parameter in module.parameters():
                if rate is not None and id(parameter) in found:
                    found[id(parameter)] = found[id(parameter)] * rate / config.learning_rate
        return found

    def groups_of_answers(self, inputs: dict[str, Any]) -> Tensor:
        """Return the group number of each answer token of the current batch, `[N]`."""
        sequences = (inputs["labels"][0] != -100).split(list(inputs["sequence_lengths"]))
        counts = torch.stack([is_answer.sum() for is_answer in sequences])
        groups = torch.tensor(self.sample_groups, device=counts.device)
        return groups.repeat_interleave(counts)

    def flops(self, inputs: dict[str, Any], lengths: Sequence[int], answers: int) -> float | None:
        """Count the operations of one batch: decoder, head and ViT forward and back; a frozen ViT forward only."""
        config = self.model.model.config
        text = config.text_config
        vision = vision_flops(config, inputs)
        if vision is None:
            return None
        decoder = decoder_flops(text, lengths) + head_flops(text, answers)
        backward = 1 if self.args.lora_rank else 2  # frozen weights have no gradients
        return (1 + backward) * decoder + vision * (1 if self.args.freeze_vision else 3)


def post_train(config: PostTrainConfig, model: str | Path, data: str | Path) -> Path:
    """Train all weights of a student, or of a teacher as the control, and save the result as a model folder.

    `config.output_dir` becomes a complete model folder for `AutoModelForImageTextToText`. It also holds `losses.jsonl`
    and `stage.json`, and with `keep_checkpoints` more model folders in `checkpoints/`. A finished run is recognized.
    An interrupted run resumes from its last complete checkpoint; on CPU the final weights are identical bit for bit.

    Args:
        model: Folder of a student, or a teacher in the Hugging Face layout, which is then trained at ratio 1.
        data: Data that `open_data` accepts: Parquet shards, conversation files or a mixture.

    Returns:
        The output folder.

    Raises:
        StageError: If the output folder holds a run with other settings.
        ValueError: If the model, the data or a setting cannot be used.
    """
    folder = Path(config.output_dir)
    samples = open_data(data, config.seed)
    data_hash = samples.fingerprint()
    student = load_for_training(model, config.visual_positions)
    inputs = {"model": hash_module(student), "data": data_hash}
    stage = open_shared_stage(config, "post-train", stage_settings(config), inputs)
    if stage.done:
        logger.info(f"post-train: already done in {folder}")
        return folder
    ratio = student.config.compress_ratio
    logger.info(f"post-train: {model} at compress ratio {ratio}, into {folder}")
    processor = load_processor(model, config=student.config)
    features = None
    vision_hash = hash_module(student.vision)
    if config.cache_features:
        features = main_process_first(
            config,
            "cache features",
            lambda: cache_features(
                Path(config.features_folder or folder / "features"),
                student.to(config.device).eval().model.get_visual_features,
                samples,
                processor,
                {"vision": vision_hash, "data": data_hash},
            ),
        )
    if config.drop_path:
        add_drop_path(student.vision, config.drop_path)
    if config.lora_rank:
        add_lora(student, config.lora_rank, lora_alpha(config))
    skip_log = SkipLog(samples, folder, config.max_skipped)
    pages = TrainingDataset(samples, processor, config.max_length, features, skip_log=skip_log)
    answer_model = AnswerModel(student, config.freeze_vision)
    items = PackedDataset(pages, config.max_length, config.seed) if config.packing else pages
    trainer = PostTrainer(answer_model, config, items, PostTrainCollator(processor, packed=True))
    trainer.read_again({"student": Reader(student, 1)}, samples[pages.kept[0]], processor)
    if config.keep_checkpoints:
        trainer.add_callback(KeepWeights(folder, config.keep_checkpoints, trainer.gathered_weights))
    train(trainer, "post-train", items.describe())
    weights = trainer.gathered_weights()
    if not is_main_process(config):
        return folder
    trained = with_weights(config, load_for_training(model, config.visual_positions), weights)
    assert not config.freeze_vision or hash_module(trained.vision) == vision_hash, "the frozen ViT changed"
    save_model_files(folder, trained, processor)
    del weights
    if config.keep_checkpoints:

        def save(kept: dict[str, Tensor], to: Path) -> None:
            # Without low-rank updates, every trained weight is replaced, so one model serves for all.
            base = load_for_training(model, config.visual_positions) if config.lora_rank else trained
            save_model_folder(to, with_weights(config, base, kept), processor)

        make_folders(folder, save)
    rows = trainer.meter.rows()
    last = rows[-max(1, len(rows) // 10) :]
    figures = {
        "pages": len(pages),
        "left_out": len(samples) - len(pages),
        "steps": len(rows),
        "training_seconds": rows[-1]["seconds"],
        "compress_ratio": ratio,
        "ce": round(sum(row["ce"] for row in last) / len(last), 5),
    }
    stage.finish(figures)
    remove_checkpoints(folder)
    remove_kept(folder)
    return folder


def with_weights(config: PostTrainConfig, trained: Any, weights: Mapping[str, Tensor]) -> Any:
    """Load the trained weights into `trained`, a copy of the model that training began with, and return it.

    Low-rank updates are merged. The copy is needed because the model that was trained may be sharded.
    """
    tuner = add_lora(trained, config.lora_rank, lora_alpha(config)) if config.lora_rank else None
    left = trained.load_state_dict({k.removeprefix("model."): w for k, w in weights.items()}, strict=False)
    assert not left.unexpected_keys
    if tuner is not None:
        merge_lora(tuner)
    return trained


def lora_alpha(config: PostTrainConfig) -> float:
    """Return the scale of low-rank updates times their rank."""
    return 2.0 * config.lora_rank if config.lora_alpha is None else config.lora_alpha


def load_for_training(model: str | Path, visual_positions: str | None = None) -> Any:
    """Load a student unchanged, or a teacher as a model of compress ratio 1, in float32.

    Args:
        visual_positions: Scheme of visual positions that replaces the student's own.
    """
    family = family_of(model).student
    with full_weight_loading():
        if isinstance(read_config(model), family.config_class):
            student = family.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
        else:
            student = family.from_teacher(model, compress_ratio=1, dtype=torch.float32)
    if visual_positions is not None:
        student.config.visual_positions = visual_positions
        student.config.check_compression()
    return student
