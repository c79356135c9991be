"""Numbers with captions, as slides and infographics print them."""

from __future__ import annotations

import random

from fcot_vl.synthesize.documents.board import Board
from fcot_vl.synthesize.documents.vocabulary import ITEMS

_ADJECTIVES = (
    "Recycled",
    "Fresh",
    "Local",
    "New",
    "Returned",
    "Imported",
    "Organic",
    "Daily",
    "Young",
    "Repaired",
)
NOUNS = (
    "Users",
    "Visitors",
    "Orders",
    "Homes",
    "Trees",
    "Schools",
    "Members",
    "Tickets",
    "Trips",
    "Jobs",
    "Farms",
)


def number(rng: random.Random) -> str:
    """Draw a number, such as ``45%`` or ``3.2M``."""
    return rng.choice(
        (
            f"{rng.randint(2, 99)}%",
            f"{rng.randint(2, 99)}%",
            f"{rng.randint(11, 990)}",
            f"{rng.randint(1, 99)},{rng.randrange(1000):03d}",
            f"{rng.randint(1, 49)}.{rng.randint(1, 9)}M",
            f"${rng.randint(2, 950)}",
            f"{rng.randint(2, 40)}x",
            f"{rng.randint(1, 9)} in 10",
        )
    )


def caption(board: Board) -> str:
    """Draw a caption for a number, of two to four words."""
    rng = board.rng
    noun = rng.choice((rng.choice(NOUNS), rng.choice(ITEMS), rng.choice(ITEMS)))
    first = board.content.word(8).capitalize() if rng.random() < 0.4 else rng.choice(_ADJECTIVES)
    return (
        f"{first} {noun}"
        if rng.random() < 0.8
        else f"{first} {noun} per {rng.choice(('Day', 'Year', 'Home'))}"
    )
