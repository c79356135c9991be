"""Token sequences, labels and padded batches.

Between the records (`sample.py`) and the trainers: a conversation becomes a `Prompt` with one placeholder per
picture, and a prompt becomes the teacher's or a student's sequence by repeating that placeholder, so that all of them
share one tokenisation and mark exactly the same answer tokens.
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

IGNORED = -100  # label of a position that is not learned


@dataclass(frozen=True)
class Prompt:
    """One tokenised conversation with a single placeholder per picture.

    Attributes:
        token_ids: `[n]`, the placeholder once per picture.
        is_answer: `[n]`, True on the assistant's tokens, its closing token among them.
        counts: visual tokens of each picture, by compress ratio; 1 is the model that the processor belongs to.
        placeholder: id of the placeholder.
        marks: ids that stand before and after a picture's placeholders.
        sizes: (height, width) of each picture.
    """

    token_ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]
    counts: Mapping[int, tuple[int, ...]]
    placeholder: int
    marks: tuple[list[int], list[int]]
    sizes: tuple[tuple[int, int], ...] = ()

    def length(self, ratio: int = 1) -> int:
        """Tokens of the sequence at a compress ratio."""
        around = len(self.marks[0]) + len(self.marks[1]) - 1
        return len(self.token_ids) + len(self.counts[ratio]) * around + sum(self.counts[ratio])

    def expand(self, ratio: int = 1) -> tuple[Tensor, Tensor]:
        """`input_ids` and `labels`, both `[length]`, with every picture as its marks and placeholders."""
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
    """Visual tokens of each picture by compress ratio, from its size alone."""
    sizes = [(image.height, image.width) for image in images]
    return {r: tuple(processor.picture_tokens(*size, r) for size in sizes) for r in ratios}


def tokenize_prompt(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> Prompt:
    """Tokenise a conversation with the processor's chat template.

    Args:
        messages: `{"role", "content"}` in turn; the pictures are put before the first user turn's text.
        images: the pictures; only their sizes are looked at.
        processor: has `tokenizer`, `chat_template`, `image_token_id`, `picture_marks` and `picture_tokens`.
        ratios: compress ratios the prompt will be expanded for.

    Answers are found by rendering the conversation up to each of them with the template's own generation prompt, which
    works for any template, with or without `{% generation %}` marks. A template that ends an answer with no special
    token (LLaVA's) gets the tokenizer's end of sequence after the last one.

    Raises:
        ValueError: the conversation has no user turn or no answer, its text holds the placeholder token, or a longer
            conversation is not rendered as a continuation of a shorter one.
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
    """One question about pictures, tokenised up to where the answer starts."""
    return tokenize_open([{"role": "user", "content": text}], images, processor, ratios)


def tokenize_open(
    messages: Sequence[dict[str, str]],
    images: Sequence[Image.Image],
    processor: Any,
    ratios: Sequence[int] = (1,),
) -> Prompt:
    """A conversation that ends in a question, tokenised up to where the answer starts."""
    conversation = _with_pictures(messages, len(images))
    ids = np.asarray(_encode(_render(conversation, processor, True), processor)["input_ids"], dtype=np.int32)
    return _prompt(ids, np.zeros(len(ids), dtype=np.bool_), images, processor, ratios)


def question_inputs(
    text: str, images: Sequence[Image.Image], processor: Any, ratio: int = 1
) -> dict[str, Tensor]:
    """What a model takes to answer one question about pictures, if there are any, as a batch of one.

    ratio: the model's compress ratio, relative to the processor's own model.
    """
    input_ids = tokenize_question(text, images, processor, (1, ratio)).expand(ratio)[0][None]
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    pictures = processor.picture_inputs(images) if images else {}
    return inputs | pictures | processor.prompt_inputs(input_ids)


def _with_pictures(messages: Sequence[dict[str, str]], pictures: int) -> list[dict[str, Any]]:
    """The conversation with contents in parts, the pictures before the first user turn's text."""
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
    """As transformers' processors do: the tokenizer puts its BOS in front, unless the template did."""
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
    """What a collator takes: a prompt and its pictures, or in their place the ViT's features of them.

    Attributes:
        load_images: gives the pictures; called only where there are no features.
        visual_features: `[n_tiles, teacher's tokens per tile, visual channels]` over all pictures.
        id: the record's, to name it where something is wrong with it.
        group: number of the group (task or source) its loss is counted to.
    """

    prompt: Prompt
    load_images: Callable[[], list[Image.Image]] = field(default=list)
    visual_features: Tensor | None = None
    id: str = ""
    group: int = 0


def pad(
    sequences: Sequence[tuple[Tensor, Tensor]], pad_token_id: int, side: Literal["left", "right"] = "right"
) -> dict[str, Tensor]:
    """Pad (input_ids, labels) pairs: `input_ids`, `attention_mask` and `labels`, each `[batch, longest]`."""
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
    """Lay (input_ids, labels) pairs one behind the other.

    Returns:
        `input_ids` and `labels`, `[1, tokens]`, and `sequence_lengths`. Nothing predicts a sequence's first token.
    """
    ids = torch.cat([ids for ids, _ in sequences])
    labels = torch.cat([labels for _, labels in sequences])
    lengths = [len(ids) for ids, _ in sequences]
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    return {"input_ids": ids[None], "labels": labels[None], "sequence_lengths": lengths}


def join_pictures(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The pictures of several prompts (see the processor's `picture_inputs`) as those of one batch."""
    return {key: torch.cat([inputs[key] for inputs in found]) for key in found[0]} if found else {}


class PostTrainCollator:
    """Pages to one batch for one model.

    Args:
        processor: the model's; its tokenizer pads and its image processor tiles.
        side: where padding goes; training pads on the right.
        packed: lay the pages one behind the other in one row instead of padding; the items may then be lists of pages.

    Returns, when called: `input_ids`, `attention_mask`, `labels` (`[batch, length]`; packed: `sequence_lengths` in
    place of the mask), and over the batch `pixel_values`
    (`[n_tiles, 3, height, width]`) or `visual_features`, with what the model's family must know of its pictures beside
    them, unless it is text alone.

    Raises:
        ValueError: a picture's visual tokens are not those its prompt was made for.
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
    """Pages to one batch for a teacher and its students.

    Args:
        processor: the teacher's.
        ratios: compress ratios of the students.

    Returns, when called: `teacher` (`input_ids`, `attention_mask`, `labels`), `students` (the same by ratio), and
    `pixel_values` or `visual_features`. The answer tokens are the same in the same order in all of them.

    Raises:
        ValueError: a batch without pictures.
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
    """The pages of a batch of pages or of packs."""
    return [page for item in items for page in ([item] if isinstance(item, Page) else item)]


def page_pictures(processor: Any, page: Page) -> dict[str, Tensor]:
    """A page's pictures as the model takes them (see the processor's `picture_inputs`).

    Raises:
        ValueError: a picture's visual tokens are not those its prompt was made for.
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
