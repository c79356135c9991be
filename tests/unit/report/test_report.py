"""The report, made from a run folder whose files have the real structure and invented numbers (only here)."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fcot_vl.common.stage import StageError, open_stage
from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.report.figures import losses
from fcot_vl.report.markdown import _retention_lookup, render
from fcot_vl.report.results import ReportError, gather
from fcot_vl.report.retention import retention, retention_difference, retention_interval
from fcot_vl.report.run_data import ModelResults
from fcot_vl.report.variant import Variant
from fcot_vl.stages.report import ReportConfig, report

TASKS = ["transcribe", "forms", "table_markdown", "chart_qa", "dense_pages", "sums"]
PER_TASK = 12
TEXT = "Invoice 4471 to North Mill\nDue 12 March 2024\nTotal 318.40\nPaid in part, rest by post"
BANDS = ("0-2", "2-4", "4-6", "6-8")


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
        "model": "somewhere/tiny",
        "stage": "teacher",
        "method": "none",
        "compress_ratio": 1,
        "keep": None,
        "layer": None,
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
            peer = {"method": method, "keep": keep, "tokens": 192 * keep, "seconds": 0.45}
            if method == "fastv":
                for layer in (1, 2):
                    mean = 192 * (layer + (4 - layer) * keep) / 4
                    extra = {"layer": layer, "visual_tokens_layer_mean": mean}
                    write_result(
                        run, f"{method}-{layer}-{keep}", level * keep**0.5 + 0.1 * layer, **peer, **extra
                    )
            else:
                write_result(run, f"{method}-{keep}", level * keep**0.5, **peer)
    pages = run / "data" / "test"
    pages.mkdir(parents=True)
    write_shard(pages / "0.parquet", [page(f"test-{task}-{i}", task) for task in TASKS for i in range(2)])


def page(name: str, task: str) -> Sample:
    image = Image.fromarray(np.random.default_rng(0).integers(180, 255, (448, 224, 3), dtype=np.uint8))
    return Sample(name, [image], [{"role": "user", "content": "?"}], task, "test", [TEXT], "cer", 2.0, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


SAID: dict[str, str] = {}  # figure -> the texts around its panels


@pytest.fixture(scope="module")
def made(run: Path) -> tuple[Path, str]:
    save = Figure.savefig

    def spy(self: Figure, path: Path, **options: Any) -> None:
        SAID[Path(path).name] = " ".join(t.get_text().replace("\n", " ") for t in self.texts)
        save(self, path, **options)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(Figure, "savefig", spy)
        return report(ReportConfig(run)), printed.getvalue()


@pytest.mark.slow
def test_files_of_a_report(made: tuple[Path, str]) -> None:
    folder, _ = made
    names = {p.name for p in folder.iterdir()}
    assert {"report.json", "report.md", "stage.json"} <= names
    assert {"retention.png", "ratios.png", "peers.png", "density.png", "losses.png", "tradeoff.png"} <= names
    assert len([n for n in names if n.startswith("example")]) == 4
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5, f"{path.name} is blank"
    text = (folder / "report.md").read_text()
    for path in folder.glob("*.png"):
        assert f"({path.name})" in text


@pytest.mark.slow
def test_every_figure_names_what_where_and_when(made: tuple[Path, str]) -> None:
    assert len(SAID) == 10
    for name, text in SAID.items():
        for fact in (
            "tiny",
            "0123456789ab",
            "deadbeefde",
            "Some CPU @ 2.0 GHz",
            "2026-11-21",
            "compress ratio",
        ):
            assert fact in text, f"{name} does not say {fact}"


@pytest.mark.slow
def test_the_text_is_rendered_from_the_json_alone(made: tuple[Path, str]) -> None:
    folder, _ = made
    content = json.loads((folder / "report.json").read_text())
    assert render(content) == (folder / "report.md").read_text()
    assert set(content["figures"].values()) | {e["figure"] for e in content["examples"]} == {
        path.name for path in folder.glob("*.png")
    }


@pytest.mark.slow
def test_braces_and_fences_of_an_answer_are_kept(tmp_path: Path, log: Callable[[], str]) -> None:
    """The template neither evaluates, escapes nor cuts what a model said."""
    write_result(tmp_path, "teacher", 0.9)
    path = tmp_path / "evaluate" / "teacher" / "predictions.jsonl"
    answer = "```{{ 1 + 1 }} {% if %} {# #} <b>&amp;\n\n"
    rows = [json.loads(line) | {"prediction": answer} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (report(ReportConfig(tmp_path)) / "report.md").read_text()
    assert f"\n\n````text\n{answer}\n````\n" in text
    assert str(tmp_path / "report" / "report.md") in log()


@pytest.mark.slow
def test_numbers_of_a_report(made: tuple[Path, str], run: Path) -> None:
    folder, _ = made
    rows = {r["label"]: r for r in json.loads((folder / "report.json").read_text())["models"]}
    teacher = rows["teacher"]
    assert teacher["retention"] == 1.0
    assert teacher["retention_ci"] == [1.0, 1.0]
    student = rows["student 2x"]
    assert student["seeds"] == [0, 1, 2]
    by_hand = []
    for task in TASKS:
        scores = []
        for seed in range(3):
            result = json.loads((run / "evaluate" / f"post-train-2-{seed}" / "result.json").read_text())
            scores.append(result["tasks"][task]["score"])
        by_hand.append(np.mean(scores) / teacher["tasks"][task]["score"])
        assert student["tasks"][task]["retention"] == pytest.approx(by_hand[-1])
    assert student["retention"] == pytest.approx(np.mean(by_hand))
    low, high = student["retention_ci"]
    assert low < student["retention"] < high
    least, most = student["retention_seed_range"]
    assert least <= student["retention"] <= most
    assert student["speedup"] == pytest.approx(2**0.5)
    assert student["bench_seconds"] == pytest.approx(0.06)
    assert student["bench_faster"] == pytest.approx(80 / 60)
    assert rows["FastV 50%, K=1"]["bench_seconds"] is None
    assert rows["student 2x, re-aligned only"]["bench_seconds"] is None
    assert rows["FastV 50%, K=1"]["visual_tokens_layer_mean"] == pytest.approx(192 * 0.625)
    assert {"student 4x, re-aligned only", "control: teacher post-trained", "smaller page 25%"} <= rows.keys()


@pytest.mark.slow
def test_equal_tokens_are_by_name_or_by_mean(made: tuple[Path, str], run: Path) -> None:
    """A student stands against every baseline with its share; a difference is that of the two retentions, paired."""
    text = (made[0] / "report.md").read_text().partition("## At equal tokens")[2].partition("\n## ")[0]
    against = {row.split("|")[2].strip() for row in text.splitlines() if row.startswith("| student 4x |")}
    assert against == {
        "FastV 25%, K=1",
        "FastV 25%, K=2",
        "random drop 25%",
        "uniform drop 25%",
        "smaller page 25%",
    }
    found = gather(run)
    (student,) = (j for j in found.find("post-train") if j.variant.compress_ratio == 2)
    peer = found.find("teacher", "random")[0]
    difference = retention_difference(student, peer, found.teacher, TASKS)
    one, two = (retention(model, found.teacher, TASKS) for model in (student, peer))
    assert difference is not None and one is not None and two is not None
    assert difference[0] == pytest.approx(one - two)
    assert difference[1][0] < difference[0] < difference[1][1]
    assert retention_difference(peer, peer, found.teacher, TASKS) == (0.0, (0.0, 0.0))
    other = retention_difference(peer, student, found.teacher, TASKS)
    assert other is not None and other[0] == pytest.approx(-difference[0])


def test_retention_is_the_papers_average() -> None:
    """Table 1, InternVL2-2B at 50%: ten ratios, printed average 104.20."""
    base = [85.90, 76.24, 73.36, 57.66, 78.4, 35.7, 34.5, 74.09, 46.30, 94.25]
    ours = [86.21, 78.46, 72.90, 56.01, 80.2, 35.6, 34.8, 85.80, 58.96, 90.68]

    def model(scores: list[float]) -> ModelResults:
        tasks = {str(i): {"n": 1, "score": s / 100, "ci": None} for i, s in enumerate(scores)}
        return ModelResults(
            Variant("teacher", 1, "none", None, None), [{"tasks": tasks, "seed": 0}], [{}], [Path()]
        )

    value = retention(model(ours), model(base), [str(i) for i in range(10)])
    assert value == pytest.approx(1.0420, abs=5e-5)
    assert retention_interval(model(ours), model(base), ["0"]) is None


def test_interval_is_paired(tmp_path: Path) -> None:
    """Against itself a model's retention is exactly 1, however noisy its pages are."""
    write_result(tmp_path, "teacher", 0.6)
    write_result(tmp_path, "twin", 0.6, stage="control")
    found = gather(tmp_path)
    (twin,) = found.find("control")
    assert retention_interval(twin, twin, TASKS) == (1.0, 1.0)


