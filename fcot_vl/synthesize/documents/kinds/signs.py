"""Signs and labels: shops, doors, roads, notices, opening hours, price tags, product and shipping labels."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.board import DARK, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.content import money
from fcot_vl.synthesize.documents.page import WHITE, Colour, Mark, Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.vocabulary import DAYS
from fcot_vl.synthesize.documents.words import Split

_WIDE = ((2, 1), (2, 1), (4, 2), (4, 2), (3, 1), (3, 2), (3, 2), (4, 3), (4, 1), (5, 2), (2, 2))
_TALL = ((1, 2), (2, 3), (2, 3), (3, 4), (2, 2), (3, 3), (1, 1), (2, 4))
_ANY = ((1, 1), (2, 2), (2, 2), (3, 3), (3, 2), (2, 3), (4, 3), (3, 4), (2, 1), (4, 2))
_RED, _YELLOW, _GREEN, _BLUE, _BROWN = (186, 28, 36), (250, 204, 30), (0, 98, 62), (14, 76, 152), (98, 58, 32)
_GROUNDS: tuple[Colour, ...] = (
    WHITE,
    (250, 246, 232),
    _RED,
    _YELLOW,
    _GREEN,
    _BLUE,
    _BROWN,
    (24, 24, 28),
    (226, 228, 230),
)
_TAGLINES = (
    "Open daily",
    "Since {}",
    "Fresh every day",
    "Family business since {}",
    "Welcome",
    "Quality since {}",
    "Repairs and sales",
)
_NOTICES = (
    *(("NO", "PARKING"), ("NO ENTRY", "Staff only"), ("PRIVATE", "PROPERTY"), ("SLOW", "Children playing")),
    *(
        ("CAUTION", "Wet floor"),
        ("DANGER", "High voltage"),
        ("NO SMOKING", "Thank you"),
        ("STOP", "Ring the bell"),
    ),
    *(
        ("PLEASE", "Close the gate"),
        ("FIRE EXIT", "Keep clear"),
        ("WARNING", "Guard dog"),
        ("DETOUR", "Road closed"),
    ),
)
_ROOMS = ("Meeting Room", "Office", "Room", "Studio", "Lab", "Ward", "Hall", "Suite", "Classroom")


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """One sign or label."""
    draw, grids = rng.choice(
        (
            (_shop, _WIDE),
            (_door, (*_WIDE, *_TALL)),
            (_road, (*_WIDE, (3, 3))),
            (_notice, _ANY),
            (_hours, _TALL),
            (_price, _ANY),
            (_product, (*_ANY, *_TALL)),
            (_parcel, ((2, 3), (2, 3), (3, 4), (3, 3), (4, 3), (3, 2))),
        )
    )
    while True:
        board = Board("sign", rng, split, families, grids)
        draw(board)
        if board.canvas.printed >= 5:
            return board.finish()


def _plate(board: Board, ground: Colour, ink: Colour | None = None) -> tuple[Box, Colour]:
    """Paint the ground, perhaps with a frame or screws; returns the place for print and the ink."""
    rng, unit, wide, high = board.rng, board.unit, board.width, board.height
    ink = ink or on(ground)
    board.card((0, 0, wide, high), ground)
    side = min(wide, high)
    frame = side * rng.uniform(0.02, 0.05)
    style = rng.choice(("frame", "round", "double", "screws", "plain"))
    if style in ("frame", "round", "double"):
        box = (round(frame), round(frame), round(wide - frame), round(high - frame))
        thick = max(2, round(side * rng.choice((0.008, 0.015, 0.025))))
        radius = 0 if style == "frame" else round(side * 0.07)
        board.canvas.pen.rounded_rectangle(box, radius, outline=ink, width=thick)
        if style == "double":
            inner = round(frame + 2.2 * thick)
            board.canvas.pen.rounded_rectangle(
                (inner, inner, wide - inner, high - inner),
                round(radius * 0.8),
                outline=ink,
                width=max(1, thick // 3),
            )
        frame += 2.6 * thick
    elif style == "screws":
        for x in (frame * 1.3, wide - frame * 1.3):
            for y in (frame * 1.3, high - frame * 1.3):
                board.disc(x, y, 4.5 * unit, (150, 150, 154))
                board.canvas.pen.line(
                    (x - 3 * unit, y - unit, x + 3 * unit, y + unit),
                    fill=(80, 80, 84),
                    width=max(1, round(unit)),
                )
    pad = frame + side * 0.05
    return (pad, pad, wide - pad, high - pad), ink


def _keep(board: Board, name: str, mark: Mark | None, value: str | None = None) -> None:
    """Remember `mark`, or `value` in it, as field `name`."""
    if mark is not None:
        start = mark.text.rindex(value) if value else 0
        board.page.fields[name] = mark[start : start + len(value or mark.text)]


def _high(board: Board, box: Box, share: float, most: float = 90, least: float = 11) -> float:
    """Size of type that fills `share` of the height of `box`."""
    return max(least, min(most, (box[3] - box[1]) / board.unit * share))


def _shop(board: Board) -> None:
    """Over a shop's door: its name, what it says of itself, its telephone."""
    rng, content = board.rng, board.content
    box, ink = _plate(board, rng.choice((*_GROUNDS, rng.choice(PALETTES)[1])))
    capitals, align = rng.random() < 0.4, rng.choice(("center", "center", "left"))
    name = content.company()
    lines = [
        (name.upper() if capitals else name, _high(board, box, rng.uniform(0.3, 0.5)), rng.random() < 0.7)
    ]
    if rng.random() < 0.7:
        line = rng.choice(_TAGLINES).format(rng.randint(1890, 2020))
        lines.append((line, _high(board, box, 0.15, 40), False))
    phone = content.phone()
    if rng.random() < 0.6:
        lines.append((f"Tel. {phone}" if rng.random() < 0.6 else phone, _high(board, box, 0.15, 40), False))
    if rng.random() < 0.4:
        lines.append((content.street(), _high(board, box, 0.13, 36), False))
    marks = board.stack(lines, box, ink, align, 1.4)
    _keep(board, "shop", marks[0])
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text.endswith(phone):
            _keep(board, "phone number", mark, phone)


