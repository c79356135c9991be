"""VisPruner: half of the budget for what the ViT looks at, half for what is left when duplicates are taken out.

One of the training-free peers of `fcot_vl.prune`, before the decoder. In every tile, the tokens with most attention of
CLS are important. The rest, ordered by that attention, is thinned out, at most 8 tokens a round: the tokens in turn
form two sets, and those of the first that are most like any of the second (cosine of the features) go, until the other
half of the budget is left. What stays of the first set, the most like first, stands before the second in the next
round.

Source: Zhang et al. 2024, "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs"
(arXiv 2412.01818), and its repository, see docs/peers.md. Differences: features are compared behind InternVL's pixel
shuffle and projector, not in front of the projector; the budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import Piece, Reduced, apply_before_decoder, as_mask
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import best_first
from fcot_vl.prune.vit import VitWatch

AT_ONCE = 8  # duplicates taken out in a round


def apply_vispruner(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with VisPruner until the returned handle is removed.

    keep: share of visual tokens that stay, (0, 1]. Raises ValueError for values out of range or a model without
    InternVL's ViT.
    """
    return apply_before_decoder(model, "vispruner", keep, important_and_diverse, VitWatch(model))


def important_and_diverse(piece: Piece, n: int) -> Reduced:
    """n tokens of one tile: the smaller half by attention, the other without duplicates."""
    n_important = n // 2
    order_N = piece.attention_N.argsort(descending=True, stable=True)
    rest = order_N[n_important:]
    diverse = rest[without_duplicates(piece.features_NC[rest], n - n_important)]
    kept = torch.cat([order_N[:n_important], diverse])
    return Reduced(as_mask(kept, len(order_N), kept.device))


def without_duplicates(features_NC: Tensor, n: int) -> Tensor:
    """n token numbers, at least one: what is left when the most repeated ones are taken out round by round."""
    unit_NC = nn.functional.normalize(features_NC, dim=-1)
    left = torch.arange(len(features_NC), device=features_NC.device)
    while len(left) > n:
        first, second = left[::2], left[1::2]
        likeness = (unit_NC[first] @ unit_NC[second].T).max(dim=1).values
        n_out = min(AT_ONCE, len(left) - n, len(first))
        stays = best_first(likeness)[n_out:]
        left = torch.cat([first[stays], second])
    return left
