"""Page being printed: the paper, and the text printed on it in reading order.

This module sits between `typeset` and the kinds of pages. `Sheet` only keeps text that was printed, so that the answer
of a sample is exactly the readable text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from fcot_vl.synthesize.ocr.fonts import Language, face, families
from fcot_vl.synthesize.ocr.instructions import Request
from fcot_vl.synthesize.ocr.typeset import Type, unwrap

A4 = (1240, 1754)  # 150 dpi


@dataclass(frozen=True)
class Printed:
    """Finished page: the image, the request, the answer, and a flag if a stamp is to be ignored."""

    image: Image.Image
    request: Request
    answer: str
    stamped: bool = False


@dataclass
class Sheet:
    """Grey paper of `size` (width, height in pixels). `paragraphs` are the printed lines, in order."""

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
        """Print as many lines of `text` as fit into `box`, and record them as a paragraph.

        Args:
            box: Left, top, width and bottom in pixels.
            align: ``left``, ``center``, ``right``, or ``justify``.
            indent: Indent of the first line in pixels.
            leading: Distance between lines, as a multiple of the type size.

        Returns:
            The y below the last line, or the top of `box` if nothing fitted.
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
        """Draw a horizontal line."""
        self.pen.rectangle((round(x), round(y), round(x + width), round(y) + thick - 1), fill=grey)

    def text(self, lines: bool) -> str:
        """Return the printed text.

        Args:
            lines: Return it line by line. Otherwise the lines of a paragraph are joined, with a blank line between
                paragraphs.
        """
        if lines:
            return "\n".join(line for paragraph in self.paragraphs for line in paragraph)
        return "\n\n".join(unwrap(paragraph) for paragraph in self.paragraphs)


def types(rng: random.Random, language: Language, size: int) -> tuple[Type, Type]:
    """Return body and bold type of one installed family, `size` pixels; in Chinese, rounded up to an even number."""
    if language == "zh":  # a page has hundreds of characters; fewer sizes mean that more are cached
        size += size % 2
    family = rng.choice(families("print", language))
    return Type(face(family), size), Type(face(family, bold=True), size)
