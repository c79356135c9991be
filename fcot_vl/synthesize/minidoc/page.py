"""A page on a fixed-pitch grid, and where on it every character was printed.

The page is a grid of 7x14-pixel cells over 224-pixel tiles (32 columns and 16
rows a tile), so that one visual token of the uncompressed teacher (28x28 pixels) covers 4x2 cells: eight characters
of small print, or two of large print. `Page.print` returns a `Span`, which remembers its cells: the tool that trained
the embedded teacher uses them to show the decoder where to look.
"""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL_WIDTH, CELL_HEIGHT = 7, 14
TILE = 224
TILE_COLUMNS, TILE_ROWS = TILE // CELL_WIDTH, TILE // CELL_HEIGHT
TOKENS_PER_TILE = 64
FONTS = ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique")
_FIRST, _LAST = 32, 126


@dataclass(frozen=True)
class Span:
    """Text printed on a page and the (column, row) of the top-left cell of each of its characters."""

    text: str
    cells: tuple[tuple[int, int], ...]
    scale: int = 1

    def __getitem__(self, part: slice) -> Span:
        return Span(self.text[part], self.cells[part], self.scale)


@lru_cache(maxsize=16)
def _atlas(font: str, scale: int) -> np.ndarray:
    """Ink coverage of printable ASCII, ``[95, 14 * scale, 7 * scale]`` float32 in 0..1."""
    spec = importlib.util.find_spec("matplotlib")  # ships the DejaVu fonts; found without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "MiniDoc prints with the DejaVu fonts of matplotlib: pip install matplotlib"
        )
    path = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / f"{font}.ttf"
    height, width = CELL_HEIGHT * scale, CELL_WIDTH * scale
    face = ImageFont.truetype(str(path), round(11.5 * scale))
    glyphs = np.zeros((_LAST - _FIRST + 1, height, width), np.float32)
    for i in range(len(glyphs)):
        canvas = Image.new("L", (width, height), 0)
        ImageDraw.Draw(canvas).text((0, 11 * scale), chr(_FIRST + i), fill=255, font=face, anchor="ls")
        glyphs[i] = np.asarray(canvas, np.float32) / 255
    return glyphs


@dataclass
class Page:
    """A page of `tile_columns` x `tile_rows` tiles with its prints, rules and bars.

    Columns and rows everywhere are those of the small grid; large print (`scale` 2) takes 2x2 cells.
    """

    tile_columns: int = 1
    tile_rows: int = 1
    font: str = FONTS[0]
    paper: float = 1.0
    ink: float = 0.0
    spans: list[Span] = field(default_factory=list)
    bars: list[tuple[int, int, int, int, float]] = field(default_factory=list)

    @property
    def columns(self) -> int:
        return self.tile_columns * TILE_COLUMNS

    @property
    def rows(self) -> int:
        return self.tile_rows * TILE_ROWS

    @property
    def tiles(self) -> int:
        """Tiles the teacher sees: the grid, and a thumbnail when there is more than one."""
        grid = self.tile_columns * self.tile_rows
        return grid + (grid > 1)

    @property
    def density(self) -> float:
        """Printed (non-blank) characters per visual token of the uncompressed teacher, thumbnail counted."""
        return sum(not c.isspace() for s in self.spans for c in s.text) / (self.tiles * TOKENS_PER_TILE)

    def print(self, column: int, row: int, text: str, scale: int = 1) -> Span:
        """Print `text` with its first cell at (`column`, `row`); ValueError when it leaves the page."""
        if column < 0 or row < 0 or column + len(text) * scale > self.columns or row + scale > self.rows:
            raise ValueError(
                f"{text!r} at column {column}, row {row} does not fit {self.columns}x{self.rows} cells"
            )
        span = Span(text, tuple((column + i * scale, row) for i in range(len(text))), scale)
        self.spans.append(span)
        return span

    def bar(self, left: int, top: int, right: int, bottom: int, shade: float) -> None:
        """A filled rectangle in pixels, drawn under the print; `shade` 0 is ink, 1 is paper."""
        self.bars.append((left, top, right, bottom, shade))

    def token_of(self, cell: tuple[int, int], scale: int = 1) -> int:
        """Index of the teacher's visual token (tiles in raster order, 8x8 tokens each) holding a character."""
        x = cell[0] * CELL_WIDTH + CELL_WIDTH * scale // 2
        y = cell[1] * CELL_HEIGHT + CELL_HEIGHT * scale // 2
        tile = (y // TILE) * self.tile_columns + x // TILE
        side = 8
        return tile * TOKENS_PER_TILE + (y % TILE) * side // TILE * side + (x % TILE) * side // TILE

    def pixels(self, rng: random.Random) -> np.ndarray:
        """The page as grey uint8 ``[height, width]`` with a little sensor noise drawn from `rng`."""
        cover = np.zeros((self.rows * CELL_HEIGHT, self.columns * CELL_WIDTH), np.float32)
        ground = np.full_like(cover, self.paper)
        for left, top, right, bottom, shade in self.bars:
            ground[top:bottom, left:right] = self.ink + (self.paper - self.ink) * shade
        for span in self.spans:
            atlas = _atlas(self.font, span.scale)
            high, wide = CELL_HEIGHT * span.scale, CELL_WIDTH * span.scale
            for character, (column, row) in zip(span.text, span.cells, strict=True):
                if character != " ":
                    y, x = row * CELL_HEIGHT, column * CELL_WIDTH
                    cover[y : y + high, x : x + wide] = atlas[ord(character) - _FIRST]
        page = ground + (self.ink - ground) * cover
        noise = np.random.default_rng(rng.randrange(2**63)).standard_normal(page.shape, np.float32)
        page += noise * (0.004 + 0.02 * rng.random())
        return (page.clip(0, 1) * 255).astype(np.uint8)

    def image(self, rng: random.Random) -> Image.Image:
        """The page as an RGB image."""
        return Image.fromarray(self.pixels(rng)).convert("RGB")
