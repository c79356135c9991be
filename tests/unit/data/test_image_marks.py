"""Several images in one conversation: each at its mark, sharing the tiles of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from source_files import picture as picture_file
from source_files import record, write_lines
from teacher_case import picture

from fcot_vl.data.chat_format import with_image_parts
from fcot_vl.data.dataset import Sample
from fcot_vl.data.sources.conversations import ConversationFile
from fcot_vl.data.tokenization import question_inputs, tokenize_open, tokenize_prompt
from fcot_vl.instruct.backends.endpoint import _with_data_urls
from fcot_vl.models.auto import load_processor
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages.ask import ask
from fcot_vl.stages.label import LabelConfig, label

NUMBERED = "Image-1: <image>\nImage-2: <image>\nWhich is larger?"


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(tiny_teacher_path())


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def rendered(prompt: Any, processor: Any) -> str:
    """Return the prompt with one placeholder per image."""
    text: str = processor.tokenizer.decode(prompt.token_ids)
    return text


def test_marks_keep_their_place(processor: Any) -> None:
    images = [picture(100, 100), picture(100, 100)]
    prompt = tokenize_prompt(chat(NUMBERED, "2"), images, processor)
    image = processor.image_token
    assert f"user\nImage-1: {image}\nImage-2: {image}\nWhich is larger?<|im_end|>" in rendered(
        prompt, processor
    )
    asked = tokenize_open(chat(NUMBERED), images, processor)
    assert rendered(asked, processor) in rendered(prompt, processor)
    assert question_inputs(NUMBERED, images, processor)["input_ids"].shape[1] == asked.length()


def test_a_mark_in_a_later_turn_is_there(processor: Any) -> None:
    messages = chat("First: <image>", "a", "Then <image>?", "b")
    text = rendered(tokenize_prompt(messages, [picture(90, 90)] * 2, processor), processor)
    image = processor.image_token
    assert f"First: {image}<|im_end|>" in text
    assert f"Then {image}?<|im_end|>" in text


def test_marks_at_the_start_are_images_without_marks(processor: Any) -> None:
    images = [picture(100, 100)] * 2
    marked = tokenize_prompt(chat("<image>\n<image>\nCompare.", "a"), images, processor)
    assert (
        marked.token_ids.tolist()
        == tokenize_prompt(chat("Compare.", "a"), images, processor).token_ids.tolist()
    )


@pytest.mark.parametrize("text", ["<image> and <image>", "<image>"])
def test_too_many_or_too_few_marks_are_refused(processor: Any, text: str) -> None:
    for n in {0, 1, 2, 3} - {text.count("<image>")}:
        with pytest.raises(ValueError, match=f"<image> for {n} images"):
            tokenize_open(chat(text), [picture(90, 90)] * n, processor)


def test_an_endpoint_gets_images_at_their_marks() -> None:
    sent = _with_data_urls(chat(NUMBERED, "2", "And <image>?"), [picture(9, 9)] * 3)
    kinds = [part["type"] for part in sent[0]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert sent[1]["content"] == "2"
    assert [part["type"] for part in sent[2]["content"]] == ["text", "image_url", "text"]
    plain = _with_data_urls(chat("q", "a", "r"), [picture(9, 9)] * 2)
    assert [part["type"] for part in plain[0]["content"]] == ["image_url", "image_url", "text"]
    assert plain[2]["content"] == "r"
    assert with_image_parts(chat("q"), 0) == [{"role": "user", "content": [{"type": "text", "text": "q"}]}]


@pytest.mark.parametrize("n_images", [1, 2, 4, 5, 12, 40])
def test_images_share_the_tiles_of_one(processor: Any, n_images: int) -> None:
    images = [picture(600, 850)] * n_images
    most = max(1, processor.image_processor.max_patches // n_images)
    prompt = tokenize_open(chat("Read."), images, processor)
    inputs = processor.image_inputs(images)
    per_tile = processor.image_seq_length
    for count in prompt.counts[1]:
        assert count // per_tile <= most + (most > 1)  # and an overview
    assert sum(prompt.counts[1]) == len(inputs["pixel_values"]) * per_tile
    alone = tokenize_open(chat("Read."), images[:1], processor).counts[1][0]
    assert (prompt.counts[1][0] < alone) == (n_images > 1)


@pytest.mark.slow
def test_several_pages_are_labelled_turn_by_turn(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture_file(tmp_path / name, 90, 90)
    path = write_lines(
        tmp_path / "a.jsonl",
        [record("r", ["a.png", "b.png"], "One: <image>", "x", "Two: <image>", "y")],
    )
    out = label(LabelConfig(tmp_path / "out", str(path), max_new_tokens=2, keep_truth=True, max_skipped=1))
    text = next(out.glob("label-*.jsonl")).read_text()
    assert text.count('"turn"') == 2, text


def test_the_first_question_shows_the_images_it_marks() -> None:
    images = [picture(9, 9), picture(9, 9)]
    later = Sample("a", images, chat("<image>", "a", "<image>?", "b"), "", "")
    assert later.question_images == images[:1]
    assert Sample("a", images, chat("q", "a", "r", "b"), "", "").question_images == images


@pytest.mark.slow
def test_a_question_to_ask_may_mark_its_image(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.png", 90, 90)
    assert ask(path, "In <image>, what is the total?", max_new_tokens=2).visual_tokens
    with pytest.raises(ValueError, match="2 <image> for 1 images"):
        ask(path, "<image> <image>", max_new_tokens=2)
    with pytest.raises(ValueError, match="the question is not valid Unicode"):
        ask(path, "What \udce9?", max_new_tokens=2)


def test_records_with_images_and_no_marks_are_read(tmp_path: Path, processor: Any) -> None:
    picture_file(tmp_path / "a.png", 90, 90)
    entry = {"images": ["a.png", "a.png"], "conversations": record("", "", "Read.", "text")["conversations"]}
    source = ConversationFile("s", write_lines(tmp_path / "a.jsonl", [entry]), tmp_path)
    prompt = tokenize_prompt(source[0].messages, source[0].images, processor)
    assert len(prompt.sizes) == 2
