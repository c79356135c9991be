"""Statistics over many runs of a candidate: one row of `bench.json`, with speed-ups paired with the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fcot_vl.bench.measure import PARTS, LoadedCandidate, Measurement
from fcot_vl.bench.speedup_bound import BOUND, predicted_seconds

PAIRED = ("ttft", "decode", "end_to_end")


@dataclass
class Runs:
    """The measured runs of one candidate in the order in which they ran, with the page number of each run."""

    pages: list[int] = field(default_factory=list)
    measured: list[Measurement] = field(default_factory=list)

    def add(self, page: int, measurement: Measurement) -> None:
        self.pages.append(page)
        self.measured.append(measurement)

    def seconds(self, part: str) -> list[float]:
        return [run.seconds[part] for run in self.measured]

    def counts(self) -> dict[str, float]:
        """Return the mean counts over pages; the peak of a page is the maximum over its runs."""
        by_page: dict[int, dict[str, float]] = {}
        for page, run in zip(self.pages, self.measured, strict=True):
            peak = max(
                run.counts.get("peak_extra_bytes", 0), by_page.get(page, {}).get("peak_extra_bytes", 0)
            )
            by_page[page] = run.counts | ({"peak_extra_bytes": peak} if peak else {})
        rows = list(by_page.values())
        keys = [key for key in rows[0] if all(key in row for row in rows)]
        return {key: statistics.fmean(row[key] for row in rows) for key in keys}


def merge_runs(runs: Sequence[Runs], n_pages: int) -> Runs:
    """Merge the runs of one candidate on several image sets, each of at most `n_pages` pages, as if on one set."""
    pages = [number * n_pages + page for number, one in enumerate(runs) for page in one.pages]
    return Runs(pages, [run for one in runs for run in one.measured])


def summary(
    loaded: LoadedCandidate, runs: Runs, baseline: Runs, new_tokens: int, bytes_per_second: float
) -> dict[str, Any]:
    """Return the row of one candidate; `baseline` holds its runs on the same pages in the same order."""
    method, counts = loaded.candidate.method, runs.counts()
    floor = counts["decode_bytes"] / bytes_per_second
    config = loaded.model.config
    ratio = int(getattr(config, "compress_ratio", 1))
    return {
        "name": loaded.candidate.name,
        "model": loaded.candidate.model,
        "compress_ratio": ratio,
        **{key: getattr(config, key, None) for key in ("compressor", "visual_positions") if ratio > 1},
        "method": method.name,
        "keep": method.keep,
        "layer": method.layer,
        **counts,
        "seconds": {part: spread(runs.seconds(part)) for part in PARTS},
        "decode_tokens_per_second": spread([1 / value for value in runs.seconds("decode")]),
        "decode_floor_seconds": floor,
        "faster": {part: spread(_ratios(baseline.seconds(part), runs.seconds(part))) for part in PAIRED},
        "bound": _bound(runs, baseline, new_tokens),
    }


def batch_summary(runs: Runs, baseline: Runs, batch_size: int, new_tokens: int) -> dict[str, Any]:
    """Return the results of a candidate on batches of `batch_size` pages; bytes are those of the whole batch."""
    counts = runs.counts()
    end_to_end = runs.seconds("end_to_end")
    kept = ("prompt_tokens", "kv_cache_bytes", "peak_extra_bytes")
    return {
        "size": batch_size,
        **{key: counts[key] for key in kept if key in counts},
        "seconds": {part: spread(runs.seconds(part)) for part in PARTS},
        "pages_per_second": spread([batch_size / value for value in end_to_end]),
        "tokens_per_second": spread([batch_size * new_tokens / value for value in end_to_end]),
        "decode_tokens_per_second": spread([batch_size / value for value in runs.seconds("decode")]),
        "faster": {part: spread(_ratios(baseline.seconds(part), runs.seconds(part))) for part in PAIRED},
    }


def _bound(runs: Runs, baseline: Runs, new_tokens: int) -> dict[str, Any] | None:
    """Return, for each part, the predicted speed-up and the measured share of it (see `speedup_bound.py`)."""
    predicted = [
        predicted_seconds(a, b, new_tokens) for a, b in zip(baseline.measured, runs.measured, strict=True)
    ]
    known = [one for one in predicted if one is not None]
    if len(known) < len(predicted):
        return None
    found = {}
    for part in BOUND:
        seconds = [one[part] for one in known]
        found[part] = {
            "faster": spread(_ratios(baseline.seconds(part), seconds)),
            "share": spread(_ratios(seconds, runs.seconds(part))),
        }
    return found


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}
