"""Packing: the plan, and that pages of one row do not see each other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_case import write_pages

from fcot_vl.data.collator import PostTrainCollator, RealignCollator, pack
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.data.packing import WINDOW, fill, plan_packs, tokens_of
from fcot_vl.data.tokenization import IGNORED
from fcot_vl.models import FCoTVLProcessor, SharedBackbone
from fcot_vl.models.packed_attention import packed_inputs
from fcot_vl.prune.uniform import apply_uniform
from fcot_vl.stages.post_train import load_for_training
from fcot_vl.train.answer_model import AnswerModel
from fcot_vl.train.dataset import PackedDataset, TrainingDataset
from fcot_vl.train.losses import realign_loss

# ------------------------------------------------------------------------------------------------------------ plan


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(0, 3))
def test_every_record_is_in_one_pack_and_packs_hold_what_they_may(lengths: list[int], seed: int) -> None:
    packs = plan_packs(lengths, 64, seed)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs) and all(tokens_of(pack, lengths) <= 64 for pack in packs)
    assert packs == plan_packs(lengths, 64, seed)


@pytest.mark.parametrize("pages", [300, 3 * WINDOW])
def test_packs_of_pages_are_full(pages: int) -> None:
    """InternVL2-2B's lengths: 1 to 7 tiles of 256 tokens, and as much text again."""
    random = np.random.default_rng(0)
    lengths = (random.integers(1, 8, pages) * 256 + random.integers(30, 1000, pages)).tolist()
    packs = plan_packs(lengths, 4096, 0)
    assert fill(packs, lengths, 4096) > 0.97
    assert packs != plan_packs(lengths, 4096, 1)


def test_a_record_that_fits_no_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens does not fit"):
        plan_packs([3, 65], 64, 0)
    assert plan_packs([], 64, 0) == []


# ------------------------------------------------------------------------------------------------------- sequences


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> SampleFolder:
    return SampleFolder(write_pages(tmp_path_factory.mktemp("packing") / "data"))


@pytest.fixture(scope="module")
def processor(teacher_folder) -> FCoTVLProcessor:
    return FCoTVLProcessor.from_pretrained(teacher_folder)


def test_nothing_predicts_the_first_token_of_a_sequence() -> None:
    ids = torch.arange(3)
    row = pack([(ids, ids.clone()), (ids, ids.clone())])
    assert row["input_ids"].tolist() == [[0, 1, 2, 0, 1, 2]] and row["sequence_lengths"] == [3, 3]
    assert row["labels"].tolist() == [[IGNORED, 1, 2, IGNORED, 1, 2]]
    assert ids.tolist() == [0, 1, 2]


def test_packed_pages_hold_every_page_once(samples, processor) -> None:
    pages = TrainingDataset(samples, processor, 4096)
    packed = PackedDataset(pages, max(pages.lengths) + 40, seed=0)
    assert sum(packed.lengths) == sum(pages.lengths) and len(packed) < len(pages)
    assert sorted(page.prompt.length() for item in packed for page in item) == sorted(pages.lengths)
    assert f"{len(packed)} packs of" in packed.describe() and "% full" in packed.describe()


@pytest.mark.parametrize("positions", ["kept", "compact"])
@pytest.mark.parametrize("decoder", ["qwen2", "llama"])
def test_packed_losses_are_those_of_each_page_alone(
    teacher_folder, llama_teacher_folder, samples, processor, positions, decoder
) -> None:
    """Loss and gradient of teacher and two students over ten pages in one row, against ten rows."""
    folder = {"qwen2": teacher_folder, "llama": llama_teacher_folder}[decoder]
    backbone = SharedBackbone.from_teacher(folder, [2, 4], visual_positions=positions, dtype=torch.float32)
    pages = TrainingDataset(samples, processor, 4096, ratios=[2, 4])
    found = {}
    for packed in (False, True):
        batches = [[pages[i] for i in range(len(pages))]] if packed else [[page] for page in pages]
        collator = RealignCollator(processor, [2, 4], packed=packed)
        answers = sum(int(page.prompt.is_answer.sum()) for page in pages)
        losses = {2: 0.0, 4: 0.0}
        backbone.zero_grad()
        for batch in batches:
            output = backbone(**collator(batch))
            for ratio, hidden in output.student_hidden.items():
                loss = realign_loss(
                    output.teacher_hidden,
                    hidden,
                    backbone.lm_head_weight,
                    output.labels,
                    denominator=answers,
                ).loss
                loss.backward()
                losses[ratio] += float(loss.detach())
        found[packed] = losses, [p.grad.clone() for p in backbone.adaptors.parameters()]
    for ratio in (2, 4):
        assert found[True][0][ratio] == pytest.approx(found[False][0][ratio], abs=1e-5)
    for packed_grad, grad in zip(found[True][1], found[False][1], strict=True):
        torch.testing.assert_close(packed_grad, grad, rtol=1e-4, atol=1e-5)


