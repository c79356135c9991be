"""Invoices: seller, buyer, what is billed, its tax and total."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence

from fcot_vl.synthesize.documents.content import money
from fcot_vl.synthesize.documents.kinds.business_sheet import CURRENCIES, BusinessSheet, new_business_sheet
from fcot_vl.synthesize.documents.page import BLACK, WHITE, Color, Page, join_row
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_GRIDS = ((3, 4), (3, 4), (3, 4), (3, 3), (2, 3), (2, 3), (2, 4))
# Formats of `Content.date`, by its styles.
_FORMATS = ("%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y", "%d %b %Y", "%b %d, %Y", "%d-%m-%Y", "%d/%m/%y")
_DATE_STYLES = (0, 0, 1, 2, 3, 3, 4, 4, 5, 6)
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


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one invoice."""
    sheet, budget = new_business_sheet("invoice", _GRIDS, rng, split, families)
    _print(sheet, budget)
    return sheet.finish()


def _print(sheet: BusinessSheet, budget: int) -> None:
    """Print an invoice of about `budget` characters."""
    rng, content, canvas = sheet.rng, sheet.content, sheet.canvas
    width, height = sheet.width / sheet.scale, canvas.size[1] / sheet.scale
    count = min(26, max(rng.choice((1, 2, 2, 3)), (budget - 215) // 25))
    sheet.set_type(min(19.0, width / 27, height / (21 + count * 1.6) / 1.42) * rng.uniform(0.85, 1.0))
    dated, due = _dates(sheet)
    _seller(sheet)
    sheet.y += sheet.step * rng.uniform(0.5, 1.0)
    pairs = [("invoice number", rng.choice(("Invoice No", "Invoice number", "Invoice #")), content.code())]
    pairs.append(("date", rng.choice(("Date", "Invoice date", "Date")), dated))
    if rng.random() < 0.7:
        pairs.append(("due date", rng.choice(("Due date", "Payment due")), due))
    if rng.random() < 0.4:
        label = rng.choice(("Order No", "PO number", "Order number"))
        pairs.append(("order number", label, content.code()))
    _side_by_side(sheet, pairs)
    sheet.y += sheet.step * rng.uniform(0.6, 1.3)
    _billed(sheet, count)
    sheet.block(rng.uniform(0.6, 1.5))
    if rng.random() < 0.4:
        account = content.code()
        sheet.named("account number", f"{rng.choice(('Bank account', 'Account'))}: ", account)
    if rng.random() < 0.6:
        sheet.line(rng.choice(_NOTES), align=rng.choice(("left", "center")))


def _dates(sheet: BusinessSheet) -> tuple[str, str]:
    """Draw the date of an invoice and the date when it is due, written in the same way."""
    rng = sheet.rng
    style = rng.choice(_DATE_STYLES)
    dated = sheet.content.date(style)
    days = datetime.timedelta(rng.choice((7, 14, 30, 45, 60)))
    due = (datetime.datetime.strptime(dated, _FORMATS[style]) + days).strftime(_FORMATS[style])
    return dated, due.lstrip("0") if style == 3 else due.replace(" 0", " ") if style == 4 else due


def _side_by_side(sheet: BusinessSheet, pairs: list[tuple[str, str, str]]) -> None:
    """Print the buyer and, beside it, `pairs`; either may be on the left. Go on below both."""
    top, half = sheet.y, sheet.width * 0.48
    mirrored = sheet.rng.random() < 0.25
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
    sheet.y = lowest


def _seller(sheet: BusinessSheet) -> None:
    """Print the seller's name and address and the word invoice, perhaps on a band of color."""
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
    sheet.block()
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
    sheet.line(content.street(), align=align)
    sheet.line(content.town(), align=align)
    if rng.random() < 0.6:
        phone = content.phone()
        sheet.named("phone number", f"{rng.choice(('Tel', 'Phone'))}: ", phone, align=align)
    if not band and rng.random() < 0.5:
        sheet.y += sheet.step * 0.3
        canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent, rng.choice((1, 2, 3)))


def _buyer(sheet: BusinessSheet, x: float, width: float) -> None:
    """Print whom the invoice is for."""
    rng, content = sheet.rng, sheet.content
    sheet.block()
    title = rng.choice(("Bill to", "Bill to:", "BILL TO", "Billed to:", "Customer:"))
    sheet.line(title, sheet.bold, ink=sheet.accent, left=x, width=width)
    buyer = content.company() if rng.random() < 0.5 else content.name()
    sheet.page.keep("buyer", sheet.line(buyer, left=x, width=width))
    sheet.line(content.street(), left=x, width=width)
    sheet.line(content.town(), left=x, width=width)


def _pairs(sheet: BusinessSheet, pairs: list[tuple[str, str, str]], x: float, width: float) -> None:
    """Print labels with their values beside them, in one of three ways, and remember the fields."""
    rng = sheet.rng
    sheet.block()
    how = rng.choice(("left", "right", "aligned"))
    label_type = sheet.bold if rng.random() < 0.5 else sheet.body
    for name, label, value in pairs:
        text = f"{label}: {value}"
        fitted = sheet.fit(text + "  ", label_type, width)
        if fitted is None:
            continue
        values = Type(sheet.body.face, fitted.size)
        first_width = fitted.width(f"{label}: ")
        at = x + first_width if how == "left" else x + width - values.width(value)
        if at + values.width(value) > x + width + 1:
            continue
        start = at - first_width if how == "right" else x
        first = sheet.put(f"{label}:", start, sheet.y, fitted)
        sheet.page.fields[name] = sheet.put(value, at, sheet.y, values)
        sheet.page.blocks[-1].append(join_row([first, sheet.page.fields[name]]))
        sheet.y += sheet.step


def _billed(sheet: BusinessSheet, count: int) -> None:
    """Print the table of what is billed, its subtotal, tax and total."""
    rng, canvas = sheet.rng, sheet.canvas
    headers = rng.choice(_HEADERS)
    sign = rng.choice(CURRENCIES)
    row_step = sheet.step * rng.uniform(1.15, 1.5)
    count = max(1, min(count, int((sheet.bottom - sheet.y - sheet.step * 7.5) / row_step) - 1))
    rows, total = _rows(sheet, headers, count)
    pad = sheet.body.size * 0.45
    letters, bold, wide = _columns(sheet, headers, rows, pad)
    style = rng.choice(("grid", "band", "rules", "zebra", "plain"))
    white = style == "band" and sheet.accent != BLACK
    sheet.block()
    top = sheet.y
    for i, row in enumerate([list(headers), *rows]):
        box = (sheet.left, round(sheet.y), sheet.right, round(sheet.y + row_step))
        if (i == 0 and white) or (style == "zebra" and i % 2 == 0):
            canvas.pen.rectangle(box, fill=sheet.accent if white and i == 0 else sheet.tint)
        x, marks = float(sheet.left), []
        face = bold if i == 0 else letters
        for j, cell in enumerate(row):
            align = "left" if headers[j] in ("Description", "Item", "No.") else "right"
            middle = sheet.y + (row_step - face.size * 1.2) / 2
            ink = WHITE if white and i == 0 else BLACK
            marks.append(sheet.put(cell, x + pad, middle, face, ink, align, wide[j] - 2 * pad))
            x += wide[j]
        sheet.page.blocks[-1].append(join_row(marks))
        sheet.y += row_step
        if style == "grid" or (style == "rules" and i > 0) or i == 0:
            thick = 2 if i == 0 and style != "grid" else 1
            canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent, thick)
    if style == "grid":
        canvas.rule(sheet.left, top, sheet.width, sheet.accent)
        for x in [sheet.left, *(sheet.left + sum(wide[: j + 1]) for j in range(len(wide)))]:
            canvas.pen.line((x, round(top), x, round(sheet.y)), fill=sheet.accent)
    elif style != "zebra":
        canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent)
    sheet.y += sheet.step * 0.5
    _totals(sheet, total, sign, pad)


