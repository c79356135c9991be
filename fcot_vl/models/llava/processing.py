"""Image-only processor of LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcot_vl.models.base_processor import ImageTextProcessor
from fcot_vl.models.llava.tile_layout import Grid, grid_of, most_tiles


class FCoTVLLlavaProcessor(ImageTextProcessor):
    """Image-only processor of the three families: each `<image>` of a prompt becomes the placeholders of one image.

    Args:
        image_processor: Image processor of LLaVA-1.5 (one tile), or of LLaVA-NeXT or LLaVA-OneVision (with
            `image_grid_pinpoints`).
        tokenizer: Tokenizer that knows the image token.
        patch_size: Patch size of the ViT in pixels.
        compress_ratio: Compress ratio of the model that this processor feeds.
        most_tiles: Tile limit of LLaVA-OneVision, see `grid_of`.
        chat_template: Jinja template, in which an image is one image token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 14,
        compress_ratio: int = 1,
        most_tiles: int | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.patch_size, self.compress_ratio, self.most_tiles = patch_size, compress_ratio, most_tiles
        self.image_token = getattr(tokenizer, "image_token", None) or "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def fit(self, config: Any) -> None:
        self.compress_ratio = getattr(config, "compress_ratio", 1)
        self.patch_size = config.vision_config.patch_size
        self.most_tiles = most_tiles(config)

    def count_image_tiles(self, height: int, width: int) -> int:
        grid = self._grid(height, width, 1)
        return 1 if grid is None else 1 + grid.high * grid.wide

    def count_image_tokens(self, height: int, width: int, ratio: int = 1, n_images: int = 1) -> int:
        side = self._tile() // self.patch_size
        overview = side * -(-side // (self.compress_ratio * ratio))
        grid = self._grid(height, width, ratio)
        return overview if grid is None else overview + grid.tokens

    def image_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Return the image inputs of the model.

        Returns:
            `pixel_values` `[n_tiles, 3, height, width]` over all images, and `image_sizes` `[n_images, 2]` if images
            are cut into tiles.
        """
        read = [self.image_processor(image, return_tensors="pt") for image in images]
        pixels = torch.cat([one["pixel_values"].flatten(0, -4) for one in read])
        return {"pixel_values": pixels, **self.image_layout([(i.height, i.width) for i in images])}

    def image_layout(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {"image_sizes": torch.tensor(list(sizes))} if self._pinpoints() else {}

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the run of tokens that replaces the placeholder of image `image_idx` in a prompt."""
        height, width = image_inputs["image_sizes"][image_idx] if self._pinpoints() else (1, 1)
        return self.image_token * self.count_image_tokens(int(height), int(width))

    @property
    def unused_input_names(self) -> list[str]:
        """Outputs of the image processor that the model does not take."""
        return ["batch_num_images"]

    def _pinpoints(self) -> list[list[int]]:
        return [list(p) for p in getattr(self.image_processor, "image_grid_pinpoints", None) or []]

    def _tile(self) -> int:
        crop, size = getattr(self.image_processor, "crop_size", None), self.image_processor.size
        return int((crop or {}).get("height") or size.get("shortest_edge") or size["height"])

    def _grid(self, height: int, width: int, ratio: int) -> Grid | None:
        pinpoints, tile = self._pinpoints(), self._tile()
        if not pinpoints:
            return None
        ratio *= self.compress_ratio
        return grid_of((height, width), pinpoints, tile, tile // self.patch_size, ratio, self.most_tiles)


__all__ = ["FCoTVLLlavaProcessor"]
