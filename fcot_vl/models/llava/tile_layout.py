"""Token layout of an image that LLaVA-NeXT and LLaVA-OneVision cut into tiles side by side.

Model and processor both compute it, so that the number of placeholders in a prompt equals the number of visual tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers.image_processing_utils import select_best_resolution


@dataclass(frozen=True)
class Grid:
    """Token layout of an image with tiles side by side, at a compress ratio.

    Attributes:
        high: Number of rows of tiles.
        wide: Number of columns of tiles.
        top, bottom, left, right: Limits of the rows and columns that are not padding.
        resized: Rows and columns that these are scaled to, or None.
    """

    high: int
    wide: int
    top: int
    bottom: int
    left: int
    right: int
    resized: tuple[int, int] | None

    @property
    def tokens(self) -> int:
        """Number of visual tokens of the image without its overview tile: rows of columns plus a newline."""
        rows, columns = self.resized or (self.bottom - self.top, self.right - self.left)
        return rows * (columns + 1)


def most_tiles(config: Any) -> int | None:
    """Return the number of tiles above which LLaVA-OneVision scales tokens down (9 for "anyres_max_9").

    Returns None for the other models.
    """
    setting = getattr(config, "vision_aspect_ratio", None)
    return None if setting is None else int(setting.removeprefix("anyres_max_"))


def grid_of(
    size: tuple[int, int], pinpoints: list[Any], tile: int, side: int, ratio: int, most: int | None
) -> Grid:
    """Compute the token layout of an image.

    Args:
        size: (height, width) of the image in pixels.
        pinpoints: Canvases that tiles may fill, as (height, width) in pixels.
        tile: Side of a tile in pixels.
        side: Number of tokens in a row of a tile, before compression.
        ratio: Compress ratio.
        most: Number of tiles above which tokens are scaled down (LLaVA-OneVision's "anyres_max_9"). If None, never.
    """
    height, width = size
    canvas = select_best_resolution([height, width], pinpoints)
    high, wide = canvas[0] // tile, canvas[1] // tile
    rows, columns = high * side, wide * side
    top = left = 0
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    bottom, right = rows - top, columns - left
    resized = None
    if most is not None:
        scale = math.sqrt((bottom - top) * (right - left) / (most * side**2))
        if scale > 1.1:
            resized = int((bottom - top) // scale), -(-int((right - left) // scale) // ratio)
    per_tile = -(-side // ratio)

    def column(at: int) -> int:
        return at // side * per_tile + at % side // ratio

    return Grid(high, wide, top, bottom, column(left), column(right - 1) + 1, resized)
