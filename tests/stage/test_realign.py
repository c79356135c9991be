"""Re-alignment on a tiny random teacher: what changes, what must not, and that sharing changes nothing."""

from __future__ import annotations

import json
import math

import pytest
import torch
from training_case import (
    BATCH,
    PAGES,
    assert_same_weights,
    realign_config,
    record_denominators,
    weights,
    write_pages,
)
from transformers import AutoModelForImageTextToText, AutoProcessor

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor, SharedBackbone
from fcot_vl.models.compressors.registry import WINDOWED
from fcot_vl.stages import realign as realign_module
from fcot_vl.stages.realign import RealignCollator, RealignConfig, realign
from fcot_vl.train.dataset import TrainingDataset

PROJECTOR = "model.multi_modal_projector."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("realign") / "data")


@pytest.fixture(scope="module")
def together(tmp_path_factory, teacher_folder, data):
    """Ratios 2 and 4 trained in one run."""
    output = tmp_path_factory.mktemp("together")
    return realign(realign_config(output), teacher_folder, data)


@pytest.mark.parametrize("ratio", [2, 4])
def test_only_the_compressor_and_the_adaptor_change(together, teacher_folder, ratio):
    start = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, ratio).state_dict()
    end = weights(together / f"ratio-{ratio}")
    assert end.keys() == start.keys()
    changed = {name for name in end if not torch.equal(end[name], start[name])}
    assert changed == {name for name in end if name.startswith(PROJECTOR)}
    assert any(name.startswith(PROJECTOR + "compressor.") for name in changed)


def test_the_students_are_complete_model_folders(together, teacher_folder):
    for ratio in (2, 4):
        model = AutoModelForImageTextToText.from_pretrained(together / f"ratio-{ratio}")
        processor = AutoProcessor.from_pretrained(together / f"ratio-{ratio}")
        assert model.config.compress_ratio == ratio
        assert processor.image_seq_length == model.config.image_seq_length == 16 // ratio
    left = {path.name for path in together.iterdir()}
    assert left == {"ratio-2", "ratio-4", "losses.jsonl", "stage.json"}, "a finished run keeps no checkpoints"


@pytest.mark.parametrize("compressor", ["conv", "qformer"])
def test_trained_together_equals_trained_alone(tmp_path, together, teacher_folder, data, compressor):
    if compressor != "conv":
        together = realign(
            realign_config(tmp_path / "both", compressor=compressor, max_steps=3), teacher_folder, data
        )
    for ratio in (2, 4):
        config = realign_config(
            tmp_path / str(ratio),
            ratios=[ratio],
            compressor=compressor,
            **({} if compressor == "conv" else {"max_steps": 3}),
        )
        alone = realign(config, teacher_folder, data)
        assert_same_weights(alone / f"ratio-{ratio}", together / f"ratio-{ratio}")


@pytest.mark.parametrize("compressor", WINDOWED)
def test_every_compressor_learns(tmp_path, teacher_folder, data, compressor):
    """Three steps from mean pooling move every weight of it, and none of the teacher's."""
    settings = {
        "ratios": [4],
        "compressor": compressor,
        "max_steps": 3,
        "warmup_steps": 0,
        "weight_decay": 0.0,
    }
    output = realign(realign_config(tmp_path / "out", **settings), teacher_folder, data)
    end = weights(output / "ratio-4")
    start = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 4, compressor)
    torch.manual_seed(realign_config(tmp_path / "unused").seed)
    start.model.multi_modal_projector.compressor.reset_parameters()
    still = {name for name, weight in start.state_dict().items() if torch.equal(end[name], weight)}
    assert still == {name for name in end if not name.startswith(PROJECTOR)}


