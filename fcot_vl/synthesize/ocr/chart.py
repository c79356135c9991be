"""Charts drawn by matplotlib in varied styles: bars, lines, pies, scatters.

The answer is a Python dict of the plotted data: ``{"type": "bar", "title": ..., "x_label": ..., "y_label": ..., "data":
{series: {category: value}}}``. The data of a pie are ``{label: percent}``, those of a scatter ``{series: [(x, y),
...]}``. Values without a printed label are round enough to be read from the axis.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.fonts import FontError, Language, face, families
from fcot_vl.synthesize.ocr.sheet import Printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905
_COLOURS = ("tab10", "Set2", "Dark2", "Paired", "Pastel1", "Greys", "viridis", "cividis")
_THIN = ("tab10", "Dark2", "Set1", "cividis")  # no pale colours: thin lines and points would be invisible
_MARKERS = "osD^v*"


def make(rng: random.Random, content: Content) -> Printed:
    """Make a chart and its data."""
    labelled = rng.random() < 0.6
    data = chart_data(rng, content, labelled)
    figure = draw(rng, data, content.language, labelled)
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))  # type: ignore[attr-defined]
    return Printed(image.convert("RGB"), "chart", repr(data))


def chart_data(rng: random.Random, content: Content, labelled: bool) -> dict[str, Any]:
    """Draw the data of a chart. If not `labelled`, the values are round enough to be read from an axis."""
    kind = rng.choices(("bar", "line", "pie", "scatter"), (0.4, 0.25, 0.15, 0.2))[0]
    keep = _face(content.language).keep
    data: dict[str, Any] = {"type": kind, "title": keep(content.title())}
    if kind == "pie":
        labels = _distinct(rng, content, rng.randint(3, 7))
        return data | {"data": dict(zip(labels, _shares(rng, len(labels)), strict=True))}
    data |= {"x_label": keep(content.words(1, 2)), "y_label": keep(content.words(1, 2))}
    if kind == "scatter":
        data["data"] = {name: _points(rng) for name in _distinct(rng, content, rng.randint(1, 3))}
        return data
    series = _distinct(rng, content, rng.choice((1, 1, 2, 3, 4)))
    categories = _categories(rng, content, rng.randint(3, 8))
    top = rng.choice((10, 50, 100, 500, 1000, 20000))
    labelled = labelled and not (kind == "line" and len(series) > 1)
    data["data"] = {
        name: {label: _value(rng, top, 100 if labelled else 20) for label in categories} for name in series
    }
    return data


def _face(language: Language) -> Any:
    return face(families("print", language)[0])


def _distinct(rng: random.Random, content: Content, count: int) -> list[str]:
    """Return `count` different short names."""
    keep = _face(content.language).keep
    found: dict[str, None] = {}
    while len(found) < count:
        name = keep(rng.choice((lambda: content.words(1, 2), content.place))()).strip()
        found[name if name and name not in found else f"{name} {len(found) + 1}".strip()] = None
    return list(found)


def _categories(rng: random.Random, content: Content, count: int) -> list[str]:
    draw = rng.random()
    if draw < 0.3:
        first = rng.randint(1980, 2025 - count)
        return [str(first + i) for i in range(count)]
    if draw < 0.5:
        first = rng.randint(0, 12 - count)
        if content.language == "zh":
            return [f"{i + 1}月" for i in range(first, first + count)]
        return _MONTHS[first : first + count]
    return _distinct(rng, content, count)


def _value(rng: random.Random, top: int, steps: int) -> float | int:
    """Draw a value between a twentieth of `top` and `top`, from `steps` equal steps."""
    value = round(rng.randint(steps // 20, steps) * top / steps, 2)
    return int(value) if value == int(value) else value


def _shares(rng: random.Random, count: int) -> list[int]:
    """Draw whole percentages, each at least 3, that sum to 100."""
    cuts = sorted(rng.sample(range(1, 100 - 3 * count), count - 1))
    return [b - a + 3 for a, b in zip([0, *cuts], [*cuts, 100 - 3 * count], strict=True)]


def _points(rng: random.Random) -> list[tuple[int, int]]:
    """Draw points around a line, sorted by x, with distinct x."""
    slope, start, spread = rng.uniform(-0.9, 0.9), rng.uniform(20, 80), rng.uniform(2, 20)
    points = {}
    for _ in range(rng.randint(4, 10)):
        x = rng.randint(0, 100)
        points[x] = min(100, max(0, round(start + slope * (x - 50) + rng.gauss(0, spread))))
    return sorted(points.items())


def draw(rng: random.Random, data: dict[str, Any], language: Language, labelled: bool) -> Figure:
    """Draw the chart of `data` in a random style. `labelled` prints the values of bars and lines."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "text.parse_math": False,  # a price is not a formula
        "axes.unicode_minus": False,
        "axes.facecolor": rng.choice(["white", "white", "#f4f4f4", "#eaeaf2", "#fffaf0"]),
        "axes.spines.top": rng.random() < 0.5,
        "axes.spines.right": rng.random() < 0.5,
        "axes.grid": rng.random() < 0.6,
        "axes.grid.axis": rng.choice(["both", "y", "y"]),
        "axes.axisbelow": True,
        "grid.linestyle": rng.choice(["-", "--", ":"]),
        "grid.alpha": rng.uniform(0.3, 0.9),
        "font.size": rng.randint(9, 13),
        "lines.linewidth": rng.uniform(1.0, 3.0),
    } | _font(rng, language)
    with mpl.rc_context(style):
        size = (rng.uniform(6, 10), rng.uniform(4.5, 7))
        figure = Figure(figsize=size, dpi=rng.randint(90, 130), layout="tight")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        series = data["data"]
        count = len(series)
        colours = mpl.colormaps[
            rng.choice(_THIN if data["type"] in ("line", "scatter") else _COLOURS)
        ].resampled(max(count, 3) + 1)
        palette = [colours(i + (1 if count < colours.N else 0)) for i in range(count)]
        axes.set_title(data["title"], wrap=True, fontsize=style["font.size"] * rng.uniform(1.1, 1.4))
        if data["type"] == "bar":
            _bars(rng, axes, data, palette, labelled)
        elif data["type"] == "line":
            _lines(rng, axes, data, palette, labelled)
        else:
            {"pie": _pie, "scatter": _scatter}[data["type"]](rng, axes, data, palette)
        if data["type"] != "pie":
            if count > 1 or rng.random() < 0.5:
                axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=rng.random() < 0.5)
            elif count == 1:  # the only series must be named somewhere
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
        figure.canvas.draw()  # inside the context, because text reads its settings when it is drawn
    return figure


