"""What both training stages add to transformers' `Trainer`.

Checkpoints that hold only what is trained and say whether they are whole; a planned order; a loss log that survives a
resume. `realign.py` and `post_train.py` add the loss.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from fcot_vl.data.collate import PostTrainCollator
from fcot_vl.stage import write_json
from fcot_vl.train.fingerprint import hash_file
from fcot_vl.train.muon import Muon
from fcot_vl.train.pages import LengthGroupedOrder, TrainingPages

CHECKPOINT_FILES = "files.json"  # written last: a checkpoint without it was interrupted
LOSS_LOG = "losses.jsonl"

# What does not change the weights that come out; everything else in a config must be the same to resume.
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
        "hub_token",
        "push_to_hub_token",
        "local_rank",
        "ddp_timeout",
    ),
}


def stage_settings(config: TrainingArguments) -> dict[str, Any]:
    """The settings of a run that decide its result and differ from the defaults, for `stage.json`."""
    ours = {f.name for f in fields(config)} - {f.name for f in fields(TrainingArguments)}
    plain = TrainingArguments(output_dir="unused", use_cpu=config.use_cpu)
    return {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if f.name not in NOT_SETTINGS
        and (f.name in ours or getattr(config, f.name) != getattr(plain, f.name))
        and not f.name.startswith("_")
    }


class StageTrainer(Trainer):
    """A `Trainer` for pages: see the module.

    Args:
        model: its parameters with `requires_grad` are trained and saved, nothing else.
        config: training arguments; `output_dir` is the stage folder.
        pages: the training pages.
        collator: makes a batch from a list of pages, padded on the right.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        config: TrainingArguments,
        pages: TrainingPages,
        collator: PostTrainCollator,
    ) -> None:
        if collator.side != "right":
            raise ValueError("training batches are padded on the right (see without_padding_mask)")
        super().__init__(model=model, args=config, data_collator=collator, train_dataset=pages)
        self.model_accepts_loss_kwargs = (
            True  # compute_loss divides by the answer tokens of all accumulated batches
        )
        self._loss_shifts_labels = True
        self.meter = LossLog(Path(config.output_dir) / LOSS_LOG)
        self.add_callback(self.meter)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @staticmethod
    def without_padding_mask(sequences: dict[str, Tensor]) -> dict[str, Tensor]:
        """The padding of training batches lies behind every real token, where causal attention never looks."""
        return {name: tensor for name, tensor in sequences.items() if name != "attention_mask"}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW as the arguments say, or Muon where `muon_lr` is given."""
        muon_lr: float | None = getattr(self.args, "muon_lr", None)
        if self.optimizer is None and muon_lr is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
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
        """Processes average their gradients, but `num_items_in_batch` already counts the tokens of all of them."""
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        pages = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedOrder(pages.lengths, self.args.train_batch_size, seed)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: p.detach().contiguous() for name, p in self.trained_parameters().items()}
        save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})

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
                parameter.copy_(saved[name])

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            files = {p.name: hash_file(p) for p in sorted(folder.iterdir()) if p.name != CHECKPOINT_FILES}
            write_json(folder / CHECKPOINT_FILES, files)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **self.meter.last}, start_time)


class LossLog(TrainerCallback):
    """Writes a row per optimizer step to `losses.jsonl`.

    A row holds `step`, `seconds` of training up to it (over all resumes), `tokens_per_second` of real tokens through
    the decoder, `learning_rate`, and the means over the step's answer tokens that the trainer added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._answers: Tensor | int = 0
        self._tokens: Tensor | int = 0
        self._seconds_before = 0.0
        self._started = self._step_started = 0.0

    def add(self, means: dict[str, Tensor], answers: int, tokens: Tensor | int) -> None:
        """Add one batch: means over its answer tokens, their number, and the real tokens of its sequences."""
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0) + mean.detach() * answers
        self._answers = self._answers + answers
        self._tokens = self._tokens + tokens

    def rows(self) -> list[dict[str, Any]]:
        """The rows written so far; a last line cut off by a kill is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = self._step_started = time.perf_counter()
        if not state.is_world_process_zero:
            return
        rows = [row for row in self.rows() if row["step"] <= state.global_step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        partial.replace(self.path)
        self._seconds_before = rows[-1]["seconds"] if rows else 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.perf_counter()
        answers = max(int(self._answers), 1)
        self.last = {name: float(total) / answers for name, total in self._sums.items()}
        row = {
            "step": state.global_step,
            "seconds": round(self._seconds_before + now - self._started, 3),
            "tokens_per_second": round(int(self._tokens) / max(now - self._step_started, 1e-9), 1),
            "learning_rate": kwargs["lr_scheduler"].get_last_lr()[-1],  # Muon's matrices come first
            **self.last,
        }
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._sums, self._answers, self._tokens = {}, 0, 0
        self._step_started = now


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written.

    Unreadable or unfinished newer ones are named in a message and removed.
    """
    found = [p for p in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if p.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        problem = checkpoint_problem(checkpoint)
        if problem is None:
            return checkpoint
        print(f"{checkpoint}: {problem}; removed, going on from the one before", flush=True)
        shutil.rmtree(checkpoint)
    return None


def checkpoint_problem(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None."""
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
    """Train to the end, from the last whole checkpoint if there is one; prints what is trained."""
    folder = Path(trainer.args.output_dir)
    checkpoint = last_whole_checkpoint(folder)
    trained = sum(p.numel() for p in trainer.trained_parameters().values())
    going_on = f", going on from {checkpoint.name}" if checkpoint else ""
    print(f"{stage}: {what}, {trained:,} parameters train{going_on}", flush=True)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def remove_checkpoints(folder: Path) -> None:
    """Drop the checkpoints of a finished run; its result is saved beside them."""
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)


def save_model_folder(folder: Path, *parts: Any) -> None:
    """Save a model and its processor as one complete folder that appears at once."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in parts:
        part.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def save_model_files(folder: Path, *parts: Any) -> None:
    """Save a model and its processor into a folder that holds other things; each file appears whole."""
    partial = folder / ".model.partial"
    save_model_folder(partial, *parts)
    for file in partial.iterdir():
        file.replace(folder / file.name)
    partial.rmdir()
