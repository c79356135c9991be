"""Figure of retention by task, one panel per token budget (paper, Fig. 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.budgets import budget_name, trained_and_fastv
from fcot_vl.report.figures.style import caption, style
from fcot_vl.report.retention import retention, retention_interval
from fcot_vl.report.run_data import ModelResults, RunData


def retention_figure(run: RunData, path: Path) -> Path | None:
    """Draw retention by task with 95% intervals, one panel per token budget.

    Returns None if only the teacher was evaluated.
    """
    found = trained_and_fastv(run)
    if not found:
        return None
    rows = [*run.tasks, "mean"]
    figure = Figure(figsize=(4.3 * len(found) + 2.4, 0.52 * len(rows) + 1.6))
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharey=True)))
    shown: list[ModelResults] = []
    for panel, (share, models) in zip(panels, found, strict=True):
        models = [*run.find("control"), *models]
        shown += models
        clean(panel, "x")
        panel.axvline(100, color=INK, linewidth=1, zorder=1)
        panel.axhspan(len(rows) - 1.5, len(rows) - 0.5, color="#f4f6f8", zorder=0)
        offsets = np.linspace(-0.34, 0.34, len(models)) if len(models) != 1 else [0.0]
        for model, offset in zip(models, offsets, strict=True):
            _dots(panel, run, model, rows, float(offset))
        panel.set_title(budget_name(share), fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("score as % of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_yticks(range(len(rows)), [r.replace("_", " ") for r in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    legend(panels)
    more = "Bars: 95% paired bootstrap over pages; scores averaged over seeds first."
    return finish(figure, path, caption(run, shown, more), "What is kept of the teacher, task by task")


def _dots(panel: Axes, run: RunData, model: ModelResults, rows: list[str], offset: float) -> None:
    label: str | None = model.variant.short_label
    for y, row in enumerate(rows):
        tasks = run.tasks if row == "mean" else [row]
        value = retention(model, run.teacher, tasks)
        if value is None:
            continue
        bounds = retention_interval(model, run.teacher, tasks)
        look = style(model)
        if bounds:
            span = [100 * b for b in bounds]
            panel.plot(span, [y + offset] * 2, color=look["color"], linewidth=1.3, alpha=0.55, zorder=2)
        panel.plot(
            [100 * value], [y + offset], linestyle="none", markersize=4.6, zorder=3, label=label, **look
        )
        label = None
