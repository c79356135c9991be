"""Retention: the paper's average, equal tokens, paired intervals, benchmarks by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_case import BANDS, PER_TASK, TASKS, write_bench, write_benchmark, write_result

from fcot_vl.report.results import ReportError, gather
from fcot_vl.report.retention import (
    density_retention,
    retention,
    retention_difference,
    retention_interval,
)
from fcot_vl.report.run_data import ModelResults
from fcot_vl.report.variant import Variant
from fcot_vl.stages.report import ReportConfig, report


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
    content = json.loads((made[0] / "report.json").read_text())
    assert {row["other"] for row in content["equal_tokens"] if row["student"] == "student 4x"} == against
    found = gather(run)
    (student,) = (j for j in found.find("post-train") if j.variant.compress_ratio == 2)
    baseline = found.find("teacher", "random")[0]
    difference = retention_difference(student, baseline, found.teacher, TASKS)
    one, two = (retention(model, found.teacher, TASKS) for model in (student, baseline))
    assert difference is not None and one is not None and two is not None
    assert difference[0] == pytest.approx(one - two)
    assert difference[1][0] < difference[0] < difference[1][1]
    assert retention_difference(baseline, baseline, found.teacher, TASKS) == (0.0, (0.0, 0.0))
    other = retention_difference(baseline, student, found.teacher, TASKS)
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
    assert retention(twin, twin, TASKS) == 1.0
    assert retention_interval(twin, twin, TASKS) is None, "no interval on what cannot vary"
    assert density_retention(twin, twin, BANDS[0]) == (1.0, None)


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
    with pytest.raises(ReportError, match="are both results of"):
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
def test_students_stand_beside_the_teacher_and_the_control(made: tuple[Path, str], run: Path) -> None:
    """Retention against the teacher post-trained on the same pages: what compression costs, without the data's gain."""
    folder, _ = made
    rows = {r["label"]: r for r in json.loads((folder / "report.json").read_text())["models"]}
    found = gather(run)
    student = next(m for m in found.find("post-train") if m.variant.compress_ratio == 2)
    (control,) = found.find("control")
    row = rows["student 2x"]
    assert row["retention_control"] == pytest.approx(retention(student, control, TASKS))
    assert row["retention_control"] != row["retention"]
    low, high = row["retention_control_ci"]
    assert low < row["retention_control"] < high
    text = (folder / "report.md").read_text()
    assert "| retention % | of the control's % |" in text
    assert f"| {100 * row['retention_control']:.1f} [{100 * low:.1f}, {100 * high:.1f}] |" in text
    for label in (
        "teacher",
        "control: teacher post-trained",
        "FastV 50%, K=1",
        "student 2x, re-aligned only",
    ):
        assert rows[label]["retention_control"] is None, (
            f"{label} was not post-trained on the control's pages"
        )


@pytest.mark.slow
def test_dense_pages_are_the_densest_band_and_not_some_tasks(made: tuple[Path, str], run: Path) -> None:
    folder, _ = made
    content = json.loads((folder / "report.json").read_text())
    assert content["definitions"]["text_dense"] == "6-8"
    row = next(r for r in content["models"] if r["label"] == "student 4x")
    assert row["retention_text_dense"] == row["density"]["6-8"]["retention"]
    assert row["retention_text_dense_ci"] == row["density"]["6-8"]["retention_ci"]
    text = (folder / "report.md").read_text()
    assert "| densest pages % |" in text and "text-dense tasks" not in text
