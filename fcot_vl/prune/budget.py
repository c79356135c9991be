"""Token budgets: number of visual tokens of a share, and average over the layers when dropping at one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Drop = tuple[int, float]  # decoder layer, and share of the image's tokens from that layer on
Value = TypeVar("Value")


def n_kept(keep: float, n_tokens: int) -> int:
    """Return the number of visual tokens to keep of `n_tokens`: rounded to the nearest, half up, at least one.

    Returns 0 if `n_tokens` is 0.
    """
    return min(n_tokens, max(1, int(keep * n_tokens + 0.5)))


def layer_mean_keep(keep: float, layer: int, n_layers: int) -> float:
    """Return the share of visual tokens in the decoder, averaged over its layers, when they are dropped at `layer`.

    Dropping 50% at layer 2 of 24 leaves an average of 54%; the 50% of a compressed model hold at every layer.
    """
    return (layer + (n_layers - layer) * keep) / n_layers


def shares_by_layer(drops: Sequence[Drop], n_layers: int) -> list[float]:
    """Return the share of visual tokens in every decoder layer, given (layer, share from there on) of each drop."""
    return by_layer(drops, n_layers, [1.0, *(share for _, share in drops)])


def by_layer(drops: Sequence[Drop], n_layers: int, values: Sequence[Value]) -> list[Value]:
    """Return the value that applies to each decoder layer, given one value before the first drop and one after each."""
    starts = [0, *(layer for layer, _ in drops), n_layers]
    spans = [after - before for before, after in pairwise(starts)]
    return [value for value, span in zip(values, spans, strict=True) for _ in range(span)]


def tokens_by_layer(drops: Sequence[Drop], n_layers: int, n_tokens: int) -> list[int]:
    """Return the number of visual tokens in every decoder layer, for an image with `n_tokens`."""
    return [n_kept(share, n_tokens) for share in shares_by_layer(drops, n_layers)]


def keep_for_layer_mean(mean: float, layer: int, n_layers: int) -> float:
    """Return the share to keep from `layer` on so that the average over all layers is `mean`.

    Raises:
        ValueError: If the layers below alone already use the whole budget.
    """
    keep = (mean * n_layers - layer) / (n_layers - layer)
    if keep <= 1e-9:
        raise ValueError(
            f"a layer-mean budget of {mean:.0%} cannot be met by dropping at layer {layer} of {n_layers}: "
            f"the layers below it already cost {layer / n_layers:.0%}. Drop earlier or allow more."
        )
    return keep
