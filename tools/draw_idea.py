"""Draw the idea for the README: page -> visual tokens -> compressor -> fewer tokens -> the same answer.

python tools/draw_idea.py docs/images/idea.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

INK, GREY, BLUE, ORANGE, PALE = "#24292f", "#6e7781", "#2f6eb4", "#d9731a", "#eef3f9"
WIDTH, HEIGHT = 960, 330
PER_ROW = 8  # visual tokens in a row of the drawing


def text(x: float, y: float, words: str, size: int = 14, colour: str = INK, anchor: str = "middle") -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str, dashed: bool = False) -> str:
    """A rectangle with round corners."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="1.5"{dash}/>'
    )


def arrow(x0: float, y0: float, x1: float, y1: float, colour: str = GREY) -> str:
    """A line with a head."""
    return (
        f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="{colour}" stroke-width="2" '
        f'marker-end="url(#head)"/>'
    )


def tokens(x: float, y: float, rows: int, colour: str) -> list[str]:
    """A grid of visual tokens."""
    return [
        f'<rect x="{x + 13 * column}" y="{y + 13 * row}" width="10" height="10" rx="2" fill="{colour}"/>'
        for row in range(rows)
        for column in range(PER_ROW)
    ]


def page(x: float, y: float) -> list[str]:
    """A receipt cut into six tiles."""
    drawn = [box(x, y, 104, 156, "white", INK)]
    for row, (start, width) in enumerate(
        ((22, 60), (14, 40), (14, 76), (14, 56), (14, 70), (14, 48), (50, 40))
    ):
        drawn.append(
            f'<rect x="{x + start}" y="{y + 16 + 19 * row}" width="{width}" height="6" rx="2" fill="{GREY}"/>'
        )
    for share in (1, 2):
        drawn.append(
            f'<line x1="{x}" y1="{y + 52 * share}" x2="{x + 104}" y2="{y + 52 * share}" stroke="{BLUE}"/>'
        )
    drawn.append(f'<line x1="{x + 52}" y1="{y}" x2="{x + 52}" y2="{y + 156}" stroke="{BLUE}"/>')
    return drawn


def drawing() -> str:
    """Return the whole image as SVG."""
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif" role="img" '
            'aria-label="A page is cut into tiles; the teacher reads all visual tokens, the student half or a quarter">'
        ),
        (
            f'<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
            f'<path d="M0,0 L6,3 L0,6 z" fill="{GREY}"/></marker></defs>'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *page(24, 82),
        text(76, 262, "page, cut into tiles"),
        arrow(136, 160, 172, 160),
        box(178, 128, 74, 64, PALE, BLUE),
        text(215, 164, "ViT", 16),
        text(215, 216, "shared, frozen", 12, GREY),
        arrow(252, 150, 300, 96),
        arrow(252, 172, 300, 226),
        text(357, 26, "all visual tokens"),
        *tokens(306, 38, 8, BLUE),
        arrow(418, 90, 470, 90),
        box(476, 62, 96, 56, PALE, BLUE),
        text(524, 95, "projector", 14),
        arrow(572, 90, 624, 90),
        box(630, 56, 128, 68, PALE, BLUE),
        text(694, 86, "language model", 14),
        text(694, 106, "teacher, frozen", 12, GREY),
        arrow(758, 90, 812, 90),
        text(878, 82, "&#8220;Total: 12.50&#8221;", 15),
        text(878, 102, "logits: soft labels", 12, GREY),
        box(302, 200, 128, 56, "#fdf1e6", ORANGE),
        text(366, 233, "compressor V_c", 14),
        arrow(430, 228, 448, 228, ORANGE),
        *tokens(454, 204, 4, ORANGE),
        text(505, 276, "half or a quarter"),
        arrow(558, 228, 574, 228),
        box(580, 200, 92, 56, "#fdf1e6", ORANGE),
        text(626, 233, "projector", 14),
        arrow(672, 228, 692, 228),
        box(698, 194, 104, 68, PALE, BLUE),
        text(750, 224, "language", 14),
        text(750, 244, "model", 14),
        arrow(802, 228, 822, 228),
        text(884, 233, "&#8220;Total: 12.50&#8221;", 15),
        (
            f'<line x1="884" y1="116" x2="884" y2="206" stroke="{ORANGE}" stroke-width="2" stroke-dasharray="5 4" '
            'marker-end="url(#head)"/>'
        ),
        text(876, 166, "KL + CE", 13, ORANGE, "end"),
        text(
            480,
            312,
            "Stage 1 trains the orange parts alone; stage 2 trains all weights of the student.",
            13,
            GREY,
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing(), encoding="utf-8")