def test_the_loss_log_has_a_row_per_step(together):
    rows = [json.loads(line) for line in (together / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    for row in rows:
        for ratio in (2, 4):
            kl, ce, agreement = (row[f"ratio-{ratio}/{name}"] for name in ("kl", "ce", "agreement"))
            assert kl > 0 and ce > 0 and 0 <= agreement <= 1 and math.isfinite(kl + ce)
        assert row["tokens_per_second"] > 0
    record = json.loads((together / "stage.json").read_text())
    assert record["status"] == "done" and record["figures"]["pages"] == PAGES
    assert record["figures"]["steps"] == 6


def test_the_first_logged_loss_is_the_loss_of_the_untrained_student(tmp_path, together, teacher_folder, data):
    """The trainer's means against the naive model calls: two models, full logits, one page at a time."""
    teacher = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 1).eval()
    student = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).eval()
    processor = FCoTVLProcessor.from_pretrained(teacher_folder)
    pages = TrainingDataset(SampleFolder(data), processor, 4096, ratios=[2])
    trainer = realign_module.RealignTrainer(
        SharedBackbone(teacher, [2]),
        realign_config(tmp_path / "unused"),
        pages,
        RealignCollator(processor, [2], packed=True),
    )
    kl = ce = answers = 0.0
    first_batch = list(trainer._get_train_sampler())[:4]
    for index in first_batch:
        batch = RealignCollator(processor, [2])([pages[index]])
        with torch.no_grad():
            logits = [
                model(input_ids=sequence["input_ids"], pixel_values=batch["pixel_values"]).logits.log_softmax(
                    -1
                )[:, :-1][sequence["labels"][:, 1:] != -100]
                for model, sequence in ((teacher, batch["teacher"]), (student, batch["students"][2]))
            ]
        labels = batch["teacher"]["labels"]
        labels = labels[labels != -100]
        kl += float((logits[0].exp() * (logits[0] - logits[1])).sum())
        ce -= float(logits[1].gather(1, labels[:, None]).sum())
        answers += len(labels)
    first = json.loads((together / "losses.jsonl").read_text().splitlines()[0])
    assert first["ratio-2/kl"] == pytest.approx(kl / answers, rel=1e-4)
    assert first["ratio-2/ce"] == pytest.approx(ce / answers, rel=1e-4)


def test_an_answer_token_weighs_the_same_in_every_step(tmp_path, teacher_folder, data, monkeypatch):
    """Also in the short last step of each epoch: every sum is divided by the mean number of tokens per step."""
    divisors = record_denominators(monkeypatch, realign_module, "realign_loss")
    realign(realign_config(tmp_path / "out", ratios=[2]), teacher_folder, data)
    pages = TrainingDataset(SampleFolder(data), FCoTVLProcessor.from_pretrained(teacher_folder), 4096)
    assert divisors == pytest.approx([sum(pages.answers) / PAGES * BATCH] * 6)


def test_the_vit_runs_once_a_step_for_all_students(tmp_path, teacher_folder, data, monkeypatch):
    calls = []
    inner = SharedBackbone.visual_features
    monkeypatch.setattr(
        SharedBackbone,
        "visual_features",
        lambda self, pixels: calls.append(len(pixels)) or inner(self, pixels),
    )
    realign(realign_config(tmp_path / "out", max_steps=3), teacher_folder, data)
    assert len(calls) == 3


def test_cached_features_are_computed_once_and_train_almost_the_same(
    tmp_path, together, teacher_folder, data, monkeypatch
):
    cache = tmp_path / "features"
    config = {"cache_features": True, "features_folder": str(cache)}
    first = realign(realign_config(tmp_path / "first", **config), teacher_folder, data)
    monkeypatch.setattr(SharedBackbone, "visual_features", lambda *_: pytest.fail("the ViT ran again"))
    second = realign(realign_config(tmp_path / "second", **config), teacher_folder, data)
    for ratio in (2, 4):
        assert_same_weights(first / f"ratio-{ratio}", second / f"ratio-{ratio}")
        cached, exact = weights(first / f"ratio-{ratio}"), weights(together / f"ratio-{ratio}")
        start = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, ratio).state_dict()
        for name in (n for n in exact if n.startswith(PROJECTOR)):
            moved, apart = (exact[name] - start[name]).norm(), (exact[name] - cached[name]).norm()
            assert apart < 0.5 * moved, f"{name}: bfloat16 features lead elsewhere"


