"""A run folder whose files have the real structure and invented numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcot_vl.data.dataset import Sample, write_shard

TASKS = ["transcribe", "forms", "table_markdown", "chart_qa", "dense_pages", "sums"]
PER_TASK = 12
TEXT = "Invoice 4471 to North Mill\nDue 12 March 2024\nTotal 318.40\nPaid in part, rest by post"
BANDS = ("0-2", "2-4", "4-6", "6-8")


TEACHER: dict[str, Any] = {  # of a result
    "model": "somewhere/tiny",
    "stage": "teacher",
    "method": "none",
    "compress_ratio": 1,
    "keep": None,
    "layer": None,
}


def prediction(text: str, share: float, rng: np.random.Generator) -> str:
    """`text` with about 1 - `share` of its characters replaced."""
    return "".join(c if c == "\n" or rng.random() < share else "x" for c in text)


def write_result(
    run: Path,
    name: str,
    level: float,
    seed: int = 0,
    tokens: float = 192.0,
    seconds: float = 0.5,
    **fields: Any,
) -> None:
    rng = np.random.default_rng([seed, len(name), int(level * 1e6)])
    rows = []
    for t, task in enumerate(TASKS):
        for i in range(PER_TASK):
            good = bool(rng.random() < level)
            score = 1.0 if good else float(rng.random() * level)
            rows.append(
                {
                    "id": f"test-{task}-{i}",
                    "task": task,
                    "question": f"What is written here ({task})?",
                    "prediction": TEXT if good else prediction(TEXT, score, rng),
                    "answers": [TEXT],
                    "metric": "cer",
                    "score": score,
                    "density": 1.0 + (i * len(TASKS) + t) % 70 / 10,
                    "new_tokens": 60,
                }
            )

    def cell(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        mean = float(np.mean([r["score"] for r in chosen]))
        return {"n": len(chosen), "score": mean, "ci": [mean - 0.05, mean + 0.05]}

    tasks = {task: cell([r for r in rows if r["task"] == task]) for task in TASKS}
    bands = {}
    for band in BANDS:
        low, high = map(float, band.split("-"))
        bands[band] = cell([r for r in rows if low <= r["density"] < high])
    mean = float(np.mean([c["score"] for c in tasks.values()]))
    result = {
        **TEACHER,
        "seed": seed,
        "split": "test",
        "data_hash": "0123456789abcdef",
        "n": len(rows),
        "mean_over_tasks": mean,
        "mean_over_tasks_ci": [mean - 0.02, mean + 0.02],
        "tasks": tasks,
        "density": bands,
        "visual_tokens_nominal": tokens,
        "visual_tokens_layer_mean": tokens,
        "seconds_per_sample": seconds,
        "commit": "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        "hardware": "Some CPU @ 2.0 GHz, 2 cores, 24 GiB",
        "date": "2026-11-21T08:00:00+00:00",
    }
    folder = run / "evaluate" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | fields))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_losses(run: Path, seed: int, steps: int = 120, compressor: str = "conv") -> None:
    folder = run / f"seed-{seed}" / compressor / "realign"
    folder.mkdir(parents=True)
    settings = {"compressor": compressor, "visual_positions": "kept"}
    (folder / "stage.json").write_text(json.dumps({"stage": "realign", "seed": seed, "settings": settings}))
    rng = np.random.default_rng(seed)
    with (folder / "losses.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "seconds": step * 0.4, "learning_rate": 1e-3}
            for ratio in (2, 4):
                ce = 0.3 * ratio + 2.5 * math.exp(-step / 30) + rng.normal(0, 0.05)
                row |= {
                    f"ratio-{ratio}/kl": ce * 0.6,
                    f"ratio-{ratio}/ce": ce,
                    f"ratio-{ratio}/agreement": 0.5,
                }
            file.write(json.dumps(row) + "\n")


def write_bench(run: Path) -> None:
    def spread(value: float) -> dict[str, float]:
        return {"median": value, "low": value * 0.9, "high": value * 1.1}

    def contender(
        name: str, ratio: int, method: str, keep: float | None, layer: int | None, ms: float
    ) -> dict[str, Any]:
        seconds = {
            part: spread(ms / 4e3) for part in ("preprocess", "vit", "projector", "prefill", "ttft", "decode")
        }
        return {
            "name": name,
            "model": "somewhere/tiny",
            "compress_ratio": ratio,
            "method": method,
            "keep": keep,
            "layer": layer,
            "tiles": 3,
            "visual_tokens_nominal": 192 / ratio * (keep or 1),
            "visual_tokens_layer_mean": 192 / ratio * (keep or 1),
            "prompt_tokens": 220,
            "kv_cache_bytes": 500_000 / ratio,
            "flops_vit": 1e9,
            "flops_projector": 1e8,
            "flops_prefill": 2e9 / ratio,
            "seconds": seconds | {"end_to_end": spread(ms / 1e3)},
            "decode_tokens_per_second": spread(200.0),
            "faster": {part: spread(80 / ms) for part in ("ttft", "decode", "end_to_end")},
        }

    bench = {
        "pages": 4,
        "new_tokens": 32,
        "rounds": 3,
        "threads": 2,
        "device": "cpu",
        "dtype": "float32",
        "contenders": [
            contender("teacher", 1, "none", None, None, 80.0),
            contender("student 2x", 2, "none", None, None, 60.0),
            contender("student 4x", 4, "none", None, None, 50.0),
            contender("FastV 50%", 1, "fastv", 0.5, 2, 75.0),
        ],
        "commit": "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        "hardware": "Some CPU @ 2.0 GHz, 2 cores, 24 GiB",
        "date": "2026-11-21T09:00:00+00:00",
    }
    (run / "bench").mkdir()
    (run / "bench" / "bench.json").write_text(json.dumps(bench))


def write_run(run: Path) -> None:
    """A whole run: teacher, control, two students over three seeds in both stages, and every baseline."""
    write_result(run, "teacher", 0.95)
    write_bench(run)
    for seed in range(3):
        write_losses(run, seed)
        write_result(run, f"control-{seed}", 0.96, seed, stage="control")
        for ratio in (2, 4):
            cost = {"tokens": 192.0 / ratio, "seconds": 0.5 / ratio**0.5}
            for stage, level in (("realign", 0.62), ("post-train", 0.97)):
                student = {"stage": stage, "compress_ratio": ratio} | cost
                write_result(run, f"{stage}-{ratio}-{seed}", level - 0.05 * ratio / 2, seed, **student)
    for keep in (0.5, 0.25):
        for method, level in (("fastv", 0.7), ("random", 0.45), ("uniform", 0.5), ("smaller_page", 0.6)):
            settings = {"method": method, "keep": keep, "tokens": 192 * keep, "seconds": 0.45}
            if method == "fastv":
                for layer in (1, 2):
                    mean = 192 * (layer + (4 - layer) * keep) / 4
                    extra = {"layer": layer, "visual_tokens_layer_mean": mean}
                    write_result(
                        run, f"{method}-{layer}-{keep}", level * keep**0.5 + 0.1 * layer, **settings, **extra
                    )
            else:
                write_result(run, f"{method}-{keep}", level * keep**0.5, **settings)
    pages = run / "data" / "test"
    pages.mkdir(parents=True)
    write_shard(pages / "0.parquet", [page(f"test-{task}-{i}", task) for task in TASKS for i in range(2)])


def page(name: str, task: str) -> Sample:
    image = Image.fromarray(np.random.default_rng(0).integers(180, 255, (448, 224, 3), dtype=np.uint8))
    return Sample(name, [image], [{"role": "user", "content": "?"}], task, "test", [TEXT], "cer", 2.0, 3)


SAID: dict[str, str] = {}  # figure -> the texts around its panels


def write_benchmark(run: Path, name: str, folder: str, score: float, **fields: Any) -> None:
    """A result of `evaluate --benchmark`: four questions, of which the first `4 * score` are right."""
    rows = [
        {"id": str(i), "task": "part", "prediction": "?", "answers": ["?"], "score": float(i < 4 * score)}
        | {"question": "?", "metric": "anls", "density": None, "new_tokens": 1}
        for i in range(4)
    ]
    result = {
        **TEACHER,
        "seed": 0,
        "split": "validation",
        "data_hash": f"{name}-0123456789",
        "benchmark": name,
        "metric": "anls",
        "score": score,
        "score_ci": [score, score],
        "n": 4,
        "visual_tokens_nominal": 100.0 if name == "docvqa" else 200.0,
        "visual_tokens_layer_mean": 100.0,
        "seconds_per_sample": 1.0,
        "commit": "deadbeef",
        "hardware": "Some CPU",
        "date": "2026-11-21T08:00:00+00:00",
    }
    path = run / "evaluate" / folder / name
    path.mkdir(parents=True)
    (path / "result.json").write_text(json.dumps(result | fields))
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
