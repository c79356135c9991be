"""Time the training-free baselines: prefill and KV cache against the values that their numbers of tokens predict.

    python benchmarks/prune.py [--shape prefill] [--baselines fastv random ...] [--rounds 5] [--own-seconds]

A random InternVL answers a page of 8 tiles (2,048 visual tokens) unpatched and with every baseline in turn. Prefill is
the time from the projector's output to the first token, and includes choosing and dropping tokens. It is compared with
two predictions from the unpatched model of the same round:

    by operations   its prefill of the page x operations of the baseline's tokens, layer by layer (paper eq. 6-7) / its
    own by length       its prefill of a prompt of words as long as the baseline's tokens averaged over the layers;
    attention
                    is quadratic, so this is somewhat less than the layers' own average

The full length of the page is one of the lengths, to check that a prompt of words takes as long as one with an image.
The bytes of the KV cache must be exactly those of the tokens that the method leaves in every layer, or the run fails.
The lower bound is the number of operations at the rate of a plain 2048^3 product. The shape `prefill` is for a CPU (12
layers of width 1,024 and a small ViT), `2B` is for a GPU. Baselines that use the attention of the ViT also make it a
little slower, which is reported separately. On a CPU that other processes use, `--own-seconds` counts the CPU time of
this process instead of the elapsed time. The last line is JSON, in which the baselines have
their former name, `peers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, processor_for, random_page, random_teacher

from fcot_vl.bench.aggregation import spread
from fcot_vl.bench.measure import Candidate, LoadedCandidate, Measurement
from fcot_vl.bench.timers import Clock
from fcot_vl.common.files import write_json
from fcot_vl.common.provenance import provenance, versions
from fcot_vl.models.flops import cache_bytes
from fcot_vl.prune.budget import tokens_by_layer
from fcot_vl.prune.method import Method

UNPATCHED = "unpatched"
BASELINES = {
    "fastv": Method("fastv", 0.25, 2),
    "pyramiddrop": Method("pyramiddrop", 0.5),  # at each of its three drops, as in its paper
    "sparsevlm": Method(
        "sparsevlm", 0.375
    ),  # averaged over the layers; equal to FastV's average with 12 layers
    **{name: Method(name, 0.25) for name in ("random", "uniform", "divprune")},
    **{name: Method(name, 0.25) for name in ("visionzip", "vispruner", "prumerge", "tome")},
}
PAGE = (7 * 448, 448)  # pixels: 7 tiles in a row, and the overview
NEW_TOKENS = 2


class Bench:
    """One random model, one page, and its measurements so far."""

    def __init__(self, shape: str, baselines: Sequence[str]) -> None:
        model = random_teacher(SHAPES[shape])
        processor = processor_for(model)
        self.model, self.text = model, model.config.text_config
        self.n_layers = self.text.num_hidden_layers
        methods = {UNPATCHED: Method(), **{name: BASELINES[name] for name in baselines}}
        loaded: dict[str, tuple[Any, Any]] = {}
        self.candidates = {
            name: LoadedCandidate(Candidate(name, shape, method), lambda _: (model, processor), loaded)
            for name, method in methods.items()
        }
        self.page = random_page(*PAGE)
        self.runs: dict[str, list[Measurement]] = {name: [] for name in methods}
        self.by_length: dict[int, list[float]] = {}

    def round(self, counted: bool) -> None:
        lengths: dict[int, float] = {}
        for name, candidate in self.candidates.items():
            print(f"  {name}", end="", file=sys.stderr, flush=True)
            run = candidate.measure([self.page], NEW_TOKENS)
            self.check_cache(name, run)
            length = round(self.mean_length(run))
            if length not in lengths:
                lengths[length] = self.prefill_of_words(length)
            if counted:
                self.runs[name].append(run)
        print(file=sys.stderr)
        if counted:
            for length, seconds in lengths.items():
                self.by_length.setdefault(length, []).append(seconds)

    def mean_length(self, run: Measurement) -> float:
        return self.words(run) + run.counts["visual_tokens_layer_mean"]

    def words(self, run: Measurement) -> int:
        return round(run.counts["prompt_tokens"]) - self.visual(run)

    def visual(self, run: Measurement) -> int:
        return round(run.counts["tiles"]) * int(self.model.config.image_seq_length)

    def check_cache(self, name: str, run: Measurement) -> None:
        """Check the cache against the method's plan, independently of the report of the hooks."""
        drops = self.candidates[name].candidate.method.drops(self.n_layers)
        kept = (
            tokens_by_layer(drops, self.n_layers, self.visual(run))
            if drops
            else [self.visual(run)] * self.n_layers
        )
        cached = [self.words(run) + n + NEW_TOKENS - 1 for n in kept]
        planned = cache_bytes(self.text, cached, self.model.dtype.itemsize)
        assert run.counts["kv_cache_bytes"] == planned, (
            f"{name}: the cache holds {run.counts['kv_cache_bytes']} bytes, its tokens predict {planned}"
        )

    @torch.inference_mode()
    def prefill_of_words(self, n_tokens: int) -> float:
        """Return the seconds of the unpatched model to the first token of a prompt without an image."""
        generator = torch.Generator().manual_seed(n_tokens)
        ids = torch.randint(100, self.text.vocab_size, (1, n_tokens), generator=generator).to(
            self.model.device
        )
        clock = Clock(self.model.device)
        clock.mark("begun")
        self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False
        )
        clock.mark("ended")
        clock.stop()
        return clock.seconds("begun", "ended")

    def figures(self, rate: float) -> dict[str, Any]:
        first = self.runs[UNPATCHED]
        found = {}
        for name, runs in self.runs.items():
            counts, length = runs[0].counts, round(self.mean_length(runs[0]))
            share = counts["flops_prefill"] / first[0].counts["flops_prefill"]
            prefill = [run.seconds["prefill"] for run in runs]
            by_operations = [run.seconds["prefill"] * share for run in first]
            by_length = self.by_length[length]
            found[name] = {
                "method": str(self.candidates[name].candidate.method),
                "layer_mean_tokens": length,
                "prefill_seconds": spread(prefill),
                "share_of_operations": share,
                "over_operations": spread([a / b for a, b in zip(prefill, by_operations, strict=True)]),
                "over_length": spread([a / b for a, b in zip(prefill, by_length, strict=True)]),
                "floor_seconds": counts["flops_prefill"] / rate,
                "vit_over_unpatched": statistics.median(
                    run.seconds["vit"] / one.seconds["vit"] for run, one in zip(runs, first, strict=True)
                ),
                "kv_cache_bytes": counts["kv_cache_bytes"],
                "peak_extra_bytes": max(run.counts.get("peak_extra_bytes", 0) for run in runs),
            }
        return found