def test_a_cache_of_other_data_is_refused(tmp_path, teacher_folder, data):
    config = {"cache_features": True, "features_folder": str(tmp_path / "features"), "max_steps": 1}
    realign(realign_config(tmp_path / "first", **config), teacher_folder, data)
    with pytest.raises(StageError, match=r"inputs\.data"):
        realign(
            realign_config(tmp_path / "second", **config), teacher_folder, write_pages(tmp_path / "other", 9)
        )


def test_accumulated_batches_train_as_one(tmp_path, teacher_folder, data):
    """Answers differ in length, so a mean of means would give other weights."""
    once = realign(
        realign_config(tmp_path / "once", max_steps=1, optim="sgd", learning_rate=1.0), teacher_folder, data
    )
    config = realign_config(
        tmp_path / "twice",
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )

    # the same four pages: the order is planned in batches of two, so give it the order of batches of four
    class SameOrder(realign_module.RealignTrainer):
        def _get_train_sampler(self, train_dataset=None):
            self._train_batch_size, batch = 4, self._train_batch_size
            self.args.per_device_train_batch_size = 4
            sampler = super()._get_train_sampler(train_dataset)
            self._train_batch_size, self.args.per_device_train_batch_size = batch, 2
            return sampler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(realign_module, "RealignTrainer", SameOrder)
        twice = realign(config, teacher_folder, data)
    one, two = weights(once / "ratio-2"), weights(twice / "ratio-2")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_a_finished_run_returns_at_once_and_other_settings_are_refused(
    together, teacher_folder, data, monkeypatch, log
):
    monkeypatch.setattr(realign_module, "train", lambda *_: pytest.fail("trained again"))
    assert realign(realign_config(together), teacher_folder, data) == together
    assert "already done" in log()
    with pytest.raises(StageError, match="learning_rate"):
        realign(realign_config(together, learning_rate=5e-4), teacher_folder, data)


def test_too_long_pages_are_left_out_and_counted(tmp_path, teacher_folder, data, log):
    output = realign(
        realign_config(tmp_path / "out", max_length=60, max_steps=1, max_skipped=1), teacher_folder, data
    )
    figures = json.loads((output / "stage.json").read_text())["figures"]
    assert figures["left_out"] > 0 and figures["pages"] + figures["left_out"] == PAGES
    assert f"skipped: {figures['left_out']} too long" in log()
    assert len((output / "skipped.jsonl").read_text().splitlines()) == figures["left_out"]
    with pytest.raises(ValueError, match="max_length 5: 10 too long"):
        realign(realign_config(tmp_path / "none", max_length=5, max_skipped=1), teacher_folder, data)


def test_a_changed_frozen_weight_is_noticed(tmp_path, teacher_folder, data, monkeypatch):
    def touch_the_backbone(trainer, *_):
        with torch.no_grad():
            trainer.model.teacher.lm_head.weight[0, 0] += 1

    monkeypatch.setattr(realign_module, "train", touch_the_backbone)
    with pytest.raises(AssertionError, match="frozen"):
        realign(realign_config(tmp_path / "out"), teacher_folder, data)


def test_ratios_are_read_from_a_flag_and_checked(tmp_path):
    assert RealignConfig(output_dir=str(tmp_path), ratios="2,4", use_cpu=True).ratios == [2, 4]
    for wrong in ("1,2", "2,2", []):
        with pytest.raises(ValueError, match="ratios must name"):
            RealignConfig(output_dir=str(tmp_path), ratios=wrong, use_cpu=True)
