"""Inspecting checkpoints: published sizes, hand-counted costs, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import fcot_vl
from fcot_vl.common.errors import CheckpointError
from fcot_vl.models.flops import prefill_flops
from fcot_vl.stages.inspect_checkpoint import inspect, page_size, training_gib

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "internvl2-tiny-internlm2"


def published(folder: Path, width: int, inner: int, layers: int, heads: int) -> Path:
    """InternVL2's `config.json` with an InternLM2 of a published size."""
    llm = {
        "architectures": ["InternLM2ForCausalLM"],
        "vocab_size": 92_553,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "bias": False,
        "tie_word_embeddings": False,
    }
    config = json.loads((REFERENCE / "config.json").read_text()) | {
        "force_image_size": 448,
        "llm_config": llm,
    }
    config["vision_config"] |= {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 448,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("sizes", "billions"), [((2048, 8192, 24, 16), 2.21), ((4096, 14336, 32, 32), 8.08)], ids=["2B", "8B"]
)
def test_published_sizes(tmp_path: Path, sizes: tuple[int, int, int, int], billions: float) -> None:
    """The parameter counts that the model cards of InternVL2-2B and 8B state."""
    found = inspect(published(tmp_path, *sizes), gpus=8)
    assert round(sum(found["parameters"].values()) / 1e9, 2) == billions
    assert round(found["parameters"]["vision tower"] / 1e6) == 304
    assert found["tiles"] == 7  # A4: a grid of 2 x 3 and the thumbnail
    assert [row["visual_tokens"] for row in found["ratios"]] == [7 * 256 // r for r in (1, 2, 4, 8, 16)]
    assert found["ratios"][0]["realign_gib"] is None
    assert all(row["realign_gib"] < row["post_train_gib"] for row in found["ratios"][1:])


def test_the_original_and_the_converted_folder_agree(tmp_path: Path) -> None:
    from fcot_vl.stages.convert import convert

    one = inspect(REFERENCE)
    other = inspect(convert(REFERENCE, tmp_path / "out"))
    assert one["family"] == "InternVL, original layout" and other["family"] == "InternVL, Hugging Face layout"
    assert one["ratios"] == other["ratios"] and one["parameters"] == other["parameters"]


def test_a_student_is_one_ratio(
    make_student: Callable[..., fcot_vl.FCoTVLForConditionalGeneration], tmp_path: Path
) -> None:
    student = make_student(4)
    student.save_pretrained(tmp_path)
    found = inspect(tmp_path, page=(112, 112))
    (row,) = found["ratios"]
    assert (row["compress_ratio"], row["tokens_per_tile"], row["visual_tokens"]) == (4, 4, 4)
    assert sum(found["parameters"].values()) == sum(p.numel() for p in student.parameters())
    assert row["prefill_flops"] == prefill_flops(student.config.text_config, [4 + 64] * 4)


def test_training_memory_by_hand() -> None:
    class Text:
        hidden_size, num_hidden_layers = 2048, 24

    activations = (2 * 24 + 34) * 4096 * 2048
    got = training_gib(2_000_000_000, 2_000_000_000, Text, context=4096, gpus=8)
    assert got == pytest.approx((16 * 2e9 / 8 + activations) / 2**30 + 0.25)
    frozen = training_gib(2_000_000_000, 20_000_000, Text, context=4096, gpus=1)
    assert frozen == pytest.approx((2 * 1.98e9 + 16 * 0.02e9 + activations) / 2**30 + 0.25)


def test_wrong_paths_and_numbers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        inspect(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="this is a bert model, not an InternVL"):
        inspect(tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        inspect(REFERENCE, gpus=0)
    for text in ("a4", "10x", "10x-3"):
        with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
            page_size(text)
    assert page_size("1240X1754") == (1240, 1754)
