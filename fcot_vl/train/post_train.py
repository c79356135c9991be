"""Stage 2, post-training: all weights learn from the answers (paper, Sec. 3.3).

Cross-entropy on answer tokens only. The same stage trains the control: a teacher at compress ratio 1 on the same data,
so that what the data adds is not taken for what the method does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from fcot_vl.data.collate import PostTrainCollator
from fcot_vl.data.mixture import open_data
from fcot_vl.model import VISUAL_POSITIONS, answer_hidden
from fcot_vl.model.drop_path import add_drop_path
from fcot_vl.model.families import family_of, load_processor, read_config
from fcot_vl.model.teacher_student import context_inputs
from fcot_vl.train.features import cache_features
from fcot_vl.train.fingerprint import hash_module
from fcot_vl.train.losses import answer_cross_entropy
from fcot_vl.train.pages import PackedPages, TrainingPages
from fcot_vl.train.processes import first_then_others, is_first, open_shared_stage, say
from fcot_vl.train.read_again import Reader
from fcot_vl.train.skipped import Skipped
from fcot_vl.train.throughput import decoder_flops, head_flops, sequence_lengths, vision_flops
from fcot_vl.train.trainer import (
    StageTrainer,
    remove_checkpoints,
    save_model_files,
    stage_settings,
    train,
)


@dataclass
class PostTrainConfig(TrainingArguments):
    """Settings of post-training: transformers' `TrainingArguments` and the following.

    Attributes:
        max_length: context in tokens of the model's own sequence; longer pages are skipped.
        max_skipped: share of records that may be unusable (broken, missing, malformed, too long) before the run stops;
            None: what the data's mixture says, else 0.01.
        packing: lay pages one behind the other in packs of max_length tokens; a batch is then one of packs.
        freeze_vision: keep the ViT as it is; its features may then be cached.
        visual_positions: "kept" or "compact" to change the student's scheme from here on; None leaves it.
        muon_lr: peak learning rate of hidden matrices under Muon, `learning_rate` being AdamW's for the rest; None:
            AdamW for all. Learns from fewer pages where training starts far from the goal; not with FSDP or DeepSpeed.
        cache_features: compute the ViT's features of every picture once (bfloat16, on disk).
        drop_path: stochastic depth of InternVL's ViT, up to this rate in its last layer; 0.1 in the paper.
        reread_steps: steps between readings of the first page, which show a person what is learned; 0: never.
        features_folder: where they are kept, `features/` in the output folder by default; runs may share one.
    """

    max_length: int = field(default=5120, metadata={"help": "Context in tokens."})  # the paper's
    packing: bool = field(
        default=True, metadata={"help": "Fill sequences of max_length tokens with pages."}
    )  # the paper's
    max_skipped: float | None = field(
        default=None, metadata={"help": "Share of unusable records above which the run stops."}
    )  # ours
    freeze_vision: bool = field(
        default=False, metadata={"help": "The ViT does not learn."}
    )  # the paper trains it
    visual_positions: str | None = field(default=None, metadata={"help": "kept or compact."})  # ours
    drop_path: float = field(default=0.0, metadata={"help": "Drop path of the ViT; the paper's is 0.1."})
    cache_features: bool = field(
        default=False, metadata={"help": "Run the frozen ViT once per picture."}
    )  # ours
    features_folder: str | None = field(default=None, metadata={"help": "Where cached features are kept."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Epochs."})  # the paper's
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay."})  # the paper's
    learning_rate: float = field(
        default=4e-5, metadata={"help": "Peak learning rate."}
    )  # InternVL2's fine-tune
    muon_lr: float | None = field(default=None, metadata={"help": "Muon's rate for hidden matrices."})  # ours
    lr_scheduler_type: Any = field(default="cosine", metadata={"help": "Schedule."})  # InternVL2's fine-tune
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps, or share."})  # InternVL2's fine-tune
    logging_steps: float = field(default=50, metadata={"help": "Steps between printed lines."})  # ours
    save_steps: float = field(default=200, metadata={"help": "Steps between checkpoints."})  # ours
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints kept."}
    )  # ours: one in reserve
    report_to: Any = field(default="tensorboard", metadata={"help": "tensorboard, wandb, ... or none."})
    reread_steps: int = field(default=100, metadata={"help": "Steps between readings of a page; 0: never."})
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)
    remove_unused_columns: bool = field(default=False, metadata={"help": "Pages are no columns."})

    def __post_init__(self) -> None:
        if self.cache_features and not self.freeze_vision:
            raise ValueError(
                "cache_features needs freeze_vision: the features of a ViT that learns change every step"
            )
        if self.visual_positions is not None and self.visual_positions not in VISUAL_POSITIONS:
            raise ValueError(
                f"visual_positions must be one of {VISUAL_POSITIONS}, got {self.visual_positions!r}"
            )
        if self.freeze_vision and self.drop_path:
            raise ValueError("drop_path needs a ViT that learns: leave freeze_vision out, or drop_path at 0")
        super().__post_init__()


class AnswerModel(nn.Module):
    """A model with its loss on answer tokens inside, so that full logits are never made.

    Args:
        model: what is trained.
        freeze_vision: leave the ViT out, and in evaluation mode.
    """

    def __init__(self, model: Any, freeze_vision: bool) -> None:
        super().__init__()
        self.model = model
        self.freeze_vision = freeze_vision
        if freeze_vision:
            model.vision.requires_grad_(False)

    def train(self, mode: bool = True) -> AnswerModel:
        super().train(mode)
        if self.freeze_vision:
            self.model.vision.eval()
        return self

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Keep no activations of the layers that learn; see transformers' method."""
        self.model.activation_checkpointing_enable(**kwargs)

    @property
    def _no_split_modules(self) -> list[str]:
        """Layers that FSDP shards as units."""
        return list(self.model._no_split_modules or [])

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        sequence_lengths: Sequence[int] | None = None,
        pixel_values: Tensor | None = None,
        visual_features: Tensor | None = None,
        denominator: Tensor | int | None = None,
        **layout: Tensor,
    ) -> Tensor:
        """Cross-entropy over the answer tokens, summed and divided by `denominator` (their number by default).

        Args:
            input_ids, labels, attention_mask: `[batch, length]`; batches padded on the right need no mask.
            sequence_lengths: of sequences packed into one row.
            pixel_values: `[n_tiles, 3, height, width]`, or instead
            visual_features: `[n_tiles, teacher's tokens per tile, visual channels]`, cached.
            layout: what the family needs to know of its pictures (see the processor's `picture_layout`).
        """
        inner = self.model.model
        if pixel_values is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_vision):
                visual_features = inner.get_visual_features(pixel_values, **layout)
        pictures = (
            {} if visual_features is None else inner.visual_inputs(input_ids, visual_features, **layout)
        )
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "sequence_lengths": sequence_lengths,
        }
        outputs = inner(
            input_ids=input_ids, **context_inputs(inner, inputs, layout), **pictures, use_cache=False
        )
        hidden, targets = answer_hidden(outputs.last_hidden_state, labels)
        return answer_cross_entropy(hidden, self.model.lm_head.weight, targets, denominator=denominator)


