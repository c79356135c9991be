"""Figures of a report, drawn from `RunData` only, each with a caption that gives its content and provenance.

`report.py` decides where they appear. The panels compare models at equal visual tokens, which is the main question of a
report.
"""

from __future__ import annotations

import difflib
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fcot_vl.common.plotting import DPI, FAINT, INK, clean, finish, legend
from fcot_vl.report.results import (
    Judged,
    LossCurve,
    RunData,
    Variant,
    density_retention,
    retention,
    retention_interval,
)

RIGHT, WRONG = INK, "#d1242f"
RATIO_COLOURS = {1: "#57606a", 2: "#0b66a8", 4: "#0f9d75", 8: "#7a4fbf", 16: "#b2377f"}
COMPRESSOR_COLOURS = {
    "pooling": "#e08a00",
    "qformer": "#c2185b",
    "conv2d": "#5b7f2b",
    "c_abstractor": "#1f7a8c",
    "ldpv2": "#7a4fbf",
    "token_packer": "#b23c17",
}
PEER_STYLE = {  # colour, marker
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
BUDGET_NAMES = {
    0.5: "half of the visual tokens",
    0.25: "a quarter of the visual tokens",
    0.125: "an eighth of the visual tokens",
}


def style(model: Judged) -> dict[str, Any]:
    """Return colour and marker of a model: students by ratio, baselines by method, re-aligned and control hollow."""
    v = model.variant
    if v.method != "none":
        colour, marker = PEER_STYLE.get(v.method, (FAINT, "P"))
        hollow = v.method == "fastv" and (v.layer or 0) == 1
        return {"color": colour, "marker": marker, "markerfacecolor": "white" if hollow else colour}
    colour = student_colour(v)
    hollow = v.stage in ("realign", "control")
    marker = MERGED_MARKERS.get(v.merged.split(",")[0], "X") if v.merged else "o"
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if hollow else colour}


def student_colour(student: Variant | LossCurve) -> str:
    """Return the colour of a student: that of its compressor if it is not the default one, else that of its ratio."""
    if student.compressor in COMPRESSOR_COLOURS:
        return COMPRESSOR_COLOURS[student.compressor]
    return RATIO_COLOURS.get(student.compress_ratio, INK)


def budgets(run: RunData) -> list[tuple[float, list[Judged]]]:
    """Group the models by the share of visual tokens they keep, largest share first, without the share 1.

    The shares are those of the students, or those of all baselines if there are no students yet. A baseline joins a
    group by its nominal share. If no student has this share, it joins by its share averaged over the decoder's layers.
    """
    every = {j.variant.nominal_keep for j in run.judged if j.variant.nominal_keep < 1}
    students = {j.variant.nominal_keep for j in run.judged if j.variant.compress_ratio > 1}
    whole = run.teacher.mean("visual_tokens_layer_mean")

    def belongs(model: Judged, share: float) -> bool:
        nominal = model.variant.nominal_keep
        if nominal in students or not students or nominal == 1:
            return nominal == share
        cost = model.mean("visual_tokens_layer_mean")
        return bool(whole and cost and abs(cost / whole - share) < 0.02 * share)

    shares = sorted(students or every, reverse=True)
    return [(share, [j for j in run.judged if belongs(j, share)]) for share in shares]


def _trained_and_fastv(run: RunData) -> list[tuple[float, list[Judged]]]:
    """Return `budgets` with only trained models and FastV (paper, Fig. 1); `peers.png` ranks the other baselines."""
    return [
        (share, [model for model in models if model.variant.method in ("none", "fastv")])
        for share, models in budgets(run)
    ]


def budget_name(share: float) -> str:
    return BUDGET_NAMES.get(share, f"{share:.3g} of the visual tokens")


def caption(run: RunData, models: Sequence[Judged], more: str = "") -> str:
    """Return one paragraph with models and ratios, data, commit, hardware and date."""
    facts = run.provenance()
    ratios = sorted(
        {j.variant.compress_ratio for j in models} | {c.compress_ratio for c in run.curves if not models}
    )
    return (
        (f"{more} " if more else "")
        + f"Teacher {facts['model']}; compress ratio {', '.join(map(str, ratios))}; {facts['samples']} test pages, "
        f"data {facts['data']}; commit {facts['commit']}; {facts['hardware']}; {facts['date']}."
    )


