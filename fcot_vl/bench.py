"""The `bench` stage: what compression and its peers save in time, cache and arithmetic, side by side.

Takes a teacher, students and training-free peers and the same pages for all of them; writes `bench.json`, prints
a table and, as its last line, the JSON. One page at a time, the contenders in turn (A B A B ...), so that a
machine that slows down slows all of them; medians with quartiles, and speed-ups from pairs of the same page and
round. A model decodes a fixed number of tokens, whatever it would have answered.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from fcot_vl.data.collate import question_inputs
from fcot_vl.data.sample import Sample, SampleFolder
from fcot_vl.model.cost import cache_bytes, prefill_flops, projector_flops, vit_flops
from fcot_vl.model.inference import load_for_inference
from fcot_vl.progress import progress_bar
from fcot_vl.prune.engine import PruneHandle, decoder_of, n_kept
from fcot_vl.prune.method import OTHER_PAGE, Method
from fcot_vl.stage import git_commit, hardware, now, open_stage, write_json

RESULT = "bench.json"
PARTS = ("preprocess", "vit", "projector", "prefill", "ttft", "decode", "end_to_end")


@dataclass(frozen=True)
class Contender:
    """A model folder and how it is run. name: how tables call it."""

    name: str
    model: str
    method: Method = field(default_factory=Method)


# ----------------------------------------------------------------------------------------------- measuring


class _Clock(BaseStreamer):
    """Notes when the prompt and every new token pass by."""

    def __init__(self, mark: Callable[[], float]) -> None:
        self.mark, self.times = mark, list[float]()

    def put(self, value: Tensor) -> None:
        self.times.append(self.mark())

    def end(self) -> None:
        pass


class _Entrant:
    """A loaded contender."""

    def __init__(self, contender: Contender, loaded: dict[str, tuple[Any, Any]]) -> None:
        self.contender = contender
        if contender.model not in loaded:
            loaded[contender.model] = _load(contender.model)
        self.model, self.processor = loaded[contender.model]
        self.projector_flops = projector_flops(self.model, n_tiles=1)
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        self.pages: dict[int, dict[str, float]] = {}

    def mark(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def inputs(self, page: Sample) -> dict[str, Tensor]:
        question = next(message["content"] for message in page.messages if message["role"] == "user")
        inputs = question_inputs(question, page.images, self.processor)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    @torch.inference_mode()
    def measure(self, page: Sample, new_tokens: int) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds of every part, and counts (tokens, bytes, operations), of one page."""
        handle = self.contender.method.apply(self.model)
        marks: dict[str, float] = {}
        hooks = self._watch(marks)
        peak = _Peak(self.model.device)
        clock = _Clock(self.mark)
        try:
            begun = self.mark()
            inputs = self.inputs(page)
            ready = self.mark()
            output = self.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                do_sample=False,
                streamer=clock,
                return_dict_in_generate=True,
            )
            ended = self.mark()
        finally:
            for hook in hooks:
                hook.remove()
            if handle is not None:
                handle.remove()
        first, last = clock.times[1], clock.times[-1]
        seconds = {
            "preprocess": ready - begun,
            "vit": marks["projector"] - marks["vit"],
            "projector": marks["projected"] - marks["projector"],
            "prefill": first - marks["projected"],
            "ttft": first - ready,
            "decode": (last - first) / (new_tokens - 1),
            "end_to_end": ended - begun,
        }
        return seconds, self._counts(inputs, handle, output.past_key_values, new_tokens, peak.extra_bytes())

    def _watch(self, marks: dict[str, float]) -> list[Any]:
        def note(name: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                marks[name] = self.mark()

            return hook

        inner = self.model.model
        return [
            inner.vision_tower.register_forward_pre_hook(note("vit")),
            inner.multi_modal_projector.register_forward_pre_hook(note("projector")),
            inner.multi_modal_projector.register_forward_hook(note("projected")),
        ]

    def _counts(
        self,
        inputs: dict[str, Tensor],
        handle: PruneHandle | None,
        cache: Any,
        new_tokens: int,
        peak: int | None,
    ) -> dict[str, float]:
        config, n_layers = self.model.config, len(decoder_of(self.model).layers)
        total = int((inputs["input_ids"] == config.image_token_id).sum())
        visual = [total] * n_layers if handle is None else handle.visual_by_layer
        nominal = visual[-1] if handle is None or len(handle.drops) == 1 else n_kept(handle.keep, total)
        n_text = inputs["input_ids"].shape[1] - total
        n_tiles = len(inputs["pixel_values"])
        in_prefill = [n_text + n for n in visual]
        held = sum(part.nbytes for slot in cache.layers for part in (slot.keys, slot.values))
        planned = cache_bytes(
            config.text_config, [n + new_tokens - 1 for n in in_prefill], cache.layers[0].keys.element_size()
        )
        assert held == planned, f"the cache holds {held} bytes, its tokens predict {planned}"
        counts = {
            "tiles": n_tiles,
            "visual_tokens_nominal": nominal,
            "visual_tokens_layer_mean": sum(visual) / n_layers,
            "prompt_tokens": n_text + total,
            "kv_cache_bytes": held,
            "flops_vit": vit_flops(config.vision_config, n_tiles),
            "flops_projector": n_tiles * self.projector_flops,
            "flops_prefill": prefill_flops(config.text_config, in_prefill),
        }
        return counts if peak is None else counts | {"peak_extra_bytes": peak}


class _Peak:
    """Memory a run takes on top of what was held before: of the GPU, or of the process where Linux tells."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int | None = torch.cuda.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets the process's peak to what it holds now
        except OSError:
            self.before = None
        else:
            self.before = _resident("VmRSS")

    def extra_bytes(self) -> int | None:
        if self.before is None:
            return None
        after = torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM")
        return None if after is None else max(0, after - self.before)


def _resident(field_name: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) * 1024
    return None


def _load(path: str) -> tuple[Any, Any]:
    model, processor = load_for_inference(path)
    model.generation_config.eos_token_id = None  # every contender decodes the same number of tokens
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = 0
    return model, processor


# ----------------------------------------------------------------------------------------------- the stage


def bench(
    contenders: Sequence[Contender],
    data: str | Path | Sequence[Sample],
    out: str | Path,
    *,
    pages: int = 8,
    new_tokens: int = 64,
    rounds: int = 5,
) -> dict[str, Any]:
    """Time the contenders on the first `pages` records of `data` and return what `out/bench.json` holds.

    Args:
        contenders: what is compared; speed-ups are against the first.
        data: a `synthesize` folder, or records.
        out: output folder; finished already with the same settings, it is read and returned at once.
        pages: records used.
        new_tokens: tokens decoded per page, at least 2.
        rounds: times every page is measured, after one round that is not counted.

    Raises:
        ValueError: nothing to compare, or a number out of range.
        StageError: `out` holds another stage or other settings.
    """
    if not contenders or len({contender.name for contender in contenders}) < len(contenders):
        raise ValueError("bench needs contenders, each with a name of its own.")
    if any(contender.method.name in OTHER_PAGE for contender in contenders):
        raise ValueError(
            "bench does not time smaller pages or fewer tiles: they are another picture, not another way to run it."
        )
    if pages < 1 or rounds < 1 or new_tokens < 2:
        raise ValueError(
            "bench needs pages and rounds of at least 1 and new_tokens of at least 2, "
            f"got {pages}, {rounds} and {new_tokens}."
        )
    records = SampleFolder(Path(data)) if isinstance(data, str | Path) else data
    samples = [records[i] for i in range(min(pages, len(records)))]
    if not samples or any(not sample.images for sample in samples):
        raise ValueError("bench needs records with a page each.")
    settings = {
        "contenders": [asdict(contender) for contender in contenders],
        "pages": [sample.id for sample in samples],
        "new_tokens": new_tokens,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
    out = Path(out)
    stage = open_stage(out, "bench", settings, {"data": str(getattr(records, "folder", "in memory"))})
    if stage.done:
        print(f"bench: {out} is finished")
        finished: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return finished
    work = f"{len(contenders)} contenders, {len(samples)} pages, {rounds} rounds, {new_tokens} new tokens"
    print(f"bench: {work} -> {out}", flush=True)
    loaded: dict[str, tuple[Any, Any]] = {}
    entrants = [_Entrant(contender, loaded) for contender in contenders]
    _take_turns(entrants, samples, new_tokens, rounds)
    model = entrants[0].model
    result = {
        "pages": len(samples),
        "new_tokens": new_tokens,
        "rounds": rounds,
        "threads": settings["threads"],
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "contenders": [_summary(entrant, entrants[0]) for entrant in entrants],
        "commit": git_commit(),
        "hardware": hardware(),
        "date": now(),
    }
    write_json(out / RESULT, result)
    last = result["contenders"][-1]
    stage.finish({"contenders": len(entrants), "last": last["name"], "faster": last["faster"]})
    Console().print(_table(result))
    print(json.dumps(result))
    return result


def _take_turns(
    entrants: Sequence[_Entrant], samples: Sequence[Sample], new_tokens: int, rounds: int
) -> None:
    with progress_bar() as progress:
        bar = progress.add_task("pages", total=(rounds + 1) * len(samples) * len(entrants))
        for round_number in range(rounds + 1):
            for number, sample in enumerate(samples):
                for entrant in entrants:
                    seconds, counts = entrant.measure(sample, new_tokens)
                    if round_number:  # the first round warms up
                        for part, value in seconds.items():
                            entrant.seconds[part].append(value)
                        before = entrant.pages.get(number, counts)
                        peak = max(before.get("peak_extra_bytes", 0), counts.get("peak_extra_bytes", 0))
                        entrant.pages[number] = counts | ({"peak_extra_bytes": peak} if peak else {})
                    progress.advance(bar)


def _summary(entrant: _Entrant, first: _Entrant) -> dict[str, Any]:
    """Medians and quartiles over pages and rounds, means of the counts over pages, paired speed-ups."""
    pages, method = list(entrant.pages.values()), entrant.contender.method
    keys = [key for key in pages[0] if all(key in page for page in pages)]
    return {
        "name": entrant.contender.name,
        "model": entrant.contender.model,
        "compress_ratio": int(getattr(entrant.model.config, "compress_ratio", 1)),
        "method": method.name,
        "keep": method.keep,
        "layer": method.layer,
        **{key: statistics.fmean(page[key] for page in pages) for key in keys},
        "seconds": {part: _spread(values) for part, values in entrant.seconds.items()},
        "decode_tokens_per_second": _spread([1 / value for value in entrant.seconds["decode"]]),
        "faster": {
            part: _spread([a / b for a, b in zip(first.seconds[part], entrant.seconds[part], strict=True)])
            for part in ("ttft", "decode", "end_to_end")
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"{result['pages']} pages, {result['rounds']} rounds, {result['new_tokens']} new tokens, "
        f"{result['device']} {result['dtype']}, {result['threads']} threads; medians, times in ms"
    )
    table.add_column("")
    for column in (
        "tokens",
        "tiles",
        "ViT",
        "proj.",
        "prefill",
        "TTFT",
        "tok/s",
        "all",
        "faster",
        "KV kB",
        "GFLOP",
    ):
        table.add_column(column, justify="right")
    for row in result["contenders"]:
        ms = {part: f"{1e3 * row['seconds'][part]['median']:.1f}" for part in PARTS}
        nominal, mean = row["visual_tokens_nominal"], row["visual_tokens_layer_mean"]
        flops = row["flops_vit"] + row["flops_projector"] + row["flops_prefill"]
        table.add_row(
            row["name"],
            f"{nominal:.0f}" if nominal == mean else f"{nominal:.0f}/{mean:.0f}",
            f"{row['tiles']:.1f}",
            *(ms[part] for part in ("vit", "projector", "prefill", "ttft")),
            f"{row['decode_tokens_per_second']['median']:.0f}",
            ms["end_to_end"],
            f"{row['faster']['end_to_end']['median']:.2f}x",
            f"{row['kv_cache_bytes'] / 1e3:.0f}",
            f"{flops / 1e9:.2f}",
        )
    return table
