"""Token sequences, labels and padded batches.

This module connects the samples (`sample.py`) to the trainers. A conversation becomes a `Prompt` with one placeholder
per image. Repeating that placeholder turns the prompt into the sequence of the teacher or of a student. All of them
therefore share one tokenisation and mark exactly the same answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IGNORED = -100  # label of a position that the loss ignores


@dataclass(frozen=True)
class Prompt:
    """Tokenised conversation with a single placeholder per image.

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


def picture_counts(
    processor: Any, images: Sequence[Image.Image], ratios: Sequence[int] = (1,)
) -> dict[int, tuple[int, ...]]:
    """Compute the number of visual tokens of each image from its size alone, by compress ratio."""
    sizes = [(image.height, image.width) for image in images]
    return {r: tuple(processor.picture_tokens(*size, r) for size in sizes) for r in ratios}


def tokenize_prompt(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> Prompt:
    """Tokenise a conversation with the chat template of the processor.

    The function finds each answer by rendering the conversation up to it with the generation prompt of the template.
    This works for any template, with or without `{% generation %}` marks. If a template does not end an answer with a
    special token (LLaVA), the end-of-sequence token of the tokenizer is added after the last answer.

    Args:
        messages: Messages `{"role", "content"}` in order. The images are put before the text of the first user turn.
        images: Images of the conversation. Only their sizes are used.
        processor: Processor with `tokenizer`, `chat_template`, `image_token_id`, `picture_marks` and `picture_tokens`.
        ratios: Compress ratios that the prompt will be expanded for.

    Raises:
        ValueError: If the conversation has no user turn or no answer, if its text contains the placeholder token, or if
            the template does not render a longer conversation as a continuation of a shorter one.
    """
    conversation = _with_pictures(messages, len(images))
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
) -> Prompt:
    """Tokenise one question about images, up to the start of the answer."""
    return tokenize_open([{"role": "user", "content": text}], images, processor, ratios)


def tokenize_open(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> Prompt:
    """Tokenise a conversation that ends in a question, up to the start of the answer."""
    conversation = _with_pictures(messages, len(images))
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
    pictures = processor.picture_inputs(images) if images else {}
    return inputs | pictures | processor.prompt_inputs(input_ids)


def _with_pictures(messages: Sequence[dict[str, str]], pictures: int) -> list[dict[str, Any]]:
    """Return the conversation with its contents as parts and the images before the text of the first user turn."""
    conversation = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    first_user = next((m for m in conversation if m["role"] == "user"), None)
    if first_user is None:
        raise ValueError(
            f"a conversation needs a user and an assistant turn, got {[m['role'] for m in messages]}"
        )
    first_user["content"] = [*({"type": "image"} for _ in range(pictures)), *first_user["content"]]
    return conversation


def _render(conversation: list[dict[str, Any]], processor: Any, add_generation_prompt: bool) -> str:
    return str(
        processor.tokenizer.apply_chat_template(
            conversation,
            chat_template=getattr(processor, "chat_template", None),
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    )


def _encode(text: str, processor: Any) -> Any:
    """Tokenise a text as transformers' processors do: add the BOS token unless the template already did."""
    bos = processor.tokenizer.bos_token
    special = bos is None or not text.startswith(bos)
    return processor.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)


def _prompt(
    token_ids: NDArray[np.int32],
    is_answer: NDArray[np.bool_],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int],
) -> Prompt:
    placeholders = int((token_ids == processor.image_token_id).sum())
    if placeholders != len(images):
        raise ValueError(
            f"the tokenised conversation has {placeholders} image placeholders for {len(images)} pictures: its text "
            f"must not contain {processor.image_token}"
        )
    return Prompt(
        token_ids,
        is_answer,
        picture_counts(processor, images, ratios),
        processor.image_token_id,
        processor.picture_marks,
        tuple((image.height, image.width) for image in images),
    )


@dataclass
class Page:
    """Input of a collator: a prompt with its images, or with their ViT features instead.

    Attributes:
        load_images: Function that returns the images. It is called only if there are no features.
        visual_features: Features of all images, `[n_tiles, teacher's tokens per tile, visual channels]`.
        id: Id of the sample, used in error messages.
        group: Number of the group (task or source) that its loss is counted under.
    """

    prompt: Prompt
    load_images: Callable[[], list[Image.Image]] = field(default=list)
    visual_features: Tensor | None = None
    id: str = ""
    group: int = 0


def pad(
    sequences: Sequence[tuple[Tensor, Tensor]], pad_token_id: int, side: Literal["left", "right"] = "right"
) -> dict[str, Tensor]:
    """Pad (input_ids, labels) pairs to `input_ids`, `attention_mask` and `labels`, each `[batch, longest]`."""
    longest = max(len(ids) for ids, _ in sequences)
    shape = (len(sequences), longest)
    batch = {
        "input_ids": torch.full(shape, pad_token_id, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED, dtype=torch.long),
    }
    for row, (ids, labels) in enumerate(sequences):
        at = slice(0, len(ids)) if side == "right" else slice(longest - len(ids), longest)
        batch["input_ids"][row, at] = ids
        batch["attention_mask"][row, at] = 1
        batch["labels"][row, at] = labels
    return batch


