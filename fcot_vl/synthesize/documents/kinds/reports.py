"""First pages of reports and articles, in one or two columns."""

from __future__ import annotations

from fcot_vl.synthesize.documents.drawings import hills
from fcot_vl.synthesize.documents.kinds.text_sheet import TYPICAL, TextSheet

_KINDS = ("REPORT", "NEWSLETTER", "Annual report", "Technical note", "Working paper", "Press release")


def print_report(sheet: TextSheet, budget: int) -> None:
    """Print the first page of a report or an article of about `budget` characters."""
    rng, width = sheet.rng, sheet.width
    sheet.page.kind = "report"
    columns = 2 if rng.random() < 0.65 and budget > 430 else 1
    gutter = width * 0.06
    wide = (width - gutter * (columns - 1)) / columns
    characters = max(120, budget - 70)
    height = (sheet.bottom - sheet.y) * 0.78 * columns
    sheet.set_type(characters, 6 if columns == 1 else 9, height, wide, 21 if columns == 1 else 17)
    _head(sheet)
    lowest = _sections(sheet, characters, columns, wide, gutter)
    if sheet.bottom - lowest > sheet.step * 8 and rng.random() < 0.75:
        _picture(sheet, lowest + sheet.step * 0.5)
    if rng.random() < 0.5:
        sheet.y = sheet.bottom - sheet.step
        sheet.block()
        sheet.line(str(rng.randint(1, 60)), align=rng.choice(("center", "right")))


def _sections(sheet: TextSheet, characters: int, columns: int, wide: float, gutter: float) -> float:
    """Print text with headings in `columns`, each `wide` pixels wide; return the y below the longest column."""
    rng, content = sheet.rng, sheet.content
    top, last = sheet.y, sheet.bottom - sheet.step * 1.6
    numbered, align = rng.random() < 0.4, rng.choice(("left", "left", "justify"))
    align = align if wide > 18 * sheet.body.size else "left"
    lines = characters / (wide / sheet.body.width(TYPICAL) * 23) + 5
    if columns == 2:
        last = min(last, top + max(6, lines * 0.6) * sheet.step)
    left, column, section, lowest = sheet.left, 0, 0, top
    rest = ""  # of a paragraph that goes on in the next column
    while characters > 60 or rest:
        needed = sheet.step * (1.1 if rest and sheet.y == top else 3.4)
        if last - sheet.y < needed or (rest and sheet.y > top):
            column += 1
            lowest = max(lowest, sheet.y)
            if column == columns:
                break
            left, sheet.y = left + wide + gutter, top
        if not rest and (rng.random() < 0.5 or section == 0):
            section += 1
            heading = f"{section}. {content.title(3)}" if numbered else content.title(3)
            if sheet.bold.width(heading) < wide:
                sheet.block(0.3 if sheet.y > top else 0)
                baseline = sheet.y + sheet.bold.size
                mark = sheet.canvas.write(heading, sheet.bold, left, baseline, sheet.accent)
                sheet.page.blocks[-1].append(mark)
                sheet.y += sheet.step * 1.1
        if not rest:
            rest = sheet.sentences(min(characters, rng.randint(130, 330)))
            characters -= len(rest)
        rest = sheet.paragraph(rest, left, left + wide, last, align)
        sheet.y += sheet.step * 0.45
    return max(lowest, sheet.y)


def _head(sheet: TextSheet) -> None:
    """Print kind, title, author and date of a report."""
    rng, content, size = sheet.rng, sheet.content, sheet.body.size
    align = rng.choice(("left", "center", "left"))
    if rng.random() < 0.4:
        sheet.block()
        small = max(sheet.least, size * 0.9)
        sheet.line(rng.choice(_KINDS), sheet.family.type(small), align, sheet.accent)
        if rng.random() < 0.6:
            sheet.canvas.rule(sheet.left, sheet.y, sheet.width, sheet.accent, rng.choice((1, 2)))
            sheet.y += size * 0.4
    sheet.block()
    title = content.title(5)
    large = sheet.family.type(size * rng.uniform(1.4, 2.1), bold=True)
    sheet.page.keep("title", sheet.line(title, large, align, sheet.accent))
    sheet.block(0.15)
    author, dated = content.name(), content.date()
    by, on = rng.choice((("By ", ""), ("Author: ", "Date: "), ("by ", "Published: "), ("Author: ", "")))
    if rng.random() < 0.3:
        mark = sheet.line(f"{by}{author} - {on}{dated}", align=align)
        sheet.page.keep("author", mark, author)
        sheet.page.keep("date", mark, dated)
    else:
        sheet.named("author", by, author, align=align)
        sheet.named("date", on, dated, align=align)
    sheet.y += sheet.step * rng.uniform(0.5, 0.9)


def _picture(sheet: TextSheet, top: float) -> None:
    """Draw a picture from `top` on and print its caption."""
    rng = sheet.rng
    high = min(sheet.bottom - top - sheet.step * 3.2, sheet.width * 0.5)
    wide = sheet.width * rng.choice((1.0, 1.0, 0.7))
    hills(sheet.canvas.pen, rng, sheet.left + (sheet.width - wide) / 2, top, wide, high)
    sheet.y = top + high + sheet.step * 0.2
    sheet.block()
    caption = f"Figure {rng.randint(1, 5)}: {sheet.content.title(4)}"
    sheet.line(caption, align=rng.choice(("left", "center")))
