"""Shared style of all figures: colors, panels, a title above and a caption below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, GRID = "#22272e", "#6b7480", "#e3e6ea"
DPI = 160


def clean(axes: Axes, grid: str) -> None:
    """Apply the shared style to a panel.

    Args:
        grid: Axis of the grid lines: `x`, `y` or `both`.
    """
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side in ("left", "bottom"))
        axes.spines[side].set_color("#b8c0c8")
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)


def legend(axes: Sequence[Axes]) -> None:
    """Draw one legend for all panels, with every name once, to the right of the last panel.

    A figure that is too low for all names becomes higher.
    """
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    names = [textwrap.fill(label, 34) for label in handles]
    figure = axes[-1].get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    entries = sum(0.21 + 0.14 * name.count("\n") for name in names)  # inches
    figure.set_size_inches(width, max(height, entries + 1.3))  # with title and caption
    axes[-1].legend(
        handles.values(),
        names,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        labelspacing=0.7,
    )


def finish(figure: Figure, path: Path, text: str, title: str) -> Path:
    """Lay out and save a figure, with a title above and a caption below it."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, int(width * 17.2))
    below = (0.17 * len(lines) + 0.18) / height
    above = 1 - 0.42 / height
    figure.tight_layout(rect=(0, below, 1, above))
    figure.text(0.012, 1 - 0.27 / height, title, fontsize=12.5, weight="bold", color=INK, va="center")
    figure.text(0.012, 0.08 / height, "\n".join(lines), fontsize=7, color=FAINT, va="bottom", linespacing=1.4)
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path
