"""Token sequences, labels and padded batches.

Between the records (`sample.py`) and the trainers: a conversation becomes a `Prompt` with one placeholder per
picture, and a prompt becomes the teacher's or a student's sequence by repeating that placeholder, so that all of them
share one tokenisation and mark exactly the same answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        is_answer: `[n]`, True on the assistant's tokens, its closing `<|im_end|>` among them.
        tiles: tiles of each picture, thumbnail included.
        picture: ids of `<img>`, `<IMG_CONTEXT>` and `</img>`.
    """

    token_ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]
    tiles: tuple[int, ...]
    picture: tuple[int, int, int]

    def length(self, tokens_per_tile: int) -> int:
        """Tokens of the sequence when a tile takes `tokens_per_tile` of them."""
        return len(self.token_ids) + len(self.tiles) + sum(self.tiles) * tokens_per_tile

    def expand(self, tokens_per_tile: int) -> tuple[Tensor, Tensor]:
        """`input_ids` and `labels`, both `[length]`, with every picture as `<img>` + placeholders + `</img>`."""
        start, context, end = self.picture
        ids: list[NDArray[np.int32]] = []
        answer: list[NDArray[np.bool_]] = []
        at = 0
        places = np.flatnonzero(self.token_ids == context).tolist()
        for place, tiles in zip(places, self.tiles, strict=True):
            run = np.full(tiles * tokens_per_tile + 2, context, dtype=np.int32)
            run[0], run[-1] = start, end
            ids += [self.token_ids[at:place], run]
            answer += [self.is_answer[at:place], np.zeros(len(run), dtype=np.bool_)]
            at = place + 1
        input_ids = np.concatenate([*ids, self.token_ids[at:]]).astype(np.int64)
        labels = np.where(np.concatenate([*answer, self.is_answer[at:]]), input_ids, IGNORED)
        return torch.from_numpy(input_ids), torch.from_numpy(labels)


