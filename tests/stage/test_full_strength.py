"""What large runs switch on: drop path, recomputed activations, bfloat16, packs; and what stops them."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from training_case import assert_same_weights, post_train_config, realign_config, weights, write_pages
from transformers import AutoModelForImageTextToText

from fcot_vl.models import FCoTVLForConditionalGeneration, SharedBackbone
from fcot_vl.models.drop_path import add_drop_path
from fcot_vl.stages.post_train import load_for_training, post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train import feature_cache as features

PROJECTOR = "model.multi_modal_projector."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("strength") / "data")


def losses(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------- drop path


def vision_of(teacher_folder, rate):
    vision = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).vision
    return vision, add_drop_path(vision, rate)


def test_drop_path_drops_branches_of_whole_tiles_and_keeps_the_mean(teacher_folder):
    """The last of two layers drops: a tile's output is one of four, and over many draws their mean."""
    vision, _ = vision_of(teacher_folder, 0.5)
    layer = vision.encoder.layer[1]
    states = torch.randn(1, 5, 32).expand(4000, 5, 32)
    with torch.no_grad():
        attention = layer.lambda_1 * layer.attention(layer.layernorm_before(states[:1]))[0]
        outcomes = []
        for kept in (0.0, 2.0):
            after = states[:1] + kept * attention
            mlp = layer.lambda_2 * layer.mlp(layer.layernorm_after(after))
            outcomes += [after, after + 2.0 * mlp]
        layer.train()
        torch.manual_seed(0)
        found = layer(states)
    distance = torch.stack([(found - outcome).abs().amax((1, 2)) for outcome in outcomes])
    assert distance.min(0).values.max() < 1e-4
    share = torch.bincount(distance.argmin(0), minlength=4) / 4000
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.03, rtol=0)


def test_drop_path_is_off_at_inference_and_grows_with_depth(teacher_folder):
    plain = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).vision.eval()
    vision, handles = vision_of(teacher_folder, 0.9)
    pixels = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        want = plain(pixels).last_hidden_state
        torch.testing.assert_close(vision.eval()(pixels).last_hidden_state, want, rtol=0, atol=0)
        vision.encoder.layer[0].train()  # the first layer's rate is 0
        torch.testing.assert_close(vision(pixels).last_hidden_state, want, rtol=0, atol=0)
        vision.encoder.layer[1].train()
        assert not torch.equal(vision(pixels).last_hidden_state, want)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(vision(pixels).last_hidden_state, want, rtol=0, atol=0)


def test_realign_with_drop_path_learns_other_weights_and_resumable_ones(tmp_path, teacher_folder, data):
    config = {"ratios": [2], "max_steps": 3}
    plain = realign(realign_config(tmp_path / "plain", **config), teacher_folder, data)
    one = realign(realign_config(tmp_path / "one", drop_path=0.5, **config), teacher_folder, data)
    two = realign(realign_config(tmp_path / "two", drop_path=0.5, **config), teacher_folder, data)
    assert_same_weights(one / "ratio-2", two / "ratio-2")
    assert losses(one)[0]["ratio-2/kl"] != losses(plain)[0]["ratio-2/kl"]
    start = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).state_dict()
    changed = {name for name, w in weights(one / "ratio-2").items() if not torch.equal(w, start[name])}
    assert changed and all(name.startswith(PROJECTOR) for name in changed)


def test_drop_path_is_refused_where_it_cannot_be(tmp_path, teacher_folder):
    with pytest.raises(ValueError, match="drop_path 0"):
        realign_config(tmp_path, drop_path=0.1, cache_features=True)
    with pytest.raises(ValueError, match="leave out freeze_vision"):
        post_train_config(tmp_path, drop_path=0.1, freeze_vision=True)
    with pytest.raises(ValueError, match="below 1"):
        vision_of(teacher_folder, 1.0)
    with pytest.raises(ValueError, match="InternVL's ViT"):
        add_drop_path(torch.nn.Linear(2, 2), 0.1)


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("stage", ["realign", "post-train"])
def test_recomputed_activations_train_the_same(tmp_path, teacher_folder, data, stage):
    """Bit for bit, and fewer tensors are kept for the backward pass."""
    run, make = {"realign": (realign, realign_config), "post-train": (post_train, post_train_config)}[stage]
    config = {"packing": True, "max_length": 400, "max_steps": 2, "per_device_train_batch_size": 1}
    plain = run(make(tmp_path / "plain", **config), teacher_folder, data)
    saved = run(make(tmp_path / "saved", activation_checkpointing=True, **config), teacher_folder, data)
    for part in ("ratio-2", "ratio-4") if stage == "realign" else (".",):
        assert_same_weights(plain / part, saved / part)


