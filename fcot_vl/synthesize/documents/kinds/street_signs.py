"""Signs at shops, doors and roads, notices, and opening hours."""

from __future__ import annotations

from fcot_vl.synthesize.documents.board import DARK, PALETTES, Board, on
from fcot_vl.synthesize.documents.drawings import arrow
from fcot_vl.synthesize.documents.kinds.sign_plate import (
    BLUE,
    BROWN,
    GREEN,
    GROUNDS,
    RED,
    YELLOW,
    plate,
    size_for,
)
from fcot_vl.synthesize.documents.page import WHITE
from fcot_vl.synthesize.documents.vocabulary import DAYS

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


def shop_sign(board: Board) -> None:
    """Draw the sign over a shop: its name, what it says of itself, its telephone."""
    rng, content = board.rng, board.content
    box, ink = plate(board, rng.choice((*GROUNDS, rng.choice(PALETTES)[1])))
    capitals, align = rng.random() < 0.4, rng.choice(("center", "center", "left"))
    name = content.company()
    lines = [
        (name.upper() if capitals else name, size_for(board, box, rng.uniform(0.3, 0.5)), rng.random() < 0.7)
    ]
    if rng.random() < 0.7:
        line = rng.choice(_TAGLINES).format(rng.randint(1890, 2020))
        lines.append((line, size_for(board, box, 0.15, 40), False))
    phone = content.phone()
    if rng.random() < 0.6:
        lines.append(
            (f"Tel. {phone}" if rng.random() < 0.6 else phone, size_for(board, box, 0.15, 40), False)
        )
    if rng.random() < 0.4:
        lines.append((content.street(), size_for(board, box, 0.13, 36), False))
    marks = board.stack(lines, box, ink, align, 1.4)
    board.page.keep("shop", marks[0])
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text.endswith(phone):
            board.page.keep("phone number", mark, phone)


def door_sign(board: Board) -> None:
    """Draw the sign beside a door: the room, who works there, what to do."""
    rng, content = board.rng, board.content
    box, ink = plate(
        board, rng.choice((WHITE, (226, 228, 230), BLUE, BROWN, (24, 24, 28), rng.choice(PALETTES)[0]))
    )
    number = rng.choice(
        (f"{rng.randint(1, 9)}{rng.randrange(100):02d}", f"{rng.choice('ABCDE')}{rng.randint(1, 60)}")
    )
    room, name = f"{rng.choice(_ROOMS)} {number}", content.name()
    align = rng.choice(("left", "center"))
    lines = [(room, size_for(board, box, 0.3), True)]
    if rng.random() < 0.75:
        titled = rng.choice(("{}", "Dr. {}", "Prof. {}")).format(name)
        lines.append((titled, size_for(board, box, 0.18, 50), False))
    if rng.random() < 0.5:
        group = f"{content.word(9).capitalize()} {rng.choice(('Department', 'Institute', 'Unit'))}"
        lines.append((group, size_for(board, box, 0.13, 36), False))
    if rng.random() < 0.4:
        request = rng.choice(("Please knock", "No entry", "Please be quiet", "By appointment"))
        lines.append((request, size_for(board, box, 0.12, 30), False))
    marks = board.stack(lines, box, ink, align, 1.45)
    board.page.keep("room", marks[0], number)
    if len(lines) > 1 and lines[1][0].endswith(name):
        board.page.keep("name", marks[1], name)


def road_sign(board: Board) -> None:
    """Draw a road sign: places, how far they are, and arrows."""
    rng, content, unit = board.rng, board.content, board.unit
    box, ink = plate(board, rng.choice((GREEN, BLUE, BROWN, WHITE, YELLOW)))
    left, top, right, bottom = box
    rows = rng.randint(1 if board.tiles < 3 else 2, max(2, min(4, round((bottom - top) / unit / 90))))
    step = (bottom - top) / rows
    letters = board.type(min(80, step / unit * 0.55), rng.random() < 0.7)
    arrows, after = rng.random() < 0.5, rng.choice((" km", " km", ""))
    for i in range(rows):
        place, far = content.city(), f"{rng.randint(2, 480)}{after}"
        y = top + step * (i + 0.5)
        start = left
        if arrows:
            arrow(board, left + step * 0.3, y, min(step * 0.28, 34 * unit), ink, rng.randrange(4))
            start += step * 0.7
        fitting = board.fit(
            f"{place}  {far}", letters.size / unit, right - start, letters.face == board.family.bold, 14
        )
        named = board.put(place, fitting, start, y + fitting.size * 0.36, ink)
        mark = board.put(far, fitting, right, y + fitting.size * 0.36, ink, "right")
        if named is not None:
            board.page.keep(f"distance to {place}", mark)
        if i and rng.random() < 0.3:
            board.card((left, y - step / 2, right, y - step / 2 + 2 * unit), ink)


def notice(board: Board) -> None:
    """Draw a warning or a ban, perhaps with its hours and its fine."""
    rng = board.rng
    ground = rng.choice((WHITE, WHITE, YELLOW, RED, (252, 120, 20)))
    box, ink = plate(board, ground, rng.choice((RED, DARK)) if ground == WHITE else None)
    first, second = rng.choice(_NOTICES)
    left, top, right, bottom = box
    if rng.random() < 0.35 and board.tiles > 1:  # a band with the warning's word
        band = ink if ground == WHITE else DARK
        end = top + (bottom - top) * 0.3
        board.card((0, 0, board.width, end), band)
        board.stack([(first, size_for(board, box, 0.24), True)], (left, 0, right, end), on(band))
        lines, box = [], (left, end, right, bottom)
    else:
        lines = [(first, size_for(board, box, 0.3), True)]
    lines.append((second, size_for(board, box, 0.22), rng.random() < 0.7))
    hours = f"{rng.randint(6, 9):02d}:00 - {rng.randint(16, 22)}:00"
    if board.tiles > 1 and rng.random() < 0.5:
        lines.append(
            (
                rng.choice((f"Mon - Fri {hours}", hours, f"Daily {hours}")),
                size_for(board, box, 0.13, 40),
                False,
            )
        )
    fine = f"${rng.randrange(20, 500, 5)}"
    if board.tiles > 1 and rng.random() < 0.4:
        lines.append((f"Fine: {fine}", size_for(board, box, 0.13, 40), False))
    if rng.random() < 0.3:
        lines.append((board.content.company(), size_for(board, box, 0.1, 28), False))
    marks = board.stack(lines, box, ink, "center", 1.4)
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text.startswith("Fine"):
            board.page.keep("fine", mark, fine)
        elif hours in text:
            board.page.keep("hours", mark, hours)


def opening_hours(board: Board) -> None:
    """Draw the opening hours of the days of the week."""
    rng, content, unit = board.rng, board.content, board.unit
    box, ink = plate(board, rng.choice(GROUNDS))
    left, top, right, bottom = box
    title = rng.choice(("Opening Hours", "OPENING HOURS", "Hours", "We are open", "OPEN"))
    head = [(title, size_for(board, box, 0.14, 60), True)]
    if rng.random() < 0.5:
        head.insert(0, (content.company(), size_for(board, box, 0.09, 40), False))
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
            board.page.keep(f"opening hours on {DAYS[i]}", mark)
