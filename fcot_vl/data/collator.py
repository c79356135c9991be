"""Collators: tokenized samples as padded or packed batches, for one model or for a teacher and its students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcot_vl.data.tokenization import IGNORED, TokenizedPrompt, image_token_counts

BLANK_SIDE = 64  # pixels


@dataclass
class TokenizedSample:
    """Input of a collator: a prompt with its images, or with their ViT features instead.

    Attributes:
        load_images: Function that returns the images. It is called only if there are no features.
        visual_features: Features of all images, `[n_tiles, teacher's tokens per tile, visual channels]`.
        id: Id of the sample, used in error messages.
        group: Number of the group (task or source) that its loss is counted under.
    """

    prompt: TokenizedPrompt
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


def join_image_inputs(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the image inputs of several prompts (see the processor's `image_inputs`) into one batch."""
    return {key: torch.cat([inputs[key] for inputs in found]) for key in found[0]} if found else {}


class PostTrainCollator:
    """Collator that turns samples into one batch for one model.

    Args:
        processor: Processor of the model. Its tokenizer pads and its image processor tiles.
        side: Padding side. Training pads on the right.
        packed: Concatenate the samples into one row instead of padding. The items may then be lists of samples.

    Returns:
        When called, `input_ids`, `attention_mask` and `labels`, each `[batch, length]`. If packed, `sequence_lengths`
        replaces the mask. A batch also has `pixel_values` (`[n_tiles, 3, height, width]`) or `visual_features` over the
        whole batch, and any other image inputs that the model family needs. In a batch of text alone, these are of a
        blank image that no sequence refers to, and `blank_image` is True.

    Raises:
        ValueError: If an image has another number of visual tokens than its prompt was made for.
    """

    def __init__(
        self, processor: Any, side: Literal["left", "right"] = "right", packed: bool = False
    ) -> None:
        self.processor = processor
        self.side = side
        self.packed = packed

    def __call__(
        self, items: Sequence[TokenizedSample] | Sequence[Sequence[TokenizedSample]]
    ) -> dict[str, Any]:
        samples = flatten(items)
        return {**self.sequences(samples), **(self.image_inputs(samples) or self.blank_image())}

    def sequences(self, samples: Sequence[TokenizedSample], ratio: int = 1) -> dict[str, Any]:
        sequences = [sample.prompt.expand(ratio) for sample in samples]
        return (
            pack(sequences)
            if self.packed
            else pad(sequences, self.processor.tokenizer.pad_token_id, self.side)
        )

    def image_inputs(self, samples: Sequence[TokenizedSample]) -> dict[str, Tensor]:
        if any(sample.visual_features is None for sample in samples):
            return join_image_inputs(
                [sample_image_inputs(self.processor, sample) for sample in samples if sample.prompt.sizes]
            )
        layout = self.processor.image_layout([size for sample in samples for size in sample.prompt.sizes])
        return {"visual_features": torch.cat([sample.visual_features for sample in samples]), **layout}  # type: ignore[misc]

    def blank_image(self) -> dict[str, Any]:
        """Return the image inputs of a white square of one tile, marked as such.

        Several processes gather the weights of the ViT and reduce its gradients together. One that skipped the ViT,
        because its batch is of text alone, would keep the others waiting.
        """
        white = Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), "white")
        return {**self.processor.image_inputs([white]), "blank_image": True}


class RealignCollator(PostTrainCollator):
    """Collator that turns samples into one batch for a teacher and its students.

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

    def __call__(
        self, items: Sequence[TokenizedSample] | Sequence[Sequence[TokenizedSample]]
    ) -> dict[str, Any]:
        samples = flatten(items)
        image_inputs = self.image_inputs(samples)
        if not image_inputs:
            raise ValueError(
                "a batch without images has nothing to re-align; leave out samples that have only text"
            )
        return {
            "teacher": self.sequences(samples),
            "students": {r: self.sequences(samples, r) for r in self.ratios},
            **image_inputs,
        }


def flatten(items: Sequence[TokenizedSample] | Sequence[Sequence[TokenizedSample]]) -> list[TokenizedSample]:
    """Flatten a batch of samples or of packs into a list of samples."""
    return [sample for item in items for sample in ([item] if isinstance(item, TokenizedSample) else item)]


def sample_image_inputs(processor: Any, sample: TokenizedSample) -> dict[str, Tensor]:
    """Prepare the images of a sample for the model (see the processor's `image_inputs`).

    Raises:
        ValueError: If an image has another number of visual tokens than its prompt was made for.
    """
    images = sample.load_images()
    counts = image_token_counts(processor, images)[1]
    if counts != sample.prompt.counts[1]:
        raise ValueError(
            f"the prompt was made for images of {list(sample.prompt.counts[1])} visual tokens, the images give "
            f"{list(counts)}: use the same processor for both"
        )
    found: dict[str, Tensor] = processor.image_inputs(images)
    return found
