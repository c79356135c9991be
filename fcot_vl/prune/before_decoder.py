"""Base of the methods that act before the decoder: features of a tile in, fewer and possibly merged features out.

These methods act between the projector and the first decoder layer. The hooks drop at layer 0, so the placeholders of
the prompt are removed together with the features, and the KV cache holds only the kept tokens. As in FastV, kept tokens
keep their position ids. A merged token has the position of the token that absorbed the others.

Tokens are counted after InternVL's pixel shuffle; see `fcot_vl.prune.vit_attention` for how the ViT's information on
the 2x2 patches of a token is combined. The reference implementations merge before the projector. InternVL's projector
begins with a LayerNorm, so a sum and a mean are equal before it. They differ after it, where the methods here use
means.

The budget of a row is `n_kept(keep, its visual tokens)` and is always met exactly. A method that ranks tokens by the
CLS token of their tile spends it evenly over the tiles of the row, which differ by at most one token. The other methods
spend it across tiles.

Shapes: N tokens of a tile (or of a row), C channels of the decoder, d channels of a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import Choice, PrefillTokens
from fcot_vl.prune.vit_attention import VitAttentionProbe


@dataclass(frozen=True)
class TokenGroup:
    """Visual tokens that share a budget: those of a tile, or of a row if the ViT is not used.

    Attributes:
        features_NC: Features after the projector, float32.
        attention_N: Share of the attention of the ViT's CLS token, mean over heads. Empty if the ViT is not used.
        keys_Nd: Keys of the ViT, mean over heads. Empty if the ViT is not used.
    """

    features_NC: Tensor
    attention_N: Tensor
    keys_Nd: Tensor


@dataclass(frozen=True)
class ReducedTokens:
    """Visual tokens that are left.

    Attributes:
        kept_N: Mask of the kept tokens, bool.
        features_NC: Features, if kept tokens were rewritten.
        size_N: See `Choice` in `selection.py`.
    """

    kept_N: Tensor
    features_NC: Tensor | None = None
    size_N: Tensor | None = None


Reduce = Callable[[TokenGroup, int], ReducedTokens]  # (tokens, number of tokens to keep) -> exactly that many


def apply_before_decoder(
    model: nn.Module, method: str, keep: float, reduce: Reduce, probe: VitAttentionProbe | None = None
) -> PruneHandle:
    """Apply `reduce` between projector and decoder until the returned handle is removed.

    Args:
        model: Model to prune.
        method: Name of the method.
        keep: Share of visual tokens to keep, (0, 1].
        reduce: Function that reduces a `TokenGroup` to a number of tokens.
        probe: Probe of the model's ViT, whose attention and keys are passed to `reduce` tile by tile. If None, the ViT
            is not used, and `reduce` receives whole rows.

    Raises:
        ValueError: If a value is out of range.
    """

    def select(prefill: PrefillTokens) -> Choice:
        assert prefill.hidden_BLC is not None
        found = None if probe is None else probe.pop(sum(prefill.counts()))
        return _reduce_rows(prefill, prefill.hidden_BLC, found, keep, reduce)

    handle = PruneHandle(method, keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    if probe is not None:
        handle.hooks += probe.hooks()
    return handle


def shares_of(budget: int, n_tiles: int) -> list[int]:
    """Split the budget of a row over its tiles into integers that differ by at most one."""
    return [(t + 1) * budget // n_tiles - t * budget // n_tiles for t in range(n_tiles)]


def _reduce_rows(
    prefill: PrefillTokens,
    hidden_BLC: Tensor,
    found: tuple[Tensor, Tensor] | None,
    keep: float,
    reduce: Reduce,
) -> Choice:
    kept_BL, merged_BLC = prefill.image_BL.clone(), hidden_BLC.clone()
    size_BL = torch.ones(kept_BL.shape, device=hidden_BLC.device)
    n_sized, first_tile = 0, 0
    for row, count in enumerate(prefill.counts()):
        if count == 0:
            continue
        where = prefill.image_BL[row].nonzero()[:, 0]
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
                left = _reduced_group(reduce, TokenGroup(features[tile], *sides), n)
                kept_BL[row, place] = left.kept_N
                if left.features_NC is not None:
                    merged_BLC[row, place] = left.features_NC.to(merged_BLC.dtype)
                if left.size_N is not None:
                    size_BL[row, place] = left.size_N
                    n_sized += 1
        first_tile += n_tiles
    return Choice(kept_BL, merged_BLC, size_BL if n_sized else None)


def _reduced_group(reduce: Reduce, group: TokenGroup, n: int) -> ReducedTokens:
    n_tokens = len(group.features_NC)
    if n in (0, n_tokens):
        return ReducedTokens(torch.full((n_tokens,), bool(n), device=group.features_NC.device))
    left = reduce(group, n)
    assert int(left.kept_N.sum()) == n, f"a method kept {int(left.kept_N.sum())} tokens of a budget of {n}"
    return left


def as_mask(index: Any, n_tokens: int, device: torch.device) -> Tensor:
    """Convert token indices to a bool mask [n_tokens]."""
    mask = torch.zeros(n_tokens, dtype=torch.bool, device=device)
    mask[index] = True
    return mask


def evenly(n_tokens: int, n: int) -> list[int]:
    """Return n of the indices below n_tokens: the middles of n equal stretches."""
    return [(2 * i + 1) * n_tokens // (2 * n) for i in range(n)]


def cosine(a_NC: Tensor, b_MC: Tensor) -> Tensor:
    """Compute cosine similarities [N, M]."""
    normalize = torch.nn.functional.normalize
    return normalize(a_NC, dim=-1) @ normalize(b_MC, dim=-1).T
