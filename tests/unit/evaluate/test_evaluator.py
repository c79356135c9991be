"""The evaluate stage on random tiny models: files, batching, resuming, methods. No score here means anything."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import fcot_vl
from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.evaluate import generator as answering
from fcot_vl.evaluate import predictions
from fcot_vl.evaluate.aggregation import summarise
from fcot_vl.evaluate.evaluator import Evaluator
from fcot_vl.evaluate.generator import Generator
from fcot_vl.evaluate.tasks import minidoc as benchmarks
from fcot_vl.evaluate.tasks.minidoc import Task, density_band, density_bands, final_answer, score, task_of
from fcot_vl.inference.kv_cache import preallocated_cache
from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.method import Method
from fcot_vl.stages import evaluate as runner
from fcot_vl.stages.evaluate import _merged_by, data_hash, evaluate
from fcot_vl.synthesize.minidoc import METRICS as MINIDOC_METRICS

PER_TILE = 16  # of the tiny teacher of conftest: 112-pixel tiles


def picture(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def sample(number: int, task: str, size: tuple[int, int], question: str, density: float = 1.5) -> Sample:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "ab"}]
    tiles = {(112, 112): 1, (224, 112): 3, (112, 336): 4}[size]
    return Sample(
        id=f"page-{number}",
        images=[picture(*size, seed=number)],
        messages=messages,
        task=task,
        source="test",
        answers=["ab", "abc"],
        metric=MINIDOC_METRICS[task],
        density=density,
        tiles=tiles,
    )


SAMPLES = [
    sample(0, "forms", (112, 112), "What is the Name?", 0.5),
    sample(1, "dense_pages", (112, 336), "What is the Code of the long question?", 7.9),
    sample(2, "forms", (224, 112), "What is the Total?", 3.0),
    sample(3, "dense_pages", (224, 112), "Where?", 9.0),
    sample(4, "sums", (112, 112), "Apple plus pear?", 2.0),
    sample(5, "forms", (112, 112), "What is the Date of issue?", 1.9),
    sample(6, "forms", (112, 112), "Who?", 1.2),
]
TILES = [1, 4, 3, 3, 1, 1, 1]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, task in benchmarks.MINIDOC.items():
        monkeypatch.setitem(benchmarks.MINIDOC, name, replace(task, max_new_tokens=5))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    return model, fcot_vl.FCoTVLProcessor.from_pretrained(teacher_folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


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


def test_inputs_are_what_the_processor_makes(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    some = [SAMPLES[0], SAMPLES[1], SAMPLES[2]]
    made = Generator(model, processor, Method()).prepare(some, None)
    conversations = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": s.images[0]},
                    {"type": "text", "text": s.messages[0]["content"]},
                ],
            }
        ]
        for s in some
    ]
    expected = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    assert set(made) == {"input_ids", "attention_mask", "pixel_values"}
    for key, value in made.items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize(
    "method", [Method(), Method("fastv", 0.5, 2), Method("random", 0.5), Method("smaller_page", 0.5)]
)
def test_predictions_do_not_depend_on_the_batch(
    teacher: tuple[Any, Any], tmp_path: Path, method: Method
) -> None:
    model, processor = teacher
    results = [
        evaluate(model, SAMPLES, tmp_path / str(n), method=method, batch_size=n, processor=processor)
        for n in (1, 7)
    ]
    assert rows_of(tmp_path / "1") == rows_of(tmp_path / "7")
    assert results[0]["mean_over_tasks"] == results[1]["mean_over_tasks"]


def test_a_batch_too_large_for_the_device_is_answered_in_pieces(
    teacher: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: Callable[[], str],
) -> None:
    model, processor = teacher
    method = Method("fastv", 0.5, 1)
    whole = evaluate(model, SAMPLES, tmp_path / "whole", method=method, processor=processor)
    fits, tried = 1, []
    generate = model.generate

    def limited(**inputs: Any) -> Any:
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > fits:
            raise torch.OutOfMemoryError("out of memory")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", limited)
    pieces = evaluate(model, SAMPLES, tmp_path / "pieces", method=method, processor=processor)
    assert tried[:4] == [2, 1, 1, 1] and set(tried[2:]) == {1}, "once found, the limit stays"
    assert "out of memory with 2 questions at once, continuing with 1" in log()
    assert pieces["mean_over_tasks"] == whole["mean_over_tasks"]
    said = [[row["prediction"] for row in rows_of(tmp_path / name)] for name in ("whole", "pieces")]
    assert said[0] == said[1]
    fits = 0
    with pytest.raises(ValueError, match="out of memory on the device with a single question"):
        evaluate(model, SAMPLES, tmp_path / "none", processor=processor)


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


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        (Method("fastv", 0.5, 2), 2),
        (Method("fastv", 0.25, 1), 1),
        (Method("random", 0.25), 0),
        (Method("uniform", 0.5), 0),
    ],
)
def test_token_counts_of_the_methods(
    teacher: tuple[Any, Any], tmp_path: Path, method: Method, layer: int
) -> None:
    model, processor = teacher
    result = evaluate(model, SAMPLES, tmp_path, method=method, processor=processor)
    assert method.keep is not None
    total, kept = [PER_TILE * n for n in TILES], [n_kept(method.keep, PER_TILE * n) for n in TILES]
    assert result["visual_tokens_nominal"] == pytest.approx(sum(kept) / 7)
    assert result["visual_tokens_layer_mean"] == pytest.approx(
        (layer * sum(total) + (4 - layer) * sum(kept)) / 28
    )
    assert (result["method"], result["keep"], result["layer"]) == (method.name, method.keep, method.layer)


def test_a_smaller_page_spends_at_most_its_budget(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    result = evaluate(model, SAMPLES, tmp_path, method=Method("smaller_page", 0.5), processor=processor)
    budget = sum(PER_TILE * n // 2 for n in TILES) / 7
    assert 0.8 * budget < result["visual_tokens_nominal"] <= budget
    assert result["visual_tokens_layer_mean"] == result["visual_tokens_nominal"]


def test_fewer_tiles_are_as_many_as_fit(teacher: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = teacher
    result = evaluate(
        model, SAMPLES, tmp_path / "half", method=Method("fewer_tiles", 0.5), processor=processor
    )
    assert result["visual_tokens_nominal"] == result["visual_tokens_layer_mean"] == PER_TILE
    whole = evaluate(
        model, SAMPLES, tmp_path / "whole", method=Method("fewer_tiles", 1.0), processor=processor
    )
    evaluate(model, SAMPLES, tmp_path / "plain", processor=processor)
    assert whole["visual_tokens_nominal"] == PER_TILE * sum(TILES) / 7
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "plain")


@pytest.mark.parametrize("name", ["pyramiddrop", "sparsevlm"])
def test_token_counts_of_several_drops(teacher: tuple[Any, Any], tmp_path: Path, name: str) -> None:
    model, processor = teacher
    result = evaluate(model, SAMPLES, tmp_path, method=Method(name, 0.5), processor=processor)
    assert result["visual_tokens_nominal"] == PER_TILE * sum(TILES) / 7 / 2
    mean = 1.875 / 4 if name == "pyramiddrop" else 0.5
    assert result["visual_tokens_layer_mean"] == pytest.approx(mean * PER_TILE * sum(TILES) / 7, rel=0.02)


def test_students_are_evaluated_with_their_own_token_count(
    make_student: Callable[..., Any], processor_for: Callable[[Any], Any], tmp_path: Path
) -> None:
    for positions in ("compact", "kept"):
        student = make_student(2, visual_positions=positions)
        result = evaluate(
            student,
            SAMPLES,
            tmp_path / positions,
            stage="realign",
            processor=processor_for(student),
            batch_size=7,
        )
        evaluate(
            student,
            SAMPLES,
            tmp_path / f"{positions}-1",
            stage="realign",
            processor=processor_for(student),
            batch_size=1,
        )
        assert result["compress_ratio"] == 2
        assert result["visual_tokens_nominal"] == 8 * sum(TILES) / 7
        assert rows_of(tmp_path / positions) == rows_of(tmp_path / f"{positions}-1")
    with pytest.raises(ValueError, match="this model is compressed"):
        evaluate(
            student,
            SAMPLES,
            tmp_path / "x",
            method=Method("smaller_page", 0.5),
            processor=processor_for(student),
        )


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
    summary = summarise(rows)
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


# ---------------------------------------------------------------------------------------------------- benchmarks


def test_tasks_fit_minidoc() -> None:
    assert {name: task.metric for name, task in benchmarks.MINIDOC.items()} == MINIDOC_METRICS
    assert set(benchmarks.TEXT_DENSE) == {"transcribe", "table_markdown", "forms", "dense_pages"}


def test_answers_are_read_off_after_the_marker_only_where_reasoning_is_asked_for() -> None:
    worked, plain = Task("relaxed", worked=True), Task("cer")
    assert final_answer("3+4=7. Answer: 7", worked) == "7"
    assert final_answer("Answer: 3. Answer: 7 ", worked) == "7"
    assert final_answer(" 7\n", worked) == "7"
    assert final_answer("Answer: 7", plain) == "Answer: 7"
    assert score("3+4=7. Answer: 7", ["7"], worked) == 1.0
    assert score("3+4=7. Answer:", ["7"], worked) == 0.0
    assert task_of("someone's own", "exact") == Task("exact")
    with pytest.raises(ValueError, match="unknown metric"):
        task_of("forms", "bleu")
    with pytest.raises(ValueError, match="scored by 'anls'"):
        task_of("forms", "cer")


def test_every_density_band_has_enough_pages() -> None:
    pages = [0.1] * 60 + [0.25] * 59 + [0.5] * 60 + [1.0] * 70 + [2.0] * 60 + [4.0] * 59
    assert density_bands(pages) == ["0-0.25", "0.25-1", "1-2", "2-8"]
    assert density_bands([*pages, 0.3, 11.0]) == ["0-0.25", "0.25-0.5", "0.5-1", "1-2", "2-4", "4-8"]
    assert density_bands([0.3] * 200) == ["0-0.5"]
    assert density_bands([]) == []


def test_a_page_belongs_to_the_band_that_its_density_begins() -> None:
    bands = ["0-0.25", "0.25-1", "1-8"]
    assert [density_band(d, bands) for d in (0.0, 0.24, 0.25, 0.99, 1.0, 11.0)] == [
        *("0-0.25", "0-0.25", "0.25-1", "0.25-1", "1-8", "1-8")
    ]


# ------------------------------------------------------------------------------------------------------- batches


def test_batches_hold_one_task_and_put_pages_with_as_much_to_read_together() -> None:
    made = [
        answering.Question(i, str(i), task, "anls", "", total, total, ink)
        for i, (task, total, ink) in enumerate(
            [("b", 16, 1.0), ("a", 16, 3.0), ("a", 64, 1.0), ("b", 16, 2.0), ("a", 16, 5.0), ("a", 64, 2.0)]
        )
    ]
    batches = [[q.index for q in batch] for batch in answering.batches(made, 3)]
    assert batches == [[5, 2, 4], [1], [3, 0]]


def test_ink_grows_with_the_print_whatever_its_contrast() -> None:
    text = np.tile(np.array([[0, 255]], dtype=np.uint8), (40, 20))
    half = text.copy()
    half[20:] = 255
    full, some = answering.ink(Image.fromarray(text)), answering.ink(Image.fromarray(half))
    assert full == pytest.approx(2 * some)
    assert answering.ink(Image.fromarray(100 + text // 5)) == pytest.approx(full)
    assert answering.ink(Image.new("RGB", (9, 9))) == 0


# --------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("method", [Method(), Method("uniform", 0.5), Method("fastv", 0.5, 2)])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_roomy_cache_changes_nothing(
    teacher: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, beams: int
) -> None:
    model, processor = teacher
    some = SAMPLES[:2]
    inputs = Generator(model, processor, method).prepare(some, None)
    settings = {"max_new_tokens": 9, "do_sample": False, "num_beams": beams, "return_dict_in_generate": True}
    monkeypatch.setattr("fcot_vl.inference.kv_cache.SPARE_TOKENS", 2)  # several growths within nine tokens
    handle = method.apply(model)
    try:
        plain = model.generate(**inputs, **settings)
        roomy = model.generate(**inputs, **settings, past_key_values=preallocated_cache(4))
    finally:
        if handle is not None:
            handle.remove()
    assert torch.equal(plain.sequences, roomy.sequences)
    for mine, theirs in zip(roomy.past_key_values.layers, plain.past_key_values.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys)
        torch.testing.assert_close(mine.values, theirs.values)


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