def _rows(sheet: BusinessSheet, headers: Sequence[str], count: int) -> tuple[list[list[str]], int]:
    """Draw `count` rows below `headers`; return them and the sum of their amounts in hundredths."""
    rng, total = sheet.rng, 0
    rows: list[list[str]] = []
    for i, item in enumerate(sheet.content.items(count)):
        qty, cents = rng.choice((1, 1, 2, 3, 4, 5, 8, 10, 12)), sheet.content.cents(150, 30_000)
        qty = 1 if headers[0] == "No." else qty
        total += qty * cents
        cells = {"No.": str(i + 1), "Amount": money(qty * cents), "Line total": money(qty * cents)}
        cells |= {"Rate": money(cents), "Unit price": money(cents), "Price": money(cents)}
        cells |= {"Qty": str(qty), "Quantity": str(qty), "Units": str(qty)}
        rows.append([cells.get(header, item) for header in headers])
    return rows, total


def _columns(
    sheet: BusinessSheet, headers: Sequence[str], rows: list[list[str]], pad: float
) -> tuple[Type, Type, list[float]]:
    """Return type for the cells and for the headers, and widths of the columns, which fill the sheet's width."""
    letters, bold = sheet.body, sheet.bold
    while True:
        wide = [
            max(bold.width(header), *(letters.width(row[j]) for row in rows)) + 2 * pad
            for j, header in enumerate(headers)
        ]
        if sum(wide) <= sheet.width or letters.size - 1 < sheet.least:
            break
        letters, bold = Type(letters.face, letters.size - 1), Type(bold.face, letters.size - 1)
    text_column = next(j for j, header in enumerate(headers) if header in ("Description", "Item"))
    wide[text_column] += sheet.width - sum(wide)
    return letters, bold, wide


def _totals(sheet: BusinessSheet, total: int, sign: str, pad: float) -> None:
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
    sheet.block()
    for name, label, value in sums:
        last = name == "total"
        letters = sheet.bold if last else sheet.body
        ink: Color = BLACK
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
