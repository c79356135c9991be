"""A recipe: the sections of its YAML file as dataclasses, with checks of what goes together.

The sections `realign` and `post_train` hold the settings of the dataclasses of their stages. The sections below belong
to the pipeline itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcot_vl.common.config import RecipeError, build, read_recipe
from fcot_vl.models.compressors.registry import COMPRESSORS
from fcot_vl.models.tiny import tiny_teacher_path

logger = logging.getLogger(__name__)


@dataclass
class SynthesizeSection:
    """Settings of synthesis: numbers of MiniDoc pages, and their seeds."""

    train: int
    """Number of pages of post-training, drawn anew for every training seed."""
    test: int
    realign: int = 0
    """Number of pages of re-alignment: those of `OCR_TASKS`, answered by the teacher (paper, section 3.1), drawn anew
    for every training seed. 0: re-alignment uses the pages of post-training and their true answers."""
    seed: int = 0
    test_seed: int | None = None
    """Seed of the test pages. Default: `seed`."""
    shard_size: int = 500


@dataclass
class EvaluateSection:
    """Settings of evaluation."""

    batch_size: int = 64


@dataclass
class BaselinesSection:
    """Training-free baselines, applied to the teacher."""

    methods: list[str] = field(default_factory=list)
    keep: list[float] = field(default_factory=list)
    """Nominal shares of visual tokens kept."""
    layers: list[int] = field(default_factory=list)
    """Values of K for FastV; each is evaluated."""
    equal_layer_mean: bool = True
    """Run each method also at the share where its mean cost over the decoder's layers equals that of a student."""


@dataclass
class MergeSection:
    """Settings of merging the checkpoints that post-training kept (paper, Table 4); see `merge`."""

    methods: list[str] = field(default_factory=list)
    checkpoints: int = 5
    """Number of kept checkpoints to merge, counted from the last one."""
    validation: int = 160
    """Number of pages for scoring Shapley values, never the reported ones."""


@dataclass
class BenchSection:
    """Settings of time measurement; see `bench`."""

    pages: int = 8
    new_tokens: int = 64
    rounds: int = 5


@dataclass
class Recipe:
    """Recipe of one run. The section of a training stage holds settings of its dataclass.

    Raises:
        ValueError: If a section has an unknown setting, or settings do not go together.
    """

    output: Path
    synthesize: dict[str, Any]
    realign: dict[str, Any]
    post_train: dict[str, Any]
    evaluate: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Any] = field(default_factory=dict)
    bench: dict[str, Any] = field(default_factory=dict)
    merge: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    """Folder or hub id of an InternVL in the Hugging Face layout. Default: the embedded teacher."""
    seeds: list[int] = field(default_factory=lambda: [0])
    control_seeds: list[int] = field(default_factory=list)
    """Seeds for post-training the teacher on the same data, without compression."""
    compressors: list[str] = field(default_factory=list)
    """Compressors to compare (paper, Table 3), trained with the same settings. Default: only that of `realign`."""
    jobs: int = 1
    """Number of steps that run in parallel."""
    threads: int = 1
    """Number of CPU threads of each step. It affects the result, because it determines the order of sums."""

    def __post_init__(self) -> None:
        if not self.seeds or any(len(set(s)) < len(s) for s in (self.seeds, self.control_seeds)):
            raise ValueError(
                "seeds must name at least one seed; seeds and control_seeds name each once, "
                f"got {self.seeds} and {self.control_seeds}"
            )
        if self.jobs < 1 or self.threads < 1:
            raise ValueError(f"jobs and threads must be at least 1, got {self.jobs} and {self.threads}")
        if unknown := [name for name in self.compressors if name not in COMPRESSORS]:
            raise ValueError(f"compressors: {unknown[0]!r} is unknown; choose from {', '.join(COMPRESSORS)}")
        if len(set(self.compressors)) < len(self.compressors):
            raise ValueError(f"compressors name each once, got {self.compressors}")
        for config, section in (
            (SynthesizeSection, self.synthesize),
            (EvaluateSection, self.evaluate),
            (BaselinesSection, self.baselines),
            (BenchSection, self.bench),
            (MergeSection, self.merge),
        ):
            build(config, section)
        merge = build(MergeSection, self.merge)
        kept = self.post_train.get("keep_checkpoints", 0)
        if merge.methods and not 2 <= merge.checkpoints <= kept:
            raise ValueError(
                f"merge.checkpoints is {merge.checkpoints}: post_train.keep_checkpoints ({kept}) must keep as "
                "many, and a merge needs two"
            )

    @property
    def teacher_model(self) -> str:
        """Folder or hub id of the teacher."""
        return self.teacher or str(tiny_teacher_path())

    @property
    def training_seeds(self) -> list[int]:
        """Every seed that something is trained with."""
        return list(dict.fromkeys([*self.seeds, *self.control_seeds]))


def load_recipe(name: str | Path, **overrides: Any) -> Recipe:
    """Read a recipe by path or name.

    The section `baselines` was once called `peers`. The former name is accepted, with a warning on stderr.

    Args:
        overrides: Values that replace top-level values of the recipe. None leaves a value as it is.

    Raises:
        RecipeError: If the recipe cannot be used.
    """
    sections = read_recipe(name)
    if "peers" in sections:
        if "baselines" in sections:
            raise RecipeError(f"{name}: has both baselines and peers, its former name; keep baselines only")
        logger.warning(
            f"{name}: the section peers is now called baselines; the old name will be removed in the "
            "next version",
        )
        sections["baselines"] = sections.pop("peers")
    return build(Recipe, sections, **{key: value for key, value in overrides.items() if value is not None})
