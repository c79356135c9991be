"""Settings of a merge, and the check that they go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fcot_vl.merge import shapley
from fcot_vl.merge.methods import METHODS, NEEDS_BASE

MOST_EXACT = 8  # checkpoints: 256 coalitions
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCALES = {"task-arithmetic": 0.5, "dare": 0.5, "ties": 1.0}  # from the paper; chosen by us; from TIES
DENSITIES = {"ties": 0.2, "dare": 0.1}  # from their papers
FINAL_BASE = ("task-arithmetic", "shapley")  # the base of the paper's merges is the final checkpoint
WITH_WEIGHTS = ("weighted", "task-arithmetic", "ties", "dare")


@dataclass
class MergeConfig:
    """Settings of a merge.

    Attributes:
        checkpoints: Two or more model folders.
        output: Folder to write.
        base: Model that task vectors are differences from. Default for task-arithmetic and shapley: the last checkpoint
            (paper, below Eq. 4); required by ties and dare.
        method: One of `METHODS`.
        weights: One weight per checkpoint. weighted divides them by their sum; task-arithmetic, ties and dare use 1
            each by default.
        scale: Scaling factor of task-arithmetic and dare (default: 0.5) and ties (default: 1).
        density: Share of the values of a task vector that ties (default: 0.2) and dare (default: 0.1) keep.
        data: Validation samples on which shapley scores coalitions; the score is the mean over tasks.
        score_command: Command that scores coalitions instead of `data`; `{model}` is the model folder, and the last
            printed line is the score.
        permutations: Number of sampled orders for shapley, instead of all coalitions; required above eight checkpoints.
        batch_size: With `data`, maximum number of questions decoded together. Not part of the settings of a run.
        dtype: Dtype of the result. Default: the dtype of the base (or of the first checkpoint).
        seed: Random seed of the permutations, and of the values that dare drops.

    Raises:
        ValueError: If settings contradict each other.
    """

    checkpoints: Sequence[Path]
    output: Path
    base: Path | None = None
    method: str = "average"
    weights: Sequence[float] | None = None
    scale: float | None = None
    density: float | None = None
    data: Path | None = None
    score_command: str | None = None
    permutations: int | None = None
    batch_size: int = 64
    dtype: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        method, n = self.method, len(self.checkpoints)
        if method not in METHODS:
            raise ValueError(f"unknown --method {method!r}; choose from {', '.join(METHODS)}")
        if n < 2:
            raise ValueError(f"a merge needs two or more checkpoints, got {n}")
        if method in FINAL_BASE and self.base is None:
            self.base = self.checkpoints[-1]
        if method in NEEDS_BASE and self.base is None:
            raise ValueError(
                f"--method {method} adds differences from a base: give --base, the model that the checkpoints were "
                "trained from"
            )
        for option, value, methods in (
            ("--base", self.base, NEEDS_BASE),
            ("--weights", self.weights, WITH_WEIGHTS),
            ("--scale", self.scale, SCALES),
            ("--density", self.density, DENSITIES),
            ("--data", self.data, ("shapley",)),
            ("--score-command", self.score_command, ("shapley",)),
            ("--permutations", self.permutations, ("shapley",)),
        ):
            if value is not None and method not in methods:
                raise ValueError(f"{option} is not used by --method {method}: leave it out")
        self._check_numbers(n)
        if method == "shapley":
            self._check_scorer(n)
        for folder in (*self.checkpoints, *([self.base] if self.base else [])):
            if self.output.resolve() == folder.resolve():
                raise ValueError(
                    f"--output {self.output} is one of the models to merge; choose another folder"
                )

    def _check_numbers(self, n: int) -> None:
        if self.method == "weighted" and self.weights is None:
            raise ValueError("--method weighted needs --weights, one per checkpoint, such as 0.5,0.3,0.2")
        if self.weights is not None:
            if len(self.weights) != n:
                raise ValueError(f"--weights has {len(self.weights)} numbers for {n} checkpoints")
            if not all(map(math.isfinite, self.weights)):
                raise ValueError("--weights must be finite numbers")
            if self.method == "weighted" and abs(sum(self.weights)) < 1e-8:
                raise ValueError("--weights sum to 0, and --method weighted divides by their sum")
            if self.method == "ties" and min(self.weights) <= 0:
                raise ValueError(
                    "--method ties needs weights above 0: they are votes for the sign of each value"
                )
        if self.scale is not None and not math.isfinite(self.scale):
            raise ValueError("--scale must be a finite number")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(
                f"--density is the share of values kept, above 0 and at most 1, got {self.density}"
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"unknown --dtype {self.dtype!r}; choose from {', '.join(DTYPES)}")

    def _check_scorer(self, n: int) -> None:
        if (self.data is None) == (self.score_command is None):
            raise ValueError("--method shapley scores models: give either --data or --score-command")
        if self.score_command is not None and "{model}" not in self.score_command:
            raise ValueError("--score-command must contain {model}, the folder to score")
        if self.permutations is not None:
            shapley.drawn_orders(n, self.permutations, self.seed)
        elif n > MOST_EXACT:
            raise ValueError(
                f"{n} checkpoints have {2**n:,} coalitions to score: give --permutations, such as 32 (at most "
                f"{32 * (n - 1) + 2} coalitions), for estimates with standard errors"
            )
