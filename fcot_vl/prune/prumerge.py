"""LLaVA-PruMerge+: outliers of the ViT's attention and evenly spread tokens stay, the others are merged into them.

One of the training-free peers of `fcot_vl.prune`, before the decoder. In every tile, tokens whose attention of CLS at
the ViT's layer -2 lies more than 1.5 interquartile ranges above the third quartile stay; the rest of the budget is
spread evenly over the tokens that are left (the "+"). Every kept token then becomes a mean of itself and the dropped
tokens whose keys are nearest to its own, weighted by attention of CLS.

Source: Shang et al. 2024, "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models" (arXiv
2403.15388). Differences: the number of tokens is the budget instead of following from the outliers (more outliers than
the budget: the most attended ones stay), so that peers are compared at equal tokens; the weighted sum is divided by its
weights; 32 neighbours of LLaVA's 576 tokens become the same share of a tile's; behind InternVL's pixel shuffle and
projector, scores and keys averaged over 2x2 patches. The budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import Piece, Reduced, apply_before_decoder, as_mask, cosine, evenly
from fcot_vl.prune.engine import PruneHandle

NEIGHBOURS = 32 / 576  # share of a tile's tokens


def apply_prumerge(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with LLaVA-PruMerge+ until the returned handle is removed.

    keep: share of visual tokens that stay, (0, 1]. Raises ValueError for values out of range or a model without
    InternVL's ViT.
    """
    return apply_before_decoder(model, "prumerge", keep, prune_and_merge, vit_layer=-2)


def outliers(attention_N: Tensor) -> Tensor:
    """Tokens far above the others: more than 1.5 interquartile ranges above the third quartile; bool [N]."""
    low, high = attention_N.quantile(attention_N.new_tensor([0.25, 0.75]))
    return attention_N > high + 1.5 * (high - low)


def prune_and_merge(piece: Piece, n: int) -> Reduced:
    """n tokens of one tile, all rewritten."""
    attention_N, features_NC = piece.attention_N, piece.features_NC
    n_tokens = len(attention_N)
    order_N = attention_N.argsort(descending=True, stable=True)
    first = order_N[: min(n, int(outliers(attention_N).sum()))]
    rest = order_N[len(first) :].sort().values
    spread = rest[evenly(len(rest), n - len(first))] if n > len(first) else rest[:0]
    kept_N = as_mask(torch.cat([first, spread]), n_tokens, features_NC.device)
    kept, dropped = kept_N.nonzero()[:, 0], (~kept_N).nonzero()[:, 0]
    n_near = min(len(dropped), max(1, int(NEIGHBOURS * n_tokens + 0.5)))
    near = cosine(piece.keys_Nd[kept], piece.keys_Nd[dropped]).topk(n_near, dim=1).indices
    group = torch.cat([kept[:, None], dropped[near]], dim=1)
    weight = attention_N[group].clamp(min=1e-9)
    weight = weight / weight.sum(dim=1, keepdim=True)
    merged_NC = features_NC.clone()
    merged_NC[kept] = (features_NC[group] * weight[..., None]).sum(dim=1)
    return Reduced(kept_N, merged_NC)