def test_unmeasured_cells_stay_empty(tmp_path: Path) -> None:
    """No predictions, no density, no seconds, no students, no losses, no pages: a report all the same."""
    write_result(tmp_path, "teacher", 0.9, seconds_per_sample=None, density={})
    (tmp_path / "evaluate" / "teacher" / "predictions.jsonl").unlink()
    folder = report(ReportConfig(tmp_path))
    row = json.loads((folder / "report.json").read_text())["models"][0]
    assert row["seconds_per_sample"] is None
    assert row["speedup"] is None
    assert row["retention_ci"] is None
    text = (folder / "report.md").read_text()
    assert "None" not in text
    assert "nan" not in text
    assert not (folder / "losses.png").exists()


@pytest.mark.slow
def test_a_run_of_one_baseline_has_a_report(tmp_path: Path) -> None:
    """A budget without a trained model or FastV has an empty panel."""
    write_result(tmp_path, "teacher", 0.9)
    write_result(tmp_path, "random", 0.5, method="random", keep=0.5)
    folder = report(ReportConfig(tmp_path))
    labels = [row["label"] for row in json.loads((folder / "report.json").read_text())["models"]]
    assert labels == ["teacher", "random drop 50%"]


@pytest.mark.slow
def test_image_sets_and_batches_have_tables(tmp_path: Path) -> None:
    """A bench of several sets is the paper's Table 5; the bound stands beside the speed-up."""
    write_result(tmp_path, "teacher", 0.9)
    write_bench(tmp_path)
    path = tmp_path / "bench" / "bench.json"
    bench = json.loads(path.read_text())
    row = bench["contenders"][1]
    part = {"faster": {"median": 2.5}, "share": {"median": 0.5}}
    row |= {"bound": {"end_to_end": part}, "peak_extra_bytes": 7e6}
    for one in bench["contenders"]:
        one["batch"] = {"pages_per_second": {"median": 3.25}, "faster": {"end_to_end": {"median": 1.5}}}
    bench |= {
        "batch_size": 8,
        "sets": [{"name": n, "contenders": bench["contenders"]} for n in ("DocVQA", "ChartQA")],
    }
    path.write_text(json.dumps(bench))
    text = (report(ReportConfig(tmp_path)) / "report.md").read_text()
    lines = [line for line in text.partition("## Speed")[2].splitlines() if line.startswith("| student 2x |")]
    assert "2.50x | 50%" in lines[0] and "| 7 |" in lines[0]
    assert lines[1] == "| student 2x | 60.0 | 1.33x | 60.0 | 1.33x |"
    assert lines[2] == "| student 2x | 3.25 | 1.50x |  |"


