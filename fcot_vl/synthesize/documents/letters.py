"""Letters and reports: a letter or memo of one to six paragraphs, or an article in one or two columns."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import BLACK, Canvas, Colour, Mark, Page, join_row
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_GRIDS = ((3, 4), (3, 4), (3, 4), (2, 3), (2, 3), (2, 3), (3, 3), (2, 2), (2, 4))
_PAPERS: tuple[Colour, ...] = ((255, 255, 255),) * 5 + ((253, 251, 243), (250, 250, 250), (247, 244, 234))
_ACCENTS: tuple[Colour, ...] = (
    (0, 0, 0),
    (24, 50, 96),
    (120, 24, 32),
    (14, 84, 72),
    (70, 70, 74),
    (84, 44, 104),
)
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
_KINDS = ("REPORT", "NEWSLETTER", "Annual report", "Technical note", "Working paper", "Press release")
_DATED = re.compile(r"\d[/.-]\d\d?[/.-]\d|\d-\d\d-\d|\b[A-Z][a-z]{2} \d{1,2}, \d{4}|\d [A-Z][a-z]{2} \d{4}")


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one letter, memo or report."""
    content = Content(rng, split)
    columns, rows = rng.choice(_GRIDS)
    scale = rng.uniform(0.9, 1.03 if columns == rows == 2 else 1.5)
    size = (round(columns * 224 * scale), round(rows * 224 * scale))
    full = rng.uniform(1.2, 2.6) if rng.random() < 0.55 else rng.uniform(0.45, 1.4)
    budget = round(full * 64 * (columns * rows + 1))  # `full` characters per visual token
    canvas = Canvas(size, rng.choice(_PAPERS))
    sheet = _Sheet(rng, content, canvas, pick(rng, split, families), scale)
    if rng.random() < 0.58:
        sheet.letter(budget)
    else:
        sheet.report(budget)
    sheet.page.blocks = [block for block in sheet.page.blocks if block]
    return sheet.page


