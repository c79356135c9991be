"""Typesetting: break, measure and print lines of text, fast.

This module is above `fonts` and below every kind of page. Each letter of a face and size is rasterised once per process
and then copied, which takes a fraction of the time of drawing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcot_vl.synthesize.ocr.fonts import Face, truetype

_CJK = "\u2e80-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uffef"
# A Chinese character or a word, with the marks that must not end or begin a line; or whitespace.
_UNITS = re.compile(rf"[“‘（《「『【]*(?:[{_CJK}]|[^\s{_CJK}]+)[，。、；：！？）》」』】”’]*|\s+")
_IS_CJK = re.compile(rf"[{_CJK}“”‘’]")


class _Glyphs(dict[str, tuple[np.ndarray | None, int, int, float]]):
    """Letters of a face at a size: ink (None for blank), left and top from the pen on the baseline, advance."""

    def __init__(self, path: str, index: int, size: int) -> None:
        super().__init__()
        self.font = truetype(path, index, size)

    def __missing__(self, letter: str) -> tuple[np.ndarray | None, int, int, float]:
        mask, left, top, advance = rasterise(self.font, letter)
        self[letter] = made = (None if mask is None else np.asarray(mask), left, top, advance)
        return made


@lru_cache(maxsize=192)
def _glyphs(path: str, index: int, size: int) -> _Glyphs:
    return _Glyphs(path, index, size)


def rasterise(font: ImageFont.FreeTypeFont, text: str) -> tuple[Image.Image | None, int, int, float]:
    """Return the ink of `text` (None for blank), its left and top from the pen on the baseline, and its advance."""
    left, top, right, bottom = (int(v) for v in font.getbbox(text, anchor="ls"))
    advance = font.getlength(text)
    if right <= left or bottom <= top:
        return None, 0, 0, advance
    ink = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(ink).text((-left, -top), text, fill=255, font=font, anchor="ls")
    return ink, left, top, advance


@dataclass(frozen=True)
class Type:
    """Face at a size in pixels."""

    face: Face
    size: int

    def sized(self, factor: float) -> Type:
        """Return the same face, `factor` times as large."""
        return replace(self, size=round(self.size * factor))

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        """Open font of this face and size."""
        return truetype(self.face.path, self.face.index, self.size)

    @property
    def glyphs(self) -> _Glyphs:
        """Letters rasterised so far. Looking up another letter rasterises it."""
        return _glyphs(self.face.path, self.face.index, self.size)

    @property
    def space(self) -> float:
        """Width of a blank in pixels."""
        return self.glyphs[" "][3]

    def width(self, text: str) -> float:
        """Compute the width in pixels of a line as `draw` prints it."""
        glyphs = self.glyphs
        return sum(glyphs[letter][3] for letter in text)

    def fitted(self, text: str, width: float, least: float) -> Type | None:
        """Return the largest type, from this one down to `least` pixels, that prints `text` within `width`, or None."""
        letters = self
        while letters.width(text) > width:
            if letters.size - 1 < least:
                return None
            letters = replace(letters, size=letters.size - 1)
        return letters

    def wrap(self, text: str, width: float, first: float | None = None) -> list[str]:
        """Break `text` into lines of at most `width`, without words that are too wide and characters the face lacks.

        Args:
            first: Width of the first line, if it is indented.
        """
        room = width if first is None else first
        lines: list[str] = []
        line, used, gap = "", 0.0, False
        for unit in _UNITS.findall(self.face.keep(text)):
            if unit.isspace():
                gap = bool(line)
                continue
            wide = self.width(unit)
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
        ink: int | tuple[int, int, int] = 0,
        width: float | None = None,
    ) -> None:
        """Print `line` on a grey or RGB page from pen position (`x`, `baseline`), stretched to `width` if given."""
        glyphs = self.glyphs
        above, side = 2 * self.size, self.size  # space for accents and for slanted letters
        whole = self.width(line)
        reach = round(whole if width is None else max(whole, width)) + 2 * side
        strip = np.zeros((above + self.size, reach), np.uint8)
        for letter, pen in self._pens(line, side + x % 1, width):
            mask, left, top, _ = glyphs[letter]
            if mask is not None:
                row, column = above + top, round(pen) + left
                part = strip[row : row + mask.shape[0], column : column + mask.shape[1]]
                np.maximum(part, mask[: part.shape[0], : part.shape[1]], out=part)
        colour = (ink, ink, ink) if page.mode == "RGB" and isinstance(ink, int) else ink
        page.paste(colour, (int(x // 1) - side, round(baseline) - above), Image.fromarray(strip))

    def centres(
        self, line: str, x: float, baseline: float, width: float | None = None
    ) -> list[tuple[str, float, float]]:
        """Return every character of `line` that leaves ink, with the centre of its ink.

        The centre (x, y) is in pixels, as `draw` prints the character.
        """
        found = []
        for letter, pen in self._pens(line, x, width):
            mask, left, top, _ = self.glyphs[letter]
            if mask is not None:
                high, wide = mask.shape
                found.append((letter, round(pen) + left + wide / 2, round(baseline) + top + high / 2))
        return found

    def _pens(self, line: str, pen: float, width: float | None) -> Iterator[tuple[str, float]]:
        """Yield every character with its pen position, starting at `pen`, stretched to `width` if given."""
        units = _UNITS.findall(line) if width is not None else [line]
        gaps = [unit.isspace() for unit in units]
        if not any(gaps):  # Chinese: stretch between all characters
            gaps = [i < len(units) - 1 for i in range(len(units))]
        spare = width - self.width(line) if width is not None else 0.0
        stretch = spare / sum(gaps) if any(gaps) else 0.0
        for unit, wide in zip(units, gaps, strict=True):
            for letter in unit:
                yield letter, pen
                pen += self.glyphs[letter][3]
            pen += stretch * wide


def unwrap(lines: Sequence[str]) -> str:
    """Join `lines` to the paragraph they were broken from, with blanks except beside Chinese characters."""
    text = ""
    for line in lines:
        glued = not text or bool(_IS_CJK.match(text[-1]) or _IS_CJK.match(line[:1]))
        text += line if glued else f" {line}"
    return text
