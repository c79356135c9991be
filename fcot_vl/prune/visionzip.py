"""VisionZip: keep the tokens that the ViT attends to, and merge the others into a few contextual tokens.

This training-free baseline of `fcot_vl.prune` acts before the decoder. In every tile, the tokens with most attention of
the CLS token are dominant and remain unchanged. Of the others, evenly spaced ones become contextual. Each remaining
token is assigned to the contextual token with the most similar key. A contextual token becomes half itself, half the
mean of the tokens assigned to it. 10 of 64 tokens of a budget are contextual, as in the paper.

Source: Yang et al. 2024, "VisionZip: Longer is Better but Not Necessary in Vision Language Models" (arXiv 2412.04467),
and copies of its repository, see docs/baselines.md. Differences:

- Merging happens after InternVL's pixel shuffle and projector instead of before the projector, where the reference adds
  the mean to the token.
- A contextual token keeps its place in the page instead of following the dominant ones.
- InternVL drops CLS itself, which the reference passes on as one of the dominant tokens. A patch takes its place.

The budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import ReducedTokens, TokenGroup, apply_before_decoder, as_mask, cosine
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import first_best
from fcot_vl.prune.vit_attention import VitAttentionProbe

CONTEXTUAL = 10 / 64  # share of the budget


def apply_visionzip(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with VisionZip until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, dominant and contextual, (0, 1].

    Raises:
        ValueError: If a value is out of range, or the model does not have InternVL's ViT.
    """
    return apply_before_decoder(model, "visionzip", keep, zip_tokens, VitAttentionProbe(model))


def split_budget(n: int) -> tuple[int, int]:
    """Split a budget into (dominant, contextual) tokens."""
    contextual = int(CONTEXTUAL * n + 0.5)
    return n - contextual, contextual


def zip_tokens(group: TokenGroup, n: int) -> ReducedTokens:
    """Reduce a tile to n tokens, with the contextual ones rewritten."""
    features_NC, device = group.features_NC, group.features_NC.device
    n_dominant, n_contextual = split_budget(n)
    order_N = group.attention_N.argsort(descending=True, stable=True)
    rest = order_N[n_dominant:].sort().values
    step = max(1, len(rest) // max(1, n_contextual))
    targets = rest[::step][:n_contextual]
    kept_N = as_mask(torch.cat([order_N[:n_dominant], targets]), len(features_NC), device)
    if n_contextual == 0:
        return ReducedTokens(kept_N)
    others = rest[~kept_N[rest]]
    taker = first_best(cosine(group.keys_Nd[others], group.keys_Nd[targets]))
    return ReducedTokens(kept_N, merge_halves(features_NC, targets, others, targets[taker]))


def merge_halves(features_NC: Tensor, targets: Tensor, others: Tensor, takers: Tensor) -> Tensor:
    """Replace every target with half itself and half the mean of the `others` assigned to it, if there are any.

    Args:
        features_NC: Features of all tokens.
        targets: Indices of the contextual tokens.
        others: Indices of the tokens to merge.
        takers: Index of the target to which each of `others` is assigned.
    """
    sum_NC = torch.zeros_like(features_NC).index_add(0, takers, features_NC[others])
    count_N = torch.bincount(takers, minlength=len(features_NC))
    targets = targets[count_N[targets] > 0]
    result_NC = features_NC.clone()
    result_NC[targets] = (features_NC[targets] + sum_NC[targets] / count_N[targets, None]) / 2
    return result_NC