def tokenize_prompt(messages: Sequence[dict[str, str]], tiles: Sequence[int], processor: Any) -> Prompt:
    """Tokenise a conversation with the processor's chat template.

    Args:
        messages: `{"role", "content"}` in turn; the pictures are put before the first user turn's text.
        tiles: tiles of each picture, thumbnail included.
        processor: has `tokenizer`, `chat_template` and the ids of the picture tokens (`FCoTVLProcessor`).

    Answers are found by rendering the conversation up to each of them with the template's own generation prompt, which
    works for any InternVL template, with or without `{% generation %}` marks.

    Raises:
        ValueError: the conversation has no user turn or no answer, its text holds the placeholder token, or a longer
            conversation is not rendered as a continuation of a shorter one.
    """
    conversation: list[dict[str, Any]] = [dict(message) for message in messages]
    first_user = next((m for m in conversation if m["role"] == "user"), None)
    answers = [turn for turn, m in enumerate(conversation) if m["role"] == "assistant"]
    if first_user is None or not answers:
        raise ValueError(
            f"a conversation needs a user and an assistant turn, got {[m['role'] for m in messages]}"
        )
    text = {"type": "text", "text": first_user["content"]}
    first_user["content"] = [*({"type": "image"} for _ in tiles), text]

    def render(turns: int, add_generation_prompt: bool = False) -> str:
        return str(
            processor.tokenizer.apply_chat_template(
                conversation[:turns],
                chat_template=getattr(processor, "chat_template", None),
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        )

    whole = render(len(conversation))
    encoded = processor.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    token_ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    first_char, after = np.asarray(encoded["offset_mapping"]).T
    is_answer = np.zeros(len(token_ids), dtype=np.bool_)
    for turn in answers:
        before, answered = render(turn, add_generation_prompt=True), render(turn + 1).rstrip()
        if not (answered.startswith(before) and whole.startswith(answered)):
            raise ValueError(
                "the chat template rewrites earlier turns, so answers cannot be marked; use another one"
            )
        is_answer |= (first_char < len(answered)) & (after > len(before))
    placeholders = int((token_ids == processor.image_token_id).sum())
    if placeholders != len(tiles):
        raise ValueError(
            f"the tokenised conversation has {placeholders} image placeholders for {len(tiles)} pictures: its text "
            f"must not contain {processor.image_token}"
        )
    picture = (processor.start_image_token_id, processor.image_token_id, processor.end_image_token_id)
    return Prompt(token_ids, is_answer, tuple(tiles), picture)


def encode(
    messages: Sequence[dict[str, str]], n_tiles: int | Sequence[int], tokens_per_tile: int, processor: Any
) -> dict[str, Tensor]:
    """One conversation as a training sequence.

    Args:
        messages: `{"role", "content"}` in turn.
        n_tiles: tiles of the one picture, or of each of several; an empty sequence for text alone.
        tokens_per_tile: visual tokens per tile of the model it is for, after compression.
        processor: see `tokenize_prompt`.

    Returns:
        `input_ids` and `labels`, both `[length]`; labels hold the answer tokens and their `<|im_end|>`, else -100.

    Raises:
        ValueError: see `tokenize_prompt`.
    """
    tiles = [n_tiles] if isinstance(n_tiles, int) else n_tiles
    input_ids, labels = tokenize_prompt(messages, tiles, processor).expand(tokens_per_tile)
    return {"input_ids": input_ids, "labels": labels}


@dataclass
class Page:
    """What a collator takes: a prompt and its pictures, or in their place the ViT's features of them.

    Attributes:
        load_images: gives the pictures; called only where there are no features.
        visual_features: `[n_tiles, teacher's tokens per tile, visual channels]` over all pictures.
    """

    prompt: Prompt
    load_images: Callable[[], list[Image.Image]] = field(default=list)
    visual_features: Tensor | None = None


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


class PostTrainCollator:
    """Pages to one batch for one model.

    Args:
        processor: the model's; its tokenizer pads and its image processor tiles.
        tokens_per_tile: visual tokens per tile of the model, after compression.
        side: where padding goes; training pads on the right.

    Returns, when called: `input_ids`, `attention_mask`, `labels` (`[batch, length]`), and `pixel_values`
    (`[n_tiles, 3, height, width]`) or `visual_features` over the batch, unless it is text alone.

    Raises:
        ValueError: a picture's tiles are not those its prompt was made for.
    """

    def __init__(
        self, processor: Any, tokens_per_tile: int, side: Literal["left", "right"] = "right"
    ) -> None:
        self.processor = processor
        self.tokens_per_tile = tokens_per_tile
        self.side = side

    def __call__(self, pages: Sequence[Page]) -> dict[str, Any]:
        return {**self.sequences(pages, self.tokens_per_tile), **self.pictures(pages)}

    def sequences(self, pages: Sequence[Page], tokens_per_tile: int) -> dict[str, Tensor]:
        pad_token_id = self.processor.tokenizer.pad_token_id
        return pad([page.prompt.expand(tokens_per_tile) for page in pages], pad_token_id, self.side)

    def pictures(self, pages: Sequence[Page]) -> dict[str, Tensor]:
        features = [page.visual_features for page in pages if page.visual_features is not None]
        if len(features) == len(pages):
            return {"visual_features": torch.cat(features)}
        tiles = [tiles for page in pages for tiles in page_tiles(self.processor, page)]
        return {"pixel_values": torch.cat(tiles)} if tiles else {}


class RealignCollator(PostTrainCollator):
    """Pages to one batch for a teacher and its students.

    Args:
        processor: the teacher's.
        tokens_per_tile: visual tokens per tile of the teacher.
        ratios: compress ratios of the students.

    Returns, when called: `teacher` (`input_ids`, `attention_mask`, `labels`), `students` (the same by ratio), and
    `pixel_values` or `visual_features`. The answer tokens are the same in the same order in all of them.

    Raises:
        ValueError: a batch without pictures.
    """

    def __init__(
        self,
        processor: Any,
        tokens_per_tile: int,
        ratios: Sequence[int],
        side: Literal["left", "right"] = "right",
    ) -> None:
        super().__init__(processor, tokens_per_tile, side)
        self.ratios = tuple(ratios)

    def __call__(self, pages: Sequence[Page]) -> dict[str, Any]:
        pictures = self.pictures(pages)
        if not pictures:
            raise ValueError(
                "a batch without pictures has nothing to re-align; leave pages of text alone out"
            )
        return {
            "teacher": self.sequences(pages, self.tokens_per_tile),
            "students": {r: self.sequences(pages, self.tokens_per_tile // r) for r in self.ratios},
            **pictures,
        }


def page_tiles(processor: Any, page: Page) -> list[Tensor]:
    """The tiles of a page's pictures, one `[tiles, 3, height, width]` per picture.

    Raises:
        ValueError: a picture's tiles are not those its prompt was made for.
    """
    found = [
        processor.image_processor(image, crop_to_patches=True, return_tensors="pt")["pixel_values"]
        for image in page.load_images()
    ]
    if [len(pixels) for pixels in found] != list(page.prompt.tiles):
        raise ValueError(
            f"the prompt was made for pictures of {list(page.prompt.tiles)} tiles, the pictures give "
            f"{[len(pixels) for pixels in found]}: use the same processor for both"
        )
    return found


def count_tiles(processor: Any, images: Sequence[Image.Image]) -> list[int]:
    """Tiles of each picture, thumbnail included, from its size alone."""
    sizes = [[image.height, image.width] for image in images]
    return list(processor._get_num_multimodal_tokens(sizes)["num_image_patches"]) if sizes else []
