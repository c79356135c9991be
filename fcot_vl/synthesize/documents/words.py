"""Made-up words and codes, each of which belongs to one of the splits train, validation and test.

Words are made of syllables. The hash of a word names the only split that may print it, so no word or code of a test
page is printed on a page of another split.
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


def split_of(word: str) -> Split:
    """Return the only split that may print `word`: 80 / 10 / 10 % by CRC-32 of its lower case."""
    bucket = zlib.crc32(word.lower().encode()) % 10
    return "test" if bucket == 9 else "validation" if bucket == 8 else "train"


def word(rng: random.Random, split: Split, longest: int = 10) -> str:
    """Draw a lower-case word of `split`, of 2 to `longest` letters."""
    while True:
        syllables = rng.choice((1, 2, 2, 2, 3))
        made = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)
        )
        if len(made) <= longest and split_of(made) == split:
            return made


def code(rng: random.Random, split: Split) -> str:
    """Draw an identifier of `split`, such as ``KX-4071``."""
    while True:
        made = (
            "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2)) + f"-{rng.randrange(10000):04d}"
        )
        if split_of(made) == split:
            return made
