"""Students of teachers that are no InternVL, against transformers' own models and processors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from family_case import BUILDERS, LLAVA, QWEN, SIZES, hf_processor, picture_of
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from fcot_vl.data.tokenization import tokenize_open
from fcot_vl.models.auto import family_of, load_processor
from fcot_vl.models.compressors.registry import WINDOWED
from fcot_vl.prune.budget import n_kept, tokens_by_layer
from fcot_vl.prune.fastv import apply_fastv
from fcot_vl.prune.method import METHODS, Method

pytestmark = pytest.mark.slow  # builds a tiny teacher of every family
QUESTION = "Read it."


@pytest.fixture(scope="module", params=list(BUILDERS))
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=list(LLAVA))
def llava_teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LLAVA[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=list(QWEN))
def qwen_teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return QWEN[request.param](tmp_path_factory.mktemp(request.param))


def student_of(teacher: Path, ratio: int, compressor: str = "conv") -> Any:
    return family_of(teacher).student.from_teacher(teacher, ratio, compressor, dtype=torch.float32).eval()


def inputs_for(processor: Any, *pictures: Image.Image) -> dict[str, torch.Tensor]:
    content = [
        *({"type": "image", "image": picture} for picture in pictures),
        {"type": "text", "text": QUESTION},
    ]
    return dict(
        processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    )


def pictures() -> Iterator[Image.Image]:
    yield from (picture_of(*size) for size in SIZES)


def test_ratio_1_is_the_teacher_bit_for_bit(teacher: Path) -> None:
    reference = AutoModelForImageTextToText.from_pretrained(teacher, dtype=torch.float32).eval()
    ours, processor, theirs = student_of(teacher, 1), load_processor(teacher), hf_processor(teacher)
    for picture in pictures():
        inputs = inputs_for(theirs, picture)
        assert torch.equal(inputs_for(processor, picture)["input_ids"], inputs["input_ids"])
        with torch.no_grad():
            assert torch.equal(ours(**inputs).logits, reference(**inputs).logits)
            again = inputs_for(processor, picture)
            assert torch.equal(ours(**again).logits, reference(**inputs).logits)


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_counted_tokens_are_the_features_made(teacher: Path, ratio: int) -> None:
    student = student_of(teacher, ratio)
    processor, own = load_processor(teacher), load_processor(teacher, config=student.config)
    for picture in pictures():
        height, width = picture.height, picture.width
        read = own.image_inputs([picture])
        (made,) = student.model.get_image_features(**read).pooler_output
        assert (
            len(made)
            == own.count_image_tokens(height, width)
            == processor.count_image_tokens(height, width, ratio)
        )
        inputs = inputs_for(own, picture)
        assert int((inputs["input_ids"] == own.image_token_id).sum()) == len(made)
        with torch.no_grad():
            student(**inputs)


def test_fewer_tokens_at_higher_ratios(teacher: Path) -> None:
    processor = load_processor(teacher)
    for height, width in SIZES:
        counts = [processor.count_image_tokens(height, width, ratio) for ratio in (1, 2, 4)]
        assert counts[0] > counts[1] > counts[2]
        assert counts[1] < 0.75 * counts[0]


def test_an_untrained_conv_is_mean_pooling(teacher: Path) -> None:
    conv, pooling = student_of(teacher, 2), student_of(teacher, 2, "pooling")
    processor = load_processor(teacher, config=conv.config)
    inputs = inputs_for(processor, picture_of(*SIZES[1]))
    with torch.no_grad():
        torch.testing.assert_close(conv(**inputs).logits, pooling(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_a_column_stands_for_its_neighbors(llava_teacher: Path) -> None:
    """Pooling at ratio 2: every visual token is the mean of its two tokens' features, projected."""
    teacher_model, student = student_of(llava_teacher, 1), student_of(llava_teacher, 2, "pooling")
    side = student.config.side
    tiles = torch.randn(
        1, 3, student.config.vision_config.image_size, student.config.vision_config.image_size
    )
    with torch.no_grad():
        features = teacher_model.model.get_visual_features(tiles)
        rows = features.unflatten(1, (side, side))
        if side % 2:
            rows = torch.cat([rows, rows[:, :, -1:]], dim=2)
        wanted = teacher_model.model.multi_modal_projector(rows.unflatten(2, (-1, 2)).mean(3).flatten(1, 2))
        torch.testing.assert_close(student.model.multi_modal_projector(features), wanted)


