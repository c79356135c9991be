"""A page being printed, and the position of every character on it.

`Canvas` draws. Each text that is written returns a `Mark`, which has the positions of its characters. Each kind of
document returns a `Page`: the canvas and the marks by their meaning (lines in reading order, fields, table cells,
prices, values of a chart), from which `tasks` makes questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from fcot_vl.synthesize.ocr.capture import Points
from fcot_vl.synthesize.ocr.typeset import Type

Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
NOWHERE = -1


@dataclass(frozen=True)
class Mark:
    """Text on a page.

    Attributes:
        ids: one number per character: its row in `Canvas.points`; `NOWHERE` for a blank.
        size: largest type in pixels; 0 for text that is not printed.
    """

    text: str
    ids: tuple[int, ...]
    size: float = 0

    def __getitem__(self, part: slice) -> Mark:
        return Mark(self.text[part], self.ids[part], self.size)

    def __add__(self, other: Mark) -> Mark:
        return Mark(self.text + other.text, self.ids + other.ids, max(self.size, other.size))

    @classmethod
    def plain(cls, text: str) -> Mark:
        """Make text of an answer that is not on the page."""
        return cls(text, (NOWHERE,) * len(text))


class Canvas:
    """An RGB page of `size` (width, height in pixels) that records the position of every character written on it."""

    def __init__(self, size: tuple[int, int], paper: Color = WHITE) -> None:
        self.size = size
        self.image = Image.new("RGB", size, paper)
        self.pen = ImageDraw.Draw(self.image)
        self._places: list[tuple[float, float]] = []
        self._letters: list[str] = []

    @property
    def points(self) -> Points:
        """Middle (x, y) of every character that leaves ink, ``[n, 2]`` pixels."""
        return np.array(self._places, np.float64).reshape(-1, 2)

    @property
    def letters(self) -> str:
        """The characters that leave ink, in the order of `points`."""
        return "".join(self._letters)

    @property
    def printed(self) -> int:
        """Number of characters that leave ink."""
        return len(self._places)

    def write(
        self,
        text: str,
        letters: Type,
        x: float,
        baseline: float,
        ink: Color = BLACK,
        width: float | None = None,
    ) -> Mark:
        """Print one line from pen position (`x`, `baseline`), stretched to `width` if given."""
        letters.draw(self.image, x, baseline, text, ink, width)
        ids = []
        inked = iter(letters.centres(text, x, baseline, width))
        for character in text:
            if character.isspace():
                ids.append(NOWHERE)
                continue
            letter, across, down = next(inked)
            ids.append(len(self._places))
            self._letters.append(letter)
            self._places.append((across, down))
        return Mark(text, tuple(ids), letters.size)

    def write_block(
        self,
        text: str,
        letters: Type,
        box: tuple[float, float, float, float],
        ink: Color = BLACK,
        align: str = "left",
        leading: float = 1.3,
    ) -> tuple[list[Mark], float]:
        """Print as many lines of `text` as fit into `box` (left, top, right, bottom in pixels).

        Args:
            align: ``left``, ``center``, ``right`` or ``justify``.
            leading: distance of lines, times the size of the type.

        Returns the printed lines and the y below the last one.
        """
        left, top, right, bottom = box
        wrapped = letters.wrap(text, right - left)
        marks: list[Mark] = []
        step = letters.size * leading
        y = top
        for i, line in enumerate(wrapped):
            if y + step > bottom:
                break
            slack = right - left - letters.width(line)
            x = left + {"center": slack / 2, "right": slack}.get(align, 0.0)
            whole = align == "justify" and i < len(wrapped) - 1
            marks.append(self.write(line, letters, x, y + letters.size, ink, right - left if whole else None))
            y += step
        return marks, y

    def cut(self, height: int) -> None:
        """Cut the page off below `height` pixels."""
        self.size = (self.size[0], min(self.size[1], height))
        self.image = self.image.crop((0, 0, *self.size))
        self.pen = ImageDraw.Draw(self.image)

    def rule(self, x: float, y: float, width: float, ink: Color = BLACK, thick: int = 1) -> None:
        """Draw a horizontal line."""
        self.pen.rectangle((round(x), round(y), round(x + width), round(y) + thick - 1), fill=ink)

    def dashes(self, x: float, y: float, width: float, ink: Color = BLACK, dash: int = 6) -> None:
        """Draw a dashed horizontal line."""
        for left in range(round(x), round(x + width), 2 * dash):
            self.pen.line((left, round(y), min(left + dash, round(x + width)), round(y)), fill=ink)


@dataclass
class Page:
    """A printed page and its text by meaning.

    Attributes:
        kind: kind of document, such as ``receipt``.
        canvas: the drawn page.
        blocks: lines of each block, in reading order; together they are all the text of the page.
        fields: values by the names that questions use, such as ``total``.
        table: rows of cells, headers first.
        prices: whole-number prices by item, for questions that add them.
        values: values of a chart or an infographic by label.
        subject: name of what the values or the table are about, for questions.
    """

    kind: str
    canvas: Canvas
    blocks: list[list[Mark]] = field(default_factory=list)
    fields: dict[str, Mark] = field(default_factory=dict)
    table: list[list[Mark]] = field(default_factory=list)
    prices: dict[str, Mark] = field(default_factory=dict)
    values: dict[str, Mark] = field(default_factory=dict)
    subject: str = ""

    @property
    def lines(self) -> list[Mark]:
        """All lines in reading order."""
        return [line for block in self.blocks for line in block]

    def keep(self, name: str, mark: Mark | None, value: str | None = None) -> None:
        """Record `mark`, or the last `value` in it, as field `name`; do nothing where it is None."""
        if mark is not None:
            start = mark.text.rindex(value) if value else 0
            self.fields[name] = mark[start : start + len(value or mark.text)]


def join_row(parts: list[Mark]) -> Mark:
    """Join the parts of a row to one line, with a blank between them."""
    line = parts[0]
    for part in parts[1:]:
        line = line + Mark.plain(" ") + part
    return line
