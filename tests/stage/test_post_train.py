"""Post-training on a tiny random model: what changes, what must not, the control, and the loss."""

from __future__ import annotations

import json

import pytest
import torch
from training_case import assert_same_weights, post_train_config, weights, write_pages
from transformers import AutoModelForImageTextToText, AutoProcessor, InternVLForConditionalGeneration

from fcot_vl.data.collator import PostTrainCollator
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.stages import post_train as post_train_module
from fcot_vl.stages.post_train import PostTrainConfig, load_for_training, post_train
from fcot_vl.train.answer_model import AnswerModel
from fcot_vl.train.dataset import TrainingDataset

VISION = "model.vision_tower."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("post-train") / "data")


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher_folder):
    """A student folder as re-alignment leaves it."""
    folder = tmp_path_factory.mktemp("student")
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).save_pretrained(folder)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(folder)
    return folder


def test_all_weights_change_and_the_folder_loads(tmp_path, student, data):
    output = post_train(post_train_config(tmp_path / "out"), student, data)
    start, end = weights(student), weights(output)
    assert {name for name in end if torch.equal(end[name], start[name])} == set()
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert model.config.compress_ratio == 2
    assert AutoProcessor.from_pretrained(output).image_seq_length == 8
    rows = [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[-1]["ce"] < rows[0]["ce"]
    assert not list(output.glob("checkpoint-*")) and not list(output.glob(".*"))


def test_a_frozen_vit_stays_and_may_be_cached(tmp_path, student, data):
    frozen = {"freeze_vision": True, "max_steps": 3}
    output = post_train(post_train_config(tmp_path / "frozen", **frozen), student, data)
    start, end = weights(student), weights(output)
    changed = {name for name in end if not torch.equal(end[name], start[name])}
    assert changed == {name for name in end if not name.startswith(VISION)}
    config = post_train_config(tmp_path / "cached", **frozen, cache_features=True)
    cached = weights(post_train(config, student, data))
    for name in end:
        apart, moved = (cached[name] - end[name]).norm(), (end[name] - start[name]).norm()
        assert apart <= 0.5 * moved, f"{name}: bfloat16 features lead elsewhere"


def test_the_control_trains_the_teacher_at_ratio_1(tmp_path, teacher_folder, data):
    output = post_train(post_train_config(tmp_path / "control", max_steps=1), teacher_folder, data)
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert model.config.compress_ratio == 1 and model.config.image_seq_length == 16
    assert not any("compressor" in name for name in weights(output))
    assert json.loads((output / "stage.json").read_text())["figures"]["compress_ratio"] == 1


def test_the_loss_is_the_models_own(teacher_folder, data):
    """Answer-only cross-entropy against transformers' loss on full logits, in a padded batch."""
    teacher = InternVLForConditionalGeneration.from_pretrained(teacher_folder).eval()
    processor = FCoTVLProcessor.from_pretrained(teacher_folder)
    pages = TrainingDataset(SampleFolder(data), processor, 4096)
    batch = PostTrainCollator(processor)([pages[0], pages[2], pages[3]])
    ours = AnswerModel(load_for_training(teacher_folder), freeze_vision=False)(**batch).loss
    torch.testing.assert_close(ours, teacher(**batch).loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_loss(student, data, side):
    model = AnswerModel(load_for_training(student, "kept"), freeze_vision=True)
    processor = FCoTVLProcessor.from_pretrained(student)
    pages = TrainingDataset(SampleFolder(data), processor, 4096)
    collator = PostTrainCollator(processor, side)
    together = model(**collator([pages[0], pages[3]]), denominator=1).loss
    alone = sum(model(**collator([pages[index]]), denominator=1).loss for index in (0, 3))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_positions_may_be_moved_to_compact(tmp_path, teacher_folder, data):
    kept = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2, visual_positions="kept")
    kept.save_pretrained(tmp_path / "kept")
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(tmp_path / "kept")
    outputs = {}
    for positions in (None, "compact"):
        config = post_train_config(tmp_path / str(positions), max_steps=1, visual_positions=positions)
        outputs[positions] = post_train(config, tmp_path / "kept", data)
        saved = json.loads((outputs[positions] / "config.json").read_text())
        assert saved["visual_positions"] == (positions or "kept")
    first = [json.loads((o / "losses.jsonl").read_text().splitlines()[0])["ce"] for o in outputs.values()]
    assert first[0] != first[1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, student, data):
    outputs = [
        post_train(post_train_config(tmp_path / name, max_steps=2, seed=seed), student, data)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    ]
    assert_same_weights(outputs[0], outputs[1])
    with pytest.raises(AssertionError, match="differ"):
        assert_same_weights(outputs[0], outputs[2])


def test_a_finished_run_returns_at_once(tmp_path, student, data, monkeypatch, log):
    config = post_train_config(tmp_path / "out", max_steps=1)
    post_train(config, student, data)
    monkeypatch.setattr(post_train_module, "train", lambda *_: pytest.fail("trained again"))
    assert post_train(config, student, data) == tmp_path / "out"
    assert "already done" in log()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="freeze_vision"):
        PostTrainConfig(output_dir=str(tmp_path), cache_features=True, use_cpu=True)
    with pytest.raises(ValueError, match="visual_positions"):
        PostTrainConfig(output_dir=str(tmp_path), visual_positions="stretched", use_cpu=True)