@pytest.mark.slow
def test_the_speed_table_has_scores_beside_times(made: tuple[Path, str]) -> None:
    folder, _ = made
    text = (folder / "report.md").read_text()
    speed = text.partition("## Speed")[2].partition("\n## ")[0]
    (line,) = [row for row in speed.splitlines() if row.startswith("| student 4x")]
    rows = {r["label"]: r for r in json.loads((folder / "report.json").read_text())["models"]}
    assert "1.60x [1.44, 1.76]" in line
    assert line.endswith(f"| {100 * rows['student 4x']['retention']:.1f} |")
    assert "Some CPU @ 2.0 GHz" in speed


@pytest.mark.slow
def test_the_terminal_table(made: tuple[Path, str]) -> None:
    _, text = made
    assert "student 2x" in text
    assert "FastV 25%, K=2" in text


@pytest.mark.slow
def test_remade_when_results_change(tmp_path: Path) -> None:
    write_result(tmp_path, "teacher", 0.9)
    folder = report(ReportConfig(tmp_path))
    write_result(tmp_path, "student", 0.8, stage="post-train", compress_ratio=2)
    report(ReportConfig(tmp_path))
    assert len(json.loads((folder / "report.json").read_text())["models"]) == 2


@pytest.mark.slow
def test_nothing_of_others_is_removed(tmp_path: Path) -> None:
    write_result(tmp_path, "teacher", 0.9)
    other = tmp_path / "model"
    open_stage(other, "post-train", {}, {})
    (other / "model.safetensors").write_bytes(b"trained for days")
    with pytest.raises(StageError, match="holds the stage 'post-train'"):
        report(ReportConfig(tmp_path, other))
    assert (other / "model.safetensors").read_bytes() == b"trained for days"
    folder = report(ReportConfig(tmp_path))
    (folder / "notes.txt").write_text("mine")
    (folder / "old.png").write_bytes(b"of a run before")
    report(ReportConfig(tmp_path))
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / "old.png").exists()


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such run folder"):
        gather(tmp_path / "nowhere")
    write_result(tmp_path, "student", 0.8, stage="post-train", compress_ratio=2)
    with pytest.raises(ReportError, match="no result of the teacher"):
        gather(tmp_path)
    write_result(tmp_path, "teacher", 0.9, data_hash="fedcba9876543210")
    with pytest.raises(ReportError, match="different test data"):
        gather(tmp_path)
    (tmp_path / "evaluate" / "student" / "result.json").write_text("{")
    with pytest.raises(ReportError, match="cannot be read"):
        gather(tmp_path)
    (tmp_path / "evaluate" / "student" / "result.json").write_text('{"a": 1}')
    with pytest.raises(ReportError, match="not a result file"):
        gather(tmp_path)


