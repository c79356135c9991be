"""PyramidDrop: visual tokens are dropped three times on the way through the decoder.

One of the training-free peers of `fcot_vl.prune`, inside the decoder. At a quarter, half and three quarters of the
layers, the visual tokens are ranked by attention of the prompt's last token in the layer below, across all tiles of a
page, and each time the best `keep` share of what was left stays: with the paper's 0.5, 50%, 25% and 12.5% of the
tokens. Averaged over the layers that is 47%, and both figures are reported.

Source: Xing et al. 2024, "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction" (arXiv 2410.17247). Differences: the last token's attention is the layer's own, over all tokens and averaged
over heads, as in FastV; the reference multiplies queries and keys of the last instruction token once more.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fcot_vl.prune.engine import Drop, Prompt, PruneHandle, decoder_of, install, keep_counts
from fcot_vl.prune.rating import DecoderWatch

AT = (1 / 4, 1 / 2, 3 / 4)  # of the decoder's depth


def pyramid_drops(keep: float, n_layers: int) -> tuple[Drop, ...]:
    """(layer, share of the picture's tokens from there on) of the three drops.

    Raises ValueError for a decoder of fewer than four layers.
    """
    if n_layers < 4:
        raise ValueError(f"PyramidDrop drops at three layers above the first, this decoder has {n_layers}.")
    return tuple((round(at * n_layers), keep ** (i + 1)) for i, at in enumerate(AT))


def apply_pyramiddrop(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with PyramidDrop until the returned handle is removed.

    keep: share of visual tokens that each drop leaves of those before it, (0, 1]. Raises ValueError for values out of
    range, fewer than four layers, or a decoder without query and key projections.
    """
    decoder = decoder_of(model)
    drops = pyramid_drops(keep, len(decoder.layers))
    handle = PruneHandle("pyramiddrop", keep, drops[0][0], len(decoder.layers), drops)
    watches = [DecoderWatch(decoder.layers[layer - 1]) for layer, _ in drops]

    def best(watch: DecoderWatch, share: float, prompt: Prompt) -> Tensor:
        return keep_counts(prompt, watch.last_row(prompt.valid_BL), handle.budget(share))

    selects = [partial(best, watch, share) for watch, (_, share) in zip(watches, drops, strict=True)]
    install(model, handle, *selects)
    for watch in watches:
        handle.hooks += watch.hooks()
    return handle
