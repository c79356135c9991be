"""Invoices and forms: items that are billed, with tax and total; or labels with what was filled in beside them."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence

from fcot_vl.synthesize.documents.content import Content, money
from fcot_vl.synthesize.documents.page import BLACK, WHITE, Canvas, Colour, Mark, Page, join_row
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_INVOICE_GRIDS = ((3, 4), (3, 4), (3, 4), (3, 3), (2, 3), (2, 3), (2, 4))
_FORM_GRIDS = ((3, 4), (3, 4), (3, 3), (2, 3), (4, 3), (3, 2), (2, 2), (4, 2))
_PAPERS: tuple[Colour, ...] = (WHITE, WHITE, WHITE, (253, 251, 243), (249, 250, 252), (255, 250, 235))
_ACCENTS: tuple[Colour, ...] = (
    BLACK,
    (26, 58, 110),
    (128, 28, 36),
    (16, 92, 80),
    (74, 74, 80),
    (90, 46, 110),
    (176, 84, 12),
)
_FILLED: tuple[Colour, ...] = (BLACK, BLACK, (30, 42, 120), (44, 44, 52))
_FORMATS = ("%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y", "%d %b %Y", "%b %d, %Y", "%d-%m-%Y", "%d/%m/%y")
_SIGNS = ("", "$", "$", "EUR ", "RM ", "USD ")
_HEADERS = (
    ("Description", "Qty", "Unit price", "Amount"),
    ("Item", "Quantity", "Price", "Amount"),
    ("Qty", "Description", "Rate", "Amount"),
    ("No.", "Description", "Amount"),
    ("Description", "Units", "Rate", "Line total"),
)
_NOTES = (
    "Thank you for your business.",
    "Please quote the invoice number with your payment.",
    "Payment is due within the stated time.",
    "Goods remain our property until paid in full.",
)
# Label on a form: kind of what is filled in, or the choices.
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
_FORM_TITLES = (
    "Application Form", "Registration Form", "Delivery Note", "Claim Form", "Customer Record", "Work Order",
    "PERMIT APPLICATION", "Membership Form", "Shipping Record", "Request for Service", "Personnel Record",
)  # fmt: skip
_SECTIONS = ("Details", "Part A", "General information", "For office use", "Further particulars", "Part B")


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one invoice or one filled-in form."""
    content = Content(rng, split)
    invoice = rng.random() < 0.5
    columns, rows = rng.choice(_INVOICE_GRIDS if invoice else _FORM_GRIDS)
    scale = rng.uniform(0.9, 1.03 if columns == rows == 2 else 1.5)
    canvas = Canvas((round(columns * 224 * scale), round(rows * 224 * scale)), rng.choice(_PAPERS))
    full = rng.uniform(1.4, 2.8) if rng.random() < 0.6 else rng.uniform(0.3, 1.2)
    budget = round(full * 64 * (columns * rows + 1))  # `full` characters per visual token
    family = pick(rng, split, families)
    sheet = _Sheet("invoice" if invoice else "form", rng, content, canvas, family, scale)
    if invoice:
        _invoice(sheet, budget)
    else:
        _form(sheet, budget, pick(rng, split, families) if rng.random() < 0.3 else family)
    page = sheet.page
    page.blocks = [block for block in page.blocks if block]
    texts = [mark.text for mark in page.fields.values()]
    page.fields = {name: mark for name, mark in page.fields.items() if texts.count(mark.text) == 1}
    return page


