"""Budgets: how many visual tokens a share is, and what dropping at a layer leaves on average over all layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Drop = tuple[int, float]  # a decoder layer, and the share of the picture's tokens it and those above work on
Value = TypeVar("Value")


def n_kept(keep: float, n_tokens: int) -> int:
    """Visual tokens left of `n_tokens`: rounded to the nearest, half up, at least one; of none, none."""
    return min(n_tokens, max(1, int(keep * n_tokens + 0.5)))


def layer_mean_keep(keep: float, layer: int, n_layers: int) -> float:
    """Share of visual tokens the decoder works on, averaged over its layers, when they are dropped at `layer`.

    Dropping 50% at layer 2 of 24 still works on 54%; a compressed model's 50% holds at every layer.
    """
    return (layer + (n_layers - layer) * keep) / n_layers


def shares_by_layer(drops: Sequence[Drop], n_layers: int) -> list[float]:
    """The share of visual tokens every decoder layer works on, from (layer, share from there on) of every drop."""
    return by_layer(drops, n_layers, [1.0, *(share for _, share in drops)])


def by_layer(drops: Sequence[Drop], n_layers: int, values: Sequence[Value]) -> list[Value]:
    """For every decoder layer the value that holds there, of one before the first drop and one after each."""
    starts = [0, *(layer for layer, _ in drops), n_layers]
    spans = [after - before for before, after in pairwise(starts)]
    return [value for value, span in zip(values, spans, strict=True) for _ in range(span)]


def tokens_by_layer(drops: Sequence[Drop], n_layers: int, n_tokens: int) -> list[int]:
    """Visual tokens in every decoder layer, of a picture that has `n_tokens`."""
    return [n_kept(share, n_tokens) for share in shares_by_layer(drops, n_layers)]


def keep_for_layer_mean(mean: float, layer: int, n_layers: int) -> float:
    """The share to keep from `layer` on so that the average over all layers is `mean`.

    Raises ValueError when the layers below alone already cost the whole budget.
    """
    keep = (mean * n_layers - layer) / (n_layers - layer)
    if keep <= 1e-9:
        raise ValueError(
            f"a layer-mean budget of {mean:.0%} cannot be met by dropping at layer {layer} of {n_layers}: "
            f"the layers below it cost {layer / n_layers:.0%} already. Drop earlier or allow more."
        )
    return keep
