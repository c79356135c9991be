"""Uniform-stride dropping: every n-th visual token stays, whatever it shows.

One of the training-free peers of `fcot_vl.prune`; the control that spends a token budget evenly over the
page. No paper's method.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.engine import decoder_of, install
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import Prompt


def apply_uniform(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` evenly, before the first decoder layer, until the returned handle is removed.

    keep: share of visual tokens that stay, (0, 1]: k of a row's n, those in the middle of k equal stretches
    of the row's visual tokens in order. Raises ValueError for values out of range.
    """

    def select(prompt: Prompt) -> Tensor:
        kept_BL = torch.zeros_like(prompt.image_BL)
        for row, n_tokens in enumerate(prompt.counts()):
            where = prompt.image_BL[row].nonzero()[:, 0]
            wanted = n_kept(keep, n_tokens)
            chosen = [(2 * i + 1) * n_tokens // (2 * wanted) for i in range(wanted)]
            kept_BL[row, where[chosen]] = True
        return kept_BL

    handle = PruneHandle("uniform", keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    return handle