class _Sheet:
    """A page being printed, and the type it is printed with."""

    def __init__(
        self, kind: str, rng: random.Random, content: Content, canvas: Canvas, family: Family, scale: float
    ) -> None:
        self.rng, self.content, self.canvas, self.family, self.scale = rng, content, canvas, family, scale
        width, height = canvas.size
        self.page = Page(kind, canvas)
        self.left = round(width * rng.uniform(0.05, 0.09))
        self.right = width - self.left
        self.y = height * rng.uniform(0.04, 0.06)
        self.bottom = height * 0.965
        self.accent = rng.choice(_ACCENTS)
        self.body = self.bold = family.type(12 * scale)
        self.step = self.body.size * 1.4

    def set_type(self, size: float) -> None:
        """Set the body's size in pixels of the tiles."""
        size = min(20.0, max(11.0, size)) * self.scale
        self.body, self.bold = self.family.type(size), self.family.type(size, bold=True)
        self.step = self.body.size * self.rng.uniform(1.3, 1.5)

    @property
    def width(self) -> float:
        """Width between the margins."""
        return self.right - self.left

    @property
    def tint(self) -> Colour:
        """A light shade of the accent, for the ground of cells."""
        red, green, blue = (round(255 - (255 - value) * 0.13) for value in self.accent)
        return red, green, blue

    def fit(self, text: str, letters: Type, width: float) -> Type | None:
        """`letters`, smaller where `text` is wider than `width`; None where it would become too small."""
        return letters.fitted(text, width, 10.3 * self.scale)

    def put(
        self,
        text: str,
        x: float,
        y: float,
        letters: Type,
        ink: Colour = BLACK,
        align: str = "left",
        width: float = 0,
    ) -> Mark:
        """Write `text` at `x`, its line beginning at `y`, aligned in `width`; no line is remembered."""
        slack = width - letters.width(text)
        x += {"right": slack, "center": slack / 2}.get(align, 0.0)
        return self.canvas.write(text, letters, x, y + letters.size, ink)

    def line(
        self,
        text: str,
        x: float,
        width: float,
        align: str = "left",
        letters: Type | None = None,
        ink: Colour = BLACK,
    ) -> Mark | None:
        """Print one line of its own in the last block and go on below it; None where it does not fit."""
        fitted = self.fit(text, letters or self.body, width)
        if fitted is None or self.y + fitted.size * 1.35 > self.bottom:
            return None
        mark = self.put(text, x, self.y, fitted, ink, align, width)
        self.page.blocks[-1].append(mark)
        self.y += max(self.step, fitted.size * 1.3)
        return mark

    def keep(self, name: str, mark: Mark | None, value: str) -> None:
        """Remember the end of `mark` that says `value` as field `name`."""
        if mark is not None:
            self.page.fields[name] = mark[len(mark.text) - len(value) :]


