"""Figure of the re-alignment losses by step (paper, Fig. 4)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.report.figures.style import caption, student_color
from fcot_vl.report.run_data import LossCurve, RunData


def loss_figure(run: RunData, path: Path) -> Path | None:
    """Draw the re-alignment losses by step (paper, Fig. 4): every seed faint, their mean bold."""
    names = [n for n in ("kl", "ce") if any(n in c.losses for c in run.curves)]
    if not names:
        return None
    figure = Figure(figsize=(4.6 * len(names) + 1.2, 3.9))
    panels = list(np.atleast_1d(figure.subplots(1, len(names))))
    titles = {"kl": "KL (teacher ‖ student)", "ce": "cross-entropy"}
    for panel, name in zip(panels, names, strict=True):
        clean(panel, "y")
        students: dict[str, list[LossCurve]] = defaultdict(list)
        for curve in sorted(run.curves, key=lambda c: (c.compress_ratio, c.label)):
            if name in curve.losses:
                students[curve.label].append(curve)
        for label, curves in students.items():
            color = student_color(curves[0])
            _curves(panel, [(c.step, c.losses[name]) for c in curves], color, label)
        panel.set_title(titles[name], fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("step", fontsize=8.5, color=FAINT)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("nats per answer token", fontsize=8.5, color=FAINT)
    legend(panels)
    seeds = sorted({c.seed for c in run.curves})
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    more = f"Stage 1, {which}; bold: mean over seeds, smoothed over 5% of the steps."
    return finish(figure, path, caption(run, [], more), "Re-alignment losses")


def _curves(panel: Axes, curves: list[tuple[list[int], list[float]]], color: str, label: str) -> None:
    for step, values in curves:
        panel.plot(step, values, color=color, linewidth=0.7, alpha=0.28)
    shortest = min(len(step) for step, _ in curves)
    mean = np.mean([values[:shortest] for _, values in curves], axis=0)
    window = max(1, shortest // 20)
    padded = np.pad(mean, (window // 2, window - 1 - window // 2), mode="edge")
    smooth = np.convolve(padded, np.ones(window) / window, mode="valid")
    panel.plot(curves[0][0][:shortest], smooth, color=color, linewidth=2, label=label)
