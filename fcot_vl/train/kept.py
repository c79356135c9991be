"""Weights kept along a run, for merging (paper, Sec. 3.3) and for curves of scores over training (Fig. 5).

In training the first process writes what is trained to `kept/step-*.safetensors`; afterwards each becomes a complete
model folder in `checkpoints/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

KEPT, CHECKPOINTS = "kept", "checkpoints"


def kept_steps(steps: int, count: int) -> list[int]:
    """`count` steps evenly spaced over a run, the last one among them.

    Raises ValueError when there are fewer steps than that.
    """
    if count > steps:
        raise ValueError(f"keep_checkpoints is {count}, the run has {steps} steps: keep fewer")
    return [steps * number // count for number in range(1, count + 1)]


class KeepWeights(TrainerCallback):
    """Writes the trained weights at evenly spaced steps.

    Args:
        folder: of the stage.
        count: how many.
        gathered: gives the trained weights on the first process and nothing on the others; all must call it.
    """

    def __init__(self, folder: Path, count: int, gathered: Callable[[], dict[str, Tensor]]) -> None:
        self.folder, self.count, self.gathered = folder / KEPT, count, gathered
        self.steps: list[int] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.steps = kept_steps(state.max_steps, self.count)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step not in self.steps:
            return
        weights = self.gathered()
        if state.is_world_process_zero:
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"step-{state.global_step:06d}.safetensors"
            partial = path.with_suffix(".partial")
            save_file(weights, partial, metadata={"format": "pt"})
            partial.replace(path)


def make_folders(folder: Path, save: Callable[[dict[str, Tensor], Path], None]) -> int:
    """Turn what was kept into model folders; returns how many there are.

    Args:
        save: writes the model with these weights to a folder, whole or not at all.
    """
    found = sorted((folder / KEPT).glob("*.safetensors"))
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    for path in found:
        save(load_file(path), folder / CHECKPOINTS / path.stem)
    return len(found)


def remove_kept(folder: Path) -> None:
    """Drop the weights that have become model folders."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)
