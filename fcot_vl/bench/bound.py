"""How fast a contender ought to be: what arithmetic and bytes predict from the first contender's measured times.

Fewer visual tokens make nothing faster but the decoder, and not even all of it. The bound for a contender, run by run:

    preprocessing, ViT    as measured of the first contender: the same page, the same ViT
    projector             the first's time x operations of (compressor and) projector / the first's
    prefill               the first's time x operations by paper eq. 6-7 over the decoder's layers / the first's
    a decoding step       the first's time x bytes it reads (weights and cache) / the first's: it waits for memory
    what is left          as measured of the first

`faster` is the first's measured time over the one predicted, `share` the predicted over the measured one, which is the
measured speed-up's share of the bound. It is a model, no law: a share above 1 says that the first contender was
further from what its device can do than this one.
"""

from __future__ import annotations

from fcot_vl.bench.entrant import Measurement

BOUND = ("prefill", "ttft", "decode", "end_to_end")


def predicted_seconds(first: Measurement, other: Measurement, new_tokens: int) -> dict[str, float] | None:
    """Seconds of the parts in `BOUND` that `first`'s times predict for `other` on the same pages.

    None for a contender with another ViT: nothing measured of the first one's says how long that takes.
    """
    if first.counts["flops_vit"] != other.counts["flops_vit"]:
        return None

    def scaled(part: str, count: str) -> float:
        return first.seconds[part] * other.counts[count] / first.counts[count]

    prefill, decode = scaled("prefill", "flops_prefill"), scaled("decode", "decode_bytes")
    saved = first.seconds["prefill"] - prefill
    saved += first.seconds["projector"] - scaled("projector", "flops_projector")
    saved_later = (new_tokens - 1) * (first.seconds["decode"] - decode)
    return {
        "prefill": prefill,
        "ttft": first.seconds["ttft"] - saved,
        "decode": decode,
        "end_to_end": first.seconds["end_to_end"] - saved - saved_later,
    }