def test_two_results_of_one_seed_are_refused(tmp_path: Path) -> None:
    write_result(tmp_path, "teacher", 0.9)
    write_result(tmp_path, "again", 0.8)
    with pytest.raises(ReportError, match="both claim to be 'teacher' of seed 0"):
        gather(tmp_path)


def test_a_log_cut_off_in_its_last_line_is_read(tmp_path: Path) -> None:
    write_result(tmp_path, "teacher", 0.9)
    write_losses(tmp_path, 0, steps=5)
    path = tmp_path / "seed-0" / "conv" / "realign" / "losses.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "rat')
    curves = gather(tmp_path).curves
    assert [(c.compress_ratio, c.step) for c in curves] == [(2, [1, 2, 3, 4, 5]), (4, [1, 2, 3, 4, 5])]


def test_merged_models_are_told_apart():
    plain, average, weighed = (
        Variant("post-train", 4, "none", None, None, merged=m) for m in (None, "average", "shapley")
    )
    assert len({plain, average, weighed}) == 3
    assert (plain.label, weighed.label) == ("student 4x", "student 4x, merged: shapley")
    assert sorted([weighed, average, plain], key=Variant.sort_key) == [plain, average, weighed]


def write_benchmark(run: Path, name: str, folder: str, score: float, **fields: Any) -> None:
    """A result of `evaluate --benchmark`: four questions, of which the first `4 * score` are right."""
    rows = [
        {"id": str(i), "task": "part", "prediction": "?", "answers": ["?"], "score": float(i < 4 * score)}
        | {"question": "?", "metric": "anls", "density": None, "new_tokens": 1}
        for i in range(4)
    ]
    result = {
        "model": "somewhere/tiny",
        "stage": "teacher",
        "method": "none",
        "compress_ratio": 1,
        "keep": None,
        "layer": None,
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


@pytest.mark.slow
def test_benchmarks_by_name_are_columns(tmp_path: Path) -> None:
    """Several results of one model are one row, the last column the mean of ratios (the paper's Table 1)."""
    student = {"stage": "post-train", "compress_ratio": 2}
    for name, whole, half in (("docvqa", 1.0, 0.5), ("chartqa", 0.5, 0.5), ("mme", 1440.0, 720.0)):
        write_benchmark(tmp_path, name, "teacher", whole)
        write_benchmark(tmp_path, name, "student", half, **student)
    write_benchmark(tmp_path, "infovqa", "hidden", 0.0, **student)
    path = tmp_path / "evaluate" / "hidden" / "infovqa" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": None, "score_ci": None}))
    found = gather(tmp_path)
    assert found.tasks == ["chartqa", "docvqa", "mme"]
    (model,) = found.find("post-train")
    assert retention(model, found.teacher, ["docvqa", "chartqa"]) == pytest.approx((0.5 + 1) / 2)
    assert retention(model, found.teacher, found.tasks) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert retention_interval(model, found.teacher, ["docvqa"]) is not None
    assert retention_interval(model, found.teacher, ["mme"]) is None, "points are no mean of questions"
    assert model.mean("mean_over_tasks") == pytest.approx(0.5)
    assert model.mean("visual_tokens_nominal") == pytest.approx((200 + 100 + 200) / 3)
    text = (report(ReportConfig(tmp_path)) / "report.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| student 2x | 1 |")]
    assert "720.0" in row and "50.0 [50.0, 50.0]" in row and "66.7" in row
    path = tmp_path / "evaluate" / "student" / "chartqa" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "0123456789ab"}))
    facts = gather(tmp_path).provenance()
    assert set(facts["commit"].split(", ")) == {"deadbeef", "0123456789"}, "of every result, not of the first"
    assert set(facts["data"].split(", ")) == {f"{n}-0123456789"[:12] for n in ("docvqa", "chartqa", "mme")}
    write_benchmark(tmp_path, "docvqa", "again", 0.5, **student)
    with pytest.raises(ReportError, match="both claim"):
        gather(tmp_path)


