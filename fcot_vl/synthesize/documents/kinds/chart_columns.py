"""Column charts and line charts: values above the labels of their categories."""

from __future__ import annotations

from PIL import ImageDraw

from fcot_vl.synthesize.documents.board import Box, on
from fcot_vl.synthesize.documents.kinds.chart_base import Chart, mix, ticks_up_to
from fcot_vl.synthesize.documents.kinds.chart_data import Series

_UNITS = ("units", "thousands", "per day", "tonnes", "million", "index", "in 1000s")


def draw_columns(chart: Chart, box: Box, series: Series) -> bool:
    """Draw columns, or points joined by lines, above their labels; False where a text found no place."""
    board, rng, unit = chart.board, chart.rng, chart.board.unit
    labels, numbers, texts = series.labels, series.numbers, series.texts
    left, top, right, bottom = box
    body, small = board.type(chart.size), board.type(max(11, chart.size * 0.85))
    strong = board.type(chart.size * rng.uniform(0.95, 1.25), chart.bold)
    ticks = ticks_up_to(max(numbers)) if rng.random() < 0.8 else []
    dashed, grid = rng.random() < 0.3, rng.random() < 0.7
    if rng.random() < 0.4:  # what the axis counts, above it
        plain = series.prefix or series.suffix or rng.random() < 0.3
        name = board.page.subject if plain else f"{board.page.subject} ({rng.choice(_UNITS)})"
        board.put(name, small, left, top + small.size, chart.soft)
        top += small.size * 1.3
    top += strong.size * 1.5
    floor = bottom - body.size * 1.75
    start = left + (max(small.width(series.printed(tick)) for tick in ticks) + 8 * unit if ticks else 0.0)
    slot = (right - start) / chart.count
    width = slot - 5 * unit
    if max(body.width(label) for label in labels) > width:
        body = min((board.fit(label, chart.size, width) for label in labels), key=lambda t: t.size)
    if max(strong.width(text) for text in texts) > width:
        strong = min((board.fit(t, chart.size, width, chart.bold) for t in texts), key=lambda t: t.size)
    height = (floor - top) / (ticks[-1] if ticks else max(numbers))
    if height <= 0 or floor - top < 4 * body.size:
        return False
    for tick in ticks:
        y = floor - tick * height
        board.put(series.printed(tick), small, start - 6 * unit, y + small.size * 0.36, chart.soft, "right")
        if grid and tick:
            chart.grid_line(start, y, right, dashed, False)
    board.canvas.rule(start, floor, right - start, chart.soft, max(1, round(1.5 * unit)))
    if rng.random() < 0.5:
        board.card((start, top - unit, start + unit, floor), chart.soft)
    middles = [start + slot * (i + 0.5) for i in range(chart.count)]
    tops = [floor - value * height for value in numbers]
    bases, inks = [y - strong.size * 0.35 for y in tops], [chart.ink] * chart.count
    if chart.form == "line":
        bases = _draw_line(chart, middles, tops, floor, strong.size)
    else:
        bar, inside, round_top = slot * rng.uniform(0.5, 0.85), rng.random() < 0.25, rng.random() < 0.2
        for i, shade in enumerate(chart.shades()):
            sides = (middles[i] - bar / 2, tops[i], middles[i] + bar / 2, floor - 1)
            board.card(sides, shade, 4 * unit if round_top and floor - tops[i] > 12 * unit else 0)
            if inside and floor - tops[i] > 1.8 * strong.size and strong.width(texts[i]) < bar * 0.9:
                bases[i], inks[i] = tops[i] + strong.size * 1.2, on(shade)
    for i, label in enumerate(labels):
        named = board.put(label, body, middles[i], floor + body.size * 1.3, chart.ink, "center")
        if bases[i] <= tops[i] or chart.form == "line":  # keep lines out of the number
            half, paper = strong.width(texts[i]) / 2, chart.paper
            sides = (
                middles[i] - half,
                bases[i] - 0.8 * strong.size,
                middles[i] + half,
                bases[i] + 0.1 * strong.size,
            )
            board.card(sides, paper)
        mark = board.put(texts[i], strong, middles[i], bases[i], inks[i], "center")
        if mark is None or named is None:
            return False
        board.page.values[label] = mark
    return True


def _draw_line(chart: Chart, xs: list[float], ys: list[float], floor: float, size: float) -> list[float]:
    """Draw a line with markers; return the baselines of the numbers, above peaks and below valleys."""
    board, rng, unit = chart.board, chart.rng, chart.board.unit
    path = list(zip(xs, ys, strict=True))
    thick = rng.uniform(1.5, 3.5) * unit
    if rng.random() < 0.25:
        shade = mix(chart.paper, chart.main, 0.25)
        board.canvas.pen.polygon([(xs[0], floor), *path, (xs[-1], floor)], fill=shade)

    def line(pen: ImageDraw.ImageDraw, k: float) -> None:
        pen.line([(k * x, k * y) for x, y in path], fill=255, width=round(k * thick), joint="curve")

    board.smooth(chart.main, line)
    square, radius = rng.random() < 0.3, rng.uniform(3.5, 6) * unit
    bases = []
    for i, (x, y) in enumerate(path):
        if square:
            board.card((x - radius, y - radius, x + radius, y + radius), chart.main)
        else:
            board.disc(x, y, radius, chart.main)
        before, after = ys[max(i - 1, 0)], ys[min(i + 1, len(ys) - 1)]
        valley = y > (before + after) / 2 and y + radius + size * 1.2 < floor
        bases.append(y + radius + size if valley else y - radius - size * 0.3)
    return bases
