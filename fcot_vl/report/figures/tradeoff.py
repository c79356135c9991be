"""Figure of retention against its cost in visual tokens and in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.figures.style import caption, style
from fcot_vl.report.retention import retention, retention_interval
from fcot_vl.report.run_data import ModelResults, RunData


def tradeoff_figure(run: RunData, path: Path) -> Path | None:
    """Draw mean retention against its cost: visual tokens (mean over layers), and measured seconds per page."""
    figure = Figure(figsize=(11, 4.3))
    panels = list(np.atleast_1d(figure.subplots(1, 2, sharey=True)))
    timed = "bench: one page at a time" if run.bench else "as the batched evaluation took them"
    names = ("visual tokens per page, mean over layers", f"seconds per page, end to end ({timed})")
    drawn = 0
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        clean(panel, "both")
        panel.axhline(100, color=INK, linewidth=1, zorder=1)
        costs = []
        for model in run.models:
            cost = _seconds(run, model) if number else model.mean("visual_tokens_layer_mean")
            value = retention(model, run.teacher, run.tasks)
            if cost is None or value is None:
                continue
            costs.append(cost)
            bounds = retention_interval(model, run.teacher, run.tasks)
            look = style(model)
            if bounds:
                span = [100 * b for b in bounds]
                panel.plot([cost, cost], span, color=look["color"], linewidth=1.3, alpha=0.5)
            panel.plot(
                [cost],
                [100 * value],
                linestyle="none",
                markersize=6.5,
                label=model.variant.short_label,
                zorder=3,
                **look,
            )
        drawn += len(costs)
        panel.set_xlabel(name, fontsize=8.5, color=FAINT)
        panel.set_xlim(0, 1.06 * max(costs, default=1))
    if not drawn:
        return None
    panels[0].set_ylabel("mean score as % of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_ylim(bottom=0)
    legend(panels)
    more = "Bars: 95% paired bootstrap over pages."
    return finish(figure, path, caption(run, run.models, more), "What a page costs and what is kept")


def _seconds(run: RunData, model: ModelResults) -> float | None:
    """Return the median seconds of the bench, or the mean of the evaluation if there is no bench."""
    if not run.bench:
        return model.mean("seconds_per_sample")
    row = run.timing(model.variant)
    return None if row is None else float(row["seconds"]["end_to_end"]["median"])