class _Sheet:
    """A sheet of paper being printed from top to bottom."""

    def __init__(
        self, rng: random.Random, content: Content, canvas: Canvas, family: Family, scale: float
    ) -> None:
        self.rng, self.content, self.canvas, self.family, self.scale = rng, content, canvas, family, scale
        width, height = canvas.size
        self.page = Page("letter", canvas)
        self.left = width * rng.uniform(0.07, 0.13)
        self.right = width - self.left
        self.y = height * rng.uniform(0.045, 0.07)
        self.bottom = height * rng.uniform(0.94, 0.965)
        self.ink = rng.choice((BLACK, BLACK, BLACK, (30, 30, 34), (22, 28, 52)))
        self.accent = rng.choice(_ACCENTS)
        self.leading = rng.uniform(1.25, 1.42)
        self.least = 10.4 * scale
        self.body = family.type(12 * scale)
        self.bold = family.type(12 * scale, bold=True)

    def set_type(self, characters: float, fixed: float, height: float, width: float, largest: float) -> None:
        """Choose the size of the body for `characters` of text and `fixed` lines more in `height` x `width`."""
        size = largest * self.scale
        while size > 11.5 * self.scale:
            wide = self.family.type(size).width("the quick brown fox, 12") / 23
            if (fixed + characters * wide * 1.06 / width) * size * self.leading < height:
                break
            size -= 0.5
        size = max(11.2 * self.scale, self.rng.uniform(0.8, 1.0) * size)
        self.body, self.bold = self.family.type(size), self.family.type(size, bold=True)

    @property
    def step(self) -> float:
        """Distance of lines of the body."""
        return self.body.size * self.leading

    def block(self, gap: float = 0.0) -> None:
        """Begin a new block `gap` lines below."""
        self.y += gap * self.step
        self.page.blocks.append([])

    def line(
        self,
        text: str,
        letters: Type | None = None,
        align: str = "left",
        ink: Colour | None = None,
        left: float | None = None,
    ) -> Mark | None:
        """Print one line of its own, smaller where it is too wide; None where it does not fit."""
        left = self.left if left is None else left
        letters = (letters or self.body).fitted(text, self.right - left, self.least)
        if letters is None or self.y + letters.size * self.leading > self.bottom:
            return None
        slack = self.right - left - letters.width(text)
        step = letters.size * self.leading
        x = left + {"center": slack / 2, "right": slack}.get(align, 0.0)
        mark = self.canvas.write(text, letters, x, self.y + letters.size, ink or self.ink)
        self.page.blocks[-1].append(mark)
        self.y += step
        return mark

    def named(
        self, name: str, label: str, value: str, letters: Type | None = None, align: str = "left"
    ) -> None:
        """Print `label` and `value` as one line and remember the value as field `name`."""
        mark = self.line(label + value, letters, align)
        if mark is not None:
            self.page.fields[name] = mark[len(label) :]

    def paragraph(self, text: str, left: float, right: float, bottom: float, align: str) -> str:
        """Print `text` as a block as far as it fits, and return the rest."""
        box = (left, self.y, right, bottom)
        marks, self.y = self.canvas.write_block(text, self.body, box, self.ink, align, self.leading)
        self.page.blocks.append(marks)
        return " ".join(self.body.wrap(text, right - left)[len(marks) :])

    def shorten(self, text: str, height: float) -> str:
        """Leave out the last sentences of `text` until it is no higher than `height` as a block."""
        while text and len(self.body.wrap(text, self.right - self.left)) > int(height / self.step - 0.05):
            text = " ".join(re.split(r"(?<=[.!?]) ", text)[:-1])
        return text

    def text(self, characters: int) -> str:
        """Sentences without a date, so that the page has one date only."""
        text = ""
        while len(text) < characters:
            sentence = self.content.sentence()
            if not _DATED.search(sentence):
                text += " " * bool(text) + sentence
        return text

    def logo(self, x: float, y: float, size: float) -> None:
        """Draw the mark of a company."""
        pen, ink, paper = self.canvas.pen, self.accent, self.canvas.image.getpixel((0, 0))
        box = (x, y, x + size, y + size)
        draw = self.rng.randrange(4)
        if draw == 0:
            pen.ellipse(box, fill=ink)
            pen.ellipse((x + size * 0.3, y + size * 0.12, x + size * 0.88, y + size * 0.7), fill=paper)
        elif draw == 1:
            pen.rectangle(box, fill=ink)
            pen.polygon([(x + size / 2, y + size * 0.2), (x + size * 0.8, y + size * 0.8), (x + size * 0.2, y + size * 0.8)], fill=paper)  # fmt: skip # noqa: E501
        elif draw == 2:
            pen.polygon([(x + size / 2, y), (x + size, y + size / 2), (x + size / 2, y + size), (x, y + size / 2)], fill=ink)  # fmt: skip # noqa: E501
        else:
            for i in range(3):
                pen.rectangle((x + i * size * 0.36, y + size * (0.6 - 0.3 * i), x + i * size * 0.36 + size * 0.26, y + size), fill=ink)  # fmt: skip # noqa: E501

    def signature(self) -> None:
        """Draw a name as if written by hand, from the left margin, two lines high."""
        rng, high = self.rng, self.step * 1.6
        x, points = self.left + self.body.size * 0.3, []
        for i in range(rng.randint(9, 15)):
            tall = 0.9 if i in (0, 5) else rng.uniform(0.1, 0.4)
            points += [
                (x, self.y + high * (0.72 - tall * 0.7)),
                (x + self.body.size * 0.22, self.y + high * 0.78),
            ]
            x += self.body.size * rng.uniform(0.3, 0.55)
        points.append((x + self.body.size * 1.4, self.y + high * 0.6))
        self.canvas.pen.line(points, fill=(28, 40, 110), width=max(1, round(1.3 * self.scale)), joint="curve")
        self.y += high

    def letter(self, budget: int) -> None:
        """Print a letter or a memo of about `budget` characters."""
        rng = self.rng
        memo = rng.random() < 0.2
        height = (self.bottom - self.y) * 0.97
        characters = max(90, budget - (140 if memo else 230))
        width = self.right - self.left
        self.set_type(characters, 13 if memo else 20, height, width, 19)
        if memo:
            self.memo_head()
        else:
            self.letter_head()
        last = self.bottom - self.step * (0 if memo else 6.3)
        indented = rng.choice(("left", "left", "left", "justify"))
        count = min(6, 1 + characters // 260) if rng.random() < 0.75 else 1
        for _ in range(count):
            if last - self.y > self.step * 1.2:
                text = self.shorten(self.text(characters // count), last - self.y)
                self.paragraph(text, self.left, self.right, last, indented)
                self.y += self.step * 0.6
        if memo:
            return
        self.block(0.2)
        x = self.left if rng.random() < 0.8 else self.left + width * 0.55
        self.line(rng.choice(_CLOSINGS), left=x)
        if rng.random() < 0.45 and x == self.left:
            self.signature()
        else:
            self.y += self.step * 0.8
        self.block()
        self.line(self.signer, left=x)
        if rng.random() < 0.5:
            self.line(rng.choice(_ROLES), left=x)
        if rng.random() < 0.35 and self.y + 4 * self.step < self.bottom:
            self.y = self.bottom - self.body.size * 1.6
            self.canvas.rule(self.left, self.y, width, self.accent)
            self.block(0.1)
            foot = self.family.type(max(self.least, self.body.size * 0.85))
            self.line(
                rng.choice((f"Page 1 of {rng.randint(1, 4)}", f"www.{self.content.word()}.com")),
                foot,
                "center",
            )

    def letter_head(self) -> None:
        """Print sender, date, recipient, subject and salutation."""
        rng, content = self.rng, self.content
        self.signer = content.name()
        self.block()
        dated = content.date()
        if rng.random() < 0.6:
            self.company_head()
        else:
            align = rng.choice(("left", "right", "right"))
            self.named("sender", rng.choice(("", "From: ")), self.signer, align=align)
            self.line(content.street(), align=align)
            self.line(f"{rng.randrange(10000, 99999)} {content.city()}", align=align)
        late = rng.random() < 0.4
        align = rng.choice(("left", "left", "right"))
        label = rng.choice(("", "", "Date: "))
        if not late:
            self.block(0.6)
            self.named("date", label, dated, align=align)
        self.block(0.6)
        recipient = content.name()
        self.named("recipient", rng.choice(("", "", "To: ")), recipient)
        self.line(content.street())
        self.line(f"{rng.randrange(10000, 99999)} {content.city()}")
        if late:
            self.block(0.6)
            self.named("date", label, dated, align=align)
        if rng.random() < 0.4:
            self.block(0.3)
            label, name = rng.choice((("Our ref: ", "reference"), ("Reference: ", "reference"), ("Account No: ", "account number")))  # fmt: skip # noqa: E501
            self.named(name, label, content.code())
        if rng.random() < 0.75:
            self.block(0.5)
            subject = content.title(4)
            letters = self.bold if rng.random() < 0.8 else self.body
            self.named("subject", rng.choice(("Subject: ", "Re: ", "RE: ", "Subject: ")), subject, letters)
        self.block(0.5)
        greeting = rng.choice(
            (f"Dear {recipient},", f"Dear {recipient},", f"Dear {recipient}:", "Dear Sir or Madam,")
        )
        self.line(greeting)
        self.y += self.step * 0.4

    def company_head(self) -> None:
        """Print the head of a company's paper: a mark, its name and address; perhaps on a band of colour."""
        rng, content, size = self.rng, self.content, self.body.size
        align = rng.choice(("left", "center", "right"))
        head = self.family.type(size * rng.uniform(1.3, 1.75), bold=rng.random() < 0.8)
        name = content.company()
        while head.width(name) > (self.right - self.left) * 0.8:
            head = Type(head.face, head.size - 1)
        band = rng.random() < 0.22 and self.accent != BLACK
        ink = self.accent
        if band:
            deep = self.y + head.size * self.leading + size * 0.5
            self.canvas.pen.rectangle((0, 0, self.canvas.size[0], deep), fill=self.accent)
            ink = (255, 255, 255)
        elif align != "center" and rng.random() < 0.6:
            side = head.size * 1.5
            self.logo(self.right - side if align == "left" else self.left, self.y, side)
        mark = self.line(name, head, align, ink)
        if mark is not None:
            self.page.fields["company"] = mark
        self.y += size * (0.75 if band else 0)
        small = self.family.type(max(self.least, size * 0.88))
        address = f"{content.street()}, {content.city()}"
        if rng.random() < 0.5:
            self.line(address, small, align)
            self.named(
                "phone number", rng.choice(("Tel: ", "Phone: ", "Tel. ")), content.phone(), small, align
            )
        else:
            phone = content.phone()
            mark = self.line(f"{address} - Tel: {phone}", small, align)
            if mark is not None:
                self.page.fields["phone number"] = mark[-len(phone) :]
        if not band and rng.random() < 0.65:
            self.y += size * 0.3
            thick = rng.choice((1, 1, 2, 3))
            self.canvas.rule(self.left, self.y, self.right - self.left, self.accent, thick)
            self.y += thick

    def memo_head(self) -> None:
        """Print the head of a memo: to, from, date and subject."""
        rng, content = self.rng, self.content
        self.block()
        head = self.family.type(self.body.size * rng.uniform(1.3, 2.0), bold=True)
        self.line(rng.choice(("MEMORANDUM", "MEMO", "Internal memo", "FAX", "NOTICE")), head, rng.choice(("left", "center")), self.accent)  # fmt: skip # noqa: E501
        if rng.random() < 0.5:
            self.line(content.company(), align="left")
        self.block(0.5)
        rows = [("recipient", "To", content.name()), ("sender", "From", content.name()), ("date", "Date", content.date())]  # fmt: skip # noqa: E501
        rows.append(("subject", rng.choice(("Subject", "Re")), content.title(4)))
        if rng.random() < 0.3:
            rows = [rows[2], *rows[:2], rows[3]]
        labels = rng.choice((self.bold, self.bold, self.body))
        aligned = max(labels.width(f"{label}:") for _, label, _ in rows) + self.body.size
        for name, label, value in rows:
            if self.left + aligned + self.body.width(value) > self.right:
                continue
            baseline = self.y + self.body.size
            first = self.canvas.write(f"{label}:", labels, self.left, baseline, self.ink)
            self.page.fields[name] = self.canvas.write(
                value, self.body, self.left + aligned, baseline, self.ink
            )
            self.page.blocks[-1].append(join_row([first, self.page.fields[name]]))
            self.y += self.step * 1.1
        self.y += self.step * 0.3
        self.canvas.rule(self.left, self.y, self.right - self.left, self.ink, rng.choice((1, 2)))
        self.y += self.step * 0.7

    def report(self, budget: int) -> None:
        """Print the first page of a report or an article of about `budget` characters."""
        rng, content, width = self.rng, self.content, self.right - self.left
        self.page.kind = "report"
        columns = 2 if rng.random() < 0.65 and budget > 430 else 1
        gutter = width * 0.06
        wide = (width - gutter * (columns - 1)) / columns
        characters = max(120, budget - 70)
        height = (self.bottom - self.y) * 0.78 * columns
        self.set_type(characters, 6 if columns == 1 else 9, height, wide, 21 if columns == 1 else 17)
        self.report_head()
        top, last = self.y, self.bottom - self.step * 1.6
        numbered, align = rng.random() < 0.4, rng.choice(("left", "left", "justify"))
        align = align if wide > 18 * self.body.size else "left"
        lines = characters / (wide / self.body.width("the quick brown fox, 12") * 23) + 5
        if columns == 2:
            last = min(last, top + max(6, lines * 0.6) * self.step)
        left, column, section, lowest = self.left, 0, 0, top
        rest = ""
        while characters > 60 or rest:
            if last - self.y < self.step * (1.1 if rest and self.y == top else 3.4) or (
                rest and self.y > top
            ):
                column += 1
                lowest = max(lowest, self.y)
                if column == columns:
                    break
                left, self.y = left + wide + gutter, top
            if not rest and (rng.random() < 0.5 or section == 0):
                section += 1
                heading = f"{section}. {content.title(3)}" if numbered else content.title(3)
                if self.bold.width(heading) < wide:
                    self.block(0.3 if self.y > top else 0)
                    self.page.blocks[-1].append(
                        self.canvas.write(heading, self.bold, left, self.y + self.bold.size, self.accent)
                    )
                    self.y += self.step * 1.1
            if not rest:
                rest = self.text(min(characters, rng.randint(130, 330)))
                characters -= len(rest)
            rest = self.paragraph(rest, left, left + wide, last, align)
            self.y += self.step * 0.45
        lowest = max(lowest, self.y)
        if self.bottom - lowest > self.step * 8 and rng.random() < 0.75:
            self.picture(lowest + self.step * 0.5)
        if rng.random() < 0.5:
            self.y = self.bottom - self.step
            self.block()
            self.line(str(rng.randint(1, 60)), align=rng.choice(("center", "right")))

    def report_head(self) -> None:
        """Print kind, title, author and date of a report."""
        rng, content, size = self.rng, self.content, self.body.size
        align = rng.choice(("left", "center", "left"))
        if rng.random() < 0.4:
            self.block()
            self.line(rng.choice(_KINDS), self.family.type(max(self.least, size * 0.9)), align, self.accent)
            if rng.random() < 0.6:
                self.canvas.rule(self.left, self.y, self.right - self.left, self.accent, rng.choice((1, 2)))
                self.y += size * 0.4
        self.block()
        mark = self.line(
            content.title(5), self.family.type(size * rng.uniform(1.4, 2.1), True), align, self.accent
        )
        if mark is not None:
            self.page.fields["title"] = mark
        self.block(0.15)
        author, dated = content.name(), content.date()
        by, on = rng.choice((("By ", ""), ("Author: ", "Date: "), ("by ", "Published: "), ("Author: ", "")))
        if rng.random() < 0.3:
            mark = self.line(f"{by}{author} - {on}{dated}", align=align)
            if mark is not None:
                self.page.fields["author"] = mark[len(by) : len(by) + len(author)]
                self.page.fields["date"] = mark[-len(dated) :]
        else:
            self.named("author", by, author, align=align)
            self.named("date", on, dated, align=align)
        self.y += self.step * rng.uniform(0.5, 0.9)

    def picture(self, top: float) -> None:
        """Draw a picture of hills from `top` on and print its caption."""
        rng, pen = self.rng, self.canvas.pen
        high = min(self.bottom - top - self.step * 3.2, (self.right - self.left) * 0.5)
        wide = (self.right - self.left) * rng.choice((1.0, 1.0, 0.7))
        left = self.left + (self.right - self.left - wide) / 2
        sky, grey = rng.randint(170, 225), rng.random() < 0.4
        pen.rectangle(
            (left, top, left + wide, top + high), fill=(sky, sky, sky) if grey else (sky - 40, sky, 235)
        )
        for i in range(3):
            shade = 150 - 40 * i
            tops = [
                (left + wide * x / 8, top + high * (rng.uniform(0.1, 0.35) + 0.22 * (i + 0.6)))
                for x in range(9)
            ]
            ground = [*tops, (left + wide, top + high), (left, top + high)]
            pen.polygon(ground, fill=(shade, shade, shade) if grey else (shade - 30, shade, shade // 2 + 20))
        self.y = top + high + self.step * 0.2
        self.block()
        caption = f"Figure {rng.randint(1, 5)}: {self.content.title(4)}"
        self.line(caption, align=rng.choice(("left", "center")))
