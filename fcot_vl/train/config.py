"""Settings that both training stages share, and those of them that `stage.json` records."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

# Settings that do not change the trained weights. All other settings must be the same to resume.
NOT_SETTINGS = {
    *(
        "output_dir",
        "seed",
        "report_to",
        "run_name",
        "project",
        "log_level",
        "log_level_replica",
        "disable_tqdm",
        "max_skipped",
    ),
    *("logging_dir", "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node"),
    *("save_strategy", "save_steps", "save_total_limit", "features_folder", "resume_from_checkpoint"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *(
        "dataloader_prefetch_factor",
        "remove_unused_columns",
        "reread_steps",
        "hub_token",
        "push_to_hub_token",
        "local_rank",
        "per_device_train_batch_size",  # items_per_step covers these two
        "gradient_accumulation_steps",
        "ddp_timeout",
    ),
}


@dataclass
class StageTrainingConfig(TrainingArguments):
    """Settings that both training stages share, in addition to those of transformers' `TrainingArguments`.

    The `help` of a field says what it means.
    """

    # Source of each default, in the comment behind its field: the paper, InternVL2's fine-tuning, or ours (FCoT-VL).
    max_length: int = field(
        default=4096,
        metadata={
            "help": "Maximum length of a sequence in tokens (in re-alignment: the teacher's); longer pages are skipped."
        },
    )  # the paper's
    packing: bool = field(
        default=True,
        metadata={
            "help": "Plan packs of pages of up to `max_length` tokens; the batch size counts packs, otherwise pages."
        },
    )  # the paper's
    drop_path: float = field(
        default=0.0,
        metadata={
            "help": "Rate of stochastic depth in the last layer of InternVL's ViT; the paper's is 0.1."
        },
    )
    max_skipped: float | None = field(
        default=None,
        metadata={
            "help": "Maximum share of unusable samples (broken, missing, malformed, too long), 0 to 1; the "
            "run stops above it. Default: the value of the data's mixture, else 0.01."
        },
    )  # ours
    cache_features: bool = field(
        default=False,
        metadata={"help": "Compute the ViT's features of each image once (on disk). Needs `drop_path` 0."},
    )  # ours
    features_folder: str | None = field(
        default=None, metadata={"help": "Folder of the cached features. Default: `features` in the output."}
    )
    num_train_epochs: float = field(
        default=1.0, metadata={"help": "Number of epochs. `max_steps` overrides it."}
    )  # the paper's
    weight_decay: float = field(
        default=0.01, metadata={"help": "Weight decay of the optimizer."}
    )  # the paper's
    learning_rate: float = field(
        default=4e-5, metadata={"help": "Peak learning rate."}
    )  # InternVL2's fine-tune
    muon_lr: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate of hidden matrices under Muon (no FSDP, no DeepSpeed); `learning_rate` is "
            "then AdamW's, for all other weights. Default: AdamW for all weights."
        },
    )  # ours
    lr_scheduler_type: Any = field(
        default="cosine",
        metadata={"help": "Schedule of the learning rate, such as cosine, linear or constant."},
    )  # InternVL2's fine-tune
    warmup_steps: float = field(
        default=0.03, metadata={"help": "Steps of linear warm-up; below 1, share of all steps."}
    )  # InternVL2's fine-tune
    logging_steps: float = field(
        default=50, metadata={"help": "Steps between two logged lines; below 1, share of all steps."}
    )  # ours
    save_steps: float = field(
        default=200, metadata={"help": "Steps between two checkpoints; below 1, share of all steps."}
    )  # ours
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Maximum number of checkpoints on the disk."}
    )  # ours: one in reserve
    report_to: Any = field(
        default="tensorboard", metadata={"help": "Reporter of the losses: tensorboard, wandb, ... or none."}
    )
    reread_steps: int = field(
        default=100, metadata={"help": "Steps between two logged answers about the first page; 0: never."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available,
        metadata={"help": "Pin batches in memory. Default: on if there is a GPU."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Remove unused columns. Must stay off: pages have none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixed_precision == "fp16":
            raise ValueError(
                "fp16 cannot be used: its loss scaling begins with gradients that are not finite, which stop a run "
                "here, and gradients of several students cannot be unscaled one after the other; use bf16"
            )

    @property
    def n_gpu(self) -> int:
        """Number of GPUs of this process, at most 1: on more, transformers would switch to `DataParallel`.

        It splits every batch along its first dimension, which a batch of one row does not allow.
        """
        return min(self.visible_gpus, 1)

    @property
    def visible_gpus(self) -> int:
        """Number of GPUs that this process could use."""
        return int(super().n_gpu)


def stage_settings(config: TrainingArguments) -> dict[str, Any]:
    """Return the settings of a run that affect its result and differ from the defaults, for `stage.json`.

    A run may resume with another number of processes if a step reads as many items as before. `items_per_step` is
    therefore recorded in place of its factors. With another value, items would be read twice or never.
    """
    ours = {f.name for f in fields(config)} - {f.name for f in fields(TrainingArguments)}
    plain = TrainingArguments(output_dir="unused", use_cpu=config.use_cpu)
    settings = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if f.name not in NOT_SETTINGS
        and (f.name in ours or getattr(config, f.name) != getattr(plain, f.name))
        and not f.name.startswith("_")
    }
    return {**settings, "items_per_step": items_per_step(config)}


def items_per_step(config: TrainingArguments) -> int:
    """Return the number of pages, or packs, of one optimizer step over all processes."""
    return int(config.train_batch_size * config.gradient_accumulation_steps * config.world_size)
