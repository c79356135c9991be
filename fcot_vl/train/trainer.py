"""Extensions of transformers' `Trainer` that both training stages share.

They are: checkpoints that hold only the trained weights and record whether they are complete, a planned order of the
pages, and a loss log that is kept across resumes. `realign.py` and `post_train.py` add the loss.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from fcot_vl.common.distributed import first_then_others, say
from fcot_vl.common.errors import one_line
from fcot_vl.common.hashing import hash_file
from fcot_vl.common.stage import write_json
from fcot_vl.data.collator import Page, PostTrainCollator, flatten
from fcot_vl.data.dataset import Sample
from fcot_vl.train.completions_callback import ReadAgain, Reader
from fcot_vl.train.dataset import LengthGroupedOrder, PackedPages, TrainingPages
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.muon import Muon

CHECKPOINT_FILES = "files.json"  # written last: a checkpoint without it is incomplete
LOSS_LOG = "losses.jsonl"
PAGE_IDS, PAGE_GROUPS = "page_ids", "page_groups"
NAMED = 5  # maximum number of pages listed in a message

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


class TellEpoch(TrainerCallback):
    """Callback that sets the epoch of the sampler when an epoch begins.

    Trainer and accelerate also set it, but not for a sampler behind two wrappers, as on several processes after a
    resume. The epoch would then be read in the order of the first one, and some pages twice or never.
    """

    def __init__(self, order: LengthGroupedOrder) -> None:
        self.order = order

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.order.set_epoch(int((state.epoch or 0.0) + 1e-6))


def whole(parameter: nn.Parameter) -> Tensor:
    """Return a parameter as one tensor, gathered from the shards of FSDP or ZeRO-3; every process must call this."""
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id"):
        with importlib.import_module("deepspeed").zero.GatheredParameters([parameter]):
            return parameter.detach().clone()  # the gathered tensor is released at the end of the context
    return parameter


class NamedBatches:
    """Collator that adds the ids of the pages of a batch and the groups they belong to."""

    def __init__(self, collator: PostTrainCollator) -> None:
        self.collator = collator

    def __call__(self, items: Sequence[Page] | Sequence[Sequence[Page]]) -> dict[str, Any]:
        pages = flatten(items)
        named = {PAGE_IDS: [page.id for page in pages if page.id], PAGE_GROUPS: [p.group for p in pages]}
        return {**self.collator(items), **named}


class StageTrainer(Trainer):
    """`Trainer` for pages; see the module's docstring.

    Args:
        model: Model whose parameters with `requires_grad` are trained and saved; no others are.
        config: Training arguments; `output_dir` is the stage folder.
        pages: Training pages, or packs of them.
        collator: Collator that makes a batch from a list of items of `pages`, padded on the right or packed.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        config: TrainingArguments,
        pages: TrainingPages | PackedPages,
        collator: PostTrainCollator,
    ) -> None:
        if collator.side != "right":
            raise ValueError("training batches are padded on the right (see without_padding_mask)")
        super().__init__(model=model, args=config, data_collator=NamedBatches(collator), train_dataset=pages)
        self.page_ids: list[str] = []  # ids of the pages since the last optimizer step
        self.page_groups: list[int] = []  # groups of the current batch
        self.model_accepts_loss_kwargs = (
            True  # compute_loss divides by the answer tokens of all accumulated batches
        )
        self._loss_shifts_labels = True
        self.meter = LossLog(Path(config.output_dir) / LOSS_LOG, self.accelerator, pages.group_names)
        self.add_callback(self.meter)

    def read_again(self, readers: Mapping[str, Reader], sample: Sample, processor: Any) -> None:
        """Let the readers answer a question about a page every `reread_steps` steps, unless weights are sharded.

        A page with broken pixels is not read, because this display must not end a run.
        """
        try:
            for image in sample.images:
                image.load()
        except Exception as error:  # damaged bytes make decoders raise nearly any error
            say(self.args, f"{sample.id}: not read again while training ({one_line(error)})")
            return
        if not self.is_sharded:
            every: int = self.args.reread_steps
            context = self.accelerator.autocast
            callback = ReadAgain(
                readers, self.model, sample, processor, every, context, self.callback_handler
            )
            self.add_callback(callback)

    @property
    def is_sharded(self) -> bool:
        """Return True if weights may be sharded over several processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @staticmethod
    def without_padding_mask(sequences: dict[str, Any]) -> dict[str, Any]:
        """Return the sequences without their attention mask.

        The mask is not needed: training batches are padded on the right, where causal attention never looks.
        """
        return {name: tensor for name, tensor in sequences.items() if name != "attention_mask"}

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.page_ids += inputs.pop(PAGE_IDS, [])
        self.page_groups = inputs.pop(PAGE_GROUPS, [])
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return prepared

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of the step's gradients.

        Raises:
            ValueError: If the norm is not finite. The weights have not been updated with this step yet.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if not math.isfinite(float(norm)):
            folder = Path(self.args.output_dir)
            good = last_whole_checkpoint(folder)
            more = f" and {len(self.page_ids) - NAMED} more" if len(self.page_ids) > NAMED else ""
            raise ValueError(
                f"step {self.state.global_step + 1}: the gradients are not finite (norm {float(norm)}) on the pages "
                f"{', '.join(self.page_ids[:NAMED])}{more}. Nothing was learned from them; "
                + (
                    f"{good.name} is complete and training can resume from it"
                    if good
                    else "there is no checkpoint yet"
                )
                + f". Look at these pages; if they are right, lower the learning rate. ({folder})"
            )
        self.page_ids.clear()
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW from the training arguments, or Muon if `muon_lr` is given."""
        muon_lr: float | None = getattr(self.args, "muon_lr", None)
        if self.optimizer is None and muon_lr is not None:
            if self.is_sharded:
                raise ValueError(
                    "muon_lr needs whole matrices on every process: leave it out under FSDP or DeepSpeed"
                )
            self.optimizer = Muon(
                self.trained_parameters().items(),
                muon_lr,
                self.args.learning_rate,
                weight_decay=self.args.weight_decay,
            )
        return super().create_optimizer(model)

    def loss_scale(self) -> int:
        """Return the factor of the loss that undoes the averaging of gradients over processes.

        The factor is needed because `num_items_in_batch` already counts the tokens of all processes.
        """
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        batches = super().get_batch_samples(*args, **kwargs)
        self.meter.waited(time.perf_counter() - started)
        return batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        pages = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        several = self.args.world_size * self.args.train_batch_size if self.args.world_size > 1 else 1
        order = LengthGroupedOrder(pages.lengths, items_per_step(self.args), seed, several)
        self.add_callback(TellEpoch(order))
        return order

    def gathered_weights(self) -> dict[str, Tensor]:
        """Return the complete trained weights on the first process and an empty dict on the others.

        Every process must call this method.
        """
        weights = {}
        for name, parameter in self.trained_parameters().items():
            found = whole(parameter)
            if self.args.should_save:
                weights[name] = found.detach().cpu().contiguous()
        return weights

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained weights to one file; every process must call this method."""
        weights = self.gathered_weights()
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # transformers would also write the frozen weights at every checkpoint
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        trained = self.trained_parameters()
        if saved.keys() != trained.keys():
            names = ", ".join(sorted(saved.keys() ^ trained.keys())[:3])
            raise ValueError(
                f"{resume_from_checkpoint} holds other weights than are trained now ({names}, ...)"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                weight = saved[name].to(parameter.device, parameter.dtype)
                if isinstance(parameter, DTensor):
                    weight = distribute_tensor(weight, parameter.device_mesh, parameter.placements)
                parameter.copy_(weight)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # torch and safetensors raise their own for a full disk
            shutil.rmtree(folder, ignore_errors=True)
            raise ValueError(
                f"{folder}: the checkpoint could not be written ({one_line(error)}). Is the disk full? The checkpoint "
                "before is as it was; free some space, then rerun the same command to resume from it"
            ) from error
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKPOINT_FILES)
            write_json(folder / CHECKPOINT_FILES, {str(p.relative_to(folder)): hash_file(p) for p in found})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **(self.meter.last if "loss" in logs else {})}, start_time)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files are all intact, or None.

    Newer checkpoints that are unreadable or incomplete are reported in a message and removed.
    """
    found = [p for p in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if p.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        problem = checkpoint_problem(checkpoint)
        if problem is None:
            return checkpoint
        print(f"{checkpoint}: {problem}; removed; resuming from the one before", flush=True)
        shutil.rmtree(checkpoint)
    return None


def checkpoint_problem(checkpoint: Path) -> str | None:
    """Return the reason why a checkpoint cannot be used, or None if it can."""
    try:
        files: dict[str, str] = json.loads((checkpoint / CHECKPOINT_FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "was not written to its end"
    for name, expected in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if hash_file(checkpoint / name) != expected:
            return f"{name} is damaged"
    return None


def train(trainer: StageTrainer, stage: str, what: str) -> None:
    """Train to the end, from the last complete checkpoint if there is one, and print a summary of the run."""
    config, folder = trainer.args, Path(trainer.args.output_dir)
    checkpoint = first_then_others(config, "look for checkpoints", lambda: last_whole_checkpoint(folder))
    trained = sum(p.numel() for p in trainer.trained_parameters().values())
    resumed = f", resuming from {checkpoint.name}" if checkpoint else ""
    many = f" on {config.world_size} processes" if config.world_size > 1 else ""
    say(config, f"{stage}: {what}, {trained:,} parameters train{many}{resumed}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def items_per_step(config: TrainingArguments) -> int:
    """Return the number of pages, or packs, of one optimizer step over all processes."""
    return int(config.train_batch_size * config.gradient_accumulation_steps * config.world_size)


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run, whose result is saved in the same folder."""
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)


def save_model_folder(folder: Path, *parts: Any) -> None:
    """Save a model and its processor as one folder, which appears atomically."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in parts:
        part.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def save_model_files(folder: Path, *parts: Any) -> None:
    """Save a model and its processor into a folder with other contents; each file appears atomically."""
    partial = folder / ".model.partial"
    save_model_folder(partial, *parts)
    for file in partial.iterdir():
        file.replace(folder / file.name)
    partial.rmdir()
