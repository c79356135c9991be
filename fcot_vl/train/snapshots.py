"""Weights saved during a run, for merging (paper, Sec. 3.3) and for score curves over training (Fig. 5).

During training, the first process writes the trained weights to `kept/step-*.safetensors`. After training, each file
becomes a complete model folder in `checkpoints/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fcot_vl.common.files import replacing

KEPT, CHECKPOINTS = "kept", "checkpoints"


def kept_steps(steps: int, count: int) -> list[int]:
    """Return `count` evenly spaced steps of a run, including the last one.

    Raises:
        ValueError: If the run has fewer than `count` steps.
    """
    if count > steps:
        raise ValueError(f"keep_checkpoints is {count}, the run has {steps} steps: keep fewer")
    return [steps * number // count for number in range(1, count + 1)]


class KeepWeights(TrainerCallback):
    """Callback that writes the trained weights at evenly spaced steps.

    Args:
        folder: Folder of the stage.
        count: Number of steps at which weights are written.
        gathered: Function that returns the trained weights on the first process and nothing on the others. All
            processes must call it.
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
            with replacing(path) as partial:
                save_file(weights, partial, metadata={"format": "pt"})


def make_folders(folder: Path, save: Callable[[dict[str, Tensor], Path], None]) -> int:
    """Convert the saved weights into model folders and return their number.

    Args:
        save: Function that writes the model with given weights to a folder, completely or not at all.
    """
    found = sorted((folder / KEPT).glob("*.safetensors"))
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    for path in found:
        save(load_file(path), folder / CHECKPOINTS / path.stem)
    return len(found)


def remove_kept(folder: Path) -> None:
    """Delete the weights that were converted into model folders."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)
