"""Input and output types of a method's choice of tokens, and ways of choosing that several methods share.

Shapes: B rows, L tokens of the padded prompt, C channels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fcot_vl.prune.budget import n_kept


@dataclass(frozen=True)
class PrefillTokens:
    """Input of a method's choice: the tokens of one prefill.

    At a second drop, all fields hold only the tokens that the first drop left.

    Attributes:
        image_BL: Mask of the visual tokens.
        valid_BL: Mask of the tokens that are not padding.
        input_ids_BL: Token ids as passed to the model.
        pixel_values: Tiles of all rows [n_tiles, 3, h, w], or None if features were passed instead.
        hidden_BLC: Input of the layer of the drop; at layer 0, the visual features after the projector and the
            embeddings of the text.
    """

    image_BL: Tensor
    valid_BL: Tensor
    input_ids_BL: Tensor
    pixel_values: Tensor | None
    hidden_BLC: Tensor | None = None

    def counts(self) -> list[int]:
        """Return the number of visual tokens of every row."""
        counts: list[int] = self.image_BL.sum(dim=1).tolist()
        return counts


@dataclass(frozen=True)
class Choice:
    """Choice of a method that merges tokens.

    Attributes:
        kept_BL: Mask of the visual tokens to keep.
        hidden_BLC: Hidden states of the prompt, rewritten where other tokens were merged into a kept token.
        size_BL: Number of tokens that each token represents, if attention should count it that often (its logit is
            raised by the logarithm), or None.
    """

    kept_BL: Tensor
    hidden_BLC: Tensor
    size_BL: Tensor | None = None


# Cosines closer than this are equal up to rounding, which differs between instruction sets.
TIE = 1e-5
Select = Callable[[PrefillTokens], Tensor | Choice]  # a tensor is bool [B, L]: the visual tokens to keep


def keep_top(prefill: PrefillTokens, score_BL: Tensor, keep: float) -> Tensor:
    """Return the mask [B, L] of the `n_kept` best-scored visual tokens of every row; ties go to the earlier token."""
    return keep_counts(prefill, score_BL, [n_kept(keep, n) for n in prefill.counts()])


def keep_counts(prefill: PrefillTokens, score_BL: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mask [B, L] of the best-scored visual tokens of every row, as many as given in `counts`."""
    score_BL = score_BL.masked_fill(~prefill.image_BL, -torch.inf)
    order_BL = score_BL.argsort(dim=1, descending=True, stable=True)
    rank_BL = order_BL.argsort(dim=1)
    wanted_B = torch.tensor(counts, device=rank_BL.device)
    return prefill.image_BL & (rank_BL < wanted_B[:, None])


def first_best(score_MN: Tensor, tie: float | Tensor = TIE) -> Tensor:
    """Return the index of the best score of every row, [M] or a scalar.

    Among scores equal up to rounding, the lowest index is returned. Two tokens that are each other's nearest neighbor,
    or copies of one token, have the same score in exact arithmetic. Which of them has the larger float depends on the
    processor. No value is copied from the device.
    """
    best_M1 = score_MN.max(dim=-1, keepdim=True).values
    return (score_MN >= best_M1 - tie).to(torch.uint8).argmax(dim=-1)


def best_first(score_MN: Tensor, tie: float | Tensor = TIE) -> Tensor:
    """Return the indices of the scores of every row from best to worst; scores equal up to rounding keep their order.

    Scores are equal if each differs from the next one by at most `tie`.
    """
    sorted_MN, order_MN = score_MN.sort(dim=-1, descending=True, stable=True)
    group_MN = torch.zeros_like(order_MN)
    group_MN[..., 1:] = (sorted_MN[..., :-1] - sorted_MN[..., 1:] > tie).cumsum(dim=-1)
    key_MN = group_MN * score_MN.shape[-1] + order_MN
    return order_MN.gather(-1, key_MN.argsort(dim=-1))


def row_fingerprints(prefill: PrefillTokens) -> list[int]:
    """Compute one number below 2**32 per row from its tokens and pixels only, independent of its batch and padding."""
    counts = prefill.counts()
    tiles = prefill.pixel_values
    tokens_per_tile = sum(counts) // len(tiles) if tiles is not None and len(tiles) else 0
    fingerprints, first_tile = [], 0
    for ids_L, valid_L, count in zip(prefill.input_ids_BL, prefill.valid_BL, counts, strict=True):
        fingerprint = zlib.crc32(ids_L[valid_L].cpu().numpy().tobytes())
        if tiles is not None and tokens_per_tile:
            next_tile = first_tile + count // tokens_per_tile
            pixels = tiles[first_tile:next_tile].float().cpu().contiguous()
            fingerprint = zlib.crc32(pixels.numpy().tobytes(), fingerprint)
            first_tile = next_tile
        fingerprints.append(fingerprint)
    return fingerprints
