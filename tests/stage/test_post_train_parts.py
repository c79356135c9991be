"""Post-training beside one rate for all weights: rates by part and layer, LoRA, kept checkpoints, losses by group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from training_case import (
    BATCH,
    PAGES,
    assert_same_weights,
    post_train_config,
    record_denominators,
    weights,
    write_pages,
)
from transformers import AutoModelForImageTextToText

from fcot_vl.data.dataset import Sample, SampleFolder, write_shard
from fcot_vl.data.groups import group_names
from fcot_vl.data.mixture import Mixture
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.stages.post_train import load_for_training, post_train
from fcot_vl.train import answer_model
from fcot_vl.train.dataset import TrainingDataset
from fcot_vl.train.lora import add_lora, merge_lora
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.param_groups import layer_scales, scale_rates
from fcot_vl.train.snapshots import KeepWeights, kept_steps
from fcot_vl.train.trainer import StageTrainer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pages of two tasks."""
    folder = write_pages(tmp_path_factory.mktemp("parts") / "data")
    samples = list(SampleFolder(folder))
    for index, sample in enumerate(samples):
        sample.task = ("read", "sums")[index % 2]
    for shard in folder.glob("*.parquet"):
        shard.unlink()
    write_shard(folder / "a.parquet", samples)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp("student")
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).save_pretrained(folder)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(folder)
    return folder


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------ losses apart


def test_an_answer_token_weighs_the_same_in_every_step(tmp_path, student, data, monkeypatch):
    """Also in the short last step of each epoch: every sum is divided by the mean number of tokens per step."""
    divisors = record_denominators(monkeypatch, answer_model, "answer_cross_entropy")
    output = post_train(post_train_config(tmp_path / "out"), student, data)
    pages = TrainingDataset(SampleFolder(data), FCoTVLProcessor.from_pretrained(student), 4096)
    assert divisors == pytest.approx([sum(pages.answers) / PAGES * BATCH] * 6)
    read = [sum(group["tokens"] for group in row["groups"].values()) for row in rows(output)]
    assert sum(read) == 2 * sum(pages.answers) and len(set(read)) > 1


@pytest.mark.parametrize("packing", [False, True])
def test_the_groups_losses_add_up_to_the_steps(tmp_path, student, data, packing):
    settings = {"packing": packing, "max_length": 200 if packing else 4096, "max_steps": 3}
    output = post_train(post_train_config(tmp_path / "out", **settings), student, data)
    found = rows(output)
    assert {name for row in found for name in row["groups"]} == {"read", "sums"}
    for row in found:
        groups = row["groups"].values()
        tokens = sum(group["tokens"] for group in groups)
        assert sum(g["ce"] * g["tokens"] for g in groups) / tokens == pytest.approx(row["ce"], rel=1e-5)


def test_a_groups_loss_is_that_of_its_pages_alone(tmp_path, student, data):
    """At the first step, before anything is learned: the pages of one task against a run over them alone."""
    samples = list(SampleFolder(data))
    whole = {"max_steps": 1, "per_device_train_batch_size": len(samples)}
    both = rows(post_train(post_train_config(tmp_path / "both", **whole), student, data))[0]["groups"]
    (tmp_path / "sums").mkdir()
    sums = [sample for sample in samples if sample.task == "sums"]
    write_shard(tmp_path / "sums" / "a.parquet", sums)
    alone = post_train(post_train_config(tmp_path / "one", **whole), student, tmp_path / "sums")
    assert rows(alone)[0]["ce"] == pytest.approx(both["sums"]["ce"], rel=1e-5)
    assert rows(alone)[0]["groups"]["sums"]["tokens"] == both["sums"]["tokens"]


