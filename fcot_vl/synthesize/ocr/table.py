"""Tables with and without merged cells, in several styles. The answer is the table as Markdown or as HTML."""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fcot_vl.synthesize.ocr.blocks import markdown_table
from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.scan import scan
from fcot_vl.synthesize.ocr.sheet import Printed, Sheet, types
from fcot_vl.synthesize.ocr.typeset import Type, unwrap

Style = Literal["grid", "rules", "zebra", "rows"]
STYLES: tuple[Style, ...] = ("grid", "rules", "zebra", "rows")
_MARGIN = 60
_WIDEST_WORD = 500  # pixels


@dataclass
class Cell:
    """Cell that spans `rows` x `columns` places from (`row`, `column`), with the printed `text`."""

    row: int
    column: int
    text: str
    rows: int = 1
    columns: int = 1
    header: bool = False
    align: str = "left"


class Ruled:
    """Cells laid out for a width: the lines of each cell, the column widths and the row heights.

    Words are never split, so a table with long words may be wider than requested. Words that are still too wide are
    left out, also from the `text` of the cell.
    """

    def __init__(
        self, cells: list[Cell], body: Type, bold: Type, width: float, style: Style, padding: float
    ) -> None:
        self.cells, self.body, self.bold, self.style, self.padding = cells, body, bold, style, padding
        self.step = body.size * 1.3
        self.columns = max(cell.column + cell.columns for cell in cells)
        self.count = max(cell.row + cell.rows for cell in cells)
        self.widths = self._widths(width)
        self.lines = [self._lines(cell) for cell in cells]
        for cell, lines in zip(cells, self.lines, strict=True):
            cell.text = unwrap(lines)
        self.heights = self._heights()

    @property
    def width(self) -> float:
        """Width of the table in pixels."""
        return sum(self.widths)

    @property
    def height(self) -> float:
        """Height of the table in pixels."""
        return sum(self.heights)

    def _type(self, cell: Cell) -> Type:
        return self.bold if cell.header else self.body

    def _widths(self, most: float) -> list[float]:
        """Compute the column widths.

        Columns are as wide as their text. If the sum exceeds `most`, they are shrunk in proportion, without splitting
        words.
        """
        natural = [self.body.size * 2.0] * self.columns
        least = list(natural)
        for cell in self.cells:
            if cell.columns == 1:
                letters = self._type(cell)
                wide = letters.width(cell.text) + 2 * self.padding
                word = max((letters.width(w) for w in cell.text.split()), default=0.0) + 2 * self.padding
                natural[cell.column] = max(natural[cell.column], wide)
                least[cell.column] = max(least[cell.column], min(word, _WIDEST_WORD))
        for cell in self.cells:  # a merged header widens the columns below it
            if cell.columns > 1:
                part = slice(cell.column, cell.column + cell.columns)
                words = [self._type(cell).width(word) for word in cell.text.split()]
                lack = max(words, default=0.0) + 2 * self.padding - sum(least[part])
                for i in range(cell.column, cell.column + cell.columns):
                    least[i] += max(0.0, lack) / cell.columns
                    natural[i] = max(natural[i], least[i])
        spare, wish = most - sum(least), sum(natural) - sum(least)
        share = min(1.0, max(0.0, spare) / wish) if wish > 0 else 1.0
        return [low + (high - low) * share + 1 for low, high in zip(least, natural, strict=True)]

    def _span(self, sizes: Sequence[float], first: int, count: int) -> float:
        return sum(sizes[first : first + count])

    def _lines(self, cell: Cell) -> list[str]:
        return self._type(cell).wrap(
            cell.text, self._span(self.widths, cell.column, cell.columns) - 2 * self.padding
        )

    def _heights(self) -> list[float]:
        heights = [self.step + self.padding] * self.count
        for single in (True, False):
            for cell, lines in zip(self.cells, self.lines, strict=True):
                need = len(lines) * self.step + self.padding
                have = self._span(heights, cell.row, cell.rows)
                if (cell.rows == 1) is single and need > have:
                    heights[cell.row + cell.rows - 1] += need - have
        return heights

    def draw(self, sheet: Sheet, x: float, y: float) -> None:
        """Draw the lines and the text of the table, with its top left corner at (`x`, `y`)."""
        lefts = [x + sum(self.widths[:i]) for i in range(self.columns + 1)]
        tops = [y + sum(self.heights[:i]) for i in range(self.count + 1)]
        body_rows = [cell.row for cell in self.cells if not cell.header]
        headers = min(body_rows, default=self.count)
        for cell, lines in zip(self.cells, self.lines, strict=True):
            box = (
                round(lefts[cell.column]),
                round(tops[cell.row]),
                round(lefts[cell.column + cell.columns]),
                round(tops[cell.row + cell.rows]),
            )
            shaded = self.style == "zebra" and (cell.row < headers or cell.row % 2 == 0)
            if shaded and cell.rows == 1:
                sheet.pen.rectangle(box, fill=205 if cell.row < headers else 235)
            if self.style == "grid":
                sheet.pen.rectangle(box, outline=40)
            if self.style == "rows" or cell.columns > 1:
                sheet.pen.line((box[0], box[3], box[2], box[3]), fill=90)
            if cell.rows > 1 and cell.row >= headers and self.style in ("rules", "zebra"):
                sheet.rule(x, box[3], self.width, 130)  # shows where the merged cell ends
            self._print(sheet, cell, lines, box)
        if self.style in ("rules", "zebra"):
            for place, thick in ((tops[0], 3), (tops[min(headers, self.count)], 2), (tops[-1], 3)):
                sheet.rule(x, place, self.width, 20, thick)

    def _print(self, sheet: Sheet, cell: Cell, lines: list[str], box: tuple[int, int, int, int]) -> None:
        letters = self._type(cell)
        y = (box[1] + box[3] - len(lines) * self.step) / 2
        for i, line in enumerate(lines):
            slack = box[2] - box[0] - 2 * self.padding - letters.width(line)
            moved = {"left": 0.0, "center": slack / 2, "right": slack}[cell.align]
            baseline = y + i * self.step + letters.size
            letters.draw(sheet.image, box[0] + self.padding + moved, baseline, line, sheet.ink)


