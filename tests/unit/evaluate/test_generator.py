"""Answers of one model with one method: inputs, batches, token counts, the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_case import SAMPLES, TILES, rows_of
from PIL import Image

from fcot_vl.evaluate import generator as answering
from fcot_vl.evaluate.generator import Generator
from fcot_vl.inference.kv_cache import preallocated_cache
from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.method import Method
from fcot_vl.stages.evaluate import evaluate

PER_TILE = 16  # of the tiny teacher of conftest: 112-pixel tiles

pytestmark = pytest.mark.usefixtures("short_answers")


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
