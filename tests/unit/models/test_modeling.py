"""The student as a transformers model: teacher equality, strict loading, saving, Auto classes, clear errors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from teacher_case import build_teacher, picture, teacher_config
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    InternVLForConditionalGeneration,
    pipeline,
)

from fcot_vl.models import (
    COMPRESSORS,
    FCoTVLConfig,
    FCoTVLForConditionalGeneration,
    FCoTVLModel,
    FCoTVLProcessor,
)

Make = Callable[..., FCoTVLForConditionalGeneration]
MESSAGES = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": picture(300, 200)},
            {"type": "text", "text": "What is the total?"},
        ],
    }
]


def prompt(processor: FCoTVLProcessor) -> dict[str, torch.Tensor]:
    return processor.apply_chat_template(
        MESSAGES, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.mark.parametrize("decoder", ["qwen2", "llama"])
def test_ratio_1_is_the_teacher(teacher_folder: Path, llama_teacher_folder: Path, decoder: str) -> None:
    folder = {"qwen2": teacher_folder, "llama": llama_teacher_folder}[decoder]
    teacher = InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    inputs = prompt(FCoTVLProcessor.from_pretrained(folder))
    expected = teacher(**inputs).logits
    assert expected.std() > 0.3  # the random teacher says something
    for visual_positions in ("kept", "compact"):
        student = FCoTVLForConditionalGeneration.from_teacher(
            folder, 1, visual_positions=visual_positions, dtype=torch.float32
        )
        assert torch.equal(student(**inputs).logits, expected)
        assert student.state_dict().keys() == teacher.state_dict().keys()
    new = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(student.generate(**inputs, **new), teacher.generate(**inputs, **new))


def test_the_picture_matters(make_student: Make, processor_for: Callable) -> None:
    student = make_student(4)
    inputs = prompt(processor_for(student))
    other = student(**{**inputs, "pixel_values": inputs["pixel_values"].flip(-1)}).logits
    assert (student(**inputs).logits - other)[0, -1].abs().max() > 1e-2


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("ratio", [2, 16])
def test_only_the_compressor_is_new(teacher_folder: Path, ratio: int, compressor: str) -> None:
    teacher = InternVLForConditionalGeneration.from_pretrained(teacher_folder).state_dict()
    student = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, ratio, compressor).state_dict()
    assert all(torch.equal(student[name], weight) for name, weight in teacher.items())
    new = student.keys() - teacher.keys()
    assert all(name.startswith("model.multi_modal_projector.compressor.") for name in new)
    assert bool(new) == (compressor != "pooling")


@pytest.mark.parametrize("ratio", [2, 8])
def test_an_untrained_conv_student_is_the_pooling_student(
    teacher_folder: Path, processor_for: Callable, ratio: int
) -> None:
    conv, pooling = (
        FCoTVLForConditionalGeneration.from_teacher(teacher_folder, ratio, compressor, dtype=torch.float32)
        for compressor in ("conv", "pooling")
    )
    inputs = prompt(processor_for(conv))
    torch.testing.assert_close(conv(**inputs).logits, pooling(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_a_model_from_a_configuration_starts_like_one_from_a_teacher(teacher_folder: Path) -> None:
    config = FCoTVLConfig.from_teacher(teacher_config(), 4)
    loaded = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 4)
    built = FCoTVLForConditionalGeneration(config).model.multi_modal_projector.compressor
    assert torch.equal(built.weight, loaded.model.multi_modal_projector.compressor.weight)
    assert torch.equal(built.bias, loaded.model.multi_modal_projector.compressor.bias)


@pytest.mark.parametrize("visual_positions", ["kept", "compact"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_saving_and_loading_is_bit_equal(
    make_student: Make, tmp_path: Path, compressor: str, visual_positions: str
) -> None:
    student = make_student(4, compressor, visual_positions)
    student.save_pretrained(tmp_path)
    loaded = FCoTVLForConditionalGeneration.from_pretrained(tmp_path)
    before, after = student.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    settings = ("compress_ratio", "compressor", "visual_positions", "image_seq_length")
    assert all(getattr(student.config, name) == getattr(loaded.config, name) for name in settings)
    # Trainer resumes by loading the file as it is, without renaming
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == before.keys()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "fcot_vl"


def test_saving_and_loading_with_tied_embeddings(llama_teacher_folder: Path, tmp_path: Path) -> None:
    student = FCoTVLForConditionalGeneration.from_teacher(llama_teacher_folder, 2)
    student.save_pretrained(tmp_path)
    loaded = FCoTVLForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    before, after = student.state_dict(), loaded.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_teacher_under_the_new_weight_names_loads_too(tmp_path: Path) -> None:
    folder = build_teacher(tmp_path / "old", teacher_config())
    teacher = InternVLForConditionalGeneration.from_pretrained(folder)
    teacher.save_pretrained(tmp_path / "new", save_original_format=False)
    old_names, new_names = (
        load_file(tmp_path / name / "model.safetensors").keys() for name in ("old", "new")
    )
    assert old_names.isdisjoint(new_names)
    student = FCoTVLForConditionalGeneration.from_teacher(tmp_path / "new", 2).state_dict()
    assert all(torch.equal(student[name], weight) for name, weight in teacher.state_dict().items())


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


NORM = "language_model.model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NORM), r"missing: model\.language_model\.layers\.1\.input_layernorm\.weight\."),
        (
            lambda w: w.pop("vision_tower.embeddings.cls_token"),
            r"missing: model\.vision_tower\.embeddings\.cls_token",
        ),
        (
            lambda w: w.pop("multi_modal_projector.linear_1.bias"),
            r"missing: .*multi_modal_projector\.linear_1\.bias",
        ),
        (lambda w: w.update({"extra.weight": torch.ones(2)}), r"unexpected: extra\.weight"),
        (
            lambda w: w.update({NORM: torch.ones(7)}),
            r"another shape: .*input_layernorm\.weight \(\[7\], expected \[64\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_names_them(
    tmp_path: Path, change: Callable, message: str
) -> None:
    folder = build_teacher(tmp_path, teacher_config())
    damage(folder, change)
    with pytest.raises(ValueError, match=message):
        FCoTVLForConditionalGeneration.from_teacher(folder, 2)


def test_a_student_without_its_compressor_is_an_error(make_student: Make, tmp_path: Path) -> None:
    make_student(2).save_pretrained(tmp_path)
    damage(tmp_path, lambda w: w.pop("model.multi_modal_projector.compressor.weight"))
    for load in (FCoTVLForConditionalGeneration, AutoModelForImageTextToText):
        with pytest.raises(ValueError, match=r"missing: model\.multi_modal_projector\.compressor\.weight"):
            load.from_pretrained(tmp_path)


def test_wrong_teachers_are_refused(make_student: Make, tmp_path: Path) -> None:
    make_student(2).save_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match="itself a student with compress_ratio 2"):
        FCoTVLForConditionalGeneration.from_teacher(tmp_path / "student", 4)
    teacher_config().text_config.save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="must be of model_type 'internvl'"):
        FCoTVLForConditionalGeneration.from_teacher(tmp_path / "text", 2)


def test_a_saved_ratio_1_model_can_be_a_teacher(make_student: Make, tmp_path: Path) -> None:
    one = make_student(1)
    one.save_pretrained(tmp_path)
    student = FCoTVLForConditionalGeneration.from_teacher(tmp_path, 4).state_dict()
    assert all(torch.equal(student[name], weight) for name, weight in one.state_dict().items())


def test_wrong_placeholder_counts_are_an_error_with_both_counts(
    teacher_folder: Path, make_student: Make, processor_for: Callable
) -> None:
    student = make_student(4)  # 4 visual tokens a tile
    inputs = dict(processor_for(student)(images=picture(300, 200), text="<IMG_CONTEXT>", return_tensors="pt"))
    n_tiles = len(inputs["pixel_values"])
    assert n_tiles > 1
    teachers = dict(
        inputs,
        **FCoTVLProcessor.from_pretrained(teacher_folder)(
            images=picture(300, 200), text="<IMG_CONTEXT>", return_tensors="pt"
        ),
    )
    message = (
        f"has {16 * n_tiles} image placeholders, but {n_tiles} tiles of 4 visual tokens need {4 * n_tiles}.*"
        "image_seq_length must be 4"
    )
    with pytest.raises(ValueError, match=message):
        student(**teachers)
    with pytest.raises(ValueError, match=message):
        student.generate(**teachers, max_new_tokens=2)
    with pytest.raises(ValueError, match=f"has {4 * n_tiles} image placeholders, but 1 tiles of 4"):
        student(**dict(inputs, pixel_values=inputs["pixel_values"][:1]))
    with pytest.raises(ValueError, match=f"has 0 image placeholders, but {n_tiles} tiles"):
        student(input_ids=torch.tensor([[50, 51]]), pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match=f"has {4 * n_tiles} image placeholders, but no image"):
        student(input_ids=inputs["input_ids"])


def test_placeholders_in_the_wrong_row_are_an_error(make_student: Make) -> None:
    student = make_student(4)
    rows = torch.tensor([[6, 6, 6, 6, 6, 50], [50, 50, 50, 6, 6, 6]])  # eight in all, but five and three
    with pytest.raises(
        ValueError, match=r"have \[5, 3\] image placeholders; each must be a multiple of the 4"
    ):
        student(input_ids=rows, pixel_values=torch.zeros(2, 3, 112, 112))


def test_visual_features_are_what_the_adaptor_gets(make_student: Make, processor_for: Callable) -> None:
    student = make_student(4)
    inputs = dict(prompt(processor_for(student)))
    features = student.get_visual_features(inputs["pixel_values"])
    assert features.shape == (len(inputs["pixel_values"]), 16, 128)
    adapted = student.get_image_features(inputs["pixel_values"]).pooler_output
    assert torch.equal(student.model.multi_modal_projector(features), adapted)
    logits = student(**inputs).logits
    del inputs["pixel_values"]
    assert torch.equal(student(**inputs, visual_features=features).logits, logits)


def test_visual_tokens_are_in_raster_order(make_student: Make) -> None:
    # without the ViT's mixing of patches, token n must see the n-th 28 x 28 square, row by row
    student = make_student(1)
    for layer in student.model.vision_tower.encoder.layer:
        layer.lambda_1.data.zero_()
        layer.lambda_2.data.zero_()
    page = torch.zeros(1, 3, 112, 112)
    blank = student.get_visual_features(page)
    for row, column in [(0, 0), (0, 1), (2, 3)]:
        marked = page.clone()
        marked[..., 28 * row : 28 * row + 28, 28 * column : 28 * column + 28] = 1.0
        moved = (student.get_visual_features(marked) - blank).abs().amax(dim=(0, 2)) > 1e-4
        assert moved.nonzero().flatten().tolist() == [4 * row + column]


def test_pictures_are_given_once_and_in_shape(make_student: Make, processor_for: Callable) -> None:
    student = make_student(4)
    inputs = dict(prompt(processor_for(student)))
    features = student.get_visual_features(inputs["pixel_values"])
    with pytest.raises(ValueError, match="Pass images once"):
        student(**inputs, visual_features=features)
    with pytest.raises(ValueError, match="Pass images once"):
        student.generate(**inputs, visual_features=features, max_new_tokens=2)
    del inputs["pixel_values"]
    with pytest.raises(ValueError, match=r"must be \[n_tiles, 16, 128\].* got \[\d+, 4, 128\]"):
        student(**inputs, visual_features=features[:, :4])


def test_labels_give_the_loss_of_the_answer(make_student: Make, processor_for: Callable) -> None:
    student = make_student(4)
    inputs = dict(prompt(processor_for(student)))
    labels = inputs["input_ids"].clone()
    labels[:, :-5] = -100
    out = student(**inputs, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[0, -6:-1], labels[0, -5:])
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert student.model.multi_modal_projector.compressor.weight.grad.abs().sum() > 0


def test_a_student_is_refused_in_assisted_generation(
    teacher_folder: Path, make_student: Make, processor_for: Callable
) -> None:
    """transformers hands the assistant the main model's visual tokens, so neither would read its own."""
    teacher = InternVLForConditionalGeneration.from_pretrained(teacher_folder, dtype=torch.float32)
    student = make_student(ratio=4)
    own, whole = processor_for(student), prompt(FCoTVLProcessor.from_pretrained(teacher_folder))
    new = {"max_new_tokens": 4, "do_sample": False}
    with pytest.raises(ValueError, match="cannot be used with assistant_model on images"):
        teacher.generate(**whole, **new, assistant_model=student)
    with pytest.raises(ValueError, match="cannot be used with assistant_model on images"):
        student.generate(**prompt(own), **new, assistant_model=teacher)
    text = {"input_ids": own.tokenizer("What is the total?", return_tensors="pt").input_ids}
    assert torch.equal(
        teacher.generate(**text, **new, assistant_model=student), teacher.generate(**text, **new)
    )


