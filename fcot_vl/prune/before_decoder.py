"""What the peers that act before the decoder share: features of a tile in, fewer and maybe merged features out.

Between the projector and the first decoder layer. The engine drops at layer 0, so the prompt's placeholders go with
the features, the KV cache holds the kept tokens only, and kept tokens keep the position ids they had, as in FastV; a
merged token stands where the token stood that took the others in. Tokens are counted after InternVL's pixel shuffle,
see `fcot_vl.prune.vit` for what the ViT knows of a token's 2x2 patches. References merge in front of the projector;
InternVL's begins with a LayerNorm, so a sum and a mean are the same there. Behind it they are not, and peers here take
means.

A row's budget is `n_kept(keep, its visual tokens)`, always met exactly. A peer that rates tokens by their own tile's
CLS spends it evenly over the row's tiles, which differ by one token at most; the others spend it across tiles.

Shapes: N tokens of a tile (or of a row), C channels of the decoder, d channels of a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.engine import decoder_of, install
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import Choice, Prompt
from fcot_vl.prune.vit import VitWatch


@dataclass(frozen=True)
class Piece:
    """The visual tokens that share a budget: those of a tile, or of a row where no ViT is asked.

    features_NC: float32, behind the projector. attention_N: share of the attention of the ViT's CLS, mean over heads.
    keys_Nd: the ViT's keys, mean over heads. The last two are empty where no ViT is asked.
    """

    features_NC: Tensor
    attention_N: Tensor
    keys_Nd: Tensor


@dataclass(frozen=True)
class Reduced:
    """What is left: kept_N bool; features_NC where kept ones were rewritten; size_N see `prompt.Choice`."""

    kept_N: Tensor
    features_NC: Tensor | None = None
    size_N: Tensor | None = None


Reduce = Callable[[Piece, int], Reduced]  # (tokens, how many may stay) -> exactly that many


def apply_before_decoder(
    model: nn.Module, method: str, keep: float, reduce: Reduce, watch: VitWatch | None = None
) -> PruneHandle:
    """Put `reduce` between projector and decoder until the returned handle is removed.

    keep: share of visual tokens that stay, (0, 1]. watch: of the model's ViT, whose attention and keys are given to
    `reduce` tile by tile; None: no ViT is asked, and `reduce` sees whole rows. Raises ValueError for values out of
    range.
    """

    def select(prompt: Prompt) -> Choice:
        assert prompt.hidden_BLC is not None
        found = None if watch is None else watch.take(sum(prompt.counts()))
        return _reduce_rows(prompt, prompt.hidden_BLC, found, keep, reduce)

    handle = PruneHandle(method, keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    if watch is not None:
        handle.hooks += watch.hooks()
    return handle


def shares_of(budget: int, n_tiles: int) -> list[int]:
    """A row's budget over its tiles: whole numbers that differ by one at most."""
    return [(t + 1) * budget // n_tiles - t * budget // n_tiles for t in range(n_tiles)]


def _reduce_rows(
    prompt: Prompt, hidden_BLC: Tensor, found: tuple[Tensor, Tensor] | None, keep: float, reduce: Reduce
) -> Choice:
    kept_BL, merged_BLC = prompt.image_BL.clone(), hidden_BLC.clone()
    size_BL = torch.ones(kept_BL.shape, device=hidden_BLC.device)
    n_sized, first_tile = 0, 0
    for row, count in enumerate(prompt.counts()):
        if count == 0:
            continue
        where = prompt.image_BL[row].nonzero()[:, 0]
        n_tiles = 1 if found is None else count // found[0].shape[1]
        budget = n_kept(keep, count)
        if budget < count:
            features = hidden_BLC[row, where].float().chunk(n_tiles)
            for tile, (place, n) in enumerate(
                zip(where.chunk(n_tiles), shares_of(budget, n_tiles), strict=True)
            ):
                nothing = features[tile].new_zeros(0)
                sides = (
                    (nothing, nothing) if found is None else tuple(part[first_tile + tile] for part in found)
                )
                left = _reduced(reduce, Piece(features[tile], *sides), n)
                kept_BL[row, place] = left.kept_N
                if left.features_NC is not None:
                    merged_BLC[row, place] = left.features_NC.to(merged_BLC.dtype)
                if left.size_N is not None:
                    size_BL[row, place] = left.size_N
                    n_sized += 1
        first_tile += n_tiles
    return Choice(kept_BL, merged_BLC, size_BL if n_sized else None)


def _reduced(reduce: Reduce, piece: Piece, n: int) -> Reduced:
    n_tokens = len(piece.features_NC)
    if n in (0, n_tokens):
        return Reduced(torch.full((n_tokens,), bool(n), device=piece.features_NC.device))
    left = reduce(piece, n)
    assert int(left.kept_N.sum()) == n, "a peer kept other than its budget"
    return left


def as_mask(index: Any, n_tokens: int, device: torch.device) -> Tensor:
    """Token numbers as bool [n_tokens]."""
    mask = torch.zeros(n_tokens, dtype=torch.bool, device=device)
    mask[index] = True
    return mask


def evenly(n_tokens: int, n: int) -> list[int]:
    """n of the numbers below n_tokens: the middles of n equal stretches."""
    return [(2 * i + 1) * n_tokens // (2 * n) for i in range(n)]


def cosine(a_NC: Tensor, b_MC: Tensor) -> Tensor:
    """Cosine similarities [N, M]."""
    normalize = torch.nn.functional.normalize
    return normalize(a_NC, dim=-1) @ normalize(b_MC, dim=-1).T
