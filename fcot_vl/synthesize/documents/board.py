"""A board: a page with text at free positions on a colored ground, such as a slide, a chart or a sign."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import WHITE, Canvas, Color, Mark, Page, join_row
from fcot_vl.synthesize.documents.tiling import TILE
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
DARK: Color = (28, 30, 36)
GREY: Color = (92, 95, 102)
# dark, main, accent, tint
PALETTES: tuple[tuple[Color, Color, Color, Color], ...] = (
    ((31, 56, 100), (47, 110, 180), (226, 105, 30), (222, 234, 246)),
    ((38, 70, 53), (46, 128, 80), (232, 165, 45), (226, 240, 228)),
    ((90, 24, 60), (176, 48, 92), (60, 120, 140), (248, 228, 236)),
    ((60, 60, 66), (104, 108, 116), (200, 60, 50), (236, 236, 238)),
    ((18, 70, 82), (18, 128, 138), (236, 112, 72), (220, 242, 242)),
    ((62, 36, 100), (114, 76, 174), (240, 176, 50), (236, 230, 248)),
    ((100, 50, 20), (180, 86, 34), (56, 104, 114), (250, 236, 222)),
    ((20, 22, 30), (56, 84, 196), (220, 56, 76), (232, 236, 250)),
)
# Largest units of these grids: the processor would cut a larger page into a larger grid of the same shape.
_LARGEST = {(1, 1): 1.4, (2, 1): 1.4, (1, 2): 1.4, (3, 1): 1.4, (1, 3): 1.4, (2, 2): 1.05}


def on(ground: Color) -> Color:
    """Return white or dark ink, whichever is legible on `ground`."""
    red, green, blue = ground
    return WHITE if 0.3 * red + 0.59 * green + 0.11 * blue < 140 else DARK


@dataclass(frozen=True)
class _Printed:
    mark: Mark
    x: float
    baseline: float
    size: int


class Board:
    """A page with text at free positions. Text that would leave the page or touch other text is not printed.

    Sizes of type are in pixels of the tiles, all other lengths in pixels of the page.

    Attributes:
        grid: columns and rows of tiles that the page fills.
        tiles: their number.
        unit: pixels of the page per pixel of a tile.
    """

    def __init__(
        self,
        kind: str,
        rng: random.Random,
        split: Split,
        families: Sequence[Family] | None,
        grids: Sequence[tuple[int, float]],
    ) -> None:
        self.rng, self.content = rng, Content(rng, split)
        self.family = pick(rng, split, families)
        self.grid = rng.choice(grids)
        self.unit = rng.uniform(0.9, _LARGEST.get((self.grid[0], round(self.grid[1])), 1.5))
        self.width, self.height = (round(side * TILE * self.unit) for side in self.grid)
        self.tiles = self.grid[0] * self.grid[1]
        self.canvas = Canvas((self.width, self.height))
        self.page = Page(kind, self.canvas)
        self._groups: list[list[_Printed]] = [[]]
        self._boxes: list[Box] = []

    def type(self, size: float, bold: bool = False) -> Type:
        """Return the regular or bold face of the page's family at `size` pixels of the tiles."""
        return self.family.type(size * self.unit, bold)

    def fit(self, text: str, size: float, width: float, bold: bool = False, least: float = 11) -> Type:
        """Return the largest type, from `size` down to `least`, that prints `text` within `width` pixels."""
        letters = self.type(size, bold)
        wide = letters.width(text)
        if wide > width:
            letters = Type(letters.face, max(int(letters.size * width / wide), round(least * self.unit)))
        while letters.width(text) > width and letters.size > least * self.unit:
            letters = Type(letters.face, letters.size - 1)
        return letters

    def group(self) -> None:
        """Begin a block; blocks follow one another from top to bottom."""
        self._groups.append([])

    def put(
        self, text: str, letters: Type, x: float, baseline: float, ink: Color, align: str = "left"
    ) -> Mark | None:
        """Print a line that begins at, ends at or is centered on `x`; return None where there is no place for it."""
        ink_of, before, _, advance = letters.glyphs[text[-1]]  # the last letter may reach past its advance
        width = letters.width(text) + (0 if ink_of is None else max(0.0, before + ink_of.shape[1] - advance))
        left = x - {"center": width / 2, "right": width}.get(align, 0.0)
        box = (left, baseline - 0.8 * letters.size, left + width, baseline + 0.25 * letters.size)
        edge = 3 * self.unit
        if box[0] < edge or box[1] < edge or box[2] > self.width - edge or box[3] > self.height - edge:
            return None
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self._boxes):
            return None
        self._boxes.append(box)
        mark = self.canvas.write(text, letters, left, baseline, ink)
        self._groups[-1].append(_Printed(mark, left, baseline, letters.size))
        return mark

    def paragraph(
        self, text: str, letters: Type, box: Box, ink: Color, align: str = "left", leading: float = 1.3
    ) -> tuple[list[Mark], float]:
        """Print `text` in lines, all of it or nothing; return the lines and the y below the last one."""
        left, top, right, bottom = box
        lines = letters.wrap(text, right - left)
        step = letters.size * leading
        if " ".join(lines) != text or top + step * len(lines) > bottom:
            return [], top
        x = {"center": (left + right) / 2, "right": right}.get(align, left)
        made = [
            self.put(line, letters, x, top + step * i + letters.size, ink, align)
            for i, line in enumerate(lines)
        ]
        return [mark for mark in made if mark is not None], top + step * len(lines)

    def stack(
        self,
        lines: Sequence[tuple[str, float, bool]],
        box: Box,
        ink: Color,
        align: str = "center",
        leading: float = 1.35,
    ) -> list[Mark | None]:
        """Print lines of (text, size, bold) one below the other, in the middle of the height of `box`."""
        left, top, right, bottom = box
        tall = sum(size for _, size, _ in lines) * leading * self.unit
        shrink = min(1.0, (bottom - top) / tall)
        types = [self.fit(text, size * shrink, right - left, bold) for text, size, bold in lines]
        y = max(top, (top + bottom - sum(letters.size for letters in types) * leading) / 2)
        x = {"center": (left + right) / 2, "right": right}.get(align, left)
        marks = []
        for (text, _, _), letters in zip(lines, types, strict=True):
            y += letters.size * leading
            marks.append(self.put(text, letters, x, y - letters.size * (leading - 1), ink, align))
        return marks

    def smooth(
        self, ink: Color, draw: Callable[[ImageDraw.ImageDraw, float], None], box: Box | None = None
    ) -> None:
        """Paint a shape with soft edges, inside `box` or on the whole page.

        Args:
            draw: called with a pen and a factor; draws in pixels from the corner of `box`, times the factor.
        """
        left, top, right, bottom = (round(side) for side in box or (0, 0, self.width, self.height))
        mask = Image.new("L", (2 * (right - left), 2 * (bottom - top)), 0)
        draw(ImageDraw.Draw(mask), 2.0)
        self.canvas.image.paste(ink, (left, top), mask.reduce(2))

    def disc(self, x: float, y: float, radius: float, ink: Color) -> None:
        """Paint a disc."""
        side = 2 * radius
        box = (x - radius, y - radius, x + radius + 1, y + radius + 1)
        self.smooth(ink, lambda pen, k: pen.ellipse((0, 0, k * side, k * side), fill=255), box)

    def card(self, box: Box, ink: Color, radius: float = 0.0) -> None:
        """Paint a rectangle with round corners of `radius` pixels; nothing where it is empty."""
        left, top, right, bottom = (round(side) for side in box)
        if left <= right and top <= bottom:
            self.canvas.pen.rounded_rectangle((left, top, right, bottom), round(radius), fill=ink)

    def finish(self) -> Page:
        """Return the page with its lines: the rows of each block from top to bottom, joined from left to right."""
        for group in self._groups:
            rows: list[list[_Printed]] = []
            for printed in sorted(group, key=lambda p: (p.baseline, p.x)):
                near = rows and printed.baseline - rows[-1][0].baseline < 0.35 * min(
                    printed.size, rows[-1][0].size
                )
                if near:
                    rows[-1].append(printed)
                else:
                    rows.append([printed])
            if rows:
                self.page.blocks.append(
                    [join_row([p.mark for p in sorted(row, key=lambda p: p.x)]) for row in rows]
                )
        return self.page
