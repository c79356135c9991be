"""PyramidDrop: drop visual tokens at three layers of the decoder.

This training-free baseline of `fcot_vl.prune` acts inside the decoder. After a quarter, half and three quarters of the
layers, it ranks the visual tokens by the attention that the prompt's last token would pay them in the layer above,
averaged over heads, across all tiles of a page. Each time, it keeps the best `keep` share of the remaining tokens: with
the paper's 0.5, 50%, 25% and 12.5% of the tokens. The average over the layers is 47%; both figures are reported.

Source: Xing et al. 2024, "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction" (arXiv 2410.17247), and its repository, see docs/baselines.md. As in the reference, one query row and the
keys are multiplied out once more from the input of the layer above. Differences: kept tokens keep their positions,
while the reference renumbers the remaining tokens; shares are rounded to the nearest, not down.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fcot_vl.prune.budget import Drop
from fcot_vl.prune.decoder_attention import DecoderAttentionProbe
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens, keep_counts

AT = (1 / 4, 1 / 2, 3 / 4)  # fractions of the depth of the decoder


def pyramid_drops(keep: float, n_layers: int) -> tuple[Drop, ...]:
    """Return (layer, share of the image's tokens from that layer on) of the three drops.

    Raises:
        ValueError: If the decoder has fewer than four layers.
    """
    if n_layers < 4:
        raise ValueError(f"PyramidDrop drops at three layers above the first, this decoder has {n_layers}.")
    return tuple((round(at * n_layers), keep ** (i + 1)) for i, at in enumerate(AT))


def apply_pyramiddrop(model: nn.Module, keep: float) -> PruneHandle:
    """Prune `model` with PyramidDrop until the returned handle is removed.

    Args:
        model: Model to prune.
        keep: Share of the remaining visual tokens that each drop keeps, (0, 1].

    Raises:
        ValueError: If a value is out of range, or the decoder has fewer than four layers or no query and key
            projections.
    """
    decoder = decoder_of(model)
    drops = pyramid_drops(keep, len(decoder.layers))
    handle = PruneHandle("pyramiddrop", keep, drops[0][0], len(decoder.layers), drops)
    probes = [DecoderAttentionProbe(decoder.layers[layer]) for layer, _ in drops]

    def best(probe: DecoderAttentionProbe, share: float, prefill: PrefillTokens) -> Tensor:
        assert prefill.hidden_BLC is not None
        probe.project_ahead(prefill.hidden_BLC)
        return keep_counts(prefill, probe.last_row(prefill.valid_BL), handle.budget(share))

    selects = [partial(best, probe, share) for probe, (_, share) in zip(probes, drops, strict=True)]
    install(model, handle, *selects)
    for probe, (layer, _) in zip(probes, drops, strict=True):
        handle.hooks += probe.position_hooks(decoder.layers[layer - 1])
    return handle
