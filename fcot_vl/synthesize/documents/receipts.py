"""Receipts: a shop's head, items with prices, tax and total, thanks; printed on a narrow roll."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content, money
from fcot_vl.synthesize.documents.page import Canvas, Mark, Page, join_row
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_LEAST = 9  # smallest type, pixels of the page
_TOTALS = (
    "TOTAL",
    "Total",
    "GRAND TOTAL",
    "Total Amount",
    "TOTAL DUE",
    "Amount Due",
    "Total (RM)",
    "NET TOTAL",
)
_SUBTOTALS = ("SUBTOTAL", "Subtotal", "Sub Total", "Sub-total")
_THANKS = (
    "THANK YOU",
    "Thank you, come again",
    "Please come again",
    "Goods sold are not returnable",
    "Have a nice day",
)
_SIGNS = ("", "", "", "$", "RM", "RM ", "EUR ")


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """One receipt of 2 to 24 items; the paper ends below the last line."""
    content = Content(rng, split)
    columns, rows = rng.choice(((1, 3), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7)))
    scale = rng.uniform(1.0, 1.5)
    width, height = round(columns * 224 * scale), round(rows * 224 * scale)
    family = pick(rng, split, families)
    canvas = Canvas(size=(width, height))
    receipt = _Receipt(rng, content, canvas, family)
    receipt.print()
    return receipt.page


class _Receipt:
    """One receipt being printed from top to bottom."""

    def __init__(self, rng: random.Random, content: Content, canvas: Canvas, family: Family) -> None:
        self.rng, self.content, self.canvas, self.family = rng, content, canvas, family
        width, height = canvas.size
        self.page = Page("receipt", canvas)
        self.left = width * rng.uniform(0.04, 0.1)
        self.right = width - self.left
        self.capitals = rng.random() < 0.45
        self.most = rng.choice((12, 24))  # items
        lines = rng.randint(20, 36) + self.most - 12
        self.body = self._fit(family, min(height * 0.96 / lines / 1.3, width / 15))
        self.step = self.body.size * rng.uniform(1.2, 1.45)
        self.y = height * rng.uniform(0.02, 0.05)
        self.sign = rng.choice(_SIGNS)

    def _fit(self, family: Family, size: float) -> Type:
        return family.type(max(10, size), bold=self.rng.random() < 0.15)

    @property
    def room(self) -> bool:
        """True while another line fits."""
        return self.y + self.step < self.canvas.size[1] * 0.98

    def _case(self, text: str) -> str:
        return text.upper() if self.capitals else text

    def line(self, text: str, align: str = "left", letters: Type | None = None) -> Mark | None:
        """One line of its own; None where it does not fit."""
        letters = (letters or self.body).fitted(text, self.right - self.left, _LEAST)
        if letters is None or not self.room:
            return None
        slack = self.right - self.left - letters.width(text)
        x = self.left + {"center": slack / 2, "right": slack}.get(align, 0.0)
        self.y += max(self.step, letters.size * 1.25)
        mark = self.canvas.write(text, letters, x, self.y)
        self.page.blocks[-1].append(mark)
        return mark

    def pair(self, label: str, value: str, letters: Type | None = None) -> Mark | None:
        """A label on the left and its value on the right of one line; returns the value's mark."""
        letters = (letters or self.body).fitted(f"{label}  {value}", self.right - self.left, _LEAST)
        if letters is None or not self.room:
            return None
        self.y += max(self.step, letters.size * 1.25)
        first = self.canvas.write(label, letters, self.left, self.y)
        second = self.canvas.write(value, letters, self.right - letters.width(value), self.y)
        self.page.blocks[-1].append(join_row([first, second]))
        return second

    def rule(self) -> None:
        """A line across, of one of several kinds, or none."""
        draw = self.rng.random()
        self.y += self.step * 0.4
        if draw < 0.4:
            self.canvas.dashes(self.left, self.y, self.right - self.left)
        elif draw < 0.65:
            self.canvas.rule(self.left, self.y, self.right - self.left)

    def block(self) -> None:
        """Begin a new block."""
        self.page.blocks.append([])

    def print(self) -> None:
        """Print everything."""
        rng, content, fields = self.rng, self.content, self.page.fields
        self.block()
        head = self.family.type(self.body.size * rng.uniform(1.0, 1.7), bold=rng.random() < 0.6)
        align = rng.choice(("center", "center", "left"))
        _keep(fields, "shop", self.line(self._case(content.company()), align, head))
        self.line(self._case(content.street()), align)
        self.line(self._case(f"{rng.randrange(10000, 99999)} {content.city()}"), align)
        if rng.random() < 0.6:
            _keep(
                fields,
                "phone number",
                self.line(f"{self._case('Tel')}: {content.phone()}", align),
                after=": ",
            )
        self.rule()
        self.block()
        if rng.random() < 0.5:
            self.line(rng.choice(("TAX INVOICE", "RECEIPT", "CASH RECEIPT", "INVOICE")), align)
        if rng.random() < 0.7:
            label = rng.choice(("Invoice No", "Receipt #", "Bill No", "Ref"))
            _keep(fields, "receipt number", self.line(f"{self._case(label)}: {content.code()}"), after=": ")
        date = content.date()
        dated = rng.choice(
            (f"Date: {date}", f"Date: {date} {content.time()}", f"{date} {content.time()}", date)
        )
        mark = self.line(dated)
        if mark is not None:
            start = dated.index(date)
            fields["date"] = mark[start : start + len(date)]
        if rng.random() < 0.5:
            _keep(fields, "cashier", self.line(f"{self._case('Cashier')}: {content.name()}"), after=": ")
        self.rule()
        self.block()
        whole = rng.random() < 0.35  # whole prices, which a question can add up
        total = 0
        for item in content.items(rng.randint(self.most // 6, self.most)):
            cents = rng.randrange(10, 60, 10) * 100 if whole else content.cents(60, 9000)
            count = 1 if whole or rng.random() < 0.7 else rng.randint(2, 6)
            name = self._case(item)
            label = name if count == 1 else f"{count} {rng.choice('x@')} {name}"
            price = money(cents * count) if not whole else str(cents // 100)
            if self.y + 7 * self.step > self.canvas.size[1] * 0.98:
                break
            mark = self.pair(label, price)
            if mark is None:
                continue
            total += cents * count
            self.page.prices[name] = mark
            if not whole:
                fields[f"price of {name}"] = mark
        if not whole:
            self.page.prices = {}
        self.rule()
        self.block()
        tax = 0
        if rng.random() < 0.6 and not whole:
            percent = rng.choice((5, 6, 7, 10, 19, 20))
            tax = round(total * percent / 100)
            _keep(fields, "subtotal", self.pair(rng.choice(_SUBTOTALS), money(total)))
            label = rng.choice(("Tax {}%", "GST {}%", "VAT {}%", "SST {}%")).format(percent)
            _keep(fields, "tax", self.pair(label, money(tax)))
        large = self.family.type(self.body.size * rng.choice((1.0, 1.25, 1.5)), bold=rng.random() < 0.6)
        _keep(fields, "total", self.pair(rng.choice(_TOTALS), money(total + tax, self.sign), large))
        if rng.random() < 0.55:
            paid = total + tax + (0 if rng.random() < 0.4 else rng.randrange(0, 2000, 5))
            cash = rng.choice(("Cash", "CASH", "Tendered", "VISA", "Card"))
            self.pair(cash, money(paid, self.sign))
            _keep(fields, "change", self.pair(self._case("Change"), money(paid - total - tax, self.sign)))
        self.block()
        if rng.random() < 0.7:
            self.y += self.step * rng.uniform(0.2, 1.0)
            self.line(rng.choice(_THANKS), "center")
        self.canvas.cut(round(self.y + self.step * rng.uniform(0.8, 4)))
        self.page.blocks = [block for block in self.page.blocks if block]


def _keep(fields: dict[str, Mark], name: str, mark: Mark | None, after: str = "") -> None:
    """Remember `mark`, or what follows `after` in it, as field `name`."""
    if mark is not None:
        fields[name] = mark[mark.text.index(after) + len(after) :] if after else mark
