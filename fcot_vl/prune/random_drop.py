"""Random dropping: the control that every ranking of visual tokens must beat.

This training-free baseline of `fcot_vl.prune` drops a random share of each row's visual tokens before the first decoder
layer. It is a control and comes from no paper.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens, keep_top, row_fingerprints


def apply_random(model: nn.Module, keep: float, seed: int = 0) -> PruneHandle:
    """Prune `model` randomly until the returned handle is removed.

    The dropped tokens depend on `seed` and on the row's own tokens and pixels, not on the rest of the batch, so a
    resumed or re-batched run drops the same tokens.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1].
        seed: Random seed.

    Raises:
        ValueError: If a value is out of range.
    """

    def select(prefill: PrefillTokens) -> Tensor:
        counts = prefill.counts()
        score_BL = torch.zeros(prefill.image_BL.shape, device=prefill.image_BL.device)
        for row, fingerprint in enumerate(row_fingerprints(prefill)):
            # torch's CPU generator uses only 32 bits of a seed, too few for both numbers.
            generator = np.random.default_rng((seed, fingerprint))
            scores = torch.from_numpy(generator.random(counts[row], dtype=np.float32))
            score_BL[row, prefill.image_BL[row]] = scores.to(score_BL.device)
        return keep_top(prefill, score_BL, keep)

    handle = PruneHandle("random", keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    return handle