def test_a_difference_is_of_the_same_pages(tmp_path: Path) -> None:
    """Pages that one of the two has not answered do not shift the others; odd line ends cut no answer in two."""
    write_result(tmp_path, "teacher", 0.9)
    write_result(tmp_path, "one", 0.6, stage="control")
    write_result(tmp_path, "two", 0.6, stage="post-train", compress_ratio=2)
    source = tmp_path / "evaluate" / "one" / "predictions.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for name, left_out in (("one", 1), ("two", 4)):
        kept = [row | {"prediction": "a\u2028b"} for at, row in enumerate(rows) if at != left_out]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        (tmp_path / "evaluate" / name / "predictions.jsonl").write_text(text, encoding="utf-8")
    found = gather(tmp_path)
    (one,), (two,) = found.find("control"), found.find("post-train")
    assert len(one.predictions[0]) == len(two.predictions[0]) == len(TASKS) * PER_TASK - 1
    assert retention_difference(one, two, found.teacher, TASKS) == (0.0, (0.0, 0.0))


@pytest.mark.slow
def test_students_are_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """What a second seed lost is not held against a compressor trained with the first alone, nor said twice."""
    write_result(tmp_path, "teacher", 0.9)
    student = {"stage": "post-train", "compress_ratio": 2}
    write_result(tmp_path, "conv-0", 0.8, compressor="conv", **student)
    write_result(tmp_path, "conv-1", 0.5, seed=1, compressor="conv", **student)
    write_result(tmp_path, "pooling-0", 0.8, compressor="pooling", **student)
    shutil.copy(*(tmp_path / "evaluate" / name / "predictions.jsonl" for name in ("conv-0", "pooling-0")))
    found = gather(tmp_path)
    conv, pooling = found.find("post-train")
    assert conv.seeds == [0, 1] and conv.variant.compressor == "conv"
    assert retention_difference(conv, pooling, found.teacher, TASKS) == (0.0, (0.0, 0.0))
    folder = report(ReportConfig(tmp_path))
    text = (folder / "report.md").read_text().partition("## At equal tokens")[2].partition("\n## ")[0]
    assert text.count("not told apart") == 1