def _door(board: Board) -> None:
    """Beside a door: the room, who works there, what to do."""
    rng, content = board.rng, board.content
    box, ink = _plate(
        board, rng.choice((WHITE, (226, 228, 230), _BLUE, _BROWN, (24, 24, 28), rng.choice(PALETTES)[0]))
    )
    number = rng.choice(
        (f"{rng.randint(1, 9)}{rng.randrange(100):02d}", f"{rng.choice('ABCDE')}{rng.randint(1, 60)}")
    )
    room, name = f"{rng.choice(_ROOMS)} {number}", content.name()
    align = rng.choice(("left", "center"))
    lines = [(room, _high(board, box, 0.3), True)]
    if rng.random() < 0.75:
        lines.append(
            (rng.choice(("{}", "Dr. {}", "Prof. {}")).format(name), _high(board, box, 0.18, 50), False)
        )
    if rng.random() < 0.5:
        lines.append(
            (
                f"{content.word(9).capitalize()} {rng.choice(('Department', 'Institute', 'Unit'))}",
                _high(board, box, 0.13, 36),
                False,
            )
        )
    if rng.random() < 0.4:
        lines.append(
            (
                rng.choice(("Please knock", "No entry", "Please be quiet", "By appointment")),
                _high(board, box, 0.12, 30),
                False,
            )
        )
    marks = board.stack(lines, box, ink, align, 1.45)
    _keep(board, "room", marks[0], number)
    if len(lines) > 1 and lines[1][0].endswith(name):
        _keep(board, "name", marks[1], name)


