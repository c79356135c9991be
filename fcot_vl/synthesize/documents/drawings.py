"""Small drawings on documents: marks of companies, signatures, pictures, icons, arrows, bar codes."""

from __future__ import annotations

import random

from PIL import ImageDraw

from fcot_vl.synthesize.documents.board import Board, Box
from fcot_vl.synthesize.documents.page import Canvas, Color

_ARROW = ((-0.5, -0.15), (0.05, -0.15), (0.05, -0.5), (0.6, 0), (0.05, 0.5), (0.05, 0.15), (-0.5, 0.15))
_BARS = (
    *((-0.5, 0.5), (-0.5, 0.1), (-0.15, 0.1), (-0.15, -0.2)),
    *((0.2, -0.2), (0.2, -0.55), (0.5, -0.55), (0.5, 0.5)),
)
_HOUSE = ((-0.55, 0), (0, -0.55), (0.55, 0), (0.35, 0), (0.35, 0.5), (-0.35, 0.5), (-0.35, 0))
_DROP = ((0, -0.6), (0.4, 0.1), (0.3, 0.45), (0, 0.6), (-0.3, 0.45), (-0.4, 0.1))
_TICK = ((-0.5, 0.05), (-0.35, -0.1), (-0.1, 0.15), (0.4, -0.4), (0.55, -0.25), (-0.1, 0.45))
_ICONS = (_ARROW, _BARS, _HOUSE, _DROP, _TICK)  # polygons around (0, 0), in units of the icon's radius
_ROAD_ARROW = ((-0.22, 1), (-0.22, -0.1), (-0.7, -0.1), (0, -1), (0.7, -0.1), (0.22, -0.1), (0.22, 1))


def logo(canvas: Canvas, rng: random.Random, x: float, y: float, size: float, ink: Color) -> None:
    """Draw the mark of a company, `size` pixels wide and high, with its left top at (`x`, `y`)."""
    pen, paper = canvas.pen, canvas.image.getpixel((0, 0))
    box = (x, y, x + size, y + size)
    draw = rng.randrange(4)
    if draw == 0:
        pen.ellipse(box, fill=ink)
        pen.ellipse((x + size * 0.3, y + size * 0.12, x + size * 0.88, y + size * 0.7), fill=paper)
    elif draw == 1:
        pen.rectangle(box, fill=ink)
        low = y + size * 0.8
        pen.polygon(
            [(x + size / 2, y + size * 0.2), (x + size * 0.8, low), (x + size * 0.2, low)], fill=paper
        )
    elif draw == 2:
        half = size / 2
        pen.polygon([(x + half, y), (x + size, y + half), (x + half, y + size), (x, y + half)], fill=ink)
    else:
        for i in range(3):
            left, top = x + i * size * 0.36, y + size * (0.6 - 0.3 * i)
            pen.rectangle((left, top, x + i * size * 0.36 + size * 0.26, y + size), fill=ink)


def signature(
    pen: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, size: float, high: float, thick: int
) -> None:
    """Draw a name as if written by hand, from (`x`, `y`) on, `high` pixels high, beside text of `size` pixels."""
    points = []
    for i in range(rng.randint(9, 15)):
        tall = 0.9 if i in (0, 5) else rng.uniform(0.1, 0.4)
        points += [(x, y + high * (0.72 - tall * 0.7)), (x + size * 0.22, y + high * 0.78)]
        x += size * rng.uniform(0.3, 0.55)
    points.append((x + size * 1.4, y + high * 0.6))
    pen.line(points, fill=(28, 40, 110), width=thick, joint="curve")


def hills(
    pen: ImageDraw.ImageDraw, rng: random.Random, left: float, top: float, wide: float, high: float
) -> None:
    """Draw a picture of hills under a sky, grey or in color."""
    sky, grey = rng.randint(170, 225), rng.random() < 0.4
    air = (sky, sky, sky) if grey else (sky - 40, sky, 235)
    pen.rectangle((left, top, left + wide, top + high), fill=air)
    for i in range(3):
        shade = 150 - 40 * i
        ridge = [
            (left + wide * x / 8, top + high * (rng.uniform(0.1, 0.35) + 0.22 * (i + 0.6))) for x in range(9)
        ]
        ground = (shade, shade, shade) if grey else (shade - 30, shade, shade // 2 + 20)
        pen.polygon([*ridge, (left + wide, top + high), (left, top + high)], fill=ground)


def icon(board: Board, x: float, y: float, radius: float, ink: Color, paper: Color) -> None:
    """Draw an icon of `radius` pixels around (`x`, `y`): a disc or a square of `ink` with a sign of `paper` in it."""
    if board.rng.random() < 0.6:
        board.disc(x, y, radius, ink)
    else:
        board.card((x - radius, y - radius, x + radius, y + radius), ink, radius * 0.25)
    form = board.rng.choice(_ICONS)
    box = (x - radius, y - radius, x + radius, y + radius)
    at = [((px + 1) * radius, (py + 1) * radius) for px, py in form]
    board.smooth(paper, lambda pen, k: pen.polygon([(k * px, k * py) for px, py in at], fill=255), box)


def arrow(board: Board, x: float, y: float, size: float, ink: Color, turn: int) -> None:
    """Draw an arrow, 2 `size` pixels high, around (`x`, `y`), turned `turn` times to the right from pointing up."""
    spun = []
    for across, down in _ROAD_ARROW:
        for _ in range(turn):
            across, down = -down, across
        spun.append((size * (1 + across), size * (1 + down)))
    box = (x - size, y - size, x + size + 1, y + size + 1)
    board.smooth(ink, lambda pen, k: pen.polygon([(k * px, k * py) for px, py in spun], fill=255), box)


def bar_code(board: Board, box: Box, ink: Color) -> None:
    """Draw a bar code that fills `box`."""
    x, top, end, bottom = box
    while x < end:
        bar = board.rng.choice((1, 1, 2, 3)) * 2 * board.unit
        board.card((x, top, min(x + bar, end) - 1, bottom), ink)
        x += bar + board.rng.choice((1, 2, 3)) * 2 * board.unit
