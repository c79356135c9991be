"""Trainer that both training stages share; `realign.py` and `post_train.py` add the loss.

It adds to `CheckpointingTrainer` a planned order of the samples, a loss log that is kept across resumes, and a stop at
gradients that are not finite.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import TrainingArguments

from fcot_vl.common.distributed import main_process_first
from fcot_vl.common.errors import one_line
from fcot_vl.data.collator import PostTrainCollator, TokenizedSample, flatten
from fcot_vl.data.dataset import Sample
from fcot_vl.train.checkpointing import CheckpointingTrainer, last_whole_checkpoint
from fcot_vl.train.completions_callback import ReadAgain, Reader
from fcot_vl.train.config import items_per_step
from fcot_vl.train.dataset import PackedDataset, TrainingDataset
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.muon import Muon
from fcot_vl.train.sampler import BalancedSampler, SetEpoch

logger = logging.getLogger(__name__)

LOSS_LOG = "losses.jsonl"
SAMPLE_IDS, SAMPLE_GROUPS = "sample_ids", "sample_groups"
NAMED = 5  # maximum number of samples listed in a message


class NamedBatches:
    """Collator that adds the ids of the samples of a batch and the groups they belong to."""

    def __init__(self, collator: PostTrainCollator) -> None:
        self.collator = collator

    def __call__(
        self, items: Sequence[TokenizedSample] | Sequence[Sequence[TokenizedSample]]
    ) -> dict[str, Any]:
        samples = flatten(items)
        named = {
            SAMPLE_IDS: [sample.id for sample in samples if sample.id],
            SAMPLE_GROUPS: [sample.group for sample in samples],
        }
        return {**self.collator(items), **named}


class StageTrainer(CheckpointingTrainer):
    """Trainer of a stage; see the module's docstring.

    Args:
        model: Model whose parameters with `requires_grad` are trained and saved; no others are.
        config: Training arguments; `output_dir` is the stage folder.
        samples: Training samples, or packs of them.
        collator: Collator that makes one row of sequences from a list of items of `samples`.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        config: TrainingArguments,
        samples: TrainingDataset | PackedDataset,
        collator: PostTrainCollator,
    ) -> None:
        if not collator.packed:
            raise ValueError("a training batch is one row of sequences: use a collator with packed=True")
        super().__init__(
            model=model, args=config, data_collator=NamedBatches(collator), train_dataset=samples
        )
        self.sample_ids: list[str] = []  # ids of the samples since the last optimizer step
        self.sample_groups: list[int] = []  # groups of the current batch
        self.model_accepts_loss_kwargs = True  # compute_loss divides by answers_per_step
        self.answers_per_step = sum(samples.answers) / len(samples) * items_per_step(config)
        self.meter = LossLog(Path(config.output_dir) / LOSS_LOG, self.accelerator, samples.group_names)
        self.add_callback(self.meter)

    def read_again(self, readers: Mapping[str, Reader], sample: Sample, processor: Any) -> None:
        """Let the readers answer a question about a page every `reread_steps` steps, unless weights are sharded.

        A page with broken pixels is not read, because this display must not end a run.
        """
        try:
            for image in sample.images:
                image.load()
        except Exception as error:  # damaged bytes make decoders raise nearly any error
            logger.info(f"{sample.id}: not read again while training ({one_line(error)})")
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

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.sample_ids += inputs.pop(SAMPLE_IDS, [])
        self.sample_groups = inputs.pop(SAMPLE_GROUPS, [])
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
            more = f" and {len(self.sample_ids) - NAMED} more" if len(self.sample_ids) > NAMED else ""
            raise ValueError(
                f"step {self.state.global_step + 1}: the gradients are not finite (norm {float(norm)}) on the pages "
                f"{', '.join(self.sample_ids[:NAMED])}{more}. No weight was changed; "
                + (
                    f"{good.name} is complete and training can resume from it"
                    if good
                    else "there is no checkpoint yet"
                )
                + f". Check these pages; if they are correct, lower the learning rate. ({folder})"
            )
        self.sample_ids.clear()
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

        The factor is needed because `answers_per_step` counts the tokens of all processes.
        """
        return int(self.accelerator.num_processes)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Return the divisor of each step's sum over answer tokens: their mean number per step of the whole data.

        It is the same in every step, so that an answer token has the same weight in all of them, also in the short
        last step of an epoch.
        """
        return self.answers_per_step

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        batches = super().get_batch_samples(*args, **kwargs)
        self.meter.waited(time.perf_counter() - started)
        return batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        samples = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        several = self.args.world_size * self.args.train_batch_size if self.args.world_size > 1 else 1
        sampler = BalancedSampler(samples.answers, samples.lengths, items_per_step(self.args), seed, several)
        self.add_callback(SetEpoch(sampler))
        return sampler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **(self.meter.last if "loss" in logs else {})}, start_time)


def train(trainer: StageTrainer, stage: str, what: str) -> None:
    """Train to the end, from the last complete checkpoint if there is one, and print a summary of the run."""
    config, folder = trainer.args, Path(trainer.args.output_dir)
    checkpoint = main_process_first(config, "look for checkpoints", lambda: last_whole_checkpoint(folder))
    trained = sum(p.numel() for p in trainer.trained_parameters().values())
    resumed = f", resuming from {checkpoint.name}" if checkpoint else ""
    many = f" on {config.world_size} processes" if config.world_size > 1 else ""
    logger.info(f"{stage}: {what}, {trained:,} parameters train{many}{resumed}")
    if config.visible_gpus > 1:
        gpus = config.visible_gpus
        logger.info(
            f"{stage}: on 1 of {gpus} GPUs; to use all, start it with torchrun --nproc-per-node {gpus}"
        )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