def test_a_page_does_not_see_its_neighbors(teacher_folder, samples, processor) -> None:
    """Other pages before and behind, same states bit for bit."""
    backbone = SharedBackbone.from_teacher(teacher_folder, [2], dtype=torch.float32)
    pages = TrainingDataset(samples, processor, 4096, ratios=[2])
    collator = RealignCollator(processor, [2], packed=True)

    def states(before: int, behind: int) -> torch.Tensor:
        batch = collator([[pages[before], pages[0], pages[behind]]])
        with torch.no_grad():
            hidden = backbone(**batch).student_hidden[2]
        start = int(pages[before].prompt.is_answer.sum())
        return hidden[start : start + int(pages[0].prompt.is_answer.sum())]

    torch.testing.assert_close(states(1, 2), states(3, 1), rtol=1e-6, atol=1e-6)


def test_post_training_reads_packs_too(teacher_folder, samples, processor) -> None:
    model = AnswerModel(load_for_training(teacher_folder), freeze_vision=False)
    pages = list(TrainingDataset(samples, processor, 4096))
    answers = sum(int(page.prompt.is_answer.sum()) for page in pages)
    alone = PostTrainCollator(processor)
    with torch.no_grad():
        packed = model(**PostTrainCollator(processor, packed=True)([pages]), denominator=answers).loss
        parts = []
        for page in pages:
            batch = {k: v for k, v in alone([page]).items() if k != "attention_mask"}
            parts.append(model(**batch, denominator=answers).loss)
    assert float(packed) == pytest.approx(float(sum(parts)), abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reading_packs_leaves_a_decoders_own_attention(teacher_folder, samples, processor, attention) -> None:
    """Padded batches, on either side, are then read as before, and the model can be pruned."""
    model = load_for_training(teacher_folder)
    model.set_attn_implementation(attention)
    trained = AnswerModel(model, freeze_vision=False)
    pages = list(TrainingDataset(samples, processor, 4096))[:3]
    packed = PostTrainCollator(processor, packed=True)(pages)
    for side in ("left", "right"):
        batch = {k: v for k, v in PostTrainCollator(processor, side)(pages).items() if k != "labels"}
        with torch.no_grad():
            before = model(**batch).logits
            trained(**packed)
            assert model.model.language_model.config._attn_implementation == attention
            after = model(**batch).logits
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(after[real], before[real], rtol=0, atol=0)
    apply_uniform(model, 0.5).remove()


@pytest.mark.parametrize("positions", ["kept", "compact"])
def test_packs_respect_sliding_windows(teacher_folder, samples, processor, positions, tmp_path) -> None:
    """A decoder whose upper layers see the last eight tokens, as some Qwen2 and Phi-3 checkpoints do with more."""
    shutil.copytree(teacher_folder, tmp_path / "sliding")
    config = json.loads((tmp_path / "sliding" / "config.json").read_text())
    layers = config["text_config"]["num_hidden_layers"]
    config["text_config"] |= {
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["full_attention"] + ["sliding_attention"] * (layers - 1),
    }
    (tmp_path / "sliding" / "config.json").write_text(json.dumps(config))
    pages = list(TrainingDataset(samples, processor, 4096))
    losses = {}
    for folder in (teacher_folder, tmp_path / "sliding"):
        model = AnswerModel(load_for_training(folder, positions), freeze_vision=False)
        with torch.no_grad():
            packed = model(**PostTrainCollator(processor, packed=True)(pages), denominator=1).loss
            alone = sum(model(**PostTrainCollator(processor)([page]), denominator=1).loss for page in pages)
        torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-4)
        losses[folder] = float(packed)
    assert len(set(losses.values())) == 2, "the window must matter"


def test_lengths_that_are_not_those_of_the_row_are_refused(teacher_folder) -> None:
    model = load_for_training(teacher_folder)
    with pytest.raises(ValueError, match="must be one row"):
        packed_inputs(model.model, torch.zeros(2, 4, dtype=torch.long), [4, 4])
