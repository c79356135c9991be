"""Plates of signs and labels: their ground, frame and screws, and sizes of type on them."""

from __future__ import annotations

from fcot_vl.synthesize.documents.board import Board, Box, on
from fcot_vl.synthesize.documents.page import WHITE, Color

RED, YELLOW, GREEN, BLUE, BROWN = (186, 28, 36), (250, 204, 30), (0, 98, 62), (14, 76, 152), (98, 58, 32)
GROUNDS: tuple[Color, ...] = (
    WHITE,
    (250, 246, 232),
    RED,
    YELLOW,
    GREEN,
    BLUE,
    BROWN,
    (24, 24, 28),
    (226, 228, 230),
)


def plate(board: Board, ground: Color, ink: Color | None = None) -> tuple[Box, Color]:
    """Paint a plate as large as the board, perhaps with a frame or screws; return the place for print, and the ink."""
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


def size_for(board: Board, box: Box, share: float, most: float = 90, least: float = 11) -> float:
    """Return the size of type, in pixels of the tiles, that fills `share` of the height of `box`."""
    return max(least, min(most, (box[3] - box[1]) / board.unit * share))