def retention_figure(run: RunData, path: Path) -> Path | None:
    """Draw retention by task with 95% intervals, one panel per token budget.

    Returns None if only the teacher was evaluated.
    """
    found = _trained_and_fastv(run)
    if not found:
        return None
    rows = [*run.tasks, "mean"]
    figure = Figure(figsize=(4.3 * len(found) + 2.4, 0.52 * len(rows) + 1.6))
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharey=True)))
    shown: list[Judged] = []
    for panel, (share, models) in zip(panels, found, strict=True):
        models = [*run.find("control"), *models]
        shown += models
        clean(panel, "x")
        panel.axvline(100, color=INK, linewidth=1, zorder=1)
        panel.axhspan(len(rows) - 1.5, len(rows) - 0.5, color="#f4f6f8", zorder=0)
        offsets = np.linspace(-0.34, 0.34, len(models)) if len(models) > 1 else [0.0]
        for model, offset in zip(models, offsets, strict=True):
            _dots(panel, run, model, rows, float(offset))
        panel.set_title(budget_name(share), fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("score as % of the teacher's", fontsize=8.5, color=FAINT)
    panels[0].set_yticks(range(len(rows)), [r.replace("_", " ") for r in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    legend(panels)
    more = "Bars: 95% paired bootstrap over pages; scores averaged over seeds first."
    return finish(figure, path, caption(run, shown, more), "What is kept of the teacher, task by task")


def _dots(panel: Axes, run: RunData, model: Judged, rows: list[str], offset: float) -> None:
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


def density_figure(run: RunData, path: Path) -> Path | None:
    """Draw retention against text density (characters per visual token of the teacher), one panel per budget.

    Returns None if there are no budgets or no densities.
    """
    found = _trained_and_fastv(run)
    bands = run.densities
    if not found or not bands:
        return None
    figure = Figure(figsize=(4.3 * len(found) + 2.4, 4.1))
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharey=True)))
    shown: list[Judged] = []
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
            colour = student_colour(curves[0])
            _curves(panel, [(c.step, c.losses[name]) for c in curves], colour, label)
        panel.set_title(titles[name], fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("step", fontsize=8.5, color=FAINT)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("nats per answer token", fontsize=8.5, color=FAINT)
    legend(panels)
    seeds = sorted({c.seed for c in run.curves})
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    more = f"Stage 1, {which}; bold: mean over seeds, smoothed over 5% of the steps."
    return finish(figure, path, caption(run, [], more), "Re-alignment losses")


def _curves(panel: Axes, curves: list[tuple[list[int], list[float]]], colour: str, label: str) -> None:
    for step, values in curves:
        panel.plot(step, values, color=colour, linewidth=0.7, alpha=0.28)
    shortest = min(len(step) for step, _ in curves)
    mean = np.mean([values[:shortest] for _, values in curves], axis=0)
    window = max(1, shortest // 20)
    padded = np.pad(mean, (window // 2, window - 1 - window // 2), mode="edge")
    smooth = np.convolve(padded, np.ones(window) / window, mode="valid")
    panel.plot(curves[0][0][:shortest], smooth, color=colour, linewidth=2, label=label)


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
        for model in run.judged:
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
    return finish(figure, path, caption(run, run.judged, more), "What a page costs and what is kept")


def _seconds(run: RunData, model: Judged) -> float | None:
    """Return the median seconds of the bench, or the mean of the evaluation if there is no bench."""
    if not run.bench:
        return model.mean("seconds_per_sample")
    row = run.timing(model.variant)
    return None if row is None else float(row["seconds"]["end_to_end"]["median"])


def sample_figure(
    run: RunData,
    path: Path,
    page: Image.Image | None,
    question: str,
    reference: str,
    answers: list[tuple[Judged, str, float]],
) -> Path:
    """Draw one test page: the page, the question, the reference, and the answers of all models with mistakes in red."""
    columns, rows = 62, 15
    blocks: list[tuple[str, str, float | None, str]] = [("reference", reference, None, INK)]
    blocks += [(j.variant.label, text, score, str(style(j)["color"])) for j, text, score in answers]
    heights = [0.34 + 0.155 * len(_wrap(text, columns, rows)) for _, text, _, _ in blocks]
    question_lines = textwrap.wrap(question, 70) or [""]
    tall = max(3.6, sum(heights) + 0.2 * len(question_lines) + 1.0)
    figure = Figure(figsize=(11, tall))
    left = figure.add_axes((0.012, 0.45 / tall, 0.40, 1 - 0.98 / tall))
    left.set_axis_off()
    if page is not None:
        left.imshow(np.asarray(page), interpolation="antialiased", aspect="equal")
        left.set_anchor("NW")
        left.add_patch(_frame(page))
    y = tall - 0.62
    x = 0.435
    for line in question_lines:
        figure.text(x, y / tall, line, fontsize=9.5, color=INK, style="italic", va="top")
        y -= 0.2
    y -= 0.1
    for (label, text, score, colour), height in zip(blocks, heights, strict=True):
        shown = label if score is None else f"{label}   {100 * score:.0f}"
        figure.text(x, y / tall, shown, fontsize=8, weight="bold", color=colour, va="top")
        lines = _wrap(text, columns, rows)
        marks = _mistakes(text, reference) if score is not None else [False] * len(text)
        right, wrong = _layers(lines, text, marks)
        for number, pair in enumerate(zip(right, wrong, strict=True), 1):
            at = (y - 0.15 - 0.155 * number) / tall
            for line, ink in zip(pair, (RIGHT, WRONG), strict=True):
                figure.text(x, at, line, fontsize=7.6, family="DejaVu Sans Mono", color=ink, parse_math=False)
        y -= height
    facts = run.provenance()
    ratios = ", ".join(map(str, sorted({j.variant.compress_ratio for j, _, _ in answers})))
    text = (
        f"Number: the score, 0 to 100. Red: differs from the reference. Teacher {facts['model']}; compress ratio "
        f"{ratios}; data {facts['data']}; commit {facts['commit']}; {facts['hardware']}; {facts['date']}."
    )
    figure.text(0.012, 0.08 / tall, "\n".join(textwrap.wrap(text, 189)), fontsize=7, color=FAINT, va="bottom")
    task = path.stem.partition("-")[2].replace("_", " ")
    figure.text(0.012, 1 - 0.27 / tall, task, fontsize=12.5, weight="bold", color=INK, va="center")
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def _frame(page: Image.Image) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, -0.5), page.width, page.height, fill=False, edgecolor="#b8c0c8", linewidth=1)


def _wrap(text: str, columns: int, rows: int) -> list[str]:
    """Cut `text` into at most `rows` lines of at most `columns` characters.

    If it is longer, the last line gives the number of omitted lines. No character is dropped before that line.
    """
    lines = [
        line[at : at + columns] for line in text.split("\n") for at in range(0, max(len(line), 1), columns)
    ]
    return (
        lines if len(lines) <= rows else [*lines[: rows - 1], f"... and {len(lines) - rows + 1} more lines"]
    )


def _mistakes(text: str, reference: str) -> list[bool]:
    """Mark every character of `text` with True if it is not matched by the reference."""
    marks = [True] * len(text)
    for block in difflib.SequenceMatcher(None, text, reference, autojunk=False).get_matching_blocks():
        marks[block.a : block.a + block.size] = [False] * block.size
    return marks


def _layers(lines: list[str], text: str, marks: list[bool]) -> tuple[list[str], list[str]]:
    """Return the lines twice, first with only the right and then with only the wrong characters, blanks elsewhere."""
    right, wrong = [], []
    at = 0
    for line in lines:
        while at < len(text) and text[at] == "\n":
            at += 1
        if text[at : at + len(line)] != line:  # the line with the number of omitted lines
            right.append(line)
            wrong.append("")
            continue
        flags = marks[at : at + len(line)]
        right.append("".join(" " if bad else c for c, bad in zip(line, flags, strict=True)))
        wrong.append("".join(c if bad else " " for c, bad in zip(line, flags, strict=True)))
        at += len(line)
    return right, wrong