@pytest.mark.slow
def test_several_compressors_are_each_named_and_timed(tmp_path: Path) -> None:
    write_result(tmp_path, "teacher", 0.9)
    student = {"stage": "post-train", "compress_ratio": 2}
    write_result(tmp_path, "conv", 0.8, compressor="conv", **student)
    assert [m.variant.label for m in gather(tmp_path).models] == ["teacher", "student 2x"]
    write_result(tmp_path, "pooling", 0.7, compressor="pooling", **student)
    write_bench(tmp_path)
    path = tmp_path / "bench" / "bench.json"
    timed = json.loads(path.read_text())
    second = json.loads(json.dumps(timed["contenders"][1]))
    second["seconds"]["end_to_end"]["median"] = 0.055
    timed["contenders"] += [second | {"name": "student 2x pooling", "compressor": "pooling"}]
    path.write_text(json.dumps(timed))
    found = gather(tmp_path)
    seconds = {}
    for model in found.models:
        row = found.timing(model.variant)
        assert row is not None
        seconds[model.variant.label] = row["seconds"]["end_to_end"]["median"]
    assert seconds == {"teacher": 0.08, "student 2x (conv)": 0.06, "student 2x (pooling)": 0.055}
    content = json.loads((report(ReportConfig(tmp_path)) / "report.json").read_text())
    retention_of = _retention_lookup(content["models"])
    for row in content["bench"][0]["contenders"][1:]:
        label = "student 2x (pooling)" if row.get("compressor") == "pooling" else "student 2x (conv)"
        if row["compress_ratio"] == 2:
            (model,) = (model for model in content["models"] if model["label"] == label)
            assert retention_of(row) == model["retention"], label


def test_losses_of_compressors_are_not_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path, "teacher", 0.9)
    for seed in (0, 1):
        write_losses(tmp_path, seed)
        write_losses(tmp_path, seed, compressor="pooling")
    drawn: list[tuple[str, str, int]] = []

    def note(panel: Any, curves: list[Any], colour: str, label: str) -> None:
        drawn.append((label, colour, len(curves)))
        panel.plot([0, 1], [0, 1], label=label)

    monkeypatch.setattr(losses, "_curves", note)
    assert losses.loss_figure(gather(tmp_path), tmp_path / "losses.png")
    assert [(label, n) for label, _, n in drawn[:4]] == [
        ("student 2x", 2),
        ("student 2x (pooling)", 2),
        ("student 4x", 2),
        ("student 4x (pooling)", 2),
    ]
    assert len({colour for _, colour, _ in drawn}) == 3


def test_the_usual_compressor_goes_without_saying(tmp_path: Path) -> None:
    """Results from before it was recorded are of the model that names it; beside another both are named."""
    write_result(tmp_path, "teacher", 0.9)
    student = {"stage": "post-train", "compress_ratio": 2}
    write_result(tmp_path, "old", 0.8, seed=0, **student)
    write_result(tmp_path, "new", 0.8, seed=1, compressor="conv", visual_positions="kept", **student)
    found = {j.variant.label: j.seeds for j in gather(tmp_path).find("post-train")}
    assert found == {"student 2x": [0, 1]}
    write_result(tmp_path, "other", 0.7, compressor="pooling", visual_positions="compact", **student)
    found = {j.variant.label: j.seeds for j in gather(tmp_path).find("post-train")}
    assert found == {"student 2x (conv, kept)": [0, 1], "student 2x (pooling, compact)": [0]}


def test_one_benchmark_on_different_data_is_refused(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "docvqa", "teacher", 1.0)
    write_benchmark(tmp_path, "docvqa", "student", 0.5, stage="post-train", compress_ratio=2, data_hash="x")
    with pytest.raises(ReportError, match="different test data"):
        gather(tmp_path)