def _invoice(sheet: _Sheet, budget: int) -> None:
    """Print an invoice of about `budget` characters."""
    rng, canvas = sheet.rng, sheet.canvas
    width, height = sheet.width / sheet.scale, canvas.size[1] / sheet.scale
    count = min(26, max(rng.choice((1, 2, 2, 3)), (budget - 215) // 25))
    sheet.set_type(min(19.0, width / 27, height / (21 + count * 1.6) / 1.42) * rng.uniform(0.85, 1.0))
    style = rng.choice(_DATE_STYLES)
    dated = sheet.content.date(style)
    day = datetime.datetime.strptime(dated, _FORMATS[style]) + datetime.timedelta(
        rng.choice((7, 14, 30, 45, 60))
    )
    due = day.strftime(_FORMATS[style])
    due = due.lstrip("0") if style == 3 else due.replace(" 0", " ") if style == 4 else due
    _seller(sheet)
    sheet.y += sheet.step * rng.uniform(0.5, 1.0)
    pairs = [
        ("invoice number", rng.choice(("Invoice No", "Invoice number", "Invoice #")), sheet.content.code())
    ]
    pairs.append(("date", rng.choice(("Date", "Invoice date", "Date")), dated))
    if rng.random() < 0.7:
        pairs.append(("due date", rng.choice(("Due date", "Payment due")), due))
    if rng.random() < 0.4:
        pairs.append(
            ("order number", rng.choice(("Order No", "PO number", "Order number")), sheet.content.code())
        )
    top, half = sheet.y, sheet.width * 0.48
    mirrored = rng.random() < 0.25
    sides = (sheet.right - half, sheet.left) if mirrored else (sheet.left, sheet.right - half)
    steps: list[Callable[[], None]] = [
        lambda: _buyer(sheet, sides[0], half),
        lambda: _pairs(sheet, pairs, sides[1], half),
    ]
    lowest = top
    for step in reversed(steps) if mirrored else steps:
        sheet.y = top
        step()
        lowest = max(lowest, sheet.y)
    sheet.y = lowest + sheet.step * rng.uniform(0.6, 1.3)
    _billed(sheet, count)
    sheet.page.blocks.append([])
    sheet.y += sheet.step * rng.uniform(0.6, 1.5)
    if rng.random() < 0.4:
        account = sheet.content.code()
        mark = sheet.line(f"{rng.choice(('Bank account', 'Account'))}: {account}", sheet.left, sheet.width)
        sheet.keep("account number", mark, account)
    if rng.random() < 0.6:
        sheet.line(rng.choice(_NOTES), sheet.left, sheet.width, rng.choice(("left", "center")))


_DATE_STYLES = (0, 0, 1, 2, 3, 3, 4, 4, 5, 6)


def _seller(sheet: _Sheet) -> None:
    """Print the seller's name and address and the word invoice, perhaps on a band of colour."""
    rng, content, canvas, page = sheet.rng, sheet.content, sheet.canvas, sheet.page
    head = sheet.family.type(sheet.body.size * rng.uniform(1.2, 1.5), bold=True)
    large = sheet.family.type(sheet.body.size * rng.uniform(1.5, 2.1), bold=rng.random() < 0.8)
    word = rng.choice(("INVOICE", "INVOICE", "Invoice", "TAX INVOICE", "Tax invoice"))
    band, ink = rng.random() < 0.35 and sheet.accent != BLACK, sheet.accent
    if band:
        deep = sheet.y + large.size * 1.55
        canvas.pen.rectangle((0, 0, canvas.size[0], deep), fill=sheet.accent)
        ink = WHITE
    swap = rng.random() < 0.3
    seller = content.company()
    room = sheet.width - large.width(word) - sheet.body.size
    fitted = sheet.fit(seller, head, room)
    while fitted is None:
        seller = content.company()
        fitted = sheet.fit(seller, head, room)
    lift = large.size - fitted.size
    page.blocks.append([])
    if swap:
        first = sheet.put(word, sheet.left, sheet.y, large, ink)
        second = sheet.put(seller, sheet.left, sheet.y + lift, fitted, ink, "right", sheet.width)
    else:
        second = sheet.put(seller, sheet.left, sheet.y + lift, fitted, ink)
        first = sheet.put(word, sheet.left, sheet.y, large, ink, "right", sheet.width)
    page.blocks[-1].append(join_row([first, second] if swap else [second, first]))
    page.fields["seller"] = second
    sheet.y += large.size * (1.8 if band else 1.4)
    align = "right" if swap else "left"
    sheet.line(content.street(), sheet.left, sheet.width, align)
    sheet.line(f"{rng.randrange(10000, 99999)} {content.city()}", sheet.left, sheet.width, align)
    if rng.random() < 0.6:
        phone = content.phone()
        mark = sheet.line(f"{rng.choice(('Tel', 'Phone'))}: {phone}", sheet.left, sheet.width, align)
        sheet.keep("phone number", mark, phone)
    if not band and rng.random() < 0.5:
        sheet.y += sheet.step * 0.3
        canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent, rng.choice((1, 2, 3)))


def _buyer(sheet: _Sheet, x: float, width: float) -> None:
    """Print whom the invoice is for."""
    rng, content = sheet.rng, sheet.content
    sheet.page.blocks.append([])
    sheet.line(rng.choice(("Bill to", "Bill to:", "BILL TO", "Billed to:", "Customer:")), x, width, letters=sheet.bold, ink=sheet.accent)  # fmt: skip # noqa: E501
    buyer = content.company() if rng.random() < 0.5 else content.name()
    sheet.keep("buyer", sheet.line(buyer, x, width), buyer)
    sheet.line(content.street(), x, width)
    sheet.line(f"{rng.randrange(10000, 99999)} {content.city()}", x, width)


def _pairs(sheet: _Sheet, pairs: list[tuple[str, str, str]], x: float, width: float) -> None:
    """Print labels with their values beside them, in one of three ways, and remember the fields."""
    rng = sheet.rng
    sheet.page.blocks.append([])
    how = rng.choice(("left", "right", "aligned"))
    label_type = sheet.bold if rng.random() < 0.5 else sheet.body
    for name, label, value in pairs:
        text = f"{label}: {value}"
        fitted = sheet.fit(text + "  ", label_type, width)
        if fitted is None:
            continue
        values = Type(sheet.body.face, fitted.size)
        first_width = fitted.width(f"{label}: ")
        at = {"left": x + first_width, "right": x + width - values.width(value), "aligned": x + width - values.width(value)}[how]  # fmt: skip # noqa: E501
        if at + values.width(value) > x + width + 1:
            continue
        start = at - fitted.width(f"{label}: ") if how == "right" else x
        first = sheet.put(f"{label}:", start, sheet.y, fitted)
        sheet.page.fields[name] = sheet.put(value, at, sheet.y, values)
        sheet.page.blocks[-1].append(join_row([first, sheet.page.fields[name]]))
        sheet.y += sheet.step


def _billed(sheet: _Sheet, count: int) -> None:
    """Print the table of what is billed, its subtotal, tax and total."""
    rng, canvas, page = sheet.rng, sheet.canvas, sheet.page
    headers = rng.choice(_HEADERS)
    sign, total = rng.choice(_SIGNS), 0
    row_step = sheet.step * rng.uniform(1.15, 1.5)
    count = max(1, min(count, int((sheet.bottom - sheet.y - sheet.step * 7.5) / row_step) - 1))
    rows: list[list[str]] = []
    for i, item in enumerate(sheet.content.items(count)):
        qty, cents = rng.choice((1, 1, 2, 3, 4, 5, 8, 10, 12)), sheet.content.cents(150, 30_000)
        qty = 1 if headers[0] == "No." else qty
        total += qty * cents
        cells = {"No.": str(i + 1), "Amount": money(qty * cents), "Line total": money(qty * cents)}
        cells |= {"Rate": money(cents), "Unit price": money(cents), "Price": money(cents)}
        cells |= {"Qty": str(qty), "Quantity": str(qty), "Units": str(qty)}
        rows.append([cells.get(header, item) for header in headers])
    letters, pad = sheet.body, sheet.body.size * 0.45
    body_bold = sheet.bold
    while True:
        wide = [
            max(body_bold.width(header), *(letters.width(row[j]) for row in rows)) + 2 * pad
            for j, header in enumerate(headers)
        ]
        if sum(wide) <= sheet.width or letters.size - 1 < 10.3 * sheet.scale:
            break
        letters, body_bold = Type(letters.face, letters.size - 1), Type(body_bold.face, letters.size - 1)
    text_column = next(j for j, header in enumerate(headers) if header in ("Description", "Item"))
    wide[text_column] += sheet.width - sum(wide)
    style = rng.choice(("grid", "band", "rules", "zebra", "plain"))
    white = style == "band" and sheet.accent != BLACK
    page.blocks.append([])
    top = sheet.y
    for i, row in enumerate([list(headers), *rows]):
        box = (sheet.left, round(sheet.y), sheet.right, round(sheet.y + row_step))
        if (i == 0 and white) or (style == "zebra" and i % 2 == 0):
            canvas.pen.rectangle(box, fill=sheet.accent if white and i == 0 else sheet.tint)
        x, marks = float(sheet.left), []
        face = body_bold if i == 0 else letters
        for j, cell in enumerate(row):
            text = headers[j] in ("Description", "Item", "No.")
            middle = sheet.y + (row_step - face.size * 1.2) / 2
            ink = WHITE if white and i == 0 else BLACK
            marks.append(
                sheet.put(cell, x + pad, middle, face, ink, "left" if text else "right", wide[j] - 2 * pad)
            )
            x += wide[j]
        page.blocks[-1].append(join_row(marks))
        sheet.y += row_step
        if style == "grid" or (style == "rules" and i > 0) or i == 0:
            canvas.rule(
                sheet.left, sheet.y, sheet.width, sheet.accent, 2 if i == 0 and style != "grid" else 1
            )
    if style == "grid":
        canvas.rule(sheet.left, top, sheet.width, sheet.accent)
        for x in [sheet.left, *(sheet.left + sum(wide[: j + 1]) for j in range(len(wide)))]:
            canvas.pen.line((x, round(top), x, round(sheet.y)), fill=sheet.accent)
    elif style != "zebra":
        canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent)
    sheet.y += sheet.step * 0.5
    _totals(sheet, total, sign, pad)


