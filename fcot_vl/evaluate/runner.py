"""The `evaluate` stage: one model, one method, one data folder -> `predictions.jsonl` and `result.json`.

Reads what `synthesize` wrote and what training saved; the report reads the result. Greedy decoding in batches of
one task and similar length, padded on the left. Every finished batch is on disk before the next one starts, so a
killed evaluation goes on with the questions that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcot_vl.data.collate import Prompt, join_pictures, pad, picture_counts, tokenize_question
from fcot_vl.data.sample import Sample, SampleFolder
from fcot_vl.evaluate.benchmarks import DENSITY_BUCKETS, density_bucket, score, task_of
from fcot_vl.evaluate.cache import roomy_cache
from fcot_vl.evaluate.metrics import bootstrap_interval, bootstrap_interval_over_tasks
from fcot_vl.message import one_line
from fcot_vl.model.inference import load_for_inference, stop_ids
from fcot_vl.progress import progress_bar
from fcot_vl.prune.engine import PruneHandle, decoder_of, n_kept, tokens_by_layer
from fcot_vl.prune.fewer_tiles import tile_limit
from fcot_vl.prune.method import OTHER_PAGE, Method
from fcot_vl.prune.smaller_page import SmallerPageHandle, choose_cells, shrink_page
from fcot_vl.stage import git_commit, hardware, now, open_stage, write_json

STAGES = ("teacher", "realign", "post-train", "control")
PREDICTIONS, RESULT, TIMES = "predictions.jsonl", "result.json", "times.jsonl"
MERGE = "merge.json"  # beside a merged model: how, and on which data its weights were chosen


# ------------------------------------------------------------------------------------------------------ the stage


def evaluate(
    model: str | Path | Any,
    data: str | Path | Sequence[Sample],
    out: str | Path,
    *,
    stage: str = "teacher",
    method: Method | None = None,
    seed: int = 0,
    split: str = "test",
    batch_size: int = 64,
    processor: Any = None,
) -> dict[str, Any]:
    """Score a model on every record of `data` and return what `out/result.json` holds.

    Args:
        model: folder of a teacher or student, or a loaded model (then `processor` is needed).
        data: a `synthesize` folder, or records.
        out: output folder; finished already with the same settings, it is read and returned at once.
        stage: what the model is: "teacher", "realign", "post-train" or "control".
        method: how visual tokens are dropped at inference (default: not at all).
        seed: of the model's training; recorded.
        split: of the data; recorded.
        batch_size: most questions decoded together. It does not belong to the settings: a run may be resumed with
            another one.

    Raises:
        ValueError: a wrong setting, records that share an id, or records that the weights of a merge were chosen on.
        StageError: `out` holds another stage or other settings.
    """
    method = method or Method()
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r} of a model: choose one of {', '.join(STAGES)}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    out, samples = Path(out), SampleFolder(Path(data)) if isinstance(data, str | Path) else data
    name = (
        str(model)
        if isinstance(model, str | Path)
        else str(getattr(model, "name_or_path", "")) or "in memory"
    )
    digest = data_hash(samples)
    merged = _merged_by(Path(name), digest)
    weights = weights_hash(Path(model)) if isinstance(model, str | Path) else "in memory"
    settings = {"stage": stage, "split": split, **{f"method.{k}": v for k, v in asdict(method).items()}}
    folder = open_stage(out, "evaluate", settings, {"weights": weights, "data": digest}, seed)
    if folder.done:
        print(f"evaluate: {out} is finished, {folder.figures['n']} questions")
        return _read_result(out)
    print(f"evaluate: {name} ({method}), {len(samples)} questions -> {out}", flush=True)
    if isinstance(model, str | Path):
        model, processor = load_for_inference(model)
    elif processor is None:
        raise ValueError("a loaded model needs its processor.")
    runner = _Runner(model, processor, method, samples, out)
    rows = runner.run(batch_size)
    result = {
        "model": name,
        "stage": stage,
        "method": method.name,
        "compress_ratio": runner.compress_ratio,
        "compressor": getattr(runner.model.config, "compressor", None),
        "visual_positions": getattr(runner.model.config, "visual_positions", None),
        "keep": method.keep,
        "layer": method.layer,
        "seed": seed,
        "merged": merged,
        "split": split,
        "data_hash": digest,
        **summarise(rows),
        **runner.costs(),
        "commit": git_commit(),
        "hardware": hardware(),
        "date": now(),
    }
    write_json(out / RESULT, result)
    folder.finish({"n": result["n"], "mean_over_tasks": result["mean_over_tasks"]})
    low, high = result["mean_over_tasks_ci"]
    print(
        f"evaluate: mean over tasks {result['mean_over_tasks']:.3f} [{low:.3f}, {high:.3f}] -> {out / RESULT}"
    )
    return result


def _merged_by(folder: Path, digest: str) -> str | None:
    """How a merged model was merged, None for any other. Raises ValueError if its weights were chosen on this data."""
    path = folder / MERGE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        chosen_on, name = list(record["weights_chosen_on"]), str(record["method"])
        if record["scale"] is not None:
            name += f", scale {record['scale']:g}"
        given = [f"{weight:g}" for weight in record["weights"] or ()]
        if record["method"] not in ("average", "shapley") and set(given) - {"1"}:
            name += f", weights {' '.join(given)}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the record of a merge ({one_line(error)}); merge again.") from None
    if digest in chosen_on:
        raise ValueError(
            f"{folder}: the weights of this merge were chosen on these very records (data {digest[:12]}), so a score "
            "on them would flatter it; evaluate on another split."
        )
    return name


def data_hash(samples: Iterable[Sample]) -> str:
    """sha256 over the records in order: ids, tasks, messages, answers, pixels."""
    digest = hashlib.sha256()
    for sample in samples:
        sizes = [image.size for image in sample.images]
        record = [sample.id, sample.task, sample.messages, sample.answers, sample.metric, sizes]
        digest.update(json.dumps(record, ensure_ascii=False).encode())
        for image in sample.images:
            digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def weights_hash(folder: Path) -> str:
    """sha256 over a model folder's weights and configuration; the bare name for a model that is not on disk."""
    if not folder.is_dir():
        return str(folder)
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as file:
            digest.update(path.name.encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores of `predictions.jsonl` rows: over all tasks, per task and per density, each with a 95% interval."""
    by_task: dict[str, list[float]] = defaultdict(list)
    by_density: dict[str, list[float]] = {bucket: [] for bucket in DENSITY_BUCKETS}
    for row in rows:
        by_task[row["task"]].append(row["score"])
        by_density[density_bucket(row["density"])].append(row["score"])
    tasks = {task: _scored(by_task[task]) for task in sorted(by_task)}
    return {
        "n": len(rows),
        "mean_over_tasks": sum(task["score"] for task in tasks.values()) / len(tasks),
        "mean_over_tasks_ci": list(bootstrap_interval_over_tasks(by_task)),
        "tasks": tasks,
        "density": {bucket: _scored(scores) for bucket, scores in by_density.items()},
    }


def _scored(scores: list[float]) -> dict[str, Any]:
    if not scores:
        return {"n": 0, "score": None, "ci": None}
    return {"n": len(scores), "score": sum(scores) / len(scores), "ci": list(bootstrap_interval(scores))}


def _read_result(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return result


# ----------------------------------------------------------------------------------------------------- the runner


@dataclass(frozen=True)
class Question:
    """What is known of a record without its pixels.

    total, kept: visual tokens before and after dropping, by name. ink: how much there is to read, roughly. by_layer:
    visual tokens that every decoder layer works on.
    """

    index: int
    id: str
    task: str
    metric: str
    text: str
    total: int
    kept: int
    ink: float
    by_layer: tuple[int, ...] = ()


class _Runner:
    """One model with one method over one set of records."""

    def __init__(
        self, model: Any, processor: Any, method: Method, samples: Sequence[Sample], out: Path
    ) -> None:
        self.model, self.processor, self.method, self.samples, self.out = (
            model,
            processor,
            method,
            samples,
            out,
        )
        self.compress_ratio = int(getattr(model.config, "compress_ratio", 1))
        self.n_layers = len(decoder_of(model).layers)
        self.stops = stop_ids(model, processor.tokenizer)
        pad_id = processor.tokenizer.pad_token_id
        self.pad: int = self.stops[0] if pad_id is None else pad_id
        self.questions = [self._question(i, sample) for i, sample in enumerate(samples)]
        if len({question.id for question in self.questions}) < len(self.questions):
            raise ValueError("two records share an id: predictions could not be told apart.")
        if not self.questions:
            raise ValueError("there is no record to evaluate on.")

    def _question(self, index: int, sample: Sample) -> Question:
        if not sample.answers or not sample.metric or sample.density is None:
            raise ValueError(
                f"record {sample.id} has no accepted answers, metric or text density: it can be trained on, not scored"
            )
        task_of(sample.task, sample.metric)
        asked = _asked(sample)
        counts = picture_counts(self.processor, sample.images)[1]
        total = sum(counts)
        kept = total
        if self.method.name in OTHER_PAGE:
            spent = self._cells if self.method.name == "smaller_page" else self._tokens_of_fewer_tiles
            kept = sum(spent(image, n) for image, n in zip(sample.images, counts, strict=True))
        elif self.method.keep is not None and total:
            kept = n_kept(self.method.keep, total)
        by_layer = [kept] * self.n_layers
        if self.method.name not in OTHER_PAGE:
            by_layer = tokens_by_layer(self.method.drops(self.n_layers), self.n_layers, total)
        ink = sum(_ink(image) for image in sample.images)
        return Question(
            index, sample.id, sample.task, sample.metric, asked, total, kept, ink, tuple(by_layer)
        )

    def _cells(self, image: Image.Image, n_tokens: int) -> int:
        assert self.method.keep is not None
        w, h = choose_cells(image.width, image.height, n_kept(self.method.keep, n_tokens))
        return w * h

    def _tile_limit(self, image: Image.Image, n_tokens: int) -> int:
        """The most tiles that a page of `n_tokens` may be cut into to fit the budget."""
        assert self.method.keep is not None
        most = getattr(self.processor.image_processor, "max_patches", None)
        if most is None:
            raise ValueError("fewer tiles: laid out for InternVL's tiles; this model is of another family.")
        return tile_limit(
            lambda limit: self._tokens_at(image, limit), int(most), n_kept(self.method.keep, n_tokens)
        )

    def _tokens_at(self, image: Image.Image, limit: int) -> int:
        options = {"crop_to_patches": True, "max_patches": limit}
        tiles = self.processor.image_processor.get_number_of_image_patches(image.height, image.width, options)
        return int(tiles) * int(self.processor.image_seq_length)

    def _tokens_of_fewer_tiles(self, image: Image.Image, n_tokens: int) -> int:
        return self._tokens_at(image, self._tile_limit(image, n_tokens))

    def run(self, batch_size: int) -> list[dict[str, Any]]:
        """Answer what is not answered yet; all rows in the order of the records."""
        done = {row["id"]: row for row in _read_lines(self.out / PREDICTIONS)}
        _write(self.out / PREDICTIONS, done.values())
        _write(self.out / TIMES, _read_lines(self.out / TIMES))
        waiting = [question for question in self.questions if question.id not in done]
        handle = self.method.apply(self.model)
        try:
            with progress_bar() as progress:
                bar = progress.add_task("questions", total=len(self.questions), completed=len(done))
                for batch in _batches(waiting, batch_size):
                    started = time.perf_counter()
                    rows = self.answer(batch, handle)
                    _append(self.out / PREDICTIONS, rows)
                    seconds = time.perf_counter() - started
                    _append(self.out / TIMES, [{"questions": len(rows), "seconds": seconds}])
                    done |= {row["id"]: row for row in rows}
                    progress.update(bar, advance=len(rows), description=batch[0].task)
        finally:
            if handle is not None:
                handle.remove()
        rows = [done[question.id] for question in self.questions]
        _write(self.out / PREDICTIONS, rows)
        return rows

    @torch.inference_mode()
    def answer(self, batch: Sequence[Question], handle: PruneHandle | None) -> list[dict[str, Any]]:
        """Decode one batch of questions of one task."""
        samples = [self.samples[question.index] for question in batch]
        task = task_of(batch[0].task, batch[0].metric)
        inputs = self.prepare(samples, handle)
        n_prompt = inputs["input_ids"].shape[1]
        generated = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=task.max_new_tokens,
            eos_token_id=self.stops,
            pad_token_id=self.pad,
            past_key_values=roomy_cache(self.n_layers),
        )
        if handle is not None:
            assert handle.kept == [question.by_layer[-1] for question in batch], "dropped other than planned"
        rows = []
        for question, sample, tokens in zip(batch, samples, generated[:, n_prompt:].tolist(), strict=True):
            length = next((i + 1 for i, token in enumerate(tokens) if token in self.stops), len(tokens))
            prediction = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
            rows.append(
                {
                    "id": question.id,
                    "task": question.task,
                    "question": question.text,
                    "prediction": prediction,
                    "answers": sample.answers,
                    "metric": question.metric,
                    "score": score(prediction, sample.answers, task),
                    "density": sample.density,
                    "new_tokens": length,
                }
            )
        return rows

    def prepare(self, samples: Sequence[Sample], handle: PruneHandle | None) -> dict[str, Tensor]:
        """Left-padded inputs of a batch on the model's device; a smaller page's blank is told to the handle."""
        prompts = [tokenize_question(_asked(sample), sample.images, self.processor) for sample in samples]
        if isinstance(handle, SmallerPageHandle):
            prompts, found = self._smaller(prompts, samples, handle)
        elif self.method.name == "fewer_tiles":
            prompts, found = self._fewer(prompts, samples)
        else:
            found = [self.processor.picture_inputs(sample.images) for sample in samples if sample.images]
        inputs = pad([prompt.expand() for prompt in prompts], self.pad, side="left")
        del inputs["labels"]
        inputs |= join_pictures(found) | self.processor.prompt_inputs(inputs["input_ids"])
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def _smaller(
        self, prompts: list[Prompt], samples: Sequence[Sample], handle: SmallerPageHandle
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of smaller pages; which of their tokens are not blank is told to the handle."""
        process, per_tile = self.processor.image_processor, int(self.processor.image_seq_length)
        assert self.method.keep is not None
        shrunk, found, handle.kept_per_row = [], [], []
        for prompt, sample in zip(prompts, samples, strict=True):
            pages = [
                shrink_page(image, n_kept(self.method.keep, count), process.size["height"], per_tile)
                for image, count in zip(sample.images, prompt.counts[1], strict=True)
            ]
            shrunk.append(replace(prompt, counts={1: tuple(len(page.tiles) * per_tile for page in pages)}))
            tiles = [tile for page in pages for tile in page.tiles]
            if tiles:
                read = process(tiles, crop_to_patches=False, return_tensors="pt")
                found.append({"pixel_values": read["pixel_values"]})
            handle.kept_per_row.append(
                torch.cat([torch.zeros(0, dtype=torch.bool), *(p.kept for p in pages)])
            )
        return shrunk, found

    def _fewer(
        self, prompts: list[Prompt], samples: Sequence[Sample]
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of pages cut into fewer tiles."""
        cut, found = [], []
        for prompt, sample in zip(prompts, samples, strict=True):
            counts = []
            for image, count in zip(sample.images, prompt.counts[1], strict=True):
                limit = self._tile_limit(image, count)
                counts.append(self._tokens_at(image, limit))
                read = self.processor.image_processor(
                    [image], crop_to_patches=True, max_patches=limit, return_tensors="pt"
                )
                found.append({"pixel_values": read["pixel_values"]})
            cut.append(replace(prompt, counts={1: tuple(counts)}))
        return cut, found

    def costs(self) -> dict[str, float | None]:
        """Visual tokens per question, nominal and averaged over the decoder's layers, and seconds per question."""
        n = len(self.questions)
        nominal = sum(question.kept for question in self.questions) / n
        worked_on = sum(sum(question.by_layer) for question in self.questions)
        times = list(_read_lines(self.out / TIMES))
        answered = sum(row["questions"] for row in times)
        return {
            "visual_tokens_nominal": nominal,
            "visual_tokens_layer_mean": worked_on / (n * self.n_layers),
            "seconds_per_sample": sum(row["seconds"] for row in times) / answered if answered else None,
        }


def _asked(sample: Sample) -> str:
    return next(message["content"] for message in sample.messages if message["role"] == "user")


def _batches(questions: Iterable[Question], batch_size: int) -> Iterator[list[Question]]:
    """Batches of one task and of similar length, the longest first, so that a batch too large fails at once.

    A batch decodes until its longest answer ends, and how long an answer gets shows on the page alone.
    """
    ordered = sorted(questions, key=lambda q: (q.task, q.metric, -q.total, -q.ink, q.index))
    for _, group in groupby(ordered, key=lambda q: (q.task, q.metric)):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def _ink(image: Image.Image) -> float:
    """Edges of a picture: its steps of brightness along the lines, as multiples of its contrast."""
    brightness = np.asarray(image.convert("L"), dtype=np.float32)
    return float(np.abs(np.diff(brightness, axis=1)).sum() / max(1.0, float(np.ptp(brightness))))


# ----------------------------------------------------------------------------------------------------------- files


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; a half-written last line, as a kill leaves it, is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = file.readlines()
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("\n"):
            return
        try:
            yield json.loads(line)
        except ValueError:
            raise ValueError(
                f"{path}: line {number} is not JSON; delete the folder and evaluate again."
            ) from None


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    _append(partial, list(rows))
    partial.replace(path)
