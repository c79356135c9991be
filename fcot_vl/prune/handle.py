"""Handle of an applied method: records the dropped tokens and restores the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from fcot_vl.prune.budget import Drop, by_layer, n_kept, shares_by_layer


class PruneHandle:
    """Handle of an applied method. `remove()` restores the model; the handle is also a context manager.

    Attributes:
        method: Name of the method.
        keep: Nominal share of visual tokens kept.
        layer: First decoder layer without the dropped tokens.
        n_layers: Number of layers of the decoder.
        drops: (layer, share of the image's tokens from that layer on) of every drop, if there are several.
        kept: Number of visual tokens of each row of the last prefill after the last drop.
        total: Number of visual tokens of each row of the last prefill before the first drop.
        kept_at: Number of visual tokens of each row of the last prefill after every drop.
    """

    def __init__(
        self, method: str, keep: float, layer: int, n_layers: int, drops: Sequence[Drop] = ()
    ) -> None:
        self.method, self.keep, self.layer, self.n_layers = method, keep, layer, n_layers
        self.drops = tuple(drops) or ((layer, keep),)
        self.kept_at: list[list[int]] = []
        self.total: list[int] = []
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    @property
    def kept(self) -> list[int]:
        """Number of visual tokens of each row of the last prefill after the last drop."""
        return self.kept_at[-1] if self.kept_at else []

    @property
    def visual_by_layer_and_row(self) -> list[list[int]]:
        """Number of visual tokens of each row of the last prefill, in every decoder layer."""
        return by_layer(self.drops, self.n_layers, [self.total, *self.kept_at])

    @property
    def visual_by_layer(self) -> list[int]:
        """Number of visual tokens of the last prefill in every decoder layer, over all rows."""
        return [sum(row) for row in self.visual_by_layer_and_row]

    @property
    def layer_mean_keep(self) -> float:
        """Share of visual tokens in the decoder, averaged over its layers."""
        return sum(shares_by_layer(self.drops, self.n_layers)) / self.n_layers

    def budget(self, share: float) -> list[int]:
        """Return the number of visual tokens that a share amounts to in each row of the running prefill."""
        return [n_kept(share, n) for n in self.total]

    def remove(self) -> None:
        """Remove all hooks; safe to call twice."""
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