def make(rng: random.Random, content: Content) -> Printed:
    """Make a single table: Markdown or HTML without merged cells, HTML with merged cells."""
    merged = rng.random() < 0.5
    cells = merged_cells(rng, content) if merged else plain_cells(rng, content)
    size = rng.randint(18, 28) + (2 if content.language == "zh" else 0)
    body, bold = types(rng, content.language, size)
    bold = bold if rng.random() < 0.7 else body
    ruled = Ruled(cells, body, bold, rng.randint(800, 1120), rng.choice(STYLES), size * rng.uniform(0.4, 0.9))
    margin = _MARGIN + rng.randint(0, 60)
    sheet = Sheet((round(ruled.width) + 2 * margin, round(ruled.height) + 2 * margin), ink=rng.randint(0, 40))
    ruled.draw(sheet, margin, margin)
    image, stamped = scan(rng, sheet.image, content.language)
    if merged or rng.random() < 0.4:
        return Printed(image, "table-html", html_table(cells), stamped)
    return Printed(image, "table-markdown", markdown_table(text_rows(cells)), stamped)


def text_rows(cells: list[Cell]) -> list[list[str]]:
    """Return the texts by row and column of a table without merged cells."""
    rows: list[list[str]] = [[] for _ in range(1 + max(cell.row for cell in cells))]
    for cell in sorted(cells, key=lambda cell: (cell.row, cell.column)):
        rows[cell.row].append(cell.text)
    return rows