@pytest.fixture(scope="module")
def saved_student(
    make_student: Make, processor_for: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student = make_student(4, "conv", "kept")
    student.save_pretrained(folder)
    processor_for(student).save_pretrained(folder)
    return folder


def test_auto_classes_and_pipeline(saved_student: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(saved_student)
    processor = AutoProcessor.from_pretrained(saved_student)
    assert type(model) is FCoTVLForConditionalGeneration
    assert type(processor) is FCoTVLProcessor
    assert type(AutoModel.from_config(model.config)) is FCoTVLModel
    inputs = prompt(processor)
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    reader = pipeline("image-text-to-text", model=str(saved_student))
    assert type(reader.model) is FCoTVLForConditionalGeneration
    answer = reader(text=MESSAGES, max_new_tokens=6, do_sample=False, return_full_text=False)
    assert answer[0]["generated_text"] == expected


FRESH = """
import sys, fcot_vl
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
folder, picture = sys.argv[1:]
reader = pipeline("image-text-to-text", model=folder)
content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": "What is the total?"}]
answer = reader(text=[{"role": "user", "content": content}], max_new_tokens=6, do_sample=False, return_full_text=False)
print(type(AutoModelForImageTextToText.from_pretrained(folder)).__name__)
print(type(AutoProcessor.from_pretrained(folder)).__name__)
print(repr(answer[0]["generated_text"]))
"""


@pytest.mark.slow
def test_a_fresh_process_needs_only_the_import(saved_student: Path, tmp_path: Path) -> None:
    picture(300, 200).save(tmp_path / "page.png")
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(saved_student), str(tmp_path / "page.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    reader = pipeline("image-text-to-text", model=str(saved_student))
    here = reader(text=MESSAGES, max_new_tokens=6, do_sample=False, return_full_text=False)
    assert ran.stdout.splitlines() == [
        "FCoTVLForConditionalGeneration",
        "FCoTVLProcessor",
        repr(here[0]["generated_text"]),
    ]
