"""Price tags, labels of products, and shipping labels."""

from __future__ import annotations

from collections.abc import Sequence

from fcot_vl.synthesize.documents.board import DARK, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.content import money
from fcot_vl.synthesize.documents.drawings import bar_code
from fcot_vl.synthesize.documents.kinds.sign_plate import RED, YELLOW, plate, size_for
from fcot_vl.synthesize.documents.page import WHITE, Color, Mark


def price_tag(board: Board) -> None:
    """Draw a price tag: what it is, its price, and perhaps how much of it, and a code."""
    rng, content = board.rng, board.content
    box, ink = plate(board, rng.choice((WHITE, WHITE, YELLOW, YELLOW, RED, (255, 240, 120))))
    sign = rng.choice(("$", "RM ", "EUR ", ""))
    price = money(content.cents(60, 60_000) if rng.random() < 0.7 else 100 * rng.randint(1, 900) - 1, sign)
    item = content.item()
    lines = [
        (item, size_for(board, box, 0.17, 60), rng.random() < 0.5),
        (price, size_for(board, box, 0.4), True),
    ]
    if rng.random() < 0.4:
        offer = rng.choice(("SALE", "SPECIAL OFFER", "NEW", "Today only"))
        lines.insert(0, (offer, size_for(board, box, 0.13, 50), True))
    if rng.random() < 0.5:
        amount = rng.choice(("per kg", "each", "per pack", "500 g", "1 litre"))
        lines.append((amount, size_for(board, box, 0.11, 34), False))
    code = content.code()
    if rng.random() < 0.6 and board.tiles > 1:
        article = rng.choice(("Art. {}", "No. {}", "{}")).format(code)
        lines.append((article, size_for(board, box, 0.09, 26), False))
    marks = board.stack(lines, box, ink, rng.choice(("center", "center", "left", "right")), 1.35)
    for (text, _, _), mark in zip(lines, marks, strict=True):
        if text in (item, price):
            board.page.keep("item" if text == item else "price", mark)
        elif text.endswith(code):
            board.page.keep("article number", mark, code)


def product_label(board: Board) -> None:
    """Draw the label of a product: brand and name, then names with their values."""
    rng, content, unit = board.rng, board.content, board.unit
    dark, main, _, tint = rng.choice(PALETTES)
    box, ink = plate(board, rng.choice((WHITE, WHITE, tint, (250, 246, 232), dark)))
    left, top, right, bottom = box
    end = top + (bottom - top) * rng.uniform(0.3, 0.5)
    brand, name = content.word(9).capitalize(), content.item()
    head = [(brand, size_for(board, box, 0.18, 70), True), (name, size_for(board, box, 0.11, 44), False)]
    band = rng.random() < 0.5
    if band:
        board.card((0, 0, board.width, end), main)
    marks = board.stack(head, (left, top, right, end), on(main) if band else ink)
    board.page.keep("brand", marks[0])
    weights = (
        f"{rng.randrange(20, 990, 5)} g",
        f"{rng.randint(1, 40)} kg",
        f"{rng.randrange(50, 990, 10)} ml",
    )
    pairs = [
        ("Net weight", rng.choice(weights)),
        ("Best before", content.date()),
        ("Batch", content.code()),
        ("Price", money(content.cents(), rng.choice(("$", "RM ", "")))),
        ("Made in", content.city()),
        ("Size", f"{rng.randint(4, 90)} x {rng.randint(4, 90)} cm"),
        ("Energy", f"{rng.randint(20, 900)} kcal"),
    ]
    board.group()
    _pairs(board, rng.sample(pairs, len(pairs)), (left, end + 8 * unit, right, bottom), ink)


def _pairs(board: Board, pairs: Sequence[tuple[str, str]], box: Box, ink: Color) -> None:
    """Print names with their values, one row each, as many as fit into `box`."""
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
            named = board.put(label, letters, left, y, ink)
            mark = board.put(value, strong, right, y, ink, "right")
            if named is not None:
                board.page.keep(label.lower(), mark)
        else:
            board.page.keep(label.lower(), board.put(f"{label}: {value}", letters, left, y, ink), value)
        if lined and i:
            board.card((left, top + step * i, right, top + step * i + unit), ink)


def shipping_label(board: Board) -> None:
    """Draw a shipping label: from whom, to whom, by what, with a bar code."""
    rng, content, unit = board.rng, board.content, board.unit
    board.card((0, 0, board.width, board.height), rng.choice((WHITE, WHITE, (250, 248, 240))))
    pad = min(board.width, board.height) * 0.05
    left, right, bottom = pad, board.width - pad, board.height - pad
    inside = (pad * 0.5, pad * 0.5, board.width - pad * 0.5, board.height - pad * 0.5)
    board.canvas.pen.rectangle(inside, outline=DARK, width=max(1, round(2 * unit)))
    y = pad

    def part(lines: Sequence[tuple[str, float, bool]], share: float, x: float) -> list[Mark | None]:
        """Print lines in the next part of the label, above a rule."""
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
    name, city = content.name(), content.town()
    size = rng.uniform(20, 32)
    to = [("To:", 16.0, True), (name, size, True), (content.street(), size, False), (city, size, True)]
    marks = part(to, 0.3, left + (right - left) * rng.choice((0.0, 0.12)))
    board.page.keep("recipient", marks[1])
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
    bar_code(board, (left + pad, y + 8 * unit, right - pad, bottom - letters.size * 1.5), DARK)
    mark = board.put(code, letters, board.width / 2, bottom - letters.size * 0.35, DARK, "center")
    board.page.keep("tracking number", mark)
