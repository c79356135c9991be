"""Draw `merge.png`: Shapley value and weight of every checkpoint, and the score by size of the coalition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcot_vl.common.plotting import FAINT, INK, clean, finish

VALUE, WEIGHT, LEFT_OUT = "#0b66a8", "#0f9d75", "#b4bac2"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw three panels from the content of `merge.json` after a Shapley merge."""
    rows = record["checkpoints"]
    names = [f"{number}  {Path(row['folder']).name[:24]}" for number, row in enumerate(rows, 1)]
    figure = Figure(figsize=(11.5, 2.4 + 0.32 * max(5, len(rows))))
    values, weights, sizes = figure.subplots(1, 3, width_ratios=(1.1, 0.9, 1.1))
    at = np.arange(len(rows))
    clean(values, "x")
    errors = [row["standard_error"] or 0.0 for row in rows]
    colors = [VALUE if row["weight"] > 0 else LEFT_OUT for row in rows]
    values.barh(
        at,
        [row["shapley"] for row in rows],
        color=colors,
        height=0.6,
        xerr=errors if any(errors) else None,
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
    )
    values.axvline(0, color=INK, linewidth=1)
    values.set_yticks(at, names)
    values.invert_yaxis()
    values.set_title(
        "Shapley value" + (", ± standard error" if any(errors) else ""), fontsize=9.5, color=INK, loc="left"
    )
    clean(weights, "x")
    weights.barh(at, [row["weight"] for row in rows], color=WEIGHT, height=0.6)
    for y, row in zip(at, rows, strict=True):
        weights.text(row["weight"], y, f" {row['weight']:.3f}", va="center", fontsize=8, color=INK)
    weights.set_yticks(at, [str(number) for number in range(1, len(rows) + 1)])
    weights.set_xlim(0, 1.25 * max(row["weight"] for row in rows))
    weights.invert_yaxis()
    weights.set_title("weight in the merge", fontsize=9.5, color=INK, loc="left")
    _sizes(sizes, record["coalitions"])
    finish(figure, path, _caption(record), "Shapley values of the checkpoints")


def _sizes(panel: Axes, coalitions: list[dict[str, Any]]) -> None:
    """Draw every coalition as a dot above its size, and the mean per size as a line."""
    clean(panel, "y")
    by_size: dict[int, list[float]] = {}
    for row in coalitions:
        by_size.setdefault(len(row["members"]), []).append(row["score"])
    for size, scores in by_size.items():
        spread = np.linspace(-0.14, 0.14, len(scores)) if len(scores) > 1 else [0.0]
        panel.plot(size + np.asarray(spread), scores, "o", color=VALUE, alpha=0.55, markersize=4, linewidth=0)
    found = sorted(by_size)
    panel.plot(found, [float(np.mean(by_size[size])) for size in found], "-", color=INK, linewidth=1.4)
    panel.set_xticks(found, ["base" if size == 0 else str(size) for size in found])
    panel.set_xlabel("checkpoints in the coalition; line: mean", fontsize=8.5, color=FAINT)
    panel.set_title("score of the coalition's average", fontsize=9.5, color=INK, loc="left")


def _caption(record: dict[str, Any]) -> str:
    scored_by = record["scored_by"]
    by = (
        f"data {scored_by['data'][:12]}"
        if "data" in scored_by
        else f"command: {scored_by['score_command'][:90]}"
    )
    how = f"{record['permutations']} orders" if record["permutations"] else "exact"
    return f"{how}, {len(record['coalitions'])} coalitions scored; {by}; {record['date'][:10]}, {record['hardware']}"
