"""Figure of retention by share of visual tokens, one panel per task (paper, Fig. 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.figures.style import caption, style
from fcot_vl.report.retention import retention, retention_interval
from fcot_vl.report.run_data import ModelResults, RunData
from fcot_vl.report.variant import DEFAULT_OPTIONS

BY_RATIO = ("fastv", "fewer_tiles", "random")  # baselines drawn as a line; the ranking shows all of them


def ratio_figure(run: RunData, path: Path) -> Path | None:
    """Draw retention by share of visual tokens, one panel per task and one for their mean.

    Returns None if there are fewer than two shares.
    """
    lines = _lines(run)
    shares = sorted({model.variant.nominal_keep for line in lines.values() for model in line}, reverse=True)
    if len(shares) < 2:
        return None
    rows = ["mean", *run.tasks]
    across = min(5, len(rows))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(2.3 * across + 2.6, 2.2 * down + 1.2))
    panels = list(np.atleast_1d(figure.subplots(down, across, sharex=True, sharey=True)).flat)
    for panel, row in zip(panels, rows, strict=False):
        clean(panel, "y")
        panel.axhline(100, color=INK, linewidth=1, zorder=1)
        for name, models in lines.items():
            _line(panel, run, name, models, row, shares)
        panel.set_title(row.replace("_", " "), fontsize=9, color=INK, loc="left")
        panel.set_xticks(range(len(shares)), [f"{share:.3g}" for share in shares])
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    for panel in panels[::across]:
        panel.set_ylabel("% of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_ylim(bottom=0)
    legend([*panels[: len(rows)], panels[across - 1]])
    more = "Across: nominal share of visual tokens kept. Shade (students): 95% paired bootstrap over pages."
    shown = [model for line in lines.values() for model in line]
    return finish(figure, path, caption(run, shown, more), "What is kept, by ratio")


def _lines(run: RunData) -> dict[str, list[ModelResults]]:
    """Group the models that differ only in their share, by their name in the legend."""
    students = {m.variant.nominal_keep for m in run.models if m.variant.compress_ratio > 1}
    lines: dict[str, list[ModelResults]] = {}
    for model in run.models:
        variant = model.variant
        if variant.method == "none":
            other = any(
                getattr(variant, key) not in (None, default) for key, default in DEFAULT_OPTIONS.items()
            )
            if variant.compress_ratio == 1 or variant.merged or other:
                continue
            name = "student, re-aligned only" if variant.stage == "realign" else "student"
        elif variant.method in BY_RATIO and (variant.nominal_keep in students or not students):
            name = variant.short_label
        else:
            continue
        lines.setdefault(name, []).append(model)
    return lines


def _line(
    panel: Axes, run: RunData, name: str, models: list[ModelResults], row: str, shares: list[float]
) -> None:
    tasks = run.tasks if row == "mean" else [row]
    points = [(shares.index(m.variant.nominal_keep), m, retention(m, run.teacher, tasks)) for m in models]
    known = [(at, m, value) for at, m, value in points if value is not None]
    look = style(models[0])
    dashed = "--" if models[0].variant.stage == "realign" else "-"
    panel.plot(
        [at for at, _, _ in known],
        [100 * value for _, _, value in known],
        dashed,
        linewidth=1.5,
        markersize=4,
        label=name,
        zorder=3,
        **look,
    )
    bounds = [(at, retention_interval(m, run.teacher, tasks)) for at, m, _ in known]
    if models[0].variant.method == "none" and not dashed.startswith("--") and all(b for _, b in bounds):
        low, high = ([100 * b[side] for _, b in bounds if b] for side in (0, 1))
        panel.fill_between([at for at, _ in bounds], low, high, color=look["color"], alpha=0.12, linewidth=0)
