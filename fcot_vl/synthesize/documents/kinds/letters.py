"""Letters and memos of one to six paragraphs."""

from __future__ import annotations

from fcot_vl.synthesize.documents.drawings import logo, signature
from fcot_vl.synthesize.documents.kinds.text_sheet import TextSheet
from fcot_vl.synthesize.documents.page import BLACK, WHITE, join_row
from fcot_vl.synthesize.ocr.typeset import Type

_CLOSINGS = (
    "Sincerely,",
    "Yours sincerely,",
    "Kind regards,",
    "Best regards,",
    "Yours faithfully,",
    "Regards,",
)
_ROLES = (
    "Manager",
    "Director",
    "Head of Sales",
    "Secretary",
    "Customer Service",
    "Chief Engineer",
    "Treasurer",
)


def print_letter(sheet: TextSheet, budget: int) -> None:
    """Print a letter or a memo of about `budget` characters."""
    rng = sheet.rng
    memo = rng.random() < 0.2
    height = (sheet.bottom - sheet.y) * 0.97
    characters = max(90, budget - (140 if memo else 230))
    sheet.set_type(characters, 13 if memo else 20, height, sheet.width, 19)
    if memo:
        _memo_head(sheet)
        _paragraphs(sheet, characters, sheet.bottom)
    else:
        signer = _letter_head(sheet)
        _paragraphs(sheet, characters, sheet.bottom - sheet.step * 6.3)
        _closing(sheet, signer)


