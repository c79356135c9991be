"""A page being printed: paper, and what was printed on it in reading order.

Between `typeset` and the kinds of pages. What `Sheet` keeps is what reached the paper, so that the answer of a record
is never more or less than what can be read.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from fcot_vl.data.synthesize.ocr.fonts import Language, face, families
from fcot_vl.data.synthesize.ocr.instructions import Request
from fcot_vl.data.synthesize.ocr.typeset import Type, unwrap

A4 = (1240, 1754)  # 150 dpi


@dataclass(frozen=True)
class Printed:
    """A finished page: the picture, what is asked about it, the answer, and whether a stamp is to be left out."""

    image: Image.Image
    request: Request
    answer: str
    stamped: bool = False


@dataclass
class Sheet:
    """Grey paper of `size` (width, height in pixels); `paragraphs` are the lines printed, in order."""

    size: tuple[int, int] = A4
    ink: int = 0
    paragraphs: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image = Image.new("L", self.size, 255)
        self.pen = ImageDraw.Draw(self.image)

    def print(
        self,
        text: str,
        letters: Type,
        box: tuple[float, float, float, float],
        *,
        align: str = "left",
        indent: float = 0,
        leading: float = 1.35,
    ) -> float:
        """Print as many lines of `text` as fit into `box` and remember them as a paragraph.

        Args:
            box: left, top, width and bottom, pixels.
            align: ``left``, ``center``, ``right``, or ``justify``.
            indent: of the first line.
            leading: distance of lines, times the size of the type.

        Returns the y below the last line; `box`'s top when nothing fitted.
        """
        x, top, width, bottom = box
        step = letters.size * leading
        room = int((bottom - top) / step)
        if room < 1:
            return top
        wrapped = letters.wrap(text, width, width - indent)
        lines = wrapped[:room]
        for i, line in enumerate(lines):
            left, wide = (x + indent, width - indent) if i == 0 else (x, width)
            if align == "center":
                left += (wide - letters.width(line)) / 2
            elif align == "right":
                left += wide - letters.width(line)
            whole = align == "justify" and i < len(wrapped) - 1
            letters.draw(
                self.image, left, top + step * i + letters.size, line, self.ink, wide if whole else None
            )
        if lines:
            self.paragraphs.append(lines)
        return top + step * len(lines)

    def rule(self, x: float, y: float, width: float, grey: int = 0, thick: int = 1) -> None:
        """A horizontal line."""
        self.pen.rectangle((round(x), round(y), round(x + width), round(y) + thick - 1), fill=grey)

    def text(self, lines: bool) -> str:
        """What was printed: line by line, or with the lines of a paragraph joined and a blank line between."""
        if lines:
            return "\n".join(line for paragraph in self.paragraphs for line in paragraph)
        return "\n\n".join(unwrap(paragraph) for paragraph in self.paragraphs)


def types(rng: random.Random, language: Language, size: int) -> tuple[Type, Type]:
    """Body and bold type of one installed family, `size` pixels (in Chinese the even number that is not less)."""
    if (
        language == "zh"
    ):  # a page has hundreds of different characters: fewer sizes, more of them rasterised before
        size += size % 2
    family = rng.choice(families("print", language))
    return Type(face(family), size), Type(face(family, bold=True), size)