def _road(board: Board) -> None:
    """By a road: places, how far they are, and arrows."""
    rng, content, unit = board.rng, board.content, board.unit
    box, ink = _plate(board, rng.choice((_GREEN, _BLUE, _BROWN, WHITE, _YELLOW)))
    left, top, right, bottom = box
    rows = rng.randint(1 if board.tiles < 3 else 2, max(2, min(4, round((bottom - top) / unit / 90))))
    step = (bottom - top) / rows
    letters = board.type(min(80, step / unit * 0.55), rng.random() < 0.7)
    arrows, after = rng.random() < 0.5, rng.choice((" km", " km", ""))
    for i in range(rows):
        place, far = (
            content.city(),
            f"{rng.randint(2, 480)}{after}",
        )
        y = top + step * (i + 0.5)
        start = left
        if arrows:
            _arrow(board, left + step * 0.3, y, min(step * 0.28, 34 * unit), ink, rng.randrange(4))
            start += step * 0.7
        fitting = board.fit(
            f"{place}  {far}", letters.size / unit, right - start, letters.face == board.family.bold, 14
        )
        named = board.put(place, fitting, start, y + fitting.size * 0.36, ink)
        mark = board.put(far, fitting, right, y + fitting.size * 0.36, ink, "right")
        if named is not None:
            _keep(board, f"distance to {place}", mark)
        if i and rng.random() < 0.3:
            board.card((left, y - step / 2, right, y - step / 2 + 2 * unit), ink)


def _arrow(board: Board, x: float, y: float, size: float, ink: Colour, turn: int) -> None:
    """An arrow that points up, right, down or left."""
    form = ((-0.22, 1), (-0.22, -0.1), (-0.7, -0.1), (0, -1), (0.7, -0.1), (0.22, -0.1), (0.22, 1))
    spun = []
    for across, down in form:
        for _ in range(turn):
            across, down = -down, across
        spun.append((size * (1 + across), size * (1 + down)))
    box = (x - size, y - size, x + size + 1, y + size + 1)
    board.smooth(ink, lambda pen, k: pen.polygon([(k * px, k * py) for px, py in spun], fill=255), box)


def _notice(board: Board) -> None:
    """A warning or a ban, perhaps with its hours and its fine."""
    rng = board.rng
    ground = rng.choice((WHITE, WHITE, _YELLOW, _RED, (252, 120, 20)))
    box, ink = _plate(board, ground, rng.choice((_RED, DARK)) if ground == WHITE else None)
    first, second = rng.choice(_NOTICES)
    left, top, right, bottom = box
    if rng.random() < 0.35 and board.tiles > 1:  # a band with the warning's word
        band = ink if ground == WHITE else DARK
        end = top + (bottom - top) * 0.3
        board.card((0, 0, board.width, end), band)
        board.stack([(first, _high(board, box, 0.24), True)], (left, 0, right, end), on(band))
        lines, box = [], (left, end, right, bottom)
    else:
        lines = [(first, _high(board, box, 0.3), True)]
    lines.append((second, _high(board, box, 0.22), rng.random() < 0.7))
    hours = f"{rng.randint(6, 9):02d}:00 - {rng.randint(16, 22)}:00"
    if board.tiles > 1 and rng.random() < 0.5:
        lines.append(
            (rng.choice((f"Mon - Fri {hours}", hours, f"Daily {hours}")), _high(board, box, 0.13, 40), False)
        )
    fine = f"${rng.randrange(20, 500, 5)}"
    if board.tiles > 1 and rng.random() < 0.4:
        lines.append((f"Fine: {fine}", _high(board, box, 0.13, 40), False))
    if rng.random() < 0.3:
        lines.append((board.content.company(), _high(board, box, 0.1, 28), False))
    marks = board.stack(lines, box, ink, "center", 1.4)
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text.startswith("Fine"):
            _keep(board, "fine", mark, fine)
        elif hours in text:
            _keep(board, "hours", mark, hours)


def _hours(board: Board) -> None:
    """Opening hours on the days of the week."""
    rng, content, unit = board.rng, board.content, board.unit
    box, ink = _plate(board, rng.choice(_GROUNDS))
    left, top, right, bottom = box
    title = rng.choice(("Opening Hours", "OPENING HOURS", "Hours", "We are open", "OPEN"))
    head = [(title, _high(board, box, 0.14, 60), True)]
    if rng.random() < 0.5:
        head.insert(0, (content.company(), _high(board, box, 0.09, 40), False))
    end = top + (bottom - top) * 0.27
    board.stack(head, (left, top, right, end), ink)
    board.group()
    days = list(DAYS if board.tiles > 2 else DAYS[: rng.randint(3, 5)])
    if board.tiles <= 2 or rng.random() < 0.3:
        days = [day[:3] for day in days]
    step = (bottom - end) / len(days)
    sample = f"{max(days, key=len)}   08:30 - 18:30"
    letters = board.fit(sample, min(40, step / unit * 0.62), right - left, rng.random() < 0.3, 11)
    closed = rng.randrange(7) if rng.random() < 0.7 else -1
    for i, day in enumerate(days):
        y = end + step * (i + 0.5) + letters.size * 0.36
        opens = f"{rng.randint(6, 11):02d}:{rng.choice(('00', '30'))}"
        hours = (
            "Closed"
            if i == closed
            else f"{opens} - {rng.randint(12, 22)}:{rng.choice(('00', '15', '30', '45'))}"
        )
        named = board.put(day, letters, left, y, ink)
        mark = board.put(hours, letters, right, y, ink, "right")
        if named is not None:
            _keep(board, f"opening hours on {DAYS[i]}", mark)