def _totals(sheet: _Sheet, total: int, sign: str, pad: float) -> None:
    """Print subtotal, tax and total below the right end of the table."""
    rng, page = sheet.rng, sheet.page
    sums: list[tuple[str, str, str]] = []
    if rng.random() < 0.8:
        percent = rng.choice((5, 6, 7, 10, 19, 20))
        tax = round(total * percent / 100)
        sums.append(("subtotal", rng.choice(("Subtotal", "Sub-total", "Net amount")), money(total)))
        sums.append(("tax", rng.choice(("Tax ({}%)", "VAT {}%", "GST {}%")).format(percent), money(tax)))
        total += tax
    sums.append(("total", rng.choice(("Total", "TOTAL", "Total due", "Amount due")), money(total, sign)))
    least = max(sheet.bold.width(f"{label}  {value}") for _, label, value in sums) + 2 * pad
    width = max(sheet.width * rng.uniform(0.4, 0.5), least)
    x = sheet.right - width
    page.blocks.append([])
    for name, label, value in sums:
        last = name == "total"
        letters = sheet.bold if last else sheet.body
        ink: Colour = BLACK
        if last and rng.random() < 0.4:
            box = (x, round(sheet.y - sheet.step * 0.08), sheet.right, round(sheet.y + sheet.step * 1.1))
            dark = sheet.accent != BLACK and rng.random() < 0.6
            sheet.canvas.pen.rectangle(box, fill=sheet.accent if dark else sheet.tint)
            ink = WHITE if dark else BLACK
        elif last:
            sheet.canvas.rule(x, sheet.y - sheet.step * 0.1, width, sheet.accent)
        first = sheet.put(label, x + pad, sheet.y, letters, ink)
        page.fields[name] = sheet.put(value, x + pad, sheet.y, letters, ink, "right", width - 2 * pad)
        page.blocks[-1].append(join_row([first, page.fields[name]]))
        sheet.y += sheet.step * 1.15


