"""The bench stage: counts against hand cases and torch's own counter, and the form of its result. No times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from fcot_vl.bench import PARTS, Contender, bench
from fcot_vl.data.sample import Sample
from fcot_vl.model.cost import (
    cache_bytes,
    layer_flops,
    prefill_flops,
    projector_flops,
    vit_flops,
)
from fcot_vl.prune.method import Method
from fcot_vl.stage import StageError


def page(number: int, width: int, height: int) -> Sample:
    coarse = np.random.default_rng(number).integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a"}]
    return Sample(f"page-{number}", [image], messages, "forms", "test", ["a"], "anls", 1.0, 1)


PAGES = [page(0, 112, 112), page(1, 224, 112)]  # 1 and 3 tiles of 16 visual tokens


def test_operations_of_one_layer_by_hand() -> None:
    # 3 tokens, width 2, inner width 5: four projections 4*3*2*2 = 48, scores and mix 2*3*3*2 = 36, two matrices
    # 2*3*2*5 = 60 multiply-adds.
    assert layer_flops(3, 2, 5) == 2 * (48 + 36 + 60)
    # A gated feed-forward part has a third matrix; one key-value head for two heads halves two projections.
    assert layer_flops(3, 2, 5, ffn_matrices=3, kv_share=0.5) == 2 * (36 + 36 + 90)


def test_operations_of_a_pruned_prefill_by_hand() -> None:
    text = SimpleNamespace(hidden_size=2, intermediate_size=5, num_attention_heads=2, num_key_value_heads=1)
    expected = layer_flops(12, 2, 5, 3, 0.5) + 2 * layer_flops(6, 2, 5, 3, 0.5)
    assert prefill_flops(text, [12, 6, 6]) == expected


def test_cache_bytes_by_hand() -> None:
    text = SimpleNamespace(hidden_size=8, num_attention_heads=4, num_key_value_heads=2)
    # keys and values, two heads of two channels, two bytes, 12 + 6 + 6 tokens
    assert cache_bytes(text, [12, 6, 6], itemsize=2) == 2 * 2 * 2 * 2 * 24


@torch.no_grad()
def test_operations_agree_with_torchs_counter(teacher_folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(
        teacher_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    text, n_tiles, n_tokens = model.config.text_config, 2, 37
    with FlopCounterMode(display=False) as counter:
        model.model.language_model(inputs_embeds=torch.zeros(1, n_tokens, text.hidden_size))
    assert counter.get_total_flops() == prefill_flops(text, [n_tokens] * text.num_hidden_layers)
    with FlopCounterMode(display=False) as counter:
        model.model.vision_tower(torch.zeros(n_tiles, 3, 112, 112))
    assert counter.get_total_flops() == vit_flops(model.config.vision_config, n_tiles)


def test_operations_of_compressors(make_student: Callable[..., Any]) -> None:
    plain, conv, pooling = (make_student(*which) for which in ((1,), (2,), (2, "pooling")))
    channels, width = 128, plain.config.text_config.hidden_size
    linear = 2 * (channels * width + width * width)
    assert projector_flops(plain, 3) == 3 * 16 * linear
    assert projector_flops(pooling, 3) == 3 * 8 * linear
    assert projector_flops(conv, 3) == 3 * 8 * (linear + 2 * 2 * channels * channels)


@pytest.fixture(scope="module")
def result_and_folder(
    teacher_folder: Path, make_student: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, list[Contender]]:
    student_folder = tmp_path_factory.mktemp("student")
    from fcot_vl import FCoTVLProcessor

    make_student(2).save_pretrained(student_folder)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(student_folder)
    contenders = [
        Contender("teacher", str(teacher_folder)),
        Contender("student x2", str(student_folder)),
        Contender("FastV", str(teacher_folder), Method("fastv", 0.5, 1)),
    ]
    out = tmp_path_factory.mktemp("bench")
    return bench(contenders, PAGES, out, new_tokens=3, rounds=2), out, contenders


def test_result_has_the_agreed_form_and_exact_counts(
    result_and_folder: tuple[dict[str, Any], Path, list[Contender]],
) -> None:
    result, out, _ = result_and_folder
    assert result == json.loads((out / "bench.json").read_text())
    assert (result["pages"], result["new_tokens"], result["rounds"]) == (2, 3, 2)
    teacher, student, fastv = result["contenders"]
    assert [row["tiles"] for row in result["contenders"]] == [2, 2, 2]
    assert [row["visual_tokens_nominal"] for row in result["contenders"]] == [32, 16, 16]
    assert fastv["visual_tokens_layer_mean"] == (32 + 3 * 16) / 4
    per_token = 2 * 2 * 16 * 4  # keys and values, two heads of sixteen channels, float32
    n_text = teacher["prompt_tokens"] - 32
    assert teacher["kv_cache_bytes"] == 4 * per_token * (n_text + 32 + 2)
    assert student["kv_cache_bytes"] == 4 * per_token * (n_text + 16 + 2)
    assert fastv["kv_cache_bytes"] == per_token * (4 * (n_text + 2) + 32 + 3 * 16)
    assert student["flops_prefill"] < fastv["flops_prefill"] < teacher["flops_prefill"]
    assert student["flops_vit"] == fastv["flops_vit"] == teacher["flops_vit"]
    assert fastv["flops_projector"] == teacher["flops_projector"]
    for row in result["contenders"]:
        assert set(row["seconds"]) == set(PARTS)
        for spread in (*row["seconds"].values(), row["decode_tokens_per_second"], *row["faster"].values()):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert all(spread["median"] == 1 for spread in teacher["faster"].values())
    assert (fastv["method"], fastv["keep"], fastv["layer"], student["compress_ratio"]) == ("fastv", 0.5, 1, 2)


def test_a_finished_bench_is_returned_and_other_settings_are_refused(
    result_and_folder: tuple[dict[str, Any], Path, list[Contender]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out, contenders = result_and_folder
    monkeypatch.setattr("fcot_vl.bench.stage.Entrant", None)  # nothing is run again
    assert bench(contenders, PAGES, out, new_tokens=3, rounds=2) == result
    with pytest.raises(StageError, match="rounds"):
        bench(contenders, PAGES, out, new_tokens=3, rounds=1)


def test_last_line_is_json(teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench([Contender("a", str(teacher_folder))], PAGES, tmp_path, pages=1, new_tokens=2, rounds=1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    one = Contender("a", "nowhere")
    for call, message in [
        (lambda: bench([], PAGES, tmp_path), "contenders"),
        (lambda: bench([one, one], PAGES, tmp_path), "name of its own"),
        (lambda: bench([one], PAGES, tmp_path, new_tokens=1), "at least 2"),
        (lambda: bench([one], PAGES, tmp_path, rounds=0), "at least 1"),
        (lambda: bench([one], [], tmp_path), "a page each"),
        (lambda: bench([Contender("a", "x", Method("smaller_page", 0.5))], PAGES, tmp_path), "smaller pages"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
