"""Slides: title pages and bullets, perhaps beside a big number or a picture."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.board import GREY, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.drawings import icon
from fcot_vl.synthesize.documents.kinds import facts
from fcot_vl.synthesize.documents.page import WHITE, Color, Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_GRIDS = ((4, 3), (4, 3), (4, 2.25), (4, 2.25), (4, 2.25), (3, 2), (2, 1))
_ABOUT = (
    "Report",
    "Review",
    "Plan",
    "Results",
    "Overview",
    "Update",
    "Strategy",
    "Budget",
    "Goals",
    "Outlook",
)
_OF = (
    "Annual",
    "Quarterly",
    "Sales",
    "Project",
    "Market",
    "Team",
    "Customer",
    "Energy",
    "Safety",
    "Training",
)


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print one slide."""
    return _print(Board("slide", rng, split, families, _GRIDS))


def _print(board: Board) -> Page:
    """Draw a title page, bullets, or bullets beside a big number or a picture."""
    rng, content, fields = board.rng, board.content, board.page.fields
    dark, main, accent, tint = rng.choice(PALETTES)
    wide, high, unit = board.width, board.height, board.unit
    ground = rng.choice((WHITE, WHITE, WHITE, tint, dark))
    board.card((0, 0, wide, high), ground)
    title = rng.choice(
        (
            f"{rng.choice(_OF)} {rng.choice(_ABOUT)}",
            f"{rng.choice(_OF)} {rng.choice(_ABOUT)} {rng.randint(1990, 2030)}",
        )
    )
    if rng.random() < 0.6:
        title = content.title(4)
        if len(title) < 9:
            title = f"{title} {rng.choice(_ABOUT)}"
    if rng.random() < 0.2:
        _title_page(board, title, ground, main, accent)
        return board.finish()
    margin = wide * rng.uniform(0.05, 0.08)
    align = rng.choice(("left", "left", "center"))
    size = min(rng.uniform(26, 44), high / unit * 0.1)
    band = 2.2 * size * unit
    style = rng.choice(("band", "line", "plain", "stripe"))
    ink = on(ground) if ground == dark or rng.random() < 0.4 else main
    if style == "band":
        shade = rng.choice((main, accent)) if ground == dark else rng.choice((main, dark))
        board.card((0, 0, wide, band), shade)
        ink = on(shade)
    elif style == "stripe":
        board.card((0, 0, margin * 0.35, high), accent)
    x = wide / 2 if align == "center" else margin
    letters = board.fit(title, size, wide - 2 * margin, rng.random() < 0.6, 14)
    mark = board.put(title, letters, x, band / 2 + letters.size * 0.36, ink, align)
    if mark is not None:
        fields["title"] = mark
    if style == "line":
        board.card((margin, band * 0.92, wide - margin, band * 0.92 + 2 * unit), accent)
    foot = high * 0.9 if rng.random() < 0.65 else high * 0.96
    board.group()
    bottom, left, right = foot - 6 * unit, margin, wide - margin
    top = band + 12 * unit
    shown = rng.random()
    if shown < 0.3:
        left = _big_number(board, (left, top, wide * 0.42, bottom), accent if ground != dark else tint)
    elif shown < 0.5:
        right = wide * 0.64
        picture = (right + margin * 0.6, top, wide - margin, bottom)
        board.card(picture, tint if ground != tint else WHITE, 6 * unit)
        middle = ((picture[0] + picture[2]) / 2, (top + bottom) / 2)
        icon(board, *middle, min(picture[2] - picture[0], bottom - top) * 0.3, main, WHITE)
    _bullets(board, (left, top, right, bottom), on(ground), main if ground != dark else accent)
    if foot < high * 0.93:
        _footer(board, margin, GREY if ground != dark else tint)
    return board.finish()


