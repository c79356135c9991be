"""Tokenization of conversations with images.

A conversation becomes a `TokenizedPrompt` with one placeholder per image. Repeating that placeholder turns the prompt
into the sequence of the teacher or of a student. All of them therefore share one tokenization and mark exactly the same
answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fcot_vl.common.errors import one_line
from fcot_vl.common.text import check_text
from fcot_vl.data.chat_format import count_marks, with_image_parts

IGNORED = -100  # label of a position that the loss ignores


@dataclass(frozen=True)
class TokenizedPrompt:
    """Tokenized conversation with a single placeholder per image.

    Attributes:
        token_ids: Token ids, `[n]`, with one placeholder per image.
        is_answer: Mask, `[n]`, True on the tokens of the assistant, including its closing token.
        counts: Number of visual tokens of each image, by compress ratio. Ratio 1 is the model that the processor
            belongs to.
        placeholder: Id of the placeholder token.
        marks: Ids of the tokens before and after the placeholders of an image.
        sizes: Size (height, width) of each image.
    """

    token_ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]
    counts: Mapping[int, tuple[int, ...]]
    placeholder: int
    marks: tuple[list[int], list[int]]
    sizes: tuple[tuple[int, int], ...] = ()

    def length(self, ratio: int = 1) -> int:
        """Return the length of the sequence in tokens at a compress ratio."""
        around = len(self.marks[0]) + len(self.marks[1]) - 1
        return len(self.token_ids) + len(self.counts[ratio]) * around + sum(self.counts[ratio])

    def expand(self, ratio: int = 1) -> tuple[Tensor, Tensor]:
        """Return `input_ids` and `labels`, both `[length]`, with every image as its marks and placeholders."""
        before, after = self.marks
        ids: list[NDArray[np.int32]] = []
        answer: list[NDArray[np.bool_]] = []
        at = 0
        places = np.flatnonzero(self.token_ids == self.placeholder).tolist()
        for place, count in zip(places, self.counts[ratio], strict=True):
            run = np.array([*before, *[self.placeholder] * count, *after], dtype=np.int32)
            ids += [self.token_ids[at:place], run]
            answer += [self.is_answer[at:place], np.zeros(len(run), dtype=np.bool_)]
            at = place + 1
        input_ids = np.concatenate([*ids, self.token_ids[at:]]).astype(np.int64)
        labels = np.where(np.concatenate([*answer, self.is_answer[at:]]), input_ids, IGNORED)
        return torch.from_numpy(input_ids), torch.from_numpy(labels)


def image_token_counts(
    processor: Any, images: Sequence[Image.Image], ratios: Sequence[int] = (1,)
) -> dict[int, tuple[int, ...]]:
    """Compute the number of visual tokens of each image of one prompt from their sizes alone, by compress ratio."""
    sizes = [(image.height, image.width) for image in images]
    return {
        r: tuple(processor.count_image_tokens(*size, r, n_images=len(sizes)) for size in sizes)
        for r in ratios
    }


def tokenize_prompt(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> TokenizedPrompt:
    """Tokenize a conversation with the chat template of the processor.

    The function finds each answer by rendering the conversation up to it with the generation prompt of the template.
    This works for any template, with or without `{% generation %}` marks. If a template does not end an answer with a
    special token (LLaVA), the end-of-sequence token of the tokenizer is added after the last answer.

    Args:
        messages: Messages `{"role", "content"}` in order. An image is at its mark in a question; without any mark, all
            are before the text of the first question.
        images: Images of the conversation. Only their sizes are used.
        processor: Processor of a family, or one with `tokenizer`, `chat_template`, `image_token_id`, `image_marks` and
            `count_image_tokens`.
        ratios: Compress ratios that the prompt will be expanded for.

    Raises:
        ValueError: If the conversation has no user turn or no answer, if its text contains the placeholder token, or if
            the template does not render a longer conversation as a continuation of a shorter one.
    """
    conversation = _with_images(messages, len(images), processor)
    answers = [turn for turn, m in enumerate(conversation) if m["role"] == "assistant"]
    if not answers:
        raise ValueError(
            f"a conversation needs a user and an assistant turn, got {[m['role'] for m in messages]}"
        )

    def render(turns: int, add_generation_prompt: bool = False) -> str:
        return _render(conversation[:turns], processor, add_generation_prompt)

    tokenizer = processor.tokenizer
    whole = render(len(conversation))
    for message in messages:
        if message["role"] == "system" and message["content"].strip() not in whole:
            raise ValueError("the chat template has no place for a system turn")
    closed = whole.rstrip().endswith(tuple(tokenizer.all_special_tokens))
    if not closed and answers[-1] == len(conversation) - 1:
        whole = whole.rstrip() + tokenizer.eos_token
    encoded = _encode(whole, processor)
    token_ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    first_char, after = np.asarray(encoded["offset_mapping"]).T
    is_answer = np.zeros(len(token_ids), dtype=np.bool_)
    for turn in answers:
        before, answered = render(turn, add_generation_prompt=True), render(turn + 1).rstrip()
        if not (answered.startswith(before) and whole.startswith(answered)):
            raise ValueError(
                "the chat template rewrites earlier turns, so answers cannot be marked; use another one"
            )
        end = len(answered) if closed or turn != answers[-1] else len(whole)
        is_answer |= (first_char < end) & (after > len(before))
    return _prompt(token_ids, is_answer, images, processor, ratios)


def tokenize_question(
    text: str, images: Sequence[Image.Image], processor: Any, ratios: Sequence[int] = (1,)
) -> TokenizedPrompt:
    """Tokenize one question about images, up to the start of the answer."""
    return tokenize_open([{"role": "user", "content": text}], images, processor, ratios)


def tokenize_open(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> TokenizedPrompt:
    """Tokenize a conversation that ends in a question, up to the start of the answer."""
    conversation = _with_images(messages, len(images), processor)
    ids = np.asarray(_encode(_render(conversation, processor, True), processor)["input_ids"], dtype=np.int32)
    return _prompt(ids, np.zeros(len(ids), dtype=np.bool_), images, processor, ratios)


def question_inputs(
    text: str, images: Sequence[Image.Image], processor: Any, ratio: int = 1
) -> dict[str, Tensor]:
    """Build the model inputs for one question, with or without images, as a batch of one.

    Args:
        ratio: Compress ratio of the model, relative to the model that the processor belongs to.
    """
    input_ids = tokenize_question(text, images, processor, (1, ratio)).expand(ratio)[0][None]
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    image_inputs = processor.image_inputs(images) if images else {}
    return inputs | image_inputs | processor.prompt_inputs(input_ids)


def _with_images(messages: Sequence[dict[str, str]], n_images: int, processor: Any) -> list[dict[str, Any]]:
    """Return the conversation with its contents as parts, and the images at their marks (see `chat_format`).

    Some templates put the images of a turn before its text. An image at a mark is therefore a piece of the text.
    """
    conversation = with_image_parts(messages, n_images)
    if not count_marks(messages):
        return conversation
    image = _image_text(processor)
    for message in conversation:
        text = "".join(image if part["type"] == "image" else part["text"] for part in message["content"])
        message["content"] = [{"type": "text", "text": text}]
    return conversation


def _image_text(processor: Any) -> str:
    """Return what the chat template writes for an image, without a line break after it."""
    text = {"type": "text", "text": "the text"}
    with_image, without = (
        _render([{"role": "user", "content": content}], processor, False)
        for content in ([{"type": "image"}, text], [text])
    )
    return with_image[without.index(text["text"]) : with_image.index(text["text"])].rstrip("\n")


def _render(conversation: list[dict[str, Any]], processor: Any, add_generation_prompt: bool) -> str:
    try:
        text = processor.tokenizer.apply_chat_template(
            conversation,
            chat_template=getattr(processor, "chat_template", None),
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        return check_text(str(text), "what it renders")
    except Exception as error:  # a template is a program of the checkpoint, and may fail in any way
        raise ValueError(f"the chat template cannot render a conversation ({one_line(error)})") from None


def _encode(text: str, processor: Any) -> Any:
    """Tokenize a text as transformers' processors do: add the BOS token unless the template already did."""
    bos = processor.tokenizer.bos_token
    special = bos is None or not text.startswith(bos)
    return processor.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)


def _prompt(
    token_ids: NDArray[np.int32],
    is_answer: NDArray[np.bool_],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int],
) -> TokenizedPrompt:
    placeholders = int((token_ids == processor.image_token_id).sum())
    if placeholders != len(images):
        raise ValueError(
            f"the tokenized conversation has {placeholders} image placeholders for {len(images)} images: its text "
            f"must not contain {processor.image_token}"
        )
    return TokenizedPrompt(
        token_ids,
        is_answer,
        image_token_counts(processor, images, ratios),
        processor.image_token_id,
        processor.image_marks,
        tuple((image.height, image.width) for image in images),
    )
