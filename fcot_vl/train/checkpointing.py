"""Checkpoints of a training run: only the trained weights, and a list of files that shows whether one is complete."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import replacing, write_json
from fcot_vl.common.hashing import hash_file

logger = logging.getLogger(__name__)

CHECKPOINT_FILES = "files.json"  # written last: a checkpoint without it is incomplete


class CheckpointingTrainer(Trainer):
    """`Trainer` whose checkpoints hold only the trained weights, complete on any number of processes.

    Each checkpoint lists the hashes of its files, so that an incomplete or damaged one is recognized.
    """

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

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
                f"{folder}: the checkpoint could not be written ({one_line(error)}). Is the disk full? The previous "
                "checkpoint is unchanged; free some space, then rerun the same command to resume from it"
            ) from error
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKPOINT_FILES)
            write_json(folder / CHECKPOINT_FILES, {str(p.relative_to(folder)): hash_file(p) for p in found})


def whole(parameter: nn.Parameter) -> Tensor:
    """Return a parameter as one tensor, gathered from the shards of FSDP or ZeRO-3; every process must call this."""
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id"):
        with importlib.import_module("deepspeed").zero.GatheredParameters([parameter]):
            return parameter.detach().clone()  # the gathered tensor is released at the end of the context
    return parameter


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files are all intact, or None.

    Newer checkpoints that are unreadable or incomplete are reported in a message and removed.
    """
    found = [p for p in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if p.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        problem = checkpoint_problem(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning(f"{checkpoint}: {problem}; removed; resuming from the previous one")
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


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run, whose result is saved in the same folder."""
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)


def save_model_folder(folder: Path, *parts: Any) -> None:
    """Save a model and its processor as one folder, which appears atomically."""
    with replacing(folder) as partial:
        for part in parts:
            part.save_pretrained(partial)


def save_model_files(folder: Path, *parts: Any) -> None:
    """Save a model and its processor into a folder with other contents; each file appears atomically."""
    partial = folder / ".model.partial"
    save_model_folder(partial, *parts)
    for file in partial.iterdir():
        file.replace(folder / file.name)
    partial.rmdir()
