"""Slides and infographics: a title with bullets or a big number; a headline with facts in cards, bands or circles."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.board import DARK, GREY, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.page import WHITE, Colour, Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.vocabulary import ITEMS
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.typeset import Type

_SLIDES = ((4, 3), (4, 3), (4, 2.25), (4, 2.25), (4, 2.25), (3, 2), (2, 1))
_INFOGRAPHICS = (
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
_ADJECTIVES = (
    "Recycled",
    "Fresh",
    "Local",
    "New",
    "Returned",
    "Imported",
    "Organic",
    "Daily",
    "Young",
    "Repaired",
)
_NOUNS = (
    "Users",
    "Visitors",
    "Orders",
    "Homes",
    "Trees",
    "Schools",
    "Members",
    "Tickets",
    "Trips",
    "Jobs",
    "Farms",
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
    """One slide or one infographic."""
    if rng.random() < 0.5:
        return _slide(Board("slide", rng, split, families, _SLIDES))
    while True:
        page = _infographic(Board("infographic", rng, split, families, _INFOGRAPHICS))
        if len(page.values) >= 3:
            return page


def _slide(board: Board) -> Page:
    """A slide: a title page, bullets, or a big number with bullets."""
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
        board.icon(*middle, min(picture[2] - picture[0], bottom - top) * 0.3, main, WHITE)
    _bullets(board, (left, top, right, bottom), on(ground), main if ground != dark else accent)
    if foot < high * 0.93:
        _footer(board, margin, GREY if ground != dark else tint)
    return board.finish()


def _title_page(board: Board, title: str, ground: Colour, main: Colour, accent: Colour) -> None:
    """Title, who presents it and when."""
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


def _big_number(board: Board, box: Box, ink: Colour) -> float:
    """A number that fills the left of a slide, with its caption; returns where the rest may begin."""
    rng = board.rng
    number, caption = _number(rng), _caption(board)
    marks = board.stack([(number, rng.uniform(50, 80), True), (caption, 18, False)], box, ink, "center", 1.3)
    if all(mark is not None for mark in marks):
        board.page.values[caption] = marks[0]  # type: ignore[assignment]
    board.card((box[2] + 8 * board.unit, box[1], box[2] + 10 * board.unit, box[3]), ink)
    return box[2] + 26 * board.unit


def _bullets(board: Board, box: Box, ink: Colour, spot: Colour) -> None:
    """Two to six points, each of one or two lines."""
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


def _footer(board: Board, margin: float, ink: Colour) -> None:
    """A line at the bottom: company, date, number of the slide."""
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


def _number(rng: random.Random) -> str:
    """A number as infographics print it."""
    return rng.choice(
        (
            f"{rng.randint(2, 99)}%",
            f"{rng.randint(2, 99)}%",
            f"{rng.randint(11, 990)}",
            f"{rng.randint(1, 99)},{rng.randrange(1000):03d}",
            f"{rng.randint(1, 49)}.{rng.randint(1, 9)}M",
            f"${rng.randint(2, 950)}",
            f"{rng.randint(2, 40)}x",
            f"{rng.randint(1, 9)} in 10",
        )
    )


def _caption(board: Board) -> str:
    """Draw a caption of two or three words for a number."""
    rng = board.rng
    noun = rng.choice((rng.choice(_NOUNS), rng.choice(ITEMS), rng.choice(ITEMS)))
    first = board.content.word(8).capitalize() if rng.random() < 0.4 else rng.choice(_ADJECTIVES)
    return (
        f"{first} {noun}"
        if rng.random() < 0.8
        else f"{first} {noun} per {rng.choice(('Day', 'Year', 'Home'))}"
    )


def _infographic(board: Board) -> Page:
    """A headline and facts: a big number and its caption each."""
    rng, content = board.rng, board.content
    palette = rng.choice(PALETTES)
    dark, main, _, tint = palette
    wide, high, unit = board.width, board.height, board.unit
    ground = rng.choice((WHITE, tint, tint, dark, main))
    board.card((0, 0, wide, high), ground)
    margin = min(wide, high) * rng.uniform(0.05, 0.08)
    headline = rng.choice(_HEADLINES).format(
        rng.choice((content.city(), rng.choice(ITEMS), rng.choice(_NOUNS)))
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


def _facts(board: Board, box: Box, ground: Colour, palette: Sequence[Colour]) -> None:
    """Three to eight facts in a grid of cards, bands or circles."""
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
    size, small, icons = rng.uniform(30, 60), rng.uniform(13, 22), rng.random() < 0.6
    beside = wide > 1.9 * high and rng.random() < 0.6
    used: dict[str, str] = {}
    for i in range(columns * rows):
        number, caption = _number(rng), _caption(board)
        while number in used or caption in used.values():
            number, caption = _number(rng), _caption(board)
        used[number] = caption
        x, y = left + i % columns * wide, top + i // columns * high
        cell = (x, y, x + wide - gap, y + high - gap)
        shade = cards[(i % columns + i // columns) % len(cards)]
        if form == "card":
            board.card(cell, shade, 9 * unit)
        elif form == "band":
            board.card(
                (0, cell[1], board.width, min(cell[3] + gap, bottom)), shade := (cards * 2 + [ground])[i % 2]
            )
        elif form == "open":
            shade = ground
        _fact(
            board,
            (number, caption),
            cell,
            (size, small),
            shade,
            palette,
            form == "circle",
            icons,
            beside,
            ground,
        )


def _fact(
    board: Board,
    fact: tuple[str, str],
    cell: Box,
    sizes: tuple[float, float],
    shade: Colour,
    palette: Sequence[Colour],
    circle: bool,
    icon: bool,
    beside: bool,
    ground: Colour,
) -> None:
    """One number and its caption, below it or beside it, in `cell`."""
    unit = board.unit
    number, caption = fact
    pad = 7 * unit
    left, top, right, bottom = cell[0] + pad, cell[1] + pad * 0.5, cell[2] - pad, cell[3] - pad * 0.5
    size = min(sizes[0], (bottom - top) / unit * (0.62 if beside else 0.42))
    ink = on(shade)
    spot = next(c for c in (palette[2] if ink == DARK else palette[3], palette[0]) if c != shade)
    strong = palette[1] if shade in (WHITE, palette[3]) else ink
    if circle and not beside:
        radius = min((right - left) / 2, (bottom - top) * 0.36)
        middle = ((left + right) / 2, top + radius)
        board.disc(*middle, radius, shade)
        letters = board.fit(number, min(sizes[0], radius / unit * 0.8), radius * 1.6, True, 12)
        mark = board.put(number, letters, middle[0], middle[1] + letters.size * 0.36, ink, "center")
        box, ink = (left, top + 2 * radius, right, bottom), on(ground)
    elif beside:
        if icon and (right - left) > 4 * (bottom - top):
            radius = (bottom - top) * 0.36
            board.icon(left + radius, (top + bottom) / 2, radius, spot, shade)
            left += radius * 2 + pad
        half = left + (right - left) * 0.42
        letters = board.fit(number, size, half - left - pad, True, 13)
        mark = board.put(number, letters, left, (top + bottom) / 2 + letters.size * 0.36, strong)
        box = (half, top, right, bottom)
    else:
        if icon and bottom - top > 120 * unit:
            radius = (bottom - top) * 0.16
            board.icon((left + right) / 2, top + radius * 1.2, radius, spot, shade)
            top += radius * 2.4
        letters = board.fit(number, size, right - left, True, 13)
        y = top + (bottom - top) * 0.48
        mark = board.put(number, letters, (left + right) / 2, y, strong, "center")
        box = (left, y + letters.size * 0.25, right, bottom)
    small = board.fit(max(caption.split(), key=len), sizes[1], box[2] - box[0], False, 11)
    height = len(small.wrap(caption, box[2] - box[0])) * small.size * 1.25
    if beside and height < box[3] - box[1]:
        box = (box[0], (box[1] + box[3] - height) / 2, box[2], box[3])
    marks, _ = board.paragraph(caption, small, box, ink, "left" if beside else "center", 1.25)
    if mark is not None and marks:
        board.page.values[caption] = mark