def _price(board: Board) -> None:
    """A price tag: what it is, its price, and perhaps how much of it, and a code."""
    rng, content = board.rng, board.content
    box, ink = _plate(board, rng.choice((WHITE, WHITE, _YELLOW, _YELLOW, _RED, (255, 240, 120))))
    sign = rng.choice(("$", "RM ", "EUR ", ""))
    price = money(content.cents(60, 60_000) if rng.random() < 0.7 else 100 * rng.randint(1, 900) - 1, sign)
    item = content.item()
    lines = [(item, _high(board, box, 0.17, 60), rng.random() < 0.5), (price, _high(board, box, 0.4), True)]
    if rng.random() < 0.4:
        lines.insert(
            0, (rng.choice(("SALE", "SPECIAL OFFER", "NEW", "Today only")), _high(board, box, 0.13, 50), True)
        )
    if rng.random() < 0.5:
        lines.append(
            (
                rng.choice(("per kg", "each", "per pack", "500 g", "1 litre")),
                _high(board, box, 0.11, 34),
                False,
            )
        )
    code = content.code()
    if rng.random() < 0.6 and board.tiles > 1:
        lines.append(
            (rng.choice(("Art. {}", "No. {}", "{}")).format(code), _high(board, box, 0.09, 26), False)
        )
    marks = board.stack(lines, box, ink, rng.choice(("center", "center", "left", "right")), 1.35)
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text in (item, price):
            _keep(board, "item" if text == item else "price", mark)
        elif text.endswith(code):
            _keep(board, "article number", mark, code)


def _product(board: Board) -> None:
    """A product's label: brand and name, then labels with their values."""
    rng, content, unit = board.rng, board.content, board.unit
    dark, main, _, tint = rng.choice(PALETTES)
    box, ink = _plate(board, rng.choice((WHITE, WHITE, tint, (250, 246, 232), dark)))
    left, top, right, bottom = box
    end = top + (bottom - top) * rng.uniform(0.3, 0.5)
    brand, name = content.word(9).capitalize(), content.item()
    head = [(brand, _high(board, box, 0.18, 70), True), (name, _high(board, box, 0.11, 44), False)]
    band = rng.random() < 0.5
    if band:
        board.card((0, 0, board.width, end), main)
    marks = board.stack(head, (left, top, right, end), on(main) if band else ink)
    _keep(board, "brand", marks[0])
    pairs = [
        (
            "Net weight",
            rng.choice(
                (
                    f"{rng.randrange(20, 990, 5)} g",
                    f"{rng.randint(1, 40)} kg",
                    f"{rng.randrange(50, 990, 10)} ml",
                )
            ),
        ),
        ("Best before", content.date()),
        ("Batch", content.code()),
        ("Price", money(content.cents(), rng.choice(("$", "RM ", "")))),
        ("Made in", content.city()),
        ("Size", f"{rng.randint(4, 90)} x {rng.randint(4, 90)} cm"),
        ("Energy", f"{rng.randint(20, 900)} kcal"),
    ]
    board.group()
    _pairs(board, rng.sample(pairs, len(pairs)), (left, end + 8 * unit, right, bottom), ink)


