"""Bar charts: horizontal bars beside the labels of their categories."""

from __future__ import annotations

from fcot_vl.synthesize.documents.board import Box, on
from fcot_vl.synthesize.documents.kinds.chart_base import Chart, ticks_up_to
from fcot_vl.synthesize.documents.kinds.chart_data import Series


def draw_bars(chart: Chart, box: Box, series: Series) -> bool:
    """Draw bars to the right of their labels; False where a text found no place."""
    board, rng, unit = chart.board, chart.rng, chart.board.unit
    labels, numbers, texts = series.labels, series.numbers, series.texts
    left, top, right, bottom = box
    size = min(chart.size, (bottom - top) / unit / (chart.count + 1.2) / 1.3)
    if size < 11:
        return False
    body, small = board.type(size), board.type(max(11, size * 0.85))
    strong = board.type(size * rng.uniform(0.95, 1.2), chart.bold)
    ticks = ticks_up_to(max(numbers)) if rng.random() < 0.7 else []
    start = left + max(body.width(label) for label in labels) + 8 * unit
    room = max(strong.width(text) for text in texts) + 8 * unit
    floor = bottom - (small.size * 1.7 if ticks else 0.0)
    scale = (right - room - start) / (max(numbers) if not ticks else ticks[-1])
    if right - room - start < board.width * 0.3:
        return False
    for tick in ticks:
        x = start + tick * scale
        board.put(series.printed(tick), small, x, floor + small.size * 1.25, chart.soft, "center")
        chart.grid_line(x, top, floor, False, True)
    board.card((start, top, start + unit, floor), chart.soft)
    slot = (floor - top) / chart.count
    bar, inside, flush = (
        min(slot * rng.uniform(0.5, 0.85), 70 * unit),
        rng.random() < 0.3,
        rng.random() < 0.3,
    )
    for i, shade in enumerate(chart.shades()):
        y, end = top + slot * (i + 0.5), start + numbers[i] * scale
        board.card((start + unit, y - bar / 2, end, y + bar / 2), shade)
        within = inside and strong.width(texts[i]) + 10 * unit < end - start and strong.size < bar
        x, align, ink = (
            (end - 5 * unit, "right", on(shade)) if within else (end + 5 * unit, "left", chart.ink)
        )
        at = y + strong.size * 0.36
        named = board.put(
            labels[i], body, left if flush else start - 6 * unit, at, chart.ink, ("right", "left")[flush]
        )
        if not within and ticks:
            board.card((x, at - 0.8 * strong.size, x + strong.width(texts[i]), at + 2 * unit), chart.paper)
        mark = board.put(texts[i], strong, x, at, ink, align)
        if mark is None or named is None:
            return False
        board.page.values[labels[i]] = mark
    return True
