"""PyramidDrop: visual tokens are dropped three times on the way through the decoder.

One of the training-free peers of `fcot_vl.prune`, inside the decoder. Behind a quarter, half and three quarters of the
layers, the visual tokens are ranked by the attention that the prompt's last token would pay them in the layer above,
mean over heads, across all tiles of a page, and each time the best `keep` share of what was left stays: with the
paper's 0.5, 50%, 25% and 12.5% of the tokens. Averaged over the layers that is 47%, and both figures are reported.

Source: Xing et al. 2024, "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction" (arXiv 2410.17247), and its repository, see docs/peers.md. Like there, one query row and the keys are
multiplied out once more from what the layer above is about to be given. Differences: kept tokens keep their positions,
where the reference numbers what is left anew; shares are rounded to the nearest, not down.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fcot_vl.prune.budget import Drop
from fcot_vl.prune.engine import decoder_of, install
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import Prompt, keep_counts
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
    watches = [DecoderWatch(decoder.layers[layer]) for layer, _ in drops]

    def best(watch: DecoderWatch, share: float, prompt: Prompt) -> Tensor:
        assert prompt.hidden_BLC is not None
        watch.ahead(prompt.hidden_BLC)
        return keep_counts(prompt, watch.last_row(prompt.valid_BL), handle.budget(share))

    selects = [partial(best, watch, share) for watch, (_, share) in zip(watches, drops, strict=True)]
    install(model, handle, *selects)
    for watch, (layer, _) in zip(watches, drops, strict=True):
        handle.hooks += watch.hooks_below(decoder.layers[layer - 1])
    return handle
