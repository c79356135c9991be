"""Typefaces to train the embedded teacher with: every font file below some folders that prints all of ASCII.

Families that the benchmark keeps for its tests (`UNSEEN`) are left out; a few others (`VALIDATION`) only validate.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from fcot_vl.synthesize.ocr.fonts import Face

PYTHON_FONTS = ("font_lato", "font_source_sans_pro", "font_source_serif_pro")
UNSEEN = re.compile(r"roboto(?!slab)|caladea|manrope", re.IGNORECASE)
VALIDATION = re.compile(r"^(go-|go\.|cantarell|tuffy)", re.IGNORECASE)
_NO_PRINT = re.compile(
    r"symbol|dingbat|math|emoji|ornament|bullet|initial|icon|logo|smcp|caps|shadow|outline|chancery|chorus|"
    r"lastresort|nonuni|siz(one|two|three|four|five)|cmex|cmmi|cmsy|keyboard|music|"
    r"sourceserifpro-\w+\.ttf",  # wrong widths of %, \" and ` at small sizes; its .otf files are right
    re.IGNORECASE,
)
_NOTO = re.compile(r"^Noto(Sans|Serif|SansMono|SansDisplay|SerifDisplay)-")
_ASCII = frozenset(range(33, 127))


def folders(fonts: Path) -> list[Path]:
    """`fonts`, and the font folders of matplotlib and `PYTHON_FONTS`. Raises ModuleNotFoundError naming the package."""
    found = [fonts]
    for name, inside in (("matplotlib", "mpl-data/fonts/ttf"), *((name, "files") for name in PYTHON_FONTS)):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{name} is missing: pip install -e '.[dev]'")
        found.append(Path(spec.submodule_search_locations[0]) / inside)
    return found


def typefaces(places: Iterable[Path], validation: bool = False) -> list[list[Face]]:
    """The usable faces of each package, in an order that depends on file names alone; of a name the first file counts.

    Args:
        validation: the faces that only validate, in place of those to train with.
    """
    files: dict[str, tuple[str, Path]] = {}
    for place in places:
        for path in sorted(place.rglob("*.[ot]tf"), key=lambda path: (path.name, str(path))):
            inside = path.relative_to(place).parts
            files.setdefault(path.name, (inside[0] if len(inside) > 1 else name_of(path), path))
    packages: dict[str, list[Face]] = {}
    for name in sorted(files):
        package, path = files[name]
        foreign = name.startswith("Noto") and not _NOTO.match(name)
        if UNSEEN.search(name) or _NO_PRINT.search(name) or foreign:
            continue
        if bool(VALIDATION.search(name)) is validation and _prints_ascii(path):
            packages.setdefault(package, []).append(Face(name_of(path), str(path)))
    return [packages[package] for package in sorted(packages)]


def name_of(path: Path) -> str:
    """Name of the family, from that of a font file."""
    return re.split(r"[-_.]", path.name)[0].lower()


def _prints_ascii(path: Path) -> bool:
    """True if the font has all of printable ASCII, with small letters that differ from the capitals."""
    with TTFont(path, lazy=True) as font:
        characters = font.getBestCmap() or {}
    if not _ASCII.issubset(characters):
        return False
    font = ImageFont.truetype(str(path), 40, layout_engine=ImageFont.Layout.BASIC)
    drawn = []
    for letter in ("g", "G"):
        image = Image.new("L", (80, 80), 0)
        ImageDraw.Draw(image).text((10, 60), letter, fill=255, font=font, anchor="ls")
        drawn.append(image.crop(image.getbbox()).resize((24, 24)).tobytes() if image.getbbox() else b"")
    small, capital = drawn
    if not small or not capital:
        return False
    return sum(abs(a - b) for a, b in zip(small, capital, strict=True)) / len(small) > 15