def _filled_in(sheet: _Sheet, wanted: int) -> list[tuple[str, str]]:
    """Draw `wanted` labels and the values beside them, all different."""
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
    sign = rng.choice(_SIGNS)
    labels = rng.sample(list(_LABELS), wanted)
    made: dict[str, str] = {}
    for label in labels:
        kind = _LABELS[label]
        value = makers[kind]() if kind in makers else rng.choice(kind.split("|"))
        if value not in made.values():
            made[label] = value
    return list(made.items())


def _form(sheet: _Sheet, budget: int, filled: Family) -> None:
    """Print a form of about `budget` characters; what was filled in is printed with `filled`."""
    rng, canvas, page = sheet.rng, sheet.canvas, sheet.page
    size = (sheet.width / sheet.scale, canvas.size[1] / sheet.scale)
    count = min(len(_LABELS), max(5, (budget - 40) // 22))
    style = rng.choice(("colon", "underline", "boxes", "grid", "stacked"))
    columns = 2 if size[0] > size[1] or (count > 5 and rng.random() < 0.6) else 1
    rows = -(-count // columns)
    tall = 2.5 if style in ("boxes", "stacked") else 1.75
    sheet.set_type(
        min(19.0, size[0] / columns / 19, size[1] * 0.8 / (rows * tall + 4) / 1.05) * rng.uniform(0.85, 1)
    )
    _form_head(sheet)
    ink = rng.choice(_FILLED)
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
    cell = _Cell(sheet, style, labels, values, ink, wide, aside, pitch)
    names = rng.sample(_SECTIONS, 2)
    for i in range(rows):
        if sections and i % -(-rows // sections) == 0 and sheet.y + 3 * pitch < sheet.bottom:
            page.blocks.append([])
            sheet.y += sheet.step * (0.5 if i else 0)
            heading = names[0 if i == 0 else 1]
            if rng.random() < 0.6 and sheet.accent != BLACK:
                box = (sheet.left, round(sheet.y), sheet.right, round(sheet.y + sheet.body.size * 1.4))
                canvas.pen.rectangle(box, fill=sheet.accent)
                page.blocks[-1].append(sheet.put(heading, sheet.left + 6, sheet.y, sheet.bold, WHITE))
            else:
                page.blocks[-1].append(sheet.put(heading, sheet.left, sheet.y, sheet.bold))
            sheet.y += sheet.body.size * 1.7
        if sheet.y + pitch > sheet.bottom:
            break
        page.blocks.append([])
        printed = [
            cell.print(label, value, sheet.left + j * (wide + gap))
            for j, (label, value) in enumerate(pairs[i * columns : (i + 1) * columns])
        ]
        found = [mark for mark in printed if mark is not None]
        if style not in ("boxes", "stacked") and found:
            page.blocks[-1].append(join_row(found))
        sheet.y += pitch
    if rng.random() < 0.35 and sheet.y + sheet.step * 2.6 < sheet.bottom:
        page.blocks.append([])
        sheet.y += sheet.step * 1.2
        mark = sheet.line(rng.choice(("Signature:", "Signed:")), sheet.left, sheet.width)
        if mark is not None:
            start = sheet.left + sheet.body.width("Signature:  ")
            canvas.rule(start, sheet.y - sheet.step * 0.2, sheet.width * 0.35)


def _form_head(sheet: _Sheet) -> None:
    """Print the title of a form, and perhaps whose form it is."""
    rng, canvas = sheet.rng, sheet.canvas
    title = rng.choice(_FORM_TITLES)
    large = sheet.family.type(sheet.body.size * rng.uniform(1.25, 1.8), bold=True)
    align, band = rng.choice(("left", "center")), rng.random() < 0.3 and sheet.accent != BLACK
    if band:
        canvas.pen.rectangle((0, 0, canvas.size[0], sheet.y + large.size * 1.5), fill=sheet.accent)
    sheet.page.blocks.append([])
    sheet.line(title, sheet.left, sheet.width, align, large, WHITE if band else sheet.accent)
    sheet.y += sheet.body.size * (0.8 if band else 0.1)
    if rng.random() < 0.4:
        sheet.line(sheet.content.company(), sheet.left, sheet.width, align)
    if not band and rng.random() < 0.5:
        canvas.rule(sheet.left, sheet.y + 2, sheet.width, sheet.accent, rng.choice((1, 2)))
    sheet.y += sheet.step * 0.7


class _Cell:
    """Prints one label and its value in a form's style."""

    def __init__(
        self,
        sheet: _Sheet,
        style: str,
        labels: Type,
        values: Type,
        ink: Colour,
        wide: float,
        aside: float,
        pitch: float,
    ) -> None:
        self.sheet, self.style, self.labels, self.values, self.ink = sheet, style, labels, values, ink
        self.wide, self.aside, self.pitch = wide, aside, pitch
        self.capitals = style in ("boxes", "stacked") and sheet.rng.random() < 0.2

    def print(self, label: str, value: str, x: float) -> Mark | None:
        """Print the cell at `x`; its line where it has one. A cell that does not fit stays empty."""
        sheet, y, high = self.sheet, self.sheet.y, self.pitch
        pen, size = sheet.canvas.pen, self.values.size
        line = (round(x), round(y), round(x + self.wide), round(y + high))
        if self.style in ("boxes", "stacked"):
            small = sheet.fit(
                label,
                Type(self.labels.face, max(round(size * 0.8), round(10.4 * sheet.scale))),
                self.wide - size,
            )
            letters = sheet.fit(value, self.values, self.wide - size)
            if small is None or letters is None:
                return None
            if self.style == "boxes":
                pen.rectangle(line, outline=sheet.accent)
            else:
                pen.line((line[0], line[3] - 3, line[2], line[3] - 3), fill=(150, 150, 150))
            first = sheet.put(label, x + size * 0.4, y + high * 0.06, small, sheet.accent)
            mark = sheet.put(value, x + size * 0.4, y + high * 0.92 - letters.size * 1.3, letters, self.ink)
            sheet.page.blocks[-1].append(first)
            sheet.page.blocks[-1].append(mark)
            sheet.page.blocks.append([])
            sheet.page.fields[label.lower()] = mark
            return None
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
