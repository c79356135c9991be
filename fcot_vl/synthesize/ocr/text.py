"""Pages of running text: articles in one to three columns, letters, forms. The answer is the text in reading order."""

from __future__ import annotations

import random

from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.scan import scan
from fcot_vl.synthesize.ocr.sheet import A4, Printed, Sheet, types
from fcot_vl.synthesize.ocr.typeset import Type

_PAPER = (A4, A4, A4, (1276, 1650), (877, 1240), (1754, 1240))  # A4, US Letter, A5, A4 landscape


def make(rng: random.Random, content: Content) -> Printed:
    """Make a page of text. Most pages are articles."""
    sheet = rng.choices((_article, _letter, _form), (0.6, 0.2, 0.2))[0](rng, content)
    lines = rng.random() < 0.5
    image, stamped = scan(rng, sheet.image, content.language)
    return Printed(image, "lines" if lines else "paragraphs", sheet.text(lines), stamped)


def _size(rng: random.Random, content: Content, least: int, most: int) -> int:
    """Draw the type size in pixels. Chinese needs slightly larger type to be readable."""
    return rng.randint(least, most) + (3 if content.language == "zh" else 0)


def _article(rng: random.Random, content: Content) -> Sheet:
    sheet = Sheet(rng.choice(_PAPER), ink=rng.randint(0, 50))
    width, height = sheet.size
    columns = rng.choices((1, 2, 3), (0.45, 0.35, 0.2))[0] if width > 1000 else 1
    body, bold = types(rng, content.language, _size(rng, content, *((19, 32) if columns == 1 else (17, 23))))
    margin, gutter = rng.randint(width // 13, width // 8), rng.randint(36, 64)
    inner = width - 2 * margin
    top, bottom = margin, height - margin
    if rng.random() < 0.4:  # running head
        sheet.print(content.title(), body.sized(0.8), (margin, margin * 0.5, inner, margin), align="right")
        sheet.rule(margin, margin * 0.5 + body.size * 1.15, inner)
    if rng.random() < 0.7:
        size = bold.sized(rng.uniform(1.4, 2.0))
        align = rng.choice(["left", "center"])
        top = round(sheet.print(content.title(), size, (margin, top, inner, bottom), align=align))
        if rng.random() < 0.5:
            byline = f"{content.name()} · {content.date()}"
            top = round(sheet.print(byline, body.sized(0.9), (margin, top, inner, bottom), align=align))
        top += body.size
    bottom = top + round((bottom - top) * rng.choice((1, 1, rng.uniform(0.3, 1))))
    wide = (inner - gutter * (columns - 1)) / columns
    _flow(
        rng, content, sheet, body, [(margin + i * (wide + gutter), top, wide, bottom) for i in range(columns)]
    )
    if columns > 1 and rng.random() < 0.3:
        for i in range(1, columns):
            x = margin + i * (wide + gutter) - gutter / 2
            sheet.pen.line((x, top, x, bottom), fill=120)
    if rng.random() < 0.5:
        number = rng.choice(["{}", "- {} -", "{} / 312"]).format(rng.randrange(1, 312))
        place = (margin, height - margin * 0.7, inner, height)
        sheet.print(number, body.sized(0.85), place, align=rng.choice(["center", "right", "left"]))
    return sheet


def _flow(
    rng: random.Random,
    content: Content,
    sheet: Sheet,
    body: Type,
    boxes: list[tuple[float, float, float, float]],
) -> None:
    """Print paragraphs until the boxes are full, one box after the other. A paragraph ends with its box."""
    leading = rng.uniform(1.25, 1.7)
    align = rng.choice(["left", "justify"])
    indent = body.size * 2 if rng.random() < 0.5 or content.language == "zh" else 0
    apart = body.size * (rng.uniform(0.4, 1.0) if not indent else rng.choice([0, 0.3]))
    for x, top, width, bottom in boxes:
        y = top
        while y + body.size * leading <= bottom:
            y = sheet.print(
                content.paragraph(),
                body,
                (x, y, width, bottom),
                align=align,
                indent=indent,
                leading=leading,
            )
            y += apart


def _letter(rng: random.Random, content: Content) -> Sheet:
    sheet = Sheet(A4, ink=rng.randint(0, 50))
    width, height = sheet.size
    body, bold = types(rng, content.language, _size(rng, content, 21, 27))
    margin = rng.randint(110, 160)
    inner, bottom = width - 2 * margin, height - margin
    y: float = margin
    for line in [content.company(), *content.address()]:
        y = sheet.print(line, body, (margin, y, inner, bottom), align="right")
    y += body.size
    for line in [content.name(), *content.address()]:
        y = sheet.print(line, body, (margin, y, inner, bottom))
    y = sheet.print(content.date(), body, (margin, y + body.size, inner, bottom), align="right")
    y = sheet.print(content.title(), bold, (margin, y + body.size, inner, bottom))
    hello, bye = ("尊敬的{}：", "此致敬礼") if content.language == "zh" else ("Dear {},", "Yours sincerely,")
    y = sheet.print(hello.format(content.name()), body, (margin, y + body.size, inner, bottom))
    for _ in range(rng.randint(1, 4)):
        y = sheet.print(content.paragraph(), body, (margin, y + body.size * 0.7, inner, bottom - 200))
    y = sheet.print(bye, body, (margin, y + body.size * 1.5, inner, bottom))
    sheet.print(content.name(), body, (margin, y + body.size * 2, inner, bottom))
    return sheet


_LABELS = {
    "latin": (  # noqa: SIM905
        "Name Company Date City Phone Order Invoice Reference Amount Due Department Contact Terms Method Status "
        "Account Country Weight Serial Model"
    ).split(),
    "zh": (  # noqa: SIM905
        "姓名 公司 日期 城市 电话 订单号 发票号 编号 金额 到期日 部门 联系人 条款 方式 状态 账号 国家 重量 序列号 型号"
    ).split(),
}


def _form(rng: random.Random, content: Content) -> Sheet:
    """Make a form: labels with values, on dotted lines or in boxes."""
    sheet = Sheet(A4, ink=rng.randint(0, 50))
    width, height = sheet.size
    body, bold = types(rng, content.language, _size(rng, content, 21, 28))
    margin = rng.randint(90, 140)
    inner, bottom = width - 2 * margin, height - margin
    y = sheet.print(content.title(), bold.sized(1.6), (margin, margin, inner, bottom), align="center")
    y += body.size * 1.5
    step = body.size * rng.uniform(2.0, 2.6)
    boxed = rng.random() < 0.5
    colon = rng.choice([":", ""]) if content.language == "latin" else rng.choice(["：", ""])
    for label in rng.sample(_LABELS[content.language], rng.randint(6, 16)):
        if y + step > bottom:
            break
        if boxed:
            sheet.pen.rectangle((margin, y, margin + inner, y + step), outline=60)
            sheet.pen.line((margin + inner * 0.3, y, margin + inner * 0.3, y + step), fill=60)
        else:
            sheet.rule(margin + inner * 0.32, y + step * 0.8, inner * 0.68, 150)
        row, low = y + (step - body.size * 1.35) / 2, y + step
        sheet.print(label + colon, bold, (margin + 12, row, inner * 0.3 - 24, low))
        value = sheet.paragraphs.pop()
        sheet.print(content.value(), body, (margin + inner * 0.33, row, inner * 0.66, low))
        sheet.paragraphs[-1] = [f"{value[0]} {sheet.paragraphs[-1][0]}"]
        y += step
    if y + body.size * 6 < bottom:
        sheet.print(content.paragraph(), body, (margin, y + body.size * 2, inner, bottom))
    return sheet
