"""Image-only processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from fcot_vl.models.base_processor import ImageTextProcessor


class FCoTVLQwenVLProcessor(ImageTextProcessor):
    """Image-only processor of the three families: each `<|image_pad|>` becomes the placeholders of one image.

    Args:
        image_processor: Image processor of Qwen2-VL; Qwen3-VL uses it with larger patches.
        tokenizer: Tokenizer that knows the image token.
        compress_ratio: Compress ratio of the model that this processor feeds.
        chat_template: Jinja template, in which an image is one image token between its marks.
    """

    return_mm_token_type_ids = True

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        compress_ratio: int = 1,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.compress_ratio = compress_ratio
        self.image_token = getattr(tokenizer, "image_token", None) or "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def fit(self, config: Any) -> None:
        self.compress_ratio = getattr(config, "compress_ratio", 1)

    def count_image_tokens(self, height: int, width: int, ratio: int = 1, n_images: int = 1) -> int:
        high, wide = self._grid(height, width)
        return self._count(high, wide, ratio)

    def image_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Return the image inputs of the model.

        Returns:
            `pixel_values` `[patches, values of a patch]` over all images, and `image_grid_thw` `[n_images, 3]`.
        """
        read = self.image_processor(list(images), return_tensors="pt")
        return {"pixel_values": read["pixel_values"], "image_grid_thw": read["image_grid_thw"]}

    def image_layout(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {"image_grid_thw": torch.tensor([[1, *self._grid(*size)] for size in sizes])}

    def prompt_inputs(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return `mm_token_type_ids`: 1 on placeholders; positions are computed from it."""
        return {"mm_token_type_ids": (input_ids == self.image_token_id).int()}

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the run of tokens that replaces the placeholder of image `image_idx` in a prompt."""
        _, high, wide = (int(n) for n in image_inputs["image_grid_thw"][image_idx])
        return self.image_token * self._count(high, wide, 1)

    @property
    def image_token_ids(self) -> list[int]:
        """Ids of the tokens that belong to an image."""
        return [self.image_token_id]

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the numbers of rows and columns of patches of an image."""
        process = self.image_processor
        patch, size = process.patch_size, process.size
        high, wide = smart_resize(
            height, width, patch * process.merge_size, size["shortest_edge"], size["longest_edge"]
        )
        return high // patch, wide // patch

    def _count(self, high: int, wide: int, ratio: int) -> int:
        merge = self.image_processor.merge_size
        return high // merge * -(-(wide // merge) // (self.compress_ratio * ratio))


__all__ = ["FCoTVLQwenVLProcessor"]
