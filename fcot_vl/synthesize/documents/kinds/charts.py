"""Charts: columns, bars, lines and pies with every value printed, a title, an axis and its ticks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fcot_vl.synthesize.documents.board import Board, Box
from fcot_vl.synthesize.documents.kinds.chart_bars import draw_bars
from fcot_vl.synthesize.documents.kinds.chart_base import Chart
from fcot_vl.synthesize.documents.kinds.chart_columns import draw_columns
from fcot_vl.synthesize.documents.kinds.chart_data import Series, draw_series
from fcot_vl.synthesize.documents.kinds.chart_pies import draw_pie
from fcot_vl.synthesize.documents.page import Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split

_GRIDS = ((4, 3), (4, 3), (4, 2.25), (3, 2), (3, 2), (2, 2), (3, 3), (4, 2), (2, 1), (2, 3), (3, 4), (5, 2))
_SUBJECTS = (
    *(
        "Sales",
        "Visitors",
        "Revenue",
        "Rainfall",
        "Exports",
        "Budget",
        "Output",
        "Members",
        "Energy use",
        "Orders",
    ),
    *(
        "Students",
        "Water use",
        "Tickets sold",
        "Imports",
        "Donations",
        "Accidents",
        "New homes",
        "Staff",
        "Profit",
    ),
    *("Downloads", "Complaints", "Books lent", "Patients", "Recycling", "Harvest", "Working hours"),
)
_SHARES = (
    "Market share",
    "Share of votes",
    "Spending",
    "Use of time",
    "Energy mix",
    "Sales",
    "Visitors",
    "Costs",
    "Waste",
)
# Draws a form of chart into a box; False where not every label and value found its place.
_FORMS: dict[str, Callable[[Chart, Box, Series], bool]] = {
    "columns": draw_columns,
    "line": draw_columns,
    "bars": draw_bars,
    "pie": draw_pie,
}


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Draw one chart of 3 to 9 categories; one that does not fit on its page is drawn again."""
    form, tens = rng.choice(("columns", "columns", "bars", "bars", "line", "pie")), rng.random() < 0.4
    while True:
        page = _draw(Chart(Board("chart", rng, split, families, _GRIDS), form), tens)
        if page is not None:
            return page


def _draw(chart: Chart, tens: bool) -> Page | None:
    """Draw `chart`; None where not every label and value found its place."""
    board, rng, unit = chart.board, chart.rng, chart.board.unit
    board.card((0, 0, board.width, board.height), chart.paper)
    if rng.random() < 0.2:
        frame = (2 * unit, 2 * unit, board.width - 2 * unit, board.height - 2 * unit)
        board.canvas.pen.rectangle(frame, outline=chart.faint, width=max(1, round(1.5 * unit)))
    series = draw_series(board.content, chart.form, chart.count, tens)
    board.page.subject = rng.choice(_SHARES if chart.form == "pie" and not tens else _SUBJECTS)
    margin = board.width * rng.uniform(0.035, 0.07)
    top = _title(chart, margin, series.what)
    bottom = board.height - 8 * unit
    source = rng.random() < 0.55
    small = board.type(min(12.5, max(11, chart.size * 0.85)))
    if source:
        bottom -= small.size * 1.8
    board.group()
    box = (margin, top + 6 * unit, board.width - margin, bottom)
    if not _FORMS[chart.form](chart, box, series) or len(board.page.values) != chart.count:
        return None
    if source:
        board.group()
        line = rng.choice(("Source: {}", "Source: {} survey", "Data: {}")).format(board.content.company())
        align = rng.choice(("left", "left", "right"))
        x = margin if align == "left" else board.width - margin
        board.put(line, small, x, board.height - 10 * unit, chart.soft, align)
    return board.finish()


def _title(chart: Chart, margin: float, what: str) -> float:
    """Print the title and perhaps a line below it; return the y below them."""
    board, rng, content, unit = chart.board, chart.rng, chart.board.content, chart.board.unit
    subject = board.page.subject
    title = rng.choice(
        (
            f"{subject} by {what}",
            f"{subject} in {content.city()}",
            f"{subject} of {content.company()}",
            f"{subject} in {content.city()}, {rng.randint(1960, 2030)}",
            f"{subject} by {what} in {content.city()}",
            subject,
        )
    )
    align = rng.choice(("left", "center", "center"))
    x = margin if align == "left" else board.width / 2
    width = board.width - 2 * margin
    size = min(chart.size * rng.uniform(1.3, 2.1), board.height / unit / 8)
    letters = board.fit(title, max(size, 14), width, rng.random() < 0.6, 12)
    y = 10 * unit + letters.size
    board.put(title, letters, x, y, chart.ink, align)
    if rng.random() < 0.4 and board.tiles > 3:
        small = board.type(max(12, chart.size * 0.85))
        y += small.size * 1.5
        people = f"{rng.randrange(200, 9000, 10):,}"
        line = rng.choice((f"Survey of {people} people", f"Published {content.date(3)}", f"{people} answers"))
        board.put(line, small, x, y, chart.soft, align)
    return y + letters.size * 0.35
