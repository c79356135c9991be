"""Lines of text: breaking, measuring and printing them, fast.

Above `fonts`, below every kind of page. Whole words (single characters in Chinese) are rasterised once a process and
then only copied, which costs a fraction of drawing a page letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw

from fcot_vl.data.synthesize.ocr.fonts import Face, truetype

_CJK = "\u2e80-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uffef"
# One Chinese character or one word, with the marks that must not end or begin a line; or a space.
_UNITS = re.compile(rf"[“‘（《「『【]*(?:[{_CJK}]|[^\s{_CJK}]+)[，。、；：！？）》」』】”’]*|\s+")
_IS_CJK = re.compile(rf"[{_CJK}“”‘’]")


@lru_cache(maxsize=30_000)
def _raster(path: str, index: int, size: int, text: str) -> tuple[Image.Image | None, int, int, float]:
    """Ink of a word (None for blank), its place relative to the pen on the baseline, and its advance."""
    font = truetype(path, index, size)
    left, top, right, bottom = (int(v) for v in font.getbbox(text, anchor="ls"))
    advance = font.getlength(text)
    if right <= left or bottom <= top:
        return None, 0, 0, advance
    ink = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(ink).text((-left, -top), text, fill=255, font=font, anchor="ls")
    return ink, left, top, advance


@dataclass(frozen=True)
class Type:
    """A face at a size in pixels."""

    face: Face
    size: int

    def sized(self, factor: float) -> Type:
        """The same face, `factor` times as large."""
        return replace(self, size=round(self.size * factor))

    @property
    def space(self) -> float:
        """Width of a blank."""
        return _raster(self.face.path, self.face.index, self.size, " ")[3]

    def word(self, text: str) -> tuple[Image.Image | None, int, int, float]:
        """Ink of one word, its left and top relative to the pen, its advance."""
        return _raster(self.face.path, self.face.index, self.size, text)

    def width(self, text: str) -> float:
        """Width of a line as `draw` prints it, pixels."""
        return sum(self.word(" " if unit.isspace() else unit)[3] for unit in _UNITS.findall(text))

    def wrap(self, text: str, width: float, first: float | None = None) -> list[str]:
        """Lines of `text` no wider than `width`; characters the face lacks, and words too wide, are left out.

        Args:
            first: width of the first line, where it is indented.
        """
        room = width if first is None else first
        lines: list[str] = []
        line, used, gap = "", 0.0, False
        for unit in _UNITS.findall(self.face.keep(text)):
            if unit.isspace():
                gap = bool(line)
                continue
            wide = self.word(unit)[3]
            if wide > width:
                continue
            before = self.space if gap else 0.0
            if line and used + before + wide > room:
                lines.append(line)
                line, used, room = unit, wide, width
            else:
                line, used = line + " " * gap + unit, used + before + wide
            gap = False
        return [*lines, line] if line else lines

    def draw(
        self,
        page: Image.Image,
        x: float,
        baseline: float,
        line: str,
        ink: int = 0,
        width: float | None = None,
    ) -> None:
        """Print `line` on a grey or RGB page from pen position (`x`, `baseline`), stretched to `width` if given."""
        colour = ink if page.mode == "L" else (ink, ink, ink)
        units = _UNITS.findall(line)
        words = [self.word(" " if unit.isspace() else unit) for unit in units]
        stretch = 0.0
        gaps = [unit.isspace() for unit in units]
        if width is not None and len(units) > 1:
            if not any(gaps):  # Chinese: between all characters
                gaps = [i < len(units) - 1 for i in range(len(units))]
            stretch = (width - sum(word[3] for word in words)) / sum(gaps)
        for (mask, left, top, advance), wide in zip(words, gaps, strict=True):
            if mask is not None:
                page.paste(colour, (round(x) + left, round(baseline) + top), mask)
            x += advance + stretch * wide


def unwrap(lines: Sequence[str]) -> str:
    """The paragraph that `lines` were broken from: a blank between them, none beside a Chinese character."""
    text = ""
    for line in lines:
        glued = not text or bool(_IS_CJK.match(text[-1]) or _IS_CJK.match(line[:1]))
        text += line if glued else f" {line}"
    return text
