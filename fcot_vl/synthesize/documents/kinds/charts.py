"""Charts: bars, columns, lines and pies with every value printed, a title, an axis and its ticks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from PIL import ImageDraw

from fcot_vl.synthesize.documents.board import DARK, GREY, PALETTES, Board, Box, on
from fcot_vl.synthesize.documents.page import WHITE, Colour, Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.vocabulary import DAYS, ITEMS, MONTHS
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
_UNITS = ("units", "thousands", "per day", "tonnes", "million", "index", "in 1000s")
_RAINBOW = (
    (31, 119, 180),
    (214, 96, 30),
    (44, 130, 60),
    (180, 40, 50),
    (120, 80, 170),
    (130, 80, 60),
    (20, 140, 150),
)


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """One chart of 3 to 9 categories; what does not fit on its page is drawn again."""
    form, tens = rng.choice(("columns", "columns", "bars", "bars", "line", "pie")), rng.random() < 0.4
    while True:
        page = _Chart(Board("chart", rng, split, families, _GRIDS), form, tens).draw()
        if page is not None:
            return page


class _Chart:
    """One chart being drawn."""

    def __init__(self, board: Board, form: str, tens: bool) -> None:
        rng = board.rng
        self.form, self.tens = form, tens
        self.board, self.rng, self.content = board, rng, board.content
        dark, main, accent, tint = rng.choice(PALETTES)
        paper: tuple[Colour, ...] = (WHITE, WHITE, WHITE, (246, 246, 244), (252, 248, 236), tint, dark)
        self.paper = rng.choice(paper)
        self.ink = on(self.paper)
        self.faint = _mix(self.paper, self.ink, 0.22)
        self.soft = GREY if self.ink == DARK else (214, 216, 222)
        self.main, self.accent = (tint, accent) if self.paper == dark else (main, accent)
        self.colours = [self.main, self.accent, *_RAINBOW]
        self.size = min(rng.uniform(13, 23), 10 + 0.9 * board.tiles)
        self.bold = rng.random() < 0.4  # values
        self.prefix = self.suffix = ""
        room = 3 + board.tiles * 0.75 if self.form != "columns" else 3 + board.grid[0] * 1.6
        least = 4 if self.form == "line" else 3
        self.count = min(9 if self.form != "pie" else 7, rng.randint(least, max(5, round(room))))

    def draw(self) -> Page | None:
        """Draw it; None if not every category and value found its place."""
        board, rng, unit = self.board, self.rng, self.board.unit
        board.card((0, 0, board.width, board.height), self.paper)
        if rng.random() < 0.2:
            frame = (2 * unit, 2 * unit, board.width - 2 * unit, board.height - 2 * unit)
            board.canvas.pen.rectangle(frame, outline=self.faint, width=max(1, round(1.5 * unit)))
        labels, what = self._labels()
        numbers, texts = self._values()
        board.page.subject = rng.choice(_SHARES if self.form == "pie" and not self.tens else _SUBJECTS)
        margin = board.width * rng.uniform(0.035, 0.07)
        top = self._title(margin, what)
        bottom = board.height - 8 * unit
        source = rng.random() < 0.55
        small = board.type(min(12.5, max(11, self.size * 0.85)))
        if source:
            bottom -= small.size * 1.8
        board.group()
        box = (margin, top + 6 * unit, board.width - margin, bottom)
        drawn: Callable[[Box, list[str], list[float], list[str]], bool] = {
            "columns": self._upright,
            "line": self._upright,
            "bars": self._bars,
            "pie": self._pie,
        }[self.form]
        if not drawn(box, labels, numbers, texts) or len(board.page.values) != self.count:
            return None
        if source:
            board.group()
            line = rng.choice(("Source: {}", "Source: {} survey", "Data: {}")).format(self.content.company())
            align = rng.choice(("left", "left", "right"))
            x = margin if align == "left" else board.width - margin
            board.put(line, small, x, board.height - 10 * unit, self.soft, align)
        return board.finish()

    def _labels(self) -> tuple[list[str], str]:
        """Names of the categories, and what they are."""
        rng, content, count = self.rng, self.content, self.count
        kind = rng.choice(("month", "year", "quarter", "day", "product", "city", "region", "person"))
        if self.form == "line":
            kind = rng.choice(("month", "year", "year", "day"))
        elif self.form == "pie":
            kind = rng.choice(("product", "city", "person"))
        if kind == "day" and count <= 7:
            return [day[:3] for day in DAYS[:count]], "day"
        if kind in ("month", "day"):
            first = rng.randrange(12 - count + 1)
            return MONTHS[first : first + count], "month"
        if kind == "year":
            first, step = rng.randint(1960, 2015), rng.choice((1, 1, 2, 5))
            return [str(first + step * i) for i in range(count)], "year"
        if kind == "quarter" and count <= 4:
            return [f"Q{i + 1}" for i in range(count)], "quarter"
        if kind == "person":
            return _different(lambda: content.word(7).capitalize(), count), "person"
        if kind in ("city", "region"):
            return _different(content.city, count), kind
        return _different(
            (lambda: rng.choice(ITEMS)) if rng.random() < 0.7 else content.item, count
        ), "product"

    def _values(self) -> tuple[list[float], list[str]]:
        """Different numbers and how they are printed."""
        rng, count = self.rng, self.count
        if self.tens:
            tens = rng.sample(range(10, 100, 10), count)
            return [float(value) for value in tens], [str(value) for value in tens]
        if self.form == "pie":
            self.suffix = "%"
            while True:
                cuts = sorted(rng.sample(range(4, 97), count - 1))
                parts = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
                if len({*parts}) == count and min(parts) >= 4:
                    return [float(part) for part in parts], [f"{part}%" for part in parts]
        kind = rng.choice(("small", "whole", "large", "decimal", "percent", "money"))
        high = {"small": 99, "whole": 990, "large": 9900, "decimal": 999, "percent": 98, "money": 950}[kind]
        found = rng.sample(range(max(3, round(high * rng.uniform(0.03, 0.4))), high), count)
        if self.form == "line" and rng.random() < 0.5:
            found = sorted(found, reverse=rng.random() < 0.3)
            at = rng.randrange(count - 1)
            found[at], found[at + 1] = found[at + 1], found[at]
        if kind == "decimal":
            return [value / 10 for value in found], [f"{value / 10:.1f}" for value in found]
        self.prefix, self.suffix = ("$" if kind == "money" else ""), ("%" if kind == "percent" else "")
        return [float(value) for value in found], [f"{self.prefix}{value:,}{self.suffix}" for value in found]

    def _title(self, margin: float, what: str) -> float:
        """Title and perhaps a line below it; returns the y below them."""
        board, rng, content, unit = self.board, self.rng, self.content, self.board.unit
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
        size = min(self.size * rng.uniform(1.3, 2.1), board.height / unit / 8)
        letters = board.fit(title, max(size, 14), width, rng.random() < 0.6, 12)
        y = 10 * unit + letters.size
        board.put(title, letters, x, y, self.ink, align)
        if rng.random() < 0.4 and board.tiles > 3:
            small = board.type(max(12, self.size * 0.85))
            y += small.size * 1.5
            people = f"{rng.randrange(200, 9000, 10):,}"
            line = rng.choice(
                (f"Survey of {people} people", f"Published {content.date(3)}", f"{people} answers")
            )
            board.put(line, small, x, y, self.soft, align)
        return y + letters.size * 0.35

    def _ticks(self, most: float, least: int = 3) -> list[float]:
        """Round numbers from 0 to at least `most`."""
        step = 10.0 ** math.floor(math.log10(most))
        for part in (1.0, 0.5, 0.25 if step >= 100 else 0.2, 0.2, 0.1):
            if most / (step * part) >= least:
                step *= part
                break
        return [step * i for i in range(math.ceil(most / step) + 1)]

    def _tick(self, value: float) -> str:
        text = f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
        return f"{self.prefix}{text}{self.suffix}"

    def _shades(self) -> list[Colour]:
        """A colour per bar: one for all, one that stands out, alternating, or all different."""
        draw, count = self.rng.random(), self.count
        if draw < 0.45:
            return [self.main] * count
        if draw < 0.65:
            odd = self.rng.randrange(count)
            return [self.accent if i == odd else self.main for i in range(count)]
        if draw < 0.8:
            return [(self.main, self.accent)[i % 2] for i in range(count)]
        return [self.colours[i % len(self.colours)] for i in range(count)]

    def _grid(self, x: float, y: float, end: float, dashed: bool, upright: bool) -> None:
        """A line of the grid from (x, y), across to x = `end` or down to y = `end`."""
        thick = max(1, round(self.board.unit))
        if upright:
            self.board.card((x, y, x + thick - 1, end), self.faint)
        elif dashed:
            self.board.canvas.dashes(x, y, end - x, self.faint, round(5 * self.board.unit))
        else:
            self.board.canvas.rule(x, y, end - x, self.faint, thick)

    def _upright(self, box: Box, labels: list[str], numbers: list[float], texts: list[str]) -> bool:
        """Columns, or points joined by lines, above their labels."""
        board, rng, unit = self.board, self.rng, self.board.unit
        left, top, right, bottom = box
        body, small = board.type(self.size), board.type(max(11, self.size * 0.85))
        strong = board.type(self.size * rng.uniform(0.95, 1.25), self.bold)
        ticks = self._ticks(max(numbers)) if rng.random() < 0.8 else []
        dashed, grid = rng.random() < 0.3, rng.random() < 0.7
        if rng.random() < 0.4:  # what the axis counts, above it
            plain = self.prefix or self.suffix or rng.random() < 0.3
            name = board.page.subject if plain else f"{board.page.subject} ({rng.choice(_UNITS)})"
            board.put(name, small, left, top + small.size, self.soft)
            top += small.size * 1.3
        top += strong.size * 1.5
        floor = bottom - body.size * 1.75
        start = left + (max(small.width(self._tick(tick)) for tick in ticks) + 8 * unit if ticks else 0.0)
        slot = (right - start) / self.count
        width = slot - 5 * unit
        if max(body.width(label) for label in labels) > width:
            body = min((board.fit(label, self.size, width) for label in labels), key=lambda t: t.size)
        if max(strong.width(text) for text in texts) > width:
            strong = min((board.fit(t, self.size, width, self.bold) for t in texts), key=lambda t: t.size)
        height = (floor - top) / (ticks[-1] if ticks else max(numbers))
        if height <= 0 or floor - top < 4 * body.size:
            return False
        for tick in ticks:
            y = floor - tick * height
            board.put(self._tick(tick), small, start - 6 * unit, y + small.size * 0.36, self.soft, "right")
            if grid and tick:
                self._grid(start, y, right, dashed, False)
        board.canvas.rule(start, floor, right - start, self.soft, max(1, round(1.5 * unit)))
        if rng.random() < 0.5:
            board.card((start, top - unit, start + unit, floor), self.soft)
        middles = [start + slot * (i + 0.5) for i in range(self.count)]
        tops = [floor - value * height for value in numbers]
        bases, inks = [y - strong.size * 0.35 for y in tops], [self.ink] * self.count
        if self.form == "line":
            bases = self._points(middles, tops, floor, strong.size)
        else:
            bar, inside, round_top = slot * rng.uniform(0.5, 0.85), rng.random() < 0.25, rng.random() < 0.2
            for i, shade in enumerate(self._shades()):
                sides = (middles[i] - bar / 2, tops[i], middles[i] + bar / 2, floor - 1)
                board.card(sides, shade, 4 * unit if round_top and floor - tops[i] > 12 * unit else 0)
                if inside and floor - tops[i] > 1.8 * strong.size and strong.width(texts[i]) < bar * 0.9:
                    bases[i], inks[i] = tops[i] + strong.size * 1.2, on(shade)
        for i, label in enumerate(labels):
            named = board.put(label, body, middles[i], floor + body.size * 1.3, self.ink, "center")
            if bases[i] <= tops[i] or self.form == "line":  # keep lines out of the number
                half, paper = strong.width(texts[i]) / 2, self.paper
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

    def _points(self, xs: list[float], ys: list[float], floor: float, size: float) -> list[float]:
        """Draw a line with markers; returns the baselines of the numbers, above peaks and below valleys."""
        board, rng, unit = self.board, self.rng, self.board.unit
        path = list(zip(xs, ys, strict=True))
        thick = rng.uniform(1.5, 3.5) * unit
        if rng.random() < 0.25:
            shade = _mix(self.paper, self.main, 0.25)
            board.canvas.pen.polygon([(xs[0], floor), *path, (xs[-1], floor)], fill=shade)

        def line(pen: ImageDraw.ImageDraw, k: float) -> None:
            pen.line([(k * x, k * y) for x, y in path], fill=255, width=round(k * thick), joint="curve")

        board.smooth(self.main, line)
        square, radius = rng.random() < 0.3, rng.uniform(3.5, 6) * unit
        bases = []
        for i, (x, y) in enumerate(path):
            if square:
                board.card((x - radius, y - radius, x + radius, y + radius), self.main)
            else:
                board.disc(x, y, radius, self.main)
            before, after = ys[max(i - 1, 0)], ys[min(i + 1, len(ys) - 1)]
            valley = y > (before + after) / 2 and y + radius + size * 1.2 < floor
            bases.append(y + radius + size if valley else y - radius - size * 0.3)
        return bases

    def _bars(self, box: Box, labels: list[str], numbers: list[float], texts: list[str]) -> bool:
        """Bars to the right of their labels."""
        board, rng, unit = self.board, self.rng, self.board.unit
        left, top, right, bottom = box
        size = min(self.size, (bottom - top) / unit / (self.count + 1.2) / 1.3)
        if size < 11:
            return False
        body, small = board.type(size), board.type(max(11, size * 0.85))
        strong = board.type(size * rng.uniform(0.95, 1.2), self.bold)
        ticks = self._ticks(max(numbers)) if rng.random() < 0.7 else []
        start = left + max(body.width(label) for label in labels) + 8 * unit
        room = max(strong.width(text) for text in texts) + 8 * unit
        floor = bottom - (small.size * 1.7 if ticks else 0.0)
        scale = (right - room - start) / (max(numbers) if not ticks else ticks[-1])
        if right - room - start < board.width * 0.3:
            return False
        for tick in ticks:
            x = start + tick * scale
            board.put(self._tick(tick), small, x, floor + small.size * 1.25, self.soft, "center")
            self._grid(x, top, floor, False, True)
        board.card((start, top, start + unit, floor), self.soft)
        slot = (floor - top) / self.count
        bar, inside, flush = (
            min(slot * rng.uniform(0.5, 0.85), 70 * unit),
            rng.random() < 0.3,
            rng.random() < 0.3,
        )
        for i, shade in enumerate(self._shades()):
            y, end = top + slot * (i + 0.5), start + numbers[i] * scale
            board.card((start + unit, y - bar / 2, end, y + bar / 2), shade)
            within = inside and strong.width(texts[i]) + 10 * unit < end - start and strong.size < bar
            x, align, ink = (
                (end - 5 * unit, "right", on(shade)) if within else (end + 5 * unit, "left", self.ink)
            )
            at = y + strong.size * 0.36
            named = board.put(
                labels[i], body, left if flush else start - 6 * unit, at, self.ink, ("right", "left")[flush]
            )
            if not within and ticks:
                board.card((x, at - 0.8 * strong.size, x + strong.width(texts[i]), at + 2 * unit), self.paper)
            mark = board.put(texts[i], strong, x, at, ink, align)
            if mark is None or named is None:
                return False
            board.page.values[labels[i]] = mark
        return True

    def _pie(self, box: Box, labels: list[str], numbers: list[float], texts: list[str]) -> bool:
        """Slices with their labels around them, the values with the labels or inside."""
        board, rng, unit = self.board, self.rng, self.board.unit
        left, top, right, bottom = box
        body, strong = board.type(self.size), board.type(self.size * rng.uniform(1, 1.25), self.bold)
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
            board.smooth(self.colours[i], _slice(radius, start, end), around)
            angles.append(math.radians((start + end) / 2))
            start = end
        for value, angle in zip(numbers, angles, strict=True):  # gaps between the slices
            edge = angle + math.pi * value / sum(numbers)
            tip = (middle[0] + radius * math.cos(edge), middle[1] + radius * math.sin(edge))
            board.canvas.pen.line((*middle, *tip), fill=self.paper, width=max(1, round(2 * unit)))
        if hole:
            board.disc(*middle, hole, self.paper)
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
                named = board.put(labels[i], body, at, base, self.ink, align)
                mark = board.put(texts[i], strong, *spot, on(self.colours[i]), "center")
            elif twice:
                named = board.put(labels[i], body, at, base, self.ink, align)
                mark = board.put(texts[i], strong, at, base + strong.size * 1.15, self.ink, align)
            else:
                wide = body.width(labels[i] + " ")
                whole = wide + strong.width(texts[i])
                at -= {"center": whole / 2, "right": whole}.get(align, 0.0)
                named = board.put(labels[i], body, at, base, self.ink)
                mark = board.put(texts[i], strong, at + wide, base, self.ink)
            if mark is None or named is None:
                return False
            board.page.values[labels[i]] = mark
        return True


def _slice(radius: float, start: float, end: float) -> Callable[[ImageDraw.ImageDraw, float], None]:
    """Drawing of a slice of a pie, from `start` to `end` degrees."""
    return lambda pen, k: pen.pieslice((0, 0, 2 * k * radius, 2 * k * radius), start, end, fill=255)


def _mix(paper: Colour, ink: Colour, share: float) -> Colour:
    """`share` of `ink` on `paper`."""
    red, green, blue = (round((1 - share) * p + share * i) for p, i in zip(paper, ink, strict=True))
    return red, green, blue


def _different(draw: Callable[[], str], count: int) -> list[str]:
    """`count` different texts."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)
