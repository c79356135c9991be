"""Infographics: a headline and facts in cards, bands or circles, each a big number with its caption."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from fcot_vl.synthesize.documents.board import DARK, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.drawings import icon
from fcot_vl.synthesize.documents.kinds import facts
from fcot_vl.synthesize.documents.page import WHITE, Color, Mark, Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.vocabulary import ITEMS
from fcot_vl.synthesize.documents.words import Split

_GRIDS = (
    (2, 5),
    (2, 4),
    (3, 4),
    (2, 3),
    (1, 3),
    (1, 2),
    (4, 2),
    (5, 2),
    (4, 3),
    (3, 2),
    (3, 3),
    (2, 2),
    (3, 1),
)
_HEADLINES = (
    "{} in Numbers",
    "Facts about {}",
    "{} at a Glance",
    "{}: Key Figures",
    "Did you know? {}",
    "{} Today",
)


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one infographic of at least three facts; one where fewer fit is drawn again."""
    while True:
        page = _print(Board("infographic", rng, split, families, _GRIDS))
        if len(page.values) >= 3:
            return page


def _print(board: Board) -> Page:
    """Draw a headline and facts, and perhaps an introduction and a source."""
    rng, content = board.rng, board.content
    palette = rng.choice(PALETTES)
    dark, main, _, tint = palette
    wide, high, unit = board.width, board.height, board.unit
    ground = rng.choice((WHITE, tint, tint, dark, main))
    board.card((0, 0, wide, high), ground)
    margin = min(wide, high) * rng.uniform(0.05, 0.08)
    headline = rng.choice(_HEADLINES).format(
        rng.choice((content.city(), rng.choice(ITEMS), rng.choice(facts.NOUNS)))
    )
    ink = on(ground)
    align = rng.choice(("center", "left"))
    top = margin * 0.6
    letters = board.fit(
        headline, min(rng.uniform(30, 52), high / unit / 7), wide - 2 * margin, rng.random() < 0.7, 16
    )
    below = top + letters.size * 1.6
    if rng.random() < 0.4:
        shade = dark if ground != dark else main
        board.card((0, 0, wide, below), shade)
        ink = on(shade)
    x = wide / 2 if align == "center" else margin
    mark = board.put(headline, letters, x, top + letters.size, ink, align)
    if mark is not None:
        board.page.fields["title"] = mark
    if rng.random() < 0.5 and board.tiles > 2:
        small = board.type(rng.uniform(12, 16))
        box = (margin, below + 3 * unit, wide - margin, below + 3 * unit + small.size * 4)
        _, below = board.paragraph(content.sentence(), small, box, on(ground), align)
    bottom = high - margin * 0.5
    source = f"Source: {content.company()}, {rng.randint(1995, 2030)}" if rng.random() < 0.5 else ""
    small = board.type(11)
    if source:
        bottom = high - small.size * 2.2
    board.group()
    _facts(board, (margin, below + 10 * unit, wide - margin, bottom), ground, palette)
    if source:
        board.group()
        board.put(source, small, x, high - small.size * 0.8, on(ground), align)
    return board.finish()


