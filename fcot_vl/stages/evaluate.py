"""The `evaluate` stage: one model, one method, samples or a benchmark -> `predictions.jsonl` and `result.json`.

This stage reads the samples of `synthesize` or a benchmark by name, and a model saved by training. The report reads its
result. Every finished batch is on disk before the next one starts, so a killed evaluation resumes with the missing
questions, on one process or several. `evaluator.py` runs the model, and `aggregation.py` computes the scores.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fcot_vl.common.console import show
from fcot_vl.common.errors import one_line
from fcot_vl.common.files import json_line, write_json
from fcot_vl.common.hashing import former_model_hash, hash_model_folder
from fcot_vl.common.provenance import provenance
from fcot_vl.common.stage import FILE as STAGE
from fcot_vl.common.stage import open_stage, read_stage
from fcot_vl.data.dataset import Sample, SampleFolder
from fcot_vl.data.skip_log import MAX_SKIPPED
from fcot_vl.evaluate.evaluator import Evaluator
from fcot_vl.evaluate.predictions import PredictionFiles
from fcot_vl.evaluate.processes import connect_processes
from fcot_vl.evaluate.tasks.dataset import BenchmarkSamples, open_benchmark
from fcot_vl.evaluate.tasks.own import OWN_FILES, OwnSamples
from fcot_vl.evaluate.tasks.public import benchmark_of
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.prune.method import Method

logger = logging.getLogger(__name__)

STAGES = ("teacher", "realign", "post-train", "control")
RESULT, SUBMISSION = "result.json", "submission.json"
MERGE = "merge.json"  # in a merged model's folder: the method, and the data that its weights were chosen on


# ------------------------------------------------------------------------------------------------------ the stage


def evaluate(
    model: str | Path | Any,
    data: str | Path | Sequence[Sample] | None,
    out: str | Path,
    *,
    stage: str = "teacher",
    method: Method | None = None,
    seed: int = 0,
    split: str | None = None,
    batch_size: int = 64,
    processor: Any = None,
    benchmark: str | None = None,
    limit: int | None = None,
    max_skipped: float = MAX_SKIPPED,
) -> dict[str, Any]:
    """Score a model on samples or on a benchmark and return the content of `out/result.json`.

    With `accelerate launch` or `torchrun`, each process answers a share of the questions. The result is the same as
    with one process.

    Args:
        model: Folder of a teacher or student, or a loaded model (which also needs `processor`).
        data: Folder written by `synthesize`, samples, or a file of questions and answers (see `OwnSamples`). For a
            benchmark, see `open_benchmark`.
        out: Output folder. If it is already finished with the same settings, its result is returned at once.
        stage: Stage of the model: "teacher", "realign", "post-train" or "control".
        method: Method that drops visual tokens at inference. Default: none are dropped.
        seed: Seed of the model's training, which is recorded.
        split: Split of a benchmark to score. For samples it is only recorded ("test" by default).
        batch_size: Maximum number of questions decoded together. It is not one of the recorded settings, so a run may
            resume with another value.
        processor: Processor of a loaded model.
        benchmark: Name of one of the paper's benchmarks.
        limit: Maximum number of questions, from the start.
        max_skipped: Maximum share of the questions of a benchmark or a file that cannot be used (broken images). Above
            it there is no result.

    Raises:
        ValueError: If a setting is wrong, samples share an id, the weights of a merge were chosen on these samples, or
            a benchmark cannot be read or is not scored here.
        StageError: If `out` holds another stage or other settings.
    """
    method = method or Method()
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r} of a model: choose one of {', '.join(STAGES)}.")
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size and limit must be at least 1, got {batch_size} and {limit}.")
    out, samples = Path(out), _open(data, benchmark, split, limit)
    split = samples.split if isinstance(samples, BenchmarkSamples) else split or "test"
    name = (
        str(model)
        if isinstance(model, str | Path)
        else str(getattr(model, "name_or_path", "")) or "in memory"
    )
    processes = connect_processes()
    logger.info(f"evaluate: {name} ({method}), {len(samples)} questions -> {out}")
    files = PredictionFiles(out, processes.rank if processes.world_size > 1 else None)
    opened = None
    if processes.is_main:
        settings = {"stage": stage, "split": split, **{f"method.{k}": v for k, v in asdict(method).items()}}
        if benchmark is not None:
            settings["benchmark"] = benchmark
        files_hash = None if benchmark is not None else _files_hash(data, limit)
        digest = _digest(out, samples, files_hash)
        known = {"merged": _merged_by(Path(name), digest), "split": split, "data_hash": digest}

        def inputs(hashed: Callable[[Path], str]) -> dict[str, str]:
            weights = hashed(Path(model)) if isinstance(model, str | Path) else "in memory"
            return {"weights": weights, "data": digest}

        former = partial(inputs, former_model_hash)
        opened = (
            open_stage(out, "evaluate", settings, inputs(hash_model_folder), seed, former),
            known,
            files_hash,
        )
        if not opened[0].done:
            files.join()
    processes.wait()
    if read_stage(out)["status"] == "done":
        logger.info(f"evaluate: {out} is finished, {read_stage(out)['figures']['n']} questions")
        return _read_result(out)
    if isinstance(model, str | Path):
        model, processor = load_for_inference(model)
    elif processor is None:
        raise ValueError("a loaded model needs its processor; give `processor`")
    evaluator = Evaluator(model, processor, method, samples, max_skipped)
    evaluator.run(files, batch_size, processes)
    processes.wait()
    if opened is not None:
        stage_folder, known, files_hash = opened
        rows = evaluator.finish(files)
        result = {
            "model": name,
            "stage": stage,
            "method": method.name,
            "compress_ratio": evaluator.generator.compress_ratio,
            "compressor": getattr(evaluator.generator.model.config, "compressor", None),
            "visual_positions": getattr(evaluator.generator.model.config, "visual_positions", None),
            "keep": method.keep,
            "layer": method.layer,
            "seed": seed,
            **known,
            **evaluator.summary(rows),
            **evaluator.generator.costs(evaluator.questions),
            "seconds_per_sample": files.seconds_per_question(),
            **provenance(),
        }
        if isinstance(samples, BenchmarkSamples) and samples.hidden:
            write_json(out / SUBMISSION, samples.benchmark.submission(rows))
        write_json(out / RESULT, result)
        recognized = {} if files_hash is None else {"data_files": files_hash}
        stage_folder.finish({"n": result["n"], **_headline(result), **recognized})
        show(f"evaluate: {_summary_line(result)} -> {out / RESULT}")
    processes.wait()
    return _read_result(out)


def _open(
    data: str | Path | Sequence[Sample] | None, benchmark: str | None, split: str | None, limit: int | None
) -> Sequence[Sample]:
    if benchmark is not None:
        if data is not None and not isinstance(data, str | Path):
            raise ValueError("a benchmark is read from a folder, a file or the hub, not from samples")
        return open_benchmark(benchmark_of(benchmark), data, split, limit)
    if data is None:
        raise ValueError("no data to evaluate on; give a data folder, or the name of a benchmark")
    if isinstance(data, str | Path) and Path(data).suffix in OWN_FILES and not Path(data).is_dir():
        return OwnSamples(Path(data), limit)
    samples = SampleFolder(Path(data)) if isinstance(data, str | Path) else data
    return samples if limit is None else samples[:limit]


def _files_hash(data: Any, limit: int | None) -> str | None:
    """Return the SHA-256 of the shards of a data folder, for recognizing them without decoding; None for other data."""
    if not isinstance(data, str | Path) or not Path(data).is_dir():
        return None
    return hashlib.sha256(f"{SampleFolder(Path(data)).fingerprint()} {limit}".encode()).hexdigest()


def _digest(out: Path, samples: Sequence[Sample], files: str | None) -> str:
    """Return `data_hash`; if the evaluation in `out` is finished on the same files, read it there."""
    if files is not None and (out / STAGE).exists():
        record = read_stage(out)
        if record["stage"] == "evaluate" and record.get("figures", {}).get("data_files") == files:
            return str(record["inputs"]["data"])
    return data_hash(samples)


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    """Return the headline number of the result, by name."""
    if "benchmark" in result:
        return {"benchmark": result["benchmark"], "metric": result["metric"], "score": result["score"]}
    return {"mean_over_tasks": result["mean_over_tasks"]}


def _summary_line(result: dict[str, Any]) -> str:
    """Describe the result in one line."""
    if "benchmark" not in result:
        low, high = result["mean_over_tasks_ci"]
        return f"mean over tasks {result['mean_over_tasks']:.3f} [{low:.3f}, {high:.3f}]"
    skipped = (
        f", {result['skipped']} of {result['n'] + result['skipped']} skipped" if result["skipped"] else ""
    )
    if result["score"] is None:
        why = (
            "the answers of this split are not public" if result["hidden"] else "no question could be scored"
        )
        return (
            f"{result['benchmark']}, split {result['split']}: {why}, {result['n']} predictions kept{skipped}"
        )
    low, high = result["score_ci"]
    return f"{result['benchmark']} {result['metric']} {result['score']:.4g} [{low:.4g}, {high:.4g}]{skipped}"


def _merged_by(folder: Path, digest: str) -> str | None:
    """Return the merge method of a merged model with its settings, or None for any other model.

    Raises:
        ValueError: If the file of the merge cannot be read, or if the weights were chosen on this data.
    """
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
        raise ValueError(f"{path}: not the file of a merge ({one_line(error)}); merge again") from None
    if digest in chosen_on:
        raise ValueError(
            f"{folder}: the weights of this merge were chosen on these samples (data {digest[:12]}), so their score "
            "would be too high; evaluate on another split"
        )
    return name


def data_hash(samples: Iterable[Sample]) -> str:
    """Return the SHA-256 over the samples in order: ids, tasks, messages, answers, metrics, image sizes and pixels.

    For a benchmark, it is taken over the rows and the bytes of the images, for a user's file over its bytes and the
    sizes of the image files.
    """
    if isinstance(samples, BenchmarkSamples | OwnSamples):
        return samples.fingerprint()
    digest = hashlib.sha256()
    for sample in samples:
        sizes = [image.size for image in sample.images]
        content = [sample.id, sample.task, sample.messages, sample.answers, sample.metric, sizes]
        digest.update(json_line(content)[:-1].encode())
        for image in sample.images:
            digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def _read_result(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return result