def _title_page(board: Board, title: str, ground: Color, main: Color, accent: Color) -> None:
    """Print a title, who presents it, and when."""
    rng, content = board.rng, board.content
    wide, high = board.width, board.height
    ink = on(ground)
    box = (wide * 0.1, high * 0.12, wide * 0.9, high * 0.88)
    if rng.random() < 0.5:
        board.card((0, 0, wide, high * 0.1), main)
        board.card((0, high * 0.9, wide, high), main)
    else:
        board.card((wide * 0.04, high * 0.2, wide * 0.05, high * 0.8), accent)
    lines = [
        (title, rng.uniform(36, 58), rng.random() < 0.7),
        (content.sentence(), rng.uniform(15, 20), False),
    ]
    presenter, date = content.name(), content.date(rng.choice((3, 4)))
    lines += [(f"Presented by {presenter}" if rng.random() < 0.5 else presenter, rng.uniform(16, 24), False)]
    lines += [(date, rng.uniform(14, 20), False)]
    if rng.random() < 0.4:
        lines.insert(2, (content.company(), rng.uniform(16, 24), True))
    marks = board.stack(lines, box, ink, rng.choice(("center", "left")), 1.7)
    named = {"title": marks[0], "presenter": marks[-2], "date": marks[-1]}
    for name, mark in named.items():
        if mark is not None:
            board.page.fields[name] = mark[-len(presenter) :] if name == "presenter" else mark


def _big_number(board: Board, box: Box, ink: Color) -> float:
    """Print a number with its caption on the left of a slide; return the x where the rest may begin."""
    rng = board.rng
    number, caption = facts.number(rng), facts.caption(board)
    marks = board.stack([(number, rng.uniform(50, 80), True), (caption, 18, False)], box, ink, "center", 1.3)
    if all(mark is not None for mark in marks):
        board.page.values[caption] = marks[0]  # type: ignore[assignment]
    board.card((box[2] + 8 * board.unit, box[1], box[2] + 10 * board.unit, box[3]), ink)
    return box[2] + 26 * board.unit


def _bullets(board: Board, box: Box, ink: Color, spot: Color) -> None:
    """Print two to six points, as many as fit into `box`."""
    rng = board.rng
    left, top, right, bottom = box
    points = []
    for _ in range(rng.randint(2, 6)):
        text = " ".join(board.content.words(2, 9))
        points.append(text[0].upper() + text[1:])
    size = min(rng.uniform(18, 30), (bottom - top) / board.unit / 5)
    letters = board.type(max(size, 12))
    indent = letters.size * 1.3
    while letters.size > 12 * board.unit:
        count = sum(len(letters.wrap(point, right - left - indent)) for point in points)
        if letters.size * (1.3 * count + 0.5 * len(points)) < bottom - top:
            break
        letters = Type(letters.face, letters.size - 1)
    lines = sum(len(letters.wrap(point, right - left - indent)) for point in points)
    spare = (bottom - top - letters.size * 1.3 * lines) / len(points)
    gap = min(max(spare, letters.size * 0.3), letters.size * rng.uniform(0.5, 1.4))
    form = rng.choice(("disc", "square", "dash", "number"))
    y = top + gap * 0.5
    for i, point in enumerate(points):
        middle = y + letters.size * 0.66
        marks, below = board.paragraph(point, letters, (left + indent, y, right, bottom), ink)
        if not marks:
            break
        r = letters.size * 0.16
        if form == "number":
            board.put(
                f"{i + 1}.", letters, left + indent - letters.size * 0.35, y + letters.size, spot, "right"
            )
        elif form == "disc":
            board.disc(left + indent * 0.4, middle, r, spot)
        else:
            tall = r if form == "square" else r * 0.4
            board.card((left + indent * 0.4 - r, middle - tall, left + indent * 0.4 + r, middle + tall), spot)
        y = below + gap


def _footer(board: Board, margin: float, ink: Color) -> None:
    """Print a line at the bottom: company, date, number of the slide."""
    rng, content, fields = board.rng, board.content, board.page.fields
    board.group()
    letters = board.type(rng.uniform(11, 13))
    y = board.height * 0.95
    if rng.random() < 0.7:
        board.put(content.company(), letters, margin, y, ink)
    if rng.random() < 0.6:
        mark = board.put(content.date(), letters, board.width / 2, y, ink, "center")
        if mark is not None:
            fields["date"] = mark
    mark = board.put(str(rng.randint(2, 60)), letters, board.width - margin, y, ink, "right")
    if mark is not None:
        fields["slide number"] = mark
