"""Labels and values that charts show."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fcot_vl.synthesize.documents.content import Content, different
from fcot_vl.synthesize.documents.vocabulary import DAYS, ITEMS, MONTHS


@dataclass(frozen=True)
class Series:
    """Categories and their values.

    Attributes:
        what: what the categories are, such as ``month``.
        texts: the values as printed, with `prefix` and `suffix`.
    """

    labels: list[str]
    what: str
    numbers: list[float]
    texts: list[str]
    prefix: str
    suffix: str

    def printed(self, value: float) -> str:
        """Return `value` as it is printed at a tick of the axis."""
        text = f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
        return f"{self.prefix}{text}{self.suffix}"


def draw_series(content: Content, form: str, count: int, tens: bool) -> Series:
    """Draw `count` categories with different values for a chart of `form`; tens below 100 where `tens` is True."""
    labels, what = _labels(content, form, count)
    numbers, texts, prefix, suffix = _values(content.rng, form, count, tens)
    return Series(labels, what, numbers, texts, prefix, suffix)


def _labels(content: Content, form: str, count: int) -> tuple[list[str], str]:
    """Draw names of the categories, and what they are."""
    rng = content.rng
    kind = rng.choice(("month", "year", "quarter", "day", "product", "city", "region", "person"))
    if form == "line":
        kind = rng.choice(("month", "year", "year", "day"))
    elif form == "pie":
        kind = rng.choice(("product", "city", "person"))
    if kind == "day" and count <= 7:
        return [day[:3] for day in DAYS[:count]], "day"
    if kind in ("month", "day"):
        first = rng.randrange(12 - count + 1)
        return MONTHS[first : first + count], "month"
    if kind == "year":
        first, step = rng.randint(1960, 2015), rng.choice((1, 1, 2, 5))
        return [str(first + step * i) for i in range(count)], "year"
    if kind == "quarter" and count <= 4:
        return [f"Q{i + 1}" for i in range(count)], "quarter"
    if kind == "person":
        return different(lambda: content.word(7).capitalize(), count), "person"
    if kind in ("city", "region"):
        return different(content.city, count), kind
    return different((lambda: rng.choice(ITEMS)) if rng.random() < 0.7 else content.item, count), "product"


def _values(rng: random.Random, form: str, count: int, tens: bool) -> tuple[list[float], list[str], str, str]:
    """Draw different numbers; return them, how they are printed, and what is printed before and after each."""
    if tens:
        found = rng.sample(range(10, 100, 10), count)
        return [float(value) for value in found], [str(value) for value in found], "", ""
    if form == "pie":
        while True:
            cuts = sorted(rng.sample(range(4, 97), count - 1))
            parts = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
            if len({*parts}) == count and min(parts) >= 4:
                return [float(part) for part in parts], [f"{part}%" for part in parts], "", "%"
    kind = rng.choice(("small", "whole", "large", "decimal", "percent", "money"))
    high = {"small": 99, "whole": 990, "large": 9900, "decimal": 999, "percent": 98, "money": 950}[kind]
    found = rng.sample(range(max(3, round(high * rng.uniform(0.03, 0.4))), high), count)
    if form == "line" and rng.random() < 0.5:
        found = sorted(found, reverse=rng.random() < 0.3)
        at = rng.randrange(count - 1)
        found[at], found[at + 1] = found[at + 1], found[at]
    if kind == "decimal":
        return [value / 10 for value in found], [f"{value / 10:.1f}" for value in found], "", ""
    prefix, suffix = ("$" if kind == "money" else ""), ("%" if kind == "percent" else "")
    return (
        [float(value) for value in found],
        [f"{prefix}{value:,}{suffix}" for value in found],
        prefix,
        suffix,
    )
