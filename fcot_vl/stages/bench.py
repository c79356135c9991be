"""The `bench` stage: time candidates on image sets; write `bench.json`, print tables and the JSON as the last line.

Candidates take turns on each page (A B A B ...), so that a slowdown of the machine affects all of them. Results are
medians with quartiles; speed-ups come from pairs of runs on the same page in the same round. Every model decodes a
fixed number of tokens, regardless of its answer. Optionally, every round also answers a batch of pages.

The files call the list of candidates `contenders`, their former name, so that older results stay readable and finished
runs are recognized.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fcot_vl.bench.aggregation import Runs, batch_summary, merge_runs, summary
from fcot_vl.bench.measure import Candidate, LoadedCandidate, Measurement
from fcot_vl.bench.tables import tables
from fcot_vl.bench.timers import memory_rate
from fcot_vl.common.console import show
from fcot_vl.common.files import write_json
from fcot_vl.common.progress import progress_bar
from fcot_vl.common.provenance import provenance
from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Sample, SampleFolder
from fcot_vl.inference.loading import load_for_inference

logger = logging.getLogger(__name__)

RESULT = "bench.json"

Samples = str | Path | Sequence[Sample]
Load = Callable[[str], tuple[Any, Any]]


def bench(
    candidates: Sequence[Candidate],
    data: Samples | Mapping[str, Samples],
    out: str | Path,
    *,
    pages: int = 8,
    new_tokens: int = 64,
    rounds: int = 5,
    batch_size: int | None = None,
    load: Load = load_for_inference,
) -> dict[str, Any]:
    """Time the candidates on the first `pages` samples of every image set and return the content of `out/bench.json`.

    Args:
        candidates: Candidates to compare. The first one is the baseline of all speed-ups.
        data: Folder written by `synthesize`, or a sequence of samples; or a mapping from names to several of these,
            each one image set.
        out: Output folder. If it already holds a finished run with the same settings, that result is returned.
        pages: Number of samples used from each image set.
        new_tokens: Number of tokens decoded per page, at least 2.
        rounds: Number of measured runs per page, after one warm-up round.
        batch_size: Number of pages per batch for an additional batched measurement. Pages are taken from the start of
            the set and repeated if the set has fewer. Default: no batched measurement.
        load: Function that returns the model and the processor for a candidate's `model`. By default, reads a folder.

    Raises:
        ValueError: If there is nothing to compare, a number is out of range, or the device runs out of memory.
        StageError: If `out` holds another stage or other settings.
    """
    _check(candidates, pages, new_tokens, rounds, batch_size)
    sets = _image_sets(data, pages)
    settings: dict[str, Any] = {
        "contenders": [asdict(candidate) for candidate in candidates],
        "pages": [page.id for found in sets.values() for page in found],
        "new_tokens": new_tokens,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
    if batch_size is not None:
        settings["batch_size"] = batch_size
    out = Path(out)
    stage = open_stage(out, "bench", settings, {"data": _source(data)})
    if stage.done:
        logger.info(f"bench: {out} is finished")
        finished: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return finished
    n_pages = sum(map(len, sets.values()))
    work = f"{len(candidates)} candidates, {n_pages} pages, {rounds} rounds, {new_tokens} new tokens"
    logger.info(f"bench: {work} -> {out}")
    models: dict[str, tuple[Any, Any]] = {}
    loaded = [LoadedCandidate(candidate, load, models) for candidate in candidates]
    singly, batched = _take_turns(loaded, sets, new_tokens, rounds, batch_size)
    model = loaded[0].model
    rate = memory_rate(model.device)

    def rows(runs: Sequence[Runs], batches: Sequence[Runs] | None) -> list[dict[str, Any]]:
        found = [summary(c, r, runs[0], new_tokens, rate) for c, r in zip(loaded, runs, strict=True)]
        if batches is not None and batch_size is not None:
            for row, one in zip(found, batches, strict=True):
                row["batch"] = batch_summary(one, batches[0], batch_size, new_tokens)
        return found

    def over_sets(by_set: Mapping[str, list[Runs]]) -> list[Runs]:
        return [merge_runs(runs, n_pages) for runs in zip(*by_set.values(), strict=True)]

    result = {
        "pages": n_pages,
        "new_tokens": new_tokens,
        "rounds": rounds,
        "batch_size": batch_size,
        "threads": settings["threads"],
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "memory_bytes_per_second": rate,
        "contenders": rows(over_sets(singly), over_sets(batched) if batched else None),
        "sets": [
            {"name": name, "pages": len(found), "contenders": rows(singly[name], batched.get(name))}
            for name, found in sets.items()
        ],
        **provenance(),
    }
    write_json(out / RESULT, result)
    last = result["contenders"][-1]
    stage.finish({"contenders": len(loaded), "last": last["name"], "faster": last["faster"]})
    show(*tables(result), json.dumps(result))
    return result


def _check(
    candidates: Sequence[Candidate], pages: int, new_tokens: int, rounds: int, batch_size: int | None
) -> None:
    if not candidates or len({candidate.name for candidate in candidates}) < len(candidates):
        raise ValueError(
            "bench needs at least one candidate (--candidate NAME=FOLDER), each with its own name"
        )
    if pages < 1 or rounds < 1 or new_tokens < 2:
        raise ValueError(
            "bench needs pages and rounds of at least 1 and new_tokens of at least 2, "
            f"got {pages}, {rounds} and {new_tokens}."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"bench needs a batch size of at least 1, got {batch_size}.")


def _image_sets(data: Samples | Mapping[str, Samples], pages: int) -> dict[str, list[Sample]]:
    """Return the pages of every image set by name."""
    named = data if isinstance(data, Mapping) else {Path(_source(data)).name: data}
    found = {}
    for name, given in named.items():
        samples = SampleFolder(Path(given)) if isinstance(given, str | Path) else given
        found[name] = [samples[i] for i in range(min(pages, len(samples)))]
        if not found[name] or any(not sample.images for sample in found[name]):
            raise ValueError(f"image set {name}: bench needs at least one sample, each with an image")
    if not found:
        raise ValueError("bench needs at least one image set; give --data")
    return found


def _source(data: Samples | Mapping[str, Samples]) -> str:
    if isinstance(data, Mapping):
        return ", ".join(f"{name}: {_source(given)}" for name, given in data.items())
    return str(data) if isinstance(data, str | Path) else str(getattr(data, "folder", "in memory"))


def _take_turns(
    loaded: Sequence[LoadedCandidate],
    sets: Mapping[str, Sequence[Sample]],
    new_tokens: int,
    rounds: int,
    batch_size: int | None,
) -> tuple[dict[str, list[Runs]], dict[str, list[Runs]]]:
    """Run all candidates in turn and return, per image set, the runs of each candidate on single pages and on batches.

    The first round warms up and is not included.
    """
    jobs = [(name, number, [page]) for name, pages in sets.items() for number, page in enumerate(pages)]
    singly = {name: [Runs() for _ in loaded] for name in sets}
    batched: dict[str, list[Runs]] = {}
    if batch_size is not None:
        batched = {name: [Runs() for _ in loaded] for name in sets}
        jobs += [
            (name, -1, [pages[i % len(pages)] for i in range(batch_size)]) for name, pages in sets.items()
        ]
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=(rounds + 1) * len(jobs) * len(loaded))
        for round_number in range(rounds + 1):
            for name, number, pages in jobs:
                runs = singly[name] if number >= 0 else batched[name]
                for candidate, candidates_runs in zip(loaded, runs, strict=True):
                    measurement = _measured(candidate, pages, new_tokens)
                    if round_number:  # the first round warms up
                        candidates_runs.add(number, measurement)
                    progress.advance(bar)
    return singly, batched


def _measured(loaded: LoadedCandidate, pages: Sequence[Sample], new_tokens: int) -> Measurement:
    try:
        return loaded.measure(pages, new_tokens)
    except torch.OutOfMemoryError:
        several = f"{len(pages)} pages together; lower --batch-size" if len(pages) > 1 else "one page"
        raise ValueError(
            f"bench: out of memory on the device with {loaded.candidate.name} and {several}"
        ) from None
