"""Draw a contact sheet of OCR-like pages: the first samples of some kinds side by side, as one small JPEG.

    python tools/contact_sheet.py docs/images/synthesize/text.jpg text text_zh

The images of `docs/stages/synthesize.md` were made with it. One row per kind, four pages per row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from fcot_vl.synthesize.ocr import KINDS, make_sample

_ROW, _CELL = 4, (300, 400)
_GAP = 8
_MOST = 150_000  # bytes


def sheet(kinds: list[str], seed: int) -> Image.Image:
    """Pages of `kinds`, a row each, shrunk to fit their cell."""
    width = _CELL[0] + _GAP
    rows = []
    for kind in kinds:
        pages = [make_sample(kind, index, seed).images[0].convert("RGB") for index in range(_ROW)]
        for page in pages:
            page.thumbnail(_CELL, Image.Resampling.LANCZOS, reducing_gap=3)
        rows.append(pages)
    heights = [max(page.height for page in pages) + _GAP for pages in rows]
    canvas = Image.new("RGB", (_ROW * width + _GAP, sum(heights) + _GAP), (150, 150, 150))
    for r, pages in enumerate(rows):
        for i, page in enumerate(pages):
            canvas.paste(page, (_GAP + i * width, _GAP + sum(heights[:r])))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("kinds", nargs="+", choices=list(KINDS), metavar="KIND")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    image = sheet(arguments.kinds, arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(85, 20, -5):
        image.save(arguments.output, "JPEG", quality=quality, optimize=True)
        if arguments.output.stat().st_size <= _MOST:
            break


if __name__ == "__main__":
    main()