def _facts(board: Board, box: Box, ground: Color, palette: Sequence[Color]) -> None:
    """Draw three to eight facts in a grid of cards, bands or circles."""
    rng, unit = board.rng, board.unit
    dark, main, accent, tint = palette
    left, top, right, bottom = box
    columns = max(1, min(4, round((right - left) / unit / rng.uniform(150, 260))))
    rows = max(1, min(8 // columns, round((bottom - top) / unit / rng.uniform(80, 170))))
    while columns * rows < 3:
        columns, rows = (columns + 1, rows) if right - left > bottom - top else (columns, rows + 1)
    gap = rng.uniform(5, 14) * unit
    wide, high = (right - left + gap) / columns, (bottom - top + gap) / rows
    form = (
        rng.choice(("card", "card", "circle", "open"))
        if columns > 1
        else rng.choice(("card", "band", "open"))
    )
    shades = [shade for shade in (main, accent, dark, tint, WHITE) if shade != ground]
    cards = rng.choice(([shades[0], shades[1]], shades[-1:], shades[:1], shades[:3], shades[-2:]))
    sizes, icons = (rng.uniform(30, 60), rng.uniform(13, 22)), rng.random() < 0.6
    beside = wide > 1.9 * high and rng.random() < 0.6
    look = _Look(palette, ground, sizes, form == "circle", icons, beside)
    used: dict[str, str] = {}
    for i in range(columns * rows):
        number, caption = facts.number(rng), facts.caption(board)
        while number in used or caption in used.values():
            number, caption = facts.number(rng), facts.caption(board)
        used[number] = caption
        x, y = left + i % columns * wide, top + i // columns * high
        cell = (x, y, x + wide - gap, y + high - gap)
        shade = cards[(i % columns + i // columns) % len(cards)]
        if form == "card":
            board.card(cell, shade, 9 * unit)
        elif form == "band":
            shade = (cards * 2 + [ground])[i % 2]
            board.card((0, cell[1], board.width, min(cell[3] + gap, bottom)), shade)
        elif form == "open":
            shade = ground
        _fact(board, number, caption, cell, shade, look)


@dataclass(frozen=True)
class _Look:
    """The look of all facts of an infographic.

    Attributes:
        palette: dark, main, accent, tint.
        sizes: largest type of the numbers and of the captions.
        circle: True where the numbers are in circles.
        icons: True where there are icons if there is room for them.
        beside: True where captions are beside their numbers, else they are below.
    """

    palette: Sequence[Color]
    ground: Color
    sizes: tuple[float, float]
    circle: bool
    icons: bool
    beside: bool


def _fact(board: Board, number: str, caption: str, cell: Box, shade: Color, look: _Look) -> None:
    """Print one number and its caption on the `shade` of `cell`."""
    unit, palette, beside = board.unit, look.palette, look.beside
    pad = 7 * unit
    box = (cell[0] + pad, cell[1] + pad * 0.5, cell[2] - pad, cell[3] - pad * 0.5)
    ink = on(shade)
    strong = palette[1] if shade in (WHITE, palette[3]) else ink
    if look.circle and not beside:
        mark, box = _in_circle(board, number, box, shade, look)
        ink = on(look.ground)
    elif beside:
        mark, box = _on_the_left(board, number, box, shade, strong, look)
    else:
        mark, box = _on_top(board, number, box, shade, strong, look)
    small = board.fit(max(caption.split(), key=len), look.sizes[1], box[2] - box[0], False, 11)
    height = len(small.wrap(caption, box[2] - box[0])) * small.size * 1.25
    if beside and height < box[3] - box[1]:
        box = (box[0], (box[1] + box[3] - height) / 2, box[2], box[3])
    marks, _ = board.paragraph(caption, small, box, ink, "left" if beside else "center", 1.25)
    if mark is not None and marks:
        board.page.values[caption] = mark


def _in_circle(board: Board, number: str, box: Box, shade: Color, look: _Look) -> tuple[Mark | None, Box]:
    """Print `number` in a circle at the top of `box`; return it and the place for its caption."""
    left, top, right, bottom = box
    radius = min((right - left) / 2, (bottom - top) * 0.36)
    x, y = (left + right) / 2, top + radius
    board.disc(x, y, radius, shade)
    letters = board.fit(number, min(look.sizes[0], radius / board.unit * 0.8), radius * 1.6, True, 12)
    mark = board.put(number, letters, x, y + letters.size * 0.36, on(shade), "center")
    return mark, (left, top + 2 * radius, right, bottom)


def _on_the_left(
    board: Board, number: str, box: Box, shade: Color, ink: Color, look: _Look
) -> tuple[Mark | None, Box]:
    """Print `number`, perhaps after an icon, on the left of `box`; return it and the place for its caption."""
    left, top, right, bottom = box
    pad = 7 * board.unit
    if look.icons and (right - left) > 4 * (bottom - top):
        radius = (bottom - top) * 0.36
        icon(board, left + radius, (top + bottom) / 2, radius, _spot(shade, look.palette), shade)
        left += radius * 2 + pad
    half = left + (right - left) * 0.42
    size = min(look.sizes[0], (bottom - top) / board.unit * 0.62)
    letters = board.fit(number, size, half - left - pad, True, 13)
    mark = board.put(number, letters, left, (top + bottom) / 2 + letters.size * 0.36, ink)
    return mark, (half, top, right, bottom)


def _on_top(
    board: Board, number: str, box: Box, shade: Color, ink: Color, look: _Look
) -> tuple[Mark | None, Box]:
    """Print `number`, perhaps below an icon, at the top of `box`; return it and the place for its caption."""
    left, top, right, bottom = box
    size = min(look.sizes[0], (bottom - top) / board.unit * 0.42)
    if look.icons and bottom - top > 120 * board.unit:
        radius = (bottom - top) * 0.16
        icon(board, (left + right) / 2, top + radius * 1.2, radius, _spot(shade, look.palette), shade)
        top += radius * 2.4
    letters = board.fit(number, size, right - left, True, 13)
    y = top + (bottom - top) * 0.48
    mark = board.put(number, letters, (left + right) / 2, y, ink, "center")
    return mark, (left, y + letters.size * 0.25, right, bottom)


def _spot(shade: Color, palette: Sequence[Color]) -> Color:
    """Return a color of `palette` that is seen on `shade`, for icons."""
    return next(c for c in (palette[2] if on(shade) == DARK else palette[3], palette[0]) if c != shade)