def pack(sequences: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Concatenate (input_ids, labels) pairs into one row.

    Returns:
        `input_ids` and `labels`, each `[1, tokens]`, and `sequence_lengths`. The first token of each sequence is
        ignored in the labels.
    """
    ids = torch.cat([ids for ids, _ in sequences])
    labels = torch.cat([labels for _, labels in sequences])
    lengths = [len(ids) for ids, _ in sequences]
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    return {"input_ids": ids[None], "labels": labels[None], "sequence_lengths": lengths}


def join_pictures(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the image inputs of several prompts (see the processor's `picture_inputs`) into one batch."""
    return {key: torch.cat([inputs[key] for inputs in found]) for key in found[0]} if found else {}


class PostTrainCollator:
    """Collator that turns pages into one batch for one model.

    Args:
        processor: Processor of the model. Its tokenizer pads and its image processor tiles.
        side: Padding side. Training pads on the right.
        packed: Concatenate the pages into one row instead of padding. The items may then be lists of pages.

    Returns:
        When called, `input_ids`, `attention_mask` and `labels`, each `[batch, length]`. If packed, `sequence_lengths`
        replaces the mask. Unless the batch is text only, it also has `pixel_values` (`[n_tiles, 3, height, width]`) or
        `visual_features` over the whole batch, and any other image inputs that the model family needs.

    Raises:
        ValueError: If an image has another number of visual tokens than its prompt was made for.
    """

    def __init__(
        self, processor: Any, side: Literal["left", "right"] = "right", packed: bool = False
    ) -> None:
        self.processor = processor
        self.side = side
        self.packed = packed

    def __call__(self, items: Sequence[Page] | Sequence[Sequence[Page]]) -> dict[str, Any]:
        pages = flatten(items)
        return {**self.sequences(pages), **self.pictures(pages)}

    def sequences(self, pages: Sequence[Page], ratio: int = 1) -> dict[str, Any]:
        sequences = [page.prompt.expand(ratio) for page in pages]
        return (
            pack(sequences)
            if self.packed
            else pad(sequences, self.processor.tokenizer.pad_token_id, self.side)
        )

    def pictures(self, pages: Sequence[Page]) -> dict[str, Tensor]:
        if any(page.visual_features is None for page in pages):
            return join_pictures([page_pictures(self.processor, page) for page in pages if page.prompt.sizes])
        layout = self.processor.picture_layout([size for page in pages for size in page.prompt.sizes])
        return {"visual_features": torch.cat([page.visual_features for page in pages]), **layout}  # type: ignore[misc]


class RealignCollator(PostTrainCollator):
    """Collator that turns pages into one batch for a teacher and its students.

    Args:
        processor: Processor of the teacher.
        ratios: Compress ratios of the students.

    Returns:
        When called, `teacher` (`input_ids`, `attention_mask`, `labels`), `students` (the same by ratio), and
        `pixel_values` or `visual_features`. The answer tokens are the same, in the same order, in all of them.

    Raises:
        ValueError: If a batch has no images.
    """

    def __init__(
        self,
        processor: Any,
        ratios: Sequence[int],
        side: Literal["left", "right"] = "right",
        packed: bool = False,
    ) -> None:
        super().__init__(processor, side, packed)
        self.ratios = tuple(ratios)

    def __call__(self, items: Sequence[Page] | Sequence[Sequence[Page]]) -> dict[str, Any]:
        pages = flatten(items)
        pictures = self.pictures(pages)
        if not pictures:
            raise ValueError(
                "a batch without pictures has nothing to re-align; leave pages of text alone out"
            )
        return {
            "teacher": self.sequences(pages),
            "students": {r: self.sequences(pages, r) for r in self.ratios},
            **pictures,
        }


def flatten(items: Sequence[Page] | Sequence[Sequence[Page]]) -> list[Page]:
    """Flatten a batch of pages or of packs into a list of pages."""
    return [page for item in items for page in ([item] if isinstance(item, Page) else item)]


def page_pictures(processor: Any, page: Page) -> dict[str, Tensor]:
    """Prepare the images of a page for the model (see the processor's `picture_inputs`).

    Raises:
        ValueError: If an image has another number of visual tokens than its prompt was made for.
    """
    images = page.load_images()
    counts = picture_counts(processor, images)[1]
    if counts != page.prompt.counts[1]:
        raise ValueError(
            f"the prompt was made for pictures of {list(page.prompt.counts[1])} visual tokens, the pictures give "
            f"{list(counts)}: use the same processor for both"
        )
    found: dict[str, Tensor] = processor.picture_inputs(images)
    return found
