"""Base of invoices and forms: a sheet with labels and values."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import BLACK, WHITE, Canvas, Color, Page
from fcot_vl.synthesize.documents.sheet import Sheet, characters_for, size_of
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split

CURRENCIES = ("", "$", "$", "EUR ", "RM ", "USD ")
_PAPERS: tuple[Color, ...] = (WHITE, WHITE, WHITE, (253, 251, 243), (249, 250, 252), (255, 250, 235))
_ACCENTS: tuple[Color, ...] = (
    BLACK,
    (26, 58, 110),
    (128, 28, 36),
    (16, 92, 80),
    (74, 74, 80),
    (90, 46, 110),
    (176, 84, 12),
)


class BusinessSheet(Sheet):
    """A sheet with labels and values, printed in black with an accent color."""

    def __init__(self, kind: str, content: Content, canvas: Canvas, family: Family, scale: float) -> None:
        rng, (width, height) = content.rng, canvas.size
        super().__init__(kind, content, canvas, family, round(width * rng.uniform(0.05, 0.09)), 10.3 * scale)
        self.scale = scale
        self.y = height * rng.uniform(0.04, 0.06)
        self.bottom = height * 0.965
        self.accent = rng.choice(_ACCENTS)

    def set_type(self, size: float) -> None:
        """Set the size of the body, in pixels of the tiles, and the distance of its lines."""
        size = min(20.0, max(11.0, size)) * self.scale
        self.body, self.bold = self.family.type(size), self.family.type(size, bold=True)
        self.step = self.body.size * self.rng.uniform(1.3, 1.5)

    @property
    def tint(self) -> Color:
        """A light shade of the accent, for the ground of cells."""
        red, green, blue = (round(255 - (255 - value) * 0.13) for value in self.accent)
        return red, green, blue

    def finish(self) -> Page:
        """Return the page, without empty blocks and without fields whose values are equal."""
        texts = [mark.text for mark in self.page.fields.values()]
        self.page.fields = {
            name: mark for name, mark in self.page.fields.items() if texts.count(mark.text) == 1
        }
        return super().finish()


def new_business_sheet(
    kind: str,
    grids: Sequence[tuple[int, int]],
    rng: random.Random,
    split: Split,
    families: Sequence[Family] | None,
) -> tuple[BusinessSheet, int]:
    """Return an empty sheet of one of `grids` (columns and rows of tiles), and about how many characters to print."""
    columns, rows = rng.choice(grids)
    scale = rng.uniform(0.9, 1.03 if columns == rows == 2 else 1.5)
    canvas = Canvas(size_of(columns, rows, scale), rng.choice(_PAPERS))
    full = rng.uniform(1.4, 2.8) if rng.random() < 0.6 else rng.uniform(0.3, 1.2)
    family = pick(rng, split, families)
    return BusinessSheet(kind, Content(rng, split), canvas, family, scale), characters_for(
        full, columns, rows
    )
