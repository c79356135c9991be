"""Upper bound on the speed-up of a candidate, predicted from the measured times of the baseline.

The baseline is the first candidate. Fewer visual tokens speed up only the decoder, and only a part of it. The bound for
a candidate is computed run by run:

    preprocessing, ViT    baseline time (same page, same ViT)
    projector             baseline time x operations of (compressor and) projector / operations of the baseline
    prefill               baseline time x operations by paper eq. 6-7 over all decoder layers / the same of the baseline
    one decoding step     baseline time x bytes read (weights and cache) / bytes read by the baseline (memory-bound)
    everything else       baseline time

`faster` is the measured time of the baseline divided by the predicted time of the candidate. `share` is the predicted
time divided by the measured time of the candidate, that is, the fraction of the bound that the candidate reaches. The
bound is a model, not a law: a share above 1 means that the baseline was further from the limits of the device than the
candidate.
"""

from __future__ import annotations

from fcot_vl.bench.measure import Measurement

BOUND = ("prefill", "ttft", "decode", "end_to_end")


def predicted_seconds(
    baseline: Measurement, candidate: Measurement, new_tokens: int
) -> dict[str, float] | None:
    """Predict the seconds of each part in `BOUND` for `candidate` from the times of `baseline` on the same pages.

    Returns None if the ViT operations of `candidate` differ (another ViT, or another number of tiles): the times of
    `baseline` do not predict the time of the ViT then.
    """
    if baseline.counts["flops_vit"] != candidate.counts["flops_vit"]:
        return None

    def scaled(part: str, count: str) -> float:
        return baseline.seconds[part] * candidate.counts[count] / baseline.counts[count]

    prefill, decode = scaled("prefill", "flops_prefill"), scaled("decode", "decode_bytes")
    saved = baseline.seconds["prefill"] - prefill
    saved += baseline.seconds["projector"] - scaled("projector", "flops_projector")
    saved_later = (new_tokens - 1) * (baseline.seconds["decode"] - decode)
    return {
        "prefill": prefill,
        "ttft": baseline.seconds["ttft"] - saved,
        "decode": decode,
        "end_to_end": baseline.seconds["end_to_end"] - saved - saved_later,
    }
