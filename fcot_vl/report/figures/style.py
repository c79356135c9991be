"""Colors and markers of the models, and the captions: common to all figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcot_vl.common.plotting import FAINT, INK
from fcot_vl.report.run_data import LossCurve, ModelResults, RunData
from fcot_vl.report.variant import Variant

RATIO_COLORS = {1: "#57606a", 2: "#0b66a8", 4: "#0f9d75", 8: "#7a4fbf", 16: "#b2377f"}
COMPRESSOR_COLORS = {
    "pooling": "#e08a00",
    "qformer": "#c2185b",
    "conv2d": "#5b7f2b",
    "c_abstractor": "#1f7a8c",
    "ldpv2": "#7a4fbf",
    "token_packer": "#b23c17",
}
BASELINE_STYLE = {  # color, marker
    "fastv": ("#e05d0b", "s"),
    "random": ("#9a8478", "v"),
    "uniform": ("#c79a00", "^"),
    "smaller_page": ("#a4418f", "D"),
    "fewer_tiles": ("#6d3b8c", "d"),
    "pyramiddrop": ("#b23c17", "p"),
    "sparsevlm": ("#d98c5f", "h"),
    "visionzip": ("#1f7a8c", "<"),
    "vispruner": ("#3fa7a0", ">"),
    "prumerge": ("#5b7f2b", "X"),
    "divprune": ("#c2185b", "*"),
    "tome": ("#4d5bb0", "P"),
}
MERGED_MARKERS = {"average": "P", "task-arithmetic": "v", "shapley": "*"}


def style(model: ModelResults) -> dict[str, Any]:
    """Return color and marker of a model: students by ratio, baselines by method, re-aligned and control hollow."""
    v = model.variant
    if v.method != "none":
        color, marker = BASELINE_STYLE.get(v.method, (FAINT, "P"))
        hollow = v.method == "fastv" and (v.layer or 0) == 1
        return {"color": color, "marker": marker, "markerfacecolor": "white" if hollow else color}
    color = student_color(v)
    hollow = v.stage in ("realign", "control")
    marker = MERGED_MARKERS.get(v.merged.split(",")[0], "X") if v.merged else "o"
    return {"color": color, "marker": marker, "markerfacecolor": "white" if hollow else color}


def student_color(student: Variant | LossCurve) -> str:
    """Return the color of a student: that of its compressor if it is not the default one, else that of its ratio."""
    if student.compressor in COMPRESSOR_COLORS:
        return COMPRESSOR_COLORS[student.compressor]
    return RATIO_COLORS.get(student.compress_ratio, INK)


def caption(run: RunData, models: Sequence[ModelResults], more: str = "") -> str:
    """Return one paragraph with models and ratios, data, commit, hardware and date."""
    facts = run.provenance()
    ratios = sorted(
        {m.variant.compress_ratio for m in models} | {c.compress_ratio for c in run.curves if not models}
    )
    return (
        (f"{more} " if more else "")
        + f"Teacher {facts['model']}; compress ratio {', '.join(map(str, ratios))}; {facts['samples']} test pages, "
        f"data {facts['data']}; commit {facts['commit']}; {facts['hardware']}; {facts['date']}."
    )
