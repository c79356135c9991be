"""Sequences, labels and padding against the processor's own prompt."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from fcot_vl.data.collator import PostTrainCollator, RealignCollator, TokenizedSample
from fcot_vl.data.tokenization import tokenize_prompt
from fcot_vl.models import FCoTVLProcessor

MESSAGES = [
    {"role": "user", "content": "What is the total?"},
    {"role": "assistant", "content": "12.50"},
]
TWO_TURNS = [
    *MESSAGES,
    {"role": "user", "content": "And the date?"},
    {"role": "assistant", "content": "1 May"},
]


@pytest.fixture(scope="module")
def processor(teacher_folder):
    return FCoTVLProcessor.from_pretrained(teacher_folder)


def picture(width: int = 100, height: int = 100, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def page(processor, images, messages=MESSAGES) -> TokenizedSample:
    return TokenizedSample(tokenize_prompt(messages, images, processor, (1, 2, 4)), lambda: list(images))


@pytest.mark.parametrize("images", [[], [picture()], [picture(), picture(330, 120)]])
def test_input_ids_are_those_of_the_processor(processor, images):
    content = [
        *({"type": "image", "image": image} for image in images),
        {"type": "text", "text": "What is it?"},
    ]
    messages = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A page."},
    ]
    chat = [{"role": "user", "content": content}, messages[1]]
    expected = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    ids, _ = tokenize_prompt(messages, images, processor).expand()
    assert ids.tolist() == expected["input_ids"][0].tolist()


def test_labels_hold_the_answers_and_their_end(processor):
    ids, labels = tokenize_prompt(TWO_TURNS, [picture()], processor, (4,)).expand(4)
    learned = labels != -100
    assert torch.equal(labels[learned], ids[learned])
    assert processor.tokenizer.decode(labels[learned]) == "12.50<|im_end|>1 May<|im_end|>"


def test_marks_of_the_template_and_ours_agree(processor):
    """The embedded template marks answers itself; hub templates of InternVL do not."""
    template = processor.chat_template
    prompt = tokenize_prompt(TWO_TURNS, [], processor)
    marked = processor.tokenizer.apply_chat_template(
        TWO_TURNS, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    assert prompt.is_answer.tolist() == [bool(mark) for mark in marked["assistant_masks"]]
    plain = copy.copy(processor)
    plain.chat_template = template.replace("{%- generation -%}", "{%- if true -%}").replace(
        "{%- endgeneration -%}", "{%- endif -%}"
    )
    assert plain.chat_template != template
    unmarked = tokenize_prompt(TWO_TURNS, [], plain)
    assert unmarked.token_ids.tolist() == prompt.token_ids.tolist()
    assert unmarked.is_answer.tolist() == prompt.is_answer.tolist()


def test_a_template_that_rewrites_earlier_turns_is_refused(processor):
    forgetful = copy.copy(processor)
    forgetful.chat_template = "{%- for m in messages -%}{{ m.content if loop.last else '...' }}{%- endfor -%}"
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        tokenize_prompt(TWO_TURNS, [], forgetful)


def test_teacher_and_students_mark_the_same_answers(processor):
    pages = [page(processor, [picture()]), page(processor, [picture(400, 120)], TWO_TURNS)]
    batch = RealignCollator(processor, [2, 4])(pages)
    answers = [s["labels"][s["labels"] != -100] for s in (batch["teacher"], *batch["students"].values())]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])
    n_tiles = batch["pixel_values"].shape[0]
    for tokens_per_tile, sequence in zip(
        (16, 8, 4), (batch["teacher"], *batch["students"].values()), strict=True
    ):
        assert (sequence["input_ids"] == processor.image_token_id).sum() == n_tiles * tokens_per_tile


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_sequence(processor, side):
    pages = [page(processor, [picture()]), page(processor, [picture()], TWO_TURNS)]
    batch = PostTrainCollator(processor, side)(pages)
    for row, one in enumerate(pages):
        real = batch["attention_mask"][row].bool()
        ids, labels = one.prompt.expand()
        assert torch.equal(batch["input_ids"][row][real], ids)
        assert torch.equal(batch["labels"][row][real], labels)
        assert (batch["input_ids"][row][~real] == processor.tokenizer.pad_token_id).all()
        assert (batch["labels"][row][~real] == -100).all()
        assert real[0 if side == "right" else -1]
        assert one.prompt.length() == len(ids)


def test_cached_features_take_the_place_of_pixels(processor):
    one = page(processor, [picture()])
    with_features = TokenizedSample(
        one.prompt, lambda: pytest.fail("pictures were opened"), torch.ones(1, 16, 128)
    )
    batch = PostTrainCollator(processor)([with_features, with_features])
    assert batch["visual_features"].shape == (2, 16, 128) and "pixel_values" not in batch


def test_a_batch_of_text_has_one_blank_tile(processor):
    batch = PostTrainCollator(processor)([page(processor, []), page(processor, [])])
    assert batch["blank_image"] is True and len(batch["pixel_values"]) == 1
    assert processor.image_token_id not in batch["input_ids"]
    assert "blank_image" not in PostTrainCollator(processor)(
        [page(processor, []), page(processor, [picture()])]
    )


def test_mistakes_are_named(processor):
    with pytest.raises(ValueError, match="assistant turn"):
        tokenize_prompt(MESSAGES[:1], [picture()], processor)
    with pytest.raises(ValueError, match="needs a user"):
        tokenize_prompt(MESSAGES[1:], [picture()], processor)
    with pytest.raises(ValueError, match="must not contain <IMG_CONTEXT>"):
        tokenize_prompt([{"role": "user", "content": "<IMG_CONTEXT>"}, MESSAGES[1]], [picture()], processor)
    wrong = TokenizedSample(tokenize_prompt(MESSAGES, [picture(330, 120)], processor), lambda: [picture()])
    with pytest.raises(ValueError, match="same processor"):
        PostTrainCollator(processor)([wrong])
