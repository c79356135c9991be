"""Handwritten notes in handwriting fonts, with random changes of height, size, darkness and slant for each word.

The answer is the written text, line by line.
"""

from __future__ import annotations

import random
from functools import lru_cache

from PIL import Image, ImageDraw

from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.fonts import face, families
from fcot_vl.synthesize.ocr.scan import scan
from fcot_vl.synthesize.ocr.sheet import A4, Printed
from fcot_vl.synthesize.ocr.typeset import Type, rasterise

_PAPERS = ("blank", "blank", "ruled", "ruled", "squared", "dotted")


def make(rng: random.Random, content: Content) -> Printed:
    """Make a note on blank, ruled, squared or dotted paper."""
    family = rng.choice(families("hand", content.language))
    # The letters of Kristi and Dancing Script are small for their size.
    size = rng.randint(34, 52) + (12 if family.name in ("Kristi", "Dancing Script") else 0)
    letters = Type(face(family, bold=rng.random() < 0.3), size)
    width = rng.randint(900, 1240)
    step = round(size * rng.uniform(1.35, 1.8))
    margin = rng.randint(70, 120)
    wanted = rng.randint(3, int((A4[1] - 2 * margin) / step))
    height = min(A4[1], round(2 * margin + wanted * step * rng.uniform(1, 1.4)))
    page = paper(rng.choice(_PAPERS), (width, height), step, margin).copy()
    lines: list[str] = []
    while len(lines) < wanted:
        piece = rng.choice((content.sentence, content.sentence, lambda: content.words(2, 6), content.value))()
        lines += letters.wrap(piece, (width - 2 * margin) * 0.94)
    lines = lines[:wanted]
    ink = rng.randint(10, 90)
    for i, line in enumerate(lines):
        baseline = margin + (i + 1) * step - round(step * 0.12)
        write(rng, page, letters, (margin + rng.uniform(0, 15), baseline), line, ink)
    image, stamped = scan(rng, page, content.language)
    return Printed(image, "hand", "\n".join(lines), stamped)


def write(
    rng: random.Random, page: Image.Image, letters: Type, start: tuple[float, float], line: str, ink: int
) -> None:
    """Write one line by hand from pen position `start`, slightly rising or falling."""
    x, baseline = start
    climb = rng.uniform(-0.012, 0.012)
    sizes = [letters, letters, letters.sized(0.95), letters.sized(1.05)]
    words = line.split(" ") if " " in line else _pieces(line)
    gap = letters.space if " " in line else 0.0
    for word in words:
        now = rng.choice(sizes)
        mask, left, top, advance = rasterise(now.font, word)  # the whole word, because scripts kern
        if mask is not None:
            slant = rng.uniform(-0.12, 0.12)
            lean = round(abs(slant) * mask.height) + 1
            mask = mask.transform(
                (mask.width + lean, mask.height),
                Image.Transform.AFFINE,
                (1, slant, -max(slant, 0) * mask.height, 0, 1, 0),
                Image.Resampling.BILINEAR,
            )
            grey = min(255, max(0, ink + rng.randint(-15, 15)))
            place = (round(x) + left, round(baseline + rng.gauss(0, 0.03) * letters.size + climb * x) + top)
            page.paste(grey, place, mask)
        x += advance * 1.01 + gap * rng.uniform(0.9, 1.4)


def _pieces(line: str) -> list[str]:
    """Split a line without blanks: Chinese into characters; one Latin word stays whole."""
    return list(line) if any(ord(c) > 0x2E80 for c in line) else [line]


@lru_cache(maxsize=8)
def paper(kind: str, size: tuple[int, int], step: int, margin: int) -> Image.Image:
    """Draw grey writing paper whose lines match the lines of the handwriting."""
    page = Image.new("L", size, 255)
    pen = ImageDraw.Draw(page)
    width, height = size
    for y in range(margin + step, height - margin // 2, step):
        if kind == "ruled":
            pen.line((0, y, width, y), fill=190)
        elif kind == "dotted":
            pen.point([(x, y) for x in range(0, width, 12)], fill=120)
    if kind == "squared":
        side = step / 2
        for i in range(int(max(width, height) / side) + 1):
            offset = round((margin + step) % side + i * side)
            pen.line((0, offset, width, offset), fill=215)
            pen.line((offset, 0, offset, height), fill=215)
    if kind == "ruled":
        pen.line((margin - 15, 0, margin - 15, height), fill=170)
    return page
