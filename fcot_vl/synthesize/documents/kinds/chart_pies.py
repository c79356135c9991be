"""Pie charts and rings: slices with their labels around them."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import ImageDraw

from fcot_vl.synthesize.documents.board import Box, on
from fcot_vl.synthesize.documents.kinds.chart_base import Chart
from fcot_vl.synthesize.documents.kinds.chart_data import Series


def draw_pie(chart: Chart, box: Box, series: Series) -> bool:
    """Draw slices, their values with the labels or inside; False where a text found no place."""
    board, rng, unit = chart.board, chart.rng, chart.board.unit
    labels, numbers, texts = series.labels, series.numbers, series.texts
    left, top, right, bottom = box
    body, strong = board.type(chart.size), board.type(chart.size * rng.uniform(1, 1.25), chart.bold)
    widest = max(body.width(f"{label} {text}") for label, text in zip(labels, texts, strict=True))
    radius = min((bottom - top) / 2 - 2.6 * body.size, (right - left) / 2 - widest - 12 * unit)
    if radius < 4 * body.size:
        return False
    middle = ((left + right) / 2, (top + bottom) / 2)
    hole = radius * rng.uniform(0.45, 0.6) if rng.random() < 0.4 else 0.0
    angles, start = [], rng.uniform(0, 360)
    for i, value in enumerate(numbers):
        end = start + 360 * value / sum(numbers)
        around = (middle[0] - radius, middle[1] - radius, middle[0] + radius + 1, middle[1] + radius + 1)
        board.smooth(chart.colors[i], _slice(radius, start, end), around)
        angles.append(math.radians((start + end) / 2))
        start = end
    for value, angle in zip(numbers, angles, strict=True):  # gaps between the slices
        edge = angle + math.pi * value / sum(numbers)
        tip = (middle[0] + radius * math.cos(edge), middle[1] + radius * math.sin(edge))
        board.canvas.pen.line((*middle, *tip), fill=chart.paper, width=max(1, round(2 * unit)))
    if hole:
        board.disc(*middle, hole, chart.paper)
    inside = not hole and rng.random() < 0.5 and min(numbers) / sum(numbers) > 0.06
    twice = rng.random() < 0.5  # the value below the label
    for i, angle in enumerate(angles):
        x, y = math.cos(angle), math.sin(angle)
        align = "center" if abs(x) < 0.25 else "left" if x > 0 else "right"
        at = middle[0] + (radius + 9 * unit) * x
        base = middle[1] + (radius + 9 * unit + 0.5 * body.size * abs(y)) * y + 0.36 * body.size
        if twice and not inside:
            base += body.size * 0.6 * (y - 1)
        if align != "center":  # beside the circle, however high the print is there
            over, under = base - 0.8 * body.size - middle[1], base + 0.25 * body.size - middle[1]
            under += strong.size * 1.15 if twice and not inside else 0.0
            near = max(over, -under, 0.0)
            aside = math.sqrt(max(0.0, (radius + 8 * unit) ** 2 - near**2))
            at = middle[0] + math.copysign(max(aside, abs(at - middle[0])), x)
        if inside:
            spot = (middle[0] + 0.68 * radius * x, middle[1] + 0.68 * radius * y + 0.36 * strong.size)
            named = board.put(labels[i], body, at, base, chart.ink, align)
            mark = board.put(texts[i], strong, *spot, on(chart.colors[i]), "center")
        elif twice:
            named = board.put(labels[i], body, at, base, chart.ink, align)
            mark = board.put(texts[i], strong, at, base + strong.size * 1.15, chart.ink, align)
        else:
            wide = body.width(labels[i] + " ")
            whole = wide + strong.width(texts[i])
            at -= {"center": whole / 2, "right": whole}.get(align, 0.0)
            named = board.put(labels[i], body, at, base, chart.ink)
            mark = board.put(texts[i], strong, at + wide, base, chart.ink)
        if mark is None or named is None:
            return False
        board.page.values[labels[i]] = mark
    return True


def _slice(radius: float, start: float, end: float) -> Callable[[ImageDraw.ImageDraw, float], None]:
    """Return a function that draws a slice of a pie, from `start` to `end` degrees, for `Board.smooth`."""
    return lambda pen, k: pen.pieslice((0, 0, 2 * k * radius, 2 * k * radius), start, end, fill=255)
