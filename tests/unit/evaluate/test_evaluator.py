"""The evaluate stage on random tiny models: files, batching, resuming, methods. No score here means anything."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluate_case import SAMPLES, TILES, rows_of

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import write_shard
from fcot_vl.evaluate import predictions
from fcot_vl.evaluate.aggregation import summarize
from fcot_vl.evaluate.evaluator import Evaluator
from fcot_vl.evaluate.tasks.minidoc import score, task_of
from fcot_vl.prune.method import Method
from fcot_vl.stages import evaluate as runner
from fcot_vl.stages.evaluate import _merged_by, data_hash, evaluate

pytestmark = pytest.mark.usefixtures("short_answers")


def test_result_and_predictions_have_the_agreed_form(teacher_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_shard(data / "test-00000.parquet", SAMPLES)
    result = evaluate(teacher_folder, data, tmp_path / "out", seed=3, batch_size=2)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result) >= {
        *("model", "stage", "method", "compress_ratio", "keep", "layer", "seed", "split", "data_hash", "n"),
        *("mean_over_tasks", "mean_over_tasks_ci", "tasks", "density", "visual_tokens_nominal"),
        *("visual_tokens_layer_mean", "seconds_per_sample", "commit", "hardware", "date"),
    }
    assert (result["model"], result["method"], result["compress_ratio"]) == (str(teacher_folder), "none", 1)
    assert (result["keep"], result["layer"], result["seed"], result["n"]) == (None, None, 3, 7)
    assert result["visual_tokens_nominal"] == result["visual_tokens_layer_mean"] == 16 * sum(TILES) / 7
    assert {task: r["n"] for task, r in result["tasks"].items()} == {"dense_pages": 2, "forms": 4, "sums": 1}
    assert {band: r["n"] for band, r in result["density"].items()} == {"0-8": 7}
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [s.id for s in SAMPLES]
    for row, s in zip(rows, SAMPLES, strict=True):
        assert list(row) == [
            *("id", "task", "question", "prediction", "answers", "metric", "score", "density", "new_tokens")
        ]
        assert (row["question"], row["answers"]) == (s.messages[0]["content"], s.answers)
        assert row["score"] == score(row["prediction"], s.answers, task_of(s.task, s.metric))
        assert 1 <= row["new_tokens"] <= 5
    assert json.loads((tmp_path / "out" / "stage.json").read_text())["status"] == "done"


def test_records_without_a_density_are_scored_too(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    some = [replace(SAMPLES[0], density=None), SAMPLES[2], *(replace(s, density=None) for s in SAMPLES[4:])]
    result = evaluate(model, some, tmp_path, processor=processor, split="validation")
    assert (result["n"], result["split"]) == (5, "validation")
    assert {band: r["n"] for band, r in result["density"].items()} == {"0-4": 1}
    assert [row["density"] for row in rows_of(tmp_path)] == [None, 3.0, None, None, None]
    assert set(result["tasks"]) == {"forms", "sums"}


def test_a_limit_takes_the_first_records(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    evaluate(model, SAMPLES, tmp_path, processor=processor, limit=2)
    assert [row["id"] for row in rows_of(tmp_path)] == ["page-0", "page-1"]


@pytest.mark.faults
def test_a_full_disk_loses_nothing_that_was_answered(
    teacher: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = teacher
    whole = evaluate(model, SAMPLES, tmp_path / "whole", batch_size=2, processor=processor)
    append, done = predictions.append_rows, []

    def full_at_the_third(path: Path, rows: Any) -> None:
        if path.name == "predictions.jsonl":
            done.append(path)
            if len(done) == 3:
                with path.open("a") as file:
                    file.write('{"id": "page-4", "ta')  # as much as fitted
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        append(path, rows)

    with monkeypatch.context() as patched:
        patched.setattr(predictions, "append_rows", full_at_the_third)
        with pytest.raises(OSError, match="No space left"):
            evaluate(model, SAMPLES, tmp_path / "out", batch_size=2, processor=processor)
    resumed = evaluate(model, SAMPLES, tmp_path / "out", batch_size=2, processor=processor)
    said = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "out")]
    assert said[0] == said[1] and resumed["tasks"] == whole["tasks"]


@pytest.mark.faults
def test_a_killed_run_goes_on_with_what_is_missing(
    teacher: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = teacher
    whole = evaluate(model, SAMPLES, tmp_path / "whole", batch_size=2, processor=processor)
    answer, asked = Evaluator._answer, []

    def dies_at_the_third_batch(self: Any, batch: Any, handle: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append([question.id for question in batch])
        return answer(self, batch, handle)

    monkeypatch.setattr(Evaluator, "_answer", dies_at_the_third_batch)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, SAMPLES, out, batch_size=2, processor=processor)
    before = rows_of(out)
    assert len(before) == 4
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"id": "page-4", "task": "su')  # as a kill leaves it

    def watched(self: Any, batch: Any, handle: Any) -> Any:
        asked.append([question.id for question in batch])
        return answer(self, batch, handle)

    asked.clear()
    monkeypatch.setattr(Evaluator, "_answer", watched)
    resumed = evaluate(model, SAMPLES, out, batch_size=3, processor=processor)
    assert sorted(name for batch in asked for name in batch) == sorted(
        {s.id for s in SAMPLES} - {row["id"] for row in before}
    )
    assert (out / "predictions.jsonl").read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    ignored = ("date", "seconds_per_sample")
    assert {k: v for k, v in resumed.items() if k not in ignored} == {
        k: v for k, v in whole.items() if k not in ignored
    }


def test_a_finished_run_is_returned_and_other_settings_are_refused(
    teacher: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = teacher
    first = evaluate(model, SAMPLES[:2], tmp_path, processor=processor)
    monkeypatch.setattr(runner, "Evaluator", None)  # nothing is run again
    assert evaluate(model, SAMPLES[:2], tmp_path, processor=processor, batch_size=1) == first
    with pytest.raises(StageError, match="method"):
        evaluate(model, SAMPLES[:2], tmp_path, processor=processor, method=Method("uniform", 0.5))
    with pytest.raises(StageError, match="data"):
        evaluate(model, SAMPLES[:3], tmp_path, processor=processor)


def test_a_damaged_file_is_an_error_that_says_so(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    (tmp_path / "predictions.jsonl").write_text('not json\n{"id": "page-0"}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        evaluate(model, SAMPLES[:2], tmp_path, processor=processor)


def test_accepted_answers_do_not_reach_the_model(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    other = [
        replace(s, answers=["x" * 40], messages=[s.messages[0], {"role": "assistant", "content": "y" * 90}])
        for s in SAMPLES
    ]
    evaluate(model, SAMPLES, tmp_path / "a", processor=processor)
    evaluate(model, other, tmp_path / "b", processor=processor)
    for a, b in zip(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"), strict=True):
        assert (a["prediction"], a["new_tokens"]) == (b["prediction"], b["new_tokens"])


def test_data_hash_sees_pixels_answers_and_order() -> None:
    base = data_hash(SAMPLES)
    assert base == data_hash(list(SAMPLES))
    darker = replace(SAMPLES[0], images=[SAMPLES[0].images[0].point(lambda v: v // 2)])
    others = [
        [darker, *SAMPLES[1:]],
        [replace(SAMPLES[0], answers=["ab"]), *SAMPLES[1:]],
        [replace(SAMPLES[0], id="other"), *SAMPLES[1:]],
        SAMPLES[::-1],
        SAMPLES[:-1],
    ]
    assert len({base, *map(data_hash, others)}) == 6


def test_summary_of_known_rows() -> None:
    rows = [
        {"task": "a", "score": 1.0, "density": 1.0},
        {"task": "a", "score": 0.0, "density": 5.0},
        {"task": "b", "score": 1.0, "density": 5.5},
    ]
    summary = summarize(rows)
    assert summary["mean_over_tasks"] == 0.75
    assert summary["tasks"]["a"] == {"n": 2, "score": 0.5, "ci": [0.0, 1.0]}
    assert summary["tasks"]["b"] == {"n": 1, "score": 1.0, "ci": [1.0, 1.0]}
    assert summary["mean_over_tasks_ci"] == [0.5, 1.0]
    assert summary["density"] == {"0-8": {"n": 3, "score": 2 / 3, "ci": [0.0, 1.0]}}


def test_wrong_settings_are_refused(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    for build, message in [
        (lambda: Method("magic"), "unknown method"),
        (lambda: Method("none", 0.5), "takes no keep"),
        (lambda: Method("random"), "needs a keep"),
        (lambda: Method("fastv", 0.5), "needs a layer"),
        (lambda: Method("uniform", 0.5, 2), "takes no layer"),
        (
            lambda: evaluate(model, SAMPLES, tmp_path / "1", processor=processor, stage="best"),
            "unknown stage",
        ),
        (lambda: evaluate(model, SAMPLES, tmp_path / "2", processor=processor, batch_size=0), "batch_size"),
        (lambda: evaluate(model, SAMPLES, tmp_path / "3"), "processor"),
        (lambda: evaluate(model, [], tmp_path / "4", processor=processor), "no samples"),
        (lambda: evaluate(model, SAMPLES[:1] * 2, tmp_path / "5", processor=processor), "share an id"),
        (
            lambda: evaluate(model, [replace(SAMPLES[0], answers=[])], tmp_path / "6", processor=processor),
            "cannot be scored",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            build()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a model") as caught:
        evaluate(tmp_path / "none", SAMPLES, tmp_path / "out")
    assert str(tmp_path / "none") in str(caught.value)


@pytest.mark.parametrize(
    ("method", "scale", "weights", "name"),
    [
        ("average", None, [0.5, 0.5], "average"),
        ("shapley", None, [0.3, 0.7], "shapley"),
        ("task-arithmetic", 0.5, [1.0, 1.0], "task-arithmetic, scale 0.5"),
        ("task-arithmetic", 0.5, [0.5, 0.5], "task-arithmetic, scale 0.5, weights 0.5 0.5"),
        ("weighted", None, [1.0, 3.0], "weighted, weights 1 3"),
    ],
)
def test_a_result_says_how_its_model_was_merged(tmp_path, method, scale, weights, name):
    record = {"method": method, "scale": scale, "weights": weights, "weights_chosen_on": ["other"]}
    (tmp_path / "merge.json").write_text(json.dumps(record))
    assert _merged_by(tmp_path, "data") == name
