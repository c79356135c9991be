"""Base of all forms of charts: colors, sizes, ticks and lines of the grid."""

from __future__ import annotations

import math

from fcot_vl.synthesize.documents.board import DARK, GREY, PALETTES, Board, on
from fcot_vl.synthesize.documents.page import WHITE, Color

_RAINBOW = (
    (31, 119, 180),
    (214, 96, 30),
    (44, 130, 60),
    (180, 40, 50),
    (120, 80, 170),
    (130, 80, 60),
    (20, 140, 150),
)


class Chart:
    """A chart of one form, in colors and sizes drawn at random.

    Attributes:
        form: ``columns``, ``bars``, ``line`` or ``pie``.
        paper, ink, soft, faint: colors of the ground, the text, text beside it, and the lines of the grid.
        main, accent, colors: colors of the values.
        size: size of type, pixels of the tiles.
        bold: True where the values are printed in bold type.
        count: number of categories.
    """

    def __init__(self, board: Board, form: str) -> None:
        rng = board.rng
        self.form = form
        self.board, self.rng = board, rng
        dark, main, accent, tint = rng.choice(PALETTES)
        paper: tuple[Color, ...] = (WHITE, WHITE, WHITE, (246, 246, 244), (252, 248, 236), tint, dark)
        self.paper = rng.choice(paper)
        self.ink = on(self.paper)
        self.faint = mix(self.paper, self.ink, 0.22)
        self.soft = GREY if self.ink == DARK else (214, 216, 222)
        self.main, self.accent = (tint, accent) if self.paper == dark else (main, accent)
        self.colors = [self.main, self.accent, *_RAINBOW]
        self.size = min(rng.uniform(13, 23), 10 + 0.9 * board.tiles)
        self.bold = rng.random() < 0.4  # values
        room = 3 + board.tiles * 0.75 if self.form != "columns" else 3 + board.grid[0] * 1.6
        least = 4 if self.form == "line" else 3
        self.count = min(9 if self.form != "pie" else 7, rng.randint(least, max(5, round(room))))

    def shades(self) -> list[Color]:
        """Draw a color per bar: one for all, one that stands out, two in turn, or all different."""
        draw, count = self.rng.random(), self.count
        if draw < 0.45:
            return [self.main] * count
        if draw < 0.65:
            odd = self.rng.randrange(count)
            return [self.accent if i == odd else self.main for i in range(count)]
        if draw < 0.8:
            return [(self.main, self.accent)[i % 2] for i in range(count)]
        return [self.colors[i % len(self.colors)] for i in range(count)]

    def grid_line(self, x: float, y: float, end: float, dashed: bool, upright: bool) -> None:
        """Draw a line of the grid from (`x`, `y`) across to x = `end`, or, where `upright`, down to y = `end`."""
        thick = max(1, round(self.board.unit))
        if upright:
            self.board.card((x, y, x + thick - 1, end), self.faint)
        elif dashed:
            self.board.canvas.dashes(x, y, end - x, self.faint, round(5 * self.board.unit))
        else:
            self.board.canvas.rule(x, y, end - x, self.faint, thick)


def ticks_up_to(most: float) -> list[float]:
    """Return round numbers, at least four, from 0 to at least `most`."""
    step = 10.0 ** math.floor(math.log10(most))
    for part in (1.0, 0.5, 0.25 if step >= 100 else 0.2, 0.2, 0.1):
        if most / (step * part) >= 3:
            step *= part
            break
    return [step * i for i in range(math.ceil(most / step) + 1)]


def mix(paper: Color, ink: Color, share: float) -> Color:
    """Return the color of `share` of `ink` on `paper`."""
    red, green, blue = (round((1 - share) * p + share * i) for p, i in zip(paper, ink, strict=True))
    return red, green, blue
