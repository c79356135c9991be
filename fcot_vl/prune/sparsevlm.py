"""SparseVLM: text tokens that attend to the image rate its tokens; dropped tokens leave a few clusters behind.

This training-free baseline of `fcot_vl.prune` acts inside the decoder. Three times, after layers 2, 6 and 15 of 32
counted from 0, visual tokens are ranked by the attention in that layer, averaged over the raters. The raters are the
words after the image that are most similar to the visual tokens at the input of the decoder (their share of
softmax(visual x text) is above the mean). The best visual tokens are kept. The best 30% of the dropped tokens are
recycled: they are clustered by density peaks, one cluster for every ten tokens, and each cluster becomes a token with
the mean of its members. The budget includes the clusters.

`keep` is the share averaged over the decoder's layers, as the paper counts ("192 of 576 tokens" are 300, 200 and 110).
Each drop keeps the same share of the remaining tokens, chosen so that the mean over layers is `keep`.

Source: Zhang et al. 2024, "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference" (arXiv
2410.04417), and the first version in its repository, see docs/baselines.md. Differences:

- Shares follow from the budget. The reference has tables for LLaVA's 576 tokens (300, 200, 110; 303, 110, 36; 66, 30,
  17) to which clusters are added, and in its rank-based variant a multiple of the rank of the attention map.
- A cluster takes the position of its center instead of following the other tokens.
- Positions are kept instead of renumbered.
- Equal densities are ordered by index, not by noise.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.prune.budget import Drop, shares_by_layer
from fcot_vl.prune.decoder_attention import DecoderAttentionProbe
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import TIE, Choice, PrefillTokens, best_first, first_best, keep_counts

AT = (3 / 32, 7 / 32, 16 / 32)  # first layer without the dropped tokens, as fractions of the depth
RECYCLED, PER_CLUSTER = 0.3, 10


def sparse_drops(keep: float, n_layers: int) -> tuple[Drop, ...]:
    """Return (layer, share of the image's tokens from that layer on) of three drops whose mean over layers is `keep`.

    Raises:
        ValueError: If the decoder has fewer than four layers, or its first layers alone already use the share.
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

    Args:
        model: Model to prune.
        keep: Share of visual tokens averaged over the decoder's layers, (0, 1].

    Raises:
        ValueError: If a value is out of range or too small for the decoder, or the decoder has no query and key
            projections.
    """
    decoder = decoder_of(model)
    drops = sparse_drops(keep, len(decoder.layers))
    handle = PruneHandle("sparsevlm", keep, drops[0][0], len(decoder.layers), drops)
    probes = [DecoderAttentionProbe(decoder.layers[layer - 1]) for layer, _ in drops]
    raters = Raters()

    def choose(probe: DecoderAttentionProbe, share: float, prefill: PrefillTokens) -> Choice:
        return keep_and_recycle(
            prefill, probe.rows(prefill.valid_BL, raters.among(prefill)), handle.budget(share)
        )

    selects = [partial(choose, probe, share) for probe, (_, share) in zip(probes, drops, strict=True)]
    install(model, handle, *selects)
    handle.hooks.append(decoder.register_forward_pre_hook(raters.record_prompt, with_kwargs=True))
    for probe in probes:
        handle.hooks += probe.hooks()
    return handle


class Raters:
    """The words that rate visual tokens, chosen at the first drop of a prefill and reused at the others."""

    def __init__(self) -> None:
        self.embeds_BLC: Tensor | None = None  # input of the decoder, until the raters are chosen
        self.chosen: list[Tensor] = []  # mask of the raters among the words of each row, bool

    def record_prompt(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        embeds_BLC = kwargs["inputs_embeds"]
        self.embeds_BLC = embeds_BLC if embeds_BLC.shape[1] > 1 else None

    def among(self, prefill: PrefillTokens) -> Tensor:
        """Return the raters of a prompt, bool [B, L]; at least one per row. Visual tokens may be dropped already."""
        words_BL = words(prefill)
        if self.embeds_BLC is not None:
            image = [row[image] for row, image in zip(self.embeds_BLC, prefill.image_BL, strict=True)]
            text = [row[words] for row, words in zip(self.embeds_BLC, words_BL, strict=True)]
            self.chosen = [most_similar(*row) for row in zip(text, image, strict=True)]
            self.embeds_BLC = None
        rater_BL = torch.zeros_like(words_BL)
        rater_BL[words_BL] = torch.cat(self.chosen)
        return rater_BL


def words(prefill: PrefillTokens) -> Tensor:
    """Return the mask of the words after the last visual token, bool [B, L].

    In a row without any, the last token is selected.
    """
    places = torch.arange(prefill.image_BL.shape[1], device=prefill.image_BL.device)
    last_image_B = (places * prefill.image_BL).max(dim=1).values
    last_B = (places * prefill.valid_BL).max(dim=1).values
    behind_BL = prefill.valid_BL & ~prefill.image_BL & (places > last_image_B[:, None])
    none_B = ~behind_BL.any(dim=1)
    return behind_BL | (none_B[:, None] & (places == last_B[:, None]))


def most_similar(text_TC: Tensor, image_NC: Tensor) -> Tensor:
    """Return the mask of the words whose similarity to the visual tokens is above the mean over words, bool [T].

    If there is no such word, as with a single word, all words are selected.
    """
    share_T = (image_NC.float() @ text_TC.float().T).softmax(dim=1).mean(dim=0)
    above_T = share_T > share_T.mean()
    return above_T if len(image_NC) and above_T.any() else torch.ones_like(above_T)


def recycled(n_before: int, n_after: int) -> tuple[int, int]:
    """Return (tokens recycled, clusters they become) when a drop leaves `n_after` of `n_before`, clusters included."""
    if n_after in (1, n_before):
        return 0, 0
    n_clusters, wanted, n_pool = 0, 1, 0
    while n_clusters < wanted:  # every cluster takes the place of a kept token, so one more token is dropped
        n_clusters += 1
        n_pool = int(RECYCLED * (n_before - n_after + n_clusters)) + 1
        wanted = min(n_pool // PER_CLUSTER + 1, n_after - 1)
    return n_pool, n_clusters


def keep_and_recycle(prefill: PrefillTokens, score_BL: Tensor, counts: list[int]) -> Choice:
    """Keep the best-scored tokens of every row and clusters of the next best ones, `counts` together."""
    assert prefill.hidden_BLC is not None
    hidden_BLC = prefill.hidden_BLC.clone()
    plans = [recycled(before, after) for before, after in zip(prefill.counts(), counts, strict=True)]
    kept_BL = keep_counts(
        prefill, score_BL, [n - clusters for n, (_, clusters) in zip(counts, plans, strict=True)]
    )
    left = prefill.image_BL & ~kept_BL
    pool_BL = (
        keep_counts(prefill, score_BL.masked_fill(~left, -torch.inf), [pool for pool, _ in plans]) & left
    )
    for row, (_, n_clusters) in enumerate(plans):
        if n_clusters:
            pool = pool_BL[row].nonzero()[:, 0]
            centers, means = cluster(hidden_BLC[row, pool].float(), n_clusters)
            kept_BL[row, pool[centers]] = True
            hidden_BLC[row, pool[centers]] = means.to(hidden_BLC.dtype)
    return Choice(kept_BL, hidden_BLC)


def cluster(features_NC: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Cluster features by density peaks (Du et al. 2016).

    A center has many near neighbors and is far from any token that has more.

    Returns:
        Indices of the n centers [n], and the means of their members [n, C].
    """
    distance_NN = torch.cdist(features_NC, features_NC) / features_NC.shape[1] ** 0.5
    nearest = distance_NN.topk(n, largest=False).values  # as many neighbors as centers, as in the source
    spread_N = nearest.square().mean(dim=1)
    density_N = (-spread_N).exp()
    # in a tie up to rounding, the earlier token counts as denser
    rank_N = best_first(-spread_N, TIE * spread_N.max()).argsort()
    denser_NN = rank_N[None] < rank_N[:, None]
    far_N = distance_NN.masked_fill(~denser_NN, torch.inf).min(dim=1).values
    far_N = torch.where(far_N.isinf(), distance_NN.max(), far_N)
    score_N = density_N * far_N
    centers = best_first(score_N, TIE * score_N.max())[:n]
    owner_N = first_best(-distance_NN[:, centers], TIE * distance_NN.max())
    owner_N[centers] = torch.arange(n, device=centers.device)
    member_nN = torch.nn.functional.one_hot(owner_N, n).T.float()
    return centers, member_nN @ features_NC / member_nN.sum(dim=1, keepdim=True)
