"""Figure of all evaluated models, ranked at equal visual tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish
from fcot_vl.report.budgets import budget_name, budgets
from fcot_vl.report.figures.style import caption, style
from fcot_vl.report.retention import retention, retention_interval
from fcot_vl.report.run_data import ModelResults, RunData


def ranking_figure(run: RunData, path: Path) -> Path | None:
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
    shown: list[ModelResults] = []
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


def _named(model: ModelResults) -> str:
    tokens = model.mean("visual_tokens_layer_mean")
    return model.variant.short_label + (f" ({tokens:.1f})" if tokens is not None else "")
