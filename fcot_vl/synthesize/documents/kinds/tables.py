"""Tables: a title, headers, and rows of text and numbers, ruled in several styles, perhaps with notes around them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.kinds.table_data import draw_cells
from fcot_vl.synthesize.documents.page import BLACK, WHITE, Canvas, Color, Page, join_row
from fcot_vl.synthesize.documents.sheet import Sheet, size_of
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_GRIDS = ((3, 2), (3, 2), (4, 3), (4, 3), (4, 2), (2, 2), (3, 3), (3, 4), (2, 3), (2, 1), (3, 1), (5, 2))
_PAPERS: tuple[Color, ...] = (WHITE, WHITE, WHITE, (252, 250, 243), (247, 249, 252))
_ACCENTS: tuple[Color, ...] = (
    (40, 40, 44),
    (28, 64, 120),
    (16, 96, 84),
    (130, 32, 40),
    (92, 52, 116),
    (170, 86, 14),
)
_PAD = 0.55  # space beside the text of a cell, times the size of the type


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one table of 3 to 22 rows and 2 to 7 columns."""
    columns, rows = rng.choice(_GRIDS)
    scale = rng.uniform(0.9, 1.03 if columns == rows == 2 else 1.3 if rows == 1 else 1.5)
    canvas = Canvas(size_of(columns, rows, scale), rng.choice(_PAPERS))
    table = _Table(Content(rng, split), canvas, pick(rng, split, families), scale)
    most = {1: 5, 2: 9, 3: 15, 4: 22}[rows]
    least = {1: 3, 2: 3 + (columns > 3)}.get(rows, 5)
    full = rng.random() < 0.55
    least = (2 * least + 3 * most) // 5 if full else least
    across = {2: (2 + full, 4), 3: (2 + 2 * full, 5)}.get(columns, (4, 6 + full))
    table.print(rng.randint(least, most), rng.randint(*across), full)
    return table.page


