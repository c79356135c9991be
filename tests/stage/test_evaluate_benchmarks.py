"""Benchmarks by name, end to end: the embedded teacher on a few questions of each, skipped pictures, two processes.

What it answers to random pictures is worth nothing; that it is asked, kept and scored is what is tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lmms_case import dataset, recorded

from fcot_vl.common.stage import StageError
from fcot_vl.evaluate.tasks.minidoc import Task, score
from fcot_vl.evaluate.tasks.public import BENCHMARKS
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.prune.method import Method
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.export import _scores

ROOT = Path(__file__).parents[2]
TEACHER = tiny_teacher_path()
QUESTIONS = 6
FLEETING = ("date", "seconds_per_sample", "commit")


def rows_of(folder: Path, name: str = "predictions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in FLEETING}


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "textvqa", replace(BENCHMARKS["textvqa"], max_new_tokens=8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in BENCHMARKS:
        dataset(name, QUESTIONS).save_to_disk(folder / name)
    return folder


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_is_asked_and_scored(tmp_path: Path, data: Path, name: str) -> None:
    result = evaluate(TEACHER, data / name, tmp_path, benchmark=name, batch_size=4)
    benchmark = BENCHMARKS[name]
    assert (result["benchmark"], result["split"], result["n"], result["skipped"]) == (
        name,
        benchmark.split,
        QUESTIONS,
        0,
    )
    assert (result["metric"], result["hidden"], result["compress_ratio"]) == (benchmark.reported, False, 1)
    assert result["visual_tokens_nominal"] == pytest.approx((4 * 64 + 2 * 3 * 64) / QUESTIONS)
    rows = rows_of(tmp_path)
    assert [row["question"] for row in rows] == recorded(name)["prompts"][:QUESTIONS]
    assert [row["id"].partition(":")[0] for row in rows] == [str(i) for i in range(QUESTIONS)]
    for row in rows:
        assert row["score"] == score(row["prediction"], row["answers"], Task(row["metric"]))
        assert 1 <= row["new_tokens"] <= benchmark.max_new_tokens
    assert not (tmp_path / "submission.json").exists()
    assert benchmark.reported.split(" ")[0] in _scores(tmp_path)


def test_a_right_answer_counts(tmp_path: Path, data: Path) -> None:
    """Rows whose answer is what the teacher said at first: the score is 1, so that it does hang on the answers."""
    evaluate(TEACHER, data / "docvqa", tmp_path / "first", benchmark="docvqa")
    said = {row["id"]: row["prediction"] for row in rows_of(tmp_path / "first")}
    assert all(said.values())
    taught = dataset("docvqa", QUESTIONS).map(
        lambda row, at: {"answers": ["nothing", said[f"{at}:{row['questionId']}"]]}, with_indices=True
    )
    taught.save_to_disk(tmp_path / "taught")
    result = evaluate(TEACHER, tmp_path / "taught", tmp_path / "second", benchmark="docvqa")
    assert result["score"] == 1.0


def test_a_split_without_public_answers_gives_a_submission(tmp_path: Path) -> None:
    dataset("docvqa", 3).remove_columns("answers").save_to_disk(tmp_path / "data")
    result = evaluate(TEACHER, tmp_path / "data", tmp_path / "out", benchmark="docvqa", split="test")
    assert (result["score"], result["hidden"], result["n"], result["scores"]) == (None, True, 3, {})
    rows = rows_of(tmp_path / "out")
    assert [row["score"] for row in rows] == [None] * 3
    assert json.loads((tmp_path / "out" / "submission.json").read_text()) == [
        {"questionId": 1000 + at, "answer": row["prediction"].strip()} for at, row in enumerate(rows)
    ]


def test_broken_pictures_are_skipped_and_named(tmp_path: Path) -> None:
    """One that is no picture, one that ends behind its header, which shows only when its pixels are read."""
    dataset("chartqa", 8, broken=(2,), cut=(5,)).save_to_disk(tmp_path / "data")
    asked = {"benchmark": "chartqa", "batch_size": 2}
    with pytest.raises(
        ValueError, match=r"at least 1 of 8 questions cannot be used.*such as 2: .*not an image"
    ):
        evaluate(TEACHER, tmp_path / "data", tmp_path / "strict", **asked)
    result = evaluate(TEACHER, tmp_path / "data", tmp_path / "out", max_skipped=0.25, **asked)
    assert (result["n"], result["skipped"]) == (6, 2)
    assert [row["id"] for row in rows_of(tmp_path / "out")] == ["0", "1", "3", "4", "6", "7"]
    skipped = rows_of(tmp_path / "out", "skipped.jsonl")
    assert [(row["source"], row["id"], row["kind"]) for row in skipped] == [
        ("chartqa", "2", "broken image"),
        ("chartqa", "5", "broken image"),
    ]
    whole = dataset("chartqa", 8).select([0, 1, 3, 4, 6, 7])
    whole.save_to_disk(tmp_path / "whole")
    want = evaluate(TEACHER, tmp_path / "whole", tmp_path / "want", **asked)
    assert [row["prediction"] for row in rows_of(tmp_path / "out")] == [
        row["prediction"] for row in rows_of(tmp_path / "want")
    ]
    assert result["score"] == want["score"]


def test_too_many_found_late_stop_it_too(tmp_path: Path) -> None:
    dataset("chartqa", 4, cut=(1,)).save_to_disk(tmp_path / "data")
    with pytest.raises(ValueError, match=r"at least 1 of 4 questions.*Fix the data or raise max_skipped"):
        evaluate(TEACHER, tmp_path / "data", tmp_path / "out", benchmark="chartqa")
    assert len(rows_of(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "result.json").exists()
    result = evaluate(TEACHER, tmp_path / "data", tmp_path / "out", benchmark="chartqa", max_skipped=0.5)
    assert (result["n"], result["skipped"]) == (3, 1)


def test_the_folder_is_one_benchmarks_and_one_splits(tmp_path: Path, data: Path) -> None:
    evaluate(TEACHER, data / "docvqa", tmp_path, benchmark="docvqa", limit=2)
    for other in (
        {"benchmark": "infovqa"},
        {"benchmark": "docvqa", "split": "train"},
        {"benchmark": "docvqa"},
    ):
        with pytest.raises(StageError, match="other settings"):
            evaluate(TEACHER, data / "docvqa", tmp_path, **other)


def test_peers_work_on_benchmarks(tmp_path: Path, data: Path) -> None:
    for method in (Method("uniform", 0.5), Method("smaller_page", 0.5)):
        result = evaluate(
            TEACHER, data / "ai2d", tmp_path / method.name, benchmark="ai2d", method=method, limit=3
        )
        assert (result["method"], result["n"]) == (method.name, 3)
        assert result["visual_tokens_nominal"] <= (2 * 64 + 3 * 64) / 3 / 2


def test_nothing_to_evaluate_on_is_said(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="give a data folder, or the name of a benchmark"):
        evaluate(TEACHER, None, tmp_path)
    with pytest.raises(ValueError, match="limit"):
        evaluate(TEACHER, data / "ai2d", tmp_path, benchmark="ai2d", limit=0)


# --------------------------------------------------------------------------------------------------- two processes


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    "accelerate": [
        *(
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes=2",
            "--num_machines=1",
            "--mixed_precision=no",
        ),
        *("--dynamo_backend=no", "--main_process_port=0"),
    ],
}


def launched(launcher: str, program: list[str], mixed: Path, out: Path) -> Any:
    """`fcot-vl evaluate` on two gloo processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    asked = ["--benchmark", "chartqa", "--batch-size", "2", "--max-skipped", "0.1"]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            *LAUNCHERS[launcher],
            *program,
            "evaluate",
            "--data",
            mixed,
            "--output",
            out,
            *asked,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten questions of ChartQA, one of whose pictures breaks when it is read."""
    folder = tmp_path_factory.mktemp("mixed") / "chartqa"
    dataset("chartqa", 10, cut=(3,)).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, mixed: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "out"
    evaluate(TEACHER, mixed, folder, benchmark="chartqa", batch_size=2, max_skipped=0.1)
    return folder


def assert_same(out: Path, alone: Path) -> None:
    for name in ("predictions.jsonl", "skipped.jsonl"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    found, want = (json.loads((folder / "result.json").read_text()) for folder in (out, alone))
    assert lasting(found) == lasting(want)
    assert json.loads((out / "stage.json").read_text())["status"] == "done"
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_give_the_result_of_one(
    tmp_path: Path, mixed: Path, alone: Path, launcher: str
) -> None:
    out = tmp_path / "out"
    ran = launched(launcher, ["-m", "fcot_vl"], mixed, out)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_same(out, alone)
    assert ran.stderr.count("10 questions ->") == 1, "rank 0 alone logs"
    assert ran.stdout.startswith("evaluate: ") and ran.stdout.count("\n") == 1, "and shows the result"
    times = rows_of(out, "times.jsonl")
    assert (len(times), sum(row["questions"] for row in times)) == (6, 10)


@pytest.mark.faults
def test_both_processes_answer(tmp_path: Path, mixed: Path, alone: Path) -> None:
    """Killed before they join: each has a file of its own, and any number of processes goes on from both."""
    out = tmp_path / "out"
    worker = tmp_path / "killed.py"
    worker.write_text(
        "import os, sys, time\n"
        "from fcot_vl.cli.app import app\n"
        "from fcot_vl.evaluate.predictions import PredictionFiles\n"
        "inner = PredictionFiles.add\n"
        "def add(self, rows, seconds):\n"
        "    inner(self, rows, seconds)\n"
        "    marks = [self.folder / f'added.{r}' for r in '01']\n"
        "    marks[int(os.environ['RANK'])].touch()\n"
        "    while not all(mark.exists() for mark in marks): time.sleep(0.01)\n"
        "    os._exit(7)\n"
        "PredictionFiles.add = add\n"
        "app(sys.argv[1:])\n"
    )
    ran = launched("torchrun", [str(worker)], mixed, out)
    assert ran.returncode != 0
    for mark in out.glob("added.*"):
        mark.unlink()
    answered = [rows_of(out, f"predictions.{rank}.jsonl") for rank in (0, 1)]
    assert [len(rows) for rows in answered] == [2, 2]
    assert not {row["id"] for row in answered[0]} & {row["id"] for row in answered[1]}
    with (out / "predictions.1.jsonl").open("a") as file:
        file.write('{"id": "9", "ta')  # as a kill leaves it
    asked = {"benchmark": "chartqa", "batch_size": 3, "max_skipped": 0.1}
    evaluate(TEACHER, mixed, out, **asked)
    assert_same(out, alone)
    evaluate(TEACHER, mixed, out, **asked)
