"""VisionZip: the tokens that the ViT looks at stay, the others are merged into a few that give context.

One of the training-free peers of `fcot_vl.prune`, before the decoder. In every tile, the tokens with most attention of
CLS at the ViT's layer -2 are dominant and stay as they are. Of the others, evenly spaced ones become contextual: each
of the rest is merged into the one whose key is most like its own, by the mean. 10 of 64 tokens of a budget are
contextual, as in the paper.

Source: Yang et al. 2024, "VisionZip: Longer is Better but Not Necessary in Vision Language Models" (arXiv 2412.04467).
Differences: merging is behind InternVL's pixel shuffle and projector instead of before the projector, scores and keys
averaged over 2x2 patches; a contextual token is the mean over itself and what it takes in (the reference adds their
mean to it); all tokens keep the page's order and their positions; CLS itself is not handed on, InternVL drops it. The
budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import Piece, Reduced, apply_before_decoder, as_mask, cosine
from fcot_vl.prune.engine import PruneHandle

CONTEXTUAL = 10 / 64  # share of the budget


def apply_visionzip(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with VisionZip until the returned handle is removed.

    keep: share of visual tokens that stay, dominant and contextual, (0, 1]. Raises ValueError for values out of
    range or a model without InternVL's ViT.
    """
    return apply_before_decoder(model, "visionzip", keep, zip_tokens, vit_layer=-2)


def split_budget(n: int) -> tuple[int, int]:
    """(dominant, contextual) of a budget."""
    contextual = int(CONTEXTUAL * n + 0.5)
    return n - contextual, contextual


def zip_tokens(piece: Piece, n: int) -> Reduced:
    """n tokens of one tile, the contextual ones rewritten."""
    features_NC, device = piece.features_NC, piece.features_NC.device
    n_dominant, n_contextual = split_budget(n)
    order_N = piece.attention_N.argsort(descending=True, stable=True)
    rest = order_N[n_dominant:].sort().values
    step = max(1, len(rest) // max(1, n_contextual))
    targets = rest[::step][:n_contextual]
    kept_N = as_mask(torch.cat([order_N[:n_dominant], targets]), len(features_NC), device)
    if n_contextual == 0:
        return Reduced(kept_N)
    others = rest[~kept_N[rest]]
    taker = cosine(piece.keys_Nd[others], piece.keys_Nd[targets]).argmax(dim=1)
    return Reduced(kept_N, merge_mean(features_NC, targets, others, targets[taker]))


def merge_mean(features_NC: Tensor, targets: Tensor, others: Tensor, takers: Tensor) -> Tensor:
    """Features with every target as the mean of itself and the `others` whose taker it is."""
    merged_NC = features_NC.index_add(0, takers, features_NC[others])
    count_N = torch.ones(len(features_NC), device=features_NC.device)
    count_N = count_N.index_add(0, takers, torch.ones(len(others), device=features_NC.device))
    result_NC = features_NC.clone()
    result_NC[targets] = merged_NC[targets] / count_N[targets, None]
    return result_NC