def _pairs(board: Board, pairs: Sequence[tuple[str, str]], box: Box, ink: Colour) -> None:
    """As many labels with their values as fit, one row each."""
    rng, unit = board.rng, board.unit
    left, top, right, bottom = box
    size = max(12, min(rng.uniform(16, 34), (bottom - top) / unit / 4))
    rows = max(1, min(len(pairs), int((bottom - top) / unit / size / 1.5), 1 + round(board.tiles * 0.7)))
    step = min((bottom - top) / rows, size * unit * 2.2)
    apart, lined, bold = rng.random() < 0.45, rng.random() < 0.3, rng.random() < 0.4
    mark: Mark | None
    for i, (label, value) in enumerate(pairs[:rows]):
        letters = board.fit(f"{label}:  {value}", size, right - left, False, 11)
        y = top + step * (i + 0.5) + letters.size * 0.36
        if letters.width(f"{label}:  {value}") > right - left:
            continue
        if apart:
            strong = board.fit(
                value, letters.size / unit, right - left - letters.width(f"{label} "), bold, 11
            )
            named, mark = (
                board.put(label, letters, left, y, ink),
                board.put(value, strong, right, y, ink, "right"),
            )
            if named is not None:
                _keep(board, label.lower(), mark)
        else:
            _keep(board, label.lower(), board.put(f"{label}: {value}", letters, left, y, ink), value)
        if lined and i:
            board.card((left, top + step * i, right, top + step * i + unit), ink)


def _parcel(board: Board) -> None:
    """A shipping label: from whom, to whom, by what, with a bar code."""
    rng, content, unit = board.rng, board.content, board.unit
    board.card((0, 0, board.width, board.height), rng.choice((WHITE, WHITE, (250, 248, 240))))
    pad = min(board.width, board.height) * 0.05
    left, right, bottom = pad, board.width - pad, board.height - pad
    inside = (pad * 0.5, pad * 0.5, board.width - pad * 0.5, board.height - pad * 0.5)
    board.canvas.pen.rectangle(inside, outline=DARK, width=max(1, round(2 * unit)))
    y = pad

    def part(lines: Sequence[tuple[str, float, bool]], share: float, x: float) -> list[Mark | None]:
        """Lines in the next part of the label, above a rule."""
        nonlocal y
        end = y + (bottom - pad) * share
        marks = board.stack(lines, (x, y, right, end - 6 * unit), DARK, "left", 1.35)
        board.card((inside[0], end - 2 * unit, inside[2], end), DARK)
        board.group()
        y = end
        return marks

    service = rng.choice(("PRIORITY", "EXPRESS", "STANDARD", "OVERNIGHT", "ECONOMY"))
    part([(service, rng.uniform(32, 60), True)], 0.14, left)
    sender = [
        (f"From: {content.company()}", 19.0, False),
        (content.street(), 19.0, False),
        (content.city(), 19.0, False),
    ]
    part(sender[: rng.choice((2, 3, 3))], 0.17, left)
    name, city = content.name(), f"{rng.randrange(10000, 99999)} {content.city()}"
    size = rng.uniform(20, 32)
    to = [("To:", 16.0, True), (name, size, True), (content.street(), size, False), (city, size, True)]
    marks = part(to, 0.3, left + (right - left) * rng.choice((0.0, 0.12)))
    _keep(board, "recipient", marks[1])
    weight = f"{rng.randint(1, 29)}.{rng.randint(0, 9)} kg"
    both = [
        ("Weight", weight),
        ("Date", content.date()),
        ("Parcel", f"{rng.randint(1, 3)} of {rng.randint(3, 6)}"),
    ]
    _pairs(board, both[: rng.choice((2, 3))], (left, y, right, y + (bottom - pad) * 0.16), DARK)
    y += (bottom - pad) * 0.16
    board.card((inside[0], y - 2 * unit, inside[2], y), DARK)
    board.group()
    code = content.code()
    letters = board.type(rng.uniform(15, 22))
    x, end = left + pad, right - pad
    while x < end:
        bar = rng.choice((1, 1, 2, 3)) * 2 * unit
        board.card((x, y + 8 * unit, min(x + bar, end) - 1, bottom - letters.size * 1.5), DARK)
        x += bar + rng.choice((1, 2, 3)) * 2 * unit
    mark = board.put(code, letters, board.width / 2, bottom - letters.size * 0.35, DARK, "center")
    _keep(board, "tracking number", mark)
