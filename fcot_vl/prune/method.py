"""Training-free baselines by name, as used in recipes, on the command line and in result files.

This module depends on the methods of `fcot_vl.prune`; everything that runs a model with one of them depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from fcot_vl.prune.budget import Drop, keep_for_layer_mean, shares_by_layer
from fcot_vl.prune.divprune import apply_divprune
from fcot_vl.prune.fastv import apply_fastv
from fcot_vl.prune.fewer_tiles import apply_fewer_tiles
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, refuse_two_dimensions
from fcot_vl.prune.prumerge import apply_prumerge
from fcot_vl.prune.pyramiddrop import apply_pyramiddrop, pyramid_drops
from fcot_vl.prune.random_drop import apply_random
from fcot_vl.prune.smaller_page import apply_smaller_page
from fcot_vl.prune.sparsevlm import apply_sparsevlm, sparse_drops
from fcot_vl.prune.tome import apply_tome
from fcot_vl.prune.uniform import apply_uniform
from fcot_vl.prune.visionzip import apply_visionzip
from fcot_vl.prune.vispruner import apply_vispruner

BY_KEEP: dict[str, Callable[[Any, float], PruneHandle]] = {  # methods that need only a share
    "pyramiddrop": apply_pyramiddrop,
    "sparsevlm": apply_sparsevlm,
    "visionzip": apply_visionzip,
    "vispruner": apply_vispruner,
    "prumerge": apply_prumerge,
    "divprune": apply_divprune,
    "tome": apply_tome,
    "uniform": apply_uniform,
    "smaller_page": apply_smaller_page,
    "fewer_tiles": apply_fewer_tiles,
}
IMAGE_METHODS = ("smaller_page", "fewer_tiles")  # methods that show the model another image
METHODS = ("none", "fastv", "random", *BY_KEEP)


@dataclass(frozen=True)
class Method:
    """Method that drops visual tokens at inference; "none" runs the model unchanged.

    Attributes:
        name: One of `METHODS`.
        keep: Nominal share of visual tokens kept (PyramidDrop: at each of its drops; SparseVLM: averaged over the
            layers of the decoder).
        layer: First decoder layer without the dropped tokens, for FastV.
        seed: Random seed of random dropping.

    Raises:
        ValueError: If the name is unknown, or a setting is missing or superfluous.
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

    def drops(self, n_layers: int) -> tuple[Drop, ...]:
        """Return (layer, share of the image's tokens from that layer on) of every drop in a decoder of that depth.

        Raises:
            ValueError: If the method cannot keep that share there.
        """
        if self.keep is None:
            return ()
        if self.name == "pyramiddrop":
            return pyramid_drops(self.keep, n_layers)
        if self.name == "sparsevlm":
            return sparse_drops(self.keep, n_layers)
        return ((self.layer or 0, self.keep),)

    def layer_mean(self, n_layers: int) -> float:
        """Return the share of visual tokens in a decoder of that depth, averaged over its layers.

        Raises:
            ValueError: If the method cannot keep that share there.
        """
        return fmean(shares_by_layer(self.drops(n_layers), n_layers))

    def at_layer_mean(self, share: float, n_layers: int) -> Method:
        """Return the same method with `keep` set so that the average over the decoder's layers is `share`.

        Raises:
            ValueError: If the layers before its first drop alone use that share.
        """
        if self.name == "fastv":
            return replace(self, keep=keep_for_layer_mean(share, self.layer or 0, n_layers))
        if self.name != "pyramiddrop":
            same = replace(self, keep=share)
            same.drops(n_layers)
            return same
        low, high = 0.0, 1.0
        if replace(self, keep=1e-6).layer_mean(n_layers) >= share:
            raise ValueError(
                f"PyramidDrop cannot keep {share:.0%} of the visual tokens averaged over {n_layers} layers: the layers "
                "before its first drop already use as much."
            )
        for _ in range(60):  # its layer mean increases with keep
            middle = (low + high) / 2
            if replace(self, keep=middle).layer_mean(n_layers) < share:
                low = middle
            else:
                high = middle
        return replace(self, keep=high)

    def apply(self, model: Any) -> PruneHandle | None:
        """Apply the method to `model`; return None for "none".

        Raises:
            ValueError: If a value is out of range, or the method does not support this model.
        """
        if self.keep is None:
            return None
        refuse_two_dimensions(decoder_of(model))  # first, as no other method is any better
        if self.name == "fastv":
            assert self.layer is not None
            return apply_fastv(model, self.keep, self.layer)
        if self.name == "random":
            return apply_random(model, self.keep, self.seed)
        if self.name in IMAGE_METHODS:
            named = self.name.replace("_", " ").replace("smaller", "a smaller")
            if getattr(model.config, "compress_ratio", 1) != 1:
                raise ValueError(f"{named}: a control for the uncompressed teacher; this model is compressed")
            if not hasattr(model.config, "downsample_ratio"):
                raise ValueError(f"{named}: needs InternVL's tiles; this model is of another family")
        return BY_KEEP[self.name](model, self.keep)
