"""An applied peer: what it dropped, and how the model is given back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from fcot_vl.prune.budget import Drop, by_layer, n_kept, shares_by_layer


class PruneHandle:
    """An applied peer. `remove()` gives the model back as it was; also a context manager.

    method: the peer's name. keep: nominal share of visual tokens kept. layer: first decoder layer without the
    dropped ones. n_layers: layers of the decoder. drops: (layer, share of the picture's tokens from there on) of
    every drop, where there are several. kept, total: visual tokens of each row of the last prefill after the last
    drop and before the first; kept_at: after every drop.
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
        """Visual tokens of each row of the last prefill after the last drop."""
        return self.kept_at[-1] if self.kept_at else []

    @property
    def visual_by_layer_and_row(self) -> list[list[int]]:
        """Visual tokens of each row of the last prefill, in every decoder layer."""
        return by_layer(self.drops, self.n_layers, [self.total, *self.kept_at])

    @property
    def visual_by_layer(self) -> list[int]:
        """Visual tokens of the last prefill in every decoder layer, over all rows."""
        return [sum(row) for row in self.visual_by_layer_and_row]

    @property
    def layer_mean_keep(self) -> float:
        """The share of visual tokens the decoder works on, averaged over its layers."""
        return sum(shares_by_layer(self.drops, self.n_layers)) / self.n_layers

    def budget(self, share: float) -> list[int]:
        """Visual tokens that are a share of those of each row of the running prefill."""
        return [n_kept(share, n) for n in self.total]

    def remove(self) -> None:
        """Take every hook out again; safe to call twice."""
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