def test_recomputing_keeps_less(teacher_folder, data):
    from fcot_vl.data.collator import RealignCollator
    from fcot_vl.data.dataset import SampleFolder
    from fcot_vl.models.auto import load_processor
    from fcot_vl.train.dataset import TrainingDataset

    processor = load_processor(teacher_folder)
    pages = TrainingDataset(SampleFolder(data), processor, 4096, ratios=[2])
    batch = RealignCollator(processor, [2], packed=True)([[pages[i] for i in range(6)]])
    kept = {False: 0, True: 0}
    for checkpointing in kept:
        backbone = SharedBackbone.from_teacher(teacher_folder, [2], dtype=torch.float32)
        if checkpointing:
            backbone.activation_checkpointing_enable()
        backbone.train()

        def count(tensor, mode=checkpointing):
            kept[mode] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            backbone(**batch)
        assert not any(m.training for m in backbone.teacher.modules() if isinstance(m, torch.nn.Dropout))
    assert kept[True] < 0.5 * kept[False]


def test_bfloat16_trains_close_to_float32_and_saves_what_was_trained(tmp_path, teacher_folder, data):
    config = {"ratios": [2], "num_train_epochs": 2, "packing": True, "max_length": 400}
    full = realign(realign_config(tmp_path / "full", **config), teacher_folder, data)
    half = realign(realign_config(tmp_path / "half", bf16=True, **config), teacher_folder, data)
    for before, after in zip(losses(full), losses(half), strict=True):
        assert after["ratio-2/kl"] == pytest.approx(before["ratio-2/kl"], rel=0.1)
        assert after["ratio-2/ce"] == pytest.approx(before["ratio-2/ce"], rel=0.02)
    model = AutoModelForImageTextToText.from_pretrained(half / "ratio-2")
    assert model.dtype == torch.bfloat16
    start = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2, dtype=torch.bfloat16)
    moved = {n for n, w in model.state_dict().items() if not torch.equal(w, start.state_dict()[n])}
    assert moved and all(name.startswith(PROJECTOR) for name in moved)
    for name, weight in weights(half / "ratio-2").items():
        assert weight.dtype == (torch.float32 if name.startswith(PROJECTOR) else torch.bfloat16), name
    trained = load_for_training(half / "ratio-2").state_dict()[PROJECTOR + "linear_1.weight"]
    assert not torch.equal(trained, trained.bfloat16().float()), "stage 2 begins where stage 1 ended"


# ----------------------------------------------------------------------------------------------------------- packs


def test_packs_train_and_say_how_full_they_are(tmp_path, teacher_folder, data, log):
    config = {"packing": True, "max_length": 155, "per_device_train_batch_size": 2}
    one = realign(realign_config(tmp_path / "one", **config), teacher_folder, data)
    assert re.search(r"10 pages in 5 packs of 155 tokens, \d\d\.\d% full", log())
    two = realign(realign_config(tmp_path / "two", **config), teacher_folder, data)
    assert len(losses(one)) == 6
    for ratio in (2, 4):
        assert_same_weights(one / f"ratio-{ratio}", two / f"ratio-{ratio}")


# ----------------------------------------------------------------------------------------------------- what stops


def test_a_page_that_gives_no_finite_gradient_stops_the_run_and_is_named(
    tmp_path, teacher_folder, data, monkeypatch
):
    """One page's features are not numbers: nothing is learned from its batch, and the last checkpoint loads."""
    inner = features._features

    def broken(sample, *rest):
        found = inner(sample, *rest)
        return found * math.nan if sample.id == "page-7" else found

    config = {"cache_features": True, "ratios": [2], "per_device_train_batch_size": 1, "save_steps": 1}
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(features, "_features", broken)
        with pytest.raises(
            ValueError, match=r"not finite .* on the pages page-7\. No weight was changed"
        ) as stopped:
            realign(realign_config(folder, **config), teacher_folder, data)
    steps = len(losses(folder))
    assert 0 < steps < 10 and f"step {steps + 1}:" in str(stopped.value)
    assert f"checkpoint-{steps} is complete" in str(stopped.value)
    (folder / "features").rename(tmp_path / "broken features")  # the person mends the page
    realign(realign_config(folder, **config), teacher_folder, data)
    mended = realign(realign_config(tmp_path / "mended", **config), teacher_folder, data)
    assert_same_weights(folder / "ratio-2", mended / "ratio-2")
