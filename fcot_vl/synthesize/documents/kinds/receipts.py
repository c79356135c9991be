"""Receipts on a narrow roll: shop, items with prices, tax and total."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content, money
from fcot_vl.synthesize.documents.page import Canvas, Mark, Page, join_row
from fcot_vl.synthesize.documents.sheet import Sheet, size_of
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
    """Print one receipt of 2 to 24 items; the paper ends below the last line."""
    columns, rows = rng.choice(((1, 3), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7)))
    size = size_of(columns, rows, rng.uniform(1.0, 1.5))
    family = pick(rng, split, families)
    return _Receipt(Content(rng, split), Canvas(size), family).print()


class _Receipt(Sheet):
    """A receipt being printed. `y` is the baseline of its last line."""

    def __init__(self, content: Content, canvas: Canvas, family: Family) -> None:
        rng, (width, height) = content.rng, canvas.size
        super().__init__("receipt", content, canvas, family, width * rng.uniform(0.04, 0.1), _LEAST)
        self.capitals = rng.random() < 0.45
        self.most = rng.choice((12, 24))  # items
        lines = rng.randint(20, 36) + self.most - 12
        size = min(height * 0.96 / lines / 1.3, width / 15)
        self.body = family.type(max(10, size), bold=rng.random() < 0.15)
        self.step = self.body.size * rng.uniform(1.2, 1.45)
        self.y = height * rng.uniform(0.02, 0.05)
        self.bottom = height * 0.98
        self.sign = rng.choice(_SIGNS)

    def pitch(self, letters: Type) -> float:
        """Return the distance from a line printed with `letters` to the next one."""
        return max(self.step, letters.size * 1.25)

    def has_room(self, letters: Type) -> bool:
        """Return whether another line of the body ends above the bottom."""
        return self.y + self.step < self.bottom

    def baseline(self, letters: Type) -> float:
        """Return the baseline of the next line, printed with `letters`."""
        return self.y + self.pitch(letters)

    def pair(self, label: str, value: str, letters: Type | None = None) -> Mark | None:
        """Print a label on the left and its value on the right of one line.

        Returns the value's mark; None, and prints nothing, where the line does not fit.
        """
        fitted = self.fit(f"{label}  {value}", letters or self.body, self.width)
        if fitted is None or not self.has_room(fitted):
            return None
        self.y = self.baseline(fitted)
        first = self.canvas.write(label, fitted, self.left, self.y)
        second = self.canvas.write(value, fitted, self.right - fitted.width(value), self.y)
        self.page.blocks[-1].append(join_row([first, second]))
        return second

    def print(self) -> Page:
        """Print everything, cut the paper off below the last line, and return the page."""
        rng = self.rng
        align = self._shop()
        self._rule()
        self.block()
        if rng.random() < 0.5:
            self.line(rng.choice(("TAX INVOICE", "RECEIPT", "CASH RECEIPT", "INVOICE")), align=align)
        self._numbers()
        self._rule()
        self.block()
        whole = rng.random() < 0.35  # whole prices, which a question can add up
        total = self._items(whole)
        self._rule()
        self.block()
        self._sums(total, taxed=rng.random() < 0.6 and not whole)
        self.block()
        if rng.random() < 0.7:
            self.y += self.step * rng.uniform(0.2, 1.0)
            self.line(rng.choice(_THANKS), align="center")
        self.canvas.cut(round(self.y + self.step * rng.uniform(0.8, 4)))
        return self.finish()

    def _case(self, text: str) -> str:
        return text.upper() if self.capitals else text

    def _rule(self) -> None:
        """Draw a solid or a dashed line across, or none."""
        draw = self.rng.random()
        self.y += self.step * 0.4
        if draw < 0.4:
            self.canvas.dashes(self.left, self.y, self.width)
        elif draw < 0.65:
            self.canvas.rule(self.left, self.y, self.width)

    def _shop(self) -> str:
        """Print name, address and telephone of the shop; return how they are aligned."""
        rng, content = self.rng, self.content
        self.block()
        head = self.family.type(self.body.size * rng.uniform(1.0, 1.7), bold=rng.random() < 0.6)
        align = rng.choice(("center", "center", "left"))
        self.page.keep("shop", self.line(self._case(content.company()), head, align))
        self.line(self._case(content.street()), align=align)
        self.line(self._case(content.town()), align=align)
        if rng.random() < 0.6:
            self.named("phone number", f"{self._case('Tel')}: ", content.phone(), align=align)
        return align

    def _numbers(self) -> None:
        """Print number, date and cashier."""
        rng, content = self.rng, self.content
        if rng.random() < 0.7:
            label = rng.choice(("Invoice No", "Receipt #", "Bill No", "Ref"))
            self.named("receipt number", f"{self._case(label)}: ", content.code())
        date = content.date()
        dated = rng.choice(
            (f"Date: {date}", f"Date: {date} {content.time()}", f"{date} {content.time()}", date)
        )
        self.page.keep("date", self.line(dated), date)
        if rng.random() < 0.5:
            self.named("cashier", f"{self._case('Cashier')}: ", content.name())

    def _items(self, whole: bool) -> int:
        """Print what was bought, at whole prices or others; return the sum in hundredths."""
        rng, content, total = self.rng, self.content, 0
        for item in content.items(rng.randint(self.most // 6, self.most)):
            cents = rng.randrange(10, 60, 10) * 100 if whole else content.cents(60, 9000)
            count = 1 if whole or rng.random() < 0.7 else rng.randint(2, 6)
            name = self._case(item)
            label = name if count == 1 else f"{count} {rng.choice('x@')} {name}"
            price = str(cents // 100) if whole else money(cents * count)
            if self.y + 7 * self.step > self.bottom:
                break
            mark = self.pair(label, price)
            if mark is None:
                continue
            total += cents * count
            if whole:
                self.page.prices[name] = mark
            else:
                self.page.fields[f"price of {name}"] = mark
        return total

    def _sums(self, total: int, taxed: bool) -> None:
        """Print the sum of `total` hundredths, with its tax where it is `taxed`, and how it was paid."""
        rng, page, tax = self.rng, self.page, 0
        if taxed:
            percent = rng.choice((5, 6, 7, 10, 19, 20))
            tax = round(total * percent / 100)
            page.keep("subtotal", self.pair(rng.choice(_SUBTOTALS), money(total)))
            label = rng.choice(("Tax {}%", "GST {}%", "VAT {}%", "SST {}%")).format(percent)
            page.keep("tax", self.pair(label, money(tax)))
        large = self.family.type(self.body.size * rng.choice((1.0, 1.25, 1.5)), bold=rng.random() < 0.6)
        page.keep("total", self.pair(rng.choice(_TOTALS), money(total + tax, self.sign), large))
        if rng.random() < 0.55:
            paid = total + tax + (0 if rng.random() < 0.4 else rng.randrange(0, 2000, 5))
            cash = rng.choice(("Cash", "CASH", "Tendered", "VISA", "Card"))
            self.pair(cash, money(paid, self.sign))
            page.keep("change", self.pair(self._case("Change"), money(paid - total - tax, self.sign)))
