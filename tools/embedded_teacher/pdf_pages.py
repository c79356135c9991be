"""Pages of real PDFs with the place of every character, from the text layer (pypdfium2)."""

from __future__ import annotations

import ctypes
import gzip
import unicodedata
from functools import lru_cache
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


def read_page(path: Path, number: int, dpi: float) -> tuple[Image.Image, str, Points]:
    """Render page `number` (from 0) in grey at `dpi`.

    Returns the image, one character per point (spaces left out, ASCII or `UNREADABLE`), and each character's middle
    (x, y in pixels), in the order of the text layer. A ligature gives its letters side by side.
    """
    document = _open(path)
    page = document[number]
    scale = dpi / 72
    image = page.render(scale=scale, grayscale=True).to_pil().convert("L")
    left, _, _, top = page.get_cropbox()
    text = page.get_textpage()
    letters: list[str] = []
    points: list[tuple[float, float]] = []
    box = [ctypes.c_double() for _ in range(4)]
    for i in range(text.count_chars()):
        code = pdfium.FPDFText_GetUnicode(text, i)
        if code <= 32 or pdfium.FPDFText_IsGenerated(text, i) == 1:
            continue
        if not pdfium.FPDFText_GetCharBox(text, i, *(ctypes.byref(value) for value in box)):
            continue
        x0, x1, y0, y1 = (value.value for value in box)
        for k, letter in enumerate(written := _ascii(chr(code))):
            x = x0 + (x1 - x0) * (k + 0.5) / len(written)
            points.append(((x - left) * scale, (top - (y0 + y1) / 2) * scale))
            letters.append(letter)
    text.close()
    page.close()
    return image, "".join(letters), np.array(points, np.float64).reshape(-1, 2)


def read_blocks(path: Path, number: int, dpi: float) -> tuple[Image.Image, list[list[Mark]], Points]:
    """Render page `number` (from 0) in grey at `dpi` and find its blocks of lines.

    A block is a run of lines in the text layer that follow each other down the page at about one distance, in about one
    size. Lines with characters outside ASCII, or turned, are left out and end their block.

    Returns the image, the blocks, and the middle (x, y) of every character by the numbers in the marks' ids.
    """
    document = _open(path)
    page = document[number]
    scale = dpi / 72
    image = page.render(scale=scale, grayscale=True).to_pil().convert("L")
    left, _, _, top = page.get_cropbox()
    text = page.get_textpage()
    points: list[tuple[float, float]] = []
    lines: list[Mark | None] = []
    letters: list[str] = []
    ids: list[int] = []
    highest = 0.0

    def end_line() -> None:
        nonlocal highest
        while letters and letters[-1] == " ":
            letters.pop()
            ids.pop()
        if letters:
            line = "".join(letters)
            lines.append(None if UNREADABLE in line else Mark(line, tuple(ids), highest))
        letters.clear()
        ids.clear()
        highest = 0.0

    box = [ctypes.c_double() for _ in range(4)]
    for i in range(text.count_chars()):
        code = pdfium.FPDFText_GetUnicode(text, i)
        if code in (10, 13):
            end_line()
            continue
        if code <= 32 or chr(code).isspace():
            if letters and letters[-1] != " ":
                letters.append(" ")
                ids.append(NOWHERE)
            continue
        if not pdfium.FPDFText_GetCharBox(text, i, *(ctypes.byref(value) for value in box)):
            continue
        x0, x1, y0, y1 = (value.value for value in box)
        highest = max(highest, (y1 - y0) * scale * 1.35)  # a capital is about 0.7 of the type's size
        for k, letter in enumerate(written := _ascii(chr(code))):
            letters.append(letter)
            ids.append(len(points))
            x = x0 + (x1 - x0) * (k + 0.5) / len(written)
            points.append(((x - left) * scale, (top - (y0 + y1) / 2) * scale))
    end_line()
    text.close()
    page.close()
    places = np.array(points, np.float64).reshape(-1, 2)
    return image, _blocks(lines, places), places


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
