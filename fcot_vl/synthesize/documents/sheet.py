"""A sheet of paper that is printed from top to bottom, such as a letter, an invoice or a receipt."""

from __future__ import annotations

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import BLACK, Canvas, Color, Mark, Page
from fcot_vl.synthesize.documents.tiling import TILE, TOKENS_A_TILE
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.ocr.typeset import Type


def size_of(columns: int, rows: int, scale: float) -> tuple[int, int]:
    """Return width and height in pixels of a page of `columns` x `rows` tiles, `scale` times as large."""
    return round(columns * TILE * scale), round(rows * TILE * scale)


def characters_for(full: float, columns: int, rows: int) -> int:
    """Return the characters of a page of `columns` x `rows` tiles that has `full` characters per visual token."""
    return round(full * TOKENS_A_TILE * (columns * rows + 1))


class Sheet:
    """A page being printed line by line between its margins. Lengths are in pixels of the page.

    A subclass chooses the type, the margins and the distance of lines.

    Attributes:
        left, right: x of the margins.
        y: top of the next line.
        bottom: y that the last line must not pass.
        least: size of the smallest type that wide lines are shrunk to.
        body, bold: type of the running text.
        step: distance of its lines.
        ink, accent: colors of the text, and of headings and rules.
    """

    body: Type
    bold: Type
    step: float

    def __init__(
        self, kind: str, content: Content, canvas: Canvas, family: Family, margin: float, least: float
    ) -> None:
        self.rng, self.content, self.canvas, self.family = content.rng, content, canvas, family
        self.page = Page(kind, canvas)
        width, height = canvas.size
        self.left, self.right = margin, width - margin
        self.y, self.bottom = 0.0, float(height)
        self.least = least
        self.ink: Color = BLACK
        self.accent: Color = BLACK

    @property
    def width(self) -> float:
        """Width between the margins."""
        return self.right - self.left

    def pitch(self, letters: Type) -> float:
        """Return the distance from a line printed with `letters` to the next one."""
        return max(self.step, letters.size * 1.3)

    def has_room(self, letters: Type) -> bool:
        """Return whether another line of `letters` ends above the bottom."""
        return self.y + letters.size * 1.35 <= self.bottom

    def baseline(self, letters: Type) -> float:
        """Return the baseline of the next line, printed with `letters`."""
        return self.y + letters.size

    def block(self, gap: float = 0.0) -> None:
        """Begin a new block, `gap` lines further down."""
        self.y += gap * self.step
        self.page.blocks.append([])

    def fit(self, text: str, letters: Type, width: float) -> Type | None:
        """Return `letters`, smaller where `text` is wider than `width`; None where it would become too small."""
        return letters.fitted(text, width, self.least)

    def put(
        self,
        text: str,
        x: float,
        y: float,
        letters: Type,
        ink: Color | None = None,
        align: str = "left",
        width: float = 0.0,
    ) -> Mark:
        """Write `text` with its top at `y`, aligned in the `width` pixels from `x`, without adding it to a block."""
        x = _aligned(text, letters, x, width, align)
        return self.canvas.write(text, letters, x, y + letters.size, ink or self.ink)

    def line(
        self,
        text: str,
        letters: Type | None = None,
        align: str = "left",
        ink: Color | None = None,
        left: float | None = None,
        width: float | None = None,
    ) -> Mark | None:
        """Print one line in the last block, smaller where it is too wide, and go on below it.

        Args:
            align: ``left``, ``center`` or ``right`` in the `width` pixels from `left`, by default between the margins.

        Returns None, and prints nothing, where the line does not fit.
        """
        left = self.left if left is None else left
        width = self.right - left if width is None else width
        fitted = self.fit(text, letters or self.body, width)
        if fitted is None or not self.has_room(fitted):
            return None
        x = _aligned(text, fitted, left, width, align)
        mark = self.canvas.write(text, fitted, x, self.baseline(fitted), ink or self.ink)
        self.page.blocks[-1].append(mark)
        self.y += self.pitch(fitted)
        return mark

    def named(
        self, name: str, label: str, value: str, letters: Type | None = None, align: str = "left"
    ) -> None:
        """Print `label` and `value` as one line and record the value as field `name`."""
        self.page.keep(name, self.line(label + value, letters, align), value)

    def finish(self) -> Page:
        """Return the page, without empty blocks."""
        self.page.blocks = [block for block in self.page.blocks if block]
        return self.page


def _aligned(text: str, letters: Type, x: float, width: float, align: str) -> float:
    """Return where `text` begins that is aligned in the `width` pixels from `x`."""
    slack = width - letters.width(text)
    return x + {"center": slack / 2, "right": slack}.get(align, 0.0)
