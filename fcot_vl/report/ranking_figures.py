"""Figures that compare all methods of a run: by ratio (paper, Fig. 3), and ranked at equal visual tokens.

They share styles and captions with `report_figures.py`, and are drawn from `RunData` only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.figures import budget_name, budgets, caption, style
from fcot_vl.report.results import USUAL, Judged, RunData, retention, retention_interval

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


def _lines(run: RunData) -> dict[str, list[Judged]]:
    """Group the models that differ only in their share, by their name in the legend."""
    students = {j.variant.nominal_keep for j in run.judged if j.variant.compress_ratio > 1}
    lines: dict[str, list[Judged]] = {}
    for model in run.judged:
        variant = model.variant
        if variant.method == "none":
            other = any(getattr(variant, key) not in (None, usual) for key, usual in USUAL.items())
            if variant.compress_ratio == 1 or variant.merged or other:
                continue
            name = "student, re-aligned only" if variant.stage == "realign" else "student"
        elif variant.method in BY_RATIO and (variant.nominal_keep in students or not students):
            name = variant.short_label
        else:
            continue
        lines.setdefault(name, []).append(model)
    return lines


def _line(panel: Axes, run: RunData, name: str, models: list[Judged], row: str, shares: list[float]) -> None:
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


def peers_figure(run: RunData, path: Path) -> Path | None:
    """Draw all models at each token budget, best first, one panel per budget.

    Returns None if there are no training-free baselines.
    """
    found = [
        (share, models) for share, models in budgets(run) if any(m.variant.method != "none" for m in models)
    ]
    if not found:
        return None
    longest = max(len(models) for _, models in found)
    figure = Figure(figsize=(5.0 * len(found) + 0.4, 0.27 * longest + 1.8))
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharex=True)))
    shown: list[Judged] = []
    for panel, (share, models) in zip(panels, found, strict=True):
        ranked = sorted(models, key=lambda m: -(retention(m, run.teacher, run.tasks) or 0.0))
        shown += ranked
        clean(panel, "x")
        panel.axvline(100, color=INK, linewidth=1, zorder=1)
        for y, model in enumerate(ranked):
            look, bounds = style(model), retention_interval(model, run.teacher, run.tasks)
            if bounds:
                panel.plot([100 * b for b in bounds], [y, y], color=look["color"], linewidth=1.6, alpha=0.55)
            value = retention(model, run.teacher, run.tasks)
            if value is not None:
                panel.plot([100 * value], [y], linestyle="none", markersize=5.5, zorder=3, **look)
        panel.set_yticks(range(len(ranked)), [_named(model) for model in ranked])
        for tick, model in zip(panel.get_yticklabels(), ranked, strict=True):
            tick.set_fontweight("bold" if model.variant.method == "none" else "normal")
        panel.set_ylim(longest - 0.4, -0.6)
        panel.set_title(budget_name(share), fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("mean score as % of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_xlim(left=0)
    more = (
        "In brackets: visual tokens a page, mean over the decoder's layers. Bars: 95% paired bootstrap over pages. "
        "A budget holds what has it by name, and what has it as the mean over layers."
    )
    return finish(figure, path, caption(run, shown, more), "Who reads best at equal tokens")


def _named(model: Judged) -> str:
    tokens = model.mean("visual_tokens_layer_mean")
    return model.variant.short_label + (f" ({tokens:.1f})" if tokens is not None else "")