def html_table(cells: list[Cell]) -> str:
    """Convert the table to HTML, one line per row."""
    rows: list[list[str]] = [[] for _ in range(1 + max(cell.row for cell in cells))]
    for cell in sorted(cells, key=lambda cell: (cell.row, cell.column)):
        tag = "th" if cell.header else "td"
        spans = f' rowspan="{cell.rows}"' * (cell.rows > 1) + f' colspan="{cell.columns}"' * (
            cell.columns > 1
        )
        rows[cell.row].append(f"<{tag}{spans}>{html.escape(cell.text, quote=False)}</{tag}>")
    return "\n".join(["<table>", *(f"<tr>{''.join(row)}</tr>" for row in rows), "</table>"])


def _makers(rng: random.Random, content: Content, columns: int) -> list[tuple[Callable[[], str], str]]:
    """Return a text function and an alignment for each column: words first, then mostly numbers."""
    words = [content.name, content.place, content.company, lambda: content.words(1, 3)]
    numbers = [content.number, content.date, content.code]
    right = rng.choice(["right", "center", "left"])
    made: list[tuple[Callable[[], str], str]] = [(rng.choice(words), "left")]
    for _ in range(columns - 1):
        kind = rng.choices((words, numbers), (0.3, 0.7))[0]
        made.append((rng.choice(kind), right if kind is numbers else "left"))
    return made


def plain_cells(
    rng: random.Random, content: Content, rows: tuple[int, int] = (3, 16), columns: tuple[int, int] = (2, 7)
) -> list[Cell]:
    """Make a header row and `rows` (least, most) rows below it, without merged cells. A few cells are empty."""
    down, across = rng.randint(*rows), rng.randint(*columns)
    makers = _makers(rng, content, across)
    cells = [Cell(0, c, content.words(1, 2), header=True, align=makers[c][1]) for c in range(across)]
    for r in range(1, down + 1):
        for c, (make_text, align) in enumerate(makers):
            text = make_text() if c == 0 or rng.random() > 0.06 else rng.choice(["", "-", "n/a"])
            cells.append(Cell(r, c, text, align=align))
    return cells


def merged_cells(rng: random.Random, content: Content) -> list[Cell]:
    """Make a table with merged header groups in two rows, merged row groups, or both."""
    across, down = rng.randint(3, 6), rng.randint(4, 14)
    above = rng.random() < 0.7
    beside = not above or rng.random() < 0.5
    makers = _makers(rng, content, across)
    cells, first = _headers(rng, content, across, makers) if above else ([], 1)
    if not above:
        cells = [Cell(0, c, content.words(1, 2), header=True, align=makers[c][1]) for c in range(across)]
    row = first
    while row < first + down:
        height = rng.randint(2, 4) if beside else 1
        cells.append(Cell(row, 0, makers[0][0](), rows=height, header=beside and rng.random() < 0.3))
        for r in range(row, row + height):
            cells += [Cell(r, c, makers[c][0](), align=makers[c][1]) for c in range(1, across)]
        row += height
    return cells


def _headers(
    rng: random.Random, content: Content, across: int, makers: list[tuple[Callable[[], str], str]]
) -> tuple[list[Cell], int]:
    """Make two header rows: groups of two or three columns under a common header, single columns over both rows."""
    cells = [Cell(0, 0, content.words(1, 2), rows=2, header=True)]
    column = 1
    while column < across:
        wide = rng.randint(2, 3) if column == 1 else rng.randint(1, 3)
        wide = min(wide, across - column)
        if wide == 1:
            cells.append(Cell(0, column, content.words(1, 2), rows=2, header=True, align=makers[column][1]))
        else:
            cells.append(Cell(0, column, content.words(1, 2), columns=wide, header=True, align="center"))
            cells += [
                Cell(1, c, content.words(1, 1), header=True, align=makers[c][1])
                for c in range(column, column + wide)
            ]
        column += wide
    return cells, 2
