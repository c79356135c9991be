"""Forms: labels with what was filled in beside them or below."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fcot_vl.synthesize.documents.content import money
from fcot_vl.synthesize.documents.kinds.business_sheet import CURRENCIES, BusinessSheet, new_business_sheet
from fcot_vl.synthesize.documents.page import BLACK, WHITE, Color, Mark, Page, join_row
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_GRIDS = ((3, 4), (3, 4), (3, 3), (2, 3), (4, 3), (3, 2), (2, 2), (4, 2))
_PENS: tuple[Color, ...] = (BLACK, BLACK, (30, 42, 120), (44, 44, 52))
# Label: kind of its value, or the values to choose from.
_LABELS: dict[str, str] = {
    "Name": "name", "Contact": "name", "Applicant": "name", "Manager": "name", "Prepared by": "name",
    "Approved by": "name", "Company": "company", "Employer": "company", "Supplier": "company",
    "Address": "street", "Delivery address": "street", "City": "city", "Place of birth": "city",
    "Destination": "city", "Country": "city", "Date of birth": "date", "Start date": "date",
    "Expiry date": "date", "Delivery date": "date", "Date of issue": "date", "Order number": "code",
    "Reference": "code", "Serial number": "code", "Policy number": "code", "Customer ID": "code",
    "Account number": "code", "Permit no.": "code", "Phone": "phone", "Fax": "phone", "Mobile": "phone",
    "Arrival time": "time", "Product": "item", "Amount paid": "money", "Deposit": "money", "Fee": "money",
    "Room": "number", "Weight (kg)": "number", "Number of pages": "number", "E-mail": "mail",
    "Payment method": "Cash|Card|Bank transfer|Cheque", "Status": "Open|Closed|Approved|Pending",
    "Department": "Sales|Finance|Research|Logistics|Legal", "Marital status": "Single|Married|Widowed",
    "Insured": "Yes|No", "Priority": "High|Medium|Low", "Nationality": "word",
}  # fmt: skip
_TITLES = (
    "Application Form", "Registration Form", "Delivery Note", "Claim Form", "Customer Record", "Work Order",
    "PERMIT APPLICATION", "Membership Form", "Shipping Record", "Request for Service", "Personnel Record",
)  # fmt: skip
_BELOW = ("boxes", "stacked")  # styles that print values below their labels
_SECTIONS = ("Details", "Part A", "General information", "For office use", "Further particulars", "Part B")


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one filled-in form."""
    sheet, budget = new_business_sheet("form", _GRIDS, rng, split, families)
    _print(sheet, budget, pick(rng, split, families) if rng.random() < 0.3 else sheet.family)
    return sheet.finish()


