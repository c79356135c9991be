"""ToMe: the most similar tokens are merged in pairs, round by round, into their size-weighted mean.

One of the training-free peers of `fcot_vl.prune`, before the decoder. Bipartite soft matching in every tile: the tokens
in turn form two sets, every token of the first finds its most similar one in the second by the ViT's keys, and the most
similar pairs are merged into the token of the second. A merged token remembers how many tokens it stands for, and
the decoder's attention counts it that often (the logit is raised by the logarithm of its size).

Source: Bolya et al. 2022, "Token Merging: Your ViT But Faster" (arXiv 2210.09461), and its repository, see
docs/peers.md. Differences: ToMe merges a few tokens in every ViT layer, which would destroy the square grid that
InternVL's pixel shuffle needs; here all are merged behind pixel shuffle and projector, by the keys of the last ViT
layer (averaged over heads, as in the source, and over 2x2 patches, and along with the tokens), in as many rounds as
the budget takes, each at most by half. Proportional attention is therefore the decoder's, and it counts the text's
tokens once. A token keeps its place in the tile between rounds (the reference puts unmerged tokens of the first set in
front; where a tile has a power of two of tokens, all rounds but the last merge that whole set, and nothing comes of
it). The budget is per tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import Piece, Reduced, apply_before_decoder, as_mask, cosine
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import best_first, first_best
from fcot_vl.prune.vit import VitWatch


def apply_tome(model: nn.Module, keep: float) -> PruneHandle:
    """Merge `model`'s visual tokens with ToMe until the returned handle is removed.

    keep: share of visual tokens that is left, (0, 1]. Raises ValueError for values out of range or a model without
    InternVL's ViT.
    """
    return apply_before_decoder(model, "tome", keep, merge_pairs, VitWatch(model))


def match(keys_Nd: Tensor, n_merged: int) -> tuple[Tensor, Tensor]:
    """Token numbers (from, to) of the `n_merged` most similar pairs; from even numbers, to odd ones."""
    likeness_MN = cosine(keys_Nd[::2], keys_Nd[1::2])
    partner = first_best(likeness_MN)
    best = best_first(likeness_MN.max(dim=1).values)[:n_merged]
    return 2 * best, 2 * partner[best] + 1


def merge_pairs(piece: Piece, n: int) -> Reduced:
    """n tokens of one tile, with the number of tokens that each stands for."""
    device, n_tokens = piece.features_NC.device, len(piece.features_NC)
    place = torch.arange(n_tokens, device=device)  # where the tokens that are left stand in the tile
    size = torch.ones(n_tokens, 1, device=device)
    weighted, keys = piece.features_NC, piece.keys_Nd  # both times size, which a cosine does not see
    while len(place) > n:
        source, target = match(keys, min(len(place) - n, len(place) // 2))
        stays = ~as_mask(source, len(place), device)
        weighted, keys, size = (
            part.index_add(0, target, part[source])[stays] for part in (weighted, keys, size)
        )
        place = place[stays]
    features_NC, size_N = piece.features_NC.clone(), torch.ones(n_tokens, device=device)
    features_NC[place], size_N[place] = weighted / size, size[:, 0]
    return Reduced(as_mask(place, n_tokens, device), features_NC, size_N)
