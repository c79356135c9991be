"""Base of letters and reports: a sheet of running text."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import BLACK, Canvas, Color
from fcot_vl.synthesize.documents.sheet import Sheet, characters_for, size_of
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

TYPICAL = "the quick brown fox, 12"  # 23 characters, to estimate the width of text
_GRIDS = ((3, 4), (3, 4), (3, 4), (2, 3), (2, 3), (2, 3), (3, 3), (2, 2), (2, 4))
_PAPERS: tuple[Color, ...] = ((255, 255, 255),) * 5 + ((253, 251, 243), (250, 250, 250), (247, 244, 234))
_ACCENTS: tuple[Color, ...] = (
    BLACK,
    (24, 50, 96),
    (120, 24, 32),
    (14, 84, 72),
    (70, 70, 74),
    (84, 44, 104),
)
_DATED = re.compile(r"\d[/.-]\d\d?[/.-]\d|\d-\d\d-\d|\b[A-Z][a-z]{2} \d{1,2}, \d{4}|\d [A-Z][a-z]{2} \d{4}")


class TextSheet(Sheet):
    """A sheet of running text, set in one family of typefaces."""

    def __init__(self, kind: str, content: Content, canvas: Canvas, family: Family, scale: float) -> None:
        rng, (width, height) = content.rng, canvas.size
        super().__init__(kind, content, canvas, family, width * rng.uniform(0.07, 0.13), 10.4 * scale)
        self.scale = scale
        self.y = height * rng.uniform(0.045, 0.07)
        self.bottom = height * rng.uniform(0.94, 0.965)
        self.ink = rng.choice((BLACK, BLACK, BLACK, (30, 30, 34), (22, 28, 52)))
        self.accent = rng.choice(_ACCENTS)
        self.leading = rng.uniform(1.25, 1.42)  # distance of lines, times the size of the type

    def set_type(self, characters: float, fixed: float, height: float, width: float, largest: float) -> None:
        """Choose the largest type that prints a text into `width` x `height` pixels, or one a little smaller.

        Args:
            characters: length of the text.
            fixed: number of lines that are printed in addition.
            largest: largest size, in pixels of the tiles.
        """
        size = largest * self.scale
        while size > 11.5 * self.scale:
            wide = self.family.type(size).width(TYPICAL) / 23
            if (fixed + characters * wide * 1.06 / width) * size * self.leading < height:
                break
            size -= 0.5
        size = max(11.2 * self.scale, self.rng.uniform(0.8, 1.0) * size)
        self.body, self.bold = self.family.type(size), self.family.type(size, bold=True)
        self.step = self.body.size * self.leading

    def pitch(self, letters: Type) -> float:
        """Return the distance from a line printed with `letters` to the next one."""
        return letters.size * self.leading

    def has_room(self, letters: Type) -> bool:
        """Return whether another line of `letters` ends above the bottom."""
        return self.y + letters.size * self.leading <= self.bottom

    def paragraph(self, text: str, left: float, right: float, bottom: float, align: str) -> str:
        """Print `text` as a block as far as it fits, and return the rest."""
        box = (left, self.y, right, bottom)
        marks, self.y = self.canvas.write_block(text, self.body, box, self.ink, align, self.leading)
        self.page.blocks.append(marks)
        return " ".join(self.body.wrap(text, right - left)[len(marks) :])

    def shorten(self, text: str, height: float) -> str:
        """Leave out the last sentences of `text` until it is no higher than `height` as a block."""
        while text and len(self.body.wrap(text, self.right - self.left)) > int(height / self.step - 0.05):
            text = " ".join(re.split(r"(?<=[.!?]) ", text)[:-1])
        return text

    def sentences(self, characters: int) -> str:
        """Draw at least `characters` of sentences that have no date, so that the page has one date only."""
        text = ""
        while len(text) < characters:
            sentence = self.content.sentence()
            if not _DATED.search(sentence):
                text += " " * bool(text) + sentence
        return text


def new_text_sheet(
    kind: str, rng: random.Random, split: Split, families: Sequence[Family] | None
) -> tuple[TextSheet, int]:
    """Return an empty sheet, and the approximate number of characters to print on it."""
    columns, rows = rng.choice(_GRIDS)
    scale = rng.uniform(0.9, 1.03 if columns == rows == 2 else 1.5)
    full = rng.uniform(1.2, 2.6) if rng.random() < 0.55 else rng.uniform(0.45, 1.4)
    canvas = Canvas(size_of(columns, rows, scale), rng.choice(_PAPERS))
    family = pick(rng, split, families)
    return TextSheet(kind, Content(rng, split), canvas, family, scale), characters_for(full, columns, rows)