class _Table(Sheet):
    """A page with one table, and notes above and below it."""

    def __init__(self, content: Content, canvas: Canvas, family: Family, scale: float) -> None:
        rng, (width, height) = content.rng, canvas.size
        margin = round(width * rng.uniform(0.035, 0.09))
        super().__init__("table", content, canvas, family, margin, 10.3 * scale)
        self.scale = scale
        self.y = height * rng.uniform(0.03, 0.06)
        self.bottom = height * 0.965
        self.accent = rng.choice(_ACCENTS)
        self.ink = rng.choice((BLACK, BLACK, (34, 34, 40)))
        self.bold_head = rng.random() < 0.75

    def print(self, rows: int, columns: int, full: bool) -> None:
        """Print title, table and what is around it, as large as fits; small and close where the page is `full`."""
        rng, scale = self.rng, self.scale
        made, numeric, about = draw_cells(self.content, rows, columns)
        about = about[0].upper() + about[1:]
        room, width = self.bottom - self.y, self.width
        spread = rng.uniform(1.25, 1.6) if full else rng.uniform(1.5, 2.1)
        wished = rng.uniform(11, 17) if full else rng.uniform(15, 24)
        size = min(wished, max(11.0, room / scale / ((rows + 1) * spread + 2.6))) * scale
        while True:
            self.body, self.bold = self.family.type(size), self.family.type(size, bold=True)
            wide = self.widths(made)
            if sum(wide) <= width:
                break
            if size - 0.5 * scale < 11 * scale and len(made) > 2:  # leave out what does not fit
                made.pop()
                numeric.pop()
            else:
                size -= 0.5 * scale
        body = self.body
        left = float(self.left)
        loose = width - sum(wide)
        if rng.random() < 0.7 or loose < width * 0.15 or loose > sum(wide):
            loose = min(loose, sum(wide) * 0.9)
            wide = [one + loose / len(wide) for one in wide]
        left += (width - sum(wide)) * rng.choice((0.0, 0.0, 0.5))
        self.title(about, left, sum(wide))
        deep = (rows + 1) * body.size * spread
        spare = self.bottom - self.y - deep
        if spare > body.size * 6 and rng.random() < 0.4:
            self.note(rng.randint(1, 2))
        spread = min(spread, (self.bottom - self.y) / (rows + 1) / body.size - 0.02)
        self.grid(made, numeric, wide, left, body.size * spread)
        self.y += body.size * 0.5
        if rng.random() < 0.4:
            self.foot(left)
        width, height = self.canvas.size
        for _ in range(2 if height > width else 1):
            if rng.random() < (0.85 if height > width else 0.5):
                self.note(rng.randint(1, 3))

    @property
    def head(self) -> Type:
        """Type of the headers."""
        return self.bold if self.bold_head else self.body

    def widths(self, made: list[list[str]]) -> list[float]:
        """Return the least width of each column of `made`, its padding included."""
        pad, head, body = self.body.size * _PAD, self.head, self.body
        return [max(head.width(c[0]), *(body.width(cell) for cell in c[1:])) + 2 * pad for c in made]

    def title(self, about: str, left: float, width: float) -> None:
        """Print the title above the table."""
        rng, body = self.rng, self.body
        letters = self.family.type(body.size * rng.uniform(1.1, 1.55), bold=rng.random() < 0.7)
        before = f"Table {rng.randint(1, 9)}: " if rng.random() < 0.3 else ""
        while letters.width(before + about) > self.width and letters.size - 1 >= self.least:
            letters = Type(letters.face, letters.size - 1)
        if letters.width(before + about) > self.width:
            before, about = "", about.split(" of ")[0].split(":")[0]
        text = before + about
        x = float(self.left)
        if letters.width(text) <= width:
            x = left + rng.choice((0.0, 0.5)) * (width - letters.width(text))
        ink = rng.choice((self.ink, self.accent))
        mark = self.canvas.write(text, letters, x, self.y + letters.size, ink)
        self.page.blocks.append([mark])
        self.page.subject = about
        self.y += letters.size * 1.3 + body.size * rng.uniform(0.3, 0.7)

    def note(self, sentences: int) -> None:
        """Print a few sentences across the page, if all of them fit."""
        body = self.body
        text = " ".join(self.content.sentence() for _ in range(sentences))
        lines = len(body.wrap(text, self.width))
        self.y += body.size * 0.3
        if self.y + (lines + 0.2) * body.size * 1.35 < self.bottom:
            box = (self.left, self.y, self.right, self.bottom)
            marks, self.y = self.canvas.write_block(text, body, box, self.ink, leading=1.35)
            self.page.blocks.append(marks)
            self.y += body.size * 0.5

    def foot(self, left: float) -> None:
        """Print where the numbers are from, in small type."""
        rng, body = self.rng, self.body
        small = Type(body.face, max(round(10.4 * self.scale), round(body.size * 0.82)))
        text = f"{rng.choice(('Source', 'Data'))}: {self.content.company()}, {rng.randint(1990, 2029)}"
        if left + small.width(text) < self.right and self.y + small.size * 1.4 < self.bottom:
            self.page.blocks.append([self.canvas.write(text, small, left, self.y + small.size, self.ink)])
            self.y += small.size * 1.4

    def grid(
        self, made: list[list[str]], numeric: list[bool], wide: list[float], left: float, step: float
    ) -> None:
        """Print the cells, in rows of `step` pixels from `left` on, with the rules or shades of a style.

        Args:
            made: the cells by columns, headers first.
            numeric: True for each column of numbers.
            wide: widths of the columns.
        """
        rng, pen, total = self.rng, self.canvas.pen, sum(wide)
        style = rng.choice(("grid", "rules", "zebra", "none", "book"))
        line: Color = rng.choice((BLACK, self.accent, (150, 150, 155)))
        filled = style in ("grid", "zebra", "rules") and rng.random() < 0.5
        tint: Color = rng.choice(((238, 240, 244), (244, 240, 230), (228, 236, 246)))
        aligned = rng.choice(("right", "right", "left", "center"))
        pad, top, thick = self.body.size * _PAD, self.y, 1 + (self.scale > 1.2 and rng.random() < 0.4)
        self.page.blocks.append([])
        for i in range(len(made[0])):
            box = (round(left), round(self.y), round(left + total), round(self.y + step))
            if i == 0 and filled:
                pen.rectangle(box, fill=self.accent)
            elif style == "zebra" and i % 2 == 0:
                pen.rectangle(box, fill=tint)
            letters, x, marks = self.head if i == 0 else self.body, left, []
            ink = WHITE if i == 0 and filled else self.ink
            for column, number, space in zip(made, numeric, wide, strict=True):
                slack = space - 2 * pad - letters.width(column[i])
                at = x + pad + (slack * {"right": 1.0, "center": 0.5}.get(aligned, 0.0) if number else 0.0)
                baseline = self.y + step / 2 + letters.size * 0.36
                marks.append(self.canvas.write(column[i], letters, at, baseline, ink))
                x += space
            self.page.table.append(marks)
            self.page.blocks[-1].append(join_row(marks))
            self.y += step
            if style in ("grid", "rules") or (style == "book" and i in (0, len(made[0]) - 1)):
                self.canvas.rule(left, self.y, total, line, thick)
        if style in ("grid", "book"):
            self.canvas.rule(left, top, total, line, thick)
        if style == "grid":
            for j in range(len(wide) + 1):
                x = left + sum(wide[:j])
                self.canvas.pen.rectangle(
                    (round(x), round(top), round(x) + thick - 1, round(self.y)), fill=line
                )
