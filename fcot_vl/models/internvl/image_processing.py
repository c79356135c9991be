"""InternVL's tiling, with an option to pad a small image instead of enlarging it.

InternVL chooses the grid of tiles by the aspect ratio alone: a line of text cut out of a page, 500 x 40 pixels, is
stretched over 12 tiles, and each of its characters over dozens of visual tokens. With `max_enlargement`, such an image
is placed on white paper that fits the fewest tiles in which it need not be reduced: 3 tiles for that line.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.image_transforms import to_channel_dimension_format
from transformers.image_utils import ChannelDimension, get_image_size, infer_channel_dimension_format
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorKwargs,
    GotOcr2ImageProcessorPil,
    get_all_supported_aspect_ratios,
    get_optimal_tiled_canvas,
)


@lru_cache(maxsize=4096)
def padded_size(
    size: tuple[int, int], tile: int, max_tiles: int, max_enlargement: float | None
) -> tuple[int, int]:
    """Return the (width, height) in pixels to which an image is padded, at the right and at the bottom, before tiling.

    This is the size of the image itself if it does not fit into `max_tiles` tiles without being reduced, or if padding
    would not save a tile.

    Args:
        size: Width and height of the image in pixels.
        tile: Side of a tile in pixels.
        max_tiles: Maximum number of tiles, without the thumbnail.
        max_enlargement: Largest factor by which a padded image is enlarged. None never pads, as InternVL.
    """
    width, height = size
    if max_enlargement is None:
        return size
    columns, rows = get_optimal_tiled_canvas((height, width), (tile, tile), 1, max_tiles)
    fitting = [
        grid
        for grid in get_all_supported_aspect_ratios(1, max_tiles)
        if grid[0] * tile >= width and grid[1] * tile >= height and grid[0] * grid[1] < columns * rows
    ]
    if not fitting:
        return size
    columns, rows = min(fitting, key=lambda grid: grid[0] * grid[1])
    # InternVL prefers 1 x 1 to 2 x 2 tiles, which are as square, unless the image has half of the area of 2 x 2 tiles.
    largest = min(max_enlargement, 1.4) if gcd(columns, rows) > 1 else max_enlargement
    scale = min(columns * tile / width, rows * tile / height, largest)
    return max(width, round(columns * tile / scale)), max(height, round(rows * tile / scale))


class PaddingKwargs(GotOcr2ImageProcessorKwargs, total=False):  # type: ignore[call-arg]
    """
    max_enlargement (`float`, *optional*):
        Largest factor by which a small image is enlarged; the rest of its tiles is white. Default: as InternVL, which
        stretches every image over the grid of tiles with the nearest aspect ratio.
    """

    max_enlargement: float | None


class PaddingImageProcessor(GotOcr2ImageProcessorPil):
    """InternVL's image processor with `max_enlargement`; without it, that of `GotOcr2ImageProcessorPil`."""

    valid_kwargs = PaddingKwargs
    max_enlargement: float | None = None

    def padded_size(self, size: tuple[int, int], max_tiles: int | None = None) -> tuple[int, int]:
        """Return the (width, height) to which an image of `size` is padded (see the function of this name)."""
        most = max_tiles or self.max_patches
        return padded_size(size, self.size["height"], most, self.max_enlargement)

    def crop_image_to_patches(
        self, image: NDArray[Any], min_patches: int, max_patches: int, **kwargs: Any
    ) -> list[NDArray[Any]]:
        """Return the tiles of an image, with the thumbnail last if there are several."""
        layout = infer_channel_dimension_format(image)
        height, width = get_image_size(image, channel_dim=layout)
        wide, high = self.padded_size((width, height), max_patches)
        if (wide, high) != (width, height):
            plain = to_channel_dimension_format(image, ChannelDimension.LAST, layout)
            paper = np.full((high, wide, plain.shape[2]), 255, plain.dtype)
            paper[:height, :width] = plain
            image = to_channel_dimension_format(paper, layout, ChannelDimension.LAST)
        tiles: list[NDArray[Any]] = super().crop_image_to_patches(image, min_patches, max_patches, **kwargs)
        return tiles

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> int:
        """Return the number of tiles, including the thumbnail, of an image of `height` x `width` pixels."""
        wide, high = self.padded_size((width, height), (images_kwargs or {}).get("max_patches"))
        return int(super().get_number_of_image_patches(high, wide, images_kwargs))


__all__ = ["PaddingImageProcessor", "padded_size"]
