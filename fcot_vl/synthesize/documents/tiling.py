"""Tiles that InternVL's processor cuts a page into, and the visual token that shows a point of the page.

The sizes are the embedded teacher's: tiles of 224 x 224 pixels, at most 12 and a thumbnail, 28 x 28 pixels per token.
A small image is padded with white, and enlarged at most twice (`models/internvl/image_processing.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fcot_vl.models.internvl.image_processing import padded_size
from fcot_vl.synthesize.ocr.capture import Points

TILE, TOKEN, MOST_TILES, MAX_ENLARGEMENT = 224, 28, 12, 2.0
TOKENS_A_TILE = (TILE // TOKEN) ** 2


@dataclass(frozen=True)
class Tiling:
    """A grid of `columns` x `rows` tiles over an image of `size` (width, height in pixels), padding included."""

    size: tuple[int, int]
    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        """Number of tiles, with the thumbnail that a grid of more than one tile has."""
        grid = self.columns * self.rows
        return grid + (grid > 1)

    @property
    def visual_tokens(self) -> int:
        """Number of visual tokens of the uncompressed teacher, thumbnail included."""
        return self.tiles * TOKENS_A_TILE

    def tokens_of(self, points: Points) -> NDArray[np.int64]:
        """Return the visual token of each of `points` ``[n, 2]``, counted tile by tile, as ``[n]``; -1 outside."""
        side = TILE // TOKEN
        scaled = points * [self.columns * TILE, self.rows * TILE] / np.array(self.size)
        x, y = np.floor(scaled / TOKEN).astype(np.int64).T if len(points) else np.zeros((2, 0), np.int64)
        inside = (x >= 0) & (y >= 0) & (x < self.columns * side) & (y < self.rows * side)
        tile = y // side * self.columns + x // side
        return np.where(inside, tile * side * side + y % side * side + x % side, -1)


@lru_cache(maxsize=4096)
def tile(size: tuple[int, int], most: int = MOST_TILES) -> Tiling:
    """Return the tiling that the embedded teacher's processor chooses for an image of `size` (width, height)."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    width, height = padded_size(size, TILE, most, MAX_ENLARGEMENT)
    columns, rows = get_optimal_tiled_canvas((height, width), (TILE, TILE), 1, most)
    return Tiling((width, height), columns, rows)