def _font(rng: random.Random, language: Language) -> dict[str, Any]:
    """Return the settings that make matplotlib print with an installed family."""
    from matplotlib import font_manager

    # The small sizes of UMing are bitmaps, which matplotlib does not print at all.
    usable = [family for family in families("print", language) if family.name != "AR PL UMing CN"]
    if not usable:
        raise FontError("charts in Chinese need another font than AR PL UMing: apt install fonts-noto-cjk")
    chosen = rng.choice(usable)
    path = face(chosen).path
    entry = font_manager.FontProperties(fname=path)
    name = entry.get_name()
    if not any(known.fname == path for known in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(path)
    return {"font.family": [name]}


def _bars(rng: random.Random, axes: Axes, data: dict[str, Any], palette: list[Any], labelled: bool) -> None:
    series = data["data"]
    labels = list(next(iter(series.values())))
    across = rng.random() < 0.3
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [k + (i - (len(series) - 1) / 2) * width for k in range(len(labels))]
        plot = axes.barh if across else axes.bar
        bars = plot(
            places, list(values.values()), width * 0.92, color=palette[i], label=name, edgecolor="0.3", lw=0.6
        )
        if labelled:
            size = 9 if len(series) * len(labels) < 16 else 7
            axes.bar_label(bars, fmt="{:g}", fontsize=size, padding=2)
    if across:
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel(data["y_label"])
        axes.set_ylabel(data["x_label"])
        return
    axes.set_xticks(range(len(labels)), labels, **_turned(labels))
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])


def _turned(labels: list[str]) -> dict[str, Any]:
    """Return the settings that rotate long labels, so that they do not overlap."""
    if sum(2 if ord(c) > 0x2E80 else 1 for label in labels for c in label) + 2 * len(labels) > 52:
        return {"rotation": 35, "ha": "right"}
    return {}


def _lines(rng: random.Random, axes: Axes, data: dict[str, Any], palette: list[Any], labelled: bool) -> None:
    marked = rng.random() < 0.8
    single = len(data["data"]) == 1  # the labels of several lines would overlap
    axes.grid(visible=not (labelled and single), axis="y")
    labels = list(next(iter(data["data"].values())))
    for i, (name, values) in enumerate(data["data"].items()):
        marker = _MARKERS[i % len(_MARKERS)] if marked else None
        axes.plot(
            range(len(labels)), list(values.values()), color=palette[i], marker=marker, label=name, ms=5
        )
        for k, value in enumerate(values.values()):
            if labelled and single:
                axes.annotate(
                    f"{value:g}", (k, value), (0, 5), textcoords="offset points", ha="center", size=8
                )
    axes.set_xticks(range(len(labels)), labels, **_turned(labels))
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])


def _pie(rng: random.Random, axes: Axes, data: dict[str, Any], palette: list[Any]) -> None:
    hole = rng.random() < 0.3
    axes.pie(
        list(data["data"].values()),
        labels=list(data["data"]),
        colors=[(*colour[:3], 0.75) for colour in palette],
        autopct="%d%%",
        startangle=rng.uniform(0, 360),
        pctdistance=0.8 if hole else rng.uniform(0.6, 0.75),
        wedgeprops={"edgecolor": "white", "width": 0.45 if hole else None},
    )


def _scatter(rng: random.Random, axes: Axes, data: dict[str, Any], palette: list[Any]) -> None:
    for i, (name, points) in enumerate(data["data"].items()):
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, color=palette[i], marker=_MARKERS[i], label=name, s=rng.uniform(25, 60))
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])
    step = rng.choice((5, 10))
    low = min(min(point) for points in data["data"].values() for point in points)
    axes.set_xticks(range(0, 101, step))
    axes.set_yticks(range(math.floor(min(low, 0) / step) * step, 101, step))
    axes.tick_params(labelsize=7)
    axes.grid(True)
