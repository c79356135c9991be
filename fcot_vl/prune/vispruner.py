"""VisPruner: spend half of the budget on tokens that the ViT attends to, half on the rest without duplicates.

This training-free baseline of `fcot_vl.prune` acts before the decoder. In every tile, the tokens with most attention of
the CLS token are important. The rest, ordered by that attention, is thinned out by at most 8 tokens per round, until
the other half of the budget is left. In each round, the tokens alternately form two sets, and the tokens of the first
set that are most similar to any token of the second (cosine of the features) are removed. For the next round, the
remaining tokens of the first set, most similar first, precede the second set.

Source: Zhang et al. 2024, "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs"
(arXiv 2412.01818), and its repository, see docs/baselines.md. Differences: features are compared after InternVL's pixel
shuffle and projector, not before the projector; the budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import ReducedTokens, TokenGroup, apply_before_decoder, as_mask
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import best_first
from fcot_vl.prune.vit_attention import VitAttentionProbe

AT_ONCE = 8  # number of duplicates removed per round


def apply_vispruner(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with VisPruner until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1].

    Raises:
        ValueError: If a value is out of range, or the model does not have InternVL's ViT.
    """
    return apply_before_decoder(model, "vispruner", keep, important_and_diverse, VitAttentionProbe(model))


def important_and_diverse(group: TokenGroup, n: int) -> ReducedTokens:
    """Reduce a tile to n tokens: the smaller half by attention, the other half without duplicates."""
    n_important = n // 2
    order_N = group.attention_N.argsort(descending=True, stable=True)
    rest = order_N[n_important:]
    diverse = rest[without_duplicates(group.features_NC[rest], n - n_important)]
    kept = torch.cat([order_N[:n_important], diverse])
    return ReducedTokens(as_mask(kept, len(order_N), kept.device))


def without_duplicates(features_NC: Tensor, n: int) -> Tensor:
    """Return the indices of n tokens, at least one, left after removing the most repeated ones round by round."""
    unit_NC = nn.functional.normalize(features_NC, dim=-1)
    left = torch.arange(len(features_NC), device=features_NC.device)
    while len(left) > n:
        first, second = left[::2], left[1::2]
        likeness = (unit_NC[first] @ unit_NC[second].T).max(dim=1).values
        n_out = min(AT_ONCE, len(left) - n, len(first))
        stays = best_first(likeness)[n_out:]
        left = torch.cat([first[stays], second])
    return left
