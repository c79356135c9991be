"""Results of a run: what is read, told apart or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_case import write_bench, write_benchmark, write_losses, write_result

from fcot_vl.common.stage import StageError, open_stage
from fcot_vl.report.figures import losses
from fcot_vl.report.markdown import _retention_lookup
from fcot_vl.report.results import ReportError, gather
from fcot_vl.report.variant import Variant
from fcot_vl.stages.report import ReportConfig, report


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
    with pytest.raises(ReportError, match="are both results of 'teacher' of seed 0"):
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

    def note(panel: Any, curves: list[Any], color: str, label: str) -> None:
        drawn.append((label, color, len(curves)))
        panel.plot([0, 1], [0, 1], label=label)

    monkeypatch.setattr(losses, "_curves", note)
    assert losses.loss_figure(gather(tmp_path), tmp_path / "losses.png")
    assert [(label, n) for label, _, n in drawn[:4]] == [
        ("student 2x", 2),
        ("student 2x (pooling)", 2),
        ("student 4x", 2),
        ("student 4x (pooling)", 2),
    ]
    assert len({color for _, color, _ in drawn}) == 3


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
