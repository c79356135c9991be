"""Structured pages: headings, paragraphs, lists, tables and figures in one or two columns. The answer is Markdown."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from fcot_vl.synthesize.ocr.blocks import Block, Heading, Items, Paragraph, Spans, Table, markdown, plain
from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.scan import scan
from fcot_vl.synthesize.ocr.sheet import A4, Printed, Sheet, types
from fcot_vl.synthesize.ocr.table import Ruled, Style, plain_cells, text_rows
from fcot_vl.synthesize.ocr.typeset import Type, unwrap


def make(rng: random.Random, content: Content) -> Printed:
    """Make a page of blocks in reading order: the title, then each column."""
    sheet, blocks = compose(rng, content)
    image, stamped = scan(rng, sheet.image, content.language)
    return Printed(image, "markdown", markdown(blocks), stamped)


def compose(rng: random.Random, content: Content) -> tuple[Sheet, list[Block]]:
    """Return the page before it is scanned, and the blocks on it."""
    sheet = Sheet(A4, ink=rng.randint(0, 40))
    columns = rng.choices((1, 2), (0.6, 0.4))[0]
    size = rng.randint(20, 27) if columns == 1 else rng.randint(18, 22)
    body, bold = types(rng, content.language, size + (2 if content.language == "zh" else 0))
    margin, gutter = rng.randint(90, 140), rng.randint(40, 64)
    inner, bottom = A4[0] - 2 * margin, A4[1] - margin
    flow = _Flow(rng, content, sheet, body, bold)
    flow.place(margin, margin, inner, bottom)
    flow.heading(1, content.title())
    if rng.random() < 0.4:
        flow.paragraph(content.paragraph(1, 3))
    wide = (inner - gutter * (columns - 1)) / columns
    top = flow.y + body.size * 0.5
    for i in range(columns):
        flow.place(margin + i * (wide + gutter), top, wide, bottom)
        flow.fill()
    return sheet, flow.blocks


@dataclass
class _Flow:
    """Printer of blocks, one below the other, into the current column. `blocks` has those that were printed."""

    rng: random.Random
    content: Content
    sheet: Sheet
    body: Type
    bold: Type
    blocks: list[Block] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = 0
    bottom: float = 0
    numbers: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self.numbered = self.rng.random() < 0.4
        self.justify = "justify" if self.rng.random() < 0.5 else "left"
        self.leading = self.rng.uniform(1.28, 1.55)
        self.bullet = self.body.face.keep(self.rng.choice("•▪–◦")) or "-"
        self.style: Style = self.rng.choice(["grid", "rules", "zebra", "rows"])

    def place(self, x: float, y: float, width: float, bottom: float) -> None:
        """Continue in another column."""
        self.x, self.y, self.width, self.bottom = x, y, width, bottom

    def fill(self) -> None:
        """Print blocks until the space left is less than about a paragraph. A heading is never last."""
        makers = (self.section, self.text, self.listing, self.table, self.figure)
        while self.bottom - self.y > self.body.size * 6:
            before = self.y
            self.rng.choices(makers, (0.22, 0.45, 0.18, 0.1, 0.05))[0]()
            if self.y == before:
                self.text()
            if self.y == before:
                break

    def _print(self, text: str, letters: Type, indent: float = 0, align: str = "left") -> str:
        """Print into the rest of the column, and return the printed text."""
        box = (self.x + indent, self.y, self.width - indent, self.bottom)
        count = len(self.sheet.paragraphs)
        self.y = self.sheet.print(text, letters, box, align=align, leading=self.leading)
        return unwrap(self.sheet.paragraphs[-1]) if len(self.sheet.paragraphs) > count else ""

    def heading(self, level: int, text: str) -> None:
        letters = self.bold.sized((1.9, 1.4, 1.15)[level - 1])
        printed = self._print(text, letters, align="center" if level == 1 and self.justify else "left")
        if printed:
            self.blocks.append(Heading(level, plain(printed)))
            self.y += self.body.size * 0.4

    def section(self) -> None:
        """Print a heading with at least three lines of text below it."""
        if self.bottom - self.y < self.body.size * 9:
            return
        level = self.rng.choice((2, 2, 3)) if self.numbers[0] else 2
        self.numbers = [self.numbers[0] + 1, 0] if level == 2 else [self.numbers[0], self.numbers[1] + 1]
        number = ".".join(str(n) for n in self.numbers[: level - 1]) + " " if self.numbered else ""
        self.y += self.body.size * 0.6
        self.heading(level, number + self.content.title())
        self.text()

    def text(self) -> None:
        self.paragraph(self.content.paragraph(2, 6))

    def paragraph(self, text: str) -> None:
        printed = self._print(text, self.body, align=self.justify)
        if printed:
            self.blocks.append(Paragraph(plain(printed)))
            self.y += self.body.size * 0.7

    def listing(self) -> None:
        """Print a list. An item that does not fit is cut at the end of the column."""
        ordered = self.rng.random() < 0.4
        items: list[Spans] = []
        hang = self.body.size * 1.8
        for i in range(self.rng.randint(2, 6)):
            if self.bottom - self.y < self.body.size * self.leading:
                break
            mark = f"{i + 1}." if ordered else self.bullet
            self.body.draw(self.sheet.image, self.x + self.body.size * 0.4, self.y + self.body.size, mark)
            text = self.content.sentence() if self.rng.random() < 0.5 else self.content.words(2, 8)
            items.append(plain(self._print(text, self.body, indent=hang)))
            self.y += self.body.size * 0.2
        if items:
            self.blocks.append(Items(tuple(items), ordered))
            self.y += self.body.size * 0.6

    def table(self) -> None:
        """Print a small table if it fits."""
        columns = (2, 3) if self.width < 600 else (2, 5)
        cells = plain_cells(self.rng, self.content, (2, 6), columns)
        ruled = Ruled(
            cells, self.body.sized(0.9), self.bold.sized(0.9), self.width, self.style, self.body.size * 0.5
        )
        if ruled.height > self.bottom - self.y - self.body.size or ruled.width > self.width:
            return
        ruled.draw(self.sheet, self.x + (self.width - ruled.width) / 2, self.y + self.body.size * 0.3)
        self.blocks.append(Table(tuple(tuple(row) for row in text_rows(cells))))
        self.y += ruled.height + self.body.size * 1.2

    def figure(self) -> None:
        """Print a grey figure with a caption below. The caption is text; the figure is not."""
        height = self.rng.randint(140, 320)
        if self.bottom - self.y < height + self.body.size * 5:
            return
        left, right = self.x + self.width * 0.1, self.x + self.width * 0.9
        self.sheet.pen.rectangle(
            (left, self.y, right, self.y + height), fill=self.rng.randint(170, 225), outline=90
        )
        for _ in range(self.rng.randint(2, 5)):
            a, b = sorted((self.rng.uniform(left, right), self.rng.uniform(left, right)))
            c, d = sorted(
                (self.rng.uniform(self.y, self.y + height), self.rng.uniform(self.y, self.y + height))
            )
            self.sheet.pen.ellipse((a, c, b + 1, d + 1), fill=self.rng.randint(90, 230))
        self.y += height + self.body.size * 0.3
        word = "图" if self.content.language == "zh" else "Figure "
        caption = f"{word}{self.rng.randint(1, 12)}: {self.content.title()}"
        printed = self._print(caption, self.body.sized(0.85), align="center")
        self.blocks.append(Paragraph(plain(printed)))
        self.y += self.body.size * 0.8
