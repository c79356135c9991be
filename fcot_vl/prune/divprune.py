"""DivPrune: keep the visual tokens that differ most from each other.

This training-free baseline of `fcot_vl.prune` acts before the decoder. It maximizes the minimum distance greedily: the
first token is the one farthest from its nearest neighbor, and every further token is the one farthest from those
already chosen. The distance is the cosine distance of the features after the projector. The budget is spent across all
tiles of a page.

Source: Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models" (arXiv
2503.02175), and copies of its repository, see docs/baselines.md. The single tile of LLaVA corresponds to the whole page
of InternVL here. One difference: two mutually nearest tokens tie, and here the first of a tie is taken instead of the
one that rounding prefers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.before_decoder import ReducedTokens, TokenGroup, apply_before_decoder, as_mask, cosine
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import first_best


def apply_divprune(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with DivPrune until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1].

    Raises:
        ValueError: If a value is out of range.
    """

    def reduce(group: TokenGroup, n: int) -> ReducedTokens:
        features_NC = group.features_NC
        return ReducedTokens(as_mask(most_diverse(features_NC, n), len(features_NC), features_NC.device))

    return apply_before_decoder(model, "divprune", keep, reduce)


def most_diverse(features_NC: Tensor, n: int) -> Tensor:
    """Return the indices of n tokens chosen greedily to be farthest from each other, in the order of selection.

    No value is copied from the device during selection.
    """
    distance_NN = 1 - cosine(features_NC, features_NC)
    distance_NN.fill_diagonal_(torch.inf)
    chosen = [first_best(distance_NN.min(dim=1).values)[None]]
    nearest_N = distance_NN.index_select(0, chosen[0])[0]
    while len(chosen) < n:
        nearest_N = nearest_N.index_fill(0, chosen[-1], -torch.inf)
        chosen.append(first_best(nearest_N)[None])
        nearest_N = torch.minimum(nearest_N, distance_NN.index_select(0, chosen[-1])[0])
    return torch.cat(chosen)
