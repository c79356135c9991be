"""Text of the pages: names, addresses, dates, amounts, codes and sentences.

Names, codes and rare words are made of syllables, and each belongs to one split (`words.split_of`), so no test
page can be answered from memory. Labels, items and common English words are shared by all splits, as on real documents.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Callable

from fcot_vl.synthesize.documents.vocabulary import COMMON, ITEMS, MONTHS
from fcot_vl.synthesize.documents.words import Split, code, split_of, word

_RUDE = re.compile(
    "fuck|shit|cunt|dick|cock|piss|slut|rape|nazi|nig|fag|tit|cum|poo|bum|arse|ass"
)  # by chance
_DAY = (datetime.date(1985, 1, 1).toordinal(), datetime.date(2030, 12, 31).toordinal())
_KINDS = ("Mini", "Large", "Blue", "Red", "White", "Steel", "Fresh", "Soft", "Extra", "Classic")
_COMPANY = ("Ltd", "Inc", "GmbH", "Sdn Bhd", "& Sons", "Trading", "Store", "Services", "Group", "Market")
_STREET = ("Street", "Road", "Lane", "Avenue", "Jalan", "Way", "Square")


class Content:
    """Source of the text of one page, drawn from `rng`. Made-up words and codes belong to `split`."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng, self.split = rng, split

    def word(self, longest: int = 10) -> str:
        """Draw a lower-case word of the split."""
        while _RUDE.search(made := word(self.rng, self.split, longest)):
            pass
        return made

    def name(self) -> str:
        """Draw the name of a person."""
        return f"{self.word(7).capitalize()} {self.word(8).capitalize()}"

    def company(self) -> str:
        """Draw the name of a company or shop."""
        first = self.word(9).capitalize()
        if self.rng.random() < 0.4:
            first += f" {self.word(8).capitalize()}"
        return f"{first} {self.rng.choice(_COMPANY)}"

    def city(self) -> str:
        """Draw the name of a town."""
        return self.word(9).capitalize()

    def street(self) -> str:
        """Draw a street with a number."""
        number, kind = self.rng.randint(1, 199), self.rng.choice(_STREET)
        name = self.word(8).capitalize()
        return f"{number} {kind} {name}" if kind == "Jalan" else f"{number} {name} {kind}"

    def town(self) -> str:
        """Draw the name of a town with its postal code."""
        return f"{self.rng.randrange(10000, 99999)} {self.city()}"

    def date(self, style: int | None = None) -> str:
        """Draw a date from 1985 to 2030, written in one of seven styles; in `style` (0 to 6) where given."""
        day = datetime.date.fromordinal(self.rng.randint(*_DAY))
        d, m, y = day.day, day.month, day.year
        ways = (
            f"{d:02d}/{m:02d}/{y}",
            f"{y}-{m:02d}-{d:02d}",
            f"{d:02d}.{m:02d}.{y}",
            f"{d} {MONTHS[m - 1]} {y}",
            f"{MONTHS[m - 1]} {d}, {y}",
            f"{d:02d}-{m:02d}-{y}",
            f"{d:02d}/{m:02d}/{y % 100:02d}",
        )
        return ways[self.rng.randrange(len(ways)) if style is None else style]

    def time(self) -> str:
        """Draw a time of day from 7:00 to 22:59."""
        return f"{self.rng.randint(7, 22):02d}:{self.rng.randrange(60):02d}"

    def phone(self) -> str:
        """Draw a telephone number."""
        rng = self.rng
        return rng.choice(
            (
                f"{rng.randrange(100, 1000)}-{rng.randrange(10000):04d}",
                f"0{rng.randrange(10, 99)}-{rng.randrange(10**7):07d}",
                f"+{rng.randrange(1, 99)} {rng.randrange(100, 1000)} {rng.randrange(10**6):06d}",
            )
        )

    def code(self) -> str:
        """Draw an identifier that only this split prints."""
        while True:
            rng = self.rng
            made = rng.choice(
                (
                    code(rng, self.split),
                    f"{rng.randrange(10**7, 10**9)}",
                    f"{rng.choice('ABCDEFGHJKLMNPRSTUVWXYZ')}{rng.randrange(10**5, 10**7)}",
                    f"{rng.randrange(100, 1000)}-{rng.randrange(10**4):04d}-{rng.randrange(100):02d}",
                )
            )
            if split_of(made) == self.split:
                return made

    def cents(self, low: int = 50, high: int = 20_000) -> int:
        """Draw an amount in hundredths."""
        return self.rng.randint(low, high)

    def item(self) -> str:
        """Draw the name of something that is sold."""
        item = self.rng.choice(ITEMS)
        return f"{self.rng.choice(_KINDS)} {item}" if self.rng.random() < 0.35 else item

    def items(self, count: int) -> list[str]:
        """Draw the names of `count` different things that are sold."""
        return different(self.item, count)

    def words(self, least: int, most: int) -> list[str]:
        """Draw `least` to `most` words, half of them common English, half of the split."""
        rng = self.rng
        return [
            rng.choice(COMMON) if rng.random() < 0.55 else self.word()
            for _ in range(rng.randint(least, most))
        ]

    def title(self, most: int = 5) -> str:
        """Draw a heading of up to `most` words."""
        words = self.words(1, most)
        return " ".join(words).title() if self.rng.random() < 0.5 else " ".join(words).capitalize()

    def sentence(self) -> str:
        """Draw a sentence, with numbers, names and punctuation."""
        rng = self.rng
        words = self.words(4, 14)
        if rng.random() < 0.35:
            made = rng.choice(
                (self.name, self.code, self.date, self.city, lambda: str(rng.randrange(1, 5000)))
            )()
            words[rng.randrange(len(words))] = made
        for i in range(2, len(words) - 1):
            if rng.random() < 0.09:
                words[i] += rng.choice((",", ",", ";", ":"))
        if rng.random() < 0.08:
            at = rng.randrange(len(words))
            words[at] = rng.choice(('"{}"', "({})", "'{}'")).format(words[at].rstrip(",;:"))
        text = " ".join(words)
        return text[0].upper() + text[1:] + rng.choice("......!?")


def money(cents: int, sign: str = "") -> str:
    """Format an amount in hundredths as ``1,234.50``, with `sign` before it."""
    return f"{sign}{cents / 100:,.2f}"


def different(draw: Callable[[], str], count: int) -> list[str]:
    """Return `count` different texts that `draw` returns."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)
