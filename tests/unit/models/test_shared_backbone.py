"""The shared backbone equals separate models, trains only the adaptors, and runs the ViT once."""

from pathlib import Path

import pytest
import torch
from teacher_case import picture

from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor, SharedBackbone, answer_hidden

PAGES = [picture(300, 200, 1), picture(100, 100, 2)]
PROMPTS = ["<IMG_CONTEXT>\nTotal?", "What does <IMG_CONTEXT> say, and where?"]
ANSWERS = ["42.50", "no"]


def encode(folder: Path, tokens_per_tile: int) -> dict[str, torch.Tensor]:
    """Right-padded batch with labels on the answers, as a collator gives it."""
    processor = FCoTVLProcessor.from_pretrained(folder, image_seq_length=tokens_per_tile)
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    out = processor(images=PAGES, text=texts, padding=True, padding_side="right", return_tensors="pt")
    labels = torch.full_like(out["input_ids"], -100)
    for row, answer in enumerate(ANSWERS):
        end = int(out["attention_mask"][row].sum())
        labels[row, end - len(answer) : end] = out["input_ids"][row, end - len(answer) : end]
    return {**out, "labels": labels}


def text_inputs(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in inputs.items() if key != "pixel_values"}


@pytest.fixture(params=["kept", "compact"])
def backbone(teacher_folder: Path, request: pytest.FixtureRequest) -> SharedBackbone:
    return SharedBackbone.from_teacher(
        teacher_folder, [2, 4], visual_positions=request.param, dtype=torch.float32
    )


def test_answer_hidden_takes_the_state_before_each_answer_token() -> None:
    hidden = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    labels = torch.tensor([[-100, -100, 7, 8, -100], [-100, -100, -100, -100, 9]])
    states, targets = answer_hidden(hidden, labels)
    assert torch.equal(states, torch.stack([hidden[0, 1], hidden[0, 2], hidden[1, 3]]))
    assert targets.tolist() == [7, 8, 9]


def test_hidden_states_equal_those_of_separate_models(teacher_folder: Path, backbone: SharedBackbone) -> None:
    with torch.no_grad():
        for parameter in backbone.adaptors["4"].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    inputs = {ratio: encode(teacher_folder, 16 // ratio) for ratio in (1, 2, 4)}
    out = backbone(
        text_inputs(inputs[1]),
        {ratio: text_inputs(inputs[ratio]) for ratio in (2, 4)},
        pixel_values=inputs[1]["pixel_values"],
    )
    assert out.labels.numel() == sum(len(answer) for answer in ANSWERS)
    positions = backbone.student(2).config.visual_positions
    for ratio, hidden in {1: out.teacher_hidden, **out.student_hidden}.items():
        alone = FCoTVLForConditionalGeneration.from_teacher(
            teacher_folder, ratio, visual_positions=positions, dtype=torch.float32
        )
        if ratio == 4:
            alone.model.multi_modal_projector.load_state_dict(backbone.adaptors["4"].state_dict())
        logits, _ = answer_hidden(
            alone(**{**inputs[ratio], "labels": None}, use_cache=False).logits, inputs[ratio]["labels"]
        )
        torch.testing.assert_close(hidden @ backbone.lm_head_weight.T, logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(out.student_hidden[2], out.teacher_hidden, atol=1e-2)


def test_only_the_adaptors_train(teacher_folder: Path, backbone: SharedBackbone) -> None:
    trainable = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in backbone.named_parameters() if name.startswith("adaptors.")}
    assert {name.split(".")[1] for name in trainable} == {"2", "4"}
    backbone.train()
    assert backbone.adaptors.training
    assert not any(module.training for module in backbone.teacher.modules())
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    inputs = {ratio: encode(teacher_folder, 16 // ratio) for ratio in (1, 2)}
    out = backbone(
        text_inputs(inputs[1]), {2: text_inputs(inputs[2])}, pixel_values=inputs[1]["pixel_values"]
    )
    assert not out.teacher_hidden.requires_grad
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    (out.student_hidden[2] - out.teacher_hidden).square().mean().backward()
    optimizer.step()
    changed = {
        name for name, parameter in backbone.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert changed == {name for name in trainable if name.startswith("adaptors.2.")}


def test_the_vit_runs_once_and_not_at_all_from_a_cache(
    teacher_folder: Path, backbone: SharedBackbone
) -> None:
    calls = []
    backbone.teacher.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    inputs = {ratio: encode(teacher_folder, 16 // ratio) for ratio in (1, 2, 4)}
    texts = {ratio: text_inputs(inputs[ratio]) for ratio in (2, 4)}
    live = backbone(text_inputs(inputs[1]), texts, pixel_values=inputs[1]["pixel_values"])
    assert len(calls) == 1
    features = backbone.visual_features(inputs[1]["pixel_values"])
    assert not features.requires_grad
    calls.clear()
    cached = backbone(text_inputs(inputs[1]), texts, visual_features=features)
    assert not calls
    assert torch.equal(live.teacher_hidden, cached.teacher_hidden)
    assert all(torch.equal(live.student_hidden[r], cached.student_hidden[r]) for r in (2, 4))


def test_a_student_of_the_backbone_is_a_model_of_its_own(
    teacher_folder: Path, backbone: SharedBackbone, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in backbone.adaptors.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    student = backbone.student(4)
    assert not any(tensor.is_meta for tensor in [*student.parameters(), *student.buffers()])
    student.save_pretrained(tmp_path)
    loaded = FCoTVLForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.compress_ratio == 4
    assert loaded.config.visual_positions == student.config.visual_positions
    inputs = text_inputs(encode(teacher_folder, 4)), encode(teacher_folder, 4)["pixel_values"]
    assert torch.equal(
        student(**inputs[0], pixel_values=inputs[1]).logits,
        loaded(**inputs[0], pixel_values=inputs[1]).logits,
    )
    prompt = FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=4)(
        images=PAGES, text=PROMPTS, padding=True, return_tensors="pt"
    )
    new = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(student.generate(**prompt, **new), loaded.generate(**prompt, **new))


def test_it_works_with_tied_embeddings_and_a_llama_decoder(llama_teacher_folder: Path) -> None:
    backbone = SharedBackbone.from_teacher(llama_teacher_folder, [2], "qformer", dtype=torch.float32)
    inputs = {ratio: encode(llama_teacher_folder, 16 // ratio) for ratio in (1, 2)}
    out = backbone(
        text_inputs(inputs[1]), {2: text_inputs(inputs[2])}, pixel_values=inputs[1]["pixel_values"]
    )
    out.student_hidden[2].square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.adaptors.parameters())
    assert backbone.lm_head_weight is backbone.teacher.get_input_embeddings().weight


def test_mistakes_are_named(teacher_folder: Path, backbone: SharedBackbone) -> None:
    inputs = {ratio: encode(teacher_folder, 16 // ratio) for ratio in (1, 2)}
    with pytest.raises(ValueError, match="Pass either pixel_values or visual_features"):
        backbone(text_inputs(inputs[1]), {})
    student = text_inputs(inputs[2])
    student["labels"] = student["labels"].clone()
    student["labels"][0, :-1][student["labels"][0, 1:] != -100] = -100
    with pytest.raises(
        ValueError, match=r"answers of the teacher \(7 tokens\) and of the student at ratio 2 \(\d"
    ):
        backbone(text_inputs(inputs[1]), {2: student}, pixel_values=inputs[1]["pixel_values"])
    with pytest.raises(ValueError, match="no student of ratio 8; this backbone has 2, 4"):
        backbone.student(8)
