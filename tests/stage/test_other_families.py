"""The whole path on teachers that are no InternVL: what changes, what must not, and that it can be judged and asked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_case import BUILDERS
from training_case import post_train_config, realign_config, weights, write_pages
from transformers import AutoModelForImageTextToText, AutoProcessor

from fcot_vl.data.collator import PostTrainCollator, RealignCollator, TokenizedSample
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.data.tokenization import tokenize_prompt, tokenize_question
from fcot_vl.evaluate.tasks.minidoc import MINIDOC
from fcot_vl.models import SharedBackbone
from fcot_vl.models.auto import family_of, load_processor
from fcot_vl.prune.method import Method
from fcot_vl.stages.ask import ask
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.export import export
from fcot_vl.stages.post_train import load_for_training, post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train.answer_model import AnswerModel
from fcot_vl.train.dataset import TrainingDataset


@pytest.fixture(scope="module", params=list(BUILDERS))
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("pages") / "data", pages=6)


@pytest.fixture(scope="module")
def aligned(teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = realign_config(tmp_path_factory.mktemp("aligned"), ratios=[2, 4], max_steps=2)
    return realign(config, teacher, data)


def test_only_the_adaptor_learns(teacher: Path, aligned: Path) -> None:
    family = family_of(teacher)
    for ratio in (2, 4):
        start = family.student.from_teacher(teacher, ratio).state_dict()
        end = weights(aligned / f"ratio-{ratio}")
        assert end.keys() == start.keys()
        changed = {name for name in end if not torch.equal(end[name], start[name])}
        adaptors = tuple(f"model.{path}." for path in family.student.adaptors)
        assert changed == {name for name in end if name.startswith(adaptors)}
        model = AutoModelForImageTextToText.from_pretrained(aligned / f"ratio-{ratio}")
        assert isinstance(model, family.student) and model.config.compress_ratio == ratio
        assert AutoProcessor.from_pretrained(aligned / f"ratio-{ratio}").compress_ratio == ratio


def test_cached_features_train_the_same(teacher: Path, data: Path, aligned: Path, tmp_path: Path) -> None:
    config = realign_config(tmp_path, ratios=[2, 4], max_steps=2, cache_features=True)
    losses = [
        [json.loads(line)["ratio-2/kl"] for line in (folder / "losses.jsonl").read_text().splitlines()]
        for folder in (aligned, realign(config, teacher, data))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # features are kept in bfloat16


def test_the_shared_backbone_gives_what_single_models_give(teacher: Path, data: Path) -> None:
    processor = load_processor(teacher)
    pages = TrainingDataset(SampleFolder(data), processor, 4096, ratios=[2])
    batch = RealignCollator(processor, [2])([pages[0], pages[3]])
    family = family_of(teacher)
    backbone = SharedBackbone.from_teacher(teacher, [2], dtype=torch.float32)
    student = family.student.from_teacher(teacher, 2, dtype=torch.float32).eval()
    pictures = {key: value for key, value in batch.items() if key not in ("teacher", "students")}
    with torch.no_grad():
        output = backbone(**batch)
        sequence = batch["students"][2]
        alone = student.model(
            input_ids=sequence["input_ids"],
            attention_mask=sequence["attention_mask"],
            **pictures,
            **processor.prompt_inputs(sequence["input_ids"]),
        ).last_hidden_state
    at = sequence["labels"][:, 1:] != -100
    torch.testing.assert_close(output.student_hidden[2], alone[:, :-1][at], rtol=1e-4, atol=1e-5)


def test_text_alone_reaches_every_weight_and_changes_no_loss(teacher: Path, data: Path) -> None:
    """The blank image of a batch of text: the loss is that of the text, and the ViT and adaptor have gradients of 0."""
    processor = load_processor(teacher)
    prompt = tokenize_prompt(SampleFolder(data)[0].messages, [], processor)
    batch = PostTrainCollator(processor, packed=True)([TokenizedSample(prompt), TokenizedSample(prompt)])
    model = AnswerModel(load_for_training(teacher), freeze_vision=False)
    text = {name: batch[name] for name in ("input_ids", "labels", "sequence_lengths")}
    found = model(**batch).loss
    assert float(found.detach()) == float(model(**text).loss.detach())
    found.backward()
    for part in (model.model.vision, model.model.visual_adaptor):
        gradients = [parameter.grad for parameter in part.parameters()]
        assert any(gradient is not None for gradient in gradients)
        assert not any(gradient.any() for gradient in gradients if gradient is not None)


def test_packed_pages_are_read_as_each_alone(teacher: Path, data: Path) -> None:
    processor = load_processor(teacher)
    pages = TrainingDataset(SampleFolder(data), processor, 4096, ratios=[2])
    backbone = SharedBackbone.from_teacher(teacher, [2], dtype=torch.float32)
    with torch.no_grad():
        alone = [backbone(**RealignCollator(processor, [2])([pages[i]])) for i in range(4)]
        packed = backbone(
            **RealignCollator(processor, [2], packed=True)([[pages[0], pages[1]], [pages[2], pages[3]]])
        )
    labels = torch.cat([output.labels for output in alone])
    assert torch.equal(packed.labels, labels)
    for kind, found in (
        ("teacher_hidden", packed.teacher_hidden),
        ("student_hidden", packed.student_hidden[2]),
    ):
        parts = [getattr(output, kind) for output in alone]
        want = torch.cat([part if kind == "teacher_hidden" else part[2] for part in parts])
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_post_trained_judged_asked_exported(
    teacher: Path, data: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MINIDOC, "transcribe", replace(MINIDOC["transcribe"], max_new_tokens=5))
    student = post_train(post_train_config(tmp_path / "post", max_steps=2), aligned / "ratio-2", data)
    samples = list(SampleFolder(data))
    result = evaluate(student, samples, tmp_path / "student", stage="post-train", batch_size=3)
    whole = evaluate(teacher, samples, tmp_path / "teacher", batch_size=3)
    assert result["n"] == whole["n"] == 6 and result["compress_ratio"] == 2
    assert result["visual_tokens_nominal"] < 0.7 * whole["visual_tokens_nominal"]
    if "llava" in teacher.name:
        fewer = evaluate(teacher, samples, tmp_path / "fastv", method=Method("fastv", 0.5, 2), batch_size=3)
        assert fewer["visual_tokens_nominal"] == pytest.approx(whole["visual_tokens_nominal"] / 2, abs=0.5)
    samples[1].images[0].save(tmp_path / "page.png")
    answer = ask(tmp_path / "page.png", "What?", student, max_new_tokens=3)
    assert (answer.kind, answer.compress_ratio, answer.new_tokens) == ("student", 2, 3) or answer.text == ""
    folder = export(student, tmp_path / "exported", remote_code=True)
    card = (folder / "README.md").read_text()
    assert "1/2 of the visual tokens" in card and (folder / "base_fcot_vl.py").is_file()
    modules = {path.stem: path.read_text() for path in folder.glob("*.py")}
    assert {
        name for text in modules.values() for name in re.findall(r"from \.(\w+) import", text)
    } < modules.keys()


def test_prompts_end_answers_and_start_as_at_inference(teacher: Path, data: Path) -> None:
    processor, sample = load_processor(teacher), SampleFolder(data)[0]
    prompt = tokenize_prompt(sample.messages, sample.images, processor)
    ids, labels = prompt.expand()
    answer = labels[labels != -100]
    closing = processor.tokenizer.decode(answer[-1:])
    written = "<|im_end|>" in processor.chat_template  # LLaVA's template closes no answer by itself
    assert closing == ("<|im_end|>" if written else processor.tokenizer.eos_token)
    assert processor.tokenizer.decode(answer[:-1]).strip() == sample.messages[1]["content"].strip()
    question, _ = tokenize_question(sample.messages[0]["content"], sample.images, processor).expand()
    assert torch.equal(ids[: len(question)], question)
