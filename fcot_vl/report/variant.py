"""Settings that tell the evaluated models of a run apart, and the label and place of a model in the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Default settings of a student. Labels omit them if all students of a run have them.
DEFAULT_OPTIONS = {"compressor": "conv", "visual_positions": "kept"}
BASELINE_NAMES = {  # in the order of the tables
    "fastv": "FastV",
    "pyramiddrop": "PyramidDrop",
    "sparsevlm": "SparseVLM",
    "visionzip": "VisionZip",
    "vispruner": "VisPruner",
    "prumerge": "LLaVA-PruMerge+",
    "divprune": "DivPrune",
    "tome": "ToMe",
    "random": "random drop",
    "uniform": "uniform drop",
    "smaller_page": "smaller page",
    "fewer_tiles": "fewer tiles",
}


def with_options(name: str, *options: str | None) -> str:
    """Return a student's name, with its settings that differ from the defaults in brackets."""
    given = ", ".join(option for option in options if option)
    return f"{name} ({given})" if given else name


@dataclass(frozen=True, order=True)
class Variant:
    """Evaluated model without its seed: one row of the table."""

    stage: str  # teacher, realign, post-train or control
    compress_ratio: int
    method: str  # none, or a training-free baseline
    keep: float | None
    layer: int | None
    visual_positions: str | None = None  # None where the label omits it, see DEFAULT_OPTIONS
    compressor: str | None = None  # likewise
    merged: str | None = None  # merge method, if several checkpoints were merged

    @property
    def label(self) -> str:
        base = {
            "teacher": "teacher",
            "control": "control: teacher post-trained",
            "realign": f"student {self.compress_ratio}x, re-aligned only",
            "post-train": f"student {self.compress_ratio}x",
        }[self.stage]
        base = with_options(base, self.compressor, self.visual_positions)
        if self.merged:
            base += f", merged: {self.merged}"
        if self.method == "none":
            return base
        baseline = BASELINE_NAMES.get(self.method, self.method)
        if self.keep is not None:
            baseline += f" {100 * self.keep:.3g}%"
        if self.layer:
            baseline += f", K={self.layer}"
        return baseline if base == "teacher" else f"{base} + {baseline}"

    @property
    def short_label(self) -> str:
        """Label without its token share, for panels whose title gives the share."""
        return self.label if self.keep is None else self.label.replace(f" {100 * self.keep:.3g}%", "")

    @property
    def nominal_keep(self) -> float:
        """Nominal share of the teacher's visual tokens that is kept: 0.5 at ratio 2, and also for keep 0.5."""
        return (self.keep if self.keep is not None else 1.0) / self.compress_ratio

    def sort_key(self) -> tuple[Any, ...]:
        """Return the place in the tables: trained models first, then the baselines in the order of BASELINE_NAMES."""
        group = {"teacher": 0, "control": 1, "post-train": 2, "realign": 3}[self.stage]
        methods = ("none", *BASELINE_NAMES)
        method = methods.index(self.method) if self.method in methods else len(methods)
        return (
            method,
            group,
            -self.nominal_keep,
            self.layer or 0,
            self.visual_positions or "",
            self.compressor or "",
            self.merged or "",
        )
