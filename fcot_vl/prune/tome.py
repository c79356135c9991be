"""ToMe: merge the most similar tokens in pairs, round by round, into their size-weighted mean.

This training-free baseline of `fcot_vl.prune` acts before the decoder. It applies bipartite soft matching in every
tile. The tokens alternately form two sets. Every token of the first set is matched with its most similar token in the
second set, by the ViT's keys, and the most similar pairs are merged into the token of the second set. A merged token
records the number of tokens it represents, and the attention of the decoder counts it that often (the logit is raised
by the logarithm of its size).

Source: Bolya et al. 2022, "Token Merging: Your ViT But Faster" (arXiv 2210.09461), and its repository, see
docs/baselines.md. Differences:

- ToMe merges a few tokens in every ViT layer, which would destroy the square grid that InternVL's pixel shuffle needs.
  Here all merging happens after pixel shuffle and projector, in as many rounds as the budget requires, each of which
  removes at most half of the tokens.
- Tokens are matched by the keys of the last ViT layer, averaged over heads (as in the source), over 2x2 patches, and
  over merged tokens.
- Proportional attention is therefore that of the decoder, and it counts each text token once.
- A token keeps its place in the tile between rounds. The reference puts unmerged tokens of the first set first. If the
  number of tokens of a tile is a power of two, all rounds but the last merge the whole first set, and this makes no
  difference.

The budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import ReducedTokens, TokenGroup, apply_before_decoder, as_mask, cosine
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import best_first, first_best
from fcot_vl.prune.vit_attention import VitAttentionProbe


def apply_tome(model: nn.Module, keep: float) -> PruneHandle:
    """Merge the visual tokens of `model` with ToMe until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens that remains, (0, 1].

    Raises:
        ValueError: If a value is out of range, or the model does not have InternVL's ViT.
    """
    return apply_before_decoder(model, "tome", keep, merge_pairs, VitAttentionProbe(model))


def match(keys_Nd: Tensor, n_merged: int) -> tuple[Tensor, Tensor]:
    """Return the token indices (from, to) of the `n_merged` most similar pairs, from even to odd indices."""
    likeness_MN = cosine(keys_Nd[::2], keys_Nd[1::2])
    partner = first_best(likeness_MN)
    best = best_first(likeness_MN.max(dim=1).values)[:n_merged]
    return 2 * best, 2 * partner[best] + 1


def merge_pairs(group: TokenGroup, n: int) -> ReducedTokens:
    """Reduce a tile to n tokens, with the number of tokens that each represents."""
    device, n_tokens = group.features_NC.device, len(group.features_NC)
    place = torch.arange(n_tokens, device=device)  # indices of the remaining tokens in the tile
    size = torch.ones(n_tokens, 1, device=device)
    weighted, keys = group.features_NC, group.keys_Nd  # both scaled by size, which does not change a cosine
    while len(place) > n:
        source, target = match(keys, min(len(place) - n, len(place) // 2))
        stays = ~as_mask(source, len(place), device)
        weighted, keys, size = (
            part.index_add(0, target, part[source])[stays] for part in (weighted, keys, size)
        )
        place = place[stays]
    features_NC, size_N = group.features_NC.clone(), torch.ones(n_tokens, device=device)
    features_NC[place], size_N[place] = weighted / size, size[:, 0]
    return ReducedTokens(as_mask(place, n_tokens, device), features_NC, size_N)
