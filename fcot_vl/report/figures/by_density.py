"""Figure of retention by text density, one panel per token budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.budgets import budget_name, trained_and_fastv
from fcot_vl.report.figures.style import caption, style
from fcot_vl.report.retention import density_retention
from fcot_vl.report.run_data import ModelResults, RunData


def density_figure(run: RunData, path: Path) -> Path | None:
    """Draw retention against text density (characters per visual token of the teacher), one panel per budget.

    Returns None if there are no budgets or no densities.
    """
    found = trained_and_fastv(run)
    bands = run.densities
    if not found or not bands:
        return None
    figure = Figure(figsize=(4.3 * len(found) + 2.4, 4.1))
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharey=True)))
    shown: list[ModelResults] = []
    counts = {b: run.teacher.results[0]["density"][b]["n"] for b in bands}
    for panel, (share, models) in zip(panels, found, strict=True):
        shown += models
        clean(panel, "y")
        panel.axhline(100, color=INK, linewidth=1, zorder=1)
        for model in models:
            cells = [density_retention(model, run.teacher, b) for b in bands]
            points = [(i, *c) for i, c in enumerate(cells) if c[0] is not None]
            look = style(model)
            dashed = "--" if model.variant.stage == "realign" else "-"
            at, values = [i for i, _, _ in points], [100 * float(v) for _, v, _ in points if v is not None]
            panel.plot(
                at,
                values,
                dashed,
                markersize=5,
                linewidth=1.6,
                label=model.variant.short_label,
                zorder=3,
                **look,
            )
            if model.variant.method != "none" or model.variant.stage == "realign":
                continue  # the shaded intervals of all models would hide the lines
            bounds = [(i, b) for i, _, b in points if b]
            panel.fill_between(
                [i for i, _ in bounds],
                [100 * b[0] for _, b in bounds],
                [100 * b[1] for _, b in bounds],
                color=look["color"],
                alpha=0.10,
                linewidth=0,
            )
        panel.set_xticks(range(len(bands)), [f"{b}\nn={counts[b]}" for b in bands])
        panel.set_xlabel("printed characters per visual token of the teacher", fontsize=8.5, color=FAINT)
        panel.set_title(budget_name(share), fontsize=9.5, color=INK, loc="left")
    panels[0].set_ylabel("score as % of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_ylim(bottom=0)
    legend(panels)
    more = "All tasks pooled within a band. Shade (students): 95% paired bootstrap over pages."
    return finish(
        figure, path, caption(run, shown, more), "Where compression breaks: retention by text density"
    )
