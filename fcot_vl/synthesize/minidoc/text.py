"""Words, codes, dates and numbers that MiniDoc prints, split by content.

First room of the MiniDoc generator. Content words are pseudo-words made of syllables; the hash of a word decides the
one split that may print it, so no content word of a test page is ever printed on a training or validation page.
Field names, column headers and item names are shared vocabulary, as they are on real forms.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_ONSETS = tuple(
    "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl pr sh sl st th tr".split()  # noqa: SIM905
)
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_CODAS = ["", "", "", "", "l", "m", "n", "r", "s", "t", "x", "ck", "nd", "st"]

FIELDS: dict[str, str] = {
    "Name": "name",
    "Agent": "name",
    "Client": "name",
    "Contact": "name",
    "City": "word",
    "Street": "street",
    "Country": "word",
    "Company": "word",
    "Date": "date",
    "Due": "date",
    "Born": "date",
    "Phone": "phone",
    "Fax": "phone",
    "Order": "code",
    "Invoice": "code",
    "Serial": "code",
    "Permit": "code",
    "Total": "money",
    "Tax": "money",
    "Price": "money",
    "Weight": "number",
    "Pages": "number",
    "Room": "number",
    "Color": "word",
}
ITEMS = tuple(
    (  # noqa: SIM905
        "Apple Bread Candle Desk Engine Flour Glove Hammer Ink Jacket Kettle Lamp Mirror Nail Oil Paper Quilt Rope "
        "Soap Table Umbrella Vase Wheel Yarn Zipper Brush Chair Drill Fan Guitar Hose Iron Jar Knife Ladder Mat "
        "Needle Oven Pump Ring Saw Tile Urn Valve Wire Basket Clock Door Easel Flag"
    ).split()
)
COLUMNS = ["Price", "Stock", "Sold", "Cost", "Size", "Units", "Days", "Score", "Left", "Due"]


def split_of(word: str) -> Split:
    """The only split that may print the content word `word` (80 / 10 / 10 by CRC-32 of its lower case)."""
    bucket = zlib.crc32(word.lower().encode()) % 10
    return "test" if bucket == 9 else "validation" if bucket == 8 else "train"


def word(rng: random.Random, split: Split, longest: int = 10) -> str:
    """A lower-case pseudo-word of `split`, 2 to `longest` letters."""
    while True:
        syllables = rng.choice((1, 2, 2, 2, 3))
        made = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)
        )
        if len(made) <= longest and split_of(made) == split:
            return made


def code(rng: random.Random, split: Split) -> str:
    """An identifier such as ``KX-4071`` that only `split` may print."""
    while True:
        made = (
            "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2)) + f"-{rng.randrange(10000):04d}"
        )
        if split_of(made) == split:
            return made


def value(rng: random.Random, split: Split, kind: str) -> str:
    """A field value of one of the kinds in `FIELDS`."""
    if kind == "name":
        return f"{word(rng, split, 7).capitalize()} {word(rng, split, 8).capitalize()}"
    if kind == "word":
        return word(rng, split).capitalize()
    if kind == "street":
        return f"{rng.randrange(1, 99)} {word(rng, split, 8).capitalize()} St"
    if kind == "date":
        return f"{rng.randrange(1, 29):02d}/{rng.randrange(1, 13):02d}/{rng.randrange(1980, 2030)}"
    if kind == "phone":
        return f"{rng.randrange(100, 1000)}-{rng.randrange(10000):04d}"
    if kind == "code":
        return code(rng, split)
    if kind == "money":
        return f"${rng.randrange(1, 1000)}.{rng.randrange(100):02d}"
    if kind == "number":
        return str(rng.randrange(1, 1000))
    raise ValueError(f"unknown field kind {kind!r}")


def running_text(rng: random.Random, split: Split, width: int, lines: int) -> list[str]:
    """`lines` lines of at most `width` characters: words, numbers and punctuation, never empty."""
    made: list[str] = []
    while len(made) < lines:
        line = ""
        while True:
            draw = rng.random()
            longest = max(2, min(10, width - len(line) - bool(line)))
            if draw < 0.10:
                piece = str(rng.randrange(10 ** rng.randrange(1, 5)))
            elif draw < 0.15:
                piece = code(rng, split)
            else:
                piece = word(rng, split, longest)
                if rng.random() < 0.2:
                    piece = piece.capitalize()
                if rng.random() < 0.15:
                    piece += rng.choice(".,;:")
            candidate = f"{line} {piece}" if line else piece
            if len(candidate) > width:
                break
            line = candidate
            if len(line) > width - 3 or (len(line) > width // 2 and rng.random() < 0.04):
                break
        if line:
            made.append(line)
    return made