def _print(sheet: BusinessSheet, budget: int, filled: Family) -> None:
    """Print a form of about `budget` characters; what was filled in is printed with `filled`."""
    rng, canvas = sheet.rng, sheet.canvas
    size = (sheet.width / sheet.scale, canvas.size[1] / sheet.scale)
    count = min(len(_LABELS), max(5, (budget - 40) // 22))
    style = rng.choice(("colon", "underline", "boxes", "grid", "stacked"))
    columns = 2 if size[0] > size[1] or (count > 5 and rng.random() < 0.6) else 1
    rows = -(-count // columns)
    tall = 2.5 if style in _BELOW else 1.75
    largest = min(19.0, size[0] / columns / 19, size[1] * 0.8 / (rows * tall + 4) / 1.05)
    sheet.set_type(largest * rng.uniform(0.85, 1))
    _head(sheet)
    ink = rng.choice(_PENS)
    values = filled.type(sheet.body.size, bold=rng.random() < 0.1)
    labels = sheet.bold if rng.random() < 0.45 else sheet.body
    gap = 0.0 if style in ("boxes", "grid") else sheet.body.size * 1.2
    wide = (sheet.width - gap * (columns - 1)) / columns
    pairs = _filled_in(sheet, count)
    aside = min(max(labels.width(f"{label}:  ") for label, _ in pairs), wide * 0.52)
    pitch = min(
        sheet.body.size * tall * 1.35, max(sheet.body.size * tall, (sheet.bottom - sheet.y) * 0.85 / rows)
    )
    sections = rng.choice((0, 0, 1, 2)) if rows > 3 else 0
    cells = _Cells(sheet, style, labels, values, ink, wide, aside, pitch)
    if style in _BELOW:
        rng.random()  # not used; it keeps the pages of a seed what they are
    names = rng.sample(_SECTIONS, 2)
    for i in range(rows):
        if sections and i % -(-rows // sections) == 0 and sheet.y + 3 * pitch < sheet.bottom:
            sheet.block(0.5 if i else 0)
            _heading(sheet, names[0 if i == 0 else 1])
        if sheet.y + pitch > sheet.bottom:
            break
        sheet.block()
        row: list[Mark] = []
        for j, (label, value) in enumerate(pairs[i * columns : (i + 1) * columns]):
            x = sheet.left + j * (wide + gap)
            if style in _BELOW:
                cells.print_below(label, value, x)
            elif (mark := cells.print_beside(label, value, x)) is not None:
                row.append(mark)
        if row:
            sheet.page.blocks[-1].append(join_row(row))
        sheet.y += pitch
    if rng.random() < 0.35 and sheet.y + sheet.step * 2.6 < sheet.bottom:
        sheet.block(1.2)
        mark = sheet.line(rng.choice(("Signature:", "Signed:")))
        if mark is not None:
            start = sheet.left + sheet.body.width("Signature:  ")
            canvas.rule(start, sheet.y - sheet.step * 0.2, sheet.width * 0.35)


def _heading(sheet: BusinessSheet, text: str) -> None:
    """Print the heading of a section, perhaps on a band of color."""
    if sheet.rng.random() < 0.6 and sheet.accent != BLACK:
        box = (sheet.left, round(sheet.y), sheet.right, round(sheet.y + sheet.body.size * 1.4))
        sheet.canvas.pen.rectangle(box, fill=sheet.accent)
        mark = sheet.put(text, sheet.left + 6, sheet.y, sheet.bold, WHITE)
    else:
        mark = sheet.put(text, sheet.left, sheet.y, sheet.bold)
    sheet.page.blocks[-1].append(mark)
    sheet.y += sheet.body.size * 1.7


def _head(sheet: BusinessSheet) -> None:
    """Print the title of a form, and perhaps whose form it is."""
    rng, canvas = sheet.rng, sheet.canvas
    title = rng.choice(_TITLES)
    large = sheet.family.type(sheet.body.size * rng.uniform(1.25, 1.8), bold=True)
    align, band = rng.choice(("left", "center")), rng.random() < 0.3 and sheet.accent != BLACK
    if band:
        canvas.pen.rectangle((0, 0, canvas.size[0], sheet.y + large.size * 1.5), fill=sheet.accent)
    sheet.block()
    sheet.line(title, large, align, WHITE if band else sheet.accent)
    sheet.y += sheet.body.size * (0.8 if band else 0.1)
    if rng.random() < 0.4:
        sheet.line(sheet.content.company(), align=align)
    if not band and rng.random() < 0.5:
        canvas.rule(sheet.left, sheet.y + 2, sheet.width, sheet.accent, rng.choice((1, 2)))
    sheet.y += sheet.step * 0.7


def _filled_in(sheet: BusinessSheet, wanted: int) -> list[tuple[str, str]]:
    """Draw up to `wanted` labels and their values, all different."""
    rng, content = sheet.rng, sheet.content
    makers: dict[str, Callable[[], str]] = {
        "name": content.name,
        "company": content.company,
        "street": content.street,
        "city": content.city,
        "date": content.date,
        "code": content.code,
        "phone": content.phone,
        "time": content.time,
        "item": content.item,
        "word": content.city,
        "money": lambda: money(content.cents(), sign),
        "number": lambda: str(rng.randint(2, 900)),
        "mail": lambda: f"{content.word(8)}@{content.word(8)}.{rng.choice(('com', 'org', 'net'))}",
    }
    sign = rng.choice(CURRENCIES)
    labels = rng.sample(list(_LABELS), wanted)
    made: dict[str, str] = {}
    for label in labels:
        kind = _LABELS[label]
        value = makers[kind]() if kind in makers else rng.choice(kind.split("|"))
        if value not in made.values():
            made[label] = value
    return list(made.items())


@dataclass(frozen=True)
class _Cells:
    """Cells of a form: labels and their values in one style.

    Attributes:
        style: ``boxes`` or ``stacked`` with the value below its label; ``colon``, ``underline`` or ``grid`` beside it.
        ink: color of the values.
        wide, pitch: width and height of a cell.
        aside: width of a label that is beside its value.
    """

    sheet: BusinessSheet
    style: str
    labels: Type
    values: Type
    ink: Color
    wide: float
    aside: float
    pitch: float

    def print_below(self, label: str, value: str, x: float) -> None:
        """Print the cell at `x`, the value below its label, as a block. A cell that does not fit stays empty."""
        sheet, y, high = self.sheet, self.sheet.y, self.pitch
        pen, size, page = sheet.canvas.pen, self.values.size, sheet.page
        line = (round(x), round(y), round(x + self.wide), round(y + high))
        smaller = Type(self.labels.face, max(round(size * 0.8), round(10.4 * sheet.scale)))
        small = sheet.fit(label, smaller, self.wide - size)
        letters = sheet.fit(value, self.values, self.wide - size)
        if small is None or letters is None:
            return
        if self.style == "boxes":
            pen.rectangle(line, outline=sheet.accent)
        else:
            pen.line((line[0], line[3] - 3, line[2], line[3] - 3), fill=(150, 150, 150))
        first = sheet.put(label, x + size * 0.4, y + high * 0.06, small, sheet.accent)
        mark = sheet.put(value, x + size * 0.4, y + high * 0.92 - letters.size * 1.3, letters, self.ink)
        page.blocks[-1] += [first, mark]
        page.fields[label.lower()] = mark
        sheet.block()

    def print_beside(self, label: str, value: str, x: float) -> Mark | None:
        """Print the cell at `x`, the value beside its label, and return its line; None where it does not fit."""
        sheet, y, high = self.sheet, self.sheet.y, self.pitch
        pen, size = sheet.canvas.pen, self.values.size
        line = (round(x), round(y), round(x + self.wide), round(y + high))
        pad = size * 0.4 if self.style == "grid" else 0.0
        colon = "" if self.style == "grid" else ":"
        small = sheet.fit(label + colon, self.labels, self.aside - pad - size * 0.3)
        letters = sheet.fit(value, self.values, self.wide - self.aside - 2 * pad)
        if small is None or letters is None:
            return None
        middle = y + (high - size * 1.2) / 2
        if self.style == "grid":
            pen.rectangle((line[0], line[1], round(x + self.aside), line[3]), fill=sheet.tint)
            pen.rectangle(line, outline=sheet.accent)
            pen.line((round(x + self.aside), line[1], round(x + self.aside), line[3]), fill=sheet.accent)
        elif self.style == "underline":
            below = round(middle + size * 1.3)
            pen.line((round(x + self.aside), below, line[2], below), fill=(110, 110, 110))
        first = sheet.put(label + colon, x + pad, middle + (size - small.size), small)
        mark = sheet.put(value, x + self.aside + pad, middle + (size - letters.size), letters, self.ink)
        sheet.page.fields[label.lower()] = mark
        return join_row([first, mark])