def test_saved_and_loaded_it_is_the_same(teacher: Path, tmp_path: Path) -> None:
    student = student_of(teacher, 4)
    with torch.no_grad():
        for name, parameter in student.visual_adaptor.named_parameters():
            if "compressor" in name:
                parameter.add_(0.01)
    student.save_pretrained(tmp_path)
    load_processor(teacher, config=student.config).save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(student)
    inputs = inputs_for(processor, picture_of(*SIZES[0]))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, student(**inputs).logits)
    batch = {key: torch.cat([value, value]) for key, value in inputs.items()}
    tokens = [loaded.generate(**given, max_new_tokens=4, do_sample=False) for given in (inputs, batch)]
    assert torch.equal(tokens[1], tokens[0].expand(2, -1))


def test_a_batch_of_different_pages_is_answered_as_each_alone(teacher: Path) -> None:
    student = student_of(teacher, 2)
    processor = load_processor(teacher, config=student.config)
    chats = []
    for size, text in ((SIZES[0], "a"), (SIZES[2], "longer")):
        content = [{"type": "image", "image": picture_of(*size)}, {"type": "text", "text": text}]
        chats.append([{"role": "user", "content": content}])
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    answers = []
    for prompts in (chats, chats[:1], chats[1:]):
        inputs = processor.apply_chat_template(prompts, processor_kwargs={"padding": True}, **settings)
        made = student.generate(**inputs, max_new_tokens=4, do_sample=False)
        answers.append(made[:, inputs["input_ids"].shape[1] :])
    assert torch.equal(answers[0], torch.cat(answers[1:]))


def test_what_does_not_fit_is_refused(teacher: Path) -> None:
    family = family_of(teacher)
    other = {"compact": "kept", "kept": "compact"}[family.student.config_class.positions[0]]
    with pytest.raises(ValueError, match="visual_positions must be one of"):
        family.student.from_teacher(teacher, 2, visual_positions=other)
    with pytest.raises(ValueError, match="compress_ratio must be one of"):
        family.student.from_teacher(teacher, 3)
    student = student_of(teacher, 2)
    with pytest.raises(ValueError, match="itself a student"):
        family.student.config_class.from_teacher(student.config, 2)
    with pytest.raises(ValueError, match="do not match"):
        student(**inputs_for(load_processor(teacher), picture_of(*SIZES[0])))