class PostTrainer(StageTrainer):
    """Trains an `AnswerModel`."""

    model: AnswerModel
    args: PostTrainConfig

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy averaged over the answer tokens of all accumulated batches."""
        loss = model(**self.without_padding_mask(inputs), denominator=num_items_in_batch)
        answers = int((inputs["labels"][:, 1:] != -100).sum())
        share = 1 if num_items_in_batch is None else num_items_in_batch / max(answers, 1)
        lengths = sequence_lengths(inputs)
        self.meter.add({"ce": loss * share}, answers, sum(lengths), self.flops(inputs, lengths, answers))
        loss = loss * self.loss_scale()
        return (loss, {"loss": loss}) if return_outputs else loss

    def flops(self, inputs: dict[str, Any], lengths: Sequence[int], answers: int) -> float | None:
        """Operations of one batch: decoder, head and ViT forward and back, a frozen ViT forward only."""
        config = self.model.model.config
        text = config.text_config
        vision = vision_flops(config, inputs)
        if vision is None:
            return None
        decoder = decoder_flops(text, lengths) + head_flops(text, answers)
        return 3 * decoder + vision * (1 if self.args.freeze_vision else 3)


def post_train(config: PostTrainConfig, model: str | Path, data: str | Path) -> Path:
    """Train all weights of a student, or of a teacher as the control, and save the result as a model folder.

    `config.output_dir` becomes a complete model folder for `AutoModelForImageTextToText`, beside `losses.jsonl` and
    `stage.json`. A finished run is recognised and an interrupted one resumed from its last whole checkpoint, on CPU
    with the same final weights bit for bit.

    Args:
        model: a student's folder, or a teacher in the Hugging Face layout, which is then trained at ratio 1.
        data: what `open_data` opens: Parquet shards, conversation files, a mixture.

    Returns:
        The output folder.

    Raises:
        StageError: the output folder holds a run with other settings.
        ValueError: the model, the data or a setting cannot be used.
    """
    folder = Path(config.output_dir)
    samples = open_data(data, config.seed)
    data_hash = samples.fingerprint()
    student = load_for_training(model, config.visual_positions)
    inputs = {"model": hash_module(student), "data": data_hash}
    stage = open_shared_stage(config, "post-train", stage_settings(config), inputs)
    if stage.done:
        say(config, f"post-train: already done in {folder}")
        return folder
    ratio = student.config.compress_ratio
    say(config, f"post-train: {model} at compress ratio {ratio}, into {folder}")
    processor = load_processor(model, config=student.config)
    features = None
    vision_hash = hash_module(student.vision)
    if config.cache_features:
        features = first_then_others(
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
    skipped = Skipped(samples, folder, config.max_skipped)
    pages = TrainingPages(samples, processor, config.max_length, features, skipped=skipped)
    answer_model = AnswerModel(student, config.freeze_vision)
    items = PackedPages(pages, config.max_length, config.seed) if config.packing else pages
    trainer = PostTrainer(answer_model, config, items, PostTrainCollator(processor, packed=config.packing))
    trainer.read_again({"student": Reader(student, 1)}, samples[pages.kept[0]], processor)
    train(trainer, "post-train", items.describe())
    weights = trainer.gathered_weights()
    if not is_first(config):
        return folder
    trained = load_for_training(model, config.visual_positions)  # the one that learned may lie in shards
    left = trained.load_state_dict({k.removeprefix("model."): w for k, w in weights.items()}, strict=False)
    assert not left.unexpected_keys
    assert not config.freeze_vision or hash_module(trained.vision) == vision_hash, "the frozen ViT changed"
    save_model_files(folder, trained, processor)
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
    return folder


def load_for_training(model: str | Path, visual_positions: str | None = None) -> Any:
    """A student as it is, or a teacher as a model of compress ratio 1, in float32.

    Args:
        visual_positions: replaces the student's scheme.
    """
    family = family_of(model).student
    if isinstance(read_config(model), family.config_class):
        student = family.from_pretrained(model, dtype=torch.float32)
    else:
        student = family.from_teacher(model, compress_ratio=1, dtype=torch.float32)
    if visual_positions is not None:
        student.config.visual_positions = visual_positions
        student.config.check_compression()
    return student