def _paragraphs(sheet: TextSheet, characters: int, bottom: float) -> None:
    """Print about `characters` in paragraphs that end above `bottom`."""
    rng = sheet.rng
    align = rng.choice(("left", "left", "left", "justify"))
    count = min(6, 1 + characters // 260) if rng.random() < 0.75 else 1
    for _ in range(count):
        if bottom - sheet.y > sheet.step * 1.2:
            text = sheet.shorten(sheet.sentences(characters // count), bottom - sheet.y)
            sheet.paragraph(text, sheet.left, sheet.right, bottom, align)
            sheet.y += sheet.step * 0.6


def _letter_head(sheet: TextSheet) -> str:
    """Print sender, date, recipient, subject and salutation; return the name that signs the letter."""
    rng, content = sheet.rng, sheet.content
    signer = content.name()
    sheet.block()
    dated = content.date()
    if rng.random() < 0.6:
        _company_head(sheet)
    else:
        align = rng.choice(("left", "right", "right"))
        sheet.named("sender", rng.choice(("", "From: ")), signer, align=align)
        sheet.line(content.street(), align=align)
        sheet.line(content.town(), align=align)
    late = rng.random() < 0.4
    align = rng.choice(("left", "left", "right"))
    label = rng.choice(("", "", "Date: "))
    if not late:
        sheet.block(0.6)
        sheet.named("date", label, dated, align=align)
    sheet.block(0.6)
    recipient = content.name()
    sheet.named("recipient", rng.choice(("", "", "To: ")), recipient)
    sheet.line(content.street())
    sheet.line(content.town())
    if late:
        sheet.block(0.6)
        sheet.named("date", label, dated, align=align)
    if rng.random() < 0.4:
        sheet.block(0.3)
        label, name = rng.choice(
            (("Our ref: ", "reference"), ("Reference: ", "reference"), ("Account No: ", "account number"))
        )
        sheet.named(name, label, content.code())
    if rng.random() < 0.75:
        sheet.block(0.5)
        subject = content.title(4)
        letters = sheet.bold if rng.random() < 0.8 else sheet.body
        sheet.named("subject", rng.choice(("Subject: ", "Re: ", "RE: ", "Subject: ")), subject, letters)
    sheet.block(0.5)
    greeting = rng.choice(
        (f"Dear {recipient},", f"Dear {recipient},", f"Dear {recipient}:", "Dear Sir or Madam,")
    )
    sheet.line(greeting)
    sheet.y += sheet.step * 0.4
    return signer


def _company_head(sheet: TextSheet) -> None:
    """Print the head of a company's paper: a mark, its name and address; perhaps on a band of color."""
    rng, content, size = sheet.rng, sheet.content, sheet.body.size
    align = rng.choice(("left", "center", "right"))
    head = sheet.family.type(size * rng.uniform(1.3, 1.75), bold=rng.random() < 0.8)
    name = content.company()
    while head.width(name) > sheet.width * 0.8:
        head = Type(head.face, head.size - 1)
    band = rng.random() < 0.22 and sheet.accent != BLACK
    ink = sheet.accent
    if band:
        deep = sheet.y + head.size * sheet.leading + size * 0.5
        sheet.canvas.pen.rectangle((0, 0, sheet.canvas.size[0], deep), fill=sheet.accent)
        ink = WHITE
    elif align != "center" and rng.random() < 0.6:
        side = head.size * 1.5
        x = sheet.right - side if align == "left" else sheet.left
        logo(sheet.canvas, rng, x, sheet.y, side, sheet.accent)
    sheet.page.keep("company", sheet.line(name, head, align, ink))
    sheet.y += size * (0.75 if band else 0)
    small = sheet.family.type(max(sheet.least, size * 0.88))
    address = f"{content.street()}, {content.city()}"
    if rng.random() < 0.5:
        sheet.line(address, small, align)
        label = rng.choice(("Tel: ", "Phone: ", "Tel. "))
        sheet.named("phone number", label, content.phone(), small, align)
    else:
        sheet.named("phone number", f"{address} - Tel: ", content.phone(), small, align)
    if not band and rng.random() < 0.65:
        sheet.y += size * 0.3
        thick = rng.choice((1, 1, 2, 3))
        sheet.canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent, thick)
        sheet.y += thick


def _closing(sheet: TextSheet, signer: str) -> None:
    """Print the greeting at the end, a signature, the name of `signer`, and perhaps a line at the bottom."""
    rng = sheet.rng
    sheet.block(0.2)
    x = sheet.left if rng.random() < 0.8 else sheet.left + sheet.width * 0.55
    sheet.line(rng.choice(_CLOSINGS), left=x)
    if rng.random() < 0.45 and x == sheet.left:
        size, high = sheet.body.size, sheet.step * 1.6
        thick = max(1, round(1.3 * sheet.scale))
        signature(sheet.canvas.pen, rng, sheet.left + size * 0.3, sheet.y, size, high, thick)
        sheet.y += high
    else:
        sheet.y += sheet.step * 0.8
    sheet.block()
    sheet.line(signer, left=x)
    if rng.random() < 0.5:
        sheet.line(rng.choice(_ROLES), left=x)
    if rng.random() < 0.35 and sheet.y + 4 * sheet.step < sheet.bottom:
        sheet.y = sheet.bottom - sheet.body.size * 1.6
        sheet.canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent)
        sheet.block(0.1)
        foot = sheet.family.type(max(sheet.least, sheet.body.size * 0.85))
        texts = (f"Page 1 of {rng.randint(1, 4)}", f"www.{sheet.content.word()}.com")
        sheet.line(rng.choice(texts), foot, "center")


def _memo_head(sheet: TextSheet) -> None:
    """Print the head of a memo: to, from, date and subject."""
    rng, content, page = sheet.rng, sheet.content, sheet.page
    sheet.block()
    head = sheet.family.type(sheet.body.size * rng.uniform(1.3, 2.0), bold=True)
    word = rng.choice(("MEMORANDUM", "MEMO", "Internal memo", "FAX", "NOTICE"))
    sheet.line(word, head, rng.choice(("left", "center")), sheet.accent)
    if rng.random() < 0.5:
        sheet.line(content.company(), align="left")
    sheet.block(0.5)
    rows = [
        ("recipient", "To", content.name()),
        ("sender", "From", content.name()),
        ("date", "Date", content.date()),
        ("subject", rng.choice(("Subject", "Re")), content.title(4)),
    ]
    if rng.random() < 0.3:
        rows = [rows[2], *rows[:2], rows[3]]
    labels = rng.choice((sheet.bold, sheet.bold, sheet.body))
    aligned = max(labels.width(f"{label}:") for _, label, _ in rows) + sheet.body.size
    for name, label, value in rows:
        if sheet.left + aligned + sheet.body.width(value) > sheet.right:
            continue
        baseline = sheet.y + sheet.body.size
        first = sheet.canvas.write(f"{label}:", labels, sheet.left, baseline, sheet.ink)
        second = sheet.canvas.write(value, sheet.body, sheet.left + aligned, baseline, sheet.ink)
        page.fields[name] = second
        page.blocks[-1].append(join_row([first, second]))
        sheet.y += sheet.step * 1.1
    sheet.y += sheet.step * 0.3
    sheet.canvas.rule(sheet.left, sheet.y, sheet.width, sheet.ink, rng.choice((1, 2)))
    sheet.y += sheet.step * 0.7
