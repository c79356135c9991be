"""Values and running text that MiniDoc prints, and the names of its fields, columns and items.

Words and codes belong to one split each (`documents.words`). Names of fields, columns and items are shared by all
splits, as they are on real forms.
"""

from __future__ import annotations

import random

from fcot_vl.synthesize.documents.words import Split, code, word

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
