"""A training-free peer by name, as recipes, the command line and result files write it.

Above the peers of `fcot_vl.prune`, below everything that runs a model with one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcot_vl.prune.engine import PruneHandle
from fcot_vl.prune.fastv import apply_fastv
from fcot_vl.prune.random_drop import apply_random
from fcot_vl.prune.smaller_page import apply_smaller_page
from fcot_vl.prune.uniform import apply_uniform

METHODS = ("none", "fastv", "random", "uniform", "smaller_page")


@dataclass(frozen=True)
class Method:
    """How visual tokens are dropped at inference; "none" runs the model as it is.

    name: one of `METHODS`. keep: nominal share of visual tokens kept. layer: FastV's first decoder layer without
    the others. seed: of random dropping. Raises ValueError for an unknown name or a missing or superfluous
    setting.
    """

    name: str = "none"
    keep: float | None = None
    layer: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ValueError(f"unknown method {self.name!r}: choose one of {', '.join(METHODS)}.")
        if (self.keep is None) != (self.name == "none"):
            needs = "takes no" if self.name == "none" else "needs a"
            raise ValueError(f"method {self.name!r} {needs} keep share.")
        if (self.layer is None) != (self.name != "fastv"):
            needs = "needs a" if self.name == "fastv" else "takes no"
            raise ValueError(f"method {self.name!r} {needs} layer.")

    def __str__(self) -> str:
        if self.keep is None:
            return "as it is"
        at = f" at layer {self.layer}" if self.layer is not None else ""
        return f"{self.name.replace('_', ' ')}, {self.keep:.4g} of the visual tokens{at}"

    def apply(self, model: Any) -> PruneHandle | None:
        """Put the method into `model`; None for "none".

        Raises ValueError for values out of range, or a smaller page for a compressed model.
        """
        if self.keep is None:
            return None
        if self.name == "fastv":
            assert self.layer is not None
            return apply_fastv(model, self.keep, self.layer)
        if self.name == "random":
            return apply_random(model, self.keep, self.seed)
        if self.name == "uniform":
            return apply_uniform(model, self.keep)
        if getattr(model.config, "compress_ratio", 1) != 1:
            raise ValueError("a smaller page is a control for the teacher; this model is compressed already.")
        if not hasattr(model.config, "downsample_ratio"):
            raise ValueError(
                "a smaller page is laid out for InternVL's tiles; this model is of another family."
            )
        return apply_smaller_page(model, self.keep)
