"""SparseVLM: the words that look at the picture rate its tokens; what is dropped leaves a few clusters behind.

One of the training-free peers of `fcot_vl.prune`, inside the decoder. Three times, at 2/32, 6/32 and 15/32 of the
depth, visual tokens are ranked by attention in the layer below, averaged over the raters: those words behind the
picture that the visual tokens are most like (their share of softmax(visual x text) is at least the mean). The best
stay. Of the dropped ones, the best 30% are recycled: clustered by density peaks, one cluster for every ten, each a
token with the mean of its members. The budget counts them.

`keep` is the share averaged over the decoder's layers, as the paper counts ("192 of 576 tokens" are 300, 200 and 110):
each drop leaves the same share of what was there, chosen so that the mean over layers comes out.

Source: Zhang et al. 2024, "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference" (arXiv
2410.04417). Differences: the shares follow from the budget instead of the rank of the attention map; raters are chosen
anew at every drop from the hidden states there, from the words behind the last picture; attention is causal; a cluster
stands at the position of its centre instead of behind the other tokens.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fcot_vl.prune.engine import (
    Choice,
    Drop,
    Prompt,
    PruneHandle,
    decoder_of,
    install,
    keep_counts,
    shares_by_layer,
)
from fcot_vl.prune.rating import DecoderWatch

AT = (2 / 32, 6 / 32, 15 / 32)  # of the decoder's depth
RECYCLED, PER_CLUSTER, NEIGHBOURS = 0.3, 10, 5


def sparse_drops(keep: float, n_layers: int) -> tuple[Drop, ...]:
    """(layer, share of the picture's tokens from there on) of the three drops, whose mean over layers is `keep`.

    Raises ValueError for a decoder of fewer than four layers, or a share that its first layers alone cost already.
    """
    if n_layers < 4:
        raise ValueError(f"SparseVLM drops at three layers above the first, this decoder has {n_layers}.")
    layers = [max(i + 1, round(at * n_layers)) for i, at in enumerate(AT)]
    if keep * n_layers <= layers[0] + 1e-9:
        raise ValueError(
            f"SparseVLM cannot keep {keep:.0%} on average: the layers below its first drop, at layer {layers[0]} of "
            f"{n_layers}, cost {layers[0] / n_layers:.0%} already."
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        drops = tuple((layer, share ** (i + 1)) for i, layer in enumerate(layers))
        low, high = (share, high) if sum(shares_by_layer(drops, n_layers)) < keep * n_layers else (low, share)
    share = 1.0 if keep >= 1 else high
    return tuple((layer, share ** (i + 1)) for i, layer in enumerate(layers))


def apply_sparsevlm(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with SparseVLM until the returned handle is removed.

    keep: share of visual tokens averaged over the decoder's layers, (0, 1]. Raises ValueError for values out of range
    or too small for the decoder, or a decoder without query and key projections.
    """
    decoder = decoder_of(model)
    drops = sparse_drops(keep, len(decoder.layers))
    handle = PruneHandle("sparsevlm", keep, drops[0][0], len(decoder.layers), drops)
    watches = [DecoderWatch(decoder.layers[layer - 1]) for layer, _ in drops]

    def choose(watch: DecoderWatch, share: float, prompt: Prompt) -> Choice:
        score_BL = watch.rows(prompt.valid_BL, raters(prompt))
        return keep_and_recycle(prompt, score_BL, handle.budget(share))

    selects = [partial(choose, watch, share) for watch, (_, share) in zip(watches, drops, strict=True)]
    install(model, handle, *selects)
    for watch in watches:
        handle.hooks += watch.hooks()
    return handle


def raters(prompt: Prompt) -> Tensor:
    """The words behind the last visual token that visual tokens are most like, bool [B, L]; never none in a row."""
    assert prompt.hidden_BLC is not None
    places = torch.arange(prompt.image_BL.shape[1], device=prompt.image_BL.device)
    last_image_B = (places * prompt.image_BL).max(dim=1).values
    text_BL = prompt.valid_BL & ~prompt.image_BL & (places > last_image_B[:, None])
    chosen_BL = torch.zeros_like(text_BL)
    for row, (text_L, image_L) in enumerate(zip(text_BL, prompt.image_BL, strict=True)):
        if not text_L.any() or not image_L.any():
            chosen_BL[row, places[prompt.valid_BL[row]][-1]] = True  # nothing to choose from: the last token
            continue
        hidden_LC = prompt.hidden_BLC[row].float()
        relevance_T = (hidden_LC[image_L] @ hidden_LC[text_L].T).softmax(dim=1).mean(dim=0)
        chosen_BL[row, text_L.nonzero()[:, 0][relevance_T >= relevance_T.mean()]] = True
    return chosen_BL


def recycled(n_before: int, n_after: int) -> tuple[int, int]:
    """(tokens recycled, clusters they become) when a drop leaves `n_after` of `n_before`, clusters included."""
    n_pool = int(RECYCLED * (n_before - n_after))
    return n_pool, min(n_pool // PER_CLUSTER + 1, n_after - 1) if n_pool else 0


def keep_and_recycle(prompt: Prompt, score_BL: Tensor, counts: list[int]) -> Choice:
    """The best-scored tokens of every row and the clusters of the next best, `counts` together."""
    assert prompt.hidden_BLC is not None
    hidden_BLC = prompt.hidden_BLC.clone()
    plans = [recycled(before, after) for before, after in zip(prompt.counts(), counts, strict=True)]
    kept_BL = keep_counts(
        prompt, score_BL, [n - clusters for n, (_, clusters) in zip(counts, plans, strict=True)]
    )
    left = prompt.image_BL & ~kept_BL
    pool_BL = keep_counts(prompt, score_BL.masked_fill(~left, -torch.inf), [pool for pool, _ in plans]) & left
    for row, (_, n_clusters) in enumerate(plans):
        if n_clusters:
            pool = pool_BL[row].nonzero()[:, 0]
            centres, means = cluster(hidden_BLC[row, pool].float(), n_clusters)
            kept_BL[row, pool[centres]] = True
            hidden_BLC[row, pool[centres]] = means.to(hidden_BLC.dtype)
    return Choice(kept_BL, hidden_BLC)


def cluster(features_NC: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Density-peak clustering (Du et al. 2016): numbers of the n centres [n], and the means of their members [n, C].

    A centre has many near neighbours and is far from any token that has more.
    """
    n_tokens = len(features_NC)
    distance_NN = torch.cdist(features_NC, features_NC) / features_NC.shape[1] ** 0.5
    nearest = distance_NN.topk(min(NEIGHBOURS, n_tokens), largest=False).values
    density_N = (-nearest.square().mean(dim=1)).exp()
    rank_N = density_N.argsort(
        descending=True, stable=True
    ).argsort()  # ties: the earlier token counts as denser
    denser_NN = rank_N[None] < rank_N[:, None]
    far_N = distance_NN.masked_fill(~denser_NN, torch.inf).min(dim=1).values
    far_N = torch.where(far_N.isinf(), distance_NN.max(), far_N)
    centres = (density_N * far_N).argsort(descending=True, stable=True)[:n]
    owner_N = distance_NN[:, centres].argmin(dim=1)
    owner_N[centres] = torch.arange(n, device=centres.device)
    member_nN = torch.nn.functional.one_hot(owner_N, n).T.float()
    return centres, member_nN @ features_NC / member_nN.sum(dim=1, keepdim=True)