def test_a_mixtures_groups_are_its_sources_split_where_they_hold_several_tasks(data):
    pages = SampleFolder(data)
    mixture = Mixture([("mine", pages), ("twice", pages)], [1.0, 1.0])
    indices = list(range(len(mixture)))
    tasks = [mixture[i].task for i in indices]
    assert set(group_names(mixture, indices, tasks)) == {
        "mine/read", "mine/sums", "twice/read", "twice/sums"
    }  # fmt: skip
    one_task = ["sums"] * len(indices)
    assert set(group_names(mixture, indices, one_task)) == {"mine", "twice"}
    assert set(group_names(pages, range(len(pages)), [s.task for s in pages])) == {"read", "sums"}
    assert group_names(pages, [0], [""]) == ["test"]
    plain = [Sample("a", [], [], "", "")]
    assert group_names(plain, [0], [""]) == ["all"]


def test_losses_are_counted_to_their_group(tmp_path):
    log = LossLog(tmp_path / "losses.jsonl", group_names=["a", "b", "c"])
    log.add_tokens(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 2]))
    log.add_tokens(torch.tensor([3.0]), torch.tensor([0]))
    assert log._group_means() == {"a": {"ce": 2.0, "tokens": 3}, "c": {"ce": 6.0, "tokens": 1}}


# ---------------------------------------------------------------------------------------------------- kept along


@pytest.mark.parametrize(
    ("steps", "count", "expected"), [(6, 3, [2, 4, 6]), (7, 3, [2, 4, 7]), (5, 5, [1, 2, 3, 4, 5])]
)
def test_kept_steps_are_even_and_end_with_the_run(steps, count, expected):
    assert kept_steps(steps, count) == expected


def test_more_checkpoints_than_steps_are_refused(tmp_path, student, data):
    with pytest.raises(ValueError, match="keep_checkpoints is 9, the run has 6 steps"):
        post_train(post_train_config(tmp_path / "out", keep_checkpoints=9), student, data)