def test_pictures_without_tiles_keep_their_positions(qwen_teacher: Path) -> None:
    """Text after a picture stands where the teacher has it, a visual token where its first one stands."""
    teacher_model, student = student_of(qwen_teacher, 1), student_of(qwen_teacher, 2, "pooling")
    processor = load_processor(qwen_teacher)
    for picture in pictures():
        found = []
        for model, ratio in ((teacher_model, 1), (student, 2)):
            inputs = inputs_for(load_processor(qwen_teacher, config=model.config), picture)
            visual = inputs["input_ids"][0] == processor.image_token_id
            positions, _ = model.model.get_rope_index(
                inputs["input_ids"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
                image_grid_thw=inputs["image_grid_thw"],
            )
            found.append((positions[:, 0, ~visual], positions[:, 0, visual]))
            wide = int(inputs["image_grid_thw"][0, 2]) // 2
            rows = -(-wide // ratio)
        (text, seen), (student_text, student_seen) = found
        assert torch.equal(text, student_text)
        assert torch.equal(seen.unflatten(1, (-1, wide))[:, :, ::2], student_seen.unflatten(1, (-1, rows)))


def test_a_run_of_a_row_becomes_one_token(qwen_teacher: Path) -> None:
    """Pooling at ratio 2 of the joined tokens, row by row, projected by the teacher's own MLP."""
    teacher_model, student = student_of(qwen_teacher, 1), student_of(qwen_teacher, 2, "pooling")
    processor = load_processor(qwen_teacher)
    inputs = processor.image_inputs([picture_of(*SIZES[0]), picture_of(*SIZES[1])])
    with torch.no_grad():
        features = student.model.get_visual_features(**inputs)
        assert torch.equal(features, teacher_model.model.get_visual_features(**inputs))
        made = student.model.get_image_features(**inputs).pooler_output
        at = 0
        width = student.config.visual_channels
        for (_, high, wide), got in zip((inputs["image_grid_thw"] // 2).tolist(), made, strict=True):
            part = teacher_model.model.visual.merger.normalize(features[at : at + high * wide, :width])
            rows = part.view(high, wide, width)
            at += high * wide
            means = [rows[:, i : i + 2].expand(-1, 2, -1).mean(1) for i in range(wide - wide % 2, wide)]
            pairs = rows[:, : wide - wide % 2].unflatten(1, (-1, 2)).mean(2)
            pooled = torch.cat([pairs, *(mean[:, None] for mean in means)], dim=1).flatten(0, 1)
            wanted = teacher_model.model.visual.merger.project(pooled)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_qformer_needs_tiles(qwen_teacher: Path) -> None:
    with pytest.raises(ValueError, match="tiles of one size"):
        family_of(qwen_teacher).student.from_teacher(qwen_teacher, 2, "qformer")


@pytest.mark.parametrize("compressor", WINDOWED)
def test_windows_of_a_grid_are_internvls(teacher: Path, compressor: str) -> None:
    family = family_of(teacher).student
    with pytest.raises(
        ValueError, match=f"'{compressor}' does not fit .* only rows .* choose one of conv, pool"
    ):
        family.from_teacher(teacher, 4, compressor)


@pytest.mark.parametrize("layer", [1, 2])
def test_fastv_keeps_what_a_naive_run_keeps(llava_teacher: Path, layer: int) -> None:
    """Against the whole prompt run by hand: full attention maps, layers on what is left, no cache."""
    model = AutoModelForImageTextToText.from_pretrained(
        llava_teacher, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    inputs = inputs_for(load_processor(llava_teacher), picture_of(*SIZES[1]))
    decoder, visual = model.model.language_model, inputs["input_ids"][0] == model.config.image_token_id
    with torch.no_grad():
        whole = model(**inputs, output_attentions=True, output_hidden_states=True)
        scores = whole.attentions[layer - 1][0, :, -1].mean(0)
        order = scores.masked_fill(~visual, -1.0).argsort(descending=True, stable=True)
        stays = ~visual
        stays[order[: n_kept(0.5, int(visual.sum()))]] = True
        hidden, positions = whole.hidden_states[layer][:, stays], torch.arange(len(visual))[None, stays]
        rotary = decoder.rotary_emb(hidden, positions)
        mask = torch.full((hidden.shape[1],) * 2, -torch.inf).triu(1)[None, None]
        for block in decoder.layers[layer:]:
            hidden = block(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        wanted = model.lm_head(decoder.norm(hidden))[0, -1]
        with apply_fastv(model, 0.5, layer) as handle:
            out = model.generate(
                **inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
    assert handle.total == [int(visual.sum())] and handle.kept == [n_kept(0.5, handle.total[0])]
    torch.testing.assert_close(out.logits[0][0], wanted, rtol=1e-4, atol=1e-5)
    lengths = [out.past_key_values.get_seq_length(i) for i in range(len(decoder.layers))]
    text = len(visual) - handle.total[0]
    assert lengths == [len(visual) + 2] * layer + [text + handle.kept[0] + 2] * (len(lengths) - layer)


@pytest.mark.parametrize(
    "method", [Method("divprune", 0.5), Method("pyramiddrop", 0.5), Method("sparsevlm", 0.5)]
)
def test_peers_that_ask_no_vit_work_in_llava(llava_teacher: Path, method: Method) -> None:
    model = AutoModelForImageTextToText.from_pretrained(llava_teacher, dtype=torch.float32).eval()
    inputs = inputs_for(load_processor(llava_teacher), picture_of(*SIZES[1]))
    n_layers, n_text = len(model.model.language_model.layers), inputs["input_ids"].shape[1]
    with torch.no_grad(), method.apply(model) as handle:
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    by_layer = tokens_by_layer(method.drops(n_layers), n_layers, handle.total[0])
    lengths = [out.past_key_values.get_seq_length(i) for i in range(n_layers)]
    assert lengths == [n_text - handle.total[0] + n + 1 for n in by_layer]
    with pytest.raises(ValueError, match="no InternVL ViT"):
        Method("visionzip", 0.5).apply(model)


def test_peers_refuse_positions_of_two_dimensions(qwen_teacher: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(qwen_teacher, dtype=torch.float32)
    with pytest.raises(ValueError, match="positions of one dimension"):
        apply_fastv(model, 0.5, 2)
    for name in METHODS[1:]:
        method = Method(name, 0.5, 2 if name == "fastv" else None)
        with pytest.raises(ValueError, match=r"no training-free baseline works here.*leave out the method"):
            method.apply(model)


def test_a_smaller_page_is_internvls(llava_teacher: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(llava_teacher, dtype=torch.float32)
    with pytest.raises(ValueError, match="needs InternVL's tiles"):
        Method("smaller_page", 0.5).apply(model)


def test_images_are_at_their_marks(teacher: Path) -> None:
    processor = load_processor(teacher)
    question = "One: <image>\nTwo: <image>\nCompare."
    asked = tokenize_open([{"role": "user", "content": question}], [picture_of(*SIZES[0])] * 2, processor)
    before, between, after = processor.tokenizer.decode(asked.token_ids).split(processor.image_token)
    assert "One: " in before and "Two: " in between and "Compare." in after
