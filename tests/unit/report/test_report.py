"""The report, made from a run folder whose files have the real structure and invented numbers (only here)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_case import SAID, TASKS, write_result

from fcot_vl.report.markdown import render
from fcot_vl.stages.report import ReportConfig, report


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
    assert teacher["retention_ci"] is None, "it cannot vary"
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
def test_a_run_of_one_baseline_has_a_report(tmp_path: Path) -> None:
    """A budget without a trained model or FastV has an empty panel."""
    write_result(tmp_path, "teacher", 0.9)
    write_result(tmp_path, "random", 0.5, method="random", keep=0.5)
    folder = report(ReportConfig(tmp_path))
    labels = [row["label"] for row in json.loads((folder / "report.json").read_text())["models"]]
    assert labels == ["teacher", "random drop 50%"]


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
