"""Pages of real PDFs with the place of every character, from the text layer (pypdfium2)."""

from __future__ import annotations

import ctypes
import gzip
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from fcot_vl.synthesize.documents.page import NOWHERE, Mark
from fcot_vl.synthesize.ocr.capture import Points

_PLAIN = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2212": "-",
        "\u2022": "*", "\u00a0": " ", "\u00ad": "-", "\u2010": "-", "\u2011": "-",
    }
)  # fmt: skip
_LIGATURES = {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"}
UNREADABLE = "\0"  # stands for a character outside ASCII


def find_pdfs(folder: Path) -> list[Path]:
    """All PDFs below `folder` (also gzipped), by name. Raises FileNotFoundError where there is none."""
    found = sorted([*folder.rglob("*.pdf"), *folder.rglob("*.pdf.gz")], key=lambda p: (p.name, str(p)))
    if not found:
        raise FileNotFoundError(f"{folder}: no PDF here; run tools/embedded_teacher/packages.py first")
    return found


@lru_cache(maxsize=24)
def _open(path: Path) -> pypdfium2.PdfDocument:
    data = path.read_bytes()
    return pypdfium2.PdfDocument(gzip.decompress(data) if path.suffix == ".gz" else data)


def page_count(path: Path) -> int:
    """Number of pages; 0 for a file that cannot be opened."""
    try:
        return len(_open(path))
    except pypdfium2.PdfiumError:
        return 0


@dataclass(frozen=True)
class _Glyph:
    """A glyph of the text layer: the ASCII letters it stands for, their middles in pixels, and its height.

    `written` is a blank or a newline, without middles, where the text layer has one.
    """

    written: str
    middles: tuple[tuple[float, float], ...] = ()
    height: float = 0.0


def _read(path: Path, number: int, dpi: float) -> tuple[Image.Image, list[_Glyph]]:
    """Render page `number` (from 0) in grey at `dpi`, and read its text layer in order."""
    page = _open(path)[number]
    scale = dpi / 72
    image = page.render(scale=scale, grayscale=True).to_pil().convert("L")
    left, _, _, top = page.get_cropbox()
    text = page.get_textpage()
    glyphs: list[_Glyph] = []
    box = [ctypes.c_double() for _ in range(4)]
    for i in range(text.count_chars()):
        code = pdfium.FPDFText_GetUnicode(text, i)
        if code <= 32 or chr(code).isspace():
            glyphs.append(_Glyph("\n" if code in (10, 13) else " "))
            continue
        if pdfium.FPDFText_IsGenerated(text, i) == 1:
            continue
        if not pdfium.FPDFText_GetCharBox(text, i, *(ctypes.byref(value) for value in box)):
            continue
        x0, x1, y0, y1 = (value.value for value in box)
        written = _ascii(chr(code))
        across = (x0 + (x1 - x0) * (k + 0.5) / len(written) for k in range(len(written)))
        down = (top - (y0 + y1) / 2) * scale
        glyphs.append(_Glyph(written, tuple(((x - left) * scale, down) for x in across), (y1 - y0) * scale))
    text.close()
    page.close()
    return image, glyphs


def read_page(path: Path, number: int, dpi: float) -> tuple[Image.Image, str, Points]:
    """Render page `number` (from 0) in grey at `dpi`.

    Returns the image, one character per point (spaces left out, ASCII or `UNREADABLE`), and each character's middle
    (x, y in pixels), in the order of the text layer. A ligature gives its letters side by side.
    """
    image, glyphs = _read(path, number, dpi)
    printed = [glyph for glyph in glyphs if glyph.middles]
    points = [middle for glyph in printed for middle in glyph.middles]
    letters = "".join(glyph.written for glyph in printed)
    return image, letters, np.array(points, np.float64).reshape(-1, 2)


def read_blocks(path: Path, number: int, dpi: float) -> tuple[Image.Image, list[list[Mark]], Points]:
    """Render page `number` (from 0) in grey at `dpi` and find its blocks of lines.

    A block is a run of lines in the text layer that follow each other down the page at about one distance, in about one
    size. Lines with characters outside ASCII, or turned, are left out and end their block.

    Returns the image, the blocks, and the middle (x, y) of every character by the numbers in the marks' ids.
    """
    image, glyphs = _read(path, number, dpi)
    points: list[tuple[float, float]] = []
    lines: list[Mark | None] = []
    for _, run in groupby(glyphs, key=lambda glyph: glyph.written == "\n"):
        line = list(run)
        if any(glyph.middles for glyph in line):
            lines.append(_line(line, points))
    places = np.array(points, np.float64).reshape(-1, 2)
    return image, _blocks(lines, places), places


def _line(glyphs: list[_Glyph], points: list[tuple[float, float]]) -> Mark | None:
    """Join the glyphs of a line and add their middles to `points`; None for a line that is not ASCII."""
    text = ""
    ids: list[int] = []
    for glyph in glyphs:
        if glyph.middles:
            text += glyph.written
            ids += range(len(points), len(points) + len(glyph.middles))
            points += glyph.middles
        elif glyph.written and text and text[-1] != " ":
            text += " "
            ids.append(NOWHERE)
    stripped = text.rstrip(" ")
    if UNREADABLE in stripped:
        return None
    # A capital is about 0.7 of the type's size.
    return Mark(stripped, tuple(ids[: len(stripped)]), max(glyph.height for glyph in glyphs) * 1.35)


def _blocks(lines: list[Mark | None], points: Points) -> list[list[Mark]]:
    """Runs of lines that follow each other down the page."""
    blocks: list[list[Mark]] = [[]]
    before = step = 0.0
    for line in lines:
        inked = [i for i in line.ids if i >= 0] if line is not None else []
        if line is None or not inked:
            blocks.append([])
            continue
        places = points[inked]
        y = float(np.median(places[:, 1]))
        level = np.ptp(places[:, 1]) < 1.6 * line.size and np.all(np.diff(places[:, 0]) > -0.5 * line.size)
        gap = y - before
        near = (
            blocks[-1]
            and 0.5 * line.size < gap < 2.4 * line.size
            and (not step or abs(gap - step) < 0.4 * step)
        )
        if not level:
            blocks.append([])
            continue
        if not near:
            blocks.append([])
            step = 0.0
        else:
            step = gap
        blocks[-1].append(line)
        before = y
    return [block for block in blocks if block]


@lru_cache(maxsize=4096)
def _ascii(letter: str) -> str:
    """`letter` as ASCII would write it, `UNREADABLE` where it would not; empty for what leaves no ink."""
    if letter in _LIGATURES:
        return _LIGATURES[letter]
    plain = letter.translate(_PLAIN)
    if plain.isspace() or not plain.isprintable():
        return "" if plain.isspace() else UNREADABLE
    return plain if " " < plain <= "~" else UNREADABLE if unicodedata.category(plain)[0] != "Z" else ""