def test_kept_checkpoints_are_models_and_change_nothing(tmp_path, student, data):
    plain = post_train(post_train_config(tmp_path / "plain"), student, data)
    output = post_train(post_train_config(tmp_path / "kept", keep_checkpoints=3), student, data)
    assert_same_weights(plain, output)
    folders = sorted((output / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == ["step-000002", "step-000004", "step-000006"]
    assert_same_weights(folders[-1], output)
    assert not torch.equal(weights(folders[0])["lm_head.weight"], weights(output)["lm_head.weight"])
    model = AutoModelForImageTextToText.from_pretrained(folders[0])
    assert model.config.compress_ratio == 2
    assert not (output / "kept").exists()
    assert {p.name for p in folders[0].iterdir()} >= {
        "config.json",
        "tokenizer.json",
        "processor_config.json",
    }


@pytest.mark.faults
def test_a_run_killed_between_kept_steps_keeps_the_same(tmp_path, student, data, monkeypatch):
    whole = post_train(post_train_config(tmp_path / "whole", keep_checkpoints=3), student, data)
    inner = KeepWeights.on_step_end

    def stop(self, args, state, control, **kwargs):
        inner(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeepWeights, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            post_train(post_train_config(tmp_path / "cut", keep_checkpoints=3), student, data)
    assert len(list((tmp_path / "cut" / "kept").iterdir())) == 2
    output = post_train(post_train_config(tmp_path / "cut", keep_checkpoints=3), student, data)
    for name in ("step-000002", "step-000004", "step-000006"):
        assert_same_weights(whole / "checkpoints" / name, output / "checkpoints" / name)


# --------------------------------------------------------------------------------------------------------- rates


def test_rates_fall_from_layer_to_layer_in_each_stack():
    names = [
        "model.vision_tower.embeddings.patch.weight",
        "model.vision_tower.encoder.layers.0.w",
        "model.vision_tower.encoder.layers.1.w",
        "model.language_model.embed_tokens.weight",
        "model.language_model.layers.0.w",
        "model.language_model.layers.2.w",
        "model.language_model.norm.weight",
        "lm_head.weight",
    ]
    assert list(layer_scales(names, 0.5).values()) == [0.25, 0.5, 1, 0.125, 0.25, 1, 1, 1]
    assert set(layer_scales(names, 1.0).values()) == {1.0}


def test_a_scaled_optimizer_moves_each_weight_by_its_rate():
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([one, two], lr=0.1)
    scale_rates(optimizer, {id(two): 3.0})
    for parameter in (one, two):
        parameter.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(two, 3 * one)


@pytest.mark.parametrize("muon_lr", [None, 1e-3])
def test_parts_learn_at_their_own_rates(tmp_path, student, data, monkeypatch, muon_lr):
    found = {}
    inner = StageTrainer.create_optimizer

    def record(self, model=None):
        found["trainer"] = self
        return inner(self, model)

    monkeypatch.setattr(StageTrainer, "create_optimizer", record)
    config = post_train_config(
        tmp_path / "out", max_steps=1, vision_lr=1e-4, adaptor_lr=5e-3, layer_lr_decay=0.5, muon_lr=muon_lr
    )
    post_train(config, student, data)
    trainer = found["trainer"]
    rates = {id(p): group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    base = {name: rates[id(p)] for name, p in trainer.trained_parameters().items()}
    last = trainer.model.model.config.text_config.num_hidden_layers - 1
    layers = [f"model.model.language_model.layers.{n}.mlp.up_proj.weight" for n in (last - 1, last)]
    top = 1e-3 if muon_lr is None else muon_lr
    assert base[layers[1]] == pytest.approx(top) and base[layers[0]] == pytest.approx(top / 2)
    assert base["model.lm_head.weight"] == pytest.approx(1e-3)
    ours = [rate for name, rate in base.items() if "multi_modal_projector" in name]
    assert {round(rate / 1e-3, 6) for rate in ours} <= {5.0, round(5 * top / 1e-3, 6)}
    vision = [rate for name, rate in base.items() if "vision_tower" in name]
    assert max(vision) <= 1e-4 * max(1, top / 1e-3) + 1e-12
    assert len(rates) == len(base)


def test_a_part_at_rate_zero_stays(tmp_path, student, data):
    config = post_train_config(tmp_path / "out", max_steps=2, vision_lr=0.0, weight_decay=0.0)
    start, end = weights(student), weights(post_train(config, student, data))
    assert all(torch.equal(start[n], end[n]) for n in start if "vision_tower" in n)
    assert not torch.equal(start["lm_head.weight"], end["lm_head.weight"])


# ---------------------------------------------------------------------------------------------------------- LoRA


def test_lora_learns_the_decoder_in_low_rank_and_is_merged(tmp_path, student, data):
    config = post_train_config(tmp_path / "out", max_steps=3, lora_rank=2, keep_checkpoints=3)
    output = post_train(config, student, data)
    start, end = weights(student), weights(output)
    assert start.keys() == end.keys()
    changed = {name for name in end if not torch.equal(end[name], start[name])}
    linear = {n for n in end if "language_model" in n and ("_proj." in n) and n.endswith("weight")}
    projector = {n for n in end if "multi_modal_projector" in n}
    assert changed == linear | projector
    for name in linear:
        moved = (end[name] - start[name]).double()
        values = torch.linalg.svdvals(moved)
        assert values[1] > 0 and values[2] < 1e-5 * values[0], f"{name}: more than rank 2"
    assert_same_weights(output / "checkpoints" / "step-000003", output)
    assert AutoModelForImageTextToText.from_pretrained(output).config.compress_ratio == 2


def test_lora_begins_and_merges_as_the_model_itself(student):
    model = load_for_training(student)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tuner = add_lora(model, 4, 8.0)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    merge_lora(tuner)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.testing.assert_close(model(input_ids=ids).logits, logits)


def test_lora_without_peft_says_what_to_install(student, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"fcot-vl\[lora\]"):
        add_lora(load_for_training(student), 4, 8.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 4, "muon_lr": 0.1}, "lora_rank cannot be combined with muon_lr"),
        ({"lora_rank": 4, "vision_lr": 0.1}, "vision_lr needs a trained ViT"),
        ({"layer_lr_decay": 0.0}, "layer_lr_decay must be above 0"),
        ({"keep_checkpoints": -1}, "cannot be below 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        post_train_config(tmp_path, **settings)
