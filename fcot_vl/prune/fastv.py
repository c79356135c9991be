"""FastV: drop the visual tokens with the least attention from the last prompt token after a few decoder layers.

In this training-free baseline of `fcot_vl.prune`, the attention of the prompt's last token in layer `layer - 1`,
averaged over heads, ranks the visual tokens of a row across all its tiles. From layer `layer` on, only the best `keep`
share is kept. The choice is made once, in prefill.

The reference recomputes full attention maps, and masks tokens instead of dropping them, except in a variant for one
model. Here only one query row is multiplied out, from the query and key projections that the layer computes anyway, and
attention itself stays on sdpa.

Source: Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2" (arXiv 2403.06764; K = `layer`, counted from 0, R
= 1 - `keep`), and its repository, see docs/baselines.md: the same layer, row, mean over heads and positions.
"""

from __future__ import annotations

from torch import Tensor, nn

from fcot_vl.prune.decoder_attention import DecoderAttentionProbe
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens, keep_top


def apply_fastv(model: nn.Module, keep: float, layer: int = 2) -> PruneHandle:
    """Prune `model` with FastV until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of visual tokens to keep, (0, 1].
        layer: First decoder layer without the dropped tokens, at least 1.

    Raises:
        ValueError: If a value is out of range, or the decoder has no query and key projections.
    """
    if layer < 1:
        raise ValueError(f"FastV ranks by the layer below, so layer must be at least 1, got {layer}.")
    decoder = decoder_of(model)
    n_layers = len(decoder.layers)
    if layer >= n_layers:
        raise ValueError(f"layer must lie in 1..{n_layers - 1} of this decoder, got {layer}.")
    watched = decoder.layers[layer - 1]
    probe = DecoderAttentionProbe(watched)

    def select(prefill: PrefillTokens) -> Tensor:
        return keep_top(prefill, probe.last_row(prefill.valid_BL), keep)

    handle = PruneHandle("fastv", keep, layer, n_layers)
    install(model, handle, select)
    handle.hooks += probe.hooks()
    return handle