def product_rate(model: Any) -> float:
    """Return the operations per second of a 2048^3 product in the model's precision, the best of five."""
    a = torch.randn(2048, 2048, dtype=model.dtype, device=model.device)
    best = float("inf")
    for _ in range(5):
        clock = Clock(model.device)
        clock.mark("begun")
        a @ a
        clock.mark("ended")
        clock.stop()
        best = min(best, clock.seconds("begun", "ended"))
    return float(2 * 2048**3 / best)


def print_table(figures: dict[str, Any]) -> None:
    header = f"{'':13}{'tokens':>8}{'prefill s':>11}{'range':>16}{'/ operations':>14}{'/ length':>10}{'floor s':>9}"
    print(f"{header}{'ViT x':>7}{'cache MB':>10}{'peak MB':>9}")
    for name, row in figures.items():
        seconds = row["prefill_seconds"]
        quartiles = f"{seconds['low']:.3f} to {seconds['high']:.3f}"
        print(
            f"{name:13}{row['layer_mean_tokens']:8}{seconds['median']:11.3f}{quartiles:>16}"
            f"{row['over_operations']['median']:14.2f}{row['over_length']['median']:10.2f}{row['floor_seconds']:9.3f}"
            f"{row['vit_over_unpatched']:7.2f}{row['kv_cache_bytes'] / 1e6:10.1f}{row['peak_extra_bytes'] / 1e6:9.0f}"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), default="prefill")
    parser.add_argument("--baselines", "--peers", nargs="+", choices=list(BASELINES), default=list(BASELINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--own-seconds", action="store_true", help="Measure CPU time of the process (CPU only)."
    )
    parser.add_argument("--output", type=Path, help="File to which the JSON is also written.")
    given = parser.parse_args(arguments)
    if given.own_seconds:
        if torch.cuda.is_available():
            parser.error("--own-seconds cannot be used with a GPU: its work is not CPU time of the process")
        Clock.now = time.process_time
    bench = Bench(given.shape, given.baselines)
    for number in range(given.rounds + 1):
        print(f"round {number} of {given.rounds}" if number else "warming up", end="", file=sys.stderr)
        bench.round(counted=number > 0)
    rate = product_rate(bench.model)
    figures = bench.figures(rate)
    print_table(figures)
    result = {
        "benchmark": "prune",
        "command": f"python benchmarks/prune.py --shape {given.shape} --rounds {given.rounds} "
        f"--baselines {' '.join(given.baselines)}{' --own-seconds' if given.own_seconds else ''}",
        "peers": figures,
        "threads": torch.get_num_threads(),
        "flops_per_second": rate,
        **provenance(),
        "versions": versions(),
    }
    if given.output:
        write_json(given.output, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
