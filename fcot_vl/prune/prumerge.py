"""LLaVA-PruMerge+: keep outliers of the ViT's attention and evenly spread tokens, and merge the others into them.

This training-free baseline of `fcot_vl.prune` acts before the decoder. In every tile, tokens whose share of the CLS
token's attention is more than 1.5 interquartile ranges above the third quartile are kept. The rest of the budget is
spread evenly over the remaining tokens (the "+"). Every kept token is then replaced by a weighted mean of itself, with
weight 1, and the tokens with the keys nearest to its own, weighted by their share of the attention. One additional
token is the mean of all dropped tokens, weighted by their share. The heads of the ViT are treated as one head of its
full width.

Source: Shang et al. 2024, "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models" (arXiv
2403.15388), and its repository, see docs/baselines.md. Differences:

- The number of tokens is the budget, including the additional token, so that methods are compared at equal tokens. In
  the reference it follows from the outliers, with about three spread tokens for each. If there are more outliers than
  the budget, the most attended ones are kept here.
- The sums of the reference are means here.
- The 32 neighbors among LLaVA's 576 tokens become the same share of the tokens of a tile.
- Merging happens after InternVL's pixel shuffle and projector.
- The additional token takes the place of the last dropped token.
- The reference reads the last layer of CLIP, whose input the projector reads. InternVL's projector reads the output of
  the last layer.

The budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import (
    ReducedTokens,
    TokenGroup,
    apply_before_decoder,
    as_mask,
    cosine,
    evenly,
)
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import best_first
from fcot_vl.prune.vit_attention import VitAttentionProbe

NEIGHBORS = 32 / 576  # share of a tile's tokens


def apply_prumerge(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with LLaVA-PruMerge+ until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1].

    Raises:
        ValueError: If a value is out of range, or the model does not have InternVL's ViT.
    """
    return apply_before_decoder(
        model, "prumerge", keep, prune_and_merge, VitAttentionProbe(model, one_head=True)
    )


def outliers(attention_N: Tensor) -> Tensor:
    """Return the mask, bool [N], of tokens more than 1.5 interquartile ranges above the third quartile."""
    low, high = attention_N.quantile(attention_N.new_tensor([0.25, 0.75]))
    return attention_N > high + 1.5 * (high - low)


def prune_and_merge(group: TokenGroup, n: int) -> ReducedTokens:
    """Reduce a tile to n tokens, all rewritten; with a budget of one, there is no mean of the dropped tokens."""
    attention_N, features_NC = group.attention_N, group.features_NC
    n_tokens, n_whole = len(attention_N), max(1, n - 1)
    order_N = attention_N.argsort(descending=True, stable=True)
    first = order_N[: min(n_whole, int(outliers(attention_N).sum()))]
    rest = order_N[len(first) :].sort().values
    spread = rest[evenly(len(rest), n_whole - len(first))]
    kept_N = as_mask(torch.cat([first, spread]), n_tokens, features_NC.device)
    kept, dropped = kept_N.nonzero()[:, 0], (~kept_N).nonzero()[:, 0]
    weight_MN = near(group.keys_Nd, kept) * attention_N
    weight_MN[torch.arange(len(kept)), kept] = 1
    merged_NC = features_NC.clone()
    merged_NC[kept] = weight_MN @ features_NC / weight_MN.sum(dim=1, keepdim=True)
    if n > n_whole:
        share = attention_N[dropped].clamp(min=1e-9)
        merged_NC[dropped[-1]] = share @ features_NC[dropped] / share.sum()
        kept_N[dropped[-1]] = True
    return ReducedTokens(kept_N, merged_NC)


def near(keys_Nd: Tensor, kept: Tensor) -> Tensor:
    """Return the mask [M, N], 0 or 1, of the tokens (kept or not) with the keys nearest to those of each kept token."""
    n_tokens = len(keys_Nd)
    likeness_MN = cosine(keys_Nd[kept], keys_Nd)
    likeness_MN[torch.arange(len(kept)), kept] = -torch.inf
    nearest = best_first(likeness_MN)[:, : min(n_tokens - 1, max(1, int(NEIGHBORS * n_tokens + 0.5)))]
    return torch.zeros_like(likeness_MN).scatter(1, nearest, 1)
