"""Uniform-stride dropping: keep every n-th visual token, regardless of its content.

This training-free baseline of `fcot_vl.prune` is the control that spends a token budget evenly over the page. It comes
from no paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens


def apply_uniform(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` evenly, before the first decoder layer, until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1]. Of the n visual tokens of a row, k are kept: in order, the middles
            of k equal stretches.

    Raises:
        ValueError: If a value is out of range.
    """

    def select(prefill: PrefillTokens) -> Tensor:
        kept_BL = torch.zeros_like(prefill.image_BL)
        for row, n_tokens in enumerate(prefill.counts()):
            where = prefill.image_BL[row].nonzero()[:, 0]
            wanted = n_kept(keep, n_tokens)
            chosen = [(2 * i + 1) * n_tokens // (2 * wanted) for i in range(wanted)]
            kept_BL[row, where[chosen]] = True
        return kept_BL

    handle = PruneHandle("uniform", keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    return handle
